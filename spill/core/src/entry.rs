//! What is stored: a frame, and its identity, which says of each section which offsets of which partition it holds.
//!
//! The identity makes a frame self-describing after a restart, when the lane numbers inside it mean nothing any more. It is kept twice, in the
//! index and with the frame's bytes, so that a damaged copy of either leaves the other to say what was lost.

use std::fmt;

use bytes::Bytes;
use spillway_proto::frame::SectionKind;
#[cfg(doc)]
use spillway_proto::limits;
use spillway_proto::{TopicId, TopicPartition};

mod codec;

pub use spillway_proto::frame::next_offset;

/// Number of an entry in the store, from 1, in the order in which they were appended; never given twice while the store holds anything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntryId(pub u64);

impl EntryId {
    /// Before every entry.
    pub const ZERO: Self = Self(0);

    /// The entry after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Topics that are spilled and drained together; each class has generations of its own, so that one can be dropped, and read, without the others.
///
/// Its number is on the disk. It says what the class does when the spill is full, and how urgent it is, whatever the configuration is by then; what else
/// sets topics apart is a slot. Number = policy + 3 x (rank + 4 x slot), where policy is 0 (block), 1 (drop the oldest) or 2 (drop the newest), and rank 0 for topics of
/// class 2, which is the default, 1 for class 0, 2 for class 1 and 3 for class 3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Class(u8);

/// How urgent the topics of ranks 0 to 3 are: 0 (alarms) to 3 (bulk).
const URGENCY: [u8; 4] = [2, 0, 1, 3];

impl Class {
    /// The class of topics without a rule: they wait.
    pub const DEFAULT: Self = Self::BLOCK;

    /// Topics that wait when the spill is full.
    pub const BLOCK: Self = Self(0);

    /// Topics of which the oldest make room.
    pub const DROP_OLDEST: Self = Self(1);

    /// Topics of which the newest are not stored.
    pub const DROP_NEWEST: Self = Self(2);

    /// Most slots for topics of the same policy and urgency.
    pub const MAX_SLOTS: u8 = 16;

    /// Most classes. Each that is written has an open generation with its own buffers.
    pub const MAX: u8 = 3 * 4 * Self::MAX_SLOTS;

    /// `None` from [`Self::MAX`] on.
    pub fn new(number: u8) -> Option<Self> {
        (number < Self::MAX).then_some(Self(number))
    }

    /// The class of topics with this policy's class ([`Policy::class`](crate::admission::Policy::class)), this urgent (0 to 3), in this slot. `None` beyond the last slot.
    pub fn of(policy: Self, urgency: u8, slot: u8) -> Option<Self> {
        let rank = URGENCY.iter().position(|of_rank| *of_rank == urgency)? as u8;
        (slot < Self::MAX_SLOTS).then(|| Self(policy.policy().0 + 3 * (rank + 4 * slot)))
    }

    /// The class of topics without any other rule that has the same policy.
    #[must_use]
    pub fn policy(self) -> Self {
        Self(self.0 % 3)
    }

    /// How urgent its topics are: 0 (alarms) to 3 (bulk).
    pub fn urgency(self) -> u8 {
        URGENCY.get(usize::from(self.0 / 3 % 4)).copied().unwrap_or(2)
    }

    /// The plain number.
    pub fn number(self) -> u8 {
        self.0
    }
}

/// A stretch of a partition's life in which offsets only go up: a truncated log or a topic made anew begins another line. Numbered from 0 by
/// the agent's books, which learn of the newest from the store; offsets of different lines cannot be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Line(pub u32);

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A section of a frame, named by its partition and not by a lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSection {
    /// The source partition.
    pub partition: TopicPartition,
    /// The topic's id.
    pub topic_id: TopicId,
    /// How many partitions the topic had.
    pub partition_count: u32,
    /// Set by whoever appends the entry.
    pub line: Line,
    /// What it says.
    pub kind: SectionKind,
}

/// What an entry holds. Its sections are those of its frame, in the same order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Which topics they are.
    pub class: Class,
    /// When the frame was built, milliseconds since 1970.
    pub created_ms: i64,
    /// The sections, at most [`limits::MAX_SECTIONS`].
    pub sections: Vec<StoredSection>,
    /// Length of the frame, in bytes.
    pub frame_bytes: u32,
    /// CRC-32C of the frame.
    pub frame_crc: u32,
}

/// A frame to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Which topics they are.
    pub class: Class,
    /// When the frame was built, milliseconds since 1970.
    pub created_ms: i64,
    /// The frame's sections in order.
    pub sections: Vec<StoredSection>,
    /// The encoded frame.
    pub frame: Bytes,
}

impl Entry {
    /// Upper bound of the bytes that it takes on disk.
    pub fn stored_bytes(&self) -> u64 {
        (self.frame.len() + self.sections.len() * MAX_STORED_SECTION_BYTES + 64) as u64
    }
}

/// An estimate for a section's identity, kept twice.
const MAX_STORED_SECTION_BYTES: usize = 128;

impl Identity {
    /// Records of all sections.
    pub fn records(&self) -> u64 {
        self.sections.iter().map(|section| section.records()).sum()
    }
}

impl StoredSection {
    /// True when it holds no offset: what a frame has of a partition that stands still counts for nothing.
    pub fn is_void(&self) -> bool {
        matches!(self.kind, SectionKind::Data { first, next, .. } if first == next)
    }

    /// Records that it holds.
    pub fn records(&self) -> u64 {
        match self.kind {
            SectionKind::Data { records, .. } => u64::from(records),
            SectionKind::Gap { .. } | SectionKind::Start { .. } => 0,
        }
    }
}
