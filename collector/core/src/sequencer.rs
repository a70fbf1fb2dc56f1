//! Puts a session's frames in order, lane by lane.
//!
//! Frames travel on streams of their own, so they arrive in any order. A section is applied as soon as it begins where its lane is,
//! even while frames of other lanes are missing: an alarm need not wait for the bulk before it. A section above its lane's position is
//! parked; once every frame before its own has arrived and it still does not fit, there is a hole, which ends the session.
//!
//! Invariants:
//! - A. On each lane, what comes out covers every offset once, in order (a gap that goes back begins a new count). A late lane stays within the
//!   deferred range that it is for.
//! - B. Parked frames never exceed the limit in bytes, whatever the peer sends.
//! - C. Sections of a lane that was retired, or never announced in this session, vanish.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use spillway_proto::frame::{Frame, GapReason, Section, SectionKind};
use spillway_proto::message::ResumePoint;
use spillway_proto::{CloseCode, FrameSeq, Lane, NextOffset, limits};

/// Most frames that may arrive ahead of a missing one. Far above the streams that a peer may hold open; it bounds the set of their numbers.
pub const MAX_FRAMES_AHEAD: u64 = 65_536;

/// Most lanes of a session that are remembered after their end, so that no number is used twice.
pub const MAX_RETIRED_LANES: usize = 4 * limits::MAX_LANES;

/// What a parked section costs beside its frame's bytes: its entries in two trees, rounded up.
const SECTION_COST_BYTES: usize = 128;

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

/// Something that an honest agent does not send. Ends the session with [`Violation::close_code`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A lane number that was announced before.
    #[error("lane {0} is announced twice")]
    LaneReused(Lane),
    /// A section on a lane whose position was not told yet.
    #[error("a section on lane {0}, which was not resumed yet")]
    LaneNotResumed(Lane),
    /// A frame's number that was used before.
    #[error("frame number {0} is used twice")]
    FrameRepeated(FrameSeq),
    /// A gap goes back, for another reason than a truncated log.
    #[error("a gap on lane {lane} goes back from {first} to {next}")]
    GapBackwards {
        /// The lane.
        lane: Lane,
        /// Where the gap begins.
        first: NextOffset,
        /// Where it leads.
        next: NextOffset,
    },
    /// A lane of a topic made anew does not begin with the gap that says so.
    #[error("lane {0} does not begin with the gap of its recreated topic")]
    RecreationUntold(Lane),
    /// A late lane has a start, goes back, or defers.
    #[error("lane {0} is for what was deferred, and begins anew or defers it again")]
    LateBegins(Lane),
    /// Every earlier frame has arrived, and yet offsets are missing. `expected` is `None` where the lane's start is missing.
    #[error("lane {lane} is at {expected:?}, but its next section begins at {first}")]
    Hole {
        /// The lane.
        lane: Lane,
        /// Its position.
        expected: Option<NextOffset>,
        /// Where the section begins.
        first: NextOffset,
    },
    /// More lanes than a session may have.
    #[error("more than {} lanes", limits::MAX_LANES)]
    LanesTooMany,
    /// More frames ahead of a missing one than [`MAX_FRAMES_AHEAD`].
    #[error("frame {seq} is too far ahead of frame {missing}, which has not arrived")]
    FrameTooFarAhead {
        /// The frame.
        seq: FrameSeq,
        /// The first that is missing.
        missing: FrameSeq,
    },
    /// More parked bytes than agreed.
    #[error("{bytes} bytes of frames wait for an earlier one, at most {limit} are allowed")]
    BytesTooMany {
        /// What would be parked.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
}

impl Violation {
    /// How the connection is closed.
    pub fn close_code(self) -> CloseCode {
        match self {
            Self::LaneReused(_)
            | Self::LaneNotResumed(_)
            | Self::FrameRepeated(_)
            | Self::GapBackwards { .. }
            | Self::LateBegins(_)
            | Self::RecreationUntold(_) => CloseCode::ProtocolViolation,
            Self::Hole { .. } => CloseCode::OffsetHole,
            Self::LanesTooMany | Self::FrameTooFarAhead { .. } | Self::BytesTooMany { .. } => CloseCode::LimitExceeded,
        }
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
    /// Where parked sections are, over all lanes.
    parked: BTreeMap<Place, Lane>,
    /// Sections parked of each frame.
    frames: HashMap<FrameSeq, ParkedFrame>,
    parked_bytes: usize,
    limit_bytes: usize,
}

/// A section's place in the order in which the agent sent: frame, index in the frame.
type Place = (FrameSeq, usize);

#[derive(Debug)]
struct LaneState<F> {
    position: LanePosition,
    /// Of a late lane: where its range ends.
    until: Option<NextOffset>,
    parked: BTreeMap<Place, Arc<F>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LanePosition {
    /// Announced, not resumed.
    Announced,
    /// Fresh: waits for its start.
    BeforeStart,
    /// Waits for the gap that tells of the recreated topic, which begins here.
    BeforeGap(NextOffset),
    /// The next offset.
    At(NextOffset),
}

#[derive(Debug)]
struct ParkedFrame {
    sections: usize,
    bytes: usize,
}

impl<F: AsRef<Frame>> Sequencer<F> {
    /// A session without lanes that parks at most `limit_bytes` of frames.
    pub fn new(limit_bytes: usize) -> Self {
        Self {
            lanes: HashMap::new(),
            retired: HashSet::new(),
            watermark: FrameSeq(0),
            ahead: BTreeSet::new(),
            parked: BTreeMap::new(),
            frames: HashMap::new(),
            parked_bytes: 0,
            limit_bytes,
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
            self.unpark(place);
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
                Verdict::Wait => self.park((seq, index), section.lane, frame)?,
            }
        }
        self.advance(seq);
        self.check_holes()?;
        Ok(duplicates)
    }

    /// Bytes of frames that wait for an earlier one, with what their bookkeeping costs.
    pub fn parked_bytes(&self) -> usize {
        self.parked_bytes
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
            self.unpark(place);
        }
        Ok(duplicates)
    }

    fn park(&mut self, place: Place, lane: Lane, frame: &Arc<F>) -> Result<(), Violation> {
        let frame_ref: &Frame = frame.as_ref().as_ref();
        let new_bytes = if self.frames.contains_key(&place.0) { 0 } else { frame_ref.wire_length() };
        let bytes = self.parked_bytes + new_bytes + SECTION_COST_BYTES;
        if bytes > self.limit_bytes {
            return Err(Violation::BytesTooMany { bytes, limit: self.limit_bytes });
        }
        self.parked_bytes = bytes;
        let bytes = frame_ref.wire_length();
        self.frames.entry(place.0).or_insert(ParkedFrame { sections: 0, bytes }).sections += 1;
        self.parked.insert(place, lane);
        if let Some(state) = self.lanes.get_mut(&lane) {
            state.parked.insert(place, Arc::clone(frame));
        }
        Ok(())
    }

    /// Takes a section off the books; its lane has let go of it already.
    fn unpark(&mut self, place: Place) {
        self.parked.remove(&place);
        self.parked_bytes -= SECTION_COST_BYTES;
        if let Some(frame) = self.frames.get_mut(&place.0) {
            frame.sections -= 1;
            if frame.sections == 0 {
                self.parked_bytes -= frame.bytes;
                self.frames.remove(&place.0);
            }
        }
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
        let Some((&(seq, index), &lane)) = self.parked.first_key_value() else {
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

enum Verdict {
    Apply { from: NextOffset, next: NextOffset },
    Duplicate { records: u64 },
    Wait,
}

/// What a section means to a lane at a position. See `docs/wire-protocol.md`.
fn judge(section: &Section, position: LanePosition, until: Option<NextOffset>) -> Result<Verdict, Violation> {
    let lane = section.lane;
    if until.is_some() {
        check_late(section)?;
    }
    if let SectionKind::Gap { first, next, reason } = section.kind
        && next < first
        && !matches!(reason, GapReason::Truncated | GapReason::TopicRecreated)
    {
        return Err(Violation::GapBackwards { lane, first, next });
    }
    let at = match (position, section.kind) {
        (LanePosition::Announced, _) => return Err(Violation::LaneNotResumed(lane)),
        (LanePosition::BeforeStart, SectionKind::Start { next }) => return Ok(Verdict::Apply { from: next, next }),
        (LanePosition::BeforeGap(at), SectionKind::Gap { first, next, reason: GapReason::TopicRecreated }) if first == at => {
            return Ok(Verdict::Apply { from: at, next });
        }
        (LanePosition::BeforeStart | LanePosition::BeforeGap(_), _) => return Ok(Verdict::Wait),
        (LanePosition::At(at), _) => at,
    };
    let next = section.kind.next();
    let end = until.map_or(next, |until| until.min(next));
    Ok(match section.kind {
        // The lane has begun already, so this was sent before: its effect is in the position.
        SectionKind::Start { .. } | SectionKind::Gap { reason: GapReason::TopicRecreated, .. } => Verdict::Duplicate { records: 0 },
        SectionKind::Data { first, .. } | SectionKind::Gap { first, .. } if first > at => Verdict::Wait,
        SectionKind::Gap { first, next, .. } if next < first && first == at => Verdict::Apply { from: at, next },
        SectionKind::Gap { .. } if end <= at => Verdict::Duplicate { records: 0 },
        SectionKind::Data { records, .. } if end <= at => Verdict::Duplicate { records: u64::from(records) },
        SectionKind::Data { .. } | SectionKind::Gap { .. } => Verdict::Apply { from: at, next: end },
    })
}

/// What was deferred is sent as data, or is told to be lost.
fn check_late(section: &Section) -> Result<(), Violation> {
    let begins = match section.kind {
        SectionKind::Data { .. } => false,
        SectionKind::Start { .. } => true,
        SectionKind::Gap { first, next, reason } => {
            next < first || matches!(reason, GapReason::Truncated | GapReason::TopicRecreated | GapReason::Deferred)
        }
    };
    if begins { Err(Violation::LateBegins(section.lane)) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
