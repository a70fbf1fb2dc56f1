//! What the books tell and are told.

use bytes::Bytes;
use spillway_proto::codec::DecodeError;
use spillway_proto::{FrameSeq, Lane, NextOffset, TopicPartition, limits};

use crate::lane::{AfterDrain, LaneSource};
#[cfg(doc)]
use crate::ledger::Ledger;
use crate::schedule::TopicClass;

/// Something that the books do not allow: a bug of ours, or a peer that breaks the protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The collector acknowledged more than was sent.
    #[error("lane {lane} was acknowledged up to {next}, but only {position:?} was sent")]
    AckBeyond {
        /// The lane.
        lane: Lane,
        /// What was acknowledged.
        next: NextOffset,
        /// What was sent.
        position: Option<NextOffset>,
    },
    /// The collector speaks of a lane that was never opened.
    #[error("lane {0} was never opened")]
    LaneUnknown(Lane),
    /// The collector answers an announcement twice in a session.
    #[error("lane {0} was answered twice")]
    AnsweredTwice(Lane),
    /// A frame does not join what was pushed before it (invariant A).
    #[error("lane {lane} is at {position:?}, but the next section begins at {first}")]
    NotContiguous {
        /// The lane.
        lane: Lane,
        /// Its position.
        position: Option<NextOffset>,
        /// Where the section begins.
        first: NextOffset,
    },
    /// A frame that this agent built is none.
    #[error("a frame of the agent's own making cannot be decoded")]
    OwnFrame(#[source] DecodeError),
    /// More lanes than a session may have.
    #[error("more than {} partitions", limits::MAX_LANES)]
    LanesTooMany,
}

/// What a lane's answer leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resumed {
    /// The lane has not begun: look into the source's log, then call [`Ledger::begin`].
    Begin(Box<LaneSource>),
    /// It goes on with what is retained.
    Continues,
    /// It was given up for a new lane: see [`Ledger::take_ended`].
    Diverged,
    /// It is dead already.
    Ignored,
}

/// A lane that the source is to read from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// The lane.
    pub lane: Lane,
    /// The partition.
    pub partition: TopicPartition,
    /// Where to begin.
    pub next: NextOffset,
}

/// A lane that the source is to let go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Detachment {
    /// The lane.
    pub lane: Lane,
    /// The partition.
    pub partition: TopicPartition,
    /// What was read of it is still wanted.
    pub keep: bool,
}

/// A lane that is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// The lane.
    pub lane: Lane,
    /// Its partition.
    pub partition: TopicPartition,
    /// What follows.
    pub then: AfterDrain,
    /// It was a late lane: where something of its range is left, another one follows by itself.
    pub is_late: bool,
}

/// Offsets of a partition that the centre was moved over because their records were older than their time to live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passed {
    /// The partition.
    pub partition: TopicPartition,
    /// The first offset.
    pub first: NextOffset,
    /// One past the last offset.
    pub next: NextOffset,
}

/// A frame to send.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// Its number in this session.
    pub seq: FrameSeq,
    /// How urgent it is.
    pub class: TopicClass,
    /// Its bytes.
    pub bytes: Bytes,
}
