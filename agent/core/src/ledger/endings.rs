//! How lanes end: held by the centre, drained, or given up.

use std::time::Instant;

use spillway_proto::{Lane, NextOffset, TopicPartition};

use super::{Detachment, Ended, Error, Ledger};
use crate::lane::{AfterDrain, HeldBecause, LaneBook, Phase};

impl Ledger {
    /// The centre refuses the lane's record at `next`. Answers the partition that stands still; `None` when the lane is dead already.
    ///
    /// # Errors
    /// When it acknowledges, by the way, what was never sent.
    pub fn hold(&mut self, lane: Lane, next: NextOffset, because: HeldBecause, now: Instant) -> Result<Option<TopicPartition>, Error> {
        match self.known(lane)? {
            None => return Ok(None),
            Some(book) if book.is_dead() => return Ok(None),
            Some(book) => {
                book.settled = true;
                // A topic that is refused is held before anything was committed.
                let committed = book.base.is_some_and(|base| next >= base) && book.position.is_some_and(|position| next <= position);
                if committed {
                    self.acknowledge(lane, next, now);
                }
            }
        }
        let partition = self.lanes.get(&lane).map(|book| book.source.partition.clone());
        self.bury(lane, Phase::Held(because));
        Ok(partition)
    }

    /// No more of the lane is to be read; what was read is still sent. The lane ends when all of it is acknowledged and
    /// the source has let go of it ([`Self::detached`]). A lane that has not begun ends at once, but for one of a past incarnation: nothing of
    /// that is at the centre yet, and it ends by itself. From now on nothing is committed for a lane whose partition another lane takes over, or
    /// nobody: its offsets may mean something else at the source already.
    pub fn drain(&mut self, lane: Lane, then: AfterDrain) {
        let Some(book) = self.lanes.get_mut(&lane).filter(|book| !book.is_dead()) else {
            return;
        };
        if book.source.outlived_by.is_some() && book.base.is_none() {
            return;
        }
        if !matches!(then, AfterDrain::Hold(_)) && book.until.is_none() {
            self.commits.remove(&book.source.partition);
        }
        match &mut book.phase {
            // The later decision knows more; but what is gone stays gone.
            Phase::Draining { then: before } if *before == AfterDrain::Close => {}
            Phase::Draining { then: before } => *before = then,
            // For what is left of a past incarnation, or of a deferred range, the opening is on its way.
            _ if book.position.is_none() && book.source.outlived_by.is_none() && book.until.is_none() => self.end(lane, then),
            phase => {
                *phase = Phase::Draining { then };
                if book.attached {
                    self.detachments.push(Detachment { lane, partition: book.source.partition.clone(), keep: true });
                }
                self.end_if_drained(lane);
            }
        }
    }

    /// What follows the drain of a lane is another thing than was thought. Without effect on a lane that is not draining.
    pub fn redirect(&mut self, lane: Lane, after: AfterDrain) {
        if let Some(Phase::Draining { then }) = self.lanes.get_mut(&lane).map(|book| &mut book.phase) {
            *then = after;
        }
    }

    /// The source reads the lane no more, and every frame with its data was pushed.
    pub fn detached(&mut self, lane: Lane) {
        if let Some(book) = self.lanes.get_mut(&lane) {
            book.attached = false;
        }
        self.end_if_drained(lane);
        self.forget_if_unused(lane);
    }

    /// Ends a draining lane of which nothing is left.
    pub(super) fn end_if_drained(&mut self, lane: Lane) {
        let Some(book) = self.lanes.get(&lane) else {
            return;
        };
        if book.is_broken && !book.is_dead() && book.acked == book.position {
            let then = if let Phase::Draining { then } = &book.phase { then.clone() } else { AfterDrain::Reopen };
            self.end(lane, then);
            return;
        }
        // Without a session nothing more is acknowledged: what is safe in the spill is sent by the lane that follows.
        let is_awaited = book.source.outlived_by.is_some() && book.until.is_none() && self.deferred.contains_key(&book.source.partition);
        let is_safe = self.session.is_none()
            && book.read.is_some()
            && book.durable >= book.read
            && book.source.outlived_by.is_none()
            && book.until.is_none();
        if let Phase::Draining { then } = &book.phase
            && !book.attached
            && !is_awaited
            && (book.is_settled_up() || is_safe)
        {
            let then = then.clone();
            self.end(lane, then);
        }
    }

    pub(super) fn end(&mut self, lane: Lane, then: AfterDrain) {
        let Some(book) = self.lanes.get(&lane) else {
            return;
        };
        let (partition, is_late) = (book.source.partition.clone(), book.until.is_some());
        let phase = match &then {
            AfterDrain::Hold(because) => Phase::Held(because.clone()),
            AfterDrain::Reopen | AfterDrain::Close => Phase::Closed,
        };
        self.ended.push(Ended { lane, partition, then, is_late });
        self.bury(lane, phase);
    }

    pub(super) fn bury(&mut self, lane: Lane, phase: Phase) {
        if let Some(book) = self.lanes.get_mut(&lane) {
            if book.attached && book.phase == Phase::Live {
                self.detachments.push(Detachment { lane, partition: book.source.partition.clone(), keep: false });
            }
            book.phase = phase;
        }
        self.late_over(lane);
        self.frames.settle(lane, |_| true);
        self.sweep();
        self.forget_if_unused(lane);
    }

    /// One frame less names the lane.
    pub(super) fn let_go_of(&mut self, lane: Lane) {
        if let Some(book) = self.lanes.get_mut(&lane) {
            book.frames -= 1;
        }
        self.forget_if_unused(lane);
    }

    /// Forgets a dead lane that nothing names any more.
    pub(super) fn forget_if_unused(&mut self, lane: Lane) {
        let (newest, late) = (&self.newest, &self.late);
        let is_current = |partition: &TopicPartition| newest.get(partition) == Some(&lane) || late.get(partition) == Some(&lane);
        let unused = |book: &LaneBook| book.is_dead() && book.frames == 0 && !book.attached && !is_current(&book.source.partition);
        if self.lanes.get(&lane).is_some_and(unused) {
            self.lanes.remove(&lane);
        }
    }
}
