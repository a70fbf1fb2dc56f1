//! Configuration of the agent and the collector: units, files, environment, problems.
//!
//! A configuration has three layers; a later one wins key by key: the reference file embedded in the binary (it holds every default, so
//! what `config` prints is what is used), the user's file, the variables `SPILLWAY_…`. All problems are found in one run, each with where,
//! which key, what value, and what to do.
//!
//! | module | what for |
//! |---|---|
//! | [`units`] | sizes, durations and rates as people write them |
//! | `agent` | [`AgentConfig`] |
//! | `collector` | [`CollectorConfig`] |
//! | `site` | [`SiteFile`], one file a site at the collector |
//! | `kafka` | how a Kafka cluster is reached, for both programs; `librdkafka`: the passthrough table and its deny list |
//! | `spill` | when the agent writes to disk, how much, and what happens when that is full |
//! | `topics` | which topics are mirrored and from where on |
//! | `common` | the small tables both programs share: tls, shutdown, admin, log |
//! | `address` | [`HostPort`] |
//! | `secret` | [`Secret`], a text that cannot be printed |
//! | `problem` | [`Problem`] and [`Problems`], what is wrong with a configuration |
//! | `load` | the three layers, one run of the reader |
//! | `layer` | texts and variables to one tree that knows where each value came from |
//! | `reader` | takes values out of the tree and collects problems; knows every key it was asked for |
//! | `parse` | values to types, with their bounds |
//! | `suggest` | "did you mean" |

mod address;
mod agent;
mod collector;
mod common;
mod flows;
mod kafka;
mod layer;
mod load;
mod parse;
mod problem;
mod reader;
mod secret;
mod settings;
mod site;
mod spill;
mod suggest;
mod topics;
pub mod units;

pub use address::{Error as HostPortError, HostPort};
pub use agent::{
    AGENT_REFERENCE, AgentConfig, AgentKafka, CollectorAddress, CompressionLevel, Congestion, LinkConfig, MEMORY_LEAST_WITH_SPILL,
};
pub use collector::{
    COLLECTOR_REFERENCE, CollectorConfig, ListenConfig, RemoteTopicsConfig, SessionConfig, SitesConfig, TransactionsConfig,
};
pub use common::{AdminConfig, LogConfig, LogFormat, ShutdownConfig, TlsFiles};
pub use flows::FlowConfig;
pub use kafka::{KafkaClient, Librdkafka, SaslMechanism, SecurityProtocol};
pub use problem::{Place, Problem, Problems};
pub use secret::Secret;
pub use settings::{Count, Profile, SiteSettings};
pub use site::{SITE_REFERENCE, SiteFile, SiteFindings};
pub use spill::{SpillConfig, WhenFull};
pub use topics::{OnGap, Order, Pattern, StartFrom, TopicRule, TopicsConfig};
