//! The retained frames in order, and what of each is still open.
//!
//! | module | what it is for |
//! |---|---|
//! | `retained` | one of them |
//! | `unsent` | which is sent next |
//! | `copies` | which the spill has, too |
//! | `expire` | which turn into gaps |

use std::collections::{BTreeMap, HashMap, VecDeque};

use bytes::Bytes;
use spillway_proto::{Lane, NextOffset};

use self::unsent::Unsent;
use crate::schedule::{Flow, Scope};

mod copies;
mod expire;
mod retained;
mod unsent;

pub(super) use copies::Copy;
pub(super) use retained::{Released, Retained};

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

impl Frames {
    /// The index of the frame that is pushed next.
    pub(super) fn next_index(&self) -> u64 {
        self.first + self.frames.len() as u64
    }

    /// True when all frames before the one with this number are released.
    pub(super) fn is_settled_before(&self, index: u64, scope: Scope) -> bool {
        let before = self.frames.iter().take(usize::try_from(index.saturating_sub(self.first)).unwrap_or(usize::MAX));
        before.filter(|frame| scope.has(frame.flow)).all(|frame| frame.released)
    }

    /// Keeps a frame behind all others, as long as something of it is open.
    pub(super) fn push(&mut self, mut frame: Retained) {
        let index = self.next_index();
        frame.is_bare = frame.is_of_gaps();
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
        let is_to_rewrite = frame.is_bare && frame.copy == Copy::Durable;
        self.frames.push_back(frame);
        if is_to_rewrite {
            // Beside its gaps it may have records that nobody wants any more.
            self.rewrite(index);
        }
        self.release_from(index);
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
            if let Some(frame) = self.at_mut(section.frame) {
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

    pub(super) fn records(&self) -> u64 {
        self.records
    }

    pub(super) fn oldest_of(&self, lane: Lane) -> Option<i64> {
        self.open.get(&lane)?.iter().find_map(|section| section.timestamp)
    }

    fn at(&self, index: u64) -> Option<&Retained> {
        self.frames.get(place(self.first, index)?)
    }

    fn at_mut(&mut self, index: u64) -> Option<&mut Retained> {
        self.frames.get_mut(place(self.first, index)?)
    }

    /// Puts other bytes in place of a frame's, and answers those.
    fn replace_bytes(&mut self, index: u64, bytes: Bytes) -> Bytes {
        let Some(frame) = place(self.first, index).and_then(|place| self.frames.get_mut(place)) else {
            return Bytes::new();
        };
        if let Some(sum) = self.bytes.get_mut(&frame.flow) {
            *sum = *sum - frame.bytes.len() + bytes.len();
        }
        if let Some(sum) = self.durable.get_mut(&frame.flow).filter(|_| frame.copy == Copy::Durable) {
            *sum = *sum - frame.bytes.len() + bytes.len();
        }
        std::mem::replace(&mut frame.bytes, bytes)
    }

    /// Releases the frame if nothing of it is open: its bytes are freed at once, its place when it comes to the front.
    fn release_from(&mut self, index: u64) {
        let Some(frame) = self.at_mut(index).filter(|frame| frame.open_count == 0 && !frame.released) else {
            return;
        };
        frame.released = true;
        let (flow, budget, sent, is_mixed) = (frame.flow, frame.budget, frame.sent, frame.is_mixed);
        let lanes = std::mem::take(&mut frame.lanes);
        let length = self.replace_bytes(index, Bytes::new()).len();
        self.mixed -= usize::from(is_mixed);
        self.released.push(Released { flow, budget, length, lanes, sent });
    }
}

/// Where a frame stands among those that are kept, of which the first has this number.
fn place(first: u64, index: u64) -> Option<usize> {
    usize::try_from(index.checked_sub(first)?).ok()
}
