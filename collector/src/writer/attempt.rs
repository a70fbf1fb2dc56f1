//! One transaction while it is open: which record was which, and what became of it.

use std::collections::HashMap;

use rdkafka::error::RDKafkaErrorCode;
use spillway_collector_core::progress::Moves;
use spillway_collector_core::syncs::SyncSlot;
use spillway_proto::frame::GapReason;
use spillway_proto::message::HoldReason;
use spillway_proto::{Lane, NextOffset, Offset};

use super::failure::{Failure, classify};

/// Books of the open transaction. Emptied, not freed, between transactions: a record costs no allocation.
#[derive(Debug, Default)]
pub struct Attempt {
    records: Vec<Entry>,
    /// What each touched lane has in it, in the order of their first section.
    pub lanes: Vec<LaneShare>,
    by_lane: HashMap<Lane, usize>,
    /// Where it leaves the partitions that it moves.
    pub moves: Moves,
    /// Gaps that it moves lanes over, and what was deferred and comes no more.
    pub gaps: Vec<Gap>,
    /// What it defers.
    pub deferrals: Vec<Gap>,
    /// Raw bytes of the records.
    pub raw_bytes: u64,
    /// Offset syncs in it.
    pub syncs: u64,
    /// Why their events cannot be written: the topic of gaps is refused, or not there.
    pub gaps_failure: Option<(Failure, RDKafkaErrorCode)>,
    /// A failure that no lane is to blame for.
    pub transient: Option<RDKafkaErrorCode>,
    /// Whether any delivery failed.
    pub failed: bool,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    share: u32,
    nth: u32,
    offset: u64,
}

/// What the transaction holds of one lane.
#[derive(Debug)]
pub struct LaneShare {
    /// The lane.
    pub lane: Lane,
    /// Where its syncs are kept, if it has any.
    pub sync_slot: Option<SyncSlot>,
    /// Where the lane was before.
    pub first: NextOffset,
    /// Where the lane is when the transaction is committed.
    pub next: NextOffset,
    /// Records.
    pub taken: u32,
    /// Timestamp of the newest record, −1 without any.
    pub timestamp: i64,
    /// The first of its records that was refused, and the last.
    pub refused: Option<Refused>,
    /// The remote topic cannot be written, or is not there.
    pub topic_failure: Option<(Failure, RDKafkaErrorCode)>,
}

/// Records of a lane that were refused, by their number in the lane's share.
#[derive(Debug, Clone, Copy)]
pub struct Refused {
    /// The first.
    pub first: u32,
    /// Its source offset.
    pub offset: u64,
    /// The last.
    pub last: u32,
    /// Why.
    pub reason: HoldReason,
    /// What the broker said.
    pub code: RDKafkaErrorCode,
}

/// A gap that a lane goes over.
#[derive(Debug, Clone, Copy)]
pub struct Gap {
    /// The lane.
    pub lane: Lane,
    /// Where it begins.
    pub first: NextOffset,
    /// Where it leads.
    pub next: NextOffset,
    /// Why.
    pub reason: GapReason,
}

/// A delivered record of a lane.
#[derive(Debug, Clone, Copy)]
pub struct Delivered {
    /// Where the lane's syncs are kept.
    pub sync_slot: SyncSlot,
    /// Source offset.
    pub upstream: Offset,
    /// Central offset.
    pub downstream: Offset,
}

impl Attempt {
    /// A new transaction.
    pub fn clear(&mut self) {
        let Self { records, lanes, by_lane, moves, gaps, deferrals, gaps_failure, raw_bytes, syncs, transient, failed } = self;
        records.clear();
        lanes.clear();
        by_lane.clear();
        moves.clear();
        gaps.clear();
        deferrals.clear();
        (*gaps_failure, *raw_bytes, *syncs, *transient, *failed) = (None, 0, 0, None, false);
    }

    /// The share of a lane, which is at `first` when it has none yet.
    pub fn share(&mut self, lane: Lane, first: NextOffset, sync_slot: Option<SyncSlot>) -> usize {
        *self.by_lane.entry(lane).or_insert_with(|| {
            let (next, taken, timestamp) = (first, 0, -1);
            self.lanes.push(LaneShare { lane, sync_slot, first, next, taken, timestamp, refused: None, topic_failure: None });
            self.lanes.len() - 1
        })
    }

    /// The tag of the next record, which is not in the books yet.
    pub fn next_tag(&self) -> usize {
        self.records.len()
    }

    /// A record of a lane was queued under [`Self::next_tag`].
    pub fn queued(&mut self, share: usize, offset: Offset, timestamp: i64) {
        let Some(lane) = self.lanes.get_mut(share) else {
            return;
        };
        self.records.push(Entry { share: share as u32, nth: lane.taken, offset: offset.value() });
        lane.taken += 1;
        lane.timestamp = timestamp;
    }

    /// Records of lanes.
    pub fn records(&self) -> usize {
        self.records.len()
    }

    /// The tag of progress records and syncs.
    pub const OWN: usize = usize::MAX;

    /// The tag of gap events.
    pub const GAP_EVENT: usize = usize::MAX - 1;

    /// A delivery report came in. Answers the record's offsets if it was delivered, and its lane has syncs.
    pub fn report(&mut self, tag: usize, outcome: Result<i64, RDKafkaErrorCode>) -> Option<Delivered> {
        let Some(entry) = self.records.get(tag).copied() else {
            if let Err(code) = outcome {
                self.failed = true;
                match classify(code) {
                    failure @ (Failure::Topic | Failure::TopicMissing) if tag == Self::GAP_EVENT => {
                        self.gaps_failure = Some((failure, code))
                    }
                    Failure::Victim if tag == Self::GAP_EVENT => {}
                    _ => self.transient = self.transient.or(Some(code)),
                }
            }
            return None;
        };
        match outcome {
            Ok(offset) => {
                let (upstream, downstream) = (Offset::new(entry.offset)?, Offset::from_kafka(offset)?);
                let sync_slot = self.lanes.get(entry.share as usize)?.sync_slot?;
                Some(Delivered { sync_slot, upstream, downstream })
            }
            Err(code) => {
                self.failed = true;
                self.blame(entry, code);
                None
            }
        }
    }

    /// The topic of gaps cannot be had.
    pub fn gaps_refused(&mut self, code: RDKafkaErrorCode) {
        self.failed = true;
        self.gaps_failure = Some((Failure::Topic, code));
    }

    /// A record could not even be queued; it is the next of its lane's share.
    pub fn not_queued(&mut self, share: usize, offset: Offset, code: RDKafkaErrorCode) {
        self.failed = true;
        if let Some(lane) = self.lanes.get_mut(share) {
            let entry = Entry { share: share as u32, nth: lane.taken, offset: offset.value() };
            lane.taken += 1;
            self.blame(entry, code);
        }
    }

    fn blame(&mut self, entry: Entry, code: RDKafkaErrorCode) {
        let Some(lane) = self.lanes.get_mut(entry.share as usize) else {
            return;
        };
        match classify(code) {
            Failure::Record(reason) => {
                let found = Refused { first: entry.nth, offset: entry.offset, last: entry.nth, reason, code };
                let refused = lane.refused.get_or_insert(found);
                if entry.nth < refused.first {
                    (refused.first, refused.offset) = (entry.nth, entry.offset);
                }
                refused.last = refused.last.max(entry.nth);
            }
            failure @ (Failure::Topic | Failure::TopicMissing) => lane.topic_failure = Some((failure, code)),
            Failure::Victim => {}
            Failure::Transient => self.transient = self.transient.or(Some(code)),
        }
    }
}
