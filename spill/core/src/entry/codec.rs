//! The bytes of an identity: see `docs/spill-format.md`.

use std::collections::HashMap;

use spillway_proto::codec::{DecodeError, Reader, put_text, put_varint, put_zigzag};
use spillway_proto::frame::SectionKind;
use spillway_proto::{Partition, TopicId, TopicName, TopicPartition, limits};

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
            section.kind.put(out);
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
            let kind = SectionKind::read(&mut reader, limits::MAX_FRAME_RAW_BYTES)?;
            sections.push(StoredSection { partition: TopicPartition { topic, partition }, topic_id, partition_count, line, kind });
        }
        reader.finish("the sections")?;
        Ok(Self { class, created_ms, sections, frame_bytes, frame_crc })
    }
}

/// A topic of one letter: length, letter, id, count.
const MIN_TOPIC_BYTES: usize = 19;
const MIN_SECTION_BYTES: usize = 5;
