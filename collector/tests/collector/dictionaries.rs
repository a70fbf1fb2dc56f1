//! Frames that name a dictionary: it is asked for where it is missing, kept for later sessions, and each site has its own.

use std::sync::Arc;

use spillway_proto::compress::{COLUMNS_LEVEL, Codec, Compressor};
use spillway_proto::dictionary::Dictionary;
use spillway_proto::frame::{EncodedFrame, Frame, FrameBuilder};
use spillway_proto::message::{AgentMessage, CollectorMessage, Hello, ResumePoint};
use spillway_proto::record::RecordWriter;
use spillway_proto::{CloseCode, Lane};

use crate::support::agent::{hello, next, open_lane, push};
use crate::support::{Centre, Collector, Folder, TestAgent};

fn value(offset: u64) -> String {
    format!(
        r#"{{"device":"press-{:02}","seq":{offset},"temperature":{}.{:02},"quality":"good"}}"#,
        offset % 48,
        offset * 31 % 90,
        offset * 17 % 100
    )
}

fn newer() -> Hello {
    Hello { max_version: 2, ..hello() }
}

/// Compresses until it has a dictionary.
struct Trained {
    compressor: Compressor,
    dictionary: Arc<Dictionary>,
}

impl Trained {
    fn new() -> Self {
        let mut compressor = Compressor::new(COLUMNS_LEVEL).unwrap();
        compressor.allow_columns(true);
        compressor.allow_dictionaries(true);
        let dictionary = (0..10_000).find_map(|n| {
            encode(&mut compressor, n * 8, n * 8 + 8);
            compressor.take_dictionary()
        });
        Self { compressor, dictionary: dictionary.unwrap() }
    }

    fn frame(&mut self, first: u64, end: u64) -> EncodedFrame {
        let frame = encode(&mut self.compressor, first, end);
        let read = Frame::decode(frame.bytes.clone(), 1 << 20).unwrap();
        assert_eq!((read.codec(), read.missing_dictionary()), (Codec::ColumnsWithDictionary, Some(self.dictionary.id())));
        frame
    }
}

fn encode(compressor: &mut Compressor, first: u64, end: u64) -> EncodedFrame {
    let mut writer = RecordWriter::new(next(first));
    for offset in first..end {
        assert!(push(&mut writer, offset, Some(b"k"), Some(value(offset).as_bytes())));
    }
    let mut builder = FrameBuilder::new();
    builder.data(Lane(0), writer);
    builder.encode(compressor)
}

async fn asked(agent: &mut TestAgent) -> CollectorMessage {
    loop {
        match agent.message().await.unwrap() {
            CollectorMessage::Ack(_) => {}
            other => return other,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dictionary_is_asked_for_once_and_each_site_has_its_own() {
    let (folder, centre) = (Folder::new(), Centre::embedded().await);
    let collector = Collector::start(&folder, &centre.bootstrap, "").await;
    let mut trained = Trained::new();
    let want = CollectorMessage::WantDictionary(trained.dictionary.id());

    let mut agent = TestAgent::try_connect(&folder, "a", collector.address, newer()).await.unwrap();
    agent.open_fresh(0, "t").await;
    for n in 0..5 {
        agent.frame(&trained.frame(n * 10, n * 10 + 10)).await;
    }
    assert_eq!(asked(&mut agent).await, want);
    agent.say(AgentMessage::Dictionary((*trained.dictionary).clone())).await;
    // No other question comes: all five waited for one answer.
    agent.acked(0, 50).await;
    drop(agent);

    // A later session of the site finds it here.
    let mut agent = TestAgent::try_connect(&folder, "a", collector.address, newer()).await.unwrap();
    assert_eq!(agent.open(open_lane(0, "t", 0, 1)).await, ResumePoint::At(next(50)));
    agent.frame(&trained.frame(50, 60)).await;
    agent.acked(0, 60).await;
    assert_eq!(centre.values("a.t").await, (0..60).map(value).collect::<Vec<_>>());

    // Another site does not.
    let mut other = TestAgent::try_connect(&folder, "b", collector.address, newer()).await.unwrap();
    other.open_fresh(0, "t").await;
    other.frame(&trained.frame(0, 10)).await;
    assert_eq!(asked(&mut other).await, want);
    // What is no answer to the question leaves the frame where it is.
    let wrong = Dictionary::new(b"another one".to_vec().into()).unwrap();
    other.say(AgentMessage::Dictionary(wrong)).await;
    other.say(AgentMessage::Dictionary((*trained.dictionary).clone())).await;
    other.acked(0, 10).await;
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dictionary_that_zstd_does_not_take_ends_the_session() {
    let (folder, centre) = (Folder::new(), Centre::embedded().await);
    let collector = Collector::start(&folder, &centre.bootstrap, "").await;
    let mut trained = Trained::new();
    // zstd's magic number and nothing that belongs behind it.
    let wrong = Dictionary::new([&trained.dictionary.bytes()[..8], &[0xff; 100]].concat().into()).unwrap();
    let mut bytes = trained.frame(0, 10).bytes.to_vec();
    let at = bytes.windows(4).position(|four| four == trained.dictionary.id().0.to_be_bytes()).unwrap();
    bytes[at..at + 4].copy_from_slice(&wrong.id().0.to_be_bytes());
    let end = bytes.len() - 4;
    let crc = crc32c::crc32c(&bytes[..end]);
    bytes[end..].copy_from_slice(&crc.to_le_bytes());

    let mut agent = TestAgent::try_connect(&folder, "a", collector.address, newer()).await.unwrap();
    agent.open_fresh(0, "t").await;
    let seq = agent.seq;
    agent.stream(&[&[0, seq as u8][..], &bytes].concat()).await;
    assert_eq!(asked(&mut agent).await, CollectorMessage::WantDictionary(wrong.id()));
    agent.say(AgentMessage::Dictionary(wrong)).await;
    let code = loop {
        if let Err(code) = agent.message().await {
            break code;
        }
    };
    assert_eq!(code, CloseCode::FrameInvalid);
    collector.stop().await;
}
