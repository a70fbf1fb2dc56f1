//! Brokers of the centre: how far their logs reach, and how some of them are killed.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rdkafka::consumer::Consumer as _;

use super::super::load::MIXED;
use super::super::scene::{Reach, SITE};
use super::RealScene;
use crate::oracle::remote_topic;
use crate::wait::wait_until;

/// Until a dead broker's partitions have another leader, or its replicas are out of sync: the brokers' session timeout and the machine's load.
pub(super) const ELECTION_LIMIT: Duration = Duration::from_secs(90);

impl RealScene {
    pub(super) fn reach_of(&self, topic: &str, partition: i32) -> Option<Reach> {
        // The stable end first: if it still stands after a fault, what was seen beyond it is still open.
        let limit = Duration::from_millis(1500);
        let (_, stable) = self.committed.fetch_watermarks(topic, partition, limit).ok()?;
        let (_, end) = self.all.fetch_watermarks(topic, partition, limit).ok()?;
        Some(Reach { end, stable })
    }

    pub(super) fn kill_leader(&mut self, salt: u64) -> Result<()> {
        let (topic, partition) = (remote_topic(SITE, MIXED), i32::try_from(salt % 10)?);
        let (leader, _) = self.stage.centre.leader(&topic, partition)?;
        let leader = leader.context("no leader to kill")?;
        ensure!(self.central.kill_broker(broker_index(leader)?), "broker {leader} was not running");
        wait_until("another broker leads", ELECTION_LIMIT, || {
            Ok(self.stage.centre.leader(&topic, partition).is_ok_and(|(now, _)| now.is_some_and(|now| now != leader)))
        })
    }

    pub(super) fn shrink_isr(&mut self, salt: u64) -> Result<()> {
        let survivor = usize::try_from(salt % 3)?;
        for broker in (0..3).filter(|broker| *broker != survivor) {
            ensure!(self.central.kill_broker(broker), "broker {broker} was not running");
        }
        // A partition that the survivor leads, or that nobody may lead: either way fewer are in sync than a write needs.
        let topic = remote_topic(SITE, MIXED);
        wait_until("the ISR is below the minimum", ELECTION_LIMIT, || {
            Ok((0..10).any(|partition| self.stage.centre.leader(&topic, partition).is_ok_and(|(leader, isr)| leader.is_some() && isr < 2)))
        })
    }
}

/// Brokers have the ids 1, 2, 3.
pub(super) fn broker_index(id: i32) -> Result<usize> {
    Ok(usize::try_from(id)?.saturating_sub(1))
}
