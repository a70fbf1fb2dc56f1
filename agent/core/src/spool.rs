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
//! | module | what it is for |
//! |---|---|
//! | `many` | the spools of all flows |
//! | `appending` | what goes to the spill's end, and comes back when it takes nothing |
//! | `draining` | what is read from its front, and when its end is reached |
//! | `begin` | where a partition goes on of which the spill knows something |
//! | `late` | what is built goes around the spill, and what that holds comes beside it |
//!
//! Invariants, played against a model in the tests, with a source that forgets at once whatever was committed there:
//! - A. What is committed at the source is at the centre or durable in the spill.
//! - B. The centre gets every offset once, in order, whatever ends at any moment.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use spillway_proto::frame::{EncodedFrame, Frame, Section, Timestamps};
use spillway_spill_core::entry::{Class, EntryId, StoredSection};

use self::appending::{Appends, Waiting};
use self::draining::Cursor;
use crate::ledger::{Error, Ledger, times_of};
use crate::schedule::{Flow, Scope};

mod appending;
mod begin;
mod draining;
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
struct Spool {
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
    appends: Appends,
    cursor: Cursor,
    /// The spill took nothing: it is not begun again before.
    rests_until: Option<Instant>,
}

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
            appends: Appends::default(),
            cursor: Cursor::new(last, holds),
            rests_until: None,
        }
    }

    /// True while frames go through the spill.
    fn is_in_use(&self) -> bool {
        self.in_use
    }

    /// Not in use, and nothing is under way.
    fn is_at_rest(&self) -> bool {
        !self.in_use && self.appends.is_at_rest() && !self.cursor.is_reading()
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
        let passes = self.around || (self.rests(now) && self.appends.is_empty() && ledger.is_answered(self.scope));
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
        self.appends.add(Waiting { sections: frame.sections, append, copy: None, budget, times });
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
        self.in_use && self.appends.is_empty() && ledger.oldest_in_memory(self.scope).is_none()
    }

    /// The session is over: memory is freed of what the spill holds.
    fn session_closed(&mut self, ledger: &mut Ledger) {
        self.cut = None;
        if self.in_use && !self.appends.has_copies() {
            self.unload(ledger);
        }
    }

    /// The spill is used from now on.
    fn take_up(&mut self, ledger: &mut Ledger) {
        (self.in_use, self.around, self.backlog_end) = (true, false, None);
        self.copy_memory(ledger);
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
        self.cursor.rewind();
    }

    fn rests(&self, now: Instant) -> bool {
        self.rests_until.is_some_and(|until| now < until)
    }

    /// The spill's class of what goes this way; `None`: of several.
    fn own_class(&self) -> Option<Class> {
        if let Scope::One(flow) = self.scope { Some(self.class(flow)) } else { None }
    }

    /// The spill's class of a frame. Ask before the books forget its lanes.
    fn class_of(&self, ledger: &Ledger, sections: &[Section]) -> Class {
        self.own_class().unwrap_or_else(|| self.class(ledger.flow_of(sections)))
    }

    fn class(&self, flow: Flow) -> Class {
        self.classes.get(flow.0 as usize).copied().unwrap_or(Class::DEFAULT)
    }
}

#[cfg(test)]
mod tests;
