//! Joins records of many partitions into frames.
//!
//! Invariants:
//! - A. Of each lane, the sections of successive frames join without hole: one begins where the one before it ended.
//! - B. A frame passes none of its limits, except that a single record that is larger than `max_bytes` makes a frame alone.
//! - C. At most one frame is sealed and not taken; the record that sealed it waits in the next frame.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use spillway_proto::frame::{FrameBuilder, Timestamps};
use spillway_proto::{Lane, NextOffset, Offset};

use crate::ttl::TimeToLive;

mod open;

use open::OpenFrame;

/// When a frame is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameLimits {
    /// At so many raw bytes.
    pub max_bytes: usize,
    /// At so many records.
    pub max_records: u32,
    /// So long after its first record.
    pub linger: Duration,
    /// The largest raw frame that the session allows, in bytes; a record that does not fit is refused.
    pub largest_raw: usize,
}

/// How long a frame waits for more once the source has nothing more for now: no longer than the line's round trip.
///
/// A full frame compresses better, which matters on a long or thin line, and there a few milliseconds of delay do not. On a short one it is the
/// other way round. `capped` is a line whose rate is limited: its bytes count whatever the round trip.
pub fn caught_up_linger(linger: Duration, round_trip: Duration, capped: bool) -> Duration {
    if capped { linger } else { round_trip.max(MIN_CAUGHT_UP_LINGER).min(linger) }
}

/// Why frames are left open for longer, so that there are fewer of them: a frame costs its headers and its part of a dictionary's gain, and no more than
/// [`MAX_FRAMES_IN_TRANSIT`](crate::transit::MAX_FRAMES_IN_TRANSIT) are on the way at a time. What is open when a session begins is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Gathering {
    /// There is a session, or one is about to begin.
    #[default]
    No,
    /// The site's plan lets nothing through but class 0.
    Reserved,
    /// The line is away.
    Outage,
    /// There is no session by plan: until one is due, or the frame is full. Alarms bring one about.
    Planned,
}

impl Gathering {
    /// Of a site that has no session by plan (`is_planned`), or whose last dial failed (`is_away`); `is_open_for` tells which classes its plan lets through.
    pub fn of(is_planned: bool, is_away: bool, is_open_for: impl Fn(u8) -> bool) -> Self {
        if is_planned {
            Self::Planned
        } else if is_away || !is_open_for(0) {
            Self::Outage
        } else if !is_open_for(1) {
            Self::Reserved
        } else {
            Self::No
        }
    }

    /// How long a frame waits for more at most. In a session it is `in_session`. Where records expire, it is a tenth of that time at the most, or `in_session`: a frame
    /// goes as a whole, so what is too old would travel beside what is not.
    pub fn linger(self, in_session: Duration, is_urgent: bool, ttl: Option<TimeToLive>) -> Duration {
        let most = match (self, is_urgent) {
            (Self::No, _) | (Self::Reserved | Self::Planned, true) => return in_session,
            (Self::Planned, false) => PLANNED_LINGER,
            (Self::Outage, true) => URGENT_OUTAGE_LINGER,
            (Self::Reserved | Self::Outage, false) => OUTAGE_LINGER,
        };
        in_session.max(ttl.map_or(most, |ttl| most.min(ttl.time() / TTL_PART)))
    }
}

/// Longer than any pause between two sessions.
const PLANNED_LINGER: Duration = Duration::from_secs(365 * 86_400);

/// A day has 17,280 frames then, which take 108 s of a line with a round trip of 300 ms. What is open is not in the spill: if the agent is killed, so much is
/// read from the site's Kafka again.
const OUTAGE_LINGER: Duration = Duration::from_secs(5);

/// The same for class 0, which comes less often and is to be safe sooner.
const URGENT_OUTAGE_LINGER: Duration = Duration::from_secs(1);

/// A record may be older than its time by one part in so many.
const TTL_PART: u32 = 10;

/// Records of one burst arrive within so long.
const MIN_CAUGHT_UP_LINGER: Duration = Duration::from_millis(2);

/// What the batcher needs to see of a record before it is written.
#[derive(Debug, Clone, Copy)]
pub struct Incoming<'r, H> {
    /// Offset.
    pub offset: Offset,
    /// Milliseconds since 1970, −1 for none.
    pub timestamp: i64,
    /// Key; `None` is null.
    pub key: Option<&'r [u8]>,
    /// Value; `None` is null.
    pub value: Option<&'r [u8]>,
    /// Headers in order.
    pub headers: H,
}

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// It is in the open frame.
    Added,
    /// Its lane is not read, or it lies below the lane's position: ignored.
    Ignored,
    /// Larger than a frame may be in this session.
    TooLarge {
        /// What the frame would hold, in bytes.
        bytes: usize,
    },
}

/// A closed frame, and what the sender's books need beside its sections.
#[derive(Debug)]
pub struct ClosedFrame {
    /// The sections.
    pub builder: FrameBuilder,
    /// Timestamps of each section's records, in the order of the sections; `None` without records.
    pub timestamps: Vec<Option<Timestamps>>,
}

/// Collects records of lanes into the open frame.
#[derive(Debug)]
pub struct Batcher {
    limits: FrameLimits,
    positions: HashMap<Lane, NextOffset>,
    open: OpenFrame,
    sealed: Option<ClosedFrame>,
}

impl Batcher {
    /// A batcher that reads no lanes yet.
    pub fn new(limits: FrameLimits) -> Self {
        Self { limits, positions: HashMap::new(), open: OpenFrame::default(), sealed: None }
    }

    /// Changes the limits; the open frame is measured by the new ones from now on.
    pub fn set_limits(&mut self, limits: FrameLimits) {
        self.limits = limits;
    }

    /// The limits in force.
    pub fn limits(&self) -> &FrameLimits {
        &self.limits
    }

    /// Begins to read a lane at `next`.
    pub fn attach(&mut self, lane: Lane, next: NextOffset) {
        self.positions.insert(lane, next);
    }

    /// Stops to read a lane. What it has in the open frame stays there when `keep`, else it is thrown away.
    pub fn detach(&mut self, lane: Lane, keep: bool) {
        self.positions.remove(&lane);
        if !keep {
            self.open.discard(lane);
        }
    }

    /// Adds a record. May seal the frame so far: take it by [`Self::take_sealed`] before the next call.
    pub fn push<'h, H>(&mut self, lane: Lane, record: Incoming<'_, H>, now: Instant) -> Pushed
    where
        H: ExactSizeIterator<Item = (&'h str, Option<&'h [u8]>)> + Clone,
    {
        let Some(position) = self.positions.get_mut(&lane) else {
            return Pushed::Ignored;
        };
        if record.offset.value() < position.value() {
            return Pushed::Ignored;
        }
        let bytes = largest_length(&record);
        if bytes > self.limits.largest_raw {
            return Pushed::TooLarge { bytes };
        }
        if self.open.is_full_for(lane, bytes, &self.limits) {
            self.seal();
        }
        // The position moves only here and in `cover`, together with the section: invariant A.
        let Some(position) = self.positions.get_mut(&lane) else {
            return Pushed::Ignored;
        };
        match self.open.push(lane, *position, record, now) {
            Some(next) => {
                *position = next;
                Pushed::Added
            }
            None => Pushed::Ignored,
        }
    }

    /// The source's record at this offset is too old to be sent: the lane's position goes over it, by a gap that joins the one before it. May seal the frame so far.
    /// Answers whether it was the lane's turn.
    pub fn expire(&mut self, lane: Lane, offset: Offset, now: Instant) -> bool {
        match self.positions.get(&lane) {
            Some(position) if !position.covers(offset) => {}
            _ => return false,
        }
        if self.open.is_full_for(lane, 0, &self.limits) {
            self.seal();
        }
        if let Some(position) = self.positions.get_mut(&lane) {
            self.open.expire(lane, *position, offset.next(), now);
            *position = offset.next();
        }
        true
    }

    /// The source has no records of the lane below `next`: moves the lane's position past the hole. May seal the frame so far.
    pub fn cover(&mut self, lane: Lane, next: NextOffset, now: Instant) {
        match self.positions.get(&lane) {
            Some(position) if next > *position => {}
            _ => return,
        }
        if self.open.is_full_for(lane, 0, &self.limits) {
            self.seal();
        }
        if let Some(position) = self.positions.get_mut(&lane) {
            self.open.cover(lane, *position, next, now);
            *position = next;
        }
    }

    /// The frame that is full, if there is one. Ask until there is none before the next record.
    pub fn take_sealed(&mut self) -> Option<ClosedFrame> {
        if self.sealed.is_none() && self.open.is_full(&self.limits) {
            self.seal();
        }
        self.sealed.take()
    }

    /// True while a full frame waits to be taken.
    pub fn is_sealed(&self) -> bool {
        self.sealed.is_some() || self.open.is_full(&self.limits)
    }

    /// When the open frame is to be closed, if it is to wait for `linger` at most; `None` when it is empty.
    pub fn due(&self, linger: Duration) -> Option<Instant> {
        self.open.due(linger.min(self.limits.linger))
    }

    /// Closes the open frame, whatever it holds; `None` when it is empty. Take the sealed one first.
    pub fn close(&mut self) -> Option<ClosedFrame> {
        if self.sealed.is_none() {
            self.seal();
        }
        self.sealed.take()
    }

    /// True without anything that was read and not taken.
    pub fn is_empty(&self) -> bool {
        self.sealed.is_none() && self.open.is_empty()
    }

    /// True when it is empty and reads no lane.
    pub fn is_idle(&self) -> bool {
        self.is_empty() && self.positions.is_empty()
    }

    /// The lane's position: the next offset that it will add.
    pub fn position(&self, lane: Lane) -> Option<NextOffset> {
        self.positions.get(&lane).copied()
    }

    fn seal(&mut self) {
        let open = std::mem::take(&mut self.open);
        if open.is_empty() {
            return;
        }
        debug_assert!(self.sealed.is_none(), "invariant C: the sealed frame was not taken");
        self.sealed = Some(open.closed());
    }
}

/// A varint at its longest.
const MAX_VARINT_BYTES: usize = 10;

/// Upper bound of what [`push`](spillway_proto::record::RecordWriter::push) appends for a record: five numbers (distance, time, key, value, header count), two a header.
fn largest_length<'h, H>(record: &Incoming<'_, H>) -> usize
where
    H: ExactSizeIterator<Item = (&'h str, Option<&'h [u8]>)> + Clone,
{
    let length = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len);
    let headers = record.headers.clone().map(|(name, value)| 2 * MAX_VARINT_BYTES + name.len() + length(value)).sum::<usize>();
    5 * MAX_VARINT_BYTES + length(record.key) + length(record.value) + headers
}

#[cfg(test)]
mod tests;
