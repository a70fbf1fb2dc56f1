//! Lanes that stop because of the spill: it has lost what comes next on them, or has it in a frame that the collector does not take.

use spillway_proto::{Lane, NextOffset, TopicPartition};
use spillway_spill_core::entry::Line;
use spillway_spill_core::summary::Source;

use super::{Detachment, Ledger};
use crate::lane::{AfterDrain, HeldBecause, LaneBook, Phase};

impl Ledger {
    /// The spill says that it no longer has what it had of a partition: it is damaged, or was dropped by policy. The lane sends what comes before
    /// it and is given up there. Untold, it is found out at the spill's end, which is never reached while more comes in than goes out.
    pub fn lost(&mut self, source: &Source, line: Line, first: NextOffset, next: NextOffset) {
        let is_concerned = |book: &LaneBook| {
            let other = book.source.topic_id.is_other_incarnation(source.topic_id) || (book.base.is_some() && book.line != line);
            // What has not begun may be planned with what the spill said before.
            !other && book.until.is_none_or(|until| first < until) && book.position.is_none_or(|position| position < next)
        };
        let concerned = self.takers(&source.partition).filter(|(_, book)| is_concerned(book)).map(|(lane, _)| lane);
        for lane in concerned.collect::<Vec<_>>() {
            self.stop_at(lane, first);
        }
    }

    /// The spill does not have what comes at `next`: the lane is given up there.
    pub(crate) fn stop_at(&mut self, lane: Lane, next: NextOffset) {
        if let Some(book) = self.lanes.get_mut(&lane) {
            book.lost_at = Some(book.lost_at.map_or(next, |at| at.min(next)));
        }
        self.stop_at_loss(lane);
    }

    /// The spill has lost what comes next on the lane: a new one takes over when all that was sent is acknowledged.
    pub fn give_up(&mut self, lane: Lane) {
        if let Some(book) = self.lanes.get_mut(&lane).filter(|book| !book.is_dead()) {
            book.is_broken = true;
        }
        self.end_if_drained(lane);
    }

    /// A lane is over at once: another one takes the partition over.
    pub fn abandon(&mut self, lane: Lane) {
        if self.lanes.get(&lane).is_some_and(|book| !book.is_dead()) {
            self.end(lane, AfterDrain::Reopen);
        }
    }

    /// What comes next on a lane stays in the spill: the lane is held when all that was sent is acknowledged, and a new one takes the partition over
    /// later. Answers the partition; `None` when the lane sends nothing more anyway.
    pub fn stand_still(&mut self, lane: Lane, because: HeldBecause) -> Option<TopicPartition> {
        let book = self.lanes.get_mut(&lane).filter(|book| !book.is_dead() && !book.is_broken)?;
        let partition = book.source.partition.clone();
        if book.attached && book.phase == Phase::Live {
            self.detachments.push(Detachment { lane, partition: partition.clone(), keep: true });
        }
        book.is_broken = true;
        book.phase = Phase::Draining { then: AfterDrain::Hold(because) };
        self.end_if_drained(lane);
        Some(partition)
    }

    pub(super) fn stop_at_loss(&mut self, lane: Lane) {
        let reached = |book: &LaneBook| book.lost_at.is_some_and(|at| book.position >= Some(at));
        if self.lanes.get(&lane).is_some_and(reached) {
            self.give_up(lane);
        }
    }
}
