//! One type per idea, so that an offset, a next offset and a lane cannot be mistaken for each other.

use std::fmt;

use thiserror::Error;

use crate::limits;

/// A name that the rules of its type refuse.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NameError {
    /// The name has no characters.
    #[error("empty name")]
    Empty,
    /// The name is longer than its type allows.
    #[error("{length} characters, at most {limit} are allowed")]
    TooLong {
        /// Length found, in bytes.
        length: usize,
        /// Longest length allowed, in bytes.
        limit: usize,
    },
    /// A character outside the allowed set.
    #[error("character {character:?} at position {position}, allowed are {allowed}")]
    Character {
        /// The first character that is refused.
        character: char,
        /// Its position, counted in characters from 0.
        position: usize,
        /// The allowed set, in words.
        allowed: &'static str,
    },
    /// A name with a meaning of its own: `.` and `..` as topics (Kafka refuses them), the prefixes of Spillway's and MirrorMaker 2's
    /// internal topics as sites.
    #[error("{0:?} is reserved")]
    Reserved(String),
}

/// Name of an edge site: `[a-zA-Z0-9_-]{1,32}`.
///
/// No `.`: remote topics are `<site>.<topic>`, and a dot in the name would make the site ambiguous. Not `spillway-…` and not
/// `mm2-offset-syncs`: topic `internal` of a site `spillway-progress` would be Spillway's own internal topic.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SiteName(Box<str>);

impl SiteName {
    /// Parses a site's name.
    ///
    /// # Errors
    /// When it is empty, longer than [`limits::MAX_SITE_NAME`], has a character outside `[a-zA-Z0-9_-]`, or is reserved.
    pub fn parse(name: &str) -> Result<Self, NameError> {
        check(name, limits::MAX_SITE_NAME, "a-z A-Z 0-9 _ -", |c| c.is_ascii_alphanumeric() || c == '_' || c == '-')?;
        if name.starts_with("spillway-") || name == "mm2-offset-syncs" {
            return Err(NameError::Reserved(name.to_owned()));
        }
        Ok(Self(name.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Name of a Kafka topic: `[a-zA-Z0-9._-]{1,249}`, not `.` or `..` (Kafka: `Topic.validate`).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicName(Box<str>);

impl TopicName {
    /// Parses a topic's name.
    ///
    /// # Errors
    /// When Kafka itself would refuse the name.
    pub fn parse(name: &str) -> Result<Self, NameError> {
        check(name, limits::MAX_TOPIC_NAME, "a-z A-Z 0-9 . _ -", |c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))?;
        if name == "." || name == ".." {
            return Err(NameError::Reserved(name.to_owned()));
        }
        Ok(Self(name.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Index of a partition in its topic, 0 to 2³¹−1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Partition(u32);

impl Partition {
    /// The partition that every topic has.
    pub const FIRST: Self = Self(0);

    /// `None` when the index does not fit Kafka's INT32.
    pub fn new(index: u32) -> Option<Self> {
        (index <= i32::MAX as u32).then_some(Self(index))
    }

    /// From Kafka's INT32; `None` when negative.
    pub fn from_kafka(index: i32) -> Option<Self> {
        u32::try_from(index).ok().map(Self)
    }

    /// As Kafka's INT32.
    pub fn to_kafka(self) -> i32 {
        // Never clamps: both constructors keep the index within INT32.
        i32::try_from(self.0).unwrap_or(i32::MAX)
    }

    /// The index.
    pub fn index(self) -> u32 {
        self.0
    }
}

/// A partition of a source topic.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    /// Source topic.
    pub topic: TopicName,
    /// Partition of it.
    pub partition: Partition,
}

/// Position of one record in its partition, 0 to 2⁶³−1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Offset(u64);

/// The position to read or commit next: one past a record. `NextOffset(n)` means everything below `n` is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NextOffset(u64);

impl Offset {
    /// `None` when it does not fit Kafka's INT64.
    pub fn new(offset: u64) -> Option<Self> {
        (offset <= i64::MAX as u64).then_some(Self(offset))
    }

    /// From Kafka's INT64; `None` when negative.
    pub fn from_kafka(offset: i64) -> Option<Self> {
        u64::try_from(offset).ok().map(Self)
    }

    /// As Kafka's INT64.
    pub fn to_kafka(self) -> i64 {
        i64::try_from(self.0).unwrap_or(i64::MAX)
    }

    /// The plain number.
    pub fn value(self) -> u64 {
        self.0
    }

    /// The position after this record.
    pub fn next(self) -> NextOffset {
        NextOffset(self.0 + 1)
    }
}

impl NextOffset {
    /// Start of every partition.
    pub const ZERO: Self = Self(0);

    /// `None` when it does not fit Kafka's INT64.
    pub fn new(next: u64) -> Option<Self> {
        (next <= i64::MAX as u64).then_some(Self(next))
    }

    /// From Kafka's INT64; `None` when negative (Kafka's "no offset").
    pub fn from_kafka(next: i64) -> Option<Self> {
        u64::try_from(next).ok().map(Self)
    }

    /// As Kafka's INT64.
    pub fn to_kafka(self) -> i64 {
        i64::try_from(self.0).unwrap_or(i64::MAX)
    }

    /// The plain number.
    pub fn value(self) -> u64 {
        self.0
    }

    /// The record that this position points at, which may not exist yet.
    pub fn record(self) -> Offset {
        Offset(self.0)
    }

    /// True when the record lies below this position, that is, is done.
    pub fn covers(self, offset: Offset) -> bool {
        offset.0 < self.0
    }
}

/// Kafka's topic id. A topic that is deleted and made anew has another one. All zero: the broker told none.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicId(pub [u8; 16]);

impl TopicId {
    /// The broker told no id (before Kafka 2.8).
    pub const UNKNOWN: Self = Self([0; 16]);

    /// True when both are known and differ: the topic was made anew in between.
    pub fn is_other_incarnation(self, other: Self) -> bool {
        self != Self::UNKNOWN && other != Self::UNKNOWN && self != other
    }
}

/// One run of one source partition in the agent's life, numbered by the agent. Frames name lanes, not topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lane(pub u32);

/// Number of a frame in its session, from 0, in the order in which the agent sent them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct FrameSeq(pub u64);

impl FrameSeq {
    /// The frame after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

fn check(name: &str, limit: usize, allowed: &'static str, ok: impl Fn(char) -> bool) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.len() > limit {
        return Err(NameError::TooLong { length: name.len(), limit });
    }
    match name.chars().enumerate().find(|(_, c)| !ok(*c)) {
        Some((position, character)) => Err(NameError::Character { character, position, allowed }),
        None => Ok(()),
    }
}

macro_rules! text_name {
    ($type:ty) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
        impl std::str::FromStr for $type {
            type Err = NameError;
            fn from_str(name: &str) -> Result<Self, NameError> {
                Self::parse(name)
            }
        }
    };
}
text_name!(SiteName);
text_name!(TopicName);

macro_rules! number {
    ($($type:ty),*) => {$(
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}
number!(Partition, Offset, NextOffset, Lane, FrameSeq);

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{topic}-{partition}", topic = self.topic, partition = self.partition)
    }
}

impl fmt::Display for TopicId {
    /// As a plain UUID in hexadecimal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        uuid::Uuid::from_bytes(self.0).fmt(f)
    }
}

impl fmt::Debug for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_site_name_has_no_dot() {
        assert_eq!(SiteName::parse("plant-7").unwrap().as_str(), "plant-7");
        assert_eq!(SiteName::parse("a.b").unwrap_err(), NameError::Character { character: '.', position: 1, allowed: "a-z A-Z 0-9 _ -" });
        assert_eq!(SiteName::parse("").unwrap_err(), NameError::Empty);
        assert!(SiteName::parse(&"x".repeat(32)).is_ok());
        assert_eq!(SiteName::parse("spillway-progress").unwrap_err(), NameError::Reserved("spillway-progress".into()));
        assert!(SiteName::parse("mm2-offset-syncs").is_err(), "its topic a.internal would be the offset syncs of site a");
        assert_eq!(SiteName::parse(&"x".repeat(33)).unwrap_err(), NameError::TooLong { length: 33, limit: 32 });
    }

    #[test]
    fn a_topic_name_is_what_kafka_takes() {
        assert!(TopicName::parse("alarms.v1_x-y").is_ok());
        assert_eq!(TopicName::parse("..").unwrap_err(), NameError::Reserved("..".into()));
        assert!(TopicName::parse("a/b").is_err());
        assert!(TopicName::parse(&"x".repeat(249)).is_ok());
        assert!(TopicName::parse(&"x".repeat(250)).is_err());
    }

    #[test]
    fn next_offset_is_one_past() {
        let offset = Offset::new(41).unwrap();
        assert_eq!(offset.next(), NextOffset::new(42).unwrap());
        assert!(offset.next().covers(offset));
        assert!(!NextOffset::new(41).unwrap().covers(offset));
        assert_eq!(NextOffset::from_kafka(-1), None);
        assert_eq!(Offset::new(u64::MAX), None);
    }

    #[test]
    fn an_unknown_topic_id_is_never_another_incarnation() {
        let (a, b) = (TopicId([1; 16]), TopicId([2; 16]));
        assert!(a.is_other_incarnation(b));
        assert!(!a.is_other_incarnation(a));
        assert!(!a.is_other_incarnation(TopicId::UNKNOWN));
        assert!(!TopicId::UNKNOWN.is_other_incarnation(b));
    }
}
