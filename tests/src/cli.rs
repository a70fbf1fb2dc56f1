//! The command line of the lab.

use clap::builder::TypedValueParser as _;
use clap::{Parser, Subcommand};

/// The workbench of Spillway: see it work, run Kafka to play with, test everything.
#[derive(Debug, Parser)]
#[command(
    name = "lab",
    bin_name = "./lab",
    after_help = "Begin with `./lab demo`: two small brokers, an agent, a link that is cut, a collector. It needs no Java and no root.\n\
                  `./lab test` is what the continuous integration runs; it needs Java 17 and Maven. More in docs/lab.md."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands of the lab.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Watch records travel from an edge Kafka to a central one, exactly once, over a link that is cut
    ///
    /// Starts two brokers, the real agent and collector and a link between them, writes sensor telemetry, cuts the link once,
    /// and compares both sides record for record. Exits with 1 unless nothing was lost, duplicated or out of order. Everything
    /// is removed at the end, also by Ctrl-C.
    Demo {
        /// Use real Apache Kafka (needs Java 17 and Maven) in place of the embedded brokers
        #[arg(long)]
        kafka: bool,
        /// How long records are written
        #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(5..=3600))]
        seconds: u64,
        /// Records a second
        #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..=200_000))]
        rate: u32,
    },
    /// Run Apache Kafka as edge and as centre, in the background
    Kafka {
        /// What to do.
        #[command(subcommand)]
        command: KafkaCommand,
    },
    /// Run every test: unit, property, golden, conformance, and the suites on real Kafka
    ///
    /// Without Java 17 and Maven the suites on real Kafka are left out, and the exit code is 1, unless `--without-kafka` says
    /// that this is meant.
    Test {
        /// Leave out what needs real Kafka
        #[arg(long)]
        without_kafka: bool,
        /// Run only tests whose name contains this
        filter: Option<String>,
    },
}

/// `lab kafka …`
#[derive(Debug, Subcommand)]
pub enum KafkaCommand {
    /// Start both clusters and print their addresses and how to use them
    Up {
        /// Brokers of each cluster
        #[arg(long, default_value_t = 1, value_parser = clap::builder::PossibleValuesParser::new(["1", "3"]).map(|text| usize::from(text == "3") * 2 + 1))]
        brokers: usize,
    },
    /// End both clusters and remove their data
    Down,
}
