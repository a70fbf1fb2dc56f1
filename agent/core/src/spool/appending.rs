//! What goes to the spill's end: handed over once, kept until it is durable there, and taken back from a spill that takes nothing.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use spillway_proto::Lane;
use spillway_proto::frame::{Section, Timestamps};
use spillway_spill_core::entry::{Class, EntryId};

use super::{Append, Spool};
use crate::ledger::{Error, Ledger};

/// What is not durable yet.
#[derive(Debug, Default)]
pub(super) struct Appends {
    /// To be handed to the spill.
    fresh: Vec<Append>,
    /// These, and what was handed to the spill and not confirmed, oldest first. Bounded by the agent's budget, which each holds a part of.
    waiting: VecDeque<Waiting>,
    /// Copies of what is in memory among them.
    copies: usize,
    /// What waits is being taken back from the spill.
    pub(super) taking_back: bool,
}

/// One of them.
#[derive(Debug)]
pub(super) struct Waiting {
    /// What it covers, by lanes.
    pub(super) sections: Vec<Section>,
    pub(super) append: Append,
    /// The frame in memory that it is a copy of.
    pub(super) copy: Option<u64>,
    /// What it holds of the agent's budget, in bytes.
    pub(super) budget: usize,
    /// How old its records are.
    pub(super) times: Option<Timestamps>,
}

impl Appends {
    pub(super) fn add(&mut self, waiting: Waiting) {
        self.copies += usize::from(waiting.copy.is_some());
        self.fresh.push(waiting.append.clone());
        self.waiting.push_back(waiting);
    }

    /// True when all is durable.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// True when all is durable, and nothing is being taken back.
    pub(super) fn is_at_rest(&self) -> bool {
        self.waiting.is_empty() && !self.taking_back
    }

    /// True while something that is in memory, too, is not durable.
    pub(super) fn has_copies(&self) -> bool {
        self.copies > 0
    }

    /// The oldest of a class is durable.
    fn confirm(&mut self, class: Class) -> Option<Waiting> {
        let place = self.waiting.iter().position(|waiting| waiting.append.class == class)?;
        let confirmed = self.waiting.remove(place)?;
        self.copies -= usize::from(confirmed.copy.is_some());
        Some(confirmed)
    }
}

impl Spool {
    /// What is to be put at the spill's end, in order. Each is confirmed by [`Self::stored`].
    pub(super) fn take_appends(&mut self) -> Vec<Append> {
        if self.appends.taking_back { Vec::new() } else { std::mem::take(&mut self.appends.fresh) }
    }

    /// The oldest `count` appends of a class that were not confirmed are durable, or dropped by policy and noted durably; `last` is the newest entry.
    pub(super) fn stored(&mut self, ledger: &mut Ledger, class: Class, count: usize, last: EntryId) {
        let had_copies = self.appends.has_copies();
        for _ in 0..count {
            let Some(Waiting { sections, copy, budget, .. }) = self.appends.confirm(class) else {
                break;
            };
            // The books may forget a lane that is over with this.
            let flow = ledger.flow_of(&sections);
            ledger.durable(&sections, copy);
            ledger.give_back(flow, budget);
        }
        self.cursor.extend(last);
        if had_copies && !self.appends.has_copies() {
            self.unload(ledger);
        }
    }

    /// What is in memory only goes to the spill's end before anything that follows it.
    pub(super) fn copy_memory(&mut self, ledger: &mut Ledger) {
        for copy in ledger.copies(self.scope) {
            let class = self.class_of(ledger, &copy.raw_sections);
            let append = Append { class, sections: copy.sections, bytes: copy.bytes };
            self.appends.add(Waiting { sections: copy.raw_sections, append, copy: Some(copy.index), budget: 0, times: None });
        }
    }

    /// Something waits for the spill that the line wants next.
    pub(super) fn wants_back(&self, ledger: &Ledger) -> bool {
        let wanted = |waiting: &Waiting| waiting.copy.is_some() || ledger.joins(&waiting.sections);
        !self.appends.taking_back && ledger.is_answered(self.scope) && self.appends.waiting.iter().any(wanted)
    }

    /// The spill has forgotten what it had not confirmed: that goes straight to the ledger, or to the spill's end again where something before it is
    /// still there.
    ///
    /// # Errors
    /// When the books do not add up: a bug.
    pub(super) fn taken_back(&mut self, ledger: &mut Ledger, now: Instant) -> Result<(), Error> {
        self.rests_until = Some(now + self.limits.after.max(REST));
        for waiting in std::mem::take(&mut self.appends).waiting {
            match waiting.copy {
                Some(index) => ledger.recall(index),
                None if ledger.is_answered(self.scope) && ledger.joins(&waiting.sections) => {
                    ledger.push_back(&waiting.sections, waiting.append.bytes, waiting.times, waiting.budget, now)?;
                }
                None => {
                    let Waiting { sections, append: Append { class, sections: mut stored, bytes }, budget, times, .. } = waiting;
                    ledger.void_dead(&sections, &mut stored);
                    let append = Append { class, sections: stored, bytes };
                    self.appends.add(Waiting { sections, append, copy: None, budget, times });
                }
            }
        }
        if !self.appends.is_empty() {
            // What stays in the spill follows what is in memory only.
            let kept = std::mem::take(&mut self.appends);
            self.copy_memory(ledger);
            kept.waiting.into_iter().for_each(|waiting| self.appends.add(waiting));
        }
        Ok(())
    }

    /// Lanes that lack what comes before the first of theirs that waits for the spill.
    pub(super) fn missing(&self, ledger: &Ledger) -> BTreeSet<Lane> {
        let (mut seen, mut missing) = (BTreeSet::new(), BTreeSet::new());
        for section in self.appends.waiting.iter().flat_map(|waiting| &waiting.sections) {
            let begun = ledger.book(section.lane).is_some_and(|book| !book.is_dead() && book.position.is_some());
            if seen.insert(section.lane) && begun && !ledger.joins(std::slice::from_ref(section)) {
                missing.insert(section.lane);
            }
        }
        missing
    }
}

/// A spill that took nothing while the line was up is left alone for so long.
const REST: Duration = Duration::from_secs(30);
