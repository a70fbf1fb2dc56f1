//! Frames that turn into gaps, and gaps that are joined.

use std::collections::{HashSet, VecDeque};
use std::ops::Range;
use std::time::Instant;

use spillway_proto::frame::{EncodedFrame, GapReason, Section, SectionKind, Timestamps};
use spillway_proto::{Lane, limits};

use super::{Copy, Frames, OpenSection, Retained};
use crate::ledger::expire::HOLD;
use crate::schedule::Flow;

impl Frames {
    /// Makes gaps of the frames at the head of each of the flow's queues of which all is over, and joins them. Answers the bytes of the agent's budget that are free now.
    pub(in crate::ledger) fn expire(&mut self, flow: Flow, is_over: impl Fn(Timestamps) -> bool, now: Instant) -> usize {
        self.expire_queue(flow, false, &is_over, now) + self.expire_queue(flow, true, &is_over, now)
    }

    fn expire_queue(&mut self, flow: Flow, is_late: bool, is_over: impl Fn(Timestamps) -> bool, now: Instant) -> usize {
        let mut freed = 0;
        let Some(head) = self.queued(flow, is_late, 0).filter(|head| self.turn(*head, &is_over, &mut freed)) else {
            return freed;
        };
        let mut has_grown = false;
        let is_last = loop {
            let Some(next) = self.queued(flow, is_late, 1) else {
                break true;
            };
            if !self.turn(next, &is_over, &mut freed) || !self.join(head, next) {
                break false;
            }
            has_grown = true;
        };
        if has_grown {
            self.rewrite(head);
        }
        if let Some(frame) = self.at_mut(head) {
            frame.is_held = is_last && now.saturating_duration_since(frame.since) < HOLD;
        }
        freed
    }

    /// The frame at this place of the flow's queue. Forgets those before it that are released.
    fn queued(&mut self, flow: Flow, is_late: bool, place: usize) -> Option<u64> {
        loop {
            let index = *self.unsent.get_mut(&flow)?.queue(is_late).get(place)?;
            if self.at(index).is_some_and(|frame| !frame.released) {
                return Some(index);
            }
            self.unsent.get_mut(&flow)?.queue(is_late).remove(place);
        }
    }

    /// Turns a frame into gaps if all of it is over. Answers whether it is one of gaps.
    fn turn(&mut self, index: u64, is_over: impl Fn(Timestamps) -> bool, freed: &mut usize) -> bool {
        let Some(frame) = self.at_mut(index) else {
            return false;
        };
        if frame.is_bare || frame.is_mixed || !frame.times.is_some_and(is_over) {
            return frame.is_bare;
        }
        *freed += std::mem::take(&mut frame.budget);
        (frame.is_bare, frame.times) = (true, None);
        for lane in distinct(frame) {
            let Some(open) = self.open.get_mut(&lane) else {
                continue;
            };
            let own = of_frame(open, index);
            for section in open.range_mut(own) {
                let records = std::mem::take(&mut section.records);
                self.records -= u64::from(records);
                (section.expired, section.timestamp) = (section.expired || records > 0, None);
            }
        }
        self.rewrite(index);
        true
    }

    /// Takes the gaps of a frame into one before it in the same queue. Answers whether they belong there.
    fn join(&mut self, head: u64, next: u64) -> bool {
        let (Some(first), Some(second)) = (self.at(head), self.at(next)) else {
            return false;
        };
        // A lane's order holds within a flow. And what the spill is about to confirm stands for itself.
        let fits = first.open_count + second.open_count <= limits::MAX_SECTIONS;
        if self.mixed > 0 || first.copy != second.copy || first.copy == Copy::Handed || !fits {
            return false;
        }
        let (named, lanes) = (distinct(first).into_iter().collect::<HashSet<_>>(), distinct(second));
        let mut moved = 0;
        for lane in &lanes {
            if let Some(open) = self.open.get_mut(lane) {
                let own = of_frame(open, next);
                moved += own.len();
                open.range_mut(own).for_each(|section| section.frame = head);
            }
        }
        let new: Vec<_> = lanes.iter().copied().filter(|lane| !named.contains(lane)).collect();
        if let Some(second) = self.at_mut(next) {
            second.open_count -= moved;
            // What both name is let go of once with the second, as with every frame that is released.
            let mut taken = HashSet::new();
            second.lanes.retain(|lane| named.contains(lane) || !taken.insert(*lane));
        }
        if let Some(first) = self.at_mut(head) {
            first.open_count += moved;
            first.lanes.extend(new);
        }
        self.coalesce(head, &lanes);
        self.release_from(next);
        true
    }

    /// Makes one of sections of a frame of gaps that follow each other on a lane.
    fn coalesce(&mut self, index: u64, lanes: &[Lane]) {
        let mut gone = 0;
        for lane in lanes {
            let Some(open) = self.open.get_mut(lane) else {
                continue;
            };
            let own = of_frame(open, index);
            let (mut place, mut end) = (own.start + 1, own.end);
            while place < end {
                let Some((first, second)) = open.get(place - 1).zip(open.get(place)).filter(|(first, second)| is_one(first, second)) else {
                    place += 1;
                    continue;
                };
                let joined = OpenSection { next: second.next, ..*first };
                open.remove(place);
                if let Some(section) = open.get_mut(place - 1) {
                    *section = joined;
                }
                (end, gone) = (end - 1, gone + 1);
            }
        }
        if let Some(frame) = self.at_mut(index) {
            frame.open_count -= gone;
        }
    }

    /// Writes the sections and bytes of a frame of gaps anew: what is open of it, each lane's in order.
    pub(super) fn rewrite(&mut self, index: u64) {
        let Some(lanes) = self.at(index).map(distinct) else {
            return;
        };
        self.coalesce(index, &lanes);
        let mut sections = Vec::with_capacity(lanes.len());
        for lane in lanes {
            if let Some(open) = self.open.get(&lane) {
                sections.extend(open.range(of_frame(open, index)).map(|section| Section { lane, kind: bare(section) }));
            }
        }
        let EncodedFrame { sections, bytes, .. } = EncodedFrame::bare(sections);
        self.replace_bytes(index, bytes);
        if let Some(frame) = self.at_mut(index) {
            frame.sections = sections;
        }
    }
}

/// The frame's lanes, each once, in order.
fn distinct(frame: &Retained) -> Vec<Lane> {
    let mut seen = HashSet::new();
    frame.lanes.iter().copied().filter(|lane| seen.insert(*lane)).collect()
}

/// Where a lane's open sections are that a frame has: they stand in the order of the frames.
fn of_frame(open: &VecDeque<OpenSection>, index: u64) -> Range<usize> {
    open.partition_point(|section| section.frame < index)..open.partition_point(|section| section.frame <= index)
}

/// What follows a gap joins it, a hole as well: nobody could tell where the one ends. A hole before a gap stays one.
fn is_one(first: &OpenSection, second: &OpenSection) -> bool {
    first.next == second.from && (first.expired || !second.expired)
}

fn bare(section: &OpenSection) -> SectionKind {
    let OpenSection { from: first, next, .. } = *section;
    if section.expired {
        SectionKind::Gap { first, next, reason: GapReason::Expired }
    } else {
        SectionKind::Data { first, next, records: 0, raw_length: 0 }
    }
}
