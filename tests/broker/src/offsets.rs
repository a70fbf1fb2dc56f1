//! The committed offsets of consumer groups, and those that wait for the end of a transaction.

use std::collections::{BTreeMap, HashMap};

use kafka_protocol::protocol::StrBytes;

/// A committed offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Committed {
    pub(crate) offset: i64,
    pub(crate) leader_epoch: i32,
    pub(crate) metadata: StrBytes,
}

/// A partition of a topic, by the topic's name.
pub(crate) type Partition = (String, i32);

/// The offsets of one group.
#[derive(Debug, Default)]
pub(crate) struct GroupOffsets {
    committed: BTreeMap<Partition, Committed>,
    pending: HashMap<i64, BTreeMap<Partition, Committed>>,
}

impl GroupOffsets {
    pub(crate) fn get(&self, partition: &Partition) -> Option<&Committed> {
        self.committed.get(partition)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Partition, &Committed)> {
        self.committed.iter()
    }

    pub(crate) fn commit(&mut self, partition: Partition, committed: Committed) {
        self.committed.insert(partition, committed);
    }

    pub(crate) fn delete(&mut self, partition: &Partition) {
        self.committed.remove(partition);
    }

    /// Forgets a deleted topic.
    pub(crate) fn delete_topic(&mut self, topic: &str) {
        self.committed.retain(|(name, _), _| name != topic);
        for pending in self.pending.values_mut() {
            pending.retain(|(name, _), _| name != topic);
        }
    }

    /// Keeps an offset until the producer's transaction ends.
    pub(crate) fn commit_pending(&mut self, producer_id: i64, partition: Partition, committed: Committed) {
        self.pending.entry(producer_id).or_default().insert(partition, committed);
    }

    /// Whether a transaction that is still open holds an offset for this partition.
    pub(crate) fn is_pending(&self, partition: &Partition) -> bool {
        self.pending.values().any(|offsets| offsets.contains_key(partition))
    }

    /// Applies or drops what the producer's transaction holds.
    pub(crate) fn settle(&mut self, producer_id: i64, commit: bool) {
        let pending = self.pending.remove(&producer_id).unwrap_or_default();
        if commit {
            self.committed.extend(pending);
        }
    }
}
