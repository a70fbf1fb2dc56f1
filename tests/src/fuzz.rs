//! `lab fuzz`: builds the targets in `fuzz/`, runs them side by side, tells what they found.
//!
//! cargo-fuzz wants a nightly compiler for its sanitizers only. Our code is safe Rust, where an address sanitizer has nothing to find, so
//! the targets are built without one, by the pinned stable compiler: panics, broken invariants, hangs and memory are what is looked for.

mod report;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;

use anyhow::{Context as _, Result, bail, ensure};

use crate::java::repo_root;
use crate::reaper::Reaper;
use report::Report;

/// What `lab fuzz` was asked for.
#[derive(Debug, Clone)]
pub struct FuzzOptions {
    /// Only these targets; none: all.
    pub targets: Vec<String>,
    /// How long each target runs.
    pub seconds: u64,
    /// Targets that run at the same time; `None`: as many as there are processors.
    pub jobs: Option<usize>,
    /// List the targets and do nothing else.
    pub list: bool,
    /// Add the inputs that reach something new to the committed corpora.
    pub merge: bool,
    /// Run one target on this input only.
    pub replay: Option<PathBuf>,
}

/// The cargo-fuzz that is installed where there is none.
const CARGO_FUZZ_VERSION: &str = "0.13";

/// More memory than this is a finding: the largest input is 64 KiB, and no limit of the targets' sessions is above 1 MiB.
const RSS_LIMIT_MIB: u32 = 512;

/// An input that takes longer is a finding, in seconds. Far above the slowest on a loaded machine.
const INPUT_TIMEOUT_SECONDS: u32 = 20;

/// One of the targets, by which their folder is known.
const ANY_TARGET: &str = "frame";

/// Largest input, in bytes: beyond the largest control message.
const MAX_INPUT_BYTES: u32 = 70_000;

/// Fuzzes. `Ok(true)`: nothing was found.
///
/// # Errors
/// When the targets cannot be built or started.
pub fn run(options: &FuzzOptions) -> Result<bool> {
    let tool = tool()?;
    let all = all_targets(&tool)?;
    if options.list {
        all.iter().for_each(|target| println!("{target}"));
        return Ok(true);
    }
    if let Some(unknown) = options.targets.iter().find(|target| !all.contains(target)) {
        bail!("no target {unknown}; there are: {}", all.join(", "));
    }
    let targets = if options.targets.is_empty() { all } else { options.targets.clone() };
    println!("building the targets; the first time this takes some minutes");
    let bin_dir = build(&tool)?;
    if let Some(input) = &options.replay {
        return replay(&bin_dir, &targets, input);
    }
    let reports = run_all(&bin_dir, &targets, options)?;
    report::print(&reports, options.seconds);
    if options.merge {
        targets.iter().try_for_each(|target| merge(&bin_dir, target))?;
    }
    Ok(reports.iter().all(Report::is_clean))
}

/// Each target's own run, so many at a time.
fn run_all(bin_dir: &Path, targets: &[String], options: &FuzzOptions) -> Result<Vec<Report>> {
    let jobs = options.jobs.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from)).clamp(1, targets.len());
    println!("{} targets, {} s each, {jobs} at a time", targets.len(), options.seconds);
    let (waiting, reports) = (Mutex::new(targets.iter()), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while let Some(target) = waiting.lock().ok().and_then(|mut waiting| waiting.next()) {
                    let report = run_one(bin_dir, target, options.seconds);
                    if let Ok(mut reports) = reports.lock() {
                        reports.push(report);
                    }
                }
            });
        }
    });
    let reports = reports.into_inner().ok().context("a thread has panicked")?;
    reports.into_iter().collect()
}

fn run_one(bin_dir: &Path, target: &str, seconds: u64) -> Result<Report> {
    let (work, corpus) = folders(target)?;
    let log = work.with_extension("log");
    let output = std::fs::File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    let mut command = command(bin_dir, target)?;
    // The first folder takes what is new; the committed one is only read.
    command.args([&work, &corpus]).arg(format!("-max_total_time={seconds}")).arg("-print_final_stats=1");
    let mut child = command.stdout(Stdio::null()).stderr(output).spawn().with_context(|| format!("cannot run {target}"))?;
    let reaper = Reaper::global()?;
    reaper.watch(child.id());
    let status = child.wait().with_context(|| format!("cannot wait for {target}"))?;
    reaper.forget(child.id());
    let report = Report::read(target, status.success(), &std::fs::read_to_string(&log).unwrap_or_default());
    println!("{}", report.line());
    Ok(report)
}

fn replay(bin_dir: &Path, targets: &[String], input: &Path) -> Result<bool> {
    let [target] = targets else { bail!("name one target to replay an input") };
    let input = input.canonicalize().with_context(|| format!("cannot read {}", input.display()))?;
    let mut command = command(bin_dir, target)?;
    command.arg(input).env("SPILLWAY_FUZZ_TRACE", "1");
    Ok(command.status().with_context(|| format!("cannot run {target}"))?.success())
}

/// Adds to the committed corpus what reaches something that it does not reach, smallest inputs first.
fn merge(bin_dir: &Path, target: &str) -> Result<()> {
    let (work, corpus) = folders(target)?;
    let mut command = command(bin_dir, target)?;
    // By edges alone: with counters of how often each was passed, thousands of inputs would be kept.
    command.args([&corpus, &work]).args(["-merge=1", "-use_counters=0"]);
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status().with_context(|| format!("cannot run {target}"))?;
    ensure!(status.success(), "the corpus of {target} cannot be merged");
    println!("{target}: {} inputs in {}", std::fs::read_dir(&corpus)?.count(), corpus.display());
    Ok(())
}

/// A target with the limits that hold whatever it is run for.
fn command(bin_dir: &Path, target: &str) -> Result<Command> {
    let artifacts = repo_root().join("fuzz/artifacts").join(target);
    std::fs::create_dir_all(&artifacts).with_context(|| format!("cannot make {}", artifacts.display()))?;
    let mut command = Command::new(bin_dir.join(target));
    command.current_dir(repo_root()).arg(format!("-artifact_prefix={}/", artifacts.display()));
    command.arg(format!("-rss_limit_mb={RSS_LIMIT_MIB}")).arg(format!("-timeout={INPUT_TIMEOUT_SECONDS}"));
    // Inputs grow faster than libFuzzer's default: the steps of a session want room.
    command.arg(format!("-max_len={MAX_INPUT_BYTES}")).arg("-len_control=20");
    Ok(command)
}

/// A target's own inputs, kept between runs and not committed, and its committed ones.
fn folders(target: &str) -> Result<(PathBuf, PathBuf)> {
    let (work, corpus) = (repo_root().join(".lab/fuzz").join(target), repo_root().join("fuzz/corpus").join(target));
    for folder in [&work, &corpus] {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    Ok((work, corpus))
}

fn all_targets(tool: &Path) -> Result<Vec<String>> {
    let output = Command::new(tool).args(["fuzz", "list"]).current_dir(repo_root()).output().context("cannot run cargo fuzz")?;
    ensure!(output.status.success(), "cargo fuzz list: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
}

/// Builds all targets; answers where they are.
fn build(tool: &Path) -> Result<PathBuf> {
    // Beside the lab's own: these are built with instrumentation.
    let target_dir = crate::build::target_dir()?.join("fuzz");
    let mut command = Command::new(tool);
    command.args(["fuzz", "build", "--sanitizer", "none"]).current_dir(repo_root()).env("CARGO_TARGET_DIR", &target_dir);
    ensure!(command.status().context("cannot run cargo fuzz")?.success(), "the targets do not build");
    // cargo-fuzz names the host's triple; there is one.
    let mut places = std::fs::read_dir(&target_dir)?.filter_map(|entry| Some(entry.ok()?.path().join("release")));
    places.find(|place| place.join(ANY_TARGET).exists()).context("cargo fuzz has built nothing")
}

/// cargo-fuzz: ours in `.lab/tools`, installed if it is not there.
fn tool() -> Result<PathBuf> {
    let tools = repo_root().join(".lab/tools");
    let tool = tools.join("bin/cargo-fuzz");
    let version = Command::new(&tool).args(["fuzz", "--version"]).output();
    let wanted = format!("cargo-fuzz {CARGO_FUZZ_VERSION}.");
    if version.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).starts_with(&wanted)) {
        return Ok(tool);
    }
    println!("installing cargo-fuzz into {}", tools.display());
    let mut command = crate::build::cargo()?;
    // Without optimisation: it only starts other programs.
    command.args(["install", "--locked", "--debug", "--quiet", "--root"]).arg(&tools);
    command.args(["cargo-fuzz", "--version", &format!("~{CARGO_FUZZ_VERSION}")]);
    ensure!(command.status().context("cannot run cargo")?.success(), "cargo-fuzz cannot be installed");
    Ok(tool)
}
