//! Puts a session's frames in order, lane by lane.
//!
//! Frames travel on streams of their own, so they arrive in any order. A section is applied as soon as it begins where its lane is,
//! even while frames of other lanes are missing: an alarm need not wait for the bulk before it. A section above its lane's position is
//! parked; once every frame before its own has arrived and it still does not fit, there is a hole, which ends the session.
//!
//! | module | what it is for |
//! |---|---|
//! | `judge` | what a section means to a lane at a position |
//! | `parked` | sections that wait, within the limit |
//! | `violation` | what an honest agent does not send |
//!
//! Invariants:
//! - A. On each lane, what comes out covers every offset once, in order (a gap that goes back begins a new count). A late lane stays within the
//!   deferred range that it is for.
//! - B. Parked frames never exceed the limit in bytes, whatever the peer sends.
//! - C. Sections of a lane that was retired, or never announced in this session, vanish.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use spillway_proto::frame::Frame;
use spillway_proto::message::ResumePoint;
use spillway_proto::{FrameSeq, Lane, NextOffset, limits};

mod judge;
mod parked;
mod violation;

use judge::{LanePosition, Verdict, judge};
use parked::{Parked, Place};
pub use violation::Violation;

/// Most frames that may arrive ahead of a missing one. Far above the streams that a peer may hold open; it bounds the set of their numbers.
pub const MAX_FRAMES_AHEAD: u64 = 65_536;

/// Most lanes of a session that are remembered after their end, so that no number is used twice.
pub const MAX_RETIRED_LANES: usize = 4 * limits::MAX_LANES;

/// A section that is next on its lane. The frame's body is still compressed.
#[derive(Debug)]
pub struct Ready<F> {
    /// The lane.
    pub lane: Lane,
    /// The frame.
    pub frame: Arc<F>,
    /// Index of the section in the frame.
    pub section: usize,
    /// Where the section is applied from: its beginning, or later where an earlier part is there already.
    pub from: NextOffset,
    /// Where the lane goes on: the section's end, or on a late lane that of its range, where that comes before. What is beyond is there already.
    pub to: NextOffset,
}

impl<F> Clone for Ready<F> {
    fn clone(&self) -> Self {
        Self { lane: self.lane, frame: Arc::clone(&self.frame), section: self.section, from: self.from, to: self.to }
    }
}

/// The frames of one session, put in order. `F` is a frame with whatever the caller keeps beside it.
#[derive(Debug)]
pub struct Sequencer<F> {
    lanes: HashMap<Lane, LaneState<F>>,
    retired: HashSet<Lane>,
    /// Every frame below has arrived.
    watermark: FrameSeq,
    /// Frames at or above the watermark that have arrived.
    ahead: BTreeSet<FrameSeq>,
    parked: Parked,
}

#[derive(Debug)]
struct LaneState<F> {
    position: LanePosition,
    /// Of a late lane: where its range ends.
    until: Option<NextOffset>,
    parked: BTreeMap<Place, Arc<F>>,
}

impl<F: AsRef<Frame>> Sequencer<F> {
    /// A session without lanes that parks at most `limit_bytes` of frames.
    pub fn new(limit_bytes: usize) -> Self {
        Self {
            lanes: HashMap::new(),
            retired: HashSet::new(),
            watermark: FrameSeq(0),
            ahead: BTreeSet::new(),
            parked: Parked::new(limit_bytes),
        }
    }

    /// A lane is announced.
    ///
    /// # Errors
    /// When its number was used before, or there are too many.
    pub fn announce(&mut self, lane: Lane) -> Result<(), Violation> {
        if self.lanes.contains_key(&lane) || self.retired.contains(&lane) {
            return Err(Violation::LaneReused(lane));
        }
        if self.lanes.len() >= limits::MAX_LANES {
            return Err(Violation::LanesTooMany);
        }
        self.lanes.insert(lane, LaneState { position: LanePosition::Announced, until: None, parked: BTreeMap::new() });
        Ok(())
    }

    /// A lane's position is told to the agent: from now on it may send. Without effect on a lane that was retired meanwhile.
    pub fn resume(&mut self, lane: Lane, resume: ResumePoint) {
        if let Some(state) = self.lanes.get_mut(&lane) {
            state.position = match resume {
                ResumePoint::Fresh => LanePosition::BeforeStart,
                ResumePoint::At(next) => LanePosition::At(next),
                ResumePoint::Recreated { next, .. } => LanePosition::BeforeGap(next),
            };
        }
    }

    /// A late lane's position is told to the agent: it is for a deferred range, of which `at` is the first offset that is missing and `until` one past
    /// the last. Without effect on a lane that was retired meanwhile.
    pub fn resume_late(&mut self, lane: Lane, at: NextOffset, until: NextOffset) {
        if let Some(state) = self.lanes.get_mut(&lane) {
            (state.position, state.until) = (LanePosition::At(at), Some(until));
        }
    }

    /// A lane is over: held, or its partition was announced under another number. What is parked of it vanishes, what still comes too.
    ///
    /// # Errors
    /// When more lanes have ended than can be remembered.
    pub fn retire(&mut self, lane: Lane) -> Result<(), Violation> {
        let Some(state) = self.lanes.remove(&lane) else {
            return Ok(());
        };
        for place in state.parked.into_keys() {
            self.parked.remove(place);
        }
        if self.retired.len() >= MAX_RETIRED_LANES {
            return Err(Violation::LanesTooMany);
        }
        self.retired.insert(lane);
        Ok(())
    }

    /// A frame has arrived whole. Appends to `ready` what comes next on its lanes, and answers how many of its records were there already.
    ///
    /// # Errors
    /// The session must end; `ready` may hold sections all the same, and they are good.
    pub fn arrive(&mut self, seq: FrameSeq, frame: &Arc<F>, ready: &mut Vec<Ready<F>>) -> Result<u64, Violation> {
        self.check_number(seq)?;
        let mut duplicates = 0;
        let frame_ref: &Frame = frame.as_ref().as_ref();
        for (index, section) in frame_ref.sections().iter().enumerate() {
            // A frame that is sent again may hold lanes of an earlier session that are of no concern any more.
            let Some(state) = self.lanes.get_mut(&section.lane) else {
                continue;
            };
            match judge(section, state.position, state.until)? {
                Verdict::Apply { from, next } => {
                    state.position = LanePosition::At(next);
                    ready.push(Ready { lane: section.lane, frame: Arc::clone(frame), section: index, from, to: next });
                    duplicates += self.unpark_ready(section.lane, ready)?;
                }
                Verdict::Duplicate { records } => duplicates += records,
                Verdict::Wait => {
                    self.parked.add((seq, index), section.lane, frame_ref.wire_length())?;
                    state.parked.insert((seq, index), Arc::clone(frame));
                }
            }
        }
        self.advance(seq);
        self.check_holes()?;
        Ok(duplicates)
    }

    /// Bytes of frames that wait for an earlier one, with what their bookkeeping costs.
    pub fn parked_bytes(&self) -> usize {
        self.parked.bytes()
    }

    fn check_number(&self, seq: FrameSeq) -> Result<(), Violation> {
        if seq < self.watermark || self.ahead.contains(&seq) {
            return Err(Violation::FrameRepeated(seq));
        }
        if seq.0 - self.watermark.0 > MAX_FRAMES_AHEAD {
            return Err(Violation::FrameTooFarAhead { seq, missing: self.watermark });
        }
        Ok(())
    }

    /// After a lane has moved, sections parked on it may fit. Only the foremost can: an honest agent sends a lane in order.
    fn unpark_ready(&mut self, lane: Lane, ready: &mut Vec<Ready<F>>) -> Result<u64, Violation> {
        let mut duplicates = 0;
        while let Some(state) = self.lanes.get_mut(&lane)
            && let Some((&place, frame)) = state.parked.first_key_value()
        {
            let frame = Arc::clone(frame);
            let frame_ref: &Frame = frame.as_ref().as_ref();
            let Some(section) = frame_ref.sections().get(place.1) else {
                break;
            };
            match judge(section, state.position, state.until)? {
                Verdict::Wait => break,
                Verdict::Duplicate { records } => duplicates += records,
                Verdict::Apply { from, next } => {
                    state.position = LanePosition::At(next);
                    ready.push(Ready { lane, frame: Arc::clone(&frame), section: place.1, from, to: next });
                }
            }
            state.parked.pop_first();
            self.parked.remove(place);
        }
        Ok(duplicates)
    }

    fn advance(&mut self, seq: FrameSeq) {
        self.ahead.insert(seq);
        while self.ahead.first() == Some(&self.watermark) {
            self.ahead.pop_first();
            self.watermark = self.watermark.next();
        }
    }

    /// A section whose earlier frames have all arrived can wait for nothing any more.
    fn check_holes(&self) -> Result<(), Violation> {
        let Some(((seq, index), lane)) = self.parked.first() else {
            return Ok(());
        };
        if seq >= self.watermark {
            return Ok(());
        }
        let Some(state) = self.lanes.get(&lane) else {
            return Ok(());
        };
        let sections = state.parked.get(&(seq, index)).map(|frame| frame.as_ref().as_ref().sections());
        let first = sections.and_then(|sections| sections.get(index)).map_or(NextOffset::ZERO, |section| section.kind.first());
        match state.position {
            LanePosition::BeforeGap(_) => Err(Violation::RecreationUntold(lane)),
            LanePosition::At(next) => Err(Violation::Hole { lane, expected: Some(next), first }),
            LanePosition::Announced | LanePosition::BeforeStart => Err(Violation::Hole { lane, expected: None, first }),
        }
    }
}

#[cfg(test)]
mod tests;
