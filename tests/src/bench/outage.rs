//! `lab bench outage`: how soon something arrives at the centre once the line is back.
//!
//! All contestants send a trickle (or more, `--bytes`) over the same line at the same time, so that they meet the same outages. An outage takes everything with it, in both directions, and
//! nobody is told.
//!
//! | module | what it is for |
//! |---|---|
//! | [`mod@plan`] | when the line is down (pure) |
//! | [`peer`] | who sends, and what is watched of each |
//! | [`trickle`] | records for those that carry Kafka's |
//! | [`quic`] | stock quinn |
//! | [`outcome`] | the table (pure) |

pub mod outcome;
pub mod peer;
pub mod plan;
pub mod quic;
pub mod trickle;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use self::outcome::{Delay, Outcome, bound, table};
use self::peer::{Entry, enter, passes_without_udp, remote};
use self::plan::{Outage, plan};
use self::trickle::{TOPIC, Writer};
use super::link::line::LineOptions;
use super::peer::{Peer, among, chosen};
use super::thin::{Ends, Field, ThinOptions};
use crate::client::Client;
use crate::java;
use crate::reaper::Reaper;
use crate::wan::{End, Wan};

/// Between two lines about who is waited for.
const LINE_EVERY: Duration = Duration::from_secs(30);

/// Between two looks at who is back.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// From the start, or until the next outage, until everybody has brought something. MirrorMaker 2 takes most of a minute, the way over TCP three handshakes without an answer.
const START_LIMIT: Duration = Duration::from_secs(300);

/// What `lab bench outage` was asked for.
#[derive(Debug, Clone, Args)]
pub struct OutageOptions {
    /// Seconds of the outages; up to half as many more are drawn for each, 30 at most
    #[arg(long, value_name = "SECONDS", value_delimiter = ',', num_args = 1.., default_values_t = [10, 60], value_parser = clap::value_parser!(u64).range(3..=86_400))]
    pub seconds: Vec<u64>,
    /// Outages of each of these lengths
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(0..=1000))]
    pub times: u32,
    /// One more outage at the end, of so many minutes and up to 30 s
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1440))]
    pub minutes: Option<u64>,
    /// Random bytes that each sends every 100 ms
    #[arg(long, default_value_t = 200, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=1_000_000))]
    pub bytes: usize,
    /// Rate, round trip and loss of the line, the same in both directions
    #[arg(long, default_value = "2Mbit,300ms,2%", value_name = "RATE,RTT,LOSS")]
    pub line: LineOptions,
    /// Only these; without any mm2 no Java is needed
    #[arg(long, value_name = "WHO", value_delimiter = ',', num_args = 1.., value_parser = among(&Peer::PROGRAMS))]
    pub with: Vec<Peer>,
    /// Let no UDP pass: Spillway goes over TCP, and stock quinn is left out
    #[arg(long)]
    pub udp_blocked: bool,
    /// Who is not back so long after the line is told as later than that
    #[arg(long, value_name = "SECONDS", default_value_t = 400, value_parser = clap::value_parser!(u64).range(10..=3600))]
    pub limit: u64,
    /// What both programs are started with.
    #[command(flatten)]
    pub thin: ThinOptions,
}

/// Measures and prints the table.
///
/// # Errors
/// When something does not start, or ends by itself.
pub fn run(options: &OutageOptions) -> Result<()> {
    let mut peers = chosen(&options.with, &Peer::PROGRAMS);
    peers.retain(|peer| !options.udp_blocked || passes_without_udp(*peer));
    ensure!(!peers.is_empty(), "nobody is left who passes without UDP");
    let kafka = !Peer::mirrors(&peers).is_empty();
    if kafka {
        // Before anything is in a namespace, where no registry can be reached.
        java::ready()?;
    }
    let (binaries, seed) = (options.thin.programs()?, options.thin.seed());
    let outages = plan(&options.seconds, options.times, options.minutes, seed);
    let wan = Wan::start(seed)?;
    let ends = Ends::start(&wan, kafka)?;
    let field = Field::new(&wan, &ends, TOPIC, binaries, options.thin.mm2_heap);
    for mirror in Peer::mirrors(&peers) {
        if let Err(error) = field.door(mirror.congestion) {
            println!("{} is left out: {error:#}", mirror.name());
            peers.retain(|peer| *peer != Peer::MirrorMaker(mirror));
        }
    }
    let result = race(&field, &peers, &outages, options);
    if result.is_err() {
        println!("logs and configuration files stay in {}", Reaper::global()?.keep_logs().display());
    }
    println!("\n{}", table(&result?, bound(options.line.round_trip)));
    println!("  An outage of 24 h, in virtual time: cargo test -p spillway-link --test link outage -- --nocapture");
    Ok(())
}

fn race(field: &Field<'_>, peers: &[Peer], outages: &[Outage], options: &OutageOptions) -> Result<Vec<Outcome>> {
    let wan = field.wan;
    let topic = |client: &Client, end, name: &str| wan.inside(end, || client.create_topic(name, 1, &[]));
    topic(&field.source, End::Edge, TOPIC)?;
    options.line.orders(None).iter().try_for_each(|order| wan.order(order).map(drop))?;
    if options.udp_blocked {
        wan.tell("udp off")?;
    }
    let mut entries = Vec::new();
    for peer in peers {
        if let Some(remote) = remote(*peer) {
            topic(&field.centre, End::Centre, &remote)?;
        }
        entries.push(enter(*peer, field, options.bytes).with_context(|| peer.to_string())?);
    }
    let _writer = wan.inside(End::Edge, || Writer::start(&field.source, options.bytes))?;
    println!("{}{}; waiting until everybody brings something …", options.line, if options.udp_blocked { ", UDP blocked" } else { "" });
    wait_for_all(&mut entries, START_LIMIT)?;
    entries.iter().try_for_each(|entry| entry.is_as_meant(wan))?;
    let names: Vec<String> = entries.iter().flat_map(Entry::names).map(str::to_owned).collect();
    let took: Duration = outages.iter().map(|outage| outage.pause + outage.length).sum();
    println!("{} outages; {} min and the time until everybody is back, each time\n", outages.len(), took.as_secs().div_ceil(60));
    let mut all = Vec::new();
    for outage in outages {
        if let Err(error) = wait_for_all(&mut entries, START_LIMIT) {
            println!("  {error:#}; going on");
        }
        let delays = play(field, &mut entries, outage, Duration::from_secs(options.limit))?;
        let told: Vec<String> = names.iter().zip(&delays).map(|(name, delay)| format!("{name} {delay}")).collect();
        println!("  {:>6.1} s down: {}", outage.length.as_secs_f64(), told.join(", "));
        all.extend(names.iter().zip(delays).map(|(name, delay)| Outcome { name: name.clone(), nominal: outage.nominal, delay }));
    }
    Ok(all)
}

/// One outage; answers how long after its end each watch has seen something.
fn play(field: &Field<'_>, entries: &mut [Entry<'_>], outage: &Outage, limit: Duration) -> Result<Vec<Delay>> {
    std::thread::sleep(outage.pause);
    let before = field.wan.counters();
    field.wan.tell("down")?;
    std::thread::sleep(outage.length / 2);
    entries.iter_mut().for_each(Entry::arm);
    std::thread::sleep(outage.length - outage.length / 2);
    entries.iter_mut().for_each(Entry::look);
    ensure!(entries.iter().flat_map(Entry::watches).all(|watch| watch.first().is_none()), "something arrived while the line was down");
    let down = field.wan.counters().since(&before);
    ensure!(down.to_centre.down.packets > 0, "nobody has sent anything while the line was down");
    entries.iter_mut().for_each(Entry::arm);
    field.wan.tell("up")?;
    let back = Instant::now();
    let mut told = back;
    loop {
        entries.iter_mut().try_for_each(Entry::check)?;
        tell_missing(entries, &mut told, back);
        entries.iter_mut().for_each(Entry::look);
        let firsts: Vec<Option<Instant>> = entries.iter().flat_map(Entry::watches).map(|watch| watch.first()).collect();
        if back.elapsed() >= limit || firsts.iter().all(Option::is_some) {
            let delay =
                |first: Option<Instant>| first.map_or(Delay::Later(limit), |first| Delay::After(first.saturating_duration_since(back)));
            return Ok(firsts.into_iter().map(delay).collect());
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Every now and then, who has been waited for since `since`.
fn tell_missing(entries: &[Entry<'_>], told: &mut Instant, since: Instant) {
    if told.elapsed() >= LINE_EVERY {
        *told = Instant::now();
        let missing: Vec<&str> = entries.iter().flat_map(Entry::missing).collect();
        println!("    {:>4} s: waiting for {}", since.elapsed().as_secs(), missing.join(", "));
    }
}

/// Until each brings something anew.
fn wait_for_all(entries: &mut [Entry<'_>], limit: Duration) -> Result<()> {
    entries.iter_mut().for_each(Entry::arm);
    let started = Instant::now();
    let mut told = started;
    loop {
        entries.iter_mut().try_for_each(Entry::check)?;
        entries.iter_mut().for_each(Entry::look);
        tell_missing(entries, &mut told, started);
        let missing = entries.iter().find(|entry| entry.watches().any(|watch| watch.first().is_none()));
        let Some(missing) = missing else { return Ok(()) };
        ensure!(started.elapsed() < limit, "{} brings nothing for {limit:?}", missing.peer());
        std::thread::sleep(LOOK_EVERY);
    }
}
