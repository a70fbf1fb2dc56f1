//! `lab demo`: an edge cluster, an agent, a link that is cut for a moment and then for long, a collector and a central cluster, on this
//! machine, and a judgement at the end.
//!
//! | module | what it is for |
//! |---|---|
//! | [`load`] | writes sensor telemetry at a steady rate |
//! | [`tail`] | reads the centre as a consumer would, and measures latency |
//! | [`cuts`] | when the link is cut (pure) |
//! | [`live`] | the status line |
//! | [`table`] | the result |

pub mod cuts;
pub mod live;
pub mod load;
pub mod table;
pub mod tail;

use std::io::{IsTerminal as _, Write as _};
use std::ops::Range;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::bench::usage::disk_bytes;
use crate::cluster::Cluster;
use crate::oracle::remote_topic;
use crate::spill_status::SpillStatus;
use crate::stage::{Stage, StageOptions};
use crate::telemetry::{TOPICS, now_ms};
use crate::wait::wait_until;
use cuts::{Cut, Cuts};
use live::{Look, StatusLine};
use load::Load;
use table::Outcome;
use tail::Tail;

/// The site of the demo.
const SITE: &str = "plant-7";

/// Until the first record of every partition has arrived.
const WARM_UP_LIMIT: Duration = Duration::from_secs(60);

/// Until everything has arrived once writing has ended.
const DRAIN_LIMIT: Duration = Duration::from_secs(60);

/// The spill begins so soon, or people would have to wait for it; by default it is 10 s.
const SPILL_AFTER: &str = "2s";

/// Most bytes of the spill; its files have an eighth of that, so that one sees them come and go.
const SPILL_MAX: &str = "16MiB";

/// What a drained spill may keep on the disk: one file and what is written beside it.
const SPILL_LEFT_BYTES: u64 = 3 * 1024 * 1024;

/// Bits a second of the line for a record a second: enough for the compressed records some five times over, so that a backlog drains in some
/// seconds, and one sees it.
const LINE_BITS_PER_RECORD: u32 = 1_200;

/// The line, at least, in bits a second.
const LINE_MIN_BITS: u32 = 1_000_000;

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
    let spill = stage.spill_dir();
    let line = options.rate.saturating_mul(LINE_BITS_PER_RECORD).max(LINE_MIN_BITS);
    for (key, value) in [
        ("spill.after", SPILL_AFTER.to_owned()),
        ("spill.max_bytes", SPILL_MAX.to_owned()),
        ("link.rate_max", format!("{}kbit", line / 1_000)),
        // A dead line is given up soon, as on a line that is known to be bad.
        ("link.idle_timeout", "5s".to_owned()),
        ("link.keep_alive", "2s".to_owned()),
    ] {
        stage.agent.config.set(key, value);
    }
    stage.start()?;
    println!("  edge      {}", stage.source.bootstrap());
    println!("  centre    {}", stage.centre.bootstrap());
    println!("  line      {:.1} Mbit/s; when it is down for {SPILL_AFTER}, the spill in {}", f64::from(line) / 1e6, spill.display());
    println!("  agent     http://127.0.0.1:{}/status  /metrics", stage.agent.admin_port());
    println!("  collector http://127.0.0.1:{}/status  /metrics", stage.collector(0)?.admin_port());
    let played = play(&mut stage, options, &spill);
    if played.is_err() {
        crate::reaper::Reaper::global()?.keep_logs();
    }
    let outcome = played.with_context(|| format!("logs stay in {}", stage.dir().display()))?;
    println!("\n{outcome}");
    Ok(outcome.is_good())
}

fn play(stage: &mut Stage, options: DemoOptions, spill: &Path) -> Result<Outcome> {
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
    let (cuts, most_spilled) = write_and_cut(stage, options, &mut load, &tail)?;
    stage.wait_drained(&topics, DRAIN_LIMIT)?;
    wait_until("every record can be read at the centre", DRAIN_LIMIT, || Ok(tail.records() >= load.records()))?;
    wait_until("the disk of the spill is given back", DRAIN_LIMIT, || Ok(disk_bytes(spill) <= SPILL_LEFT_BYTES))?;

    let (traffic, spill_left_bytes) = (stage.relay.traffic(), disk_bytes(spill));
    let spill_written_bytes = SpillStatus::of(&stage.agent)?.written_bytes;
    let agent_exit = stage.agent.terminate()?;
    let collector_exit = stage.collector(0)?.terminate()?;
    ensure!(agent_exit.success(), "the agent did not end well: {agent_exit}");
    ensure!(collector_exit.success(), "the collector did not end well: {collector_exit}");
    let report = stage.judge(&topics)?;
    let waited: Vec<Range<i64>> = cuts.begun().iter().map(Cut::waited).collect();
    let (all, link_up) = tail.latencies(&waited)?;
    Ok(Outcome {
        report,
        raw_bytes: load.raw_bytes(),
        traffic,
        cuts: cuts.begun().to_vec(),
        spilled_records: most_spilled,
        spill_written_bytes,
        spill_left_bytes,
        all,
        link_up,
    })
}

/// Writes for as long as was asked for and until everything has arrived, with the link cut meanwhile. Answers the cuts, and the most records that the
/// spill was seen to hold.
fn write_and_cut(stage: &Stage, options: DemoOptions, load: &mut Load, tail: &Tail) -> Result<(Cuts, u64)> {
    let (mut cuts, mut most_spilled) = (Cuts::new(options.duration), 0);
    let mut line = StatusLine::new(std::io::stdout().is_terminal());
    let started = Instant::now();
    load.start(options.rate);
    let mut writing = true;
    while writing || (tail.records() < load.records() && started.elapsed() < options.duration + DRAIN_LIMIT) {
        std::thread::sleep(FRAME);
        if writing && started.elapsed() >= options.duration {
            load.stop()?;
            writing = false;
        }
        let cut = cuts.pass(started.elapsed(), now_ms());
        stage.relay.set_cut(cut);
        let behind = load.records().saturating_sub(tail.records());
        if !cut && behind < u64::from(options.rate) / CAUGHT_UP_PART {
            cuts.caught_up(now_ms());
        }
        let spill = SpillStatus::of(&stage.agent).ok();
        most_spilled = most_spilled.max(spill.as_ref().map_or(0, |spill| spill.records));
        let look = Look {
            link: if cut { "CUT" } else { "up" },
            records_in: load.records(),
            records_out: tail.records(),
            up_bytes: stage.relay.traffic().up_bytes,
            spill,
        };
        line.show(started.elapsed(), &look);
    }
    line.end();
    std::io::stdout().flush()?;
    cuts.caught_up(now_ms());
    Ok((cuts, most_spilled))
}
