//! The bytes of an identity: see `docs/spill-format.md`.

use std::collections::HashMap;

use spillway_proto::codec::{DecodeError, Reader, put_text, put_varint, put_zigzag};
use spillway_proto::frame::{GapReason, SectionKind};
use spillway_proto::{NextOffset, Partition, TopicId, TopicName, TopicPartition, limits};

use super::{Class, Identity, Line, StoredSection};

impl Identity {
    /// Appends the encoded identity.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.class.0);
        put_zigzag(out, self.created_ms);
        put_varint(out, u64::from(self.frame_bytes));
        out.extend_from_slice(&self.frame_crc.to_le_bytes());
        let mut topics: Vec<&StoredSection> = Vec::new();
        let mut places = HashMap::new();
        for section in &self.sections {
            places.entry((&section.partition.topic, section.topic_id, section.partition_count)).or_insert_with(|| {
                topics.push(section);
                topics.len() - 1
            });
        }
        put_varint(out, topics.len() as u64);
        for topic in topics {
            put_text(out, topic.partition.topic.as_str(), limits::MAX_TOPIC_NAME);
            out.extend_from_slice(&topic.topic_id.0);
            put_varint(out, u64::from(topic.partition_count));
        }
        put_varint(out, self.sections.len() as u64);
        for section in &self.sections {
            let place = places.get(&(&section.partition.topic, section.topic_id, section.partition_count)).copied().unwrap_or_default();
            put_varint(out, place as u64);
            put_varint(out, u64::from(section.partition.partition.index()));
            put_varint(out, u64::from(section.line.0));
            put_kind(out, section.kind);
        }
    }

    /// Decodes an identity that fills `bytes`.
    ///
    /// # Errors
    /// Any deviation from the format.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let class = reader.u8("class")?;
        let class =
            Class::new(class).ok_or_else(|| DecodeError::Range { what: "class", value: class.into(), limit: (Class::MAX - 1).into() })?;
        let created_ms = reader.zigzag("creation time")?;
        let frame_bytes = reader.varint_u32("frame length")?;
        let frame_crc = u32::from_le_bytes(reader.array("frame checksum")?);
        let count = reader.length(limits::MAX_SECTIONS, "topic count")?;
        let mut topics = Vec::with_capacity(count.min(reader.remaining() / MIN_TOPIC_BYTES));
        for _ in 0..count {
            let name = reader.text(limits::MAX_TOPIC_NAME, "topic")?;
            let name = TopicName::parse(name).map_err(|source| DecodeError::Name { what: "topic", source })?;
            let id = TopicId(reader.array("topic id")?);
            topics.push((name, id, reader.varint_u32("partition count")?));
        }
        let count = reader.length(limits::MAX_SECTIONS, "section count")?;
        let mut sections = Vec::with_capacity(count.min(reader.remaining() / MIN_SECTION_BYTES));
        for _ in 0..count {
            let place = reader.length(limits::MAX_SECTIONS, "topic")?;
            let unknown = DecodeError::Unknown { what: "topic", value: place as u64 };
            let (topic, topic_id, partition_count) = topics.get(place).cloned().ok_or(unknown)?;
            let index = reader.varint_u32("partition")?;
            let limit = i32::MAX as u64;
            let partition = Partition::new(index).ok_or_else(|| DecodeError::Range { what: "partition", value: index.into(), limit })?;
            let line = Line(reader.varint_u32("line")?);
            let kind = read_kind(&mut reader)?;
            sections.push(StoredSection { partition: TopicPartition { topic, partition }, topic_id, partition_count, line, kind });
        }
        reader.finish("the sections")?;
        Ok(Self { class, created_ms, sections, frame_bytes, frame_crc })
    }
}

/// A topic of one letter: length, letter, id, count.
const MIN_TOPIC_BYTES: usize = 19;
const MIN_SECTION_BYTES: usize = 5;

const KIND_DATA: u8 = 0;
const KIND_GAP: u8 = 1;
const KIND_START: u8 = 2;

/// As in a frame's header (see the wire protocol).
fn put_kind(out: &mut Vec<u8>, kind: SectionKind) {
    match kind {
        SectionKind::Data { first, next, records, raw_length } => {
            out.push(KIND_DATA);
            put_varint(out, first.value());
            put_varint(out, next.value().saturating_sub(first.value()));
            put_varint(out, u64::from(records));
            put_varint(out, raw_length as u64);
        }
        SectionKind::Gap { first, next, reason } => {
            out.push(KIND_GAP);
            put_varint(out, first.value());
            put_varint(out, next.value());
            out.push(reason.code());
        }
        SectionKind::Start { next } => {
            out.push(KIND_START);
            put_varint(out, next.value());
        }
    }
}

fn read_kind(reader: &mut Reader<'_>) -> Result<SectionKind, DecodeError> {
    Ok(match reader.u8("section kind")? {
        KIND_DATA => {
            let first = next_offset(reader, "first")?;
            let value = first.value().saturating_add(reader.varint("span")?);
            let next = NextOffset::new(value).ok_or_else(|| DecodeError::Range { what: "next", value, limit: i64::MAX.cast_unsigned() })?;
            let records = reader.varint_u32("record count")?;
            SectionKind::Data { first, next, records, raw_length: reader.length(limits::MAX_FRAME_RAW_BYTES, "raw length")? }
        }
        KIND_GAP => {
            let (first, next) = (next_offset(reader, "first")?, next_offset(reader, "next")?);
            SectionKind::Gap { first, next, reason: GapReason::from_code(reader.u8("gap reason")?) }
        }
        KIND_START => SectionKind::Start { next: next_offset(reader, "next")? },
        other => return Err(DecodeError::Unknown { what: "section kind", value: u64::from(other) }),
    })
}

/// Reads a next offset; `what` names it in an error.
///
/// # Errors
/// When it is beyond what Kafka knows.
pub fn next_offset(reader: &mut Reader<'_>, what: &'static str) -> Result<NextOffset, DecodeError> {
    let limit = i64::MAX.cast_unsigned();
    let value = reader.varint_up_to(limit, what)?;
    NextOffset::new(value).ok_or(DecodeError::Range { what, value, limit })
}
