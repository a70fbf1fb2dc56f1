//! One session with a collector: the connection, the control stream, frames on streams of their own.
//!
//! The session decides nothing. It hands every message to the runner, sends what the runner gives it, and ends at any doubt.

use std::time::Duration;

use bytes::Bytes;
use quinn::{Connection, RecvStream, SendStream};
use spillway_agent_core::ledger::Outgoing;
use spillway_agent_core::schedule::TopicClass;
use spillway_agent_core::transit::LineRate;
use spillway_config::{CollectorAddress, HostPort};
use spillway_link::client::DialError;
use spillway_link::{Explanation, LinkClient, Side, Way, explain};
use spillway_ops::cli::VERSION;
use spillway_proto::FrameSeq;
use spillway_proto::close::{CloseCode, Disposition};
use spillway_proto::codec::{DecodeError, put_varint};
use spillway_proto::message::{self, AgentMessage, CollectorMessage, Hello, MessageBuffer, Welcome};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// How long the collector may take to answer the hello: it fences older writers of the site and reads the site's positions first.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(90);

/// Most messages that may wait to be sent on the control stream: the announcement of every lane, and some.
const MAX_CONTROL_MESSAGES: usize = spillway_proto::limits::MAX_LANES + 1024;

/// Most events that may wait for the runner: the largest, an ack of 4,096 lanes, takes 64 KiB, and all of them have to fit into
/// [`crate::memory::LINK_BYTES`]. The reader waits when it is full, and QUIC's flow control holds the collector back.
const MAX_EVENTS: usize = 16;

/// Frames that wait to be handed to QUIC. Enough to keep it busy while the runner does something else.
pub const MAX_SENDING: usize = 8;

/// What a session tells the runner.
#[derive(Debug)]
pub enum Event {
    /// A message arrived.
    Message(CollectorMessage),
    /// A frame of this class was handed to QUIC as a whole: another one may be given.
    Sent(TopicClass),
    /// The peer's QUIC has all of a frame. That says nothing of its records.
    Arrived {
        /// Its number.
        seq: FrameSeq,
        /// Its class.
        class: TopicClass,
        /// Its bytes, as they were sent.
        bytes: usize,
    },
    /// The session is over.
    Ended(Explanation),
}

/// A frame as it goes on its stream.
#[derive(Debug)]
pub struct Departure {
    /// Its number.
    pub seq: FrameSeq,
    /// How urgent it is.
    pub class: TopicClass,
    /// What stands behind its number.
    pub bytes: Bytes,
    /// It has history.
    pub is_after: bool,
}

impl Departure {
    /// A frame as it was built.
    pub fn whole(frame: Outgoing) -> Self {
        let Outgoing { seq, class, bytes } = frame;
        Self { seq, class, bytes, is_after: false }
    }
}

/// An open session. Dropping it ends it without a code; say why by [`Session::close`].
#[derive(Debug)]
pub struct Session {
    connection: Connection,
    control: mpsc::Sender<AgentMessage>,
    /// Frames of class 0.
    urgent: mpsc::Sender<Departure>,
    /// The others: they may have to wait for QUIC's window, which those of class 0 leave them no part in.
    frames: mpsc::Sender<Departure>,
    /// What it tells.
    pub events: mpsc::Receiver<Event>,
    /// The collector's terms.
    pub welcome: Welcome,
    tasks: JoinSet<()>,
}

impl Session {
    /// Dials one address over `way` and says hello. Cancel safe: dropping the future gives the attempt up.
    ///
    /// # Errors
    /// What happened, what to do about it, and how long to wait.
    pub async fn open(link: &LinkClient, collector: &CollectorAddress, address: &HostPort, way: Way) -> Result<Self, Box<Explanation>> {
        let connection = dial(link, collector, address, way).await.map_err(|error| Box::new(error.explain()))?;
        match tokio::time::timeout(WELCOME_TIMEOUT, hello(&connection)).await {
            Ok(Ok(opened)) => Ok(Self::start(connection, opened)),
            Ok(Err(broken)) => Err(Box::new(broken.explain(&connection).await)),
            Err(_elapsed) => {
                close(&connection, CloseCode::HandshakeTimeout, "no welcome in time");
                let what = format!("the collector did not open the session within {WELCOME_TIMEOUT:?}");
                let fix = "look at the collector's log: it waits for the central Kafka".to_owned();
                Err(Box::new(Explanation { what, fix, retry: Disposition::Redial, reason: "no_welcome" }))
            }
        }
    }

    fn start(connection: Connection, opened: Opened) -> Self {
        let (control, control_in) = mpsc::channel(MAX_CONTROL_MESSAGES);
        let (urgent, urgent_in) = mpsc::channel(MAX_SENDING);
        let (frames, frames_in) = mpsc::channel(MAX_SENDING);
        let (events_out, events) = mpsc::channel(MAX_EVENTS);
        let mut tasks = JoinSet::new();
        tasks.spawn(read(connection.clone(), opened.receive, opened.buffer, events_out.clone()));
        tasks.spawn(write(opened.send, control_in));
        tasks.spawn(send_frames(connection.clone(), urgent_in, events_out.clone()));
        tasks.spawn(send_frames(connection.clone(), frames_in, events_out));
        Self { connection, control, urgent, frames, events, welcome: opened.welcome, tasks }
    }

    /// Queues a message on the control stream. Answers false when the session is over or does not take it: it will end by itself.
    pub fn say(&self, message: AgentMessage) -> bool {
        self.control.try_send(message).is_ok()
    }

    /// Gives a frame to be sent. Of class 0, and of the others, at most [`MAX_SENDING`] may be under way: count [`Event::Sent`].
    pub fn send(&self, frame: Departure) -> bool {
        let frames = if frame.class.is_urgent() { &self.urgent } else { &self.frames };
        frames.try_send(frame).is_ok()
    }

    /// What the line takes, as far as QUIC's congestion control knows.
    pub fn line(&self) -> LineRate {
        let path = self.connection.stats().path;
        let bytes = (path.cwnd as f64 / path.rtt.as_secs_f64()) as u64;
        LineRate { bytes_per_second: (!path.rtt.is_zero()).then_some(bytes), round_trip: path.rtt }
    }

    /// Bytes of the datagrams that were sent, and of those that were lost.
    pub fn datagrams(&self) -> (u64, u64) {
        let stats = self.connection.stats();
        (stats.udp_tx.bytes, stats.path.lost_bytes)
    }

    /// Round-trip time as QUIC measures it.
    pub fn rtt(&self) -> Duration {
        self.connection.rtt()
    }

    /// The collector's address.
    pub fn address(&self) -> std::net::SocketAddr {
        self.connection.remote_address()
    }

    /// Ends the session with a code.
    pub fn close(mut self, code: CloseCode, reason: &str) {
        close(&self.connection, code, reason);
        self.tasks.abort_all();
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        close(&self.connection, CloseCode::Done, "");
    }
}

struct Opened {
    welcome: Welcome,
    send: SendStream,
    receive: RecvStream,
    buffer: MessageBuffer,
}

/// Why a session broke.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("the collector broke the protocol")]
    Protocol(#[from] DecodeError),
    #[error("the collector answered the hello with another message")]
    NoWelcome,
    /// The connection tells the reason.
    #[error("the connection is gone")]
    Connection,
}

impl Broken {
    /// Ends the connection if that was not done yet, and says why the session is over.
    async fn explain(self, connection: &Connection) -> Explanation {
        match self {
            Self::Connection => explain(&connection.closed().await, Side::Agent),
            Self::Protocol(_) | Self::NoWelcome => {
                let what = spillway_ops::exit::chain(&self);
                close(connection, CloseCode::ProtocolViolation, &what);
                let fix = CloseCode::ProtocolViolation.remedy().to_owned();
                Explanation { what, fix, retry: Disposition::Redial, reason: CloseCode::ProtocolViolation.as_str() }
            }
        }
    }
}

/// Dials one address of a collector.
///
/// # Errors
/// The error of the last address that its name resolves to.
pub(crate) async fn dial(link: &LinkClient, collector: &CollectorAddress, address: &HostPort, way: Way) -> Result<Connection, DialError> {
    let Some(name) = &collector.server_name else {
        return link.dial(way, &address.host, address.port).await;
    };
    let resolve = |source| DialError::Resolve { host: address.host.clone(), source };
    let found = tokio::net::lookup_host((address.host.as_str(), address.port)).await.map_err(resolve)?;
    link.dial_addresses(way, found.take(MAX_ADDRESSES).collect(), name).await
}

/// Most addresses of one host name that a dial tries. More than a few mean a load balancer's whole list.
const MAX_ADDRESSES: usize = 4;

async fn hello(connection: &Connection) -> Result<Opened, Broken> {
    let (mut send, mut receive) = connection.open_bi().await.map_err(|_| Broken::Connection)?;
    // Above every frame.
    send.set_priority(i32::MAX).map_err(|_| Broken::Connection)?;
    let hello = Hello { min_version: message::MIN_VERSION, max_version: message::VERSION, software: VERSION.to_owned() };
    let mut bytes = Vec::new();
    AgentMessage::Hello(hello).encode(&mut bytes);
    send.write_all(&bytes).await.map_err(|_| Broken::Connection)?;
    let mut buffer = MessageBuffer::default();
    loop {
        match next_message(&mut receive, &mut buffer).await? {
            CollectorMessage::Welcome(welcome) => return Ok(Opened { welcome, send, receive, buffer }),
            CollectorMessage::Ignored(_) => {}
            _ => return Err(Broken::NoWelcome),
        }
    }
}

async fn next_message(receive: &mut RecvStream, buffer: &mut MessageBuffer) -> Result<CollectorMessage, Broken> {
    loop {
        if let Some(bytes) = buffer.take()? {
            return Ok(CollectorMessage::decode(bytes)?);
        }
        match receive.read_chunk(READ_BYTES, true).await {
            Ok(Some(chunk)) => buffer.push(&chunk.bytes),
            // The control stream lives as long as the session.
            Ok(None) | Err(_) => return Err(Broken::Connection),
        }
    }
}

/// Most bytes taken from the control stream at once.
const READ_BYTES: usize = 16 * 1024;

async fn read(connection: Connection, mut receive: RecvStream, mut buffer: MessageBuffer, events: mpsc::Sender<Event>) {
    loop {
        let event = match next_message(&mut receive, &mut buffer).await {
            Ok(message) => Event::Message(message),
            Err(broken) => Event::Ended(end(broken, &connection).await),
        };
        let ended = matches!(event, Event::Ended(_));
        if events.send(event).await.is_err() || ended {
            return;
        }
    }
}

/// A control stream that ends while the connection lives is as good as a lost connection.
async fn end(broken: Broken, connection: &Connection) -> Explanation {
    if matches!(broken, Broken::Connection) && connection.close_reason().is_none() {
        // A close follows its streams' ends by a packet at most.
        if tokio::time::timeout(Duration::from_secs(1), connection.closed()).await.is_err() {
            close(connection, CloseCode::ProtocolViolation, "the control stream ended");
        }
    }
    broken.explain(connection).await
}

async fn write(mut send: SendStream, mut messages: mpsc::Receiver<AgentMessage>) {
    let mut bytes = Vec::new();
    while let Some(message) = messages.recv().await {
        message.encode(&mut bytes);
        while bytes.len() < READ_BYTES
            && let Ok(message) = messages.try_recv()
        {
            message.encode(&mut bytes);
        }
        if send.write_all(&bytes).await.is_err() {
            // The reader tells why.
            return;
        }
        bytes.clear();
    }
}

/// Sends frames, each on its own stream, one after the other: a frame is given to QUIC as a whole before the next one. QUIC's send window holds
/// several, so the line is never idle; were they written side by side, each would get a share of the window, and none would be finished soon.
async fn send_frames(connection: Connection, mut frames: mpsc::Receiver<Departure>, events: mpsc::Sender<Event>) {
    while let Some(frame) = frames.recv().await {
        let class = frame.class;
        if send_frame(&connection, frame, &events).await.is_err() {
            // A stream that is refused or reset leaves a hole for good: only a new session fills it.
            close(&connection, CloseCode::ProtocolViolation, "a frame's stream was stopped");
            return;
        }
        if events.send(Event::Sent(class)).await.is_err() {
            return;
        }
    }
}

async fn send_frame(connection: &Connection, frame: Departure, events: &mpsc::Sender<Event>) -> Result<(), Broken> {
    let mut stream = connection.open_uni().await.map_err(|_| Broken::Connection)?;
    // What is lost of an earlier frame is repeated before a later one goes on; but class 0 goes before all others.
    let age = i32::try_from(frame.seq.0).unwrap_or(i32::MAX).min(URGENT_PRIORITY - 1);
    let base = if frame.class.is_urgent() { URGENT_PRIORITY } else { 0 };
    stream.set_priority(base - age).map_err(|_| Broken::Connection)?;
    let mut prefix = Vec::with_capacity(16);
    put_varint(&mut prefix, if frame.is_after { message::STREAM_FRAME_AFTER } else { message::STREAM_FRAME });
    put_varint(&mut prefix, frame.seq.0);
    stream.write_chunk(Bytes::from(prefix)).await.map_err(|_| Broken::Connection)?;
    // The bytes are shared with the ledger, not copied.
    let arrived = Event::Arrived { seq: frame.seq, class: frame.class, bytes: frame.bytes.len() };
    stream.write_chunk(frame.bytes).await.map_err(|_| Broken::Connection)?;
    stream.finish().map_err(|_| Broken::Connection)?;
    let (stopped, events) = (stream.stopped(), events.clone());
    // Ends with the connection at the latest; there are no more of them than `transit` allows in QUIC.
    tokio::spawn(async move {
        if let Ok(None) = stopped.await {
            drop(events.send(arrived).await);
        }
    });
    Ok(())
}

/// Above all frames of other classes, below the control stream.
const URGENT_PRIORITY: i32 = 1 << 30;

fn close(connection: &Connection, code: CloseCode, reason: &str) {
    connection.close(code.code().into(), spillway_proto::codec::cut(reason, MAX_REASON_BYTES).as_bytes());
}

/// A close has to fit a packet.
const MAX_REASON_BYTES: usize = 256;
