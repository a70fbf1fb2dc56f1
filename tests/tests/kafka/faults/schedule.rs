//! Which faults happen, in which order, and that each really hits a live flow.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};
use spillway_lab::chaos::load::MIXED;
use spillway_lab::kafka_cluster::KafkaCluster;
use spillway_lab::stage::Stage;
use spillway_lab::wait::wait_until;

/// Until records arrive at the centre again after a fault: a dead connection is noticed after 5 s, a dead transaction is fenced
/// at once, a Kafka needs some seconds to start.
const RECOVERY_LIMIT: Duration = Duration::from_secs(90);

/// What can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// `kill -9` of the agent, and a new start.
    KillAgent,
    /// `kill -9` of the collector that has the site, and a new start.
    KillCollector,
    /// The link leads to the other collector.
    Move,
    /// The central Kafka is stopped and started.
    RestartCentre,
}

/// All faults in random order.
pub(super) fn schedule(seed: u64) -> Vec<Fault> {
    let mut faults = vec![Fault::RestartCentre; 2];
    for fault in [Fault::KillAgent, Fault::KillCollector, Fault::Move] {
        faults.extend([fault; 5]);
    }
    faults.shuffle(&mut StdRng::seed_from_u64(seed));
    faults
}

/// Makes faults happen, one after the other.
pub(super) struct Player<'a> {
    stage: &'a mut Stage,
    central: &'a mut KafkaCluster,
    rng: StdRng,
    current: usize,
    happened: Vec<Fault>,
}

impl<'a> Player<'a> {
    pub(super) fn new(stage: &'a mut Stage, central: &'a mut KafkaCluster, seed: u64) -> Self {
        Self { stage, central, rng: StdRng::seed_from_u64(seed + 9), current: 0, happened: Vec::new() }
    }

    /// The faults that really happened.
    pub(super) fn happened(&self) -> Vec<Fault> {
        self.happened.clone()
    }

    /// Waits until records flow, makes the fault happen at a random moment, and sees that it happened.
    pub(super) fn play(&mut self, fault: Fault) -> Result<()> {
        let from = self.central_records()?;
        wait_until("records arrive at the centre", RECOVERY_LIMIT, || Ok(self.central_records()? > from))
            .with_context(|| format!("before {fault:?}, after {:?}", self.happened))?;
        std::thread::sleep(Duration::from_millis(self.rng.random_range(0..1500)));
        match fault {
            Fault::KillAgent => {
                ensure!(self.stage.agent.kill(), "the agent was not running");
                self.pause();
                self.stage.agent.start()?;
            }
            Fault::KillCollector => {
                ensure!(self.stage.collector(self.current)?.kill(), "the collector was not running");
                self.pause();
                self.stage.collector(self.current)?.start()?;
            }
            Fault::Move => {
                self.current = 1 - self.current;
                self.stage.move_to(self.current)?;
                let current = self.current;
                wait_until("the other collector has the site", RECOVERY_LIMIT, || {
                    Ok(self.stage.collector(current)?.metrics()?.sum("spillway_sites_connected", &[]) >= 1.0)
                })?;
            }
            Fault::RestartCentre => {
                self.central.stop()?;
                self.pause();
                self.central.resume()?;
            }
        }
        println!("{} of 17: {fault:?}", self.happened.len() + 1);
        self.happened.push(fault);
        Ok(())
    }

    /// Being away for a moment or for some seconds makes a difference to timers on the other side.
    fn pause(&mut self) {
        std::thread::sleep(Duration::from_millis(self.rng.random_range(0..2000)));
    }

    /// The ends of some partitions; 0 while the remote topic does not exist yet or the cluster is away.
    fn central_records(&self) -> Result<i64> {
        let remote = format!("{}.{MIXED}", self.stage.site);
        if !self.stage.centre.topics().is_ok_and(|topics| topics.contains_key(&remote)) {
            return Ok(0);
        }
        (0..4).map(|partition| Ok(self.stage.centre.watermarks(&remote, partition)?.1)).sum()
    }
}
