//! `lab bench classes`: what classes and weights are worth on a thin line. The real agent and collector between two embedded brokers, a backlog of bulk, and an alarm
//! every few seconds. [`peers`] stand beside them, TCP and stock quinn, and after them [`mirror`], MirrorMaker 2: none of these has classes.

pub mod mirror;
pub mod peers;
pub mod row;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Args;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use self::peers::Peers;
use super::given;
use super::peer::{Peer, Present, among};
use crate::build;
use crate::client::{Client, NewRecord};
use crate::cluster::Cluster;
use crate::demo::tail::Tail;
use crate::spill_status::SpillStatus;
use crate::stage::{Stage, StageOptions};
use crate::wait::wait_until;
use crate::wan::Wan;
use crate::wan::order::{Change, Order};

/// Bytes of a record of bulk. They are random: shares are of bytes as they are sent, and what compresses well in one frame may do so less in another.
const RECORD_BYTES: usize = 200;

/// Until an alarm is at the centre, at the most.
const ARRIVAL_LIMIT: Duration = Duration::from_secs(120);

/// A queue of the line longer than this drops packets, as the modems of thin lines do.
const LINE_QUEUE: Duration = Duration::from_secs(2);

/// Between two alarms, in milliseconds.
const ALARM_EVERY_MS: std::ops::Range<u64> = 500..2_500;

/// Not measured, at the start.
const WARM_UP: Duration = Duration::from_secs(60);

/// What `lab bench classes` is asked for.
#[derive(Debug, Clone, Args)]
pub struct ClassesOptions {
    /// Rate of the line, in each direction
    #[arg(long, value_name = "RATE", default_value = "50kbit", value_parser = given::bits(8_000..=1_000_000_000))]
    pub line_bits: u64,
    /// Milliseconds of its round trip
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(0..=10_000))]
    pub round_trip_ms: u64,
    /// `link.rate_max` of the agent
    #[arg(long, value_name = "RATE", default_value = "unlimited", value_parser = given::rate_max)]
    pub rate_max: String,
    /// Minutes that are measured of each, after one that is not
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=600))]
    pub minutes: u32,
    /// Only these. MirrorMaker 2 needs Java, and all but Spillway root; who cannot be measured here is left out
    #[arg(long, value_name = "WHO", value_delimiter = ',', num_args = 1.., value_parser = among(&Peer::ALL))]
    pub with: Vec<Peer>,
    /// Take agent and collector from this directory in place of building them: for comparing two builds
    #[arg(long, value_name = "DIR", value_parser = given::programs)]
    pub binaries: Option<PathBuf>,
    /// Without the spill
    #[arg(long)]
    pub without_spill: bool,
}

/// Topics of a run, their rules, and what share each should have; 0 for alarms.
type Field = [(&'static str, &'static str, u32)];

const CLASSES: &Field = &[("alarms", "class = 0", 0), ("first", "class = 1", 8), ("second", "class = 2", 4), ("bulk", "class = 3", 1)];

const WEIGHTS: &Field = &[
    ("alarms", "class = 0", 0),
    ("eight", "class = 3\nweight = 8", 8),
    ("four", "class = 3\nweight = 4", 4),
    ("one", "class = 3\nweight = 1", 1),
];

/// Runs the benchmark and prints the report.
///
/// # Errors
/// When something does not build or start, or nothing arrives.
pub fn run(options: &ClassesOptions) -> Result<()> {
    let Present { ours, bare, mirrors } = Present::of(&options.with)?;
    if ours && options.binaries.is_none() {
        build::binaries()?;
    }
    if !bare.is_empty() {
        println!("TCP and stock quinn beside it: {} min …", u64::from(options.minutes) + WARM_UP.as_secs().div_ceil(60));
    }
    // They take half as long as ours.
    let others = Peers::start(&bare, options);
    for (name, field) in [("classes 1, 2 and 3", CLASSES), ("weights 8, 4 and 1 of class 3", WEIGHTS)].into_iter().filter(|_| ours) {
        println!("{}", measure(options, name, field)?);
    }
    if !bare.is_empty() {
        println!("without classes, one connection for bulk and alarms\n{}", others.table());
    }
    if !mirrors.is_empty() {
        println!("without classes, a topic of bulk and one of alarms");
        mirror::measure(&mirrors, options)?;
    }
    Ok(())
}

/// Gives a WAN the line that is asked for.
fn shape(wan: &Wan, options: &ClassesOptions) -> Result<()> {
    let bytes_in_queue = options.line_bits / 8 * LINE_QUEUE.as_secs();
    let delay = Duration::from_millis(options.round_trip_ms) / 2;
    let changes = vec![Change::Rate(Some(options.line_bits)), Change::Delay(delay), Change::Queue(bytes_in_queue)];
    wan.order(&Order::Shape(None, changes)).map(drop)
}

fn measure(options: &ClassesOptions, name: &str, field: &Field) -> Result<String> {
    println!("{name}: {} min …", u64::from(options.minutes) + WARM_UP.as_secs().div_ceil(60));
    let (edge, centre) = (Cluster::start("edge", false)?, Cluster::start("centre", false)?);
    let (source, central) = (edge.client().with("linger.ms", "0"), centre.client());
    let stage_options = StageOptions {
        site: "thin".to_owned(),
        source: source.clone(),
        centre: central.clone(),
        include: field.iter().map(|(topic, ..)| (*topic).to_owned()).collect(),
        collectors: 1,
    };
    let mut stage = Stage::new(stage_options)?;
    if let Some(dir) = &options.binaries {
        stage.agent.replace_binary(&dir.join("spillway-agent"), &[]);
        stage.collector(0)?.replace_binary(&dir.join("spillway-collector"), &[]);
    }
    for (topic, rule, _) in field {
        stage.agent.config.append(&format!("[[topics.rule]]\nmatch = '{topic}'\n{rule}\n"));
    }
    stage.agent.config.set("link.rate_max", options.rate_max.clone());
    if options.without_spill {
        stage.agent.config.set("spill.max_bytes", "off");
    }
    fill(&source, options, field)?;
    let remotes = field.iter().map(|(topic, ..)| format!("thin.{topic}")).collect::<Vec<_>>();
    for remote in &remotes {
        central.create_topic(remote, 1, &[])?;
    }
    stage.relay.set_rate(Some(options.line_bits / 8), LINE_QUEUE);
    stage.relay.set_delay(Duration::from_millis(options.round_trip_ms) / 2);
    stage.start_collectors()?;
    stage.agent.spawn()?;
    let tails = remotes.iter().map(|remote| Tail::start(&central, std::slice::from_ref(remote))).collect::<Result<Vec<_>>>()?;
    wait_until("bulk arrives", ARRIVAL_LIMIT, || Ok(tails.iter().skip(1).any(|tail| tail.records() > 0)))?;
    let mut report = format!("{name}, {} kbit/s, {} ms, rate_max {}\n", options.line_bits / 1000, options.round_trip_ms, options.rate_max);
    let mut alarms = Alarms::new(&source, "alarms")?;
    alarms.run(WARM_UP)?;
    if let Some(tail) = tails.first() {
        tail.start_measuring();
    }
    let counts = || tails.iter().map(Tail::records).collect::<Vec<_>>();
    let (first, mut before, wire) = (counts(), counts(), stage.relay.traffic().up_bytes);
    for minute in 1..=options.minutes {
        alarms.run(Duration::from_secs(60))?;
        let now = counts();
        shares(&mut report, &format!("minute {minute}"), field, &before, &now)?;
        before = now;
    }
    shares(&mut report, "together", field, &first, &before)?;
    let used = (stage.relay.traffic().up_bytes - wire) as f64 * 8.0 / (f64::from(options.minutes) * 60.0 * options.line_bits as f64);
    writeln!(report, "  the line is used to {:.0} % upwards", used * 100.0)?;
    if let Some(tail) = tails.first() {
        wait_until("the last alarm is at the centre", ARRIVAL_LIMIT, || Ok(tail.records() >= alarms.sent))?;
        let (all, _) = tail.latencies(&[])?;
        writeln!(
            report,
            "  alarms: {} measured, p50 {} ms, p99 {} ms",
            tail.records() - first.first().unwrap_or(&0),
            all.p50.as_millis(),
            all.p99.as_millis()
        )?;
    }
    let written = if options.without_spill { 0 } else { SpillStatus::of(&stage.agent)?.written_bytes };
    writeln!(report, "  through the spill: {:.1} MiB", written as f64 / 1_048_576.0)?;
    Ok(report)
}

/// Writes more of each topic than the line carries in the time.
fn fill(source: &Client, options: &ClassesOptions, field: &Field) -> Result<()> {
    let producer = source.producer()?;
    let mut rng = StdRng::seed_from_u64(7);
    let seconds = u64::from(options.minutes + 2) * 60;
    let records = options.line_bits / 8 * seconds * 3 / RECORD_BYTES as u64;
    for (topic, _, share) in field {
        source.create_topic(topic, 1, &[])?;
        for _ in (0..records).take_while(|_| *share > 0) {
            let value = (0..RECORD_BYTES).map(|_| rng.random()).collect();
            producer.send(topic, 0, &NewRecord { value: Some(value), ..NewRecord::default() })?;
        }
    }
    producer.flush(ARRIVAL_LIMIT)
}

/// Alarms, one every few seconds.
struct Alarms {
    topic: String,
    producer: crate::client::LoadProducer,
    rng: StdRng,
    sent: u64,
}

impl Alarms {
    fn new(source: &Client, topic: &str) -> Result<Self> {
        Ok(Self { topic: topic.to_owned(), producer: source.producer()?, rng: StdRng::seed_from_u64(8), sent: 0 })
    }

    fn run(&mut self, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            // Not in step with anything.
            let pause = Duration::from_millis(self.rng.random_range(ALARM_EVERY_MS));
            std::thread::sleep(pause.min(end.saturating_duration_since(Instant::now())));
            let value = format!("{{\"alarm\":{},\"text\":\"pressure above limit in line {}\"}}", self.sent, self.rng.random::<u16>());
            self.producer.send(&self.topic, 0, &NewRecord { value: Some(value.into_bytes()), ..NewRecord::default() })?;
            self.producer.flush(ARRIVAL_LIMIT)?;
            self.sent += 1;
        }
        Ok(())
    }
}

fn shares(report: &mut String, label: &str, field: &Field, before: &[u64], now: &[u64]) -> Result<()> {
    let sent = before.iter().zip(now).map(|(before, now)| now - before).collect::<Vec<_>>();
    let with = field.iter().zip(&sent).filter(|((_, _, share), _)| *share > 0).collect::<Vec<_>>();
    let (all, whole) = (with.iter().map(|(_, sent)| **sent).sum::<u64>(), with.iter().map(|((_, _, share), _)| share).sum::<u32>());
    ensure!(all > 0, "nothing arrived in {label}");
    write!(report, "  {label:<10}")?;
    for ((topic, _, share), sent) in with {
        let (is, should) = (*sent as f64 / all as f64, f64::from(*share) / f64::from(whole));
        write!(report, "  {topic} {:.1} % (of {:.1} %: {:+.1} %)", is * 100.0, should * 100.0, (is / should - 1.0) * 100.0)?;
    }
    writeln!(report)?;
    Ok(())
}
