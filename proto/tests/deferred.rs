//! What version 3 of the protocol adds, deferred ranges, against bytes that are kept in `fixtures/v3.txt`, one `name = hexadecimal` a line.
#![expect(clippy::unwrap_used, reason = "tests")]

use bytes::Bytes;
use spillway_proto::codec::DecodeError;
use spillway_proto::compress::Compressor;
use spillway_proto::deferred::{Deferred, Range};
use spillway_proto::frame::{EncodedFrame, Frame, FrameBuilder, GapReason};
use spillway_proto::message::{AgentMessage, CollectorMessage, OpenLane};
use spillway_proto::progress::Position;
use spillway_proto::{Lane, NextOffset, Partition, TopicId, TopicName, TopicPartition};

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/v3.txt");

fn next(value: u64) -> NextOffset {
    NextOffset::new(value).unwrap()
}

fn deferred() -> Deferred {
    let mut deferred = Deferred::new();
    for (first, end) in [(100, 300), (300, 1 << 40)] {
        deferred.defer(Range { first: next(first), end: next(end) }).unwrap();
    }
    deferred
}

fn open() -> AgentMessage {
    let source = TopicPartition { topic: TopicName::parse("sensors.v1").unwrap(), partition: Partition::new(3).unwrap() };
    AgentMessage::Open(OpenLane { lane: Lane(300), source, topic_id: TopicId([0xab; 16]), partition_count: 8, until: Some(next(300)) })
}

fn told() -> CollectorMessage {
    CollectorMessage::Deferred { lane: Lane(1), deferred: deferred() }
}

fn frame() -> EncodedFrame {
    let mut builder = FrameBuilder::new();
    builder.gap(Lane(1), next(300), next(1 << 40), GapReason::Deferred);
    builder.encode(&mut Compressor::new(3).unwrap())
}

fn position() -> Position {
    Position { topic_id: TopicId([0xab; 16]), next: next(1 << 41), deferred: deferred() }
}

/// As [`told`], of any ranges that fit.
fn fixture(name: &str) -> Vec<u8> {
    let text = std::fs::read_to_string(PATH).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = ")).unwrap();
    line.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

#[test]
fn every_fixture_has_the_bytes_it_always_had_and_is_read_as_what_it_was() {
    let (mut opened, mut tells) = (Vec::new(), Vec::new());
    open().encode(&mut opened);
    told().encode(&mut tells);
    let all = [
        ("agent.open_late", opened),
        ("collector.deferred", tells),
        ("frame.deferral", frame().bytes.to_vec()),
        ("progress.position.value", position().encode()),
    ];
    for (name, bytes) in all {
        let hex = bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(bytes, fixture(name), "{name} = {hex}");
    }
    assert_eq!(AgentMessage::decode(&fixture("agent.open_late")[4..]).unwrap(), open());
    assert_eq!(CollectorMessage::decode(&fixture("collector.deferred")[4..]).unwrap(), told());
    assert_eq!(Frame::decode(Bytes::from(fixture("frame.deferral")), 0).unwrap().sections(), frame().sections);
    assert_eq!(Position::decode(&fixture("progress.position.value")).unwrap(), position());
}

/// A collector without deferred ranges reads version 0 only: one that knew less would take the position for all that there is.
#[test]
fn a_position_is_of_version_1_only_while_something_is_deferred() {
    assert_eq!(position().encode()[..2], [0, 1]);
    let plain = Position { deferred: Deferred::new(), ..position() };
    assert_eq!(plain.encode()[..2], [0, 0]);
    assert_eq!(Position::decode(&plain.encode()).unwrap(), plain);
    let (mut empty, mut above) = (plain.encode(), position().encode());
    empty[1] = 1;
    empty.push(0);
    above[18..26].copy_from_slice(&(1i64 << 39).to_be_bytes());
    for wrong in [empty, above, vec![0, 2]] {
        assert!(matches!(Position::decode(&wrong), Err(DecodeError::Mismatch { .. } | DecodeError::Unknown { .. })), "{wrong:?}");
    }
}
