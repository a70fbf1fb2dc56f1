//! The retained frames in order, and what of each is still open.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Instant;

use bytes::Bytes;
use spillway_proto::frame::{GapReason, Section, SectionKind, Timestamps};
use spillway_proto::{Lane, NextOffset};

use crate::schedule::{Flow, Scope};

mod expire;
#[cfg(test)]
mod tests;

/// Frames from the oldest that is not released on; the index of a frame is its place in all that were ever pushed.
#[derive(Debug, Default)]
pub(super) struct Frames {
    frames: VecDeque<Retained>,
    /// Index of the front.
    first: u64,
    /// Frames to send, by flow.
    unsent: BTreeMap<Flow, Unsent>,
    /// Retained frames with lanes of several flows: from a spill that was written under other rules.
    mixed: usize,
    /// Open sections of each lane, in order.
    open: HashMap<Lane, VecDeque<OpenSection>>,
    /// By flow.
    bytes: BTreeMap<Flow, usize>,
    /// Those of frames that are durable in the spill.
    durable: BTreeMap<Flow, usize>,
    records: u64,
    released: Vec<Released>,
}

/// Indexes of a flow's frames to send, in order. Some may be released already.
#[derive(Debug, Default)]
struct Unsent {
    /// What goes first.
    live: VecDeque<u64>,
    /// What was deferred: frames of late lanes only.
    late: VecDeque<u64>,
    /// Bytes that went first while something deferred waited: it gets one for [`LATE_PART`] of them.
    owed: usize,
}

/// While something deferred waits, it gets one byte for so many of what goes first: as others do beside class 0.
const LATE_PART: usize = 16;

#[derive(Debug, Clone, Copy)]
pub(super) struct OpenSection {
    frame: u64,
    /// Where the lane was before it: a section from the spill may begin below that.
    from: NextOffset,
    pub(super) next: NextOffset,
    records: u32,
    timestamp: Option<i64>,
    /// A gap: its records were too old to be sent.
    expired: bool,
}

/// What was closed of a lane.
#[derive(Debug, Default)]
pub(super) struct Settled {
    /// Records that it held.
    pub(super) records: u64,
    /// Gaps of records that were too old to be sent, first and next.
    pub(super) expired: Vec<(NextOffset, NextOffset)>,
}

/// A frame that is kept.
#[derive(Debug)]
pub(super) struct Retained {
    flow: Flow,
    is_mixed: bool,
    is_late: bool,
    bytes: Bytes,
    budget: usize,
    lanes: Vec<Lane>,
    /// What the frame covers.
    sections: Vec<Section>,
    /// Sections that are neither acknowledged nor dead.
    open: Vec<(Lane, OpenSection)>,
    open_count: usize,
    sent: bool,
    released: bool,
    copy: Copy,
    since: Instant,
    /// Of all its records; `None`: not known, or it has none.
    times: Option<Timestamps>,
    /// It has no records, but a gap of some that were too old.
    is_bare: bool,
    /// It waits for more gaps to join it.
    is_held: bool,
}

/// Whether the spill has a frame, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Copy {
    /// It is in memory only.
    None,
    /// It was handed to the spill.
    Handed,
    /// It is durable there.
    Durable,
}

/// A frame that is no longer kept.
#[derive(Debug)]
pub(super) struct Released {
    flow: Flow,
    budget: usize,
    length: usize,
    lanes: Vec<Lane>,
    sent: bool,
}

impl Retained {
    pub(super) fn new(flow: Flow, bytes: Bytes, budget: usize, copy: Copy, since: Instant) -> Self {
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
    pub(super) fn dated(self, times: Option<Timestamps>) -> Self {
        Self { times, ..self }
    }

    /// Adds a section of a lane that has a book, was at `from` before it and is at `next` behind it.
    pub(super) fn add(&mut self, section: &Section, (from, next): (NextOffset, NextOffset), timestamp: Option<i64>, open: bool) {
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
    pub(super) fn mix(&mut self) {
        self.is_mixed = true;
    }

    /// It holds what was deferred, and nothing else.
    pub(super) fn set_late(&mut self) {
        self.is_late = true;
    }

    pub(super) fn length(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn lanes(&self) -> impl Iterator<Item = &Lane> {
        self.lanes.iter()
    }

    /// True while it waits for more gaps to join it.
    pub(super) fn is_held(&self) -> bool {
        self.is_held
    }

    fn is_wanted_in_spill(&self) -> bool {
        !self.released && self.copy == Copy::None && !self.is_opening()
    }

    /// True when it holds only what lanes begin with: that is small, and stays in memory.
    fn is_opening(&self) -> bool {
        self.sections.iter().all(|section| section.kind.range().is_none())
    }
}

impl Unsent {
    fn queue(&mut self, is_late: bool) -> &mut VecDeque<u64> {
        if is_late { &mut self.late } else { &mut self.live }
    }
}

impl Released {
    pub(super) fn flow(&self) -> Flow {
        self.flow
    }

    pub(super) fn budget(&self) -> usize {
        self.budget
    }

    pub(super) fn length(&self) -> usize {
        self.length
    }

    pub(super) fn was_sent(&self) -> bool {
        self.sent
    }

    pub(super) fn lanes(&self) -> impl Iterator<Item = &Lane> {
        self.lanes.iter()
    }
}

impl Frames {
    pub(super) fn next_index(&self) -> u64 {
        self.first + self.frames.len() as u64
    }

    /// True when all frames before the one with this number are released.
    pub(super) fn is_settled_before(&self, index: u64, scope: Scope) -> bool {
        let before = self.frames.iter().take(usize::try_from(index.saturating_sub(self.first)).unwrap_or(usize::MAX));
        before.filter(|frame| scope.has(frame.flow)).all(|frame| frame.released)
    }

    pub(super) fn push(&mut self, index: u64, mut frame: Retained) {
        frame.is_bare = frame.open.iter().any(|(_, section)| section.expired)
            && frame.sections.iter().all(|section| section.kind.raw_length() == 0 && section.kind.range().is_some());
        for (lane, mut section) in std::mem::take(&mut frame.open) {
            section.frame = index;
            self.records += u64::from(section.records);
            self.open.entry(lane).or_default().push_back(section);
        }
        *self.bytes.entry(frame.flow).or_default() += frame.bytes.len();
        if frame.copy == Copy::Durable {
            *self.durable.entry(frame.flow).or_default() += frame.bytes.len();
        }
        self.mixed += usize::from(frame.is_mixed);
        self.unsent.entry(frame.flow).or_default().queue(frame.is_late).push_back(index);
        self.frames.push_back(frame);
        self.release_from(index);
    }

    /// All frames are to be sent again.
    pub(super) fn rewind(&mut self) {
        self.unsent.clear();
        for (index, frame) in (self.first..).zip(&mut self.frames) {
            frame.sent = false;
            if !frame.released {
                self.unsent.entry(frame.flow).or_default().queue(frame.is_late).push_back(index);
            }
        }
    }

    /// The flow's next frame to send.
    pub(super) fn unsent(&mut self, flow: Flow) -> Option<&Retained> {
        let (index, _) = self.choose(flow)?;
        self.at(index)
    }

    /// The flow's next frame to send, and whether it is a deferred one.
    fn choose(&mut self, flow: Flow) -> Option<(u64, bool)> {
        let (first, frames) = (self.first, &self.frames);
        let unsent = self.unsent.get_mut(&flow)?;
        let is_gone = |index: &u64| place(first, *index).and_then(|place| frames.get(place)).is_none_or(|frame| frame.released);
        for queue in [&mut unsent.live, &mut unsent.late] {
            while queue.front().is_some_and(is_gone) {
                queue.pop_front();
            }
        }
        let (live, late, owed) = (unsent.live.front().copied(), unsent.late.front().copied(), unsent.owed);
        let is_due = late.and_then(|late| self.at(late)).is_some_and(|frame| owed >= frame.length() * LATE_PART);
        let order = if is_due { [(late, true), (live, false)] } else { [(live, false), (late, true)] };
        let mut heads = order.into_iter().filter_map(|(index, is_late)| Some((index?, is_late)));
        heads.find(|(index, _)| self.mixed == 0 || !self.is_overtaking(*index))
    }

    /// True when a lane of the frame has something in an earlier one that was not sent: of another flow.
    fn is_overtaking(&self, index: u64) -> bool {
        let unsent_before = |section: &OpenSection| section.frame < index && self.at(section.frame).is_some_and(|frame| !frame.sent);
        let lanes = self.at(index).into_iter().flat_map(Retained::lanes);
        lanes.filter_map(|lane| self.open.get(lane)).any(|open| open.iter().any(unsent_before))
    }

    /// Puts other bytes in place of those of the flow's next frame to send.
    pub(super) fn adapt_unsent(&mut self, flow: Flow, adapt: impl FnOnce(&Bytes) -> Option<Bytes>) {
        let Some((index, _)) = self.choose(flow) else {
            return;
        };
        let Some(adapted) = self.at(index).and_then(|frame| adapt(&frame.bytes)) else {
            return;
        };
        let place = place(self.first, index);
        if let Some(frame) = place.and_then(|place| self.frames.get_mut(place)) {
            if let Some(sum) = self.bytes.get_mut(&frame.flow) {
                *sum = *sum - frame.bytes.len() + adapted.len();
            }
            if let Some(sum) = self.durable.get_mut(&frame.flow).filter(|_| frame.copy == Copy::Durable) {
                *sum = *sum - frame.bytes.len() + adapted.len();
            }
            frame.bytes = adapted;
        }
    }

    /// The frame that [`Self::unsent`] answered is sent.
    pub(super) fn mark_sent(&mut self, flow: Flow) -> Bytes {
        let Some((index, is_late)) = self.choose(flow) else {
            return Bytes::new();
        };
        let length = self.at(index).map_or(0, Retained::length);
        if let Some(unsent) = self.unsent.get_mut(&flow) {
            unsent.queue(is_late).pop_front();
            unsent.owed = match (is_late, unsent.late.is_empty()) {
                (_, true) => 0,
                (true, false) => unsent.owed.saturating_sub(length.saturating_mul(LATE_PART)),
                (false, false) => unsent.owed.saturating_add(length),
            };
        }
        place(self.first, index).and_then(|place| self.frames.get_mut(place)).map_or_else(Bytes::new, |frame| {
            frame.sent = true;
            frame.bytes.clone()
        })
    }

    /// Closes the lane's open sections, oldest first, as long as `done` says so.
    pub(super) fn settle(&mut self, lane: Lane, done: impl Fn(&OpenSection) -> bool) -> Settled {
        let mut settled = Settled::default();
        let Some(open) = self.open.get_mut(&lane) else {
            return settled;
        };
        let mut closed = Vec::new();
        while let Some(section) = open.pop_front_if(|section| done(section)) {
            closed.push(section);
        }
        if open.is_empty() {
            self.open.remove(&lane);
        }
        for section in closed {
            settled.records += u64::from(section.records);
            if section.expired {
                settled.expired.push((section.from, section.next));
            }
            let place = (section.frame - self.first) as usize;
            if let Some(frame) = self.frames.get_mut(place) {
                frame.open_count -= 1;
            }
            self.release_from(section.frame);
        }
        self.records -= settled.records;
        settled
    }

    /// Frames released since the last call.
    pub(super) fn take_released(&mut self) -> Vec<Released> {
        while self.frames.front().is_some_and(|frame| frame.released) {
            self.frames.pop_front();
            self.first += 1;
        }
        std::mem::take(&mut self.released)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.values().all(|bytes| *bytes == 0)
    }

    pub(super) fn bytes(&self, scope: Scope) -> usize {
        self.bytes.iter().filter(|(flow, _)| scope.has(**flow)).map(|(_, bytes)| bytes).sum()
    }

    /// Of those that are durable in the spill.
    pub(super) fn durable_bytes(&self, scope: Scope) -> usize {
        self.durable.iter().filter(|(flow, _)| scope.has(**flow)).map(|(_, bytes)| bytes).sum()
    }

    pub(super) fn records(&self) -> u64 {
        self.records
    }

    pub(super) fn oldest_of(&self, lane: Lane) -> Option<i64> {
        self.open.get(&lane)?.iter().find_map(|section| section.timestamp)
    }

    /// When the oldest retained frame was pushed that is in memory only.
    pub(super) fn oldest(&self, scope: Scope) -> Option<Instant> {
        self.frames.iter().find(|frame| scope.has(frame.flow) && frame.is_wanted_in_spill()).map(|frame| frame.since)
    }

    /// Marks all frames that are in memory only as handed to the spill, and answers them in order.
    pub(super) fn hand_over(&mut self, scope: Scope) -> Vec<(u64, Bytes, Vec<Section>)> {
        let mut handed = Vec::new();
        let wanted = |frame: &Retained| scope.has(frame.flow) && frame.is_wanted_in_spill();
        for (index, frame) in (self.first..).zip(&mut self.frames).filter(|(_, frame)| wanted(frame)) {
            frame.copy = Copy::Handed;
            handed.push((index, frame.bytes.clone(), frame.sections.clone()));
        }
        handed
    }

    /// A frame that was handed over is durable in the spill.
    pub(super) fn durable(&mut self, index: u64) {
        if let Some(frame) = place(self.first, index).and_then(|place| self.frames.get_mut(place)) {
            if frame.copy != Copy::Durable {
                *self.durable.entry(frame.flow).or_default() += frame.bytes.len();
            }
            frame.copy = Copy::Durable;
        }
    }

    /// A frame that was handed over is in memory only after all.
    pub(super) fn recall(&mut self, index: u64) {
        if let Some(frame) =
            place(self.first, index).and_then(|place| self.frames.get_mut(place)).filter(|frame| frame.copy == Copy::Handed)
        {
            frame.copy = Copy::None;
        }
    }

    /// Lets go of all frames that are durable in the spill, of those that were sent only with `sent`. Answers where the lanes of their open
    /// sections were before them, newest first. Nothing is let go as long as a frame is in memory only: what follows it would be in the wrong place.
    pub(super) fn unload(&mut self, sent: bool, scope: Scope) -> Vec<(Lane, NextOffset)> {
        let kept = |frame: &Retained| frame.released || frame.is_opening() || !scope.has(frame.flow);
        if self.frames.iter().any(|frame| !kept(frame) && frame.copy != Copy::Durable) {
            return Vec::new();
        }
        let mut unloaded = Vec::new();
        for place in (0..self.frames.len()).rev() {
            let Some(frame) = self.frames.get(place).filter(|frame| !kept(frame)) else {
                continue;
            };
            // Of each lane, what was sent lies before what was not.
            if frame.sent && !sent {
                continue;
            }
            let index = self.first + place as u64;
            for section in frame.sections.iter().rev() {
                let open = self.open.get_mut(&section.lane).and_then(|open| open.pop_back_if(|last| last.frame == index));
                if let Some(open) = open {
                    self.records -= u64::from(open.records);
                    unloaded.push((section.lane, open.from));
                }
            }
            if let Some(frame) = self.frames.get_mut(place) {
                frame.open_count = 0;
            }
            self.release_from(index);
        }
        self.open.retain(|_, open| !open.is_empty());
        unloaded
    }

    fn at(&self, index: u64) -> Option<&Retained> {
        self.frames.get(place(self.first, index)?)
    }

    /// Releases the frame if nothing of it is open: its bytes are freed at once, its place when it comes to the front.
    fn release_from(&mut self, index: u64) {
        let place = (index - self.first) as usize;
        let Some(frame) = self.frames.get_mut(place).filter(|frame| frame.open_count == 0 && !frame.released) else {
            return;
        };
        frame.released = true;
        let bytes = std::mem::take(&mut frame.bytes);
        if let Some(sum) = self.bytes.get_mut(&frame.flow) {
            *sum -= bytes.len();
        }
        if let Some(sum) = self.durable.get_mut(&frame.flow).filter(|_| frame.copy == Copy::Durable) {
            *sum -= bytes.len();
        }
        self.mixed -= usize::from(frame.is_mixed);
        let lanes = std::mem::take(&mut frame.lanes);
        self.released.push(Released { flow: frame.flow, budget: frame.budget, length: bytes.len(), lanes, sent: frame.sent });
    }
}

/// Where a frame stands among those that are kept, of which the first has this number.
fn place(first: u64, index: u64) -> Option<usize> {
    usize::try_from(index.checked_sub(first)?).ok()
}
