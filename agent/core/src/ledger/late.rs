//! What was deferred: the ranges that the centre still waits for, and the late lanes that bring them.
//!
//! A lane may begin with a deferral: it goes on behind what the spill holds of its partition, and a late lane sends that beside it, one for each partition at a
//! time, the oldest range first.
//!
//! Invariants, beside those of [`super`]:
//! - H. Only what is durable in the spill is deferred. So a lane that begins with a deferral may commit at the source as any other, and a late lane commits nothing.
//! - I. The spill is told that something is at the centre only below everything that is deferred ([`Ledger::released`]).
//! - J. What is deferred is what the centre says in each session, and what was deferred since.

use spillway_proto::deferred::{Deferred, MAX_RANGES, Range};
use spillway_proto::message::OpenLane;
use spillway_proto::{Lane, NextOffset, TopicPartition, limits};

use super::{Error, Ledger, Window};
use crate::lane::{AfterDrain, LaneBook, Phase};
use crate::schedule::{Order, Scope};

/// Most late lanes at a time. Each costs a lane of the session and a book; the other partitions' ranges wait for one.
pub const MAX_LATE_LANES: usize = 1024;

/// Most deferred ranges of a site: with that many, nothing more is deferred. As many as [`MAX_LATE_LANES`] partitions may have.
pub const MAX_SITE_RANGES: usize = MAX_LATE_LANES * MAX_RANGES;

/// Most lanes of a session before lanes are given up only for others to take over with a deferral: a collector remembers four times as many.
const MAX_SESSION_LANES: u32 = limits::MAX_LANES as u32;

impl Ledger {
    /// The ranges of the partition of a lane that is resumed next.
    ///
    /// # Errors
    /// When the lane was never opened.
    pub fn tell_deferred(&mut self, lane: Lane, deferred: Deferred) -> Result<(), Error> {
        if self.known(lane)?.is_some_and(|book| !book.settled && book.until.is_none()) {
            self.told.insert(lane, deferred);
        }
        Ok(())
    }

    /// Late lanes that are to be announced now. To be asked after every event.
    pub fn open_late(&mut self) -> Vec<OpenLane> {
        if !self.is_late_due || self.session.as_ref().is_none_or(|session| !session.defers) {
            return Vec::new();
        }
        self.is_late_due = false;
        let waiting = self.deferred.iter().filter(|(partition, _)| !self.late.contains_key(*partition));
        let wanted = waiting.filter_map(|(partition, deferred)| {
            let newest = self.lanes.get(self.newest.get(partition)?)?;
            Some((newest.source.clone(), deferred.iter().next()?.end))
        });
        let most = MAX_LATE_LANES.saturating_sub(self.late.len()).min(limits::MAX_LANES.saturating_sub(self.lanes.len()));
        let wanted: Vec<_> = wanted.take(most).collect();
        let open = |(source, until)| {
            let lane = Lane(self.next_lane);
            self.next_lane += 1;
            let book = LaneBook { until: Some(until), ..LaneBook::new(source) };
            let announcement = book.announcement(lane);
            self.late.insert(book.source.partition.clone(), lane);
            self.lanes.insert(lane, book);
            announcement
        };
        wanted.into_iter().map(open).collect()
    }

    /// What the spill may be told of a partition's lane: everything below is at the centre.
    pub fn released(&self, book: &LaneBook) -> Option<NextOffset> {
        let deferred = self.deferred.get(&book.source.partition).and_then(Deferred::first);
        book.acked.map(|acked| deferred.map_or(acked, |first| acked.min(first)))
    }

    /// The late lane that a partition has now, alive or held.
    pub fn late_of(&self, partition: &TopicPartition) -> Option<Lane> {
        self.late.get(partition).copied()
    }

    /// What is deferred of a partition.
    pub fn deferred_of(&self, partition: &TopicPartition) -> Option<&Deferred> {
        self.deferred.get(partition)
    }

    /// True while something of these flows is deferred.
    pub(crate) fn has_deferred(&self, scope: Scope) -> bool {
        let flow_of = |partition| Some(self.lanes.get(self.newest.get(partition)?)?.source.flow);
        self.deferred.keys().any(|partition| flow_of(partition).is_some_and(|flow| scope.has(flow)))
    }

    /// True when the session, and the rules of all these flows, allow that lanes begin with a deferral.
    pub(crate) fn may_defer(&self, scope: Scope) -> bool {
        let opened = |session: &Window| self.next_lane.saturating_sub(session.first_lane) < MAX_SESSION_LANES;
        let ranges = || self.deferred.values().map(Deferred::len).sum::<usize>();
        self.session.as_ref().is_some_and(|session| session.defers && opened(session))
            && self.scheduler.flows().filter(|(flow, _)| scope.has(*flow)).all(|(_, spec)| spec.order == Order::LiveFirst)
            && ranges() < MAX_SITE_RANGES
    }

    /// True when a partition may have a further range.
    pub(crate) fn has_range_left(&self, partition: &TopicPartition) -> bool {
        self.deferred.get(partition).is_none_or(|deferred| !deferred.is_full())
    }

    /// Live lanes of which something that was read is not in memory, where each of them may begin anew with a deferral; `None` when one may not.
    pub(crate) fn deferrable(&self, scope: Scope) -> Option<Vec<Lane>> {
        let behind = self.behind(scope).filter_map(|lane| Some((lane, self.lanes.get(&lane)?)));
        let live = behind.filter(|(_, book)| book.phase == Phase::Live && book.until.is_none());
        let lanes = live.map(|(lane, book)| (book.acked.is_some() && self.has_range_left(&book.source.partition)).then_some(lane));
        lanes.collect()
    }

    /// The spill has to be gone through for a lane that has begun in the middle of it.
    pub(crate) fn look_behind(&mut self, lane: Lane) {
        if let Some(book) = self.lanes.get_mut(&lane) {
            (book.is_ahead, book.pass_began) = (true, None);
        }
    }

    /// The centre says what is deferred of a partition, when its own lane is resumed.
    pub(super) fn replace_deferred(&mut self, lane: Lane) {
        let told = self.told.remove(&lane).unwrap_or_default();
        if let Some(partition) = self.lanes.get(&lane).filter(|book| book.until.is_none()).map(|book| book.source.partition.clone()) {
            if told.is_empty() {
                self.deferred.remove(&partition);
            } else {
                self.deferred.insert(partition, told);
            }
            self.is_late_due = true;
        }
    }

    /// A lane's deferral is at the centre.
    pub(super) fn deferred_at_centre(&mut self, lane: Lane) {
        let Some(book) = self.lanes.get_mut(&lane) else {
            return;
        };
        if let Some(range) = book.defers.take() {
            // What is there already, the centre has told.
            let _known = self.deferred.entry(book.source.partition.clone()).or_default().defer(range);
            self.is_late_due = true;
        }
    }

    /// A late lane is at the centre up to `next`.
    pub(super) fn late_at_centre(&mut self, lane: Lane, next: NextOffset) {
        let Some((until, partition)) = self.lanes.get(&lane).and_then(|book| Some((book.until?, book.source.partition.clone()))) else {
            return;
        };
        let Some(deferred) = self.deferred.get_mut(&partition) else {
            return;
        };
        deferred.advance(until, next);
        if deferred.is_empty() {
            self.deferred.remove(&partition);
            // One for a topic of the past waits for this.
            if let Some(newest) = self.newest.get(&partition).copied() {
                self.end_if_drained(newest);
            }
        }
    }

    /// A partition's offsets begin anew: the centre waits for nothing of before.
    pub(super) fn forget_deferred(&mut self, partition: &TopicPartition) {
        self.deferred.remove(partition);
        if let Some(lane) = self.late.get(partition).copied() {
            self.end(lane, AfterDrain::Close);
        }
    }

    /// A session begins: with a collector that knows no deferred ranges, nothing of them may be on its way.
    pub(super) fn prepare_late(&mut self, defers: bool) {
        let held = |lane: &Lane| self.lanes.get(lane).is_some_and(LaneBook::is_dead);
        let held: Vec<_> = self.late.iter().filter(|(_, lane)| held(lane)).map(|(partition, lane)| (partition.clone(), *lane)).collect();
        for (partition, lane) in held {
            // It is tried anew.
            self.late.remove(&partition);
            self.forget_if_unused(lane);
        }
        self.is_late_due = true;
        if !defers {
            let deferring = self.lanes.iter().filter(|(_, book)| !book.is_dead() && (book.until.is_some() || book.defers.is_some()));
            for (lane, is_late) in deferring.map(|(lane, book)| (*lane, book.until.is_some())).collect::<Vec<_>>() {
                self.end(lane, if is_late { AfterDrain::Close } else { AfterDrain::Reopen });
            }
        }
    }

    /// A late lane that stood still is tried again. Answers whether it was one.
    pub fn retry_late(&mut self, lane: Lane) -> bool {
        let Some(partition) = self.late.iter().find(|(_, late)| **late == lane).map(|(partition, _)| partition.clone()) else {
            return false;
        };
        if self.lanes.get(&lane).is_some_and(LaneBook::is_dead) {
            self.late.remove(&partition);
            self.forget_if_unused(lane);
            self.is_late_due = true;
        }
        true
    }

    /// A late lane is over. Where it is held, its partition gets another one when it is tried again.
    pub(super) fn late_over(&mut self, lane: Lane) {
        let Some(book) = self.lanes.get(&lane).filter(|book| book.until.is_some() && !matches!(book.phase, Phase::Held(_))) else {
            return;
        };
        if self.late.get(&book.source.partition) == Some(&lane) {
            self.late.remove(&book.source.partition);
            self.is_late_due = true;
        }
    }

    /// What a lane goes over when it begins.
    pub(super) fn note_deferral(&mut self, lane: Lane, first: NextOffset, end: NextOffset) {
        if let Some(book) = self.lanes.get_mut(&lane) {
            book.defers = Some(Range { first, end });
        }
    }
}
