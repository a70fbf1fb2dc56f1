//! Keys and values of the compacted topic `spillway-progress.internal`: what makes a collector able to take over any site.
//!
//! ```text
//! key    u8 kind = 0 (position), STRING site, STRING topic, INT32 partition     value  INT16 version = 0, 16 bytes topic id, INT64 next offset
//! key    u8 kind = 1 (session),  STRING site                                    value  INT16 version = 0, 16 bytes marker, INT64 ms, STRING collector
//! key    as above                                                               value  INT16 version = 1, 16 bytes topic id, INT64 next offset, deferred
//! ```
//! Version 1 of a position is written only while the partition has [deferred](crate::deferred) ranges, which follow as [`Deferred::put`] writes them. A
//! collector that does not know it leaves the site alone.
//!
//! STRING is Kafka's: INT16 length and UTF-8. A session marker is written by every collector that opens a site's writer: when it shows up in a
//! read_committed reading of the topic, everything that the site ever committed before has been read too.

use crate::codec::{DecodeError, Reader, put_kafka_string};
use crate::deferred::Deferred;
use crate::types::{NextOffset, Partition, SiteName, TopicId, TopicName, TopicPartition};

/// Name of the topic.
pub const TOPIC: &str = "spillway-progress.internal";

/// What a record of the topic is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ProgressKey {
    /// Position of one source partition.
    Position {
        /// The site.
        site: SiteName,
        /// The source partition.
        source: TopicPartition,
    },
    /// The writer that a site has now.
    Session {
        /// The site.
        site: SiteName,
    },
}

/// Next offset expected of a source partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// Which topic of that name.
    pub topic_id: TopicId,
    /// Everything below is at the centre, but for what is deferred.
    pub next: NextOffset,
    /// What comes later, below `next`.
    pub deferred: Deferred,
}

/// Identifies one opening of a site's writer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionMarker {
    /// Random, never used twice.
    pub marker: [u8; 16],
    /// When, in milliseconds since 1970, by the collector's clock. For people only.
    pub opened_ms: i64,
    /// The collector's name. For people only.
    pub collector: String,
}

impl ProgressKey {
    /// The key's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Position { site, source } => {
                out.push(KIND_POSITION);
                put_kafka_string(&mut out, site.as_str());
                put_kafka_string(&mut out, source.topic.as_str());
                out.extend_from_slice(&source.partition.to_kafka().to_be_bytes());
            }
            Self::Session { site } => {
                out.push(KIND_SESSION);
                put_kafka_string(&mut out, site.as_str());
            }
        }
        out
    }

    /// Reads a key.
    ///
    /// # Errors
    /// Any deviation from the format.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let kind = reader.u8("progress key kind")?;
        let site = SiteName::parse(reader.kafka_string("site")?).map_err(|source| DecodeError::Name { what: "site", source })?;
        let key = match kind {
            KIND_POSITION => {
                let topic = TopicName::parse(reader.kafka_string("topic")?);
                let topic = topic.map_err(|source| DecodeError::Name { what: "topic", source })?;
                let index = reader.i32("partition")?;
                let partition = Partition::from_kafka(index);
                let partition =
                    partition.ok_or_else(|| DecodeError::Unknown { what: "partition", value: u64::from(index.cast_unsigned()) })?;
                Self::Position { site, source: TopicPartition { topic, partition } }
            }
            KIND_SESSION => Self::Session { site },
            other => return Err(DecodeError::Unknown { what: "progress key kind", value: u64::from(other) }),
        };
        reader.finish("the progress key")?;
        Ok(key)
    }
}

impl Position {
    /// The value's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let version = if self.deferred.is_empty() { VERSION } else { VERSION_DEFERRED };
        let mut out = version.to_be_bytes().to_vec();
        out.extend_from_slice(&self.topic_id.0);
        out.extend_from_slice(&self.next.to_kafka().to_be_bytes());
        if !self.deferred.is_empty() {
            self.deferred.put(&mut out);
        }
        out
    }

    /// Reads a value.
    ///
    /// # Errors
    /// Any deviation from the format, a later version included: an older collector must not guess a site's position.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (mut reader, version) = versioned(bytes, VERSION_DEFERRED)?;
        let topic_id = TopicId(reader.array("topic id")?);
        let next = reader.i64("next offset")?;
        let next = NextOffset::from_kafka(next).ok_or_else(|| DecodeError::Unknown { what: "next offset", value: next.cast_unsigned() })?;
        let deferred = if version == VERSION { Deferred::new() } else { Deferred::read(&mut reader)? };
        // One way to write each position; and what is deferred lies below it.
        let end = deferred.iter().last().map(|range| range.end);
        if (version != VERSION && deferred.is_empty()) || end.is_some_and(|end| end > next) {
            let (left, right) = (end.map_or(0, NextOffset::value), next.value());
            return Err(DecodeError::Mismatch { what: "deferred ranges and next offset", left, right });
        }
        reader.finish("the position")?;
        Ok(Self { topic_id, next, deferred })
    }
}

impl SessionMarker {
    /// The value's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = VERSION.to_be_bytes().to_vec();
        out.extend_from_slice(&self.marker);
        out.extend_from_slice(&self.opened_ms.to_be_bytes());
        put_kafka_string(&mut out, &self.collector);
        out
    }

    /// Reads a value.
    ///
    /// # Errors
    /// Any deviation from the format.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (mut reader, _) = versioned(bytes, VERSION)?;
        let marker = reader.array("marker")?;
        let opened_ms = reader.i64("time")?;
        let collector = reader.kafka_string("collector")?.to_owned();
        reader.finish("the session marker")?;
        Ok(Self { marker, opened_ms, collector })
    }
}

/// The partition of the progress topic that holds a site: CRC-32C of its name modulo the partition count.
///
/// Chosen by us rather than by the producer's partitioner, because a collector must know which partition to read.
pub fn partition_of(site: &SiteName, partition_count: u32) -> Partition {
    let index = crc32c::crc32c(site.as_str().as_bytes()) % partition_count.max(1);
    Partition::from_kafka(i32::try_from(index).unwrap_or(0)).unwrap_or(Partition::FIRST)
}

const VERSION: i16 = 0;
const VERSION_DEFERRED: i16 = 1;
const KIND_POSITION: u8 = 0;
const KIND_SESSION: u8 = 1;

fn versioned(bytes: &[u8], newest: i16) -> Result<(Reader<'_>, i16), DecodeError> {
    let mut reader = Reader::new(bytes);
    match reader.i16("version")? {
        version if (VERSION..=newest).contains(&version) => Ok((reader, version)),
        other => Err(DecodeError::Unknown { what: "progress version", value: u64::from(other.cast_unsigned()) }),
    }
}
