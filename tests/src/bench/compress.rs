//! `lab bench compress`: what the same backlog of telemetry costs on a thin line, through Spillway and through MirrorMaker 2.
//!
//! Real Kafka at both ends of a WAN, agent or MirrorMaker 2 at the edge ([`super::thin`]).
//!
//! | module | what it is for |
//! |---|---|
//! | [`records`] | the telemetry (pure) |
//! | [`arrivals`] | how much of it has arrived |
//! | [`contestants`] | who carries it |
//! | [`quic`] | the same records over stock quinn, as they are |
//! | [`outcome`] | the table (pure) |

pub mod arrivals;
pub mod contestants;
pub mod outcome;
pub mod quic;
pub mod records;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::Args;

use self::arrivals::Arrivals;
use self::contestants::Running;
use self::outcome::{Outcome, table};
use self::records::{Backlog, PATTERN, TOPICS};
use super::link::line::LineOptions;
use super::peer::{Peer, among, chosen};
use super::thin::{Ends, Field, ThinOptions};
use crate::java;
use crate::oracle::remote_topic;
use crate::reaper::Reaper;
use crate::wan::link::LinkCounters;
use crate::wan::{End, Wan, order};

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
    /// Only these
    #[arg(long, value_name = "WHO", value_delimiter = ',', num_args = 1.., value_parser = among(&Peer::PROGRAMS))]
    pub with: Vec<Peer>,
    /// A contestant that takes longer is ended, and it is told how far it came
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub limit_minutes: u64,
    /// What both programs are started with.
    #[command(flatten)]
    pub thin: ThinOptions,
}

/// Measures and prints the table.
///
/// # Errors
/// When something does not start, or a contestant ends by itself.
pub fn run(options: &CompressOptions) -> Result<()> {
    // Before anything is in a namespace, where no registry can be reached.
    java::ready()?;
    let (binaries, seed) = (options.thin.programs()?, options.thin.seed());
    let queue = options.queue.as_deref().map(order::size).transpose()?;
    let wan = Wan::start(seed)?;
    let ends = Ends::start(&wan, true)?;
    let field = Field::new(&wan, &ends, PATTERN, binaries, options.thin.mm2_heap);
    let backlog = wan.inside(End::Edge, || Backlog::produce(&field.source, options.records))?;
    println!(
        "{} records, {:.1} MB of keys and values, in {} partitions. Line: {}, queue {} kB; seed {seed}",
        options.records,
        backlog.bytes as f64 / 1e6,
        TOPICS.iter().map(|topic| topic.partitions).sum::<i32>(),
        options.line,
        options.line.queue_bytes(queue) / 1000,
    );
    options.line.orders(queue).iter().try_for_each(|order| wan.order(order).map(drop))?;
    let limit = Duration::from_secs(options.limit_minutes * 60);
    let mut outcomes = Vec::new();
    for peer in chosen(&options.with, &Peer::PROGRAMS) {
        if let Peer::MirrorMaker(mirror) = peer
            && let Err(error) = field.door(mirror.congestion)
        {
            println!("\n{peer} is left out: {error:#}");
            continue;
        }
        println!("\n{peer}");
        let race = Race { peer, wan: &wan, records: options.records, limit, started: Instant::now(), before: wan.counters() };
        let outcome = match peer {
            Peer::Quinn(congestion) => quic::run(&race, congestion),
            _ => carry(race, &field),
        };
        if outcome.is_err() {
            println!("logs and configuration files stay in {}", Reaper::global()?.keep_logs().display());
        }
        let outcome = outcome.with_context(|| peer.to_string())?;
        println!("{}", outcome.line());
        outcomes.push(outcome);
    }
    println!("\n{}", table(&outcomes, options.records, backlog.bytes));
    Ok(())
}

/// One contestant's.
#[derive(Debug)]
struct Race<'a> {
    peer: Peer,
    wan: &'a Wan,
    records: u64,
    limit: Duration,
    started: Instant,
    before: LinkCounters,
}

impl Race<'_> {
    /// Until all records have arrived, or the time is over; answers how long that took. `arrived` waits a little and answers how many there are.
    fn watch(&self, mut arrived: impl FnMut() -> Result<u64>) -> Result<Duration> {
        let mut told = Instant::now();
        loop {
            let (arrived, took) = (arrived()?, self.started.elapsed());
            if arrived >= self.records || took >= self.limit {
                return Ok(took);
            }
            if told.elapsed() >= LINE_EVERY {
                told = Instant::now();
                let megabytes = self.counters().offered_bytes() as f64 / 1e6;
                println!(
                    "  {:>4} s  {:>5.1} %  {megabytes:.2} MB on the wire",
                    took.as_secs(),
                    arrived as f64 / self.records as f64 * 100.0
                );
            }
        }
    }

    fn counters(&self) -> LinkCounters {
        self.wan.counters().since(&self.before)
    }
}

/// With records from one Kafka to the other.
fn carry(race: Race<'_>, field: &Field<'_>) -> Result<Outcome> {
    let site = Running::site(race.peer);
    let remote: Vec<(String, i32)> = TOPICS.iter().map(|topic| (remote_topic(site, topic.name), topic.partitions)).collect();
    let mut arrivals = field.wan.inside(End::Centre, || {
        for (name, partitions) in &remote {
            field.centre.create_topic(name, *partitions, &[])?;
        }
        Arrivals::start(&field.centre, &remote)
    })?;
    let race = Race { started: Instant::now(), before: field.wan.counters(), ..race };
    let mut running = Running::start(race.peer, field)?;
    let took = race.watch(|| {
        running.check()?;
        arrivals.look(LOOK_EVERY)
    })?;
    // Its connections are open still.
    running.is_as_meant(field)?;
    // They belong to what has arrived; the time does not.
    let aftermath = Instant::now();
    while aftermath.elapsed() < AFTERMATH {
        arrivals.look(LOOK_EVERY)?;
    }
    Ok(Outcome { peer: race.peer, took, arrived: arrivals.distinct(), copies: arrivals.copies(), counters: race.counters() })
}
