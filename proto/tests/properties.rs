//! Properties of the decoders: what was written is read back; what was cut or damaged is refused, and never a panic.
#![expect(clippy::unwrap_used, reason = "tests")]

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use spillway_proto::compress::{Compressor, Decompressor};
use spillway_proto::frame::{EncodedFrame, Frame, FrameBuilder, GapReason};
use spillway_proto::message::{AgentMessage, CollectorMessage, Hold, HoldReason, MessageBuffer, OpenLane, ResumePoint};
use spillway_proto::progress::{Position, ProgressKey, SessionMarker};
use spillway_proto::record::RecordWriter;
use spillway_proto::{Lane, NextOffset, Offset, Partition, TopicId, TopicName, TopicPartition, limits};

const MAX_RAW: usize = 1 << 20;

#[derive(Debug, Clone)]
struct OwnedRecord {
    hole: u64,
    timestamp: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
}

fn record() -> impl Strategy<Value = OwnedRecord> {
    let bytes = || option::of(vec(any::<u8>(), 0..80));
    let headers = vec((".{0,12}", option::of(vec(any::<u8>(), 0..20))), 0..6);
    (0u64..1000, any::<i64>(), bytes(), bytes(), headers).prop_map(|(hole, timestamp, key, value, headers)| OwnedRecord {
        hole,
        timestamp,
        key,
        value,
        headers,
    })
}

/// Sections of (lane, first, records), encoded.
fn encode(sections: &[(u32, u64, Vec<OwnedRecord>)]) -> EncodedFrame {
    let mut builder = FrameBuilder::new();
    for (lane, first, records) in sections {
        let mut writer = RecordWriter::new(NextOffset::new(*first).unwrap());
        let mut offset = *first;
        for record in records {
            offset += record.hole;
            let headers = record.headers.iter().map(|(name, value)| (name.as_str(), value.as_deref()));
            let at = Offset::new(offset).unwrap();
            assert!(writer.push(at, record.timestamp, record.key.as_deref(), record.value.as_deref(), headers));
            offset += 1;
        }
        builder.data(Lane(*lane), writer);
        builder.gap(Lane(*lane), NextOffset::ZERO, NextOffset::new(*first).unwrap(), GapReason::Other(200));
    }
    builder.encode(&mut Compressor::new(1).unwrap())
}

fn sections() -> impl Strategy<Value = Vec<(u32, u64, Vec<OwnedRecord>)>> {
    vec((any::<u32>(), 0u64..1 << 40, vec(record(), 0..12)), 1..6)
}

/// Reads everything that there is to read; the answer is whether all of it was sound.
fn read_all(bytes: Vec<u8>) -> bool {
    let Ok(frame) = Frame::decode(Bytes::from(bytes), MAX_RAW) else { return false };
    let Ok(raw) = frame.open(&mut Decompressor::new().unwrap()) else { return false };
    (0..frame.sections().len()).all(|index| raw.records(&frame, index).all(|record| record.is_ok()))
}

/// With the checksum made right again, so that damage reaches the decoders behind it.
fn reseal(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(end) = bytes.len().checked_sub(4) {
        let crc = crc32c::crc32c(&bytes[..end]);
        bytes[end..].copy_from_slice(&crc.to_le_bytes());
    }
    bytes
}

fn message() -> impl Strategy<Value = CollectorMessage> {
    let offset = (0u64..=i64::MAX as u64).prop_map(|value| NextOffset::new(value).unwrap());
    let hold = (any::<u32>(), offset.clone(), 5u8.., ".{0,40}").prop_map(|(lane, next, reason, detail)| {
        CollectorMessage::Hold(Hold { lane: Lane(lane), next, reason: HoldReason::Other(reason), detail })
    });
    prop_oneof![
        vec((any::<u32>().prop_map(Lane), offset.clone()), 0..50).prop_map(CollectorMessage::Ack),
        (any::<u32>(), any::<[u8; 16]>(), offset).prop_map(|(lane, id, next)| CollectorMessage::Resume {
            lane: Lane(lane),
            resume: ResumePoint::Recreated { previous: TopicId(id), next },
        }),
        hold,
        any::<u32>().prop_map(|lane| CollectorMessage::Retry(Lane(lane))),
    ]
}

proptest! {
    #[test]
    fn other_lanes_change_nothing_else(sections in sections(), lanes in vec(any::<u32>(), 12)) {
        let before = encode(&sections);
        let lanes = &lanes[..before.sections.len()];
        let relabelled = Frame::decode(before.bytes.clone(), MAX_RAW).unwrap().with_lanes(lanes.iter().map(|lane| Lane(*lane)));
        let found = Frame::decode(relabelled.bytes.clone(), MAX_RAW).unwrap();
        prop_assert_eq!(found.sections(), &relabelled.sections[..]);
        for ((section, lane), before) in found.sections().iter().zip(lanes).zip(&before.sections) {
            prop_assert_eq!((section.lane.0, section.kind), (*lane, before.kind));
        }
        prop_assert_eq!((found.raw_length(), relabelled.raw_length), (before.raw_length, before.raw_length));
        let back = found.with_lanes(before.sections.iter().map(|section| section.lane));
        prop_assert_eq!(back.bytes, before.bytes);
    }

    #[test]
    fn records_come_back_as_they_were(sections in sections()) {
        let encoded = encode(&sections);
        let frame = Frame::decode(encoded.bytes.clone(), MAX_RAW).unwrap();
        prop_assert_eq!(frame.sections(), &encoded.sections[..]);
        prop_assert_eq!(frame.raw_length(), encoded.raw_length);
        let raw = frame.open(&mut Decompressor::new().unwrap()).unwrap();
        for (index, (_, first, records)) in sections.iter().enumerate() {
            let mut offset = *first;
            let read: Vec<_> = raw.records(&frame, index * 2).collect::<Result<_, _>>().unwrap();
            prop_assert_eq!(read.len(), records.len());
            for (record, read) in records.iter().zip(read) {
                offset += record.hole;
                prop_assert_eq!(read.offset.value(), offset);
                offset += 1;
                prop_assert_eq!(read.timestamp, record.timestamp);
                prop_assert_eq!(read.key, record.key.as_deref());
                prop_assert_eq!(read.value, record.value.as_deref());
                let headers: Vec<_> = record.headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
                prop_assert_eq!(read.headers.iter().collect::<Vec<_>>(), headers);
            }
        }
    }

    #[test]
    fn a_cut_frame_is_refused(sections in sections(), at: prop::sample::Index) {
        let bytes = encode(&sections).bytes.to_vec();
        let cut = bytes[..at.index(bytes.len())].to_vec();
        prop_assert!(!read_all(cut.clone()), "as it is");
        prop_assert!(!read_all(reseal(cut)), "with a right checksum");
    }

    #[test]
    fn a_flipped_bit_is_found_by_the_checksum(sections in sections(), at: prop::sample::Index, bit in 0u8..8) {
        let mut bytes = encode(&sections).bytes.to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert!(!read_all(bytes));
    }

    #[test]
    fn damage_behind_a_right_checksum_never_panics(sections in sections(), damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        let mut bytes = encode(&sections).bytes.to_vec();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        read_all(reseal(bytes));
    }

    #[test]
    fn noise_never_panics(noise in vec(any::<u8>(), 0..300)) {
        read_all(reseal(noise.clone()));
        drop(AgentMessage::decode(&noise));
        drop(CollectorMessage::decode(&noise));
        drop(ProgressKey::decode(&noise));
        drop(Position::decode(&noise));
        drop(SessionMarker::decode(&noise));
        let mut buffer = MessageBuffer::default();
        buffer.push(&noise);
        while let Ok(Some(message)) = buffer.take() {
            prop_assert!(message.len() <= limits::MAX_MESSAGE_BYTES);
        }
    }

    #[test]
    fn messages_come_back_as_they_were_however_they_arrive(messages in vec(message(), 1..6), chunk in 1usize..40) {
        let mut bytes = Vec::new();
        messages.iter().for_each(|message| message.encode(&mut bytes));
        let (mut buffer, mut read) = (MessageBuffer::default(), Vec::new());
        for chunk in bytes.chunks(chunk) {
            buffer.push(chunk);
            while let Some(message) = buffer.take().unwrap() {
                read.push(CollectorMessage::decode(message).unwrap());
            }
        }
        prop_assert_eq!(read, messages);
    }

    #[test]
    fn a_cut_message_is_refused(message in message(), at: prop::sample::Index) {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        let body = &bytes[4..];
        prop_assert!(CollectorMessage::decode(&body[..at.index(body.len())]).is_err());
        prop_assert!(CollectorMessage::decode(&[body, &[0]].concat()).is_err(), "a byte too many");
    }

    #[test]
    fn a_partition_beyond_its_topics_count_is_refused(partition in 0u32..100, count in 0u32..100) {
        let source = TopicPartition { topic: TopicName::parse("t").unwrap(), partition: Partition::new(partition).unwrap() };
        let mut bytes = Vec::new();
        AgentMessage::Open(OpenLane { lane: Lane(0), source, topic_id: TopicId::UNKNOWN, partition_count: count, until: None }).encode(&mut bytes);
        prop_assert_eq!(AgentMessage::decode(&bytes[4..]).is_ok(), partition < count);
    }
}

#[test]
fn a_frame_above_the_sessions_limit_is_refused_before_it_is_opened() {
    let value = vec![0; MAX_RAW + 1];
    let record = OwnedRecord { hole: 0, timestamp: 0, key: None, value: Some(value), headers: Vec::new() };
    let error = Frame::decode(encode(&[(1, 0, vec![record])]).bytes, MAX_RAW).unwrap_err();
    assert!(error.to_string().starts_with("raw length is 10485"), "{error}");
}

#[test]
fn a_message_length_above_the_limit_is_refused_at_once() {
    let mut buffer = MessageBuffer::default();
    buffer.push(&(limits::MAX_MESSAGE_BYTES as u32 + 1).to_be_bytes());
    assert_eq!(buffer.take().unwrap_err().to_string(), "message length is 65537, at most 65536 is allowed");
}

#[test]
fn the_largest_ack_fits_a_message() {
    let ack = CollectorMessage::Ack(vec![(Lane(u32::MAX), NextOffset::new(i64::MAX as u64).unwrap()); limits::MAX_ACKS]);
    let mut bytes = Vec::new();
    ack.encode(&mut bytes);
    assert!(bytes.len() - 4 <= limits::MAX_MESSAGE_BYTES, "{}", bytes.len());
    assert_eq!(CollectorMessage::decode(&bytes[4..]).unwrap(), ack);
}
