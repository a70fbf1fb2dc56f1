//! `lab bench compress`: what the same backlog of telemetry costs on a thin line, through Spillway and through MirrorMaker 2.
//!
//! Real Kafka at both ends of a WAN, agent or MirrorMaker 2 at the edge ([`super::thin`]).
//!
//! | module | what it is for |
//! |---|---|
//! | [`records`] | the telemetry (pure) |
//! | [`arrivals`] | how much of it has arrived |
//! | [`contestants`] | who carries it |
//! | [`outcome`] | the table (pure) |

pub mod arrivals;
pub mod contestants;
pub mod outcome;
pub mod records;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::Args;

use self::arrivals::Arrivals;
use self::contestants::Carrier;
use self::outcome::{Outcome, table};
use self::records::{Backlog, PATTERN, TOPICS};
use super::link::line::LineOptions;
use super::thin::Field;
use crate::client::Client;
use crate::java::{self, Tuning};
use crate::kafka_cluster::{KafkaCluster, KafkaOptions};
use crate::oracle::remote_topic;
use crate::reaper::Reaper;
use crate::wan::{End, Wan, order};
use crate::{build, shapes};

/// Between two lines about a contestant.
const LINE_EVERY: Duration = Duration::from_secs(15);

/// Between two looks at the centre.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// After the last record, for what is still on the way: acknowledgements, and copies.
const AFTERMATH: Duration = Duration::from_secs(3);

/// What `lab bench compress` was asked for.
#[derive(Debug, Clone, Args)]
pub struct CompressOptions {
    /// Records of the backlog
    #[arg(long, default_value_t = 300_000, value_parser = clap::value_parser!(u64).range(100..=10_000_000))]
    pub records: u64,
    /// Rate, round trip and loss of the line, the same in both directions
    #[arg(long, default_value = "2Mbit,300ms,2%", value_name = "RATE,RTT,LOSS")]
    pub line: LineOptions,
    /// What waits before the line at most [default: what the line carries in a round trip, 32 kB at least]
    #[arg(long, value_name = "SIZE")]
    pub queue: Option<String>,
    /// Only these: spillway, mm2-default, mm2-tuned (TCP with CUBIC), mm2-default-bbr, mm2-tuned-bbr
    #[arg(long, value_name = "WHO", value_delimiter = ',', num_args = 1..)]
    pub with: Vec<Carrier>,
    /// A contestant that takes longer is ended, and it is told how far it came
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub limit_minutes: u64,
    /// Take agent and collector from this directory in place of building them: for comparing two builds
    #[arg(long, value_name = "DIR")]
    pub binaries: Option<PathBuf>,
    /// Heap of MirrorMaker 2 in MiB
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u32).range(128..))]
    pub mm2_heap: u32,
    /// What is left to chance is drawn from it; a new one if it is not given
    #[arg(long)]
    pub seed: Option<u64>,
}

/// Measures and prints the table.
///
/// # Errors
/// When something does not start, or a contestant ends by itself.
pub fn run(options: &CompressOptions) -> Result<()> {
    // Before anything is in a namespace, where no registry can be reached.
    java::kafka_libs()?;
    let binaries = match &options.binaries {
        Some(dir) => dir.clone(),
        None => {
            println!("Building agent and collector as they ship; the first time this takes some minutes.");
            build::release_binaries()?
        }
    };
    let carriers = if options.with.is_empty() { Carrier::ALL.to_vec() } else { options.with.clone() };
    let queue = options.queue.as_deref().map(order::size).transpose()?;
    let seed = options.seed.unwrap_or_else(shapes::fresh_seed);
    let wan = Wan::start(seed)?;
    println!("Starting Kafka at both ends …");
    let edge = wan.inside(End::Edge, || KafkaCluster::start(KafkaOptions { tuning: Tuning::Server, ..KafkaOptions::new("edge") }))?;
    let central = KafkaOptions { tuning: Tuning::Server, host: End::Centre.address(), ..KafkaOptions::new("centre") };
    let central = wan.inside(End::Centre, || KafkaCluster::start(central))?;
    let (source, centre) = (Client::new(edge.bootstrap()), Client::new(central.bootstrap()));
    let backlog = wan.inside(End::Edge, || Backlog::produce(&source, options.records))?;
    println!(
        "{} records, {:.1} MB of keys and values, in {} partitions. Line: {}, queue {} kB; seed {seed}",
        options.records,
        backlog.bytes as f64 / 1e6,
        TOPICS.iter().map(|topic| topic.partitions).sum::<i32>(),
        options.line,
        options.line.queue_bytes(queue) / 1000,
    );
    options.line.orders(queue).iter().try_for_each(|order| wan.order(order).map(drop))?;
    let field = Field { wan: &wan, source, centre, topics: PATTERN, binaries, heap_mib: options.mm2_heap };
    let limit = Duration::from_secs(options.limit_minutes * 60);
    let mut outcomes = Vec::new();
    for carrier in carriers {
        if let Some(Err(error)) = carrier.congestion().map(|congestion| wan.set_tcp_congestion(congestion.name())) {
            println!("\n{carrier} is left out: {error:#}");
            continue;
        }
        let outcome = race(carrier, &field, options.records, limit);
        if outcome.is_err() {
            println!("logs and configuration files stay in {}", Reaper::global()?.keep_logs().display());
        }
        outcomes.push(outcome.with_context(|| carrier.to_string())?);
    }
    println!("\n{}", table(&outcomes, options.records, backlog.bytes));
    Ok(())
}

fn race(carrier: Carrier, field: &Field<'_>, records: u64, limit: Duration) -> Result<Outcome> {
    let remote: Vec<(String, i32)> = TOPICS.iter().map(|topic| (remote_topic(carrier.site(), topic.name), topic.partitions)).collect();
    let mut arrivals = field.wan.inside(End::Centre, || {
        for (name, partitions) in &remote {
            field.centre.create_topic(name, *partitions, &[])?;
        }
        Arrivals::start(&field.centre, &remote)
    })?;
    println!("\n{carrier}");
    let (started, before) = (Instant::now(), field.wan.counters());
    let mut running = carrier.start(field)?;
    let mut told = Instant::now();
    let took = loop {
        let arrived = arrivals.look(LOOK_EVERY)?;
        let took = started.elapsed();
        if arrived >= records || took >= limit {
            break took;
        }
        running.check()?;
        if told.elapsed() >= LINE_EVERY {
            told = Instant::now();
            let megabytes = field.wan.counters().since(&before).offered_bytes() as f64 / 1e6;
            println!("  {:>4} s  {:>5.1} %  {megabytes:.2} MB on the wire", took.as_secs(), arrived as f64 / records as f64 * 100.0);
        }
    };
    // Its connections are open still.
    carrier.crosses_as_meant(field)?;
    // They belong to what has arrived; the time does not.
    let aftermath = Instant::now();
    while aftermath.elapsed() < AFTERMATH {
        arrivals.look(LOOK_EVERY)?;
    }
    running.was_as_meant()?;
    let outcome =
        Outcome { carrier, took, arrived: arrivals.distinct(), copies: arrivals.copies(), counters: field.wan.counters().since(&before) };
    println!("{}", outcome.line());
    Ok(outcome)
}
