//! `lab smoke`: an agent as it ships, mostly one for another processor under an emulator, carries records from one embedded broker to
//! another through a cut of the link, a `kill -9`, and outages that it bridges with its spill; one of these spills is written by the agent of
//! this machine and drained by the other.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, ensure};

use crate::cluster::EmbeddedCluster;
use crate::demo::load::Load;
use crate::shapes::{Shapes, seed};
use crate::spill_dir;
use crate::spill_status::SpillStatus;
use crate::stage::program::binary;
use crate::stage::{Stage, StageOptions};
use crate::telemetry::TOPICS;
use crate::wait::wait_until;

/// Largest agent, stripped, in bytes: what fits beside a system in the flash of a small gateway.
const SIZE_MAX_BYTES: u64 = 14_000_000;

/// Most resident memory of an agent that is connected and has nothing to do, in bytes.
const IDLE_MAX_BYTES: u64 = 20 * 1024 * 1024;

const SITE: &str = "plant-7";

/// The topic with records of all shapes. The large ones are above Kafka's default limit.
const SHAPES: &str = "shapes";
const SHAPES_PARTITIONS: i32 = 4;
const MESSAGE_MAX: (&str, &str) = ("max.message.bytes", "2000000");

/// Records of all shapes, one in [`LARGE_EVERY`] of 1 MiB.
const SHAPES_RECORDS: i32 = 4000;
const LARGE_EVERY: u64 = 1000;

/// Records of telemetry a second while the faults happen. An emulator is ten to twenty times slower than the processor.
const RATE: u32 = 200;

/// Until the agent has settled after the start.
const SETTLE: Duration = Duration::from_secs(5);

/// How long the link is cut: longer than the idle time-out, so that the agent has to open a new session.
const CUT: Duration = Duration::from_secs(7);
const IDLE_TIMEOUT: &str = "5s";

/// The spill begins so soon, that the outages can be short; and its size: that of its files is an eighth of it.
const SPILL_AFTER: &str = "2s";
const SPILL_MAX: &str = "16MiB";

/// How long an outage goes on once frames are in the spill.
const SPILLING: Duration = Duration::from_secs(4);

/// Between two faults, and until the last record is at the centre.
const FLOW_LIMIT: Duration = Duration::from_secs(120);

/// x86-64 Linux puts a program's own heap above this address and shared things further up. qemu-user keeps the emulated program below.
const EMULATOR_FROM: u64 = 0x5555_0000_0000;

/// Runs the agent at `agent`, behind the words of `runner`. `Ok(true)` means that it did everything as it should.
///
/// # Errors
/// When something does not start, a fault does not happen, records do not arrive, or the agent is too large.
pub fn run(agent: &Path, runner: &str) -> Result<bool> {
    let started = Instant::now();
    let runner: Vec<String> = runner.split_whitespace().map(str::to_owned).collect();
    let agent = agent.canonicalize().with_context(|| format!("no agent at {}", agent.display()))?;
    let size = agent.metadata()?.len();
    println!("smoke test of {} {}", runner.join(" "), agent.display());
    println!("  size        {:.2} MB", size as f64 / 1e6);

    let (edge, central) = (EmbeddedCluster::start("edge")?, EmbeddedCluster::start("centre")?);
    let (source, centre) = (edge.client(), central.client());
    for topic in TOPICS {
        source.create_topic(topic.name, topic.partitions, &[])?;
    }
    source.create_topic(SHAPES, SHAPES_PARTITIONS, &[MESSAGE_MAX])?;
    centre.create_topic(&format!("{SITE}.{SHAPES}"), SHAPES_PARTITIONS, &[MESSAGE_MAX])?;
    let mut stage = Stage::new(StageOptions { site: SITE.to_owned(), source, centre, include: vec![".*".to_owned()], collectors: 1 })?;
    stage.agent.replace_binary(&agent, &runner);
    stage.agent.config.set("link.idle_timeout", IDLE_TIMEOUT);
    stage.agent.config.set("link.keep_alive", "1s");
    stage.agent.config.set("spill.after", SPILL_AFTER);
    stage.agent.config.set("spill.max_bytes", SPILL_MAX);
    let played = play(&mut stage, &agent, &runner);
    if played.is_err() {
        crate::reaper::Reaper::global()?.keep_logs();
    }
    let exact = played.with_context(|| format!("logs stay in {}", stage.dir().display()))?;
    ensure!(size <= SIZE_MAX_BYTES, "the agent has {size} bytes, more than {SIZE_MAX_BYTES}");
    println!("  took        {:.0} s", started.elapsed().as_secs_f64());
    Ok(exact)
}

fn play(stage: &mut Stage, agent: &Path, runner: &[String]) -> Result<bool> {
    let emulated = !runner.is_empty();
    stage.start()?;
    std::thread::sleep(SETTLE);
    let idle = Resident::of(stage)?;
    let partitions = SHAPES_PARTITIONS + TOPICS.iter().map(|topic| topic.partitions).sum::<i32>();
    println!("  idle memory {}, {partitions} partitions", idle.describe(emulated));

    let producer = stage.source.producer()?;
    let mut shapes = Shapes::new(seed("smoke"), LARGE_EVERY);
    for number in 0..SHAPES_RECORDS {
        producer.send(SHAPES, number % SHAPES_PARTITIONS, &shapes.next_record())?;
    }
    producer.flush(FLOW_LIMIT)?;
    let mut load = Load::new(&stage.source)?;
    load.one_record_each()?;
    load.start(RATE);

    flows(stage)?;
    stage.relay.set_cut(true);
    std::thread::sleep(CUT);
    stage.relay.set_cut(false);
    flows(stage)?;
    ensure!(stage.relay.traffic().cut_packets > 0, "the link was not cut");
    ensure!(stage.agent.metrics()?.sum("spillway_reconnects_total", &[]) >= 1.0, "the agent did not reconnect");
    ensure!(stage.agent.kill(), "the agent was not running when it was to be killed");
    std::thread::sleep(Duration::from_secs(1));
    stage.agent.start()?;
    flows(stage)?;
    spill_and_drain(stage)?;
    drain_what_this_machine_spilled(stage, agent, runner)?;
    load.stop()?;

    let topics: Vec<&str> = TOPICS.iter().map(|topic| topic.name).chain([SHAPES]).collect();
    stage.wait_drained(&topics, FLOW_LIMIT)?;
    println!(
        "  then        {}, after a cut of {} s, a reconnect, kills with -9 and two spills",
        Resident::of(stage)?.describe(emulated),
        CUT.as_secs()
    );
    let status = stage.agent.terminate()?;
    ensure!(status.success(), "the agent did not end well: {status}");
    let report = stage.judge(&topics)?;
    println!("  {report}");
    let idle = idle.of_agent(emulated);
    ensure!(idle <= IDLE_MAX_BYTES, "the idle agent has {idle} bytes resident, more than {IDLE_MAX_BYTES}");
    Ok(report.is_exact() && report.source_records > u64::from(SHAPES_RECORDS.unsigned_abs()))
}

/// Cuts the link until the agent has spilled, kills it with -9, and lets the next one drain what it finds.
fn spill_and_drain(stage: &mut Stage) -> Result<()> {
    cut_until_spilled(stage)?;
    ensure!(stage.agent.kill(), "the agent was not running when it was to be killed");
    stage.agent.start()?;
    let found = drain(stage)?;
    println!("  spill       {found} records outlived a kill -9 and were drained");
    Ok(())
}

/// The same with the agent of this machine, whose spill the agent under test drains.
fn drain_what_this_machine_spilled(stage: &mut Stage, agent: &Path, runner: &[String]) -> Result<()> {
    ensure!(stage.agent.kill(), "the agent was not running when it was to be replaced");
    stage.agent.replace_binary(&binary("spillway-agent")?, &[]);
    stage.agent.start()?;
    flows(stage)?;
    cut_until_spilled(stage)?;
    ensure!(stage.agent.kill(), "this machine's agent was not running when it was to be killed");
    stage.agent.replace_binary(agent, runner);
    stage.agent.start()?;
    let found = drain(stage)?;
    println!("  spill       {found} records that this machine's agent had spilled were drained");
    Ok(())
}

fn cut_until_spilled(stage: &Stage) -> Result<()> {
    let spill = stage.spill_dir();
    stage.relay.set_cut(true);
    // What was acknowledged before the cut is released meanwhile. What is written after that stays.
    std::thread::sleep(Duration::from_secs(1));
    let since = SystemTime::now();
    wait_until("the agent spills", FLOW_LIMIT, || Ok(spill_dir::is_written(&spill, since)))?;
    std::thread::sleep(SPILLING);
    Ok(())
}

/// Restores the link for an agent that was just started with a full spill, and waits until that is empty. Answers the records that it found.
fn drain(stage: &Stage) -> Result<u64> {
    let mut found = 0;
    wait_until("the agent finds its spill", FLOW_LIMIT, || {
        found = SpillStatus::of(&stage.agent).map_or(0, |spill| spill.records);
        Ok(found > 0)
    })?;
    stage.relay.set_cut(false);
    flows(stage)?;
    let spill = stage.spill_dir();
    wait_until("the spill is drained", FLOW_LIMIT, || Ok(spill_dir::is_empty(&spill)))?;
    Ok(found)
}

/// Waits until records written from now on arrive.
fn flows(stage: &Stage) -> Result<()> {
    let topic = format!("{SITE}.{}", TOPICS[0].name);
    let end =
        || Ok::<_, anyhow::Error>(if stage.centre.topics()?.contains_key(&topic) { stage.centre.watermarks(&topic, 0)?.1 } else { 0 });
    let from = end()?;
    wait_until("records arrive at the centre", FLOW_LIMIT, || Ok(end()? > from + 20))
}

/// Resident memory of a process, code and data, in bytes.
#[derive(Debug, Clone, Copy)]
struct Resident {
    whole: u64,
    /// Of an emulated agent only its own: what lies where the emulator maps it, not what the emulator needs for itself and for
    /// translated code.
    below_emulator: u64,
}

impl Resident {
    fn of(stage: &Stage) -> Result<Self> {
        let path = format!("/proc/{}/smaps", stage.agent.pid()?);
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        Ok(Self { whole: sum_resident(&text, u64::MAX), below_emulator: sum_resident(&text, EMULATOR_FROM) })
    }

    fn of_agent(self, emulated: bool) -> u64 {
        if emulated { self.below_emulator } else { self.whole }
    }

    fn describe(self, emulated: bool) -> String {
        let mebibytes = |bytes| bytes as f64 / 1024.0 / 1024.0;
        let own = mebibytes(self.of_agent(emulated));
        if emulated {
            format!("{own:.1} MiB resident (with the emulator {:.1} MiB)", mebibytes(self.whole))
        } else {
            format!("{own:.1} MiB resident")
        }
    }
}

/// Sums `Rss` of the mappings below `end` in the text of `/proc/PID/smaps`.
fn sum_resident(smaps: &str, end: u64) -> u64 {
    let mut kibibytes = 0;
    let mut counts = false;
    for line in smaps.lines() {
        let mut words = line.split_whitespace();
        let (first, second) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        if let Some((from, _)) = first.split_once('-') {
            counts = u64::from_str_radix(from, 16).is_ok_and(|from| from < end);
        } else if first == "Rss:" && counts {
            kibibytes += second.parse::<u64>().unwrap_or(0);
        }
    }
    kibibytes * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_emulated_program_is_counted() {
        let smaps = "5500000000-5500001000 r--p 00000000 fe:00 1 /agent\nSize:   8 kB\nRss:    4 kB\nVmFlags: rd mr\n\
                     5502022000-5502822000 rw-p 00000000 00:00 0 \nRss:  100 kB\nAnonHugePages: 0 kB\n\
                     555563d2f000-555563eac000 rw-p 00000000 00:00 0 [heap]\nRss:    1480 kB\n\
                     7fc66a600000-7fc66a828000 r--p 00000000 fe:00 2 /usr/bin/qemu-aarch64-static\nRss: 2208 kB\n";
        assert_eq!(sum_resident(smaps, EMULATOR_FROM), 104 * 1024);
        assert_eq!(sum_resident(smaps, u64::MAX), 3792 * 1024);
    }
}
