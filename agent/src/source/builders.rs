//! The frames that are being built: one for each flow that is read, so that each goes its own way.
//!
//! Each open frame has its share of the budget before records are taken for it. A flow that gets none is not read, while the others are.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use spillway_agent_core::batcher::{Batcher, ClosedFrame, FrameLimits, Gathering};
use spillway_agent_core::line::FrameSize;
use spillway_agent_core::schedule::{Flow, FlowSpec, TopicClass};
use spillway_agent_core::ttl::TimeToLive;
use spillway_proto::{Lane, limits};

use super::compression::Compression;
use super::{Budget, BuiltFrame, Event, FlowOf};

/// Which of the frames that are being built a lane's records go into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Slot(usize);

/// All of them. See the module.
pub(super) struct Builders {
    flow_of: FlowOf,
    specs: Vec<FlowSpec>,
    limits: FrameLimits,
    /// Frames are left open for longer.
    gathering: Gathering,
    /// Most encoded bytes of a frame of each flow; `None`: the line is not known.
    line_bytes: Vec<usize>,
    budget: Arc<Budget>,
    compression: Compression,
    /// One for each flow that was ever read.
    list: Vec<Builder>,
}

struct Builder {
    flow: Flow,
    class: TopicClass,
    ttl: Option<TimeToLive>,
    batcher: Batcher,
    size: FrameSize,
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
    /// `specs` are those of the flows, by number.
    pub(super) fn new(limits: FrameLimits, budget: Arc<Budget>, compression: Compression, flow_of: FlowOf, specs: Vec<FlowSpec>) -> Self {
        Self { flow_of, line_bytes: Vec::new(), specs, limits, gathering: Gathering::No, budget, compression, list: Vec::new() }
    }

    /// The place of a topic's records. Look it up once for each lane, not for each record.
    pub(super) fn slot(&mut self, topic: &str) -> Slot {
        let flow = (self.flow_of)(topic);
        let known = self.list.iter().position(|builder| builder.flow == flow);
        Slot(known.unwrap_or_else(|| {
            let FlowSpec { class, ttl, .. } = self.specs.get(flow.0 as usize).copied().unwrap_or_default();
            let batcher = Batcher::new(self.limits);
            let size = FrameSize::default();
            self.list.push(Builder { flow, class, ttl, batcher, size, reserved: 0, closed: None, detaching: Vec::new() });
            self.fit(self.list.len() - 1);
            self.list.len() - 1
        }))
    }

    /// Where a lane's records are added. Only when [`Self::is_ready`].
    pub(super) fn batcher(&mut self, slot: Slot) -> &mut Batcher {
        &mut self.list[slot.0].batcher
    }

    /// How long the slot's records are worth sending.
    pub(super) fn ttl(&self, slot: Slot) -> Option<TimeToLive> {
        self.list.get(slot.0)?.ttl
    }

    /// True when a record may be added.
    pub(super) fn is_ready(&self, slot: Slot) -> bool {
        self.list.get(slot.0).is_some_and(Builder::is_ready)
    }

    /// True unless something is to be read, and nothing of it can be taken.
    pub(super) fn is_any_ready(&self) -> bool {
        self.list.iter().all(|builder| builder.batcher.is_idle())
            || self.list.iter().any(|builder| !builder.batcher.is_idle() && builder.is_ready())
    }

    /// True when a flow that is not read has enough budget again for that to be worth while.
    pub(super) fn may_go_on(&self, slot: Slot) -> bool {
        self.list.get(slot.0).is_some_and(|builder| {
            let (room, part) = self.budget.room(builder.flow);
            builder.is_ready()
                && room + builder.reserved >= (GO_ON_FRAMES * (builder.batcher.limits().max_bytes + FRAME_EDGE_BYTES)).min(part / 2)
        })
    }

    /// Changes the limits of all.
    pub(super) fn set_limits(&mut self, limits: FrameLimits) {
        self.limits = limits;
        (0..self.list.len()).for_each(|place| self.fit(place));
    }

    /// Whether frames are left open for longer.
    pub(super) fn set_gathering(&mut self, gathering: Gathering) {
        self.gathering = gathering;
        (0..self.list.len()).for_each(|place| self.fit(place));
    }

    /// Most encoded bytes of a frame of each flow, so that it does not take too much of the line's time.
    pub(super) fn set_line(&mut self, bytes: Vec<usize>) {
        self.line_bytes = bytes;
        (0..self.list.len()).for_each(|place| self.fit(place));
    }

    /// What compresses them.
    pub(super) fn compression(&mut self) -> &mut Compression {
        &mut self.compression
    }

    /// Lets a lane go: [`Event::Detached`] follows its last frame.
    pub(super) fn detach(&mut self, slot: Slot, lane: Lane, keep: bool) {
        let builder = &mut self.list[slot.0];
        builder.batcher.detach(lane, keep);
        builder.detaching.push(lane);
    }

    /// When the next open frame is to be closed; `None` when all are empty.
    pub(super) fn due(&self, linger: Duration) -> Option<Instant> {
        self.list.iter().filter(|builder| builder.closed.is_none()).filter_map(|builder| builder.due(linger)).min()
    }

    /// True without anything that was read and not handed over.
    pub(super) fn is_empty(&self) -> bool {
        self.list.iter().all(|builder| builder.closed.is_none() && builder.batcher.is_empty())
    }

    /// True while a full frame waits to be taken: call [`Self::next`] before the next record.
    pub(super) fn is_sealed(&self) -> bool {
        self.list.iter().any(|builder| builder.closed.is_none() && builder.batcher.is_sealed())
    }

    /// Closes frames that are due, all with `finishing`, and answers what is to be handed over. With `None` a closed frame may wait for budget: its flow is not
    /// ready.
    pub(super) fn next(&mut self, linger: Duration, finishing: bool) -> Option<Event> {
        let now = Instant::now();
        for place in self.order() {
            let Some(builder) = self.list.get_mut(place) else {
                continue;
            };
            builder.close(linger, finishing, now);
            if let Some(event) = builder.hand_over(&self.budget, &mut self.compression) {
                self.fit(place);
                return Some(event);
            }
        }
        if self.list.iter().all(|builder| builder.closed.is_none()) {
            return None;
        }
        // Whoever has nothing to lose by it gives back, and takes it again later.
        let first = self.list.iter().position(|builder| builder.closed.is_some());
        for (place, builder) in self.list.iter_mut().enumerate() {
            if Some(place) != first && (builder.closed.is_some() || (builder.batcher.is_empty() && !builder.class.is_urgent())) {
                builder.give_back(&self.budget);
            }
        }
        for place in self.order() {
            let event = self.list.get_mut(place).and_then(|builder| builder.hand_over(&self.budget, &mut self.compression));
            if let Some(event) = event {
                self.fit(place);
                return Some(event);
            }
        }
        None
    }

    /// Makes sure that each open frame has its share of the budget before records are taken for it, as far as there is any.
    pub(super) fn reserve(&mut self) {
        // What is read next may be of any flow, so that all need theirs at the same time.
        let most = self.budget.total() / self.list.len().max(1);
        for urgent in [true, false] {
            for builder in self.list.iter_mut().filter(|builder| builder.class.is_urgent() == urgent) {
                let frame = builder.batcher.limits().max_bytes + FRAME_EDGE_BYTES;
                if builder.batcher.is_idle() {
                    builder.give_back(&self.budget);
                } else if builder.reserved == 0 && builder.closed.is_none() {
                    builder.reserved = self.budget.take(builder.flow, frame.min(most)).unwrap_or(0);
                }
            }
        }
    }

    /// Waits for budget, at most so long.
    pub(super) fn wait(&self, most: Duration) {
        self.budget.wait(most);
    }

    /// Class 0 first: to compress a frame takes time.
    fn order(&self) -> Vec<usize> {
        let mut order = (0..self.list.len()).collect::<Vec<_>>();
        order.sort_by_key(|place| self.list.get(*place).map(|builder| builder.class));
        order
    }

    /// Makes the flow's frames as large as they may be.
    fn fit(&mut self, place: usize) {
        let Some(builder) = self.list.get_mut(place) else {
            return;
        };
        let line_bytes = self.line_bytes.get(builder.flow.0 as usize).copied();
        let max_bytes = builder.size.raw_bytes(self.limits.max_bytes, line_bytes);
        let is_urgent = builder.class.is_urgent();
        let linger = if is_urgent { self.limits.linger.min(URGENT_LINGER) } else { self.limits.linger };
        let linger = self.gathering.linger(linger, is_urgent, builder.ttl);
        builder.batcher.set_limits(FrameLimits { max_bytes, linger, ..self.limits });
    }
}

impl Builder {
    fn is_ready(&self) -> bool {
        self.reserved > 0 && self.closed.is_none() && !self.batcher.is_sealed()
    }

    fn due(&self, linger: Duration) -> Option<Instant> {
        self.batcher.due(linger)
    }

    fn close(&mut self, linger: Duration, finishing: bool, now: Instant) {
        if self.closed.is_none() {
            let due = self.due(linger).is_some_and(|due| due <= now);
            let close = due || finishing || !self.detaching.is_empty();
            self.closed = self.batcher.take_sealed().or_else(|| if close { self.batcher.close() } else { None });
        }
    }

    fn hand_over(&mut self, budget: &Budget, compression: &mut Compression) -> Option<Event> {
        let Some(frame) = self.closed.take() else {
            if self.detaching.is_empty() {
                return None;
            }
            let lane = self.detaching.remove(0);
            compression.forget(lane);
            return Some(Event::Detached(lane));
        };
        let sections = frame.builder.sections().len();
        let most = frame.builder.raw_length() + sections * limits::MAX_SECTION_HEADER_BYTES + FRAME_EDGE_BYTES;
        let more = most.min(budget.total()).saturating_sub(self.reserved);
        match budget.take_for_closed(self.flow, more) {
            Some(taken) => self.reserved += taken,
            None => {
                self.closed = Some(frame);
                return None;
            }
        }
        Some(Event::Frame(self.encode(frame, budget, compression)))
    }

    fn encode(&mut self, mut closed: ClosedFrame, budget: &Budget, compression: &mut Compression) -> BuiltFrame {
        let raw_bytes = closed.builder.raw_length();
        let frame = compression.encode(self.flow.0 as usize, self.class.is_urgent(), &mut closed.builder);
        self.size.built(raw_bytes, frame.bytes.len());
        let held = frame.bytes.len().min(self.reserved);
        budget.give(self.flow, self.reserved - held);
        self.reserved = 0;
        BuiltFrame { flow: self.flow, frame, timestamps: closed.timestamps, budget: held }
    }

    fn give_back(&mut self, budget: &Budget) {
        let reserved = std::mem::take(&mut self.reserved);
        if reserved > 0 {
            budget.give(self.flow, reserved);
        }
    }
}

/// Alarms wait no longer for others to share a frame with.
const URGENT_LINGER: Duration = Duration::from_millis(5);

/// A flow that was not read for want of budget is read again when there is room for so many frames: what was fetched of it was thrown away.
const GO_ON_FRAMES: usize = 8;

/// What a frame has beside sections and body, in bytes: format, codec, lengths, checksum, and room for a few sections.
const FRAME_EDGE_BYTES: usize = 4096;

#[cfg(test)]
mod tests;
