//! The thread that reads the site's Kafka and builds frames.
//!
//! One thread owns the reading: it takes commands, polls the consumer's queue, batches, compresses, and hands frames over. It stops taking
//! records while the budget of unacknowledged frames is used up; librdkafka then stops fetching by itself.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use spillway_agent_core::batcher::{FrameLimits, Gathering};
use spillway_agent_core::compression::Line;
use spillway_agent_core::ledger::{Attachment, Detachment};
use spillway_agent_core::schedule::{Flow, FlowSpec};
use spillway_kafka::Context;
use spillway_proto::frame::{EncodedFrame, Timestamps};
use spillway_proto::{Lane, Offset};
use tokio::sync::mpsc;

use crate::dictionaries::Dictionaries;
use crate::metrics::AgentMetrics;

mod assignment;
mod budget;
mod builders;
mod compression;
mod reader;

pub use assignment::{consumer, inquirer};
pub use budget::Budget;
use compression::Compression;

/// The consumer, shared with whoever asks the brokers something.
pub type SiteConsumer = rdkafka::consumer::BaseConsumer<Context>;

/// Most commands that may wait. A lane causes two in its life, and they are taken within milliseconds.
const MAX_COMMANDS: usize = 65_536;

/// Most events that may wait for the runner. The bytes of frames are bounded by the budget.
const MAX_EVENTS: usize = 256;

/// How long one poll may wait: commands are looked at after it.
const POLL_TIME: Duration = Duration::from_millis(50);

/// What the source is told.
#[derive(Debug)]
pub enum Command {
    /// Read a lane.
    Attach(Attachment),
    /// Let a lane go; answered by [`Event::Detached`].
    Detach(Detachment),
    /// The largest raw frame that the session allows, in bytes.
    LargestRaw(usize),
    /// The version of the protocol that the session speaks: later frames are built so that it knows them. Until the first session, the newest.
    Version(u8),
    /// What waits for the line, and what it carries.
    Line(Line),
    /// How long a frame waits for more once the source has nothing more for now ([`caught_up_linger`](spillway_agent_core::batcher::caught_up_linger)).
    CaughtUpLinger(Duration),
    /// Whether frames are left open for longer. Until it is told, they are not.
    Gather(Gathering),
    /// Most encoded bytes of a frame of each flow, by number ([`frame_bytes`](spillway_agent_core::line::frame_bytes)).
    FrameBytes(Vec<usize>),
    /// Stop reading and hand over what there is; answered by [`Event::Finished`].
    Finish,
}

/// What the source tells.
#[derive(Debug)]
pub enum Event {
    /// A frame is built.
    Frame(BuiltFrame),
    /// The lane is not read any more, and all of its frames were handed over.
    Detached(Lane),
    /// The partition's position has vanished, or it cannot be assigned: it stands still until a new lane takes it over.
    Lost {
        /// The lane.
        lane: Lane,
        /// Why.
        why: String,
    },
    /// A record is larger than a frame may be in this session: the partition stands still.
    TooLarge {
        /// The lane.
        lane: Lane,
        /// The record.
        offset: Offset,
        /// What its frame would hold, in bytes.
        bytes: usize,
        /// What a frame may hold, in bytes.
        limit: usize,
    },
    /// A commit of the local group ended.
    Committed(Result<(), String>),
    /// Nothing more is read, and all frames were handed over.
    Finished,
    /// The client can do nothing more.
    Failed(String),
}

/// A frame with what the books need.
#[derive(Debug)]
pub struct BuiltFrame {
    /// All of its topics are of this flow.
    pub flow: Flow,
    /// The frame.
    pub frame: EncodedFrame,
    /// Timestamps of its sections' records.
    pub timestamps: Vec<Option<Timestamps>>,
    /// Bytes of the budget that it holds.
    pub budget: usize,
}

/// Tells the flow of a topic by its name. Asked when a lane is opened, attached or let go, always with the same answer for a topic.
pub type FlowOf = Arc<dyn Fn(&str) -> Flow + Send + Sync>;

/// What the source needs.
pub struct Settings {
    /// When frames are closed.
    pub limits: FrameLimits,
    /// zstd level; `None` leaves it to the policy ([`spillway_agent_core::compression`]).
    pub compression_level: Option<i32>,
    /// Where new dictionaries go.
    pub dictionaries: Arc<Dictionaries>,
    /// Most bytes of zstd's tables.
    pub compression_memory: usize,
    /// Bytes for frames that are not acknowledged.
    pub budget: Arc<Budget>,
    /// Metrics to step.
    pub metrics: AgentMetrics,
    /// A frame holds topics of one flow. Each flow that is read has an open frame of its own, with its part of the budget.
    pub flow_of: FlowOf,
    /// What the flows have in common, by number.
    pub specs: Vec<FlowSpec>,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings").field("limits", &self.limits).field("budget", &self.budget).finish_non_exhaustive()
    }
}

/// The running thread. It ends when this is dropped.
#[derive(Debug)]
pub struct Source {
    commands: mpsc::Sender<Command>,
    /// What it tells. Take events all the time: a full queue stops the reading.
    pub events: mpsc::Receiver<Event>,
}

/// Why the thread did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// zstd has no memory.
    #[error("cannot set up compression")]
    Compression(#[source] std::io::Error),
    /// The system gives no thread.
    #[error("cannot start the thread that reads Kafka")]
    Thread(#[source] std::io::Error),
    /// The consumer has no queue of its own.
    #[error("the Kafka client has no consumer queue")]
    Queue,
    /// The thread has ended, or does not take its commands.
    #[error("the thread that reads Kafka does not answer")]
    Gone,
}

impl Source {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system gives no thread or memory.
    pub fn start(consumer: Arc<SiteConsumer>, settings: Settings) -> Result<Self, Error> {
        let (commands, commands_in) = mpsc::channel(MAX_COMMANDS);
        let (events_out, events) = mpsc::channel(MAX_EVENTS);
        let (level, memory) = (settings.compression_level, settings.compression_memory);
        let compression = Compression::new(level, memory, settings.metrics.clone(), Arc::clone(&settings.dictionaries));
        let compression = compression.map_err(Error::Compression)?;
        let run = move || reader::run(&consumer, settings, compression, commands_in, &events_out);
        std::thread::Builder::new().name("source".to_owned()).spawn(run).map_err(Error::Thread)?;
        Ok(Self { commands, events })
    }

    /// Gives a command; it is obeyed within some tens of milliseconds.
    ///
    /// # Errors
    /// When the thread has ended.
    pub fn command(&self, command: Command) -> Result<(), Error> {
        self.commands.try_send(command).map_err(|_| Error::Gone)
    }
}
