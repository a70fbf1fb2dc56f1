//! Everything the broker remembers, behind one lock that is never held across an await.

use std::collections::BTreeMap;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use kafka_protocol::protocol::StrBytes;

use crate::batch::Marker;
use crate::group::Group;
use crate::topics::Topics;
use crate::txn::{Coordinator, Ending};

/// Letters of Kafka's cluster ids, which are random uuids in URL-safe base64.
const BASE64: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const CLUSTER_ID_LEN: usize = 22;

/// The broker's memory.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) cluster_id: StrBytes,
    pub(crate) topics: Topics,
    pub(crate) groups: BTreeMap<String, Group>,
    pub(crate) coordinator: Coordinator,
}

/// The two clocks: one to wait with, one for the timestamps of records.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    pub(crate) instant: Instant,
    /// Unix milliseconds.
    pub(crate) unix_ms: i64,
}

impl Now {
    pub(crate) fn read() -> Self {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { instant: Instant::now(), unix_ms: i64::try_from(unix.as_millis()).unwrap_or(i64::MAX) }
    }
}

impl State {
    pub(crate) fn new() -> Self {
        let letter = |_| char::from(BASE64[rand::random_range(0..BASE64.len())]);
        let cluster_id: String = (0..CLUSTER_ID_LEN).map(letter).collect();
        Self {
            cluster_id: StrBytes::from_string(cluster_id),
            topics: Topics::default(),
            groups: BTreeMap::new(),
            coordinator: Coordinator::default(),
        }
    }

    /// Writes the markers of an ended transaction and settles its group offsets. Partitions that were deleted meanwhile
    /// need no marker.
    pub(crate) fn end_transaction(&mut self, ending: &Ending, now: Now) {
        let producer = ending.identity;
        for (topic, partition) in &ending.partitions {
            let Ok((log, _)) = self.topics.partition_mut(topic, *partition) else {
                continue;
            };
            if let Err(error) = log.append_marker(ending.marker, producer.producer_id, producer.epoch, now.unix_ms) {
                tracing::error!(topic, partition, %error, "a transaction marker was not written");
            }
        }
        for group in &ending.groups {
            if let Some(group) = self.groups.get_mut(group) {
                group.offsets.settle(producer.producer_id, ending.marker == Marker::Commit);
            }
        }
    }

    /// Forgets what groups have committed for a topic that was deleted.
    pub(crate) fn forget_topic_offsets(&mut self, topic: &str) {
        for group in self.groups.values_mut() {
            group.offsets.delete_topic(topic);
        }
    }

    /// What the timer does: expires members, rebalances and transactions. Answers whether a transaction ended.
    pub(crate) fn expire(&mut self, now: Now) -> bool {
        for group in self.groups.values_mut() {
            group.expire(now.instant);
        }
        let endings = self.coordinator.expire(now.instant);
        for ending in &endings {
            self.end_transaction(ending, now);
        }
        !endings.is_empty()
    }

    /// Deletes what the topics' retention settings no longer keep.
    pub(crate) fn retain(&mut self, now: Now) {
        for topic in self.topics.iter_mut() {
            for log in &mut topic.partitions {
                log.retain(&topic.settings, now.unix_ms);
            }
        }
    }
}
