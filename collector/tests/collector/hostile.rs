//! A site whose certificate is valid and whose behaviour is not: what it costs the collector, what it does to other sites, and how it ends.
//!
//! Each attack runs against a collector in a process of its own, with a good site beside it. After each, the good site's records are committed,
//! the attacker was closed with the code that the attack deserves, and the process never had more memory than `docs/operations.md` says.

use std::time::Duration;

use quinn::{Connection, SendStream};
use spillway_proto::codec::{put_bytes, put_varint};
use spillway_proto::compress::Compressor;
use spillway_proto::frame::EncodedFrame;
use spillway_proto::message::AgentMessage;
use spillway_proto::{CloseCode, Lane, limits};

use crate::support::agent::{close_code, data, frame, hello, next, open_lane};
use crate::support::process::Process;
use crate::support::{Centre, Folder, PATIENCE, TestAgent, log, noise};

/// What one site may cost the collector at its worst, as `docs/operations.md` says for the default limits.
const SITE_MEMORY_MAX_BYTES: u64 = 160 * 1024 * 1024;

/// Streams that the collector lets a site hold open (`MAX_FRAME_STREAMS`).
const FRAME_STREAMS: usize = 64;

struct Siege {
    _folder: Folder,
    centre: Centre,
    collector: Process,
    good: TestAgent,
    evil: TestAgent,
    /// Offsets of the good site's records.
    written: u64,
    before: u64,
}

impl Siege {
    /// A good site that has records at the centre, and an evil one with lane 0 at 0.
    async fn begin() -> Self {
        log();
        let (folder, centre) = (Folder::new(), Centre::embedded().await);
        let collector = Process::start(&folder, &centre.bootstrap, "");
        let mut good = TestAgent::connect(&folder, "good", collector.address).await;
        good.open_fresh(0, "t").await;
        let mut evil = TestAgent::connect(&folder, "evil", collector.address).await;
        evil.open_fresh(0, "t").await;
        evil.acked(0, 0).await;
        let mut siege = Self { _folder: folder, centre, collector, good, evil, written: 0, before: 0 };
        siege.good_site_goes_on().await;
        siege.collector.reset_peak();
        siege.before = siege.collector.memory("VmRSS");
        siege
    }

    async fn good_site_goes_on(&mut self) {
        self.good.frame(&data(0, self.written, self.written + 10)).await;
        self.written += 10;
        self.good.acked(0, self.written).await;
    }

    /// The attacker is closed with `code`; the good site noticed nothing; memory stayed within the bound.
    async fn ends_with(mut self, attack: &str, code: CloseCode) {
        self.good_site_goes_on().await;
        let closed = self.evil.closed().await;
        println!("{attack}: {closed}");
        assert_eq!(closed, code, "{attack}");
        self.good_site_goes_on().await;
        assert_eq!(self.centre.values("good.t").await.len() as u64, self.written);
        let peak = self.collector.memory("VmHWM").saturating_sub(self.before);
        println!("{attack}: at most {:.1} MiB more", peak as f64 / 1_048_576.0);
        assert!(peak <= SITE_MEMORY_MAX_BYTES, "{attack}: {peak} bytes");
    }
}

/// A frame's stream up to the frame.
fn stream_of(seq: u64, frame: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_varint(&mut bytes, 0);
    put_varint(&mut bytes, seq);
    bytes.extend_from_slice(frame);
    bytes
}

/// A frame with one data section of lane 0 that says of its zstd body whatever one likes.
fn claiming(records: u64, raw_length: u64, body: &[u8]) -> Vec<u8> {
    let mut frame = vec![1, 1, 1, 0, 0];
    for number in [0, records, records, raw_length] {
        put_varint(&mut frame, number);
    }
    put_bytes(&mut frame, body);
    let crc = crc32c::crc32c(&frame);
    frame.extend_from_slice(&crc.to_le_bytes());
    frame
}

/// Writes the same bytes until the collector has enough.
async fn endlessly(mut stream: SendStream, bytes: Vec<u8>) {
    while stream.write_all(&bytes).await.is_ok() {}
}

/// QUIC gives no more of them than the collector allows; the others wait for as long as these stay.
async fn as_many_streams_as_there_may_be(connection: &Connection) -> Vec<SendStream> {
    let mut open = Vec::new();
    for _ in 0..10_000 {
        let Ok(stream) = tokio::time::timeout(Duration::from_secs(1), connection.open_uni()).await else { break };
        open.push(stream.unwrap());
    }
    assert!((FRAME_STREAMS / 2..=FRAME_STREAMS).contains(&open.len()), "{} streams are open", open.len());
    open
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endless_frame_ends_at_the_limit() {
    let siege = Siege::begin().await;
    let mut stream = siege.evil.connection.open_uni().await.unwrap();
    stream.write_all(&stream_of(1, &[])).await.unwrap();
    let writing = tokio::spawn(endlessly(stream, noise(100_000)));
    siege.ends_with("an endless frame", CloseCode::LimitExceeded).await;
    writing.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn many_endless_frames_end_at_the_limit() {
    let siege = Siege::begin().await;
    // All are opened before the first one writes: soon after that the connection is closed.
    let streams = as_many_streams_as_there_may_be(&siege.evil.connection).await;
    let endless = |(stream, seq)| tokio::spawn(endlessly(stream, stream_of(seq, &noise(50_000))));
    let writing: Vec<_> = streams.into_iter().zip(1..).map(endless).collect();
    siege.ends_with("as many endless frames as there may be", CloseCode::LimitExceeded).await;
    for writing in writing {
        writing.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_oversized_message_ends_before_it_has_arrived() {
    let mut siege = Siege::begin().await;
    siege.evil.send.write_all(&(limits::MAX_MESSAGE_BYTES as u32 + 1).to_be_bytes()).await.unwrap();
    siege.ends_with("an oversized message", CloseCode::LimitExceeded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_frame_is_invalid() {
    let siege = Siege::begin().await;
    let good = data(0, 0, 100).bytes;
    siege.evil.stream(&stream_of(1, &good[..good.len() / 2])).await;
    siege.ends_with("a truncated frame", CloseCode::FrameInvalid).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_after_the_end_of_a_frame_are_invalid() {
    let siege = Siege::begin().await;
    siege.evil.stream(&stream_of(1, &[data(0, 0, 100).bytes.as_ref(), b"more"].concat())).await;
    siege.ends_with("bytes after the end", CloseCode::FrameInvalid).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_that_is_taken_back_breaks_the_protocol() {
    let siege = Siege::begin().await;
    let mut stream = siege.evil.connection.open_uni().await.unwrap();
    stream.write_all(&stream_of(1, &[1, 1])).await.unwrap();
    stream.reset(7u32.into()).unwrap();
    siege.ends_with("a stream reset", CloseCode::ProtocolViolation).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bomb_that_says_so_is_above_the_limit() {
    let siege = Siege::begin().await;
    let (_, body) = Compressor::new(3).unwrap().compress(&[], &vec![0; 256 << 20]);
    siege.evil.stream(&stream_of(1, &claiming(1, 256 << 20, &body))).await;
    siege.ends_with("a bomb of 256 MiB", CloseCode::LimitExceeded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bomb_that_lies_is_stopped_where_it_said_it_would_end() {
    let siege = Siege::begin().await;
    let (_, body) = Compressor::new(3).unwrap().compress(&[], &vec![0; 256 << 20]);
    siege.evil.stream(&stream_of(1, &claiming(1, 1 << 20, &body))).await;
    siege.ends_with("a bomb of 256 MiB that says 1 MiB", CloseCode::FrameInvalid).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_body_that_claims_to_be_large_is_invalid() {
    let siege = Siege::begin().await;
    let (_, body) = Compressor::new(3).unwrap().compress(&[], &[0; 1000]);
    for seq in 1..100 {
        siege.evil.stream(&stream_of(seq, &claiming(1, 16 << 20, &body))).await;
    }
    siege.ends_with("bodies that claim 16 MiB", CloseCode::FrameInvalid).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_streams_are_never_open_together() {
    let mut siege = Siege::begin().await;
    let mut open = as_many_streams_as_there_may_be(&siege.evil.connection).await;
    for (stream, seq) in open.iter_mut().zip(1..) {
        stream.write_all(&stream_of(seq, &[])).await.unwrap();
    }
    siege.good_site_goes_on().await;
    let first = open.first_mut().unwrap();
    first.finish().unwrap();
    siege.ends_with("10,000 streams", CloseCode::FrameInvalid).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_that_are_missing_are_a_hole() {
    let siege = Siege::begin().await;
    siege.evil.frame_as(1, &data(0, 1_000_000, 1_000_001)).await;
    siege.ends_with("wrong offsets", CloseCode::OffsetHole).await;
}

/// A frame of as many sections as there may be, all but one of lanes that nobody knows; the last one waits for what never comes.
fn many_sections() -> EncodedFrame {
    frame(|frame| {
        for _ in 1..limits::MAX_SECTIONS {
            frame.start(Lane(99), next(0));
        }
        frame.data(Lane(0), crate::support::agent::records(5, 6));
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn sections_without_end_wait_outside() {
    let mut siege = Siege::begin().await;
    let (connection, bytes) = (siege.evil.connection.clone(), many_sections().bytes);
    // Frame 1 never comes, so all of these wait for it.
    let flood = tokio::spawn(async move {
        for seq in 2.. {
            let Ok(mut stream) = connection.open_uni().await else { return seq };
            let _closed = stream.write_all(&stream_of(seq, &bytes)).await;
            let _closed = stream.finish();
        }
        0
    });
    for _ in 0..20 {
        siege.good_site_goes_on().await;
    }
    siege.evil.say(AgentMessage::Hello(hello())).await;
    siege.ends_with("frames of 4096 sections", CloseCode::ProtocolViolation).await;
    assert!(flood.await.unwrap() > 64, "some were held, the rest waited");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_messages_costs_nothing() {
    let mut siege = Siege::begin().await;
    let mut flood = Vec::new();
    for _ in 0..1000 {
        AgentMessage::Flush.encode(&mut flood);
        flood.extend_from_slice(&[0, 0, 0, 1, 0x7f]);
    }
    for _ in 0..500 {
        siege.evil.send.write_all(&flood).await.unwrap();
    }
    siege.evil.say(AgentMessage::Hello(hello())).await;
    siege.ends_with("a million messages", CloseCode::ProtocolViolation).await;
}

/// Announces lanes until the collector has enough, and reads nothing of what it answers.
async fn announce_endlessly(mut send: SendStream, topic: String) {
    for lane in 1.. {
        let mut bytes = Vec::new();
        AgentMessage::Open(open_lane(lane, &topic, lane % 100, 100)).encode(&mut bytes);
        if send.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_nobody_reads_end_at_the_limit() {
    let Siege { _folder, centre, collector, good, evil, written, before } = Siege::begin().await;
    let TestAgent { connection, send, .. } = evil;
    // Each is held at once: its remote name would be too long.
    let flood = tokio::spawn(announce_endlessly(send, "x".repeat(limits::MAX_TOPIC_NAME)));
    let closed = tokio::time::timeout(PATIENCE, connection.closed()).await.expect("no end");
    assert_eq!(close_code(&closed), CloseCode::LimitExceeded);
    flood.await.unwrap();
    let evil = TestAgent::connect(&_folder, "evil", collector.address).await;
    let mut siege = Siege { _folder, centre, collector, good, evil, written, before };
    siege.evil.say(AgentMessage::Hello(hello())).await;
    siege.ends_with("answers that nobody reads", CloseCode::ProtocolViolation).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_frame_stops_nobody() {
    let mut siege = Siege::begin().await;
    let bytes = stream_of(1, &data(0, 0, 100).bytes);
    let mut stream = siege.evil.connection.open_uni().await.unwrap();
    for byte in &bytes[..20] {
        stream.write_all(&[*byte]).await.unwrap();
        siege.good_site_goes_on().await;
    }
    // However slowly it comes, it counts once it is whole.
    stream.write_all(&bytes[20..]).await.unwrap();
    stream.finish().unwrap();
    siege.evil.acked(0, 100).await;
    siege.evil.say(AgentMessage::Hello(hello())).await;
    siege.ends_with("a slow frame", CloseCode::ProtocolViolation).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hello_that_never_ends_is_not_waited_for() {
    let mut siege = Siege::begin().await;
    let (_client, connection) = TestAgent::dial(&siege._folder, "slow", siege.collector.address).await;
    let connection = connection.unwrap();
    let (mut send, _recv) = connection.open_bi().await.unwrap();
    let mut bytes = Vec::new();
    AgentMessage::Hello(hello()).encode(&mut bytes);
    send.write_all(&bytes[..bytes.len() - 1]).await.unwrap();
    let closed = tokio::time::timeout(PATIENCE, connection.closed()).await.expect("no end");
    assert_eq!(close_code(&closed), CloseCode::HandshakeTimeout);
    siege.evil.say(AgentMessage::Hello(hello())).await;
    siege.ends_with("a hello that never ends", CloseCode::ProtocolViolation).await;
}
