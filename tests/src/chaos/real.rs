//! Chaos on Apache Kafka: two brokers at the edge, three and a controller at the centre, the real binaries, the link of the lab.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use rdkafka::consumer::BaseConsumer;

use super::disk::{Medium, SmallDisk};
use super::load::{Load, MIXED, Plan, TWENTY};
use super::player::Player;
use super::scene::{Pace, Reach, SITE, Scene};
use super::schedule::{Cast, Kind, Schedule, Step, full_cast, short_cast};
use super::tally::Tally;
use super::witness::Witness;
use crate::client::Client;
use crate::kafka_cluster::{KafkaCluster, KafkaOptions};
use crate::oracle::syncs::{check_syncs_rise, compare_syncs, read_syncs};
use crate::oracle::{Report, remote_topic};
use crate::reaper::Reaper;
use crate::shim::{Purpose, Shim};
use crate::spill_status::{SpillState, SpillStatus};
use crate::stage::{Stage, StageOptions};
use crate::wait::wait_until;

mod brokers;
mod watch;

use watch::Watch;

/// Kafka's own default would refuse the large records.
const MESSAGE_MAX: &str = "4000000";

/// Size of the disk of the spill, in MiB.
const SPILL_DISK_MIB: u64 = 64;

/// Most bytes of the spill. Its files have an eighth of it, so that a disk that is filled is soon noticed.
const SPILL_MAX: &str = "16MiB";

/// What the agent leaves free of its disk; and more than any disk has, for a spill that takes nothing.
const NO_RESERVE: &str = "0B";
const ALL_RESERVED: &str = "1TiB";

/// Until the last record is at the centre once the last fault has passed.
const DRAIN_LIMIT: Duration = Duration::from_secs(600);

/// Further rounds for faults that missed their moment.
const EXTRA_ROUNDS: u64 = 4;

/// Offset syncs that are compared record for record.
const SYNCS_COMPARED: usize = 500;

/// What a run shall be like.
#[derive(Debug, Clone, Copy)]
pub struct RealOptions {
    /// What everything left to chance is drawn from.
    pub seed: u64,
    /// Committed records at the source, at least.
    pub records: u64,
    /// One of each fault only.
    pub short: bool,
}

/// What came of it.
#[derive(Debug)]
struct Outcome {
    report: Report,
    tally: Tally,
    aborted: u64,
    syncs: usize,
    samples: u64,
}

/// Plays a seeded schedule and compares both sides. `Ok(true)`: nothing was lost, duplicated, out of order or altered, every fault happened, the
/// offset syncs are true, and the local group was never past the centre.
///
/// # Errors
/// When a cluster or a program does not start, or something stands still. Logs are kept then.
pub fn run(options: RealOptions) -> Result<bool> {
    let started = Instant::now();
    let RealOptions { seed, records, short } = options;
    let replay = format!("./lab chaos --seed {seed} --records {records}{}", if short { " --short" } else { "" });
    let outcome = play(options, started);
    if !matches!(&outcome, Ok(outcome) if outcome.report.is_exact()) {
        let kept = Reaper::global()?.keep_logs();
        println!("\nlogs and configuration files stay in {}\nreplay: {replay}", kept.display());
    }
    let outcome = outcome?;
    println!("\n{}", outcome.tally.table());
    let Outcome { report, tally, aborted, syncs, samples } = outcome;
    println!("  {:<30}{:>12}", "partitions", TWENTY.topics().iter().map(|(_, partitions)| partitions).sum::<i32>());
    for (name, count) in [
        ("records in (committed)", report.source_records),
        ("records in (aborted)", aborted),
        ("records out", report.centre_records),
        ("lost", report.lost),
        ("duplicated", report.duplicated),
        ("out of order", report.out_of_order),
        ("altered", report.altered),
        ("offset syncs compared", u64::try_from(syncs)?),
        ("group samples, none past", samples),
        ("faults", u64::try_from(tally.total())?),
        ("seconds", started.elapsed().as_secs()),
    ] {
        println!("  {name:<30}{count:>12}");
    }
    for example in &report.examples {
        println!("  {example}");
    }
    Ok(report.is_exact())
}

fn play(options: RealOptions, started: Instant) -> Result<Outcome> {
    let RealOptions { seed, records, short } = options;
    let cast = if short { short_cast() } else { full_cast() };
    let first = Schedule::draw(seed, &cast);
    println!("seed {seed}\n{first}");
    let mut load = None;
    let mut scene = RealScene::start(seed, &mut load)?;
    let mut load = load.context("nothing is written")?;
    load.start();
    let watch = Watch::start(&scene.stage)?;
    scene.failed = Some(Arc::clone(&watch.failed));
    scene.witness = Some(Arc::clone(&watch.witness));
    let tally = play_rounds(&mut scene, first, &cast, |line, tally| {
        let (written, _) = load.written();
        println!("{:>5} s {:>9} records {:>4} faults  {line}", started.elapsed().as_secs(), written, tally.total());
    })?;
    println!("{:>5} s  the faults are over; writing and carrying the rest", started.elapsed().as_secs());
    let (written, aborted) = load.finish(records)?;
    ensure!(written >= records && aborted > 0, "{written} records written, {aborted} aborted");
    finish(&mut scene, watch, tally, aborted, seed, started)
}

/// Plays the schedule, and again what has missed its moment.
fn play_rounds(scene: &mut RealScene, first: Schedule, cast: &Cast, mut tell: impl FnMut(&str, &Tally)) -> Result<Tally> {
    let mut tally = Tally::default();
    let seed = first.seed;
    let mut schedule = first;
    for round in 0..=EXTRA_ROUNDS {
        let mut player = Player::new(scene);
        let played = player.play(&schedule, |_, step, now| {
            let mut all = tally.clone();
            all.add(now);
            tell(&format!("{} {}", step.kind, step.moment), &all);
        });
        tally.add(player.tally());
        player.notes().iter().for_each(|note| println!("        {note}"));
        played?;
        let missing = tally.missing(cast);
        if missing.is_empty() {
            return Ok(tally);
        }
        tell(&format!("round {}: {missing:?} missed its moment and is played again", round + 1), &tally);
        schedule = Schedule::draw(seed + round + 1, &missing);
    }
    println!("{}", tally.table());
    Err(anyhow!("after {EXTRA_ROUNDS} more rounds there is still missing: {:?}", tally.missing(cast)))
}

fn finish(scene: &mut RealScene, watch: Watch, tally: Tally, aborted: u64, seed: u64, started: Instant) -> Result<Outcome> {
    let topics: Vec<&str> = TWENTY.topics().into_iter().map(|(topic, _)| topic).collect();
    scene.stage.wait_drained(&topics, DRAIN_LIMIT)?;
    let samples = watch.finish()?;
    ensure!(samples > 0, "the local group was never looked at");
    println!("{:>5} s  comparing both sides", started.elapsed().as_secs());
    let report = scene.stage.judge(&topics)?;
    let syncs = read_syncs(&scene.stage.centre, SITE)?;
    check_syncs_rise(&syncs)?;
    let syncs = compare_syncs(&scene.stage.source, &scene.stage.centre, SITE, &syncs, SYNCS_COMPARED, seed)?;
    ensure!(syncs > SYNCS_COMPARED / 2, "only {syncs} offset syncs could be compared");
    Ok(Outcome { report, tally, aborted, syncs, samples })
}

/// Real processes.
struct RealScene {
    stage: Stage,
    central: KafkaCluster,
    _edge: KafkaCluster,
    clock: Shim,
    /// The collector that the link leads to.
    current: usize,
    committed: BaseConsumer,
    all: BaseConsumer,
    /// The broker whose disk is slow, and its delayed writes before; or the clock's readings before.
    lasting: Option<(usize, i64)>,
    failed: Option<Arc<Mutex<Option<String>>>>,
    witness: Option<Arc<Mutex<Witness>>>,
    spill: PathBuf,
    /// Where the spill is, if it can be mounted.
    disk: Option<SmallDisk>,
}

impl RealScene {
    fn start(seed: u64, load: &mut Option<Load>) -> Result<Self> {
        println!("starting Apache Kafka: two brokers at the edge, three and a controller at the centre …");
        let options = |label| {
            KafkaOptions::new(label)
                .with("message.max.bytes", MESSAGE_MAX)
                .with("replica.fetch.max.bytes", MESSAGE_MAX)
                // The shapes have timestamps of long ago, which retention would take away.
                .with("log.retention.ms", "-1")
                .with("broker.session.timeout.ms", "5000")
                .with("broker.heartbeat.interval.ms", "500")
        };
        let mut edge = options("edge");
        edge.brokers = 2;
        let mut centre = options("centre");
        (centre.brokers, centre.own_controller, centre.shim) = (3, true, true);
        let (edge, central) = (KafkaCluster::start(edge)?, KafkaCluster::start(centre)?);
        let (source, centre) = (Client::new(edge.bootstrap()), Client::new(central.bootstrap()));
        *load = Some(Load::prepare(&source, TWENTY, seed)?);
        let options = StageOptions { site: SITE.to_owned(), source, centre: centre.clone(), include: vec![".*".to_owned()], collectors: 2 };
        let mut stage = Stage::new(options)?;
        // A dead connection has to be noticed soon, or the run would wait most of its time.
        stage.agent.config.set("link.idle_timeout", "5s");
        stage.agent.config.set("link.keep_alive", "1s");
        let spill = stage.spill_dir();
        let disk = SmallDisk::mount(&spill, SPILL_DISK_MIB, Medium::Ext4);
        println!(
            "the spill is on {}",
            if disk.is_some() { "an ext4 of 64 MiB" } else { "this disk: there is no right to mount a small one" }
        );
        for (key, value) in [("spill.after", "1s"), ("spill.max_bytes", SPILL_MAX), ("spill.min_free_disk", NO_RESERVE)] {
            stage.agent.config.set(key, value);
        }
        let clock = Shim::new(&stage.dir().join("clock"), Purpose::Clock)?;
        for (key, value) in clock.environment() {
            stage.agent.set_env(&key, &value);
        }
        stage.start()?;
        let reader = |isolation| centre.config().set("isolation.level", isolation).create::<BaseConsumer>();
        let (committed, all) = (reader("read_committed")?, reader("read_uncommitted")?);
        Ok(Self { stage, central, _edge: edge, clock, current: 0, committed, all, lasting: None, failed: None, witness: None, spill, disk })
    }

    fn collector(&mut self) -> Result<&mut crate::stage::program::Program> {
        self.stage.collector(self.current)
    }
}

impl Scene for RealScene {
    fn pace(&self) -> Pace {
        Pace {
            wait_max: Duration::from_millis(1500),
            hold_max: Duration::from_millis(2500),
            look: Duration::from_millis(3),
            quiet: Duration::from_millis(600),
            markers: Duration::from_millis(200),
            recovery: Duration::from_secs(180),
            outage_max: Duration::from_secs(8),
            drain_delay: Duration::from_millis(100),
            fills: true,
        }
    }

    fn relay(&self) -> &crate::relay::Relay {
        &self.stage.relay
    }

    fn reach(&mut self) -> Option<Reach> {
        self.reach_of(&remote_topic(SITE, MIXED), 0)
    }

    fn is_settled(&mut self) -> Result<bool> {
        let Plan { mixed, transactional, .. } = TWENTY;
        let all = [(MIXED, mixed), (super::load::TRANSACTIONAL, transactional)];
        let mut places = all.into_iter().flat_map(|(topic, partitions)| (0..partitions).map(move |partition| (topic, partition)));
        Ok(places.all(|(topic, partition)| self.reach_of(&remote_topic(SITE, topic), partition).is_some_and(|reach| !reach.is_open())))
    }

    fn begin(&mut self, step: &Step) -> Result<()> {
        let Step { kind, salt, .. } = *step;
        match kind {
            Kind::KillAgent => self.kill_agent()?,
            Kind::KillCollector => ensure!(self.collector()?.kill(), "the collector was not running"),
            Kind::Move => {
                self.current = 1 - self.current;
                self.stage.move_to(self.current)?;
            }
            Kind::KillLeader => self.kill_leader(salt)?,
            Kind::ShrinkIsr => self.shrink_isr(salt)?,
            Kind::SlowDisk => {
                let broker = usize::try_from(salt % 3)?;
                let shim = self.central.shim(broker).context("no shim")?;
                self.lasting = Some((broker, shim.slow_writes()?));
                shim.set_write_delay(Duration::from_millis(5 + salt / 3 % 30))?;
            }
            Kind::SetClock => {
                // Within the validity of the certificates, which begins a day before they are made.
                let off_s = i64::try_from(salt % (3 * 86_400))? - 80_000;
                self.lasting = Some((0, self.clock.clock_reads()?));
                self.clock.set_clock(off_s * 1000 + 1)?;
            }
            Kind::LoseAnswer
            | Kind::Cut
            | Kind::NewAddress
            | Kind::Lose
            | Kind::Double
            | Kind::Reorder
            | Kind::Corrupt
            | Kind::Outage
            | Kind::KillSpilling
            | Kind::KillDraining
            | Kind::FullDisk
            | Kind::DamagedSpill => {
                anyhow::bail!("{kind} is not this scene's affair")
            }
        }
        Ok(())
    }

    fn end(&mut self, kind: Kind) -> Result<()> {
        let limit = self.pace().recovery;
        match kind {
            Kind::KillAgent => self.stage.agent.start()?,
            Kind::KillCollector => self.collector()?.start()?,
            Kind::Move => wait_until("the other collector has the site", limit, || {
                Ok(self.stage.collector(self.current)?.metrics()?.sum("spillway_sites_connected", &[]) >= 1.0)
            })?,
            Kind::KillLeader | Kind::ShrinkIsr => self.central.resume()?,
            Kind::SlowDisk => {
                let (broker, before) = self.lasting.take().context("no disk was slow")?;
                let shim = self.central.shim(broker).context("no shim")?;
                wait_until("a write was slow", limit, || Ok(shim.slow_writes()? > before))?;
                shim.set_write_delay(Duration::ZERO)?;
            }
            Kind::SetClock => {
                let (_, before) = self.lasting.take().context("no clock was set")?;
                wait_until("the clock was read while it was off", limit, || Ok(self.clock.clock_reads()? > before))?;
                self.clock.set_clock(0)?;
            }
            Kind::LoseAnswer | Kind::Cut | Kind::NewAddress | Kind::Lose | Kind::Double | Kind::Reorder | Kind::Corrupt => {}
            Kind::Outage | Kind::KillSpilling | Kind::KillDraining | Kind::FullDisk | Kind::DamagedSpill => {}
        }
        Ok(())
    }

    fn check(&mut self) -> Result<()> {
        if let Some(failed) = &self.failed
            && let Some(error) = failed.lock().unwrap_or_else(PoisonError::into_inner).take()
        {
            return Err(anyhow!(error));
        }
        self.check_running()
    }

    fn check_running(&mut self) -> Result<()> {
        let down: BTreeSet<&str> = [
            (!self.stage.agent.is_running()).then_some("the agent"),
            (!self.stage.collector(0)?.is_running()).then_some("collector 1"),
            (!self.stage.collector(1)?.is_running()).then_some("collector 2"),
        ]
        .into_iter()
        .flatten()
        .collect();
        ensure!(down.is_empty(), "ended by themselves: {down:?}");
        Ok(())
    }

    fn spill_dir(&self) -> &Path {
        &self.spill
    }

    fn kill_agent(&mut self) -> Result<()> {
        ensure!(self.stage.agent.kill(), "the agent was not running");
        Ok(())
    }

    fn start_agent(&mut self) -> Result<()> {
        self.stage.agent.start()
    }

    fn fill_disk(&mut self, full: bool) -> Result<()> {
        match (&self.disk, full) {
            (Some(disk), true) => disk.fill(),
            (Some(disk), false) => disk.free(),
            (None, _) => {
                self.stage.agent.config.set("spill.min_free_disk", if full { ALL_RESERVED } else { NO_RESERVE });
                self.kill_agent()?;
                self.start_agent()
            }
        }
    }

    fn is_spill_full(&mut self) -> Result<bool> {
        // It may just be starting.
        let status = SpillStatus::of(&self.stage.agent);
        Ok(status.is_ok_and(|spill| matches!(spill.state, SpillState::Full | SpillState::Trouble)))
    }

    fn excuse(&mut self) -> Result<()> {
        let witness = self.witness.as_ref().context("nobody watches the local group")?;
        witness.lock().unwrap_or_else(PoisonError::into_inner).excuse()
    }
}
