//! The state file: what was released, and what was dropped on purpose. Small, written whole and renamed into place.
//!
//! ```text
//! "SPILLST1", u8 version = 1, 8 bytes key id, 16 bytes salt, body (sealed with a key), u32 CRC-32C of all before, little-endian
//! body: u64 next entry, u64 next generation, both little-endian; varint released, each: text topic, varint partition, 16 bytes topic id, varint line,
//!       varint next;
//!       varint dropped, each: text topic, 16 bytes topic id, varint partition count, varint partition, varint line, varint first, varint next;
//!       varint records dropped
//! ```
//! What was released may be stale: then it is found out again from the centre. What was dropped is synced before its frames are deleted; without this
//! file it would be taken for damage, and not for a decision.

use std::collections::BTreeMap;

use spillway_proto::codec::{DecodeError, Reader, put_text, put_varint};
use spillway_proto::{Partition, TopicId, TopicName, TopicPartition, limits};

use crate::entry::{Line, next_offset};
use crate::plan::Released;
use crate::ranges::Ranges;
use crate::seal::{FileSalt, Key, KeyId, NO_KEY, Sealed, Sealer};

/// Version of the format.
pub const VERSION: u8 = 1;

/// Largest state file that is read.
pub const MAX_BYTES: u64 = 64 * 1024 * 1024;

const MAGIC: &[u8; 8] = b"SPILLST1";
const HEAD_BYTES: usize = 33;

/// Offsets of a line that were dropped by policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DroppedLine {
    /// The topic's id.
    pub topic_id: TopicId,
    /// How many partitions the topic had.
    pub partition_count: u32,
    /// The offsets.
    pub ranges: Ranges,
}

/// What the state file holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// At least the number of the next entry.
    pub next_entry: u64,
    /// At least the number of the next generation.
    pub next_generation: u64,
    /// How far each partition is.
    pub released: BTreeMap<TopicPartition, Released>,
    /// What was dropped and is not released.
    pub dropped: BTreeMap<(TopicPartition, Line), DroppedLine>,
    /// Records dropped, ever.
    pub dropped_records: u64,
}

/// What a state file turned out to be.
#[derive(Debug)]
pub enum Read {
    /// Whole.
    State(State),
    /// Of a later format.
    Newer(u8),
    /// Sealed with another key.
    ForeignKey(KeyId),
    /// Damaged.
    Damaged,
}

impl State {
    /// The file's bytes. `None` when it cannot be sealed.
    pub fn encode(&self, key: Option<&Key>, salt: FileSalt) -> Option<Vec<u8>> {
        let mut body = Vec::new();
        body.extend_from_slice(&self.next_entry.to_le_bytes());
        body.extend_from_slice(&self.next_generation.to_le_bytes());
        put_varint(&mut body, self.released.len() as u64);
        for (partition, released) in &self.released {
            put_partition(&mut body, partition);
            body.extend_from_slice(&released.topic_id.0);
            put_varint(&mut body, u64::from(released.line.0));
            put_varint(&mut body, released.next.value());
        }
        let dropped = self.dropped.iter().flat_map(|(key, line)| line.ranges.iter().map(move |range| (key, line, range)));
        put_varint(&mut body, dropped.clone().count() as u64);
        for ((partition, line), dropped, (first, next)) in dropped {
            put_partition(&mut body, partition);
            body.extend_from_slice(&dropped.topic_id.0);
            put_varint(&mut body, u64::from(dropped.partition_count));
            put_varint(&mut body, u64::from(line.0));
            put_varint(&mut body, first.value());
            put_varint(&mut body, next.value());
        }
        put_varint(&mut body, self.dropped_records);
        let mut out = MAGIC.to_vec();
        out.push(VERSION);
        out.extend_from_slice(&key.map_or(NO_KEY, Key::id));
        out.extend_from_slice(&salt);
        Sealer::new(key, &salt).seal(Sealed::State, &body, &mut out)?;
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        Some(out)
    }

    /// Reads a state file.
    pub fn decode(bytes: &[u8], key: Option<&Key>) -> Read {
        let checked = bytes.len().saturating_sub(4);
        let (covered, crc) = bytes.split_at_checked(checked).unwrap_or_default();
        if !covered.starts_with(MAGIC) || crc32c::crc32c(covered).to_le_bytes() != crc {
            return Read::Damaged;
        }
        let head = covered.get(MAGIC.len()..HEAD_BYTES).and_then(|head| head.split_first());
        let Some((version, rest)) = head else {
            return Read::Damaged;
        };
        if *version != VERSION {
            return Read::Newer(*version);
        }
        let (Some(key_id), Some(salt)) = (rest.first_chunk::<8>(), rest.last_chunk::<16>()) else {
            return Read::Damaged;
        };
        let mut body = Vec::new();
        let fits = *key_id == key.map_or(NO_KEY, Key::id);
        if !fits || !Sealer::new(key, salt).open(Sealed::State, covered, HEAD_BYTES, &mut body) {
            return Read::ForeignKey(*key_id);
        }
        read_body(&body).map_or(Read::Damaged, Read::State)
    }
}

fn read_body(bytes: &[u8]) -> Result<State, DecodeError> {
    let mut reader = Reader::new(bytes);
    let mut state = State {
        next_entry: u64::from_le_bytes(reader.array("next entry")?),
        next_generation: u64::from_le_bytes(reader.array("next generation")?),
        ..State::default()
    };
    for _ in 0..reader.length(bytes.len(), "released")? {
        let partition = read_partition(&mut reader)?;
        let (topic_id, line) = (TopicId(reader.array("topic id")?), Line(reader.varint_u32("line")?));
        state.released.insert(partition, Released { topic_id, line, next: next_offset(&mut reader, "next")? });
    }
    for _ in 0..reader.length(bytes.len(), "dropped")? {
        let partition = read_partition(&mut reader)?;
        let (topic_id, partition_count) = (TopicId(reader.array("topic id")?), reader.varint_u32("partition count")?);
        let line = Line(reader.varint_u32("line")?);
        let (first, next) = (next_offset(&mut reader, "first")?, next_offset(&mut reader, "next")?);
        if first >= next {
            return Err(DecodeError::Mismatch { what: "an empty dropped range", left: first.value(), right: next.value() });
        }
        let empty = || DroppedLine { topic_id, partition_count, ranges: Ranges::default() };
        state.dropped.entry((partition, line)).or_insert_with(empty).ranges.insert(first, next);
    }
    state.dropped_records = reader.varint("records dropped")?;
    reader.finish("the state")?;
    Ok(state)
}

fn put_partition(out: &mut Vec<u8>, partition: &TopicPartition) {
    put_text(out, partition.topic.as_str(), limits::MAX_TOPIC_NAME);
    put_varint(out, u64::from(partition.partition.index()));
}

fn read_partition(reader: &mut Reader<'_>) -> Result<TopicPartition, DecodeError> {
    let name = reader.text(limits::MAX_TOPIC_NAME, "topic")?;
    let topic = TopicName::parse(name).map_err(|source| DecodeError::Name { what: "topic", source })?;
    let value = reader.varint_u32("partition")?;
    let limit = i32::MAX as u64;
    let partition = Partition::new(value).ok_or_else(|| DecodeError::Range { what: "partition", value: value.into(), limit })?;
    Ok(TopicPartition { topic, partition })
}
