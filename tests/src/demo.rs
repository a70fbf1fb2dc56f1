//! `lab demo`: an edge cluster, an agent, a link that is cut once, a collector and a central cluster, on this machine, and a
//! judgement at the end.
//!
//! | module | what it is for |
//! |---|---|
//! | [`load`] | writes sensor telemetry at a steady rate |
//! | [`tail`] | reads the centre as a consumer would, and measures latency |
//! | [`live`] | the status line |
//! | [`table`] | the result |

pub mod live;
pub mod load;
pub mod table;
pub mod tail;

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::cluster::Cluster;
use crate::oracle::remote_topic;
use crate::stage::{Stage, StageOptions};
use crate::telemetry::{TOPICS, now_ms};
use crate::wait::wait_until;
use live::StatusLine;
use load::Load;
use table::Outcome;
use tail::Tail;

/// The site of the demo.
const SITE: &str = "plant-7";

/// Until the first record of every partition has arrived.
const WARM_UP_LIMIT: Duration = Duration::from_secs(60);

/// Until everything has arrived once writing has ended.
const DRAIN_LIMIT: Duration = Duration::from_secs(60);

/// When the link is cut and for how long, in hundredths of the writing time; never longer than [`CUT_MAX`].
const CUT_AT_PERCENT: u32 = 40;
const CUT_FOR_PERCENT: u32 = 20;
const CUT_MAX: Duration = Duration::from_secs(5);

/// The backlog of a cut is worked off once no more is on the way than is written in this part of a second.
const CAUGHT_UP_PART: u64 = 2;

/// Pause between two looks of the status line.
const FRAME: Duration = Duration::from_millis(200);

/// What the demo shall do.
#[derive(Debug, Clone, Copy)]
pub struct DemoOptions {
    /// Real Apache Kafka in place of the embedded brokers.
    pub kafka: bool,
    /// How long records are written.
    pub duration: Duration,
    /// Records a second.
    pub rate: u32,
}

/// Runs the demo. `Ok(true)` means that every record arrived exactly once and in order, although the link was cut.
///
/// # Errors
/// When something does not start, or records do not arrive at all.
pub fn run(options: DemoOptions) -> Result<bool> {
    let brokers = if options.kafka { "Apache Kafka" } else { "embedded brokers" };
    println!("Spillway demo: {brokers} as edge and centre; spillway-agent, QUIC link and spillway-collector between them.");
    let source = Cluster::start("edge", options.kafka)?;
    let centre = Cluster::start("centre", options.kafka)?;
    for topic in TOPICS {
        source.client().create_topic(topic.name, topic.partitions, &[])?;
    }
    let mut stage = Stage::new(StageOptions {
        site: SITE.to_owned(),
        source: source.client(),
        centre: centre.client(),
        include: vec![".*".to_owned()],
        collectors: 1,
    })?;
    stage.start()?;
    println!("  edge      {}", stage.source.bootstrap());
    println!("  centre    {}", stage.centre.bootstrap());
    println!("  agent     http://127.0.0.1:{}/status  /metrics", stage.agent.admin_port());
    println!("  collector http://127.0.0.1:{}/status  /metrics", stage.collector(0)?.admin_port());
    let played = play(&mut stage, options);
    if played.is_err() {
        crate::reaper::Reaper::global()?.keep_logs();
    }
    let outcome = played.with_context(|| format!("logs stay in {}", stage.dir().display()))?;
    println!("\n{outcome}");
    Ok(outcome.is_good())
}

fn play(stage: &mut Stage, options: DemoOptions) -> Result<Outcome> {
    let topics: Vec<&str> = TOPICS.iter().map(|topic| topic.name).collect();
    let mut load = Load::new(&stage.source)?;
    load.one_record_each()?;
    let remote: Vec<String> = topics.iter().map(|topic| remote_topic(SITE, topic)).collect();
    wait_until("the remote topics exist", WARM_UP_LIMIT, || {
        let known = stage.centre.topics()?;
        Ok(remote.iter().all(|topic| known.contains_key(topic)))
    })?;
    let tail = Tail::start(&stage.centre, &remote)?;
    wait_until("the first records have arrived", WARM_UP_LIMIT, || Ok(tail.records() >= load.records()))?;
    tail.start_measuring();

    println!(
        "  {} partitions of {} topics; writing {} records a second for {} s\n",
        load.records(),
        topics.len(),
        options.rate,
        options.duration.as_secs()
    );
    let cut = write_and_cut(stage, options, &mut load, &tail)?;
    stage.wait_drained(&topics, DRAIN_LIMIT)?;
    wait_until("every record can be read at the centre", DRAIN_LIMIT, || Ok(tail.records() >= load.records()))?;

    let traffic = stage.relay.traffic();
    let agent_exit = stage.agent.terminate()?;
    let collector_exit = stage.collector(0)?.terminate()?;
    ensure!(agent_exit.success(), "the agent did not end well: {agent_exit}");
    ensure!(collector_exit.success(), "the collector did not end well: {collector_exit}");
    let report = stage.judge(&topics)?;
    let (all, link_up) = tail.latencies(cut.from_ms..cut.caught_up_ms)?;
    let (cut, catch_up) = (millis(cut.to_ms - cut.from_ms), millis(cut.caught_up_ms - cut.to_ms));
    Ok(Outcome { report, raw_bytes: load.raw_bytes(), traffic, cut, catch_up, all, link_up })
}

/// From when to when the link was cut and when the backlog was worked off, in milliseconds since 1970; 0 for what has not happened.
#[derive(Default)]
struct Cut {
    from_ms: i64,
    to_ms: i64,
    caught_up_ms: i64,
}

fn millis(ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}

fn write_and_cut(stage: &Stage, options: DemoOptions, load: &mut Load, tail: &Tail) -> Result<Cut> {
    let cut_at = options.duration * CUT_AT_PERCENT / 100;
    let cut_for = (options.duration * CUT_FOR_PERCENT / 100).min(CUT_MAX);
    let mut cut = Cut::default();
    let mut line = StatusLine::new(std::io::stdout().is_terminal());
    let started = Instant::now();
    load.start(options.rate);
    while started.elapsed() < options.duration {
        std::thread::sleep(FRAME);
        if cut.from_ms == 0 && started.elapsed() >= cut_at {
            stage.relay.set_cut(true);
            cut.from_ms = now_ms();
        }
        if cut.from_ms != 0 && cut.to_ms == 0 && started.elapsed() >= cut_at + cut_for {
            stage.relay.set_cut(false);
            cut.to_ms = now_ms();
        }
        let behind = load.records().saturating_sub(tail.records());
        if cut.to_ms != 0 && cut.caught_up_ms == 0 && behind < u64::from(options.rate) / CAUGHT_UP_PART {
            cut.caught_up_ms = now_ms();
        }
        let link = if cut.from_ms != 0 && cut.to_ms == 0 { "CUT" } else { "up" };
        line.show(started.elapsed(), link, load.records(), tail.records(), stage.relay.traffic().up_bytes);
    }
    load.stop()?;
    let draining = Instant::now();
    while tail.records() < load.records() && draining.elapsed() < DRAIN_LIMIT {
        std::thread::sleep(FRAME);
        line.show(started.elapsed(), "up", load.records(), tail.records(), stage.relay.traffic().up_bytes);
    }
    line.end();
    std::io::stdout().flush()?;
    if cut.caught_up_ms == 0 {
        cut.caught_up_ms = now_ms();
    }
    Ok(cut)
}
