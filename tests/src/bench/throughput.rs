//! `lab bench throughput`: the same records through Spillway and through MirrorMaker 2, between the same two brokers, one after the other.
//!
//! A workload's records are all at the source before anybody starts. Then the contestants take turns, `--runs` times each, the first of each
//! pair changing places; each run has a site (or cluster alias) and remote topic of its own.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;

use super::contestant::{Contestant, Field, remote};
use super::progress::watch;
use super::report::{self, Figures, Latency};
use super::usage::{Watched, peak_memory_bytes};
use super::workload::{PARTITIONS, WORKLOADS, Workload, parse_name};
use super::{latency, progress};
use crate::build;
use crate::demo::table::{bytes_text, count_text};
use crate::java::Tuning;
use crate::kafka_cluster::{KafkaCluster, KafkaOptions};

/// The name of the latency measurement among the workloads.
const LATENCY: &str = "latency";

/// What `lab bench throughput` is asked for.
#[derive(Debug, Clone, Args)]
pub struct ThroughputOptions {
    /// Only these workloads, with commas: telemetry-1k, telemetry-200, random-1k, random-200, latency
    #[arg(long, value_delimiter = ',', value_parser = workload_name)]
    pub workload: Vec<String>,
    /// Records of each workload; without it 600,000 of 1 KiB and 2,000,000 of 200 bytes, some ten seconds of work
    #[arg(long, value_parser = clap::value_parser!(u64).range(1000..))]
    pub records: Option<u64>,
    /// Runs of each contestant on each workload; the medians are reported
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=99))]
    pub runs: u32,
    /// Measure Spillway alone
    #[arg(long)]
    pub without_mm2: bool,
    /// Take agent and collector from this directory in place of building them: for comparing two builds
    #[arg(long, value_name = "DIR")]
    pub binaries: Option<PathBuf>,
    /// Heap of MirrorMaker 2 in MiB
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u32).range(128..))]
    pub mm2_heap: u32,
    /// tasks.max of MirrorMaker 2; 1 is its default
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub mm2_tasks: u32,
    /// How long latencies are measured in each run
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub latency_seconds: u64,
}

fn workload_name(name: &str) -> Result<String> {
    if name != LATENCY {
        parse_name(name)?;
    }
    Ok(name.to_owned())
}

/// Runs the benchmark and prints the report.
///
/// # Errors
/// When something does not start, or records do not arrive.
pub fn run(options: &ThroughputOptions) -> Result<()> {
    let binaries = match &options.binaries {
        Some(dir) => dir.clone(),
        None => {
            println!("Building agent and collector as they ship; the first time this takes some minutes.");
            build::release_binaries()?
        }
    };
    let (source, centre) = (start_kafka("edge")?, start_kafka("centre")?);
    let field = Field {
        source: crate::client::Client::new(source.bootstrap()),
        centre: crate::client::Client::new(centre.bootstrap()),
        binaries,
        heap_mib: options.mm2_heap,
        tasks: options.mm2_tasks,
    };
    let brokers = [("edge", &source), ("centre", &centre)]
        .into_iter()
        .flat_map(|(name, cluster)| cluster.pids().into_iter().map(|pid| Watched { name: name.to_owned(), pid }))
        .collect();
    let mut bench = Bench { options, field, brokers, run: 0 };
    let wanted = |name: &str| options.workload.is_empty() || options.workload.iter().any(|asked| asked == name);
    let mut tables = vec![report::heading()];
    for workload in WORKLOADS.into_iter().filter(|workload| wanted(workload.name)) {
        tables.push(bench.workload(workload)?);
    }
    if wanted(LATENCY) {
        tables.push(bench.latency()?);
    }
    println!("\n{}", tables.join("\n"));
    Ok(())
}

/// Brokers as they would be run: Kafka's own settings for the Java machine, data on disk.
pub(super) fn start_kafka(label: &str) -> Result<KafkaCluster> {
    let options = KafkaOptions { tuning: Tuning::Server, ..KafkaOptions::new(label) };
    KafkaCluster::start(options.with("log.retention.check.interval.ms", "300000").with("log.segment.delete.delay.ms", "1000"))
}

struct Bench<'o> {
    options: &'o ThroughputOptions,
    field: Field,
    brokers: Vec<Watched>,
    /// Numbers the runs of all workloads.
    run: u32,
}

impl Bench<'_> {
    /// Who runs in this round: both, changing places.
    fn order(&self, round: u32) -> Vec<Contestant> {
        match (self.options.without_mm2, round % 2) {
            (true, _) => vec![Contestant::Spillway],
            (false, 0) => vec![Contestant::Spillway, Contestant::MirrorMaker],
            (false, _) => vec![Contestant::MirrorMaker, Contestant::Spillway],
        }
    }

    fn workload(&mut self, workload: Workload) -> Result<String> {
        let records = self.options.records.unwrap_or(workload.records);
        self.field.source.create_topic(&workload.topic(), PARTITIONS, &[])?;
        let bytes = workload.produce(&self.field.source, records)?;
        println!("  {}: {} records, {} of keys and values, are at the source", workload.name, count_text(records), bytes_text(bytes));
        let (mut spillway, mut mirror_maker) = (Vec::new(), Vec::new());
        for round in 0..self.options.runs {
            for contestant in self.order(round) {
                let figures = self.one(workload, contestant, records)?;
                println!("{}", report::run_line(contestant, &figures));
                match contestant {
                    Contestant::Spillway => spillway.push(figures),
                    Contestant::MirrorMaker => mirror_maker.push(figures),
                }
            }
        }
        self.field.source.delete_topic(&workload.topic())?;
        let spillway = Figures::median(&spillway).context("nothing was measured")?;
        Ok(report::table(&workload, records, &spillway, Figures::median(&mirror_maker).as_ref()))
    }

    fn one(&mut self, workload: Workload, contestant: Contestant, records: u64) -> Result<Figures> {
        self.run += 1;
        let remote = remote(contestant, &workload.topic(), self.run);
        self.field.centre.create_topic(&remote, PARTITIONS, &[])?;
        let running = contestant.start(&self.field, &workload.topic(), self.run)?;
        let watched: Vec<_> = running.watched.iter().chain(&self.brokers).cloned().collect();
        let run = watch(&self.field.centre, &remote, records, running.started, &watched)
            .with_context(|| format!("{} on {}", contestant.name(), workload.name))?;
        let memory = running.watched.iter().map(|process| Ok(progress::as_f64(peak_memory_bytes(process.pid)? / 1024) / 1024.0));
        let memory = memory.collect::<Result<Vec<_>>>()?;
        let own = running.watched.len();
        drop(running);
        self.field.centre.delete_topic(&remote)?;
        Figures::of(&run, own, memory).context("too few samples: ask for more --records")
    }

    fn latency(&mut self) -> Result<String> {
        let duration = Duration::from_secs(self.options.latency_seconds);
        let (mut spillway, mut mirror_maker) = (Vec::new(), Vec::new());
        println!("  latency: {} records/s for {duration:?} each", latency::RATE);
        for round in 0..self.options.runs {
            for contestant in self.order(round) {
                self.run += 1;
                let found = latency::measure(&self.field, contestant, self.run, duration)?;
                println!("    {:<14} p50 {:>5.0} ms   p99 {:>5.0} ms", contestant.name(), found.p50_ms, found.p99_ms);
                match contestant {
                    Contestant::Spillway => spillway.push(found),
                    Contestant::MirrorMaker => mirror_maker.push(found),
                }
            }
        }
        let spillway = Latency::median(&spillway).context("nothing was measured")?;
        Ok(report::latency_table(latency::RATE, spillway, Latency::median(&mirror_maker)))
    }
}
