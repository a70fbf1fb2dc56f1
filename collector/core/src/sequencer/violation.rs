//! What an honest agent does not send.

use spillway_proto::{CloseCode, FrameSeq, Lane, NextOffset, limits};

#[cfg(doc)]
use super::MAX_FRAMES_AHEAD;

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
