//! The retained frames in order, and what of each is still open.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use spillway_proto::frame::{Section, SectionKind};
use spillway_proto::{Lane, NextOffset};

/// Frames from the oldest that is not released on; the index of a frame is its place in all that were ever pushed.
#[derive(Debug, Default)]
pub(super) struct Frames {
    frames: VecDeque<Retained>,
    /// Index of the front.
    first: u64,
    /// Index of the next frame to send.
    cursor: u64,
    /// Open sections of each lane, in order.
    open: HashMap<Lane, VecDeque<OpenSection>>,
    bytes: usize,
    records: u64,
    released: Vec<Released>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct OpenSection {
    frame: u64,
    pub(super) next: NextOffset,
    records: u32,
    timestamp: Option<i64>,
}

/// A frame that is kept.
#[derive(Debug)]
pub(super) struct Retained {
    bytes: Bytes,
    budget: usize,
    lanes: Vec<Lane>,
    /// Sections that are neither acknowledged nor dead.
    open: Vec<(Lane, OpenSection)>,
    open_count: usize,
    sent: bool,
    released: bool,
}

/// A frame that is no longer kept.
#[derive(Debug)]
pub(super) struct Released {
    budget: usize,
    length: usize,
    lanes: Vec<Lane>,
    sent: bool,
}

impl Retained {
    pub(super) fn new(bytes: Bytes, budget: usize) -> Self {
        Self { bytes, budget, lanes: Vec::new(), open: Vec::new(), open_count: 0, sent: false, released: false }
    }

    /// Adds a section of a lane that has a book.
    pub(super) fn add(&mut self, section: &Section, timestamp: Option<i64>, open: bool) {
        self.lanes.push(section.lane);
        if open {
            let records = match section.kind {
                SectionKind::Data { records, .. } => records,
                SectionKind::Gap { .. } | SectionKind::Start { .. } => 0,
            };
            self.open.push((section.lane, OpenSection { frame: 0, next: section.kind.next(), records, timestamp }));
            self.open_count += 1;
        }
    }

    pub(super) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    pub(super) fn lanes(&self) -> impl Iterator<Item = &Lane> {
        self.lanes.iter()
    }
}

impl Released {
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

    pub(super) fn push(&mut self, index: u64, mut frame: Retained) {
        for (lane, mut section) in std::mem::take(&mut frame.open) {
            section.frame = index;
            self.records += u64::from(section.records);
            self.open.entry(lane).or_default().push_back(section);
        }
        self.bytes += frame.bytes.len();
        self.frames.push_back(frame);
        self.release_from(index);
    }

    /// All frames are to be sent again.
    pub(super) fn rewind(&mut self) {
        self.cursor = self.first;
        for frame in &mut self.frames {
            frame.sent = false;
        }
    }

    /// The next frame to send.
    pub(super) fn unsent(&mut self) -> Option<&Retained> {
        self.cursor = self.cursor.max(self.first);
        while self.at(self.cursor)?.released {
            self.cursor += 1;
        }
        self.at(self.cursor)
    }

    /// The frame that [`Self::unsent`] answered is sent.
    pub(super) fn mark_sent(&mut self) -> Bytes {
        let place = (self.cursor - self.first) as usize;
        self.cursor += 1;
        self.frames.get_mut(place).map_or_else(Bytes::new, |frame| {
            frame.sent = true;
            frame.bytes.clone()
        })
    }

    /// Closes the lane's open sections, oldest first, as long as `done` says so. Answers how many records they held.
    pub(super) fn settle(&mut self, lane: Lane, done: impl Fn(&OpenSection) -> bool) -> u64 {
        let Some(open) = self.open.get_mut(&lane) else {
            return 0;
        };
        let mut closed = Vec::new();
        while let Some(section) = open.pop_front_if(|section| done(section)) {
            closed.push(section);
        }
        if open.is_empty() {
            self.open.remove(&lane);
        }
        let mut records = 0;
        for section in closed {
            records += u64::from(section.records);
            let place = (section.frame - self.first) as usize;
            if let Some(frame) = self.frames.get_mut(place) {
                frame.open_count -= 1;
            }
            self.release_from(section.frame);
        }
        self.records -= records;
        records
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
        self.bytes == 0
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn records(&self) -> u64 {
        self.records
    }

    pub(super) fn oldest_of(&self, lane: Lane) -> Option<i64> {
        self.open.get(&lane)?.iter().find_map(|section| section.timestamp)
    }

    fn at(&self, index: u64) -> Option<&Retained> {
        self.frames.get(usize::try_from(index.checked_sub(self.first)?).ok()?)
    }

    /// Releases the frame if nothing of it is open: its bytes are freed at once, its place when it comes to the front.
    fn release_from(&mut self, index: u64) {
        let place = (index - self.first) as usize;
        let Some(frame) = self.frames.get_mut(place).filter(|frame| frame.open_count == 0 && !frame.released) else {
            return;
        };
        frame.released = true;
        let bytes = std::mem::take(&mut frame.bytes);
        self.bytes -= bytes.len();
        let lanes = std::mem::take(&mut frame.lanes);
        self.released.push(Released { budget: frame.budget, length: bytes.len(), lanes, sent: frame.sent });
    }
}
