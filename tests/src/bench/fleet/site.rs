//! One site of the fleet: the agent's side of a session, without a Kafka behind it. What it sends it can make anew from any offset on, so it need
//! not remember what is under way.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use quinn::{Connection, RecvStream, SendStream};
use spillway_agent_core::redial::Redial;
use spillway_agent_core::silence::Silence;
use spillway_link::{Identity, LinkClient, LinkSettings, RateCap};
use spillway_proto::close::Disposition;
use spillway_proto::codec::put_varint;
use spillway_proto::compress::Compressor;
use spillway_proto::frame::FrameBuilder;
use spillway_proto::message::{self, AgentMessage, CollectorMessage, Hello, MessageBuffer, OpenLane, ResumePoint, STREAM_FRAME};
use spillway_proto::record::RecordWriter;
use spillway_proto::{Lane, NextOffset, Offset, Partition, TopicId, TopicName, TopicPartition};

use crate::bench::workload::{Maker, Workload};

/// The topic that every site has.
pub const TOPIC: &str = "telemetry";

/// The id of that topic, in its announcement and in the positions that are there beforehand.
pub const TOPIC_ID: TopicId = TopicId([7; 16]);

/// Records of a frame: some 40 KB before compression.
const FRAME_RECORDS: u64 = 200;

/// Frames under way. An agent is bounded in bytes; what counts for fairness is that all have the same bound.
const WINDOW_FRAMES: usize = 16;

/// The agent's defaults (`link.keep_alive`, `link.idle_timeout`, `link.redial_max`).
const KEEP_ALIVE: Duration = Duration::from_secs(25);
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
const REDIAL_MAX: Duration = Duration::from_secs(30);

/// How often a site looks whether it shall send now.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Most bytes taken from the control stream at once.
const READ_BYTES: usize = 16 * 1024;

/// The one lane of a site.
const LANE: Lane = Lane(0);

/// What a site shows and is told.
#[derive(Debug, Default)]
pub struct Board {
    /// Its lane was resumed in the session that is open.
    pub resumed: AtomicBool,
    /// Sessions that were resumed.
    pub sessions: AtomicU64,
    /// Records acknowledged.
    pub acked: AtomicU64,
    /// It shall send.
    pub send: AtomicBool,
}

/// Lives until the runtime ends: dials, has a session, dials again as an agent would.
///
/// # Errors
/// When there is no socket or no memory.
pub async fn live(identity: Identity, address: SocketAddr, board: &Board) -> Result<()> {
    let settings = LinkSettings { keep_alive: Some(KEEP_ALIVE), idle_timeout: IDLE_TIMEOUT, ..LinkSettings::agent() };
    let link = LinkClient::new(&identity, &settings, RateCap::new(None))?;
    let mut redial = Redial::new(1, REDIAL_MAX);
    let mut attempt = redial.first();
    loop {
        tokio::time::sleep(attempt.pause).await;
        let opened = match link.dial_addresses(spillway_link::Way::Udp, vec![address], "127.0.0.1").await {
            Ok(connection) => Session::run(connection, board).await.unwrap_or(false),
            Err(_) => false,
        };
        board.resumed.store(false, Ordering::Relaxed);
        let random = rand::random();
        attempt = if opened { redial.lost(Disposition::Redial, random) } else { redial.failed(Disposition::Redial, random) };
    }
}

struct Session<'b> {
    connection: Connection,
    send: SendStream,
    board: &'b Board,
    maker: Maker,
    compressor: Compressor,
    frames: u64,
    /// Where the next frame begins; known once the lane was resumed.
    next: Option<NextOffset>,
    acked: NextOffset,
    /// Ends of the frames under way.
    under_way: VecDeque<NextOffset>,
    silence: Silence,
}

impl<'b> Session<'b> {
    /// Runs a session to its end. Answers whether it was welcomed.
    async fn run(connection: Connection, board: &'b Board) -> Result<bool> {
        let (send, mut receive) = connection.open_bi().await?;
        let workload = Workload::named("telemetry-200").context("no such workload")?;
        let (maker, compressor) = (Maker::new(workload), Compressor::new(3)?);
        let (next, acked, under_way) = (None, NextOffset::ZERO, VecDeque::new());
        let silence = Silence::new(Instant::now());
        let mut session = Self { connection, send, board, maker, compressor, frames: 0, next, acked, under_way, silence };
        let software = "lab".to_owned();
        session.say(&AgentMessage::Hello(Hello { min_version: message::MIN_VERSION, max_version: message::VERSION, software })).await?;
        let mut buffer = MessageBuffer::default();
        let mut welcomed = false;
        // The end of a session is not this site's mistake: it dials again.
        while let Ok(message) = session.next_message(&mut receive, &mut buffer).await {
            match message {
                CollectorMessage::Welcome(_) => {
                    welcomed = true;
                    session.announce().await?;
                }
                CollectorMessage::Resume { resume, .. } => session.resume(resume).await?,
                CollectorMessage::Ack(acks) => session.acknowledge(&acks),
                CollectorMessage::Hold(hold) => bail!("held: {}", hold.detail),
                // Its frames name no dictionary and have no history.
                CollectorMessage::Retry(_)
                | CollectorMessage::Deferred { .. }
                | CollectorMessage::Settings(_)
                | CollectorMessage::SettingsSeen(_)
                | CollectorMessage::WantDictionary(_)
                | CollectorMessage::FrameAgain(_)
                | CollectorMessage::Ignored(_) => {}
            }
        }
        Ok(welcomed)
    }

    /// The next message; sends frames as long as there is none.
    async fn next_message(&mut self, receive: &mut RecvStream, buffer: &mut MessageBuffer) -> Result<CollectorMessage> {
        loop {
            if let Some(bytes) = buffer.take()? {
                return Ok(CollectorMessage::decode(bytes)?);
            }
            while self.may_send() {
                self.send_records().await?;
            }
            tokio::select! {
                chunk = receive.read_chunk(READ_BYTES, true) => {
                    buffer.push(&chunk?.context("the control stream ended")?.bytes);
                    self.silence.end(Instant::now());
                }
                () = tokio::time::sleep(LOOK_EVERY) => self.ask_for_life().await?,
            }
        }
    }

    /// As the agent does while it waits for acks.
    async fn ask_for_life(&mut self) -> Result<()> {
        if self.silence.must_ask(Instant::now(), !self.under_way.is_empty()) {
            self.say(&AgentMessage::Flush).await?;
        }
        Ok(())
    }

    fn may_send(&self) -> bool {
        self.next.is_some() && self.under_way.len() < WINDOW_FRAMES && self.board.send.load(Ordering::Relaxed)
    }

    async fn announce(&mut self) -> Result<()> {
        let source = TopicPartition { topic: TopicName::parse(TOPIC)?, partition: Partition::FIRST };
        self.say(&AgentMessage::Open(OpenLane { lane: LANE, source, topic_id: TOPIC_ID, partition_count: 1, until: None })).await
    }

    async fn resume(&mut self, resume: ResumePoint) -> Result<()> {
        let next = match resume {
            ResumePoint::At(next) => next,
            ResumePoint::Fresh => {
                let mut builder = FrameBuilder::new();
                builder.start(LANE, NextOffset::ZERO);
                self.send_frame(builder).await?;
                NextOffset::ZERO
            }
            ResumePoint::Recreated { .. } => bail!("the centre knows another topic"),
        };
        (self.next, self.acked) = (Some(next), next);
        self.board.sessions.fetch_add(1, Ordering::Relaxed);
        self.board.resumed.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn acknowledge(&mut self, acks: &[(Lane, NextOffset)]) {
        for (_, next) in acks {
            self.board.acked.fetch_add(next.value().saturating_sub(self.acked.value()), Ordering::Relaxed);
            self.acked = self.acked.max(*next);
            while self.under_way.pop_front_if(|end| *end <= *next).is_some() {}
        }
    }

    async fn send_records(&mut self) -> Result<()> {
        let Some(first) = self.next else { return Ok(()) };
        let mut records = RecordWriter::new(first);
        for n in 0..FRAME_RECORDS {
            let record = self.maker.next_record();
            let offset = Offset::new(first.value() + n).context("offsets have ended")?;
            let timestamp = record.timestamp_ms.unwrap_or(-1);
            let added = records.push(offset, timestamp, record.key.as_deref(), record.value.as_deref(), std::iter::empty());
            anyhow::ensure!(added, "offset {} did not rise", offset.value());
        }
        let end = records.next();
        let mut builder = FrameBuilder::new();
        builder.data(LANE, records);
        self.send_frame(builder).await?;
        self.under_way.push_back(end);
        self.next = Some(end);
        Ok(())
    }

    async fn send_frame(&mut self, mut builder: FrameBuilder) -> Result<()> {
        let frame = builder.encode(&mut self.compressor);
        let mut stream = self.connection.open_uni().await?;
        let mut prefix = Vec::new();
        put_varint(&mut prefix, STREAM_FRAME);
        put_varint(&mut prefix, self.frames);
        self.frames += 1;
        stream.write_chunk(Bytes::from(prefix)).await?;
        stream.write_chunk(frame.bytes).await?;
        Ok(stream.finish()?)
    }

    async fn say(&mut self, message: &AgentMessage) -> Result<()> {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        Ok(self.send.write_all(&bytes).await?)
    }
}
