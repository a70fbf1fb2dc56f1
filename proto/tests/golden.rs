//! Every message and record of the protocol against bytes that are kept in `fixtures/v1.txt`, one `name = hexadecimal` a line.
//!
//! A change of these bytes is a change of the protocol: it adds a fixture file and says in the changelog which peers still work. A new message
//! adds a line: run with `SPILLWAY_BLESS=1` to write it, and read what it wrote.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::fmt::Write;

use bytes::Bytes;
use spillway_proto::compress::{Compressor, Decompressor};
use spillway_proto::deferred::Deferred;
use spillway_proto::dictionary::{Dictionary, DictionaryId};
use spillway_proto::frame::{EncodedFrame, Frame, FrameBuilder, GapReason, SectionKind};
use spillway_proto::message::{
    AgentMessage, CollectorMessage, Hello, Hold, HoldReason, MessageBuffer, OpenLane, ResumePoint, Settings, SettingsOutcome,
    SettingsReport, Welcome, revision,
};
use spillway_proto::progress::{Position, ProgressKey, SessionMarker};
use spillway_proto::record::RecordWriter;
use spillway_proto::{Lane, NextOffset, Offset, Partition, SiteName, TopicId, TopicName, TopicPartition};

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/v1.txt");

fn next(value: u64) -> NextOffset {
    NextOffset::new(value).unwrap()
}

fn source() -> TopicPartition {
    TopicPartition { topic: TopicName::parse("sensors.v1").unwrap(), partition: Partition::new(3).unwrap() }
}

fn site() -> SiteName {
    SiteName::parse("plant-7").unwrap()
}

fn agent_messages() -> Vec<(&'static str, AgentMessage)> {
    let report =
        SettingsReport { revision: revision("[link]\n"), outcome: SettingsOutcome::RolledBack, detail: "no contact for 90 s".into() };
    let open = OpenLane { lane: Lane(300), source: source(), topic_id: TopicId([0xab; 16]), partition_count: 8, until: None };
    vec![
        ("agent.hello", AgentMessage::Hello(Hello { min_version: 1, max_version: 1, software: "0.1.0".into() })),
        ("agent.open", AgentMessage::Open(open)),
        ("agent.close_lane", AgentMessage::CloseLane(Lane(300))),
        ("agent.flush", AgentMessage::Flush),
        ("agent.settings_report", AgentMessage::SettingsReport(report)),
        ("agent.dictionary", AgentMessage::Dictionary(Dictionary::new(b"press-machine-quality".to_vec().into()).unwrap())),
        ("agent.ignorable", AgentMessage::Ignored(0x7f)),
    ]
}

fn collector_messages() -> Vec<(&'static str, CollectorMessage)> {
    let welcome = Welcome { version: 1, software: "0.1.0".into(), max_frame_raw_bytes: 16 << 20, max_in_flight_bytes: 16 << 20 };
    let recreated = ResumePoint::Recreated { previous: TopicId([0xcd; 16]), next: next(1005) };
    let text = "[link]\nrate_max = \"512kbit\"\n";
    let settings = Settings { revision: revision(text), text: text.into() };
    let hold = Hold { lane: Lane(2), next: next(77), reason: HoldReason::RecordTooLarge, detail: "raise max.message.bytes".into() };
    vec![
        ("collector.welcome", CollectorMessage::Welcome(welcome)),
        ("collector.resume_fresh", CollectorMessage::Resume { lane: Lane(1), resume: ResumePoint::Fresh }),
        ("collector.resume_at", CollectorMessage::Resume { lane: Lane(1), resume: ResumePoint::At(next(1 << 40)) }),
        ("collector.resume_recreated", CollectorMessage::Resume { lane: Lane(1), resume: recreated }),
        ("collector.ack", CollectorMessage::Ack(vec![(Lane(1), next(10)), (Lane(300), next(1 << 40))])),
        ("collector.hold", CollectorMessage::Hold(hold)),
        ("collector.retry", CollectorMessage::Retry(Lane(2))),
        ("collector.settings", CollectorMessage::Settings(settings)),
        ("collector.settings_seen", CollectorMessage::SettingsSeen(revision(""))),
        ("collector.want_dictionary", CollectorMessage::WantDictionary(DictionaryId(0x0102_abcd))),
        ("collector.ignorable", CollectorMessage::Ignored(0xc0)),
    ]
}

/// Two lanes with a hole, null and empty values, headers; a gap; a start; an empty section that covers a hole.
fn frame(value: &[u8]) -> EncodedFrame {
    let mut builder = FrameBuilder::new();
    let mut records = RecordWriter::new(next(100));
    let headers: [(&str, Option<&[u8]>); 2] = [("trace", Some(b"\x00\xff")), ("trace", None)];
    let at = |offset| Offset::new(offset).unwrap();
    assert!(records.push(at(102), 1_700_000_000_000, Some(b"k"), Some(value), headers.into_iter()));
    assert!(records.push(at(103), 1_699_999_999_999, None, None, [].into_iter()));
    assert!(records.push(at(104), -1, Some(b""), Some(b""), [].into_iter()));
    builder.start(Lane(1), next(100));
    builder.data(Lane(1), records);
    builder.gap(Lane(300), next(5), next(9), GapReason::Retention);
    let mut hole = RecordWriter::new(next(9));
    hole.cover(next(11));
    builder.data(Lane(300), hole);
    builder.encode(&mut Compressor::new(3).unwrap())
}

/// What an agent says whose spill was full, or damaged.
fn spill_gaps() -> EncodedFrame {
    let mut builder = FrameBuilder::new();
    builder.gap(Lane(1), next(5), next(9), GapReason::Dropped);
    builder.gap(Lane(2), next(70), next(1 << 40), GapReason::Damaged);
    builder.encode(&mut Compressor::new(3).unwrap())
}

/// What an agent says that has records older than their time to live: in the middle of a lane, between two parts of its data.
fn expired_gap() -> EncodedFrame {
    let part = |first: u64| {
        let mut records = RecordWriter::new(next(first));
        assert!(records.push(Offset::new(first).unwrap(), 1_700_000_000_000, None, Some(b"v"), [].into_iter()));
        records
    };
    let mut builder = FrameBuilder::new();
    builder.data(Lane(1), part(5));
    builder.gap(Lane(1), next(6), next(9), GapReason::Expired);
    builder.data(Lane(1), part(9));
    builder.encode(&mut Compressor::new(3).unwrap())
}

fn all() -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    let mut add = |name: &str, bytes: Vec<u8>| assert!(all.insert(name.to_owned(), bytes).is_none(), "{name} twice");
    for (name, message) in agent_messages() {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        add(name, bytes);
    }
    for (name, message) in collector_messages() {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        add(name, bytes);
    }
    add("frame.stored", frame(b"v").bytes.to_vec());
    add("frame.zstd", frame(&b"temperature ".repeat(40)).bytes.to_vec());
    add("frame.spill_gaps", spill_gaps().bytes.to_vec());
    add("frame.expired_gap", expired_gap().bytes.to_vec());
    add("progress.position.key", ProgressKey::Position { site: site(), source: source() }.encode());
    add("progress.position.value", Position { topic_id: TopicId([0xab; 16]), next: next(1005), deferred: Deferred::new() }.encode());
    add("progress.session.key", ProgressKey::Session { site: site() }.encode());
    let marker = SessionMarker { marker: [7; 16], opened_ms: 1_700_000_000_000, collector: "c1".into() };
    add("progress.session.value", marker.encode());
    all
}

#[test]
fn every_fixture_has_the_bytes_it_always_had() {
    let all = all();
    if std::env::var_os("SPILLWAY_BLESS").is_some() {
        let mut text = String::new();
        for (name, bytes) in &all {
            writeln!(text, "{name} = {}", hex(bytes)).unwrap();
        }
        std::fs::write(PATH, text).unwrap();
    }
    let kept = fixtures();
    assert_eq!(kept.keys().collect::<Vec<_>>(), all.keys().collect::<Vec<_>>(), "names");
    for (name, bytes) in all {
        // Another zstd may compress otherwise; what it must do is read the kept bytes, below.
        if name != "frame.zstd" {
            assert_eq!(hex(&bytes), hex(&kept[&name]), "{name}");
        }
    }
}

#[test]
fn every_fixture_is_read_as_what_it_was() {
    let kept = fixtures();
    for (name, message) in agent_messages() {
        assert_eq!(AgentMessage::decode(&body(&kept[name])).unwrap(), message, "{name}");
    }
    for (name, message) in collector_messages() {
        assert_eq!(CollectorMessage::decode(&body(&kept[name])).unwrap(), message, "{name}");
    }
    for (name, value) in [("frame.stored", b"v".to_vec()), ("frame.zstd", b"temperature ".repeat(40))] {
        let read = Frame::decode(Bytes::from(kept[name].clone()), 4096).unwrap();
        assert_eq!(read.sections(), frame(&value).sections, "{name}");
        let raw = read.open(&mut Decompressor::new().unwrap()).unwrap();
        let records: Vec<_> = raw.records(&read, 1).collect::<Result<_, _>>().unwrap();
        assert_eq!(records.iter().map(|record| record.offset.value()).collect::<Vec<_>>(), [102, 103, 104]);
        assert_eq!(records[0].value, Some(&value[..]));
        assert_eq!(records[0].headers.iter().collect::<Vec<_>>(), [("trace", Some(&b"\x00\xff"[..])), ("trace", None)]);
        assert_eq!((records[1].timestamp, records[1].key, records[1].value), (1_699_999_999_999, None, None));
        assert_eq!((records[2].timestamp, records[2].key, records[2].value), (-1, Some(&b""[..]), Some(&b""[..])));
        assert!(matches!(read.sections()[3].kind, SectionKind::Data { records: 0, raw_length: 0, .. }));
        assert_eq!(raw.records(&read, 3).count(), 0);
    }
    let key = ProgressKey::decode(&kept["progress.position.key"]).unwrap();
    assert_eq!(key, ProgressKey::Position { site: site(), source: source() });
    let value = Position::decode(&kept["progress.position.value"]).unwrap();
    assert_eq!(value, Position { topic_id: TopicId([0xab; 16]), next: next(1005), deferred: Deferred::new() });
    assert_eq!(ProgressKey::decode(&kept["progress.session.key"]).unwrap(), ProgressKey::Session { site: site() });
    assert_eq!(SessionMarker::decode(&kept["progress.session.value"]).unwrap().collector, "c1");
}

fn body(framed: &[u8]) -> Vec<u8> {
    let mut buffer = MessageBuffer::default();
    // Byte by byte, as a slow link delivers it.
    for byte in framed {
        buffer.push(&[*byte]);
        if let Some(message) = buffer.take().unwrap() {
            return message.to_vec();
        }
    }
    panic!("no whole message in {}", hex(framed))
}

fn fixtures() -> BTreeMap<String, Vec<u8>> {
    let text = std::fs::read_to_string(PATH).unwrap();
    text.lines()
        .map(|line| {
            let (name, hex) = line.split_once(" = ").unwrap();
            let bytes = hex.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap());
            (name.to_owned(), bytes.collect())
        })
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}
