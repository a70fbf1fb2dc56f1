//! A frame that is kept, and what is left to tell of one that is not kept any more.

use std::time::Instant;

use bytes::Bytes;
use spillway_proto::frame::{GapReason, Section, SectionKind, Timestamps};
use spillway_proto::{Lane, NextOffset};

use super::{Copy, OpenSection};
use crate::schedule::Flow;

/// A frame that is kept.
#[derive(Debug)]
pub(in crate::ledger) struct Retained {
    pub(super) flow: Flow,
    pub(super) is_mixed: bool,
    pub(super) is_late: bool,
    pub(super) bytes: Bytes,
    pub(super) budget: usize,
    pub(super) lanes: Vec<Lane>,
    /// What the frame covers.
    pub(super) sections: Vec<Section>,
    /// Sections that are neither acknowledged nor dead.
    pub(super) open: Vec<(Lane, OpenSection)>,
    pub(super) open_count: usize,
    pub(super) sent: bool,
    pub(super) released: bool,
    pub(super) copy: Copy,
    pub(super) since: Instant,
    /// Of all its records; `None`: not known, or it has none.
    pub(super) times: Option<Timestamps>,
    /// It has no records, but a gap of some that were too old.
    pub(super) is_bare: bool,
    /// It waits for more gaps to join it.
    pub(super) is_held: bool,
}

impl Retained {
    pub(in crate::ledger) fn new(flow: Flow, bytes: Bytes, budget: usize, copy: Copy, since: Instant) -> Self {
        Self {
            flow,
            is_mixed: false,
            is_late: false,
            bytes,
            budget,
            lanes: Vec::new(),
            sections: Vec::new(),
            open: Vec::new(),
            open_count: 0,
            sent: false,
            released: false,
            copy,
            since,
            times: None,
            is_bare: false,
            is_held: false,
        }
    }

    /// Tells the timestamps of its records.
    pub(in crate::ledger) fn dated(self, times: Option<Timestamps>) -> Self {
        Self { times, ..self }
    }

    /// Adds a section of a lane that has a book, was at `from` before it and is at `next` behind it.
    pub(in crate::ledger) fn add(&mut self, section: &Section, (from, next): (NextOffset, NextOffset), timestamp: Option<i64>, open: bool) {
        self.lanes.push(section.lane);
        self.sections.push(*section);
        if open {
            let records = match section.kind {
                SectionKind::Data { records, .. } => records,
                SectionKind::Gap { .. } | SectionKind::Start { .. } => 0,
            };
            let expired = matches!(section.kind, SectionKind::Gap { reason: GapReason::Expired, .. });
            self.open.push((section.lane, OpenSection { frame: 0, from, next, records, timestamp, expired }));
            self.open_count += 1;
        }
    }

    /// A lane of another flow is in it.
    pub(in crate::ledger) fn mix(&mut self) {
        self.is_mixed = true;
    }

    /// It holds what was deferred, and nothing else.
    pub(in crate::ledger) fn set_late(&mut self) {
        self.is_late = true;
    }

    pub(in crate::ledger) fn length(&self) -> usize {
        self.bytes.len()
    }

    pub(in crate::ledger) fn lanes(&self) -> impl Iterator<Item = &Lane> {
        self.lanes.iter()
    }

    /// True while it waits for more gaps to join it.
    pub(in crate::ledger) fn is_held(&self) -> bool {
        self.is_held
    }

    /// True when the spill is to get it, if it gets anything.
    pub(super) fn is_wanted_in_spill(&self) -> bool {
        !self.released && self.copy == Copy::None && !self.is_opening()
    }

    /// True when it holds only what lanes begin with: that is small, and stays in memory.
    pub(super) fn is_opening(&self) -> bool {
        self.sections.iter().all(|section| section.kind.range().is_none())
    }

    /// True when it has no records, but a gap of some that were too old.
    pub(super) fn is_of_gaps(&self) -> bool {
        self.open.iter().any(|(_, section)| section.expired)
            && self.sections.iter().all(|section| section.kind.raw_length() == 0 && section.kind.range().is_some())
    }
}

/// A frame that is no longer kept.
#[derive(Debug)]
pub(in crate::ledger) struct Released {
    pub(in crate::ledger) flow: Flow,
    /// What it held of the agent's budget, in bytes.
    pub(in crate::ledger) budget: usize,
    /// In bytes.
    pub(in crate::ledger) length: usize,
    pub(in crate::ledger) lanes: Vec<Lane>,
    /// It was sent in this session.
    pub(in crate::ledger) sent: bool,
}
