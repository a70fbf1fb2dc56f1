//! The frames that are being built: one for each class of the spill that is read, because a generation of the spill holds one class.
//!
//! Each open frame has its share of the budget before records are taken for it. Classes share one budget, so that a frame larger than its share may
//! wait for what another class holds: then whoever has nothing to lose by it gives back, and takes it again later.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use spillway_agent_core::batcher::{Batcher, ClosedFrame, FrameLimits};
use spillway_proto::compress::Compressor;
use spillway_proto::{Lane, limits};
use spillway_spill::Class;

use super::{Budget, BuiltFrame, Classify, Event, POLL_TIME};

/// Which of the frames that are being built a lane's records go into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot(usize);

/// All of them. See the module.
pub(super) struct Builders {
    classify: Classify,
    limits: FrameLimits,
    budget: Arc<Budget>,
    compressor: Compressor,
    /// One for each class that was ever read, at most [`Class::MAX`].
    list: Vec<Builder>,
}

/// What comes next of what was read.
#[derive(Debug)]
pub(super) enum Next {
    /// This is to be told.
    Event(Event),
    /// A closed frame waits for budget: no more is to be read.
    Waits,
    /// Nothing for now.
    Nothing,
}

struct Builder {
    class: Class,
    batcher: Batcher,
    /// Bytes of the budget taken for the open frame.
    reserved: usize,
    /// A closed frame that waits for budget.
    closed: Option<ClosedFrame>,
    /// Lanes let go, to be confirmed when the frame that may hold the last of them was handed over.
    detaching: Vec<Lane>,
}

impl fmt::Debug for Builders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builders").field("limits", &self.limits).field("classes", &self.list.len()).finish_non_exhaustive()
    }
}

impl Builders {
    pub(super) fn new(limits: FrameLimits, budget: Arc<Budget>, compressor: Compressor, classify: Classify) -> Self {
        Self { classify, limits, budget, compressor, list: Vec::new() }
    }

    /// The place of a topic's records. Look it up once for each lane, not for each record.
    pub(super) fn slot(&mut self, topic: &str) -> Slot {
        let class = (self.classify)(topic);
        let known = self.list.iter().position(|builder| builder.class == class);
        Slot(known.unwrap_or_else(|| {
            let batcher = Batcher::new(self.limits);
            self.list.push(Builder { class, batcher, reserved: 0, closed: None, detaching: Vec::new() });
            self.list.len() - 1
        }))
    }

    /// Where a lane's records are added.
    pub(super) fn batcher(&mut self, slot: Slot) -> &mut Batcher {
        &mut self.list[slot.0].batcher
    }

    /// Changes the limits of all.
    pub(super) fn set_limits(&mut self, limits: FrameLimits) {
        self.limits = limits;
        for builder in &mut self.list {
            builder.batcher.set_limits(limits);
        }
    }

    /// Lets a lane go: [`Event::Detached`] follows its last frame.
    pub(super) fn detach(&mut self, slot: Slot, lane: Lane, keep: bool) {
        let builder = &mut self.list[slot.0];
        builder.batcher.detach(lane, keep);
        builder.detaching.push(lane);
    }

    /// When the next open frame is to be closed; `None` when all are empty.
    pub(super) fn due(&self, linger: Duration) -> Option<Instant> {
        self.list.iter().filter_map(|builder| builder.batcher.due(linger)).min()
    }

    /// True while a full frame waits to be taken: call [`Self::next`] before the next record.
    pub(super) fn is_sealed(&self) -> bool {
        self.list.iter().any(|builder| builder.batcher.is_sealed())
    }

    /// Closes frames that are due, all with `finishing`, and answers what is to be handed over. May wait [`POLL_TIME`] for budget.
    pub(super) fn next(&mut self, linger: Duration, finishing: bool) -> Next {
        let now = Instant::now();
        for builder in &mut self.list {
            builder.close(linger, finishing, now);
            if let Some(event) = builder.hand_over(&self.budget, &mut self.compressor, Duration::ZERO) {
                return Next::Event(event);
            }
        }
        let Some(first) = self.list.iter().position(|builder| builder.closed.is_some()) else {
            return Next::Nothing;
        };
        for (place, builder) in self.list.iter_mut().enumerate() {
            if place != first && (builder.closed.is_some() || builder.batcher.is_empty()) {
                builder.give_back(&self.budget);
            }
        }
        self.list[first].hand_over(&self.budget, &mut self.compressor, POLL_TIME).map_or(Next::Waits, Next::Event)
    }

    /// Makes sure that each open frame has its share of the budget before records are taken for it. False: take none.
    pub(super) fn reserve(&mut self) -> bool {
        let frame = self.limits.max_bytes + FRAME_EDGE_BYTES;
        // What is read next may be of any class, so that all need theirs at the same time.
        let most = self.budget.total() / self.list.len().max(1);
        for builder in &mut self.list {
            if builder.batcher.is_idle() {
                builder.give_back(&self.budget);
            } else if builder.reserved == 0 {
                builder.reserved = self.budget.take(frame.min(most), POLL_TIME).unwrap_or(0);
            }
        }
        self.list.iter().all(|builder| builder.reserved > 0 || builder.batcher.is_idle())
    }
}

impl Builder {
    fn close(&mut self, linger: Duration, finishing: bool, now: Instant) {
        if self.closed.is_none() {
            let due = self.batcher.due(linger).is_some_and(|due| due <= now);
            let close = due || finishing || !self.detaching.is_empty();
            self.closed = self.batcher.take_sealed().or_else(|| if close { self.batcher.close() } else { None });
        }
    }

    fn hand_over(&mut self, budget: &Budget, compressor: &mut Compressor, wait: Duration) -> Option<Event> {
        let Some(frame) = self.closed.take() else {
            return if self.detaching.is_empty() { None } else { Some(Event::Detached(self.detaching.remove(0))) };
        };
        let sections = frame.builder.sections().len();
        let most = frame.builder.raw_length() + sections * limits::MAX_SECTION_HEADER_BYTES + FRAME_EDGE_BYTES;
        let more = most.min(budget.total()).saturating_sub(self.reserved);
        match budget.take(more, wait) {
            Some(taken) => self.reserved += taken,
            None => {
                self.closed = Some(frame);
                return None;
            }
        }
        Some(Event::Frame(self.encode(frame, budget, compressor)))
    }

    fn encode(&mut self, mut closed: ClosedFrame, budget: &Budget, compressor: &mut Compressor) -> BuiltFrame {
        let frame = closed.builder.encode(compressor);
        let held = frame.bytes.len().min(self.reserved);
        budget.give(self.reserved - held);
        self.reserved = 0;
        BuiltFrame { class: self.class, frame, timestamps: closed.timestamps, budget: held }
    }

    fn give_back(&mut self, budget: &Budget) {
        let reserved = std::mem::take(&mut self.reserved);
        if reserved > 0 {
            budget.give(reserved);
        }
    }
}

/// What a frame has beside sections and body, in bytes: format, codec, lengths, checksum, and room for a few sections.
const FRAME_EDGE_BYTES: usize = 4096;

#[cfg(test)]
mod tests;
