//! MirrorMaker 2's bytes, so that Kafka's own formatters and `MirrorClient` read what Spillway writes.
//!
//! All integers are big-endian, STRING is Kafka's. An offset sync has **no** version header (Kafka: `OffsetSync.java`).

use crate::codec::{DecodeError, Reader, put_kafka_string};
use crate::types::{Offset, Partition, TopicName, TopicPartition};

/// The record at `upstream` in the source partition was written at `downstream` in the remote partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetSync {
    /// Source topic and partition.
    pub source: TopicPartition,
    /// Source offset.
    pub upstream: Offset,
    /// Central offset of the same record.
    pub downstream: Offset,
}

impl OffsetSync {
    /// Key: source topic and partition.
    pub fn encode_key(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_kafka_string(&mut out, self.source.topic.as_str());
        out.extend_from_slice(&self.source.partition.to_kafka().to_be_bytes());
        out
    }

    /// Value: upstream and downstream offset.
    pub fn encode_value(&self) -> Vec<u8> {
        let mut out = self.upstream.to_kafka().to_be_bytes().to_vec();
        out.extend_from_slice(&self.downstream.to_kafka().to_be_bytes());
        out
    }

    /// Reads key and value of one record of `mm2-offset-syncs.<site>.internal`.
    ///
    /// # Errors
    /// Any deviation from the format, negative offsets included.
    pub fn decode(key: &[u8], value: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(key);
        let topic = TopicName::parse(reader.kafka_string("topic")?).map_err(|source| DecodeError::Name { what: "topic", source })?;
        let index = reader.i32("partition")?;
        let partition = Partition::from_kafka(index);
        let partition = partition.ok_or_else(|| DecodeError::Unknown { what: "partition", value: u64::from(index.cast_unsigned()) })?;
        reader.finish("the offset sync key")?;
        let mut reader = Reader::new(value);
        let upstream = offset(&mut reader, "upstream offset")?;
        let downstream = offset(&mut reader, "downstream offset")?;
        reader.finish("the offset sync value")?;
        Ok(Self { source: TopicPartition { topic, partition }, upstream, downstream })
    }
}

fn offset(reader: &mut Reader<'_>, what: &'static str) -> Result<Offset, DecodeError> {
    let value = reader.i64(what)?;
    Offset::from_kafka(value).ok_or_else(|| DecodeError::Unknown { what, value: value.cast_unsigned() })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn an_offset_sync_has_the_bytes_of_mirror_maker() {
        let sync = OffsetSync {
            source: TopicPartition { topic: TopicName::parse("orders").unwrap(), partition: Partition::new(3).unwrap() },
            upstream: Offset::new(1000).unwrap(),
            downstream: Offset::new(940).unwrap(),
        };
        assert_eq!(sync.encode_key(), b"\x00\x06orders\x00\x00\x00\x03");
        assert_eq!(sync.encode_value(), b"\x00\x00\x00\x00\x00\x00\x03\xe8\x00\x00\x00\x00\x00\x00\x03\xac");
        assert_eq!(OffsetSync::decode(&sync.encode_key(), &sync.encode_value()).unwrap(), sync);
        assert!(OffsetSync::decode(&sync.encode_key(), &[0xff; 16]).is_err(), "negative offsets");
        assert!(OffsetSync::decode(&sync.encode_key(), &[0; 17]).is_err(), "trailing bytes");
    }
}
