//! Small frames with history: restored, whatever overtakes what; asked for without where they do not fit.

use std::time::{Duration, Instant};

use bytes::Bytes;
use spillway_proto::frame::{EncodedFrame, FrameBuilder};
use spillway_proto::history::Shortener;
use spillway_proto::message::{CollectorMessage, HISTORY_SINCE, Hello, STREAM_FRAME_AFTER};
use spillway_proto::record::RecordWriter;
use spillway_proto::{CloseCode, FrameSeq, Lane};

use crate::support::agent::{frame, hello, next, push};
use crate::support::{Centre, Collector, Folder, TestAgent};

const PER_FRAME: u64 = 4;

fn value(offset: u64) -> String {
    format!(r#"{{"job":"6f1c2b7a-9d3e-4f50-8a61-{:012x}","step":{offset},"state":"running"}}"#, offset / 40)
}

/// The `n`th frame's records.
fn events(n: u64) -> EncodedFrame {
    let mut writer = RecordWriter::new(next(n * PER_FRAME));
    for offset in n * PER_FRAME..(n + 1) * PER_FRAME {
        assert!(push(&mut writer, offset, None, Some(value(offset).as_bytes())));
    }
    frame(|frame: &mut FrameBuilder| frame.data(Lane(0), writer))
}

fn newer(version: u8) -> Hello {
    Hello { max_version: version, ..hello() }
}

/// Frames numbered from 0, which is the lane's beginning; each is shortened as if all before had arrived.
struct Shortened {
    shortener: Shortener,
    begin: Instant,
    seq: u64,
}

impl Shortened {
    fn new() -> Self {
        let mut shortener = Shortener::new().unwrap();
        // The lane's beginning.
        shortener.arrived(FrameSeq(0));
        Self { shortener, begin: Instant::now(), seq: 1 }
    }

    /// The next frame as a stream: its number, and what stands behind type and number if it is shortened.
    fn next(&mut self, frame: &EncodedFrame) -> (u64, Option<Bytes>) {
        let seq = self.seq;
        self.seq += 1;
        let now = self.begin + Duration::from_secs(seq);
        let shortened = self.shortener.send(FrameSeq(seq), false, &frame.bytes, now, |_| None);
        self.shortener.arrived(FrameSeq(seq));
        (seq, shortened)
    }
}

async fn stream_after(agent: &TestAgent, seq: u64, bytes: &[u8]) {
    assert!(seq < 128, "one byte");
    agent.stream(&[&[STREAM_FRAME_AFTER as u8, seq as u8][..], bytes].concat()).await;
}

async fn begin(version: u8) -> (Folder, Centre, Collector, TestAgent) {
    let (folder, centre) = (Folder::new(), Centre::embedded().await);
    let collector = Collector::start(&folder, &centre.bootstrap, "").await;
    let mut agent = TestAgent::try_connect(&folder, "a", collector.address, newer(version)).await.unwrap();
    agent.open_fresh(0, "t").await;
    (folder, centre, collector, agent)
}

async fn assert_exact(centre: &Centre, frames: u64) {
    assert_eq!(centre.values("a.t").await, (0..frames * PER_FRAME).map(value).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_with_history_are_restored_although_the_last_comes_first() {
    let (_folder, centre, collector, mut agent) = begin(HISTORY_SINCE).await;
    let (mut shortened, mut streams, mut with_history) = (Shortened::new(), Vec::new(), 0);
    for n in 0..20 {
        let frame = events(n);
        let (seq, after) = shortened.next(&frame);
        with_history += usize::from(after.is_some());
        streams.push((seq, frame, after));
    }
    assert_eq!(with_history, 19);
    // QUIC has acknowledged what the collector has not looked at: here it comes the other way round.
    for (seq, frame, after) in streams.iter().rev() {
        match after {
            Some(bytes) => stream_after(&agent, *seq, bytes).await,
            None => agent.frame_as(*seq, frame).await,
        }
    }
    agent.acked(0, 20 * PER_FRAME).await;
    assert_exact(&centre, 20).await;
    assert_eq!(collector.metric("spillway_frames_again_total").await, 0.0);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_that_does_not_fit_its_history_is_asked_for_and_the_session_goes_on() {
    let (_folder, centre, collector, mut agent) = begin(HISTORY_SINCE).await;
    let mut shortened = Shortened::new();
    let mut asked = 0;
    for n in 0..20 {
        let frame = events(n);
        // The agent's history has another frame once, as it would by a bug.
        let (seq, after) = if n == 5 { shortened.next(&events(50)) } else { shortened.next(&frame) };
        match after.filter(|_| n != 5) {
            Some(bytes) => stream_after(&agent, seq, &bytes).await,
            None => agent.frame_as(seq, &frame).await,
        }
        let question = loop {
            match agent.message().await.unwrap() {
                CollectorMessage::FrameAgain(seq) => break Some(seq),
                CollectorMessage::Ack(acks) if acks == [(Lane(0), next((n + 1) * PER_FRAME))] => break None,
                CollectorMessage::Ack(_) => {}
                other => panic!("neither a question nor an ack but {other:?}"),
            }
        };
        if let Some(asked_for) = question {
            assert_eq!(asked_for, FrameSeq(seq));
            asked += 1;
            agent.frame_as(seq, &frame).await;
            agent.acked(0, (n + 1) * PER_FRAME).await;
        }
    }
    assert_eq!(asked, 14, "all whose history holds the frame that differs");
    assert_exact(&centre, 20).await;
    assert_eq!(collector.metric("spillway_frames_again_total").await, 14.0);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn history_in_an_older_session_breaks_the_protocol() {
    let (_folder, _centre, collector, mut agent) = begin(HISTORY_SINCE - 1).await;
    let mut shortened = Shortened::new();
    let (seq, _) = shortened.next(&events(0));
    agent.frame_as(seq, &events(0)).await;
    let (seq, after) = shortened.next(&events(1));
    stream_after(&agent, seq, &after.unwrap()).await;
    assert_eq!(agent.closed().await, CloseCode::ProtocolViolation);
    collector.stop().await;
}
