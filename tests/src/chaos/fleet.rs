//! Many schedules side by side in this process.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::inside::{Certificates, Outcome, run as run_one};
use super::schedule::Step;
use super::tally::Tally;
use crate::reaper::scratch_dir;

/// Between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(10);

/// Stack of a thread that plays a schedule.
const STACK_BYTES: usize = 2 * 1024 * 1024;

/// What shall be run.
#[derive(Debug, Clone, Copy)]
pub struct FleetOptions {
    /// Seed of the first schedule; the others follow by ones.
    pub seed: u64,
    /// How many.
    pub schedules: u64,
    /// How many at a time.
    pub jobs: usize,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct FleetReport {
    /// Schedules that were played to their end, with nothing lost, duplicated, out of order or altered.
    pub good: u64,
    /// The seeds of the others, and what was wrong.
    pub bad: Vec<(u64, String)>,
    /// Faults of the good ones.
    pub tally: Tally,
    /// Records compared.
    pub records: u64,
    /// Samples of local groups.
    pub samples: u64,
}

/// Plays all schedules and prints what came of it. `Ok(true)`: all were good.
///
/// # Errors
/// When there are no threads or certificates.
pub fn run(options: FleetOptions) -> Result<bool> {
    let started = Instant::now();
    println!("{} schedules from seed {}, {} at a time", options.schedules, options.seed, options.jobs);
    let report = play(options, |line| println!("{line}"))?;
    println!("\n{}", report.tally.table());
    let seconds = started.elapsed().as_secs_f64();
    println!("  {:<30}{:>12}", "schedules, all exact", report.good);
    println!("  {:<30}{:>12}", "failed", report.bad.len());
    println!("  {:<30}{:>12}", "faults", report.tally.total());
    println!("  {:<30}{:>12}", "records compared", report.records);
    println!("  {:<30}{:>12}", "group samples, none past", report.samples);
    println!("  {:<30}{seconds:>12.0}", "seconds");
    for (seed, _) in &report.bad {
        println!("replay: {}", replay(*seed));
    }
    Ok(report.bad.is_empty() && report.good == options.schedules)
}

/// The command that plays one schedule again.
#[must_use]
pub fn replay(seed: u64) -> String {
    format!("./lab chaos --in-process --schedules 1 --seed {seed}")
}

/// Plays all schedules.
///
/// # Errors
/// When there are no threads or certificates.
pub fn play(options: FleetOptions, mut tell: impl FnMut(String)) -> Result<FleetReport> {
    let FleetOptions { seed, schedules, jobs } = options;
    let certificates = Certificates::make(&scratch_dir("chaos")?)?;
    let brokers = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().context("no runtime")?;
    let (next, report) = (AtomicU64::new(0), Mutex::new(FleetReport::default()));
    let started = Instant::now();
    std::thread::scope(|scope| {
        let work = || {
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= schedules {
                    return;
                }
                let seed = seed.wrapping_add(index);
                let tell = |step: &Step| {
                    // Who plays one wants to see it.
                    if schedules == 1 {
                        println!("{:>7.3} s  {} {}", started.elapsed().as_secs_f64(), step.kind, step.moment);
                    }
                };
                let outcome = run_one(seed, &certificates, brokers.handle(), tell);
                note(&mut report.lock().unwrap_or_else(PoisonError::into_inner), seed, outcome);
            }
        };
        let mut threads = Vec::new();
        for _ in 0..jobs {
            let builder = std::thread::Builder::new().name("schedule".to_owned()).stack_size(STACK_BYTES);
            threads.push(builder.spawn_scoped(scope, work).context("no thread")?);
        }
        let mut told = Instant::now();
        while threads.iter().any(|thread| !thread.is_finished()) {
            std::thread::sleep(Duration::from_millis(50));
            if told.elapsed() >= PROGRESS {
                told = Instant::now();
                let report = report.lock().unwrap_or_else(PoisonError::into_inner);
                tell(progress(&report, schedules, started));
            }
        }
        Ok::<(), anyhow::Error>(())
    })?;
    brokers.shutdown_background();
    Ok(report.into_inner().unwrap_or_else(PoisonError::into_inner))
}

fn note(report: &mut FleetReport, seed: u64, outcome: Result<Outcome>) {
    match outcome {
        Ok(outcome) => {
            report.good += 1;
            report.tally.add(&outcome.tally);
            report.records += outcome.report.source_records;
            report.samples += outcome.samples;
        }
        Err(error) => {
            let why = format!("{error:#}");
            println!("seed {seed} FAILED: {why}\n  replay: {}", replay(seed));
            report.bad.push((seed, why));
        }
    }
}

fn progress(report: &FleetReport, schedules: u64, started: Instant) -> String {
    let (seconds, done) = (started.elapsed().as_secs(), report.good);
    let minute = done * 60 / seconds.max(1);
    format!(
        "{seconds:>5} s  {done:>5} of {schedules} exact, {} failed, {} faults, {} records, {minute} schedules a minute",
        report.bad.len(),
        report.tally.total(),
        report.records
    )
}
