//! Which way frames go: from the source to the line through memory, or through the spill.
//!
//! The spill is a queue between source and ledger. While it is in use, every frame that is built goes to its end, and the ledger is filled from its
//! front: so nothing overtakes older data of its partition. It is begun when too much, or something too old, is not acknowledged; then all that
//! is in memory is copied to its end first. It is left when its end is reached and everything that was read is in the ledger.
//!
//! Reading the spill from its front again is always right: what the centre has, or what is under way, is passed over. So there is one cursor
//! for all partitions, and whenever positions go back (a session ended, a partition begins again), it goes back to the front.
//!
//! Invariants, played against a model in the tests, with a source that forgets at once whatever was committed there:
//! - A. What is committed at the source is at the centre or durable in the spill.
//! - B. The centre gets every offset once, in order, whatever ends at any moment.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use spillway_proto::Lane;
use spillway_proto::frame::{EncodedFrame, Frame, Section};
use spillway_spill_core::entry::{EntryId, StoredSection};

use crate::ledger::{Error, Ledger, Wanted};

mod begin;

pub use begin::{Begins, Known};

/// When the spill is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpoolLimits {
    /// Begun when so many encoded bytes are not acknowledged.
    pub after_bytes: usize,
    /// Begun when a frame is not acknowledged after this time.
    pub after: Duration,
    /// So many encoded bytes from the spill may be in memory, except for a single frame.
    pub drain_bytes: usize,
}

/// A frame for the spill's end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Append {
    /// Its sections.
    pub sections: Vec<StoredSection>,
    /// Its bytes.
    pub bytes: Bytes,
}

/// What was read from the spill.
#[derive(Debug, Clone)]
pub struct ReadEntry {
    /// Its number.
    pub id: EntryId,
    /// When it was built, milliseconds since 1970.
    pub created_ms: i64,
    /// Its sections.
    pub sections: Vec<StoredSection>,
    /// The frame.
    pub frame: Frame,
}

/// The way frames go.
#[derive(Debug)]
pub struct Spool {
    limits: SpoolLimits,
    in_use: bool,
    /// To be handed to the spill.
    appends: Vec<Append>,
    /// Handed to the spill and not confirmed, oldest first. Bounded by the agent's budget, which each holds a part of.
    waiting: VecDeque<Waiting>,
    /// Copies of what is in memory among them.
    copies: usize,
    /// The newest entry that is durable.
    last: EntryId,
    /// The newest entry that was looked at.
    cursor: EntryId,
    /// The newest entry when the cursor was last at the front.
    pass_end: EntryId,
    /// The spill was asked for the next entry.
    reading: Reading,
}

#[derive(Debug)]
struct Waiting {
    sections: Vec<Section>,
    copy: Option<u64>,
    budget: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    No,
    /// The answer is of use.
    Yes,
    /// The cursor was moved meanwhile.
    InVain,
}

/// A lane that is never opened: collectors pass over its sections.
pub const NO_LANE: Lane = Lane(u32::MAX);

impl Spool {
    /// A spill that holds entries up to `last` from an earlier process; [`EntryId::ZERO`]: none.
    pub fn new(limits: SpoolLimits, last: EntryId) -> Self {
        let (waiting, cursor, reading) = (VecDeque::new(), EntryId::ZERO, Reading::No);
        Self { limits, in_use: last > EntryId::ZERO, appends: Vec::new(), waiting, copies: 0, last, cursor, pass_end: last, reading }
    }

    /// True while frames go through the spill.
    pub fn is_in_use(&self) -> bool {
        self.in_use
    }

    /// A frame was built: it goes to the ledger, or to the spill's end.
    ///
    /// # Errors
    /// When a section does not join its lane: a bug, and to go on would lose or duplicate records.
    pub fn built(
        &mut self,
        ledger: &mut Ledger,
        frame: EncodedFrame,
        timestamps: &[Option<i64>],
        budget: usize,
        now: Instant,
    ) -> Result<(), Error> {
        if !self.in_use {
            return ledger.push(frame, timestamps, budget, now);
        }
        let sections = ledger.store(&frame.sections)?;
        self.waiting.push_back(Waiting { sections: frame.sections, copy: None, budget });
        self.appends.push(Append { sections, bytes: frame.bytes });
        Ok(())
    }

    /// Begins to use the spill when it is time.
    pub fn check(&mut self, ledger: &mut Ledger, now: Instant) {
        let old = ledger.oldest_in_memory().is_some_and(|since| now.saturating_duration_since(since) >= self.limits.after);
        if old || ledger.unacked_bytes() >= self.limits.after_bytes {
            self.take_up(ledger);
        }
    }

    /// True while frames go through the spill and all of them are durable: then nothing is lost with what is in memory.
    pub fn is_durable(&self) -> bool {
        self.in_use && self.waiting.is_empty()
    }

    /// What is to be put at the spill's end, in order. Each is confirmed by [`Self::stored`].
    pub fn take_appends(&mut self) -> Vec<Append> {
        std::mem::take(&mut self.appends)
    }

    /// The oldest `count` appends that were not confirmed are durable, or dropped by policy and noted durably; `last` is the newest entry.
    pub fn stored(&mut self, ledger: &mut Ledger, count: usize, last: EntryId) {
        let before = self.copies;
        for Waiting { sections, copy, budget } in self.waiting.drain(..count.min(self.waiting.len())) {
            ledger.durable(&sections, copy);
            ledger.give_back(budget);
            self.copies -= usize::from(copy.is_some());
        }
        self.last = self.last.max(last);
        if before > 0 && self.copies == 0 {
            self.unload(ledger);
        }
    }

    /// The session is over: memory is freed of what the spill holds.
    pub fn session_closed(&mut self, ledger: &mut Ledger) {
        if self.in_use && self.copies == 0 {
            self.unload(ledger);
        }
    }

    /// The entry after this one is to be read now, and given to [`Self::read`]. One at a time.
    pub fn next_read(&mut self, ledger: &Ledger) -> Option<EntryId> {
        let room = ledger.unacked_bytes() < self.limits.drain_bytes;
        if !self.in_use || self.reading != Reading::No || self.copies > 0 || self.cursor >= self.last || !room || !ledger.is_answered() {
            return None;
        }
        self.reading = Reading::Yes;
        Some(self.cursor)
    }

    /// What was asked for by [`Self::next_read`]; `None`: there is no further entry. `budget` are bytes of the agent's budget that the frame
    /// holds.
    ///
    /// # Errors
    /// When the books do not add up: a bug.
    pub fn read(&mut self, ledger: &mut Ledger, entry: Option<ReadEntry>, budget: usize, now: Instant) -> Result<(), Error> {
        if std::mem::replace(&mut self.reading, Reading::No) != Reading::Yes {
            ledger.give_back(budget);
            return Ok(());
        }
        let Some(ReadEntry { id, created_ms, sections, frame }) = entry else {
            ledger.give_back(budget);
            self.cursor = self.last;
            return Ok(());
        };
        self.cursor = id;
        let wanted = ledger.wanted(&sections);
        if wanted.iter().any(|wanted| matches!(wanted, Wanted::Now(_))) {
            let lanes = wanted.iter().map(|wanted| if let Wanted::Now(lane) = wanted { *lane } else { NO_LANE });
            return ledger.push_stored(frame.with_lanes(lanes), &wanted, created_ms, budget, now);
        }
        ledger.give_back(budget);
        Ok(())
    }

    /// To be called after everything else: leaves the spill when its end is reached, and finds what is lost there.
    pub fn settle(&mut self, ledger: &mut Ledger) {
        if !self.in_use || self.reading != Reading::No || !ledger.is_answered() {
            return;
        }
        if self.cursor >= self.pass_end {
            self.pass_end = self.last;
            if ledger.needs_pass() {
                return self.rewind(ledger);
            }
        }
        if self.cursor < self.last || !self.waiting.is_empty() {
            return;
        }
        if ledger.is_level() {
            self.in_use = false;
            return;
        }
        // All entries were looked at, and yet something is missing.
        for lane in ledger.behind().collect::<Vec<_>>() {
            ledger.give_up(lane);
        }
    }

    /// The spill is used from now on: first of all, what is in memory only goes there.
    fn take_up(&mut self, ledger: &mut Ledger) {
        if std::mem::replace(&mut self.in_use, true) {
            return;
        }
        for copy in ledger.copies() {
            self.waiting.push_back(Waiting { sections: copy.raw_sections, copy: Some(copy.index), budget: 0 });
            self.appends.push(Append { sections: copy.sections, bytes: copy.bytes });
            self.copies += 1;
        }
    }

    fn unload(&mut self, ledger: &mut Ledger) {
        if ledger.unload() {
            self.rewind(ledger);
        }
    }

    /// To the front.
    fn rewind(&mut self, ledger: &mut Ledger) {
        ledger.begin_pass();
        (self.cursor, self.pass_end) = (EntryId::ZERO, self.last);
        if self.reading == Reading::Yes {
            self.reading = Reading::InVain;
        }
    }
}

#[cfg(test)]
mod tests;
