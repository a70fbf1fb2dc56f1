//! `lab bench spill`: what the spill costs. How fast it takes frames beside a bare fsynced log, what it writes to the disk, and what a backlog of
//! gigabytes means for the agent: time to start, memory, and the disk after the drain.
//!
//! | module | what it is for |
//! |---|---|
//! | [`append`] | the store beside a bare log, in a process of its own |
//! | [`backlog`] | the real agent between two Kafka clusters, cut off, filled and drained |

pub mod append;
pub mod backlog;

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use self::append::Appends;
use self::backlog::Sizes;
use crate::build;

/// What `lab bench spill` is asked for.
#[derive(Debug, Clone, Args)]
pub struct SpillOptions {
    /// Smaller and fewer of everything: a first impression in some minutes
    #[arg(long)]
    pub quick: bool,
    /// Runs of the comparison with a bare log; the medians are reported [default: 3, or 1]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=99))]
    pub runs: Option<u32>,
    /// MiB that are appended to each in a run [default: 128, or 32]
    #[arg(long, value_parser = clap::value_parser!(u64).range(16..=65_536))]
    pub append_mib: Option<u64>,
    /// Times that the agent's spill is filled and drained [default: 3, or 1]
    #[arg(long, value_parser = clap::value_parser!(u32).range(0..=999))]
    pub cycles: Option<u32>,
    /// MiB of records of each [default: 256, or 64]
    #[arg(long, value_parser = clap::value_parser!(u64).range(16..=65_536))]
    pub cycle_mib: Option<u64>,
    /// MiB of records of the backlog with which the agent is started [default: 4096, or 256]. On the disk it takes three times as much
    #[arg(long, value_parser = clap::value_parser!(u64).range(16..=65_536))]
    pub backlog_mib: Option<u64>,
    /// Only the comparison with a bare log, which needs no Kafka
    #[arg(long)]
    pub without_agent: bool,
    /// Where the comparison writes: the disk that is meant [default: a temporary directory]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Take agent and collector from this directory in place of building them: for comparing two builds
    #[arg(long, value_name = "DIR")]
    pub binaries: Option<PathBuf>,
}

impl SpillOptions {
    fn runs(&self) -> u32 {
        self.runs.unwrap_or(if self.quick { 1 } else { 3 })
    }

    fn append_mib(&self) -> u64 {
        self.append_mib.unwrap_or(if self.quick { 32 } else { 128 })
    }

    fn sizes(&self) -> Sizes {
        let (cycles, cycle_mib, backlog_mib) = if self.quick { (1, 64, 256) } else { (3, 256, 4096) };
        Sizes {
            cycles: self.cycles.unwrap_or(cycles),
            cycle_mib: self.cycle_mib.unwrap_or(cycle_mib),
            backlog_mib: self.backlog_mib.unwrap_or(backlog_mib),
        }
    }
}

/// Runs the benchmark and prints the report.
///
/// # Errors
/// When something does not build or start, or records are lost, duplicated or out of order.
pub fn run(options: &SpillOptions) -> Result<()> {
    println!("Building the comparison as the agent ships; the first time this takes some minutes.");
    let appends = Appends::measure(&build::spill_bench()?, options.dir.as_deref(), options.append_mib(), options.runs())?;
    println!("\n{}", appends.table());
    if options.without_agent {
        return Ok(());
    }
    let binaries = match &options.binaries {
        Some(dir) => dir.clone(),
        None => build::release_binaries()?,
    };
    println!("{}", backlog::measure(&binaries, options.sizes())?);
    Ok(())
}
