//! The consumer, and which partitions it reads for which lane.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::Offset;
use spillway_config::KafkaClient;
use spillway_kafka::{Context, admin_client_config, client_config};
use spillway_proto::{Lane, NextOffset, Partition, SiteName, TopicName, TopicPartition};

use super::SiteConsumer;
use super::builders::Slot;
use crate::memory::Shares;

/// Makes the consumer; it connects in the background. The group `spillway-<site>` is committed to and never joined.
///
/// # Errors
/// When librdkafka refuses a setting, or a certificate of the site's Kafka.
pub fn consumer(kafka: &KafkaClient, site: &SiteName, shares: &Shares) -> Result<SiteConsumer, KafkaError> {
    let mut config = client_config(kafka, &format!("spillway-agent-{site}"));
    shares.apply(&mut config);
    for (key, value) in OWNED {
        config.set(*key, *value);
    }
    config.set("group.id", format!("spillway-{site}"));
    SiteConsumer::from_config_and_context(&config, Context)
}

/// Makes the client that asks questions. It has its own connections: on the consumer's a broker answers one request after the other, and a
/// fetch with nothing to fetch takes half a second.
///
/// # Errors
/// As [`consumer`].
pub fn inquirer(kafka: &KafkaClient, site: &SiteName) -> Result<SiteConsumer, KafkaError> {
    let mut config = admin_client_config(kafka, &format!("spillway-agent-{site}"));
    // Only to ask what the group has committed; it is never joined.
    config.set("group.id", format!("spillway-{site}"));
    config.set("enable.auto.commit", "false");
    // The end of a log is its last stable offset, as for the consumer.
    config.set("isolation.level", "read_committed");
    SiteConsumer::from_config_and_context(&config, Context)
}

/// Settings on which correctness rests.
const OWNED: &[(&str, &str)] = &[
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    // A position that has vanished is a gap to be told of, never a silent jump.
    ("auto.offset.reset", "error"),
    ("isolation.level", "read_committed"),
    // A log that ends in transaction markers has no record to show how far it was read.
    ("enable.partition.eof", "true"),
    // The watcher asks for topic ids itself; this only has to notice new leaders of idle topics.
    ("topic.metadata.refresh.interval.ms", "30000"),
];

/// Which lane reads which partition.
#[derive(Debug, Default)]
pub(super) struct Assignment {
    readings: HashMap<Box<str>, Vec<Option<Reading>>>,
    /// Partitions that are not read for now, because no more of their flow can be taken.
    parked: BTreeMap<Slot, Parked>,
}

#[derive(Debug)]
struct Parked {
    since: Instant,
    list: Vec<(Lane, TopicPartition)>,
}

/// What was fetched is thrown away when a flow is parked, so that is not done too often.
const PARKED_LEAST: Duration = Duration::from_millis(200);

/// Whose records a partition's are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reading {
    /// The lane.
    pub(super) lane: Lane,
    /// Which frame they go into.
    pub(super) slot: Slot,
}

impl Assignment {
    /// Who reads a partition.
    pub(super) fn reading(&self, topic: &str, partition: u32) -> Option<Reading> {
        *self.readings.get(topic)?.get(partition as usize)?
    }

    /// Reads partitions from the given positions. The others are not disturbed.
    pub(super) fn attach(&mut self, consumer: &SiteConsumer, list: &[(Reading, TopicPartition, NextOffset)]) -> Result<(), KafkaError> {
        let mut assigned = TopicPartitionList::with_capacity(list.len());
        for (reading, partition, next) in list {
            if let Some(parked) = self.parked.get_mut(&reading.slot) {
                parked.list.push((reading.lane, partition.clone()));
                continue;
            }
            let offset = Offset::Offset(next.to_kafka());
            assigned.add_partition_offset(partition.topic.as_str(), partition.partition.to_kafka(), offset)?;
            let readings = self.readings.entry(partition.topic.as_str().into()).or_default();
            let index = partition.partition.index() as usize;
            if readings.len() <= index {
                readings.resize(index + 1, None);
            }
            readings[index] = Some(*reading);
        }
        if assigned.count() == 0 { Ok(()) } else { consumer.incremental_assign(&assigned) }
    }

    /// Reads nothing of a flow for now. What is fetched of it is thrown away, so that the others' records come through.
    pub(super) fn park(&mut self, consumer: &SiteConsumer, slot: Slot, now: Instant) -> Result<(), KafkaError> {
        if self.parked.contains_key(&slot) {
            return Ok(());
        }
        let mut unassigned = TopicPartitionList::new();
        let mut parked = Parked { since: now, list: Vec::new() };
        for (topic, readings) in &mut self.readings {
            for (index, place) in (0..).zip(readings) {
                let (Some(reading), Ok(topic)) = (place.filter(|reading| reading.slot == slot), TopicName::parse(topic)) else {
                    continue;
                };
                let Some(partition) = Partition::new(index) else {
                    continue;
                };
                *place = None;
                unassigned.add_partition(topic.as_str(), partition.to_kafka());
                parked.list.push((reading.lane, TopicPartition { topic, partition }));
            }
        }
        self.parked.insert(slot, parked);
        consumer.incremental_unassign(&unassigned)
    }

    /// Parked flows that may be looked at again.
    pub(super) fn parked(&self, now: Instant) -> Vec<Slot> {
        let is_due = |parked: &Parked| now.saturating_duration_since(parked.since) >= PARKED_LEAST;
        self.parked.iter().filter(|(_, parked)| is_due(parked)).map(|(slot, _)| *slot).collect()
    }

    /// Takes a flow's partitions out of the parked ones: give them to [`Self::attach`] again.
    pub(super) fn take_parked(&mut self, slot: Slot) -> Vec<(Lane, TopicPartition)> {
        self.parked.remove(&slot).map(|parked| parked.list).unwrap_or_default()
    }

    /// Reads a partition no more, if it is the lane's.
    pub(super) fn detach(&mut self, consumer: &SiteConsumer, lane: Lane, partition: &TopicPartition) -> Result<(), KafkaError> {
        for parked in self.parked.values_mut() {
            parked.list.retain(|(other, _)| *other != lane);
        }
        let place = self.readings.get_mut(partition.topic.as_str());
        let place = place.and_then(|readings| readings.get_mut(partition.partition.index() as usize));
        let Some(place) = place.filter(|place| place.is_some_and(|reading| reading.lane == lane)) else {
            return Ok(());
        };
        *place = None;
        let mut unassigned = TopicPartitionList::with_capacity(1);
        unassigned.add_partition(partition.topic.as_str(), partition.partition.to_kafka());
        consumer.incremental_unassign(&unassigned)
    }

    /// Reads nothing more.
    pub(super) fn clear(&mut self, consumer: &SiteConsumer) -> Result<(), KafkaError> {
        self.readings.clear();
        self.parked.clear();
        consumer.unassign()
    }
}
