//! The frame that is being built.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use spillway_proto::frame::{FrameBuilder, GapReason, Timestamps};
use spillway_proto::record::RecordWriter;
use spillway_proto::{Lane, NextOffset, limits};

use super::{ClosedFrame, FrameLimits, Incoming};

/// A frame without records waits so long for more gaps to join: going over much that is too old would make a frame of nothing but gaps with every linger.
const GAPS_LINGER: Duration = Duration::from_secs(1);

/// The sections so far. A lane has one, or several by turns where some of its records are too old.
#[derive(Debug, Default)]
pub(super) struct OpenFrame {
    sections: Vec<OpenSection>,
    /// Each lane's last section.
    index: HashMap<Lane, usize>,
    bytes: usize,
    records: u32,
    /// When the first section was begun that is data.
    since: Option<Instant>,
    /// When the first gap was begun.
    gaps_since: Option<Instant>,
}

#[derive(Debug)]
struct OpenSection {
    lane: Lane,
    /// What it covers is too old, and none of it is among the records.
    is_gap: bool,
    records: RecordWriter,
    times: Option<Timestamps>,
}

impl OpenFrame {
    pub(super) fn is_empty(&self) -> bool {
        self.sections.is_empty()
    }

    /// When it is to be closed, if records wait for `linger`; `None` when it is empty.
    pub(super) fn due(&self, linger: Duration) -> Option<Instant> {
        let (data, gaps) = (self.since.map(|since| since + linger), self.gaps_since.map(|since| since + GAPS_LINGER.max(linger)));
        data.into_iter().chain(gaps).min()
    }

    /// True when nothing more belongs into the frame.
    pub(super) fn is_full(&self, limits: &FrameLimits) -> bool {
        self.bytes >= limits.max_bytes || self.records >= limits.max_records
    }

    /// True when the lane's next record of at most `bytes`, or its next gap, belongs into the next frame.
    pub(super) fn is_full_for(&self, lane: Lane, bytes: usize, limits: &FrameLimits) -> bool {
        let largest = limits.max_bytes.min(limits.largest_raw);
        // The next of a lane may need another section than its last one.
        let sections = self.sections.len() == limits::MAX_SECTIONS && !(self.has_no_gap() && self.index.contains_key(&lane));
        sections || self.is_full(limits) || (self.bytes > 0 && self.bytes + bytes > largest)
    }

    /// Adds a record. Answers the lane's next offset; `None` for a record below its position.
    pub(super) fn push<'h, H>(&mut self, lane: Lane, position: NextOffset, record: Incoming<'_, H>, now: Instant) -> Option<NextOffset>
    where
        H: ExactSizeIterator<Item = (&'h str, Option<&'h [u8]>)> + Clone,
    {
        self.since.get_or_insert(now);
        let section = self.section(lane, position, |is_gap| !is_gap);
        let before = section.records.len();
        if !section.records.push(record.offset, record.timestamp, record.key, record.value, record.headers) {
            return None;
        }
        let own = Timestamps::of(record.timestamp);
        section.times = Some(section.times.map_or(own, |times| times.and(own)));
        let (written, next) = (section.records.len() - before, section.records.next());
        self.bytes += written;
        self.records += 1;
        Some(next)
    }

    /// There is nothing up to `next`. Behind a gap that is a part of it.
    pub(super) fn cover(&mut self, lane: Lane, position: NextOffset, next: NextOffset, now: Instant) {
        if self.gaps_since.is_none() {
            self.since.get_or_insert(now);
        }
        self.section(lane, position, |_| true).records.cover(next);
    }

    /// What there is up to `next` is too old.
    pub(super) fn expire(&mut self, lane: Lane, position: NextOffset, next: NextOffset, now: Instant) {
        self.gaps_since.get_or_insert(now);
        let section = self.section(lane, position, |is_gap| is_gap);
        section.is_gap = true;
        section.records.cover(next);
    }

    /// Throws away what it has of a lane.
    pub(super) fn discard(&mut self, lane: Lane) {
        if self.index.remove(&lane).is_none() {
            return;
        }
        for section in self.sections.extract_if(.., |section| section.lane == lane) {
            self.bytes -= section.records.len();
            self.records -= section.records.count();
        }
        self.index = self.sections.iter().enumerate().map(|(place, section)| (section.lane, place)).collect();
        if self.sections.is_empty() {
            (self.since, self.gaps_since) = (None, None);
        }
    }

    pub(super) fn closed(self) -> ClosedFrame {
        let mut closed = ClosedFrame { builder: FrameBuilder::new(), timestamps: Vec::with_capacity(self.sections.len()) };
        for OpenSection { lane, is_gap, records, times } in self.sections {
            closed.timestamps.push(times);
            if is_gap {
                closed.builder.gap(lane, records.first(), records.next(), GapReason::Expired);
            } else {
                closed.builder.data(lane, records);
            }
        }
        closed
    }

    fn has_no_gap(&self) -> bool {
        self.gaps_since.is_none()
    }

    /// The lane's last section if it may go on, or a new one.
    fn section(&mut self, lane: Lane, position: NextOffset, goes_on: impl Fn(bool) -> bool) -> &mut OpenSection {
        let last = self.index.get(&lane).copied().filter(|place| self.sections.get(*place).is_some_and(|last| goes_on(last.is_gap)));
        let place = last.unwrap_or(self.sections.len());
        if last.is_none() {
            self.sections.push(OpenSection { lane, is_gap: false, records: RecordWriter::new(position), times: None });
            self.index.insert(lane, place);
        }
        &mut self.sections[place]
    }
}
