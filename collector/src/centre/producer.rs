//! One site's transactional producer.

use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use spillway_config::{KafkaClient, TransactionsConfig};
use spillway_proto::{SiteName, TopicName};

use super::native::{Call, NativeProducer, Outgoing, TopicHandle};

/// Most bytes of one batch before compression, to begin with; a remote topic with a lower `max.message.bytes` lowers it for its site.
pub const BATCH_BYTES: usize = 512 * 1024;

/// Smallest batch worth making; also what a batch may have beside its records.
pub const BATCH_OVERHEAD_BYTES: usize = 1024;

/// How long one call into librdkafka may take before we look whether the session is still wanted.
const CALL_TIMEOUT: Duration = Duration::from_secs(2);

/// First wait of an abort, after which delivery reports are taken: librdkafka waits for them itself, but does not take them.
const ABORT_TIMEOUT: Duration = Duration::from_millis(10);

/// How long metadata may take to show partitions just added.
const REFRESH_TIMEOUT: Duration = Duration::from_secs(5);

/// Between two looks at metadata.
const REFRESH_PAUSE: Duration = Duration::from_millis(50);

/// One step of waiting for delivery reports; ends with the first.
const POLL: Duration = Duration::from_millis(5);

/// What became of one record.
#[derive(Debug, Clone, Copy)]
pub struct Report {
    /// The record's tag.
    pub tag: usize,
    /// Its central offset.
    pub outcome: Result<i64, RDKafkaErrorCode>,
}

/// What is needed to make a producer.
#[derive(Debug, Clone)]
pub struct ProducerSettings {
    config: ClientConfig,
}

/// A transactional producer, its topics by handle.
pub struct SiteProducer {
    topics: HashMap<TopicName, TopicHandle>,
    /// Partitions that the client knows of, at least.
    partitions: HashMap<TopicName, u32>,
    producer: Rc<NativeProducer>,
}

/// What to do after a failed call on the transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TransactionError {
    /// Call again: the central Kafka did not answer in time, or not well.
    Again(String),
    /// Abort, then write the same data again.
    Abort(String),
    /// A newer producer of the site has taken over, or the brokers gave up our transaction for its age.
    Fenced(String),
    /// The producer is of no use any more: make a new one.
    Reopen(String),
}

impl ProducerSettings {
    /// Settings of a site's producer.
    ///
    /// `max_record_bytes` is the largest record that a frame can carry: the broker must be the one that refuses it, since its answer names
    /// the topic's limit.
    pub fn new(
        kafka: &KafkaClient,
        transactions: &TransactionsConfig,
        site: &SiteName,
        max_record_bytes: usize,
        batch_bytes: usize,
    ) -> Self {
        let mut config = spillway_kafka::client_config(kafka, &format!("spillway-collector-{site}"));
        let timeout_ms = transactions.timeout.as_millis();
        let queue_bytes = 2 * transactions.max_bytes.as_usize() + max_record_bytes;
        let own = [
            ("transactional.id", format!("spillway-{site}")),
            ("enable.idempotence", "true".to_owned()),
            ("acks", "all".to_owned()),
            ("transaction.timeout.ms", timeout_ms.to_string()),
            ("message.timeout.ms", timeout_ms.to_string()),
            ("socket.timeout.ms", timeout_ms.min(MAX_SOCKET_TIMEOUT_MS).to_string()),
            ("message.max.bytes", (max_record_bytes + MAX_RECORD_OVERHEAD).min(MAX_MESSAGE_BYTES).to_string()),
            ("batch.size", batch_bytes.to_string()),
            ("queue.buffering.max.kbytes", (queue_bytes / 1024).clamp(1024, MAX_QUEUE_KBYTES).to_string()),
            ("queue.buffering.max.messages", MAX_QUEUE_MESSAGES.to_string()),
            // Batches of a transaction are filled by the data that is there; waiting longer would only delay the commit.
            ("linger.ms", "1".to_owned()),
        ];
        for (key, value) in own {
            config.set(key, value);
        }
        // What the operator may know better.
        for (key, value) in [("compression.type", "lz4")] {
            if config.get(key).is_none() {
                config.set(key, value);
            }
        }
        Self { config }
    }
}

/// As `spillway_kafka` sets it; must not be above the transaction's.
const MAX_SOCKET_TIMEOUT_MS: u128 = 30_000;

/// librdkafka's own bound of `message.max.bytes`.
const MAX_MESSAGE_BYTES: usize = 1_000_000_000;

/// What librdkafka adds to a record when it compares it with `message.max.bytes`, generously.
const MAX_RECORD_OVERHEAD: usize = 64 * 1024;

/// librdkafka's own bound of `queue.buffering.max.kbytes`.
const MAX_QUEUE_KBYTES: usize = i32::MAX as usize;

/// Records in librdkafka's queue; a full queue is waited for.
const MAX_QUEUE_MESSAGES: usize = 1_000_000;

impl SiteProducer {
    /// Makes the client; nothing is sent yet.
    ///
    /// # Errors
    /// When librdkafka refuses the settings.
    pub fn new(settings: &ProducerSettings) -> Result<Self, KafkaError> {
        Ok(Self { topics: HashMap::new(), partitions: HashMap::new(), producer: Rc::new(NativeProducer::new(&settings.config)?) })
    }

    /// Fences every older producer of the site. May take two seconds.
    pub fn init_transactions(&self) -> Result<(), TransactionError> {
        self.producer.call(Call::Init, CALL_TIMEOUT)
    }

    /// Begins a transaction.
    pub fn begin(&self) -> Result<(), TransactionError> {
        self.producer.call(Call::Begin, CALL_TIMEOUT)
    }

    /// Queues a record; see [`TopicHandle::produce`].
    pub fn produce(&mut self, topic: &TopicName, partition: i32, record: &Outgoing<'_>, tag: usize) -> Result<(), RDKafkaErrorCode> {
        if !self.topics.contains_key(topic) {
            let handle = TopicHandle::new(&self.producer, topic.as_str()).ok_or(RDKafkaErrorCode::InvalidTopic)?;
            self.topics.insert(topic.clone(), handle);
        }
        let handle = self.topics.get(topic).ok_or(RDKafkaErrorCode::InvalidTopic)?;
        handle.produce(partition, record, tag)
    }

    /// A topic has so many partitions now. The client looks by itself only every five minutes, and refuses records for those it does not
    /// know; so it is asked to look.
    pub fn expect_partitions(&mut self, topic: &TopicName, partitions: u32) {
        match self.partitions.get(topic) {
            None => {
                self.partitions.insert(topic.clone(), partitions);
            }
            Some(known) if *known < partitions => self.refresh(topic, partitions),
            Some(_) => {}
        }
    }

    /// Asks the brokers for a topic's metadata until it shows `partitions`; gives up after a while, since the next attempt asks again.
    pub fn refresh(&mut self, topic: &TopicName, partitions: u32) {
        let deadline = Instant::now() + REFRESH_TIMEOUT;
        while Instant::now() < deadline {
            let found = self.producer.partitions(topic.as_str(), CALL_TIMEOUT).unwrap_or(0);
            if found >= partitions {
                self.partitions.insert(topic.clone(), found);
                return;
            }
            std::thread::sleep(REFRESH_PAUSE);
        }
    }

    /// Takes delivery reports; waits a little for the first. `reports` gets them.
    pub fn poll(&self, reports: &mut Vec<Report>) {
        self.producer.poll(POLL, reports);
    }

    /// Takes the delivery reports that are there.
    pub fn poll_now(&self, reports: &mut Vec<Report>) {
        self.producer.poll(Duration::ZERO, reports);
    }

    /// Records that are queued or sent and not reported yet.
    pub fn in_flight(&self) -> usize {
        self.producer.in_flight()
    }

    /// Commits. Only after every delivery was reported: librdkafka waits for reports, but does not take them. May take two seconds.
    pub fn commit(&self) -> Result<(), TransactionError> {
        self.producer.call(Call::Commit, CALL_TIMEOUT)
    }

    /// Aborts. Answers [`TransactionError::Again`] until librdkafka has let go of every record. May take two seconds.
    pub fn abort(&self, reports: &mut Vec<Report>) -> Result<(), TransactionError> {
        let timeout = if self.in_flight() > 0 { ABORT_TIMEOUT } else { CALL_TIMEOUT };
        let result = self.producer.call(Call::Abort, timeout);
        self.poll_now(reports);
        result
    }
}

impl fmt::Debug for SiteProducer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SiteProducer").field("topics", &self.topics.len()).finish_non_exhaustive()
    }
}
