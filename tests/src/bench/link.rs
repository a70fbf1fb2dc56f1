//! `lab bench link`: how much of a thin line becomes useful bytes. Peers send incompressible bytes from the edge to the centre of a WAN, one after
//! the other, each on a fresh line with the same shape and the same chance.
//!
//! | module | what it is for |
//! |---|---|
//! | [`mod@line`] | the lines that are measured |
//! | [`peer`] | who sends |
//! | [`quic`], [`tcp`], [`mirror`] | how they send |
//! | [`figures`] | what is told of a run |

pub mod figures;
pub mod line;
pub mod mirror;
pub mod peer;
pub mod quic;
pub mod tcp;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use crate::bench::peer::{Peer, among, chosen};
use crate::bench::usage::cpu_time;
use crate::java;
use crate::reaper::scratch_dir;
use crate::shapes;
use crate::stage::pki::Pki;
use crate::wan::Wan;
use crate::wan::link::LinkCounters;
use crate::wan::order;
use figures::{Figures, Sums, median, table};
use line::{LineOptions, grid};

/// How often the round trip is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Left out of each run of the grid. The longest start of its lines, from the first packets to the whole line of 10 Mbit/s and 600 ms, is eight round trips.
const GRID_AFTER_SECONDS: u64 = 10;

/// What `lab bench link` was asked for.
#[derive(Debug, Clone, Args)]
pub struct LinkOptions {
    /// Rate, round trip and loss of the line, the same in both directions
    #[arg(long, default_value = "2Mbit,300ms,2%", value_name = "RATE,RTT,LOSS")]
    pub line: LineOptions,
    /// All of {1, 10 Mbit/s} x {100, 300, 600 ms} x {0, 1, 3, 5 %}, in place of one line; Spillway alone unless told otherwise
    #[arg(long, conflicts_with = "line")]
    pub grid: bool,
    /// What waits before the line at most [default: what the line carries in a round trip, 32 kB at least]
    #[arg(long, value_name = "SIZE")]
    pub queue: Option<String>,
    /// Only these peers
    #[arg(long, value_name = "WHO", value_delimiter = ',', num_args = 1.., value_parser = among(&Peer::ALL))]
    pub with: Vec<Peer>,
    /// How long each is measured
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub seconds: u64,
    /// How long each sends before it is measured, so that the start is left out [default: 10 with --grid, otherwise 0]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(0..=3600))]
    pub after: Option<u64>,
    /// Runs of each peer on each line; medians are told
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=20))]
    pub runs: u32,
    /// What is left to chance is drawn from it; a new one if it is not given
    #[arg(long)]
    pub seed: Option<u64>,
}

/// What a peer is given.
#[derive(Debug)]
pub struct Course<'a> {
    /// Where it runs.
    pub wan: &'a Wan,
    /// Certificates.
    pub pki: &'a Pki,
    /// The edge's, from that authority.
    pub identity: &'a crate::stage::pki::Identity,
    /// Rate of the line, in bits a second.
    pub line_bits: u64,
    /// How long it sends before it is measured.
    pub after: Duration,
    /// How long it is measured.
    pub time: Duration,
}

/// What all runs have in common.
#[derive(Debug)]
struct Setting {
    queue: Option<u64>,
    pki: Pki,
    identity: crate::stage::pki::Identity,
    after: Duration,
    time: Duration,
}

/// Measures, and prints a table for each line.
///
/// # Errors
/// When no WAN can be had, or no peer connects.
pub fn run(options: &LinkOptions) -> Result<()> {
    let peers = chosen(&options.with, if options.grid { &[Peer::Spillway] } else { &Peer::ALL });
    if !Peer::mirrors(&peers).is_empty() {
        // Before anything is in a namespace, where no registry can be reached.
        java::ready()?;
    }
    let lines = if options.grid { grid() } else { vec![options.line] };
    let queue = options.queue.as_deref().map(order::size).transpose()?;
    let seed = options.seed.unwrap_or_else(shapes::fresh_seed);
    let after = options.after.unwrap_or(if options.grid { GRID_AFTER_SECONDS } else { 0 });
    let pki = Pki::init(&scratch_dir("bench-link")?.join("pki"))?;
    let identity = pki.issue("edge")?;
    let setting = Setting { queue, pki, identity, after: Duration::from_secs(after), time: Duration::from_secs(options.seconds) };
    let took = u64::try_from(lines.len() * peers.len())? * u64::from(options.runs) * (after + options.seconds);
    println!(
        "{} line(s), {} peer(s), {} run(s) of {} s each, after {after} s that are left out: {} min; seed {seed}",
        lines.len(),
        peers.len(),
        options.runs,
        options.seconds,
        took.div_ceil(60)
    );
    let mut shares = Vec::new();
    for line in lines {
        println!("\n{line}, queue {} kB", line.queue_bytes(queue) / 1000);
        let mut rows = Vec::new();
        for peer in &peers {
            let mut runs = Vec::new();
            for run in 0..options.runs {
                match one(*peer, &line, &setting, seed.wrapping_add(run.into())) {
                    Ok(figures) => {
                        println!("  {peer}: {:.3} Mbit/s", figures.goodput_mbit);
                        runs.push(figures);
                    }
                    Err(error) => println!("  {peer} is left out: {error:#}"),
                }
            }
            rows.extend(median(&runs).map(|figures| (*peer, figures)));
        }
        print!("{}", table(&rows, &line));
        shares.push((line, rows));
    }
    if shares.len() > 1 {
        println!("\n{}", figures::summary(&peers, &shares));
    }
    ensure!(shares.iter().any(|(_, rows)| !rows.is_empty()), "no peer could be measured");
    Ok(())
}

fn one(peer: Peer, line: &LineOptions, setting: &Setting, seed: u64) -> Result<Figures> {
    let wan = Wan::start(seed)?;
    line.orders(setting.queue).iter().try_for_each(|order| wan.order(order).map(drop))?;
    let course = Course {
        wan: &wan,
        pki: &setting.pki,
        identity: &setting.identity,
        line_bits: line.rate,
        after: setting.after,
        time: setting.time,
    };
    let sums = peer::run(peer, &course).with_context(|| format!("{peer} on {line}"))?;
    Ok(Figures::of(&sums, peer, line))
}

/// Watches a transfer that has just begun, once its start is over: `received` answers the payload at the centre, `round_trip` answers the sender's smoothed one.
pub(crate) fn watch(course: &Course<'_>, received: impl Fn() -> u64, mut round_trip: impl FnMut() -> Option<Duration>) -> Sums {
    std::thread::sleep(course.after);
    let (early, cpu) = (received(), own_cpu_time());
    let (started, before): (Instant, LinkCounters) = (Instant::now(), course.wan.counters());
    let mut round_trips = Vec::new();
    while started.elapsed() < course.time {
        std::thread::sleep(LOOK_EVERY.min(course.time.saturating_sub(started.elapsed())));
        round_trips.extend(round_trip());
    }
    // Together: what crosses in between is counted once at most.
    let (payload, counters) = (received(), course.wan.counters());
    Sums {
        time: started.elapsed(),
        payload_bytes: payload - early,
        counters: counters.since(&before),
        round_trips,
        cpu: own_cpu_time().saturating_sub(cpu),
    }
}

/// Of this process: both ends and the line, but for what the kernel does elsewhere.
fn own_cpu_time() -> Duration {
    cpu_time(std::process::id()).unwrap_or_default()
}
