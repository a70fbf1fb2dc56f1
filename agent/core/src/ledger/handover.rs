//! What the books tell, and what they hand over to be done.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use spillway_proto::{Lane, NextOffset, TopicPartition};

use super::{Attachment, Detachment, Ended, Ledger};
use crate::lane::LaneBook;
use crate::schedule::{Flow, Scope};

impl Ledger {
    /// The lane that has the partition now, dead or alive.
    pub fn lane_of(&self, partition: &TopicPartition) -> Option<Lane> {
        self.newest.get(partition).copied()
    }

    /// A lane's book.
    pub fn book(&self, lane: Lane) -> Option<&LaneBook> {
        self.lanes.get(&lane)
    }

    /// The newest lane of each partition.
    pub fn partitions(&self) -> impl Iterator<Item = (Lane, &LaneBook)> {
        self.newest.values().filter_map(|lane| Some((*lane, self.lanes.get(lane)?)))
    }

    /// Lanes to be read from now on.
    pub fn take_attachments(&mut self) -> Vec<Attachment> {
        std::mem::take(&mut self.attachments)
    }

    /// Lanes not to be read any more; tell the source after [`Self::take_attachments`]. It answers each with [`Self::detached`].
    pub fn take_detachments(&mut self) -> Vec<Detachment> {
        std::mem::take(&mut self.detachments)
    }

    /// Lanes that ended.
    pub fn take_ended(&mut self) -> Vec<Ended> {
        std::mem::take(&mut self.ended)
    }

    /// What is to be committed for the local group since the last call. Give it back with [`Self::commit_failed`] when that fails.
    pub fn take_commits(&mut self) -> BTreeMap<TopicPartition, NextOffset> {
        std::mem::take(&mut self.commits)
    }

    /// A commit failed: it is offered again, unless a newer one is there.
    pub fn commit_failed(&mut self, commits: BTreeMap<TopicPartition, NextOffset>) {
        for (partition, next) in commits {
            self.commits.entry(partition).or_insert(next);
        }
    }

    /// Bytes of the agent's budget that were released since the last call, by flow.
    pub fn take_released(&mut self) -> BTreeMap<Flow, usize> {
        std::mem::take(&mut self.released_budget)
    }

    /// Records acknowledged since the last call.
    pub fn take_acked_records(&mut self) -> u64 {
        std::mem::take(&mut self.acked_records)
    }

    /// Encoded bytes that are not acknowledged.
    pub fn unacked_bytes(&self) -> usize {
        self.frames.bytes(Scope::All)
    }

    /// The same of one flow.
    pub fn unacked_bytes_of(&self, scope: Scope) -> usize {
        self.frames.bytes(scope)
    }

    /// Of these the bytes that are durable in the spill, too.
    pub fn spilled_bytes_of(&self, scope: Scope) -> usize {
        self.frames.durable_bytes(scope)
    }

    /// Bytes of frames that are not acknowledged and not sent in this session.
    pub fn unsent_bytes(&self) -> usize {
        self.unacked_bytes().saturating_sub(self.session.as_ref().map_or(0, |window| window.sent_bytes))
    }

    /// Records that are not acknowledged.
    pub fn unacked_records(&self) -> u64 {
        self.frames.records()
    }

    /// True when every frame is acknowledged.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// The number of the frame that is pushed next. Frames are numbered as they are pushed.
    pub fn next_index(&self) -> u64 {
        self.frames.next_index()
    }

    /// True when all frames before the one with this number are acknowledged, or wanted by nobody any more.
    pub fn is_settled_before(&self, index: u64, scope: Scope) -> bool {
        self.frames.is_settled_before(index, scope)
    }

    /// How long data has waited without any ack; zero when none waits.
    pub fn stalled_for(&self, now: Instant) -> Duration {
        if self.frames.is_empty() { Duration::ZERO } else { now.saturating_duration_since(self.progressed) }
    }

    /// Timestamp of the oldest record of the lane that is read and not acknowledged, milliseconds since 1970.
    pub fn oldest_unacked(&self, lane: Lane) -> Option<i64> {
        self.frames.oldest_of(lane)
    }
}
