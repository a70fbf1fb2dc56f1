//! What is read from the spill's front: one cursor for all partitions, until its end is reached and nothing is missing.

use std::time::Instant;

use spillway_proto::TopicPartition;
use spillway_spill_core::entry::EntryId;

use super::{ReadEntry, Spool};
use crate::lane::{HeldBecause, NO_LANE, RECORD_TOO_LARGE};
use crate::ledger::{Error, Ledger, Wanted};
use crate::schedule::Scope;

/// How far the spill was gone through.
#[derive(Debug)]
pub(super) struct Cursor {
    /// The newest entry that was looked at.
    at: EntryId,
    /// The newest entry that is durable.
    last: EntryId,
    /// The newest entry when the cursor was last at the front.
    pass_end: EntryId,
    /// The spill was asked for the next entry.
    reading: Reading,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    No,
    /// The answer is of use.
    Yes,
    /// The cursor was moved meanwhile.
    InVain,
}

impl Cursor {
    /// At the end of a spill whose newest entry is `last`; at its front where it `holds` something that is wanted.
    pub(super) fn new(last: EntryId, holds: bool) -> Self {
        Self { at: if holds { EntryId::ZERO } else { last }, last, pass_end: last, reading: Reading::No }
    }

    /// The newest entry that is durable.
    pub(super) fn last(&self) -> EntryId {
        self.last
    }

    /// True while the spill was asked for an entry.
    pub(super) fn is_reading(&self) -> bool {
        self.reading != Reading::No
    }

    /// To the front.
    pub(super) fn rewind(&mut self) {
        (self.at, self.pass_end) = (EntryId::ZERO, self.last);
        if self.reading == Reading::Yes {
            self.reading = Reading::InVain;
        }
    }

    /// Entries up to this one are durable.
    pub(super) fn extend(&mut self, last: EntryId) {
        self.last = self.last.max(last);
    }

    fn is_at_end(&self) -> bool {
        self.at >= self.last
    }

    /// Asks for the entry after this one; `None` when there is none, or it was asked for already.
    fn ask(&mut self) -> Option<EntryId> {
        if self.is_reading() || self.is_at_end() {
            return None;
        }
        self.reading = Reading::Yes;
        Some(self.at)
    }

    /// What was asked for is here; `None`: there is no further entry. Answers whether it is of use.
    fn answered(&mut self, entry: Option<EntryId>) -> bool {
        let is_of_use = std::mem::replace(&mut self.reading, Reading::No) == Reading::Yes;
        if is_of_use {
            self.at = entry.unwrap_or(self.last);
        }
        is_of_use
    }

    /// True when it has been at everything that was there when it was last at the front. What came since is another pass.
    fn ends_pass(&mut self) -> bool {
        let ends = self.at >= self.pass_end;
        if ends {
            self.pass_end = self.last;
        }
        ends
    }
}

impl Spool {
    /// The entry after this one is to be read now, and given to [`Self::read`]. One at a time.
    pub(super) fn next_read(&mut self, ledger: &Ledger) -> Option<EntryId> {
        let may_read = self.in_use && !self.appends.has_copies() && self.has_room(ledger) && ledger.is_answered(self.scope);
        if may_read { self.cursor.ask() } else { None }
    }

    /// As [`Spools::read`](super::Spools::read), which asks the right one.
    pub(super) fn read(
        &mut self,
        ledger: &mut Ledger,
        entry: Option<ReadEntry>,
        largest_raw: usize,
        now: Instant,
    ) -> Result<Vec<TopicPartition>, Error> {
        if !self.cursor.answered(entry.as_ref().map(|entry| entry.id)) {
            return Ok(Vec::new());
        }
        let Some(ReadEntry { id: _, created_ms, sections, frame, times }) = entry else {
            return Ok(Vec::new());
        };
        let wanted = ledger.wanted(&sections);
        let now_wanted = |wanted: &Wanted| if let Wanted::Now(lane) = wanted { Some(*lane) } else { None };
        if frame.raw_length() > largest_raw {
            let because = too_large(frame.raw_length(), largest_raw);
            return Ok(wanted.iter().filter_map(now_wanted).filter_map(|lane| ledger.stand_still(lane, because.clone())).collect());
        }
        if wanted.iter().any(|wanted| now_wanted(wanted).is_some()) {
            let lanes = wanted.iter().map(|wanted| now_wanted(wanted).unwrap_or(NO_LANE));
            ledger.push_stored(frame.with_lanes(lanes), &wanted, created_ms, times, now)?;
        }
        Ok(Vec::new())
    }

    /// To be called after everything else: leaves the spill when its end is reached, and finds what is lost there.
    pub(super) fn settle(&mut self, ledger: &mut Ledger) {
        if !self.in_use || self.cursor.is_reading() || !ledger.is_answered(self.scope) {
            return;
        }
        if self.cursor.ends_pass() && ledger.needs_pass(self.scope) {
            return self.rewind(ledger);
        }
        if !self.cursor.is_at_end() {
            return;
        }
        if !self.appends.is_empty() {
            // What comes before the first that waits was looked for everywhere.
            for lane in self.missing(ledger) {
                ledger.give_up(lane);
            }
            return;
        }
        if ledger.is_level(self.scope) {
            if ledger.has_deferred(self.scope) {
                // The next range begins as soon as the centre has said where.
                return;
            }
            // A line that is slow, or dead and not given up yet, takes what is sent: the spill would have to be begun again soon.
            let backlog_end = *self.backlog_end.get_or_insert_with(|| ledger.next_index());
            self.in_use = !ledger.is_settled_before(backlog_end, self.scope);
            self.around &= self.in_use;
            return;
        }
        // All entries were looked at, and yet something is missing.
        for lane in ledger.behind(self.scope).collect::<Vec<_>>() {
            ledger.give_up(lane);
        }
    }

    /// More may be read back. Flows share what there is: each has its part, and more while the others need less.
    fn has_room(&self, ledger: &Ledger) -> bool {
        let (own, all) = if self.around {
            // What goes around the spill must not keep out what is in it.
            (ledger.spilled_bytes_of(self.scope), ledger.spilled_bytes_of(Scope::All))
        } else {
            (ledger.unacked_bytes_of(self.scope), ledger.unacked_bytes())
        };
        match self.scope {
            Scope::All => all < self.limits.drain_bytes,
            Scope::One(_) => own < (self.limits.drain_bytes / self.classes.len().max(1)).max(self.limits.drain_bytes.saturating_sub(all)),
        }
    }
}

/// Why partitions stand still of which the spill has a frame that the collector does not take.
fn too_large(bytes: usize, limit: usize) -> HeldBecause {
    let detail = format!("the spill holds a frame of {bytes} bytes, the collector allows {limit}: raise session.max_frame_bytes there");
    HeldBecause { reason: RECORD_TOO_LARGE, detail }
}
