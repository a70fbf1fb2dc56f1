//! An agent that says whatever a test wants, over real QUIC with a real certificate.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;

use quinn::{Connection, ConnectionError, RecvStream, SendStream};
use spillway_link::{LinkClient, LinkSettings, RateCap};
use spillway_proto::compress::Compressor;
use spillway_proto::frame::{EncodedFrame, FrameBuilder, GapReason};
use spillway_proto::message::{AgentMessage, CollectorMessage, Hello, Hold, MessageBuffer, OpenLane, ResumePoint, Welcome};
use spillway_proto::record::RecordWriter;
use spillway_proto::{CloseCode, Lane, NextOffset, Offset, Partition, TopicId, TopicPartition, codec};

use super::{Folder, PATIENCE};

pub(crate) struct TestAgent {
    pub(crate) connection: Connection,
    pub(crate) send: SendStream,
    recv: RecvStream,
    buffer: MessageBuffer,
    messages: VecDeque<CollectorMessage>,
    pub(crate) welcome: Welcome,
    pub(crate) seq: u64,
    /// Acknowledged positions.
    pub(crate) acked: HashMap<Lane, u64>,
    /// What was told to be still to come, by lane.
    pub(crate) deferred: HashMap<Lane, Vec<(u64, u64)>>,
    _client: LinkClient,
}

pub(crate) fn hello() -> Hello {
    Hello { min_version: 1, max_version: 1, software: "test".to_owned() }
}

pub(crate) fn next(value: u64) -> NextOffset {
    NextOffset::new(value).unwrap()
}

pub(crate) const TOPIC_ID: TopicId = TopicId([7; 16]);

pub(crate) fn open_lane(lane: u32, topic: &str, partition: u32, count: u32) -> OpenLane {
    let source = TopicPartition { topic: topic.parse().unwrap(), partition: Partition::new(partition).unwrap() };
    OpenLane { lane: Lane(lane), source, topic_id: TOPIC_ID, partition_count: count, until: None }
}

/// Records `first..end` of a lane, each with its offset as value.
pub(crate) fn records(first: u64, end: u64) -> RecordWriter {
    let mut writer = RecordWriter::new(next(first));
    for offset in first..end {
        let value = format!("{offset}");
        assert!(push(&mut writer, offset, Some(b"k"), Some(value.as_bytes())));
    }
    writer
}

pub(crate) fn push(writer: &mut RecordWriter, offset: u64, key: Option<&[u8]>, value: Option<&[u8]>) -> bool {
    writer.push(Offset::new(offset).unwrap(), 1_700_000_000_000 + offset as i64, key, value, std::iter::empty())
}

/// A frame of whatever `build` puts into it.
pub(crate) fn frame(build: impl FnOnce(&mut FrameBuilder)) -> EncodedFrame {
    let mut builder = FrameBuilder::new();
    build(&mut builder);
    builder.encode(&mut Compressor::new(3).unwrap())
}

/// A frame with one section of records.
pub(crate) fn data(lane: u32, first: u64, end: u64) -> EncodedFrame {
    frame(|frame| frame.data(Lane(lane), records(first, end)))
}

impl TestAgent {
    /// A session, up to the welcome.
    pub(crate) async fn connect(folder: &Folder, site: &str, address: SocketAddr) -> Self {
        Self::try_connect(folder, site, address, hello()).await.unwrap()
    }

    pub(crate) async fn dial(folder: &Folder, site: &str, address: SocketAddr) -> (LinkClient, Result<Connection, String>) {
        folder.issue(site);
        Self::dial_files(folder, site, address).await
    }

    /// Dials with the certificate that is in the folder.
    pub(crate) async fn dial_files(folder: &Folder, site: &str, address: SocketAddr) -> (LinkClient, Result<Connection, String>) {
        let client = LinkClient::new(&folder.identity(site), &LinkSettings::agent(), RateCap::new(None)).unwrap();
        let connection =
            client.dial_addresses(spillway_link::Way::Udp, vec![address], "localhost").await.map_err(|error| error.to_string());
        (client, connection)
    }

    pub(crate) async fn try_connect(folder: &Folder, site: &str, address: SocketAddr, hello: Hello) -> Result<Self, CloseCode> {
        let (client, connection) = Self::dial(folder, site, address).await;
        let connection = connection.unwrap();
        let (mut send, recv) = connection.open_bi().await.map_err(|error| close_code(&error))?;
        let mut bytes = Vec::new();
        AgentMessage::Hello(hello).encode(&mut bytes);
        let _refused = send.write_all(&bytes).await;
        let welcome = Welcome { version: 0, software: String::new(), max_frame_raw_bytes: 0, max_in_flight_bytes: 0 };
        let (buffer, messages) = (MessageBuffer::default(), VecDeque::new());
        let mut agent = Self {
            connection,
            send,
            recv,
            buffer,
            messages,
            welcome,
            seq: 0,
            acked: HashMap::new(),
            deferred: HashMap::new(),
            _client: client,
        };
        match agent.message().await? {
            CollectorMessage::Welcome(welcome) => agent.welcome = welcome,
            other => panic!("no welcome but {other:?}"),
        }
        Ok(agent)
    }

    pub(crate) async fn say(&mut self, message: AgentMessage) {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        let _closed = self.send.write_all(&bytes).await;
    }

    /// Announces a lane and answers where it goes on.
    pub(crate) async fn open(&mut self, open: OpenLane) -> ResumePoint {
        let lane = open.lane;
        self.say(AgentMessage::Open(open)).await;
        loop {
            match self.message().await.unwrap() {
                CollectorMessage::Resume { lane: found, resume } if found == lane => return resume,
                CollectorMessage::Deferred { lane, deferred } => {
                    let ranges = deferred.iter().map(|range| (range.first.value(), range.end.value())).collect();
                    self.deferred.insert(lane, ranges);
                }
                CollectorMessage::Ack(_) => {}
                other => panic!("no resume but {other:?}"),
            }
        }
    }

    /// Opens lane 0 of `t-0`, fresh, and starts it at 0.
    pub(crate) async fn open_fresh(&mut self, lane: u32, topic: &str) {
        assert_eq!(self.open(open_lane(lane, topic, 0, 1)).await, ResumePoint::Fresh);
        self.frame(&frame(|frame| frame.start(Lane(lane), NextOffset::ZERO))).await;
    }

    /// Sends a frame under the next number.
    pub(crate) async fn frame(&mut self, frame: &EncodedFrame) {
        let seq = self.seq;
        self.seq += 1;
        self.frame_as(seq, frame).await;
    }

    pub(crate) async fn frame_as(&self, seq: u64, frame: &EncodedFrame) {
        let mut bytes = Vec::new();
        codec::put_varint(&mut bytes, 0);
        codec::put_varint(&mut bytes, seq);
        bytes.extend_from_slice(&frame.bytes);
        self.stream(&bytes).await;
    }

    /// A stream with these bytes.
    pub(crate) async fn stream(&self, bytes: &[u8]) {
        if let Ok(mut stream) = self.connection.open_uni().await {
            let _closed = stream.write_all(bytes).await;
            let _closed = stream.finish();
        }
    }

    /// The next message, or the code that the connection was closed with.
    pub(crate) async fn message(&mut self) -> Result<CollectorMessage, CloseCode> {
        tokio::time::timeout(PATIENCE, self.next_message()).await.expect("no message")
    }

    async fn next_message(&mut self) -> Result<CollectorMessage, CloseCode> {
        loop {
            if let Some(message) = self.messages.pop_front() {
                if let CollectorMessage::Ack(acks) = &message {
                    self.acked.extend(acks.iter().map(|(lane, next)| (*lane, next.value())));
                }
                return Ok(message);
            }
            match self.recv.read_chunk(64 * 1024, true).await {
                Ok(Some(chunk)) => self.buffer.push(&chunk.bytes),
                _ => return Err(close_code(&self.connection.closed().await)),
            }
            while let Some(bytes) = self.buffer.take().unwrap() {
                self.messages.push_back(CollectorMessage::decode(bytes).unwrap());
            }
        }
    }

    /// Waits until a lane is acknowledged up to `next`.
    pub(crate) async fn acked(&mut self, lane: u32, next: u64) {
        while self.acked.get(&Lane(lane)) != Some(&next) {
            match self.message().await.unwrap() {
                CollectorMessage::Ack(_) => {}
                other => panic!("no ack but {other:?}"),
            }
        }
    }

    /// Waits until a lane is held.
    pub(crate) async fn held(&mut self) -> Hold {
        loop {
            match self.message().await.unwrap() {
                CollectorMessage::Hold(hold) => return hold,
                CollectorMessage::Ack(_) => {}
                other => panic!("no hold but {other:?}"),
            }
        }
    }

    /// The code that the collector closes the connection with.
    pub(crate) async fn closed(&mut self) -> CloseCode {
        loop {
            if let Err(code) = self.message().await {
                return code;
            }
        }
    }
}

/// A gap.
pub(crate) fn gap(lane: u32, first: u64, end: u64, reason: GapReason) -> EncodedFrame {
    frame(|frame| frame.gap(Lane(lane), next(first), next(end), reason))
}

pub(crate) fn close_code(error: &ConnectionError) -> CloseCode {
    match error {
        ConnectionError::ApplicationClosed(close) => CloseCode::from_code(close.error_code.into_inner()).expect("a known code"),
        other => panic!("not closed by the collector: {other}"),
    }
}
