//! Why offsets will never come.

use crate::types::NextOffset;

/// Why offsets of a source partition will never reach the centre.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum GapReason {
    /// The source's retention (or DeleteRecords) removed them before they were read.
    Retention,
    /// The source's log ends below what was already read: a leader without them was elected. `next` is below `first`.
    Truncated,
    /// The topic was deleted and made anew; `first` counts in the old incarnation, `next` in the new one.
    TopicRecreated,
    /// The agent dropped them by policy, because its spill was full.
    Dropped,
    /// The agent's spill was damaged, and the source had removed them by then.
    Damaged,
    /// They come later, on a lane of their own: no loss. From version 3 on.
    Deferred,
    /// They were older than the topic's time to live when they were to be sent.
    Expired,
    /// A reason that this version does not know.
    Other(u8),
}

impl GapReason {
    /// Every name that [`Self::as_str`] answers.
    pub const NAMES: &[&str] = &["retention", "truncated", "topic_recreated", "dropped", "damaged", "deferred", "expired", "other"];

    /// The number on the wire.
    pub fn code(self) -> u8 {
        match self {
            Self::Retention => 1,
            Self::Truncated => 2,
            Self::TopicRecreated => 3,
            Self::Dropped => 4,
            Self::Damaged => 5,
            Self::Deferred => 6,
            Self::Expired => 7,
            Self::Other(code) => code,
        }
    }

    /// The reason behind a number; a later version's is kept as [`Self::Other`], since a gap must never be lost.
    pub fn from_code(code: u8) -> Self {
        match code {
            1 => Self::Retention,
            2 => Self::Truncated,
            3 => Self::TopicRecreated,
            4 => Self::Dropped,
            5 => Self::Damaged,
            6 => Self::Deferred,
            7 => Self::Expired,
            other => Self::Other(other),
        }
    }

    /// Stable name for logs and metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Retention => "retention",
            Self::Truncated => "truncated",
            Self::TopicRecreated => "topic_recreated",
            Self::Dropped => "dropped",
            Self::Damaged => "damaged",
            Self::Deferred => "deferred",
            Self::Expired => "expired",
            Self::Other(_) => "other",
        }
    }

    /// How many offsets a gap for this reason loses; `None` where that is not known: a truncated log goes back, a topic made anew counts
    /// otherwise, and what is deferred is not lost. Holes count: nobody can tell any more whether they were records.
    pub fn lost_count(self, first: NextOffset, next: NextOffset) -> Option<u64> {
        match self {
            Self::Retention | Self::Dropped | Self::Damaged | Self::Expired => next.value().checked_sub(first.value()),
            Self::Truncated | Self::TopicRecreated | Self::Deferred | Self::Other(_) => None,
        }
    }
}
