//! Chaos in this process: the real code of agent and collectors, each on a runtime of its own, between embedded brokers.
//!
//! `kill -9` is played by closing, in this order, the way to the brokers ([`Door`](spillway_broker::Door)), the link, and then the runtime: whatever threads of the
//! killed still run for a moment can reach nothing, as if they were gone.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use spillway_broker::{ApiKey, Broker, BrokerOptions, ResponseError};
use spillway_config::units::ByteSize;
use spillway_config::{AgentConfig, CollectorConfig};
use tokio::runtime::Handle;

use self::running::{RELEASE_LIMIT, Running};
use super::disk::{Medium, SmallDisk};
use super::load::{Load, MIXED, Plan, TRANSACTIONAL};
use super::player::Player;
use super::scene::{Pace, Reach, SITE, Scene};
use super::schedule::{EMBEDDED_FAULTS, Kind, Schedule, Step, embedded_cast};
use super::tally::Tally;
use super::witness::Witness;
use crate::client::Client;
use crate::metrics::get;
use crate::oracle::syncs::{check_syncs_rise, compare_syncs, read_syncs};
use crate::oracle::{Report, judge, remote_topic, wait_drained};
use crate::ports::{free_port, is_free};
use crate::reaper::scratch_dir;
use crate::relay::Relay;
use crate::spill_dir;
use crate::spill_status::{SpillState, SpillStatus};
use crate::wait::wait_until;

mod certificates;
mod running;

pub use certificates::Certificates;

/// Few partitions and a thin flow: the faults are what takes the time.
const PLAN: Plan = Plan { mixed: 3, transactional: 2, compacted: 0, rate: 60, large_every: u64::MAX };

/// Committed records, at least.
const RECORDS: u64 = 300;

/// Size of the spill, the least there is; and of the disk that it is on, in MiB.
const SPILL_MAX: ByteSize = ByteSize::from_mib(8);
const SPILL_DISK_MIB: u64 = 12;

/// Until the last record is at the centre once the last fault has passed.
const DRAIN_LIMIT: Duration = Duration::from_secs(60);

/// Offset syncs that are compared record for record.
const SYNCS_COMPARED: usize = 10;

/// What came of one schedule.
#[derive(Debug)]
pub struct Outcome {
    /// What happened.
    pub tally: Tally,
    /// Both sides compared.
    pub report: Report,
    /// Samples of the local group.
    pub samples: u64,
}

/// Plays the schedule of `seed`, and tells each step before it is played. `brokers` is where the brokers live.
///
/// # Errors
/// When something stands still, a fault did not happen, the centre does not hold what the source holds, an offset sync is wrong, or the
/// local group was past the centre.
pub fn run(seed: u64, certificates: &Certificates, brokers: &Handle, mut tell: impl FnMut(&Step)) -> Result<Outcome> {
    let schedule = Schedule::draw(seed, &embedded_cast(seed));
    let (mut scene, mut load) = InsideScene::start(certificates, brokers, seed)?;
    let mut player = Player::new(&mut scene);
    let played = player.play(&schedule, |_, step, _| tell(step));
    let (tally, notes) = (player.tally().clone(), player.notes().join("\n"));
    // The writers end in any case, or they would outlive the schedule.
    let written = load.finish(RECORDS);
    played?;
    ensure!(tally.total() >= EMBEDDED_FAULTS, "only {} faults happened", tally.total());
    let (written, _) = written?;
    let topics = [MIXED, TRANSACTIONAL];
    wait_drained(&scene.source, SITE, &topics, DRAIN_LIMIT).with_context(|| notes.clone())?;
    wait_until("the spill is drained", DRAIN_LIMIT, || Ok(spill_dir::is_empty(&scene.spill))).with_context(|| notes.clone())?;
    scene.check()?;
    let samples = scene.witness.finish()?;
    // They have done their work; what is left of them would only take time from other schedules.
    scene.agent = None;
    scene.collectors = [None, None];
    let report = judge(&scene.source, &scene.central, SITE, &topics)?;
    ensure!(report.is_exact(), "{report}\n{notes}");
    ensure!(report.source_records == written, "{written} records were written: {report}");
    let syncs = read_syncs(&scene.central, SITE)?;
    check_syncs_rise(&syncs)?;
    compare_syncs(&scene.source, &scene.central, SITE, &syncs, SYNCS_COMPARED, seed)?;
    Ok(Outcome { tally, report, samples })
}

struct InsideScene {
    agent: Option<Running>,
    collectors: [Option<Running>; 2],
    ports: [SocketAddr; 2],
    current: usize,
    relay: Relay,
    witness: Witness,
    source: Client,
    central: Client,
    edge: Broker,
    centre: Broker,
    brokers: Handle,
    /// Where the spill is, if it can be mounted.
    disk: Option<SmallDisk>,
    spill: PathBuf,
    dir: Dir,
    /// Whether the agent is started with a spill that takes nothing.
    refuses: bool,
    admin: u16,
    tls: [String; 2],
    injected: u64,
}

impl InsideScene {
    fn start(certificates: &Certificates, brokers: &Handle, seed: u64) -> Result<(Self, Load)> {
        let start = |name: &str| {
            let options = BrokerOptions {
                name: name.to_owned(),
                port: free_port()?,
                auto_create_topics: false,
                // The shapes have timestamps of long ago.
                retention_check: Duration::from_secs(86_400),
                ..BrokerOptions::default()
            };
            Ok::<Broker, anyhow::Error>(brokers.block_on(Broker::start(options))?)
        };
        let (edge, centre) = (start("edge")?, start("centre")?);
        let patient = |broker: &Broker| Client::new(broker.bootstrap()).with("reconnect.backoff.max.ms", "200");
        let (source, central) = (patient(&edge), patient(&centre));
        let mut load = Load::prepare(&source, PLAN, seed)?;
        let ports = [address()?, address()?];
        let dir = scratch_dir("schedule")?;
        let spill = dir.join("spill");
        let disk = SmallDisk::mount(&spill, SPILL_DISK_MIB, Medium::Memory);
        let witness = Witness::new(&source, &central, SITE, &PLAN.topics(), &spill)?;
        let mut scene = Self {
            agent: None,
            collectors: [None, None],
            relay: Relay::start(ports[0])?,
            ports,
            current: 0,
            witness,
            source,
            central,
            edge,
            centre,
            brokers: brokers.clone(),
            dir: Dir(dir),
            disk,
            spill,
            refuses: false,
            admin: free_port()?,
            tls: [certificates.tls(SITE), certificates.tls("server")],
            injected: 0,
        };
        scene.start_collector(0)?;
        scene.start_collector(1)?;
        scene.run_agent()?;
        load.start();
        Ok((scene, load))
    }

    fn run_agent(&mut self) -> Result<()> {
        let door = self.brokers.block_on(self.edge.open_door(free_port()?))?;
        let path = self.dir.0.join("agent.toml");
        let text = format!(
            "site = '{SITE}'\nstate_dir = 'state'\n[collector]\naddress = '{}'\n{}[admin]\nlisten = '127.0.0.1:{}'\n[kafka]\nbootstrap_servers = '{}'\n\
             [kafka.librdkafka]\n\"reconnect.backoff.max.ms\" = 200\n[link]\nframe_linger = '5ms'\n[spill]\ndir = 'spill'\n",
            self.relay.address(),
            self.tls[0],
            self.admin,
            door.bootstrap()
        );
        std::fs::write(&path, text)?;
        let mut config = AgentConfig::load(&path, none()).map_err(|problems| anyhow!("{problems}"))?;
        // Shorter than any file may ask for: what takes seconds on a real line must not take them here.
        config.link.idle_timeout = Duration::from_millis(800);
        config.link.keep_alive = Duration::from_millis(200);
        config.link.redial_max = Duration::from_millis(50);
        config.kafka.commit_interval = Duration::from_millis(100);
        config.topics.refresh_interval = Duration::from_millis(1000);
        // Cuts that memory bridges are to be met as well.
        config.spill.after = Duration::from_millis(400);
        config.spill.sync_interval = Duration::from_millis(10);
        config.spill.max_bytes = Some(SPILL_MAX);
        config.spill.min_free_disk = if self.refuses { ByteSize::from_mib(1 << 20) } else { ByteSize::from_bytes(0) };
        self.wait_released()?;
        self.agent = Some(Running::agent(config, door)?);
        Ok(())
    }

    fn start_collector(&mut self, index: usize) -> Result<()> {
        let door = self.brokers.block_on(self.centre.open_door(free_port()?))?;
        let path = self.dir.0.join(format!("collector-{index}.toml"));
        let text = format!(
            "[listen]\naddress = '{}'\n{}[admin]\nlisten = 'off'\n[kafka]\nbootstrap_servers = '{}'\n\
             [kafka.librdkafka]\n\"reconnect.backoff.max.ms\" = 200\n[transactions]\ninterval = '50ms'\n[topics]\nseparator = '.'\n",
            self.ports[index],
            self.tls[1],
            door.bootstrap()
        );
        std::fs::write(&path, text)?;
        let config = CollectorConfig::load(&path, none()).map_err(|problems| anyhow!("{problems}"))?;
        self.collectors[index] = Some(Running::collector(config, door)?);
        Ok(())
    }

    /// Waits until the agent that was killed has left its port and its spill: its threads may run for a moment, which those of a killed
    /// process do not.
    fn wait_released(&self) -> Result<()> {
        wait_until("the killed agent has left its port", RELEASE_LIMIT, || Ok(is_free(self.admin)))?;
        let Ok(lock) = std::fs::File::open(self.spill.join("lock")) else { return Ok(()) };
        wait_until("the killed agent has left its spill", RELEASE_LIMIT, || Ok(lock.try_lock().is_ok()))
    }

    fn inject(&mut self, salt: u64) -> Result<()> {
        for _ in 0..=salt % 8 {
            self.centre.faults().fail_next(ApiKey::Produce, ResponseError::NotEnoughReplicas)?;
        }
        Ok(())
    }

    fn wait_injected(&self) -> Result<()> {
        let limit = self.pace().recovery;
        let deadline = Instant::now() + limit;
        while self.centre.faults().injected() == self.injected {
            ensure!(Instant::now() < deadline, "no request met the fault within {limit:?}");
            std::thread::sleep(self.pace().look);
        }
        self.centre.faults().forgive();
        Ok(())
    }
}

fn address() -> Result<SocketAddr> {
    Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?)))
}

fn none() -> [(String, String); 0] {
    []
}

impl Scene for InsideScene {
    fn pace(&self) -> Pace {
        Pace {
            wait_max: Duration::from_millis(60),
            hold_max: Duration::from_millis(350),
            look: Duration::from_millis(2),
            quiet: Duration::from_millis(120),
            markers: Duration::ZERO,
            recovery: Duration::from_secs(60),
            outage_max: Duration::from_millis(600),
            drain_delay: Duration::from_millis(30),
            fills: false,
        }
    }

    fn relay(&self) -> &Relay {
        &self.relay
    }

    fn reach(&mut self) -> Option<Reach> {
        let reach = self.centre.reach(&remote_topic(SITE, MIXED), 0)?;
        Some(Reach { end: reach.end, stable: reach.stable })
    }

    fn is_settled(&mut self) -> Result<bool> {
        let topics = PLAN.topics();
        let mut places = topics.into_iter().flat_map(|(topic, partitions)| (0..partitions).map(move |partition| (topic, partition)));
        Ok(places.all(|(topic, partition)| {
            self.centre.reach(&remote_topic(SITE, topic), partition).is_none_or(|reach| reach.stable == reach.end)
        }))
    }

    fn begin(&mut self, step: &Step) -> Result<()> {
        self.injected = self.centre.faults().injected();
        match step.kind {
            Kind::KillAgent => self.kill_agent()?,
            Kind::KillCollector => self.collectors[self.current].take().context("the collector was not running")?.kill(),
            Kind::Move => {
                self.current = 1 - self.current;
                self.relay.set_target(self.ports[self.current]);
            }
            Kind::KillLeader => self.brokers.block_on(self.centre.stop()),
            Kind::ShrinkIsr => self.inject(step.salt)?,
            Kind::SlowDisk => self.centre.faults().delay(Duration::from_millis(2 + step.salt % 20)),
            Kind::LoseAnswer => {
                let apis = [ApiKey::EndTxn, ApiKey::EndTxn, ApiKey::Produce, ApiKey::AddPartitionsToTxn];
                let api = usize::try_from(step.salt % 4).ok().and_then(|index| apis.get(index)).copied();
                self.centre.faults().unanswer_next(api.unwrap_or(ApiKey::EndTxn));
            }
            Kind::SetClock
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
                bail!("{} is not this scene's affair", step.kind)
            }
        }
        Ok(())
    }

    fn end(&mut self, kind: Kind) -> Result<()> {
        match kind {
            Kind::KillAgent => self.run_agent()?,
            Kind::KillCollector => self.start_collector(self.current)?,
            Kind::KillLeader => self.brokers.block_on(self.centre.resume())?,
            Kind::ShrinkIsr | Kind::LoseAnswer => self.wait_injected()?,
            Kind::SlowDisk => self.centre.faults().delay(Duration::ZERO),
            // That the other collector has the site shows in records that arrive: the link leads to no other.
            Kind::Move => {}
            Kind::SetClock | Kind::Cut | Kind::NewAddress | Kind::Lose | Kind::Double | Kind::Reorder | Kind::Corrupt => {}
            Kind::Outage | Kind::KillSpilling | Kind::KillDraining | Kind::FullDisk | Kind::DamagedSpill => {}
        }
        Ok(())
    }

    fn check(&mut self) -> Result<()> {
        self.witness.look()?;
        self.check_running()
    }

    fn check_running(&mut self) -> Result<()> {
        let collectors = self.collectors.iter_mut().flatten().map(|collector| ("a collector", collector));
        for (name, running) in self.agent.iter_mut().map(|agent| ("the agent", agent)).chain(collectors) {
            if let Some(said) = running.ended() {
                bail!("{name} has ended by itself: {said}");
            }
        }
        Ok(())
    }

    fn spill_dir(&self) -> &Path {
        &self.spill
    }

    fn kill_agent(&mut self) -> Result<()> {
        self.agent.take().context("the agent was not running")?.kill();
        Ok(())
    }

    fn start_agent(&mut self) -> Result<()> {
        self.run_agent()
    }

    fn fill_disk(&mut self, full: bool) -> Result<()> {
        match (&self.disk, full) {
            (Some(disk), true) => disk.fill(),
            (Some(disk), false) => disk.free(),
            (None, _) => {
                self.refuses = full;
                self.kill_agent()?;
                self.run_agent()
            }
        }
    }

    fn is_spill_full(&mut self) -> Result<bool> {
        // It may just be starting.
        let status = get(self.admin, "/status").ok().and_then(|answer| SpillStatus::parse(&answer.body).ok());
        Ok(status.is_some_and(|spill| matches!(spill.state, SpillState::Full | SpillState::Trouble)))
    }

    fn excuse(&mut self) -> Result<()> {
        self.witness.excuse()
    }
}

/// The directory of a schedule, which goes with it: there are thousands.
struct Dir(PathBuf);

impl Drop for Dir {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}
