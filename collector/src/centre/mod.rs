//! What the collector does at the central Kafka.
//!
//! | module | what it is for |
//! |---|---|
//! | [`producer`] | one site's transactional producer and its delivery reports |
//! | [`native`] | librdkafka's produce call: topics by handle, records borrowed, timestamps exact |
//! | [`topics`] | remote and internal topics: looked up, created, given partitions; settings that refuse records |
//! | [`tail`] | `spillway-progress.internal` read to its end, for all sites |

pub mod native;
pub mod producer;
pub mod tail;
pub mod topics;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use spillway_collector_core::transaction::Turns;
use spillway_config::{KafkaClient, TransactionsConfig};
use spillway_proto::naming::PrefixPolicy;
use tokio::sync::Semaphore;

use crate::metrics::Meters;

/// Sites whose writers are opened at the same time, up to their marker's commit; further ones wait their turn. After a restart all sites
/// come back at once, and each opening makes a producer and its threads.
pub const MAX_OPENINGS: usize = 16;

/// What every site's writer shares.
#[derive(Debug)]
pub struct Centre {
    /// How the central Kafka is reached.
    pub kafka: KafkaClient,
    /// Bounds of transactions.
    pub transactions: TransactionsConfig,
    /// Largest raw frame, which bounds a record.
    pub max_frame_bytes: usize,
    /// Progress of all sites.
    pub tail: tail::Tail,
    /// Topics.
    pub topics: topics::Topics,
    /// Names of topics.
    pub policy: PrefixPolicy,
    /// Metrics.
    pub meters: Meters,
    /// This collector's name in session markers.
    pub name: String,
    /// Where the writers' threads run what is asynchronous.
    pub runtime: tokio::runtime::Handle,
    /// Turns of [`MAX_OPENINGS`].
    pub openings: Arc<Semaphore>,
    turns: Mutex<Turns>,
    up: AtomicBool,
}

impl Centre {
    /// Puts the parts together.
    pub fn new(
        config: &spillway_config::CollectorConfig,
        topics: topics::Topics,
        meters: Meters,
        name: String,
        runtime: tokio::runtime::Handle,
    ) -> Self {
        Self {
            kafka: config.kafka.clone(),
            transactions: config.transactions.clone(),
            max_frame_bytes: config.session.max_frame_bytes.as_usize(),
            tail: tail::Tail::new(),
            topics,
            policy: PrefixPolicy::new(config.topics.separator.clone()),
            meters,
            name,
            runtime,
            openings: Arc::new(Semaphore::new(MAX_OPENINGS)),
            turns: Mutex::default(),
            up: AtomicBool::new(false),
        }
    }

    /// When a transaction that begins now may be committed early, if that is within `wait`.
    pub fn early_turn(&self, now: Instant, wait: Duration) -> Option<Instant> {
        // Nothing that can panic runs under the lock.
        self.turns.lock().unwrap_or_else(PoisonError::into_inner).take(now, wait)
    }

    /// Whether every place for openings is taken: more sites wait, as after a collector's restart.
    pub fn is_crowded(&self) -> bool {
        self.openings.available_permits() == 0
    }

    /// Whether the central Kafka answered when it was last asked.
    pub fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    /// Notes whether the central Kafka answers; logs a change.
    pub fn set_up(&self, up: bool) {
        if self.up.swap(up, Ordering::Relaxed) != up {
            self.meters.centre_up.set(i64::from(up));
            if up {
                tracing::info!(event = "centre_up", "the central Kafka answers");
            } else {
                tracing::warn!(event = "centre_down", "the central Kafka does not answer; sites are held back until it does");
            }
        }
    }
}
