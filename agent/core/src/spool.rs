//! Which way frames go: from the source to the line through memory, or through the spill.
//!
//! The spill is a queue between source and ledger. While it is in use, every frame that is built goes to its end, and the ledger is filled from its
//! front: so nothing overtakes older data of its partition. It is begun when too much, or something too old, is not acknowledged; then all that
//! is in memory is copied to its end first. It is left when its end is reached, everything that was read is in the ledger, and what was there then is acknowledged.
//!
//! Reading the spill from its front again is always right: what the centre has, or what is under way, is passed over. So there is one cursor
//! for all partitions, and whenever positions go back (a session ended, a partition begins again), it goes back to the front.
//!
//! Each flow has a spool of its own ([`Spools`]), so that alarms neither wait for the spill because bulk uses it, nor behind bulk in it.
//!
//! Invariants, played against a model in the tests, with a source that forgets at once whatever was committed there:
//! - A. What is committed at the source is at the centre or durable in the spill.
//! - B. The centre gets every offset once, in order, whatever ends at any moment.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use spillway_proto::frame::{EncodedFrame, Frame, Section, Timestamps};
use spillway_proto::{Lane, TopicPartition};
use spillway_spill_core::entry::{Class, EntryId, StoredSection};

use crate::lane::{HeldBecause, NO_LANE, RECORD_TOO_LARGE};
use crate::ledger::{Error, Ledger, Wanted, times_of};
use crate::schedule::{Flow, Scope};

mod begin;
mod late;
mod many;

pub use begin::{Begins, Known};
pub use late::begin_without_spill;
pub use many::{Holdings, Spools};

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
    /// The spill's class of its flow.
    pub class: Class,
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
    /// The timestamps of its records, which are needed if they may be too old; `None`: not known.
    pub times: Option<Timestamps>,
}

/// The way frames of a flow go, or of all.
#[derive(Debug)]
pub struct Spool {
    limits: SpoolLimits,
    scope: Scope,
    /// The spill's class of each flow.
    classes: Arc<[Class]>,
    in_use: bool,
    /// What is built goes around the spill where nothing before it is missing, and what the spill holds was deferred.
    around: bool,
    /// When lanes were given up for others to begin with a deferral, in this session.
    cut: Option<Instant>,
    /// What was in memory when the spill's end was reached first: the number of the frame after it. The spill is used until all of that is acknowledged.
    backlog_end: Option<u64>,
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
    /// What waits is being taken back from the spill.
    taking_back: bool,
    /// The spill took nothing: it is not begun again before.
    rests_until: Option<Instant>,
}

#[derive(Debug)]
struct Waiting {
    sections: Vec<Section>,
    append: Append,
    copy: Option<u64>,
    budget: usize,
    times: Option<Timestamps>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    No,
    /// The answer is of use.
    Yes,
    /// The cursor was moved meanwhile.
    InVain,
}

/// A spill that took nothing while the line was up is left alone for so long.
const REST: Duration = Duration::from_secs(30);

impl Spool {
    /// For the flows in `scope`, of which `classes` are the classes in the spill by number. `holds`: the spill holds entries of them from an earlier process, up to
    /// `last`, its newest.
    fn new(limits: SpoolLimits, scope: Scope, classes: Arc<[Class]>, last: EntryId, holds: bool) -> Self {
        Self {
            limits,
            scope,
            classes,
            in_use: holds,
            around: false,
            cut: None,
            backlog_end: None,
            appends: Vec::new(),
            waiting: VecDeque::new(),
            copies: 0,
            last,
            cursor: if holds { EntryId::ZERO } else { last },
            pass_end: last,
            reading: Reading::No,
            taking_back: false,
            rests_until: None,
        }
    }

    /// True while frames go through the spill.
    fn is_in_use(&self) -> bool {
        self.in_use
    }

    /// A frame was built: it goes to the ledger, or to the spill's end.
    ///
    /// # Errors
    /// When a section does not join its lane: a bug, and to go on would lose or duplicate records.
    fn built(
        &mut self,
        ledger: &mut Ledger,
        frame: EncodedFrame,
        timestamps: &[Option<Timestamps>],
        budget: usize,
        now: Instant,
    ) -> Result<(), Error> {
        if !self.in_use {
            return ledger.push(frame, timestamps, budget, now);
        }
        let passes = self.around || (self.rests(now) && self.waiting.is_empty() && ledger.is_answered(self.scope));
        if passes && ledger.joins(&frame.sections) {
            ledger.store(&frame.sections)?;
            let times = times_of(&frame.sections, timestamps);
            return ledger.push_back(&frame.sections, frame.bytes, times, budget, now);
        }
        self.around = false;
        self.copy_memory(ledger);
        let class = self.class_of(ledger, &frame.sections);
        let append = Append { class, sections: ledger.store(&frame.sections)?, bytes: frame.bytes };
        let times = times_of(&frame.sections, timestamps);
        self.append(Waiting { sections: frame.sections, append, copy: None, budget, times });
        Ok(())
    }

    /// Begins to use the spill when it is time. See [`Spools::check`].
    fn check(&mut self, ledger: &mut Ledger, due_since: Option<Instant>, now: Instant) {
        if self.rests(now) {
            return;
        }
        let is_old = |since: Instant, due: Instant| now.saturating_duration_since(since.max(due)) >= self.limits.after;
        let oldest = ledger.oldest_in_memory(self.scope);
        let old = oldest.zip(due_since).is_some_and(|(since, due)| is_old(since, due));
        // What goes around the spill is measured alone.
        let spilled = if self.around { ledger.spilled_bytes_of(self.scope) } else { 0 };
        if old || ledger.unacked_bytes_of(self.scope).saturating_sub(spilled) >= self.limits.after_bytes {
            self.take_up(ledger);
        }
        self.defer(ledger, now);
    }

    /// True while frames go through the spill and all of them are durable: then nothing is lost with what is in memory.
    fn is_durable(&self, ledger: &Ledger) -> bool {
        self.in_use && self.waiting.is_empty() && ledger.oldest_in_memory(self.scope).is_none()
    }

    /// What is to be put at the spill's end, in order. Each is confirmed by [`Self::stored`].
    fn take_appends(&mut self) -> Vec<Append> {
        if self.taking_back { Vec::new() } else { std::mem::take(&mut self.appends) }
    }

    /// Something waits for the spill that the line wants next.
    fn wants_back(&self, ledger: &Ledger) -> bool {
        let wanted = |waiting: &Waiting| waiting.copy.is_some() || ledger.joins(&waiting.sections);
        !self.taking_back && ledger.is_answered(self.scope) && self.waiting.iter().any(wanted)
    }

    /// The spill has forgotten what it had not confirmed: that goes straight to the ledger, or to the spill's end again where something before it is
    /// still there.
    ///
    /// # Errors
    /// When the books do not add up: a bug.
    fn taken_back(&mut self, ledger: &mut Ledger, now: Instant) -> Result<(), Error> {
        (self.taking_back, self.copies) = (false, 0);
        self.appends.clear();
        self.rests_until = Some(now + self.limits.after.max(REST));
        for waiting in std::mem::take(&mut self.waiting) {
            match waiting.copy {
                Some(index) => ledger.recall(index),
                None if ledger.is_answered(self.scope) && ledger.joins(&waiting.sections) => {
                    ledger.push_back(&waiting.sections, waiting.append.bytes, waiting.times, waiting.budget, now)?;
                }
                None => {
                    let Waiting { sections, append: Append { class, sections: mut stored, bytes }, budget, times, .. } = waiting;
                    ledger.void_dead(&sections, &mut stored);
                    let append = Append { class, sections: stored, bytes };
                    self.append(Waiting { sections, append, copy: None, budget, times });
                }
            }
        }
        if !self.appends.is_empty() {
            // What stays in the spill follows what is in memory only.
            let kept = (std::mem::take(&mut self.appends), std::mem::take(&mut self.waiting));
            self.copy_memory(ledger);
            self.appends.extend(kept.0);
            self.waiting.extend(kept.1);
        }
        Ok(())
    }

    fn append(&mut self, waiting: Waiting) {
        self.appends.push(waiting.append.clone());
        self.waiting.push_back(waiting);
    }

    /// The oldest `count` appends of a class that were not confirmed are durable, or dropped by policy and noted durably; `last` is the newest entry.
    fn stored(&mut self, ledger: &mut Ledger, class: Class, count: usize, last: EntryId) {
        let before = self.copies;
        for _ in 0..count {
            let place = self.waiting.iter().position(|waiting| waiting.append.class == class);
            let Some(Waiting { sections, append: _, copy, budget, times: _ }) = place.and_then(|place| self.waiting.remove(place)) else {
                break;
            };
            ledger.durable(&sections, copy);
            ledger.give_back(ledger.flow_of(&sections), budget);
            self.copies -= usize::from(copy.is_some());
        }
        self.last = self.last.max(last);
        if before > 0 && self.copies == 0 {
            self.unload(ledger);
        }
    }

    /// The session is over: memory is freed of what the spill holds.
    fn session_closed(&mut self, ledger: &mut Ledger) {
        self.cut = None;
        if self.in_use && self.copies == 0 {
            self.unload(ledger);
        }
    }

    /// The entry after this one is to be read now, and given to [`Self::read`]. One at a time.
    fn next_read(&mut self, ledger: &Ledger) -> Option<EntryId> {
        let room = self.has_room(ledger);
        if !self.in_use
            || self.reading != Reading::No
            || self.copies > 0
            || self.cursor >= self.last
            || !room
            || !ledger.is_answered(self.scope)
        {
            return None;
        }
        self.reading = Reading::Yes;
        Some(self.cursor)
    }

    /// What was asked for by [`Self::next_read`]; `None`: there is no further entry. `largest_raw` is the largest raw frame that the session allows, in
    /// bytes: what was spilled under another collector, or before the first session, may be larger. Answers the partitions that stand still because of
    /// that, as they do for a record from the source that does not fit.
    ///
    /// # Errors
    /// When the books do not add up: a bug.
    fn read(
        &mut self,
        ledger: &mut Ledger,
        entry: Option<ReadEntry>,
        largest_raw: usize,
        now: Instant,
    ) -> Result<Vec<TopicPartition>, Error> {
        if std::mem::replace(&mut self.reading, Reading::No) != Reading::Yes {
            return Ok(Vec::new());
        }
        let Some(ReadEntry { id, created_ms, sections, frame, times }) = entry else {
            self.cursor = self.last;
            return Ok(Vec::new());
        };
        self.cursor = id;
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
    fn settle(&mut self, ledger: &mut Ledger) {
        if !self.in_use || self.reading != Reading::No || !ledger.is_answered(self.scope) {
            return;
        }
        if self.cursor >= self.pass_end {
            self.pass_end = self.last;
            if ledger.needs_pass(self.scope) {
                return self.rewind(ledger);
            }
        }
        if self.cursor < self.last {
            return;
        }
        if !self.waiting.is_empty() {
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

    /// Lanes that lack what comes before the first of theirs that waits for the spill.
    fn missing(&self, ledger: &Ledger) -> BTreeSet<Lane> {
        let (mut seen, mut missing) = (BTreeSet::new(), BTreeSet::new());
        for section in self.waiting.iter().flat_map(|waiting| &waiting.sections) {
            let begun = ledger.book(section.lane).is_some_and(|book| !book.is_dead() && book.position.is_some());
            if seen.insert(section.lane) && begun && !ledger.joins(std::slice::from_ref(section)) {
                missing.insert(section.lane);
            }
        }
        missing
    }

    /// The spill is used from now on.
    fn take_up(&mut self, ledger: &mut Ledger) {
        (self.in_use, self.around, self.backlog_end) = (true, false, None);
        self.copy_memory(ledger);
    }

    /// What is in memory only goes to the spill's end before anything that follows it.
    fn copy_memory(&mut self, ledger: &mut Ledger) {
        for copy in ledger.copies(self.scope) {
            let class = self.class_of(ledger, &copy.raw_sections);
            let append = Append { class, sections: copy.sections, bytes: copy.bytes };
            self.append(Waiting { sections: copy.raw_sections, append, copy: Some(copy.index), budget: 0, times: None });
            self.copies += 1;
        }
    }

    /// The spill's class of a frame. Ask before the books forget its lanes.
    fn class_of(&self, ledger: &Ledger, sections: &[Section]) -> Class {
        let flow = if let Scope::One(flow) = self.scope { flow } else { ledger.flow_of(sections) };
        self.class(flow)
    }

    fn class(&self, flow: Flow) -> Class {
        self.classes.get(flow.0 as usize).copied().unwrap_or(Class::DEFAULT)
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

    fn rests(&self, now: Instant) -> bool {
        self.rests_until.is_some_and(|until| now < until)
    }

    fn unload(&mut self, ledger: &mut Ledger) {
        if ledger.unload(self.scope) {
            self.rewind(ledger);
        }
    }

    /// To the front.
    fn rewind(&mut self, ledger: &mut Ledger) {
        ledger.begin_pass(self.scope);
        self.backlog_end = None;
        (self.cursor, self.pass_end) = (EntryId::ZERO, self.last);
        if self.reading == Reading::Yes {
            self.reading = Reading::InVain;
        }
    }
}

/// Why partitions stand still of which the spill has a frame that the collector does not take.
fn too_large(bytes: usize, limit: usize) -> HeldBecause {
    let detail = format!("the spill holds a frame of {bytes} bytes, the collector allows {limit}: raise session.max_frame_bytes there");
    HeldBecause { reason: RECORD_TOO_LARGE, detail }
}

#[cfg(test)]
mod tests;
