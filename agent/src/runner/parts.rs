//! What the runner is given, and how it ends.

use std::sync::Arc;

use spillway_agent_core::ledger;
use spillway_config::AgentConfig;
use spillway_link::LinkClient;
use spillway_proto::codec::DecodeError;
use spillway_proto::{NextOffset, TopicPartition};
use spillway_spill::EntryId;

use super::SpillParts;
use crate::dictionaries::Dictionaries;
use crate::flows::Flows;
use crate::metrics::AgentMetrics;
use crate::plan::Plan;
use crate::source::{self, Budget, SiteConsumer, Source};
use crate::status::Board;
use crate::survey::Survey;

/// What the runner works with.
pub struct Parts {
    /// The configuration.
    pub config: AgentConfig,
    /// Which topics are sent alike.
    pub flows: Flows,
    /// The endpoint.
    pub link: Arc<LinkClient>,
    /// The consumer.
    pub consumer: Arc<SiteConsumer>,
    /// The thread that reads.
    pub source: Source,
    /// The thread that asks.
    pub survey: Survey,
    /// Bytes for frames that are not acknowledged.
    pub budget: Arc<Budget>,
    /// Dictionaries that frames name.
    pub dictionaries: Arc<Dictionaries>,
    /// The spill; `None`: there is none.
    pub spill: Option<SpillParts>,
    /// What the site may send.
    pub plan: Plan,
    /// Metrics to step.
    pub metrics: AgentMetrics,
    /// Where the status goes.
    pub board: Arc<Board>,
    /// Called once, when the session is open and partitions are read.
    pub on_ready: Option<Box<dyn FnOnce() + Send>>,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").field("config", &self.config).finish_non_exhaustive()
    }
}

/// Why the agent ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Offsets vanished, and the configuration says to halt.
    #[error(
        "offsets {first} to {next} of {partition} vanished at the source ({reason}) and on_gap is \"halt\"; nothing of it was sent. \
         To accept the loss, set on_gap = \"continue\" (for this topic in a [[topics.rule]]) and start again"
    )]
    GapHalt {
        /// The partition.
        partition: TopicPartition,
        /// The next offset that the centre expects.
        first: NextOffset,
        /// Where the source goes on.
        next: NextOffset,
        /// Why.
        reason: &'static str,
    },
    /// No memory for zstd.
    #[error("cannot set up compression for a session: is there memory?")]
    Compression(#[source] std::io::Error),
    /// The books do not add up: a bug.
    #[error("stopped to be safe: a bug in the agent's books, please report it with this log; nothing is lost, start it again")]
    Books(#[source] ledger::Error),
    /// The thread that reads Kafka has ended.
    #[error("the site's Kafka cannot be read any more")]
    Source(#[from] source::Error),
    /// The Kafka client failed for good.
    #[error("the Kafka client failed: {0}")]
    Client(String),
    /// The thread that asks Kafka has ended.
    #[error("the thread that asks the site's Kafka has ended")]
    Survey,
    /// The spill's thread has ended.
    #[error("the spill's thread has ended; nothing is lost, start the agent again")]
    Spill,
    /// A frame of the spill is whole and yet cannot be read: another version has written it, or a bug.
    #[error(
        "entry {id} of the spill cannot be read; nothing is lost. Start the version of the agent that wrote it, or write the spill out with `spillway-agent spill export`"
    )]
    SpilledFrame {
        /// The entry.
        id: EntryId,
        /// What is wrong.
        source: DecodeError,
    },
}

/// How the agent ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Records that were read and not acknowledged; they are sent again after the next start.
    pub unacked_records: u64,
}
