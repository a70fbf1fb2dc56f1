//! A small in-process Apache Kafka broker for the demo and for fast tests.
//!
//! One node, everything in memory, on 127.0.0.1. It speaks the protocol on the codecs of `kafka-protocol` and is honest
//! where honesty is costly: transactions with fencing, markers that take an offset, the last stable offset, idempotent
//! producers, classic consumer groups, topic ids, record batches kept byte for byte.
//!
//! The conformance suite (`tests/conformance.rs`) runs the same checks against this broker and against Apache Kafka 4.3;
//! where they differ, this broker is wrong. librdkafka is the client it is made for; Kafka's own console consumer and its tools
//! for groups and topics work on it as well.
//!
//! Deliberately absent: replication, TLS, SASL, access control, quotas, log compaction (a compacted topic keeps every
//! record), segments (retention works batch by batch), recompression by the broker, the new consumer protocol (KIP-848),
//! transactions of version 2, fetch sessions, and storage that outlives the process.
//!
//! - [`Broker`], [`BrokerOptions`], [`Door`], [`Faults`]: the public surface
//! - `server`: listener, connections, framing, timer
//! - `dispatch`: API versions, decoding, encoding
//! - `api`: one module per family of requests
//! - `state`: all that the broker remembers
//!   - `topics`, `config`: topics and their settings
//!   - `log`, `producers`, `batch`, `compress`, `varint`: the log of a partition
//!   - `txn`: transaction coordinator
//!   - `group`, `offsets`: consumer groups
//! - `faults`: what a test can do to it

mod api;
mod batch;
mod compress;
mod config;
mod dispatch;
mod faults;
mod group;
mod log;
mod offsets;
mod producers;
mod server;
mod state;
mod topics;
mod txn;
mod varint;

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::{CancellationToken, DropGuard};

pub use kafka_protocol::ResponseError;
pub use kafka_protocol::messages::ApiKey;

pub use crate::faults::{CannotFail, Faults};
use crate::server::Server;

/// How to start a [`Broker`].
#[derive(Debug, Clone)]
pub struct BrokerOptions {
    /// The port on 127.0.0.1; 0, the default, takes any that is free.
    pub port: u16,
    /// A name for the log. Default: `broker`.
    pub name: String,
    /// Whether a topic comes into being when a client asks for it. Default: true, as Kafka.
    pub auto_create_topics: bool,
    /// Partitions of a topic that does not say. Default: 1, as Kafka.
    pub default_partitions: i32,
    /// How often `retention.ms` and `retention.bytes` are applied. Default: 5 minutes, as Kafka.
    pub retention_check: Duration,
}

impl Default for BrokerOptions {
    fn default() -> Self {
        Self {
            port: 0,
            name: "broker".to_owned(),
            auto_create_topics: true,
            default_partitions: 1,
            retention_check: Duration::from_secs(300),
        }
    }
}

/// A running broker. Dropping it stops it and loses its records.
#[derive(Debug)]
pub struct Broker {
    server: Arc<Server>,
}

/// A port of its own for one client; see [`Broker::open_door`]. Dropping it closes it.
#[derive(Debug)]
pub struct Door {
    port: u16,
    _closed: DropGuard,
}

impl Door {
    /// What the client takes for `bootstrap.servers`.
    #[must_use]
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

/// How far a partition reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reach {
    /// The offset of the next record.
    pub end: i64,
    /// Where a `read_committed` consumer comes to its end; below `end` while a transaction is open.
    pub stable: i64,
}

/// Why a broker did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The port could not be taken.
    #[error("cannot listen on 127.0.0.1:{port}")]
    Listen {
        /// The port that was asked for.
        port: u16,
        /// What the system says.
        source: std::io::Error,
    },
}

impl Broker {
    /// Starts a broker. It needs a tokio runtime with timers and I/O, and lives on it.
    ///
    /// # Errors
    /// [`Error::Listen`] when the port is taken.
    pub async fn start(options: BrokerOptions) -> Result<Self, Error> {
        let server = Server::start(options).await?;
        Ok(Self { server })
    }

    /// What clients take for `bootstrap.servers`.
    #[must_use]
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.server.port())
    }

    /// The fault hooks.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        self.server.faults()
    }

    /// Stops listening and cuts every connection, as if the process had died, but keeps the state for
    /// [`resume`](Self::resume). Does nothing if it is stopped already.
    pub async fn stop(&self) {
        self.server.stop().await;
    }

    /// Listens again on the same port after [`stop`](Self::stop). Members of groups get their whole session timeout
    /// anew. Does nothing if it runs.
    ///
    /// # Errors
    /// [`Error::Listen`] when somebody else has taken the port meanwhile.
    pub async fn resume(&self) -> Result<(), Error> {
        self.server.resume().await
    }

    /// Opens another port of this broker; 0 is any that the system gives. Clients that come through it are told of this port only, so that closing it parts them from
    /// the broker at once and for good, as when their process is killed, whatever their threads still try. The door lives on the runtime
    /// that this is called in.
    ///
    /// # Errors
    /// [`Error::Listen`] when the port is taken.
    pub async fn open_door(&self, port: u16) -> Result<Door, Error> {
        let closed = CancellationToken::new();
        let port = self.server.open_door(port, closed.clone()).await?;
        Ok(Door { port, _closed: closed.drop_guard() })
    }

    /// How far a partition reaches now; `None` if it does not exist.
    #[must_use]
    pub fn reach(&self, topic: &str, partition: i32) -> Option<Reach> {
        self.server.with(|state| {
            let log = state.topics.partition(topic, partition).ok()?;
            Some(Reach { end: log.end(), stable: log.last_stable() })
        })
    }

    /// Applies `retention.ms` and `retention.bytes` now.
    pub fn enforce_retention(&self) {
        self.server.enforce_retention();
    }

    /// Stops the broker and waits until its connections are closed.
    pub async fn shutdown(self) {
        self.server.stop().await;
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.server.abandon();
    }
}
