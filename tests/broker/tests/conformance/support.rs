//! What the checks share: a broker to check, producers, readers.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Debug;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, DeliveryResult, Headers, Message, OwnedHeaders, Timestamp};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use spillway_broker::{Broker, BrokerOptions};
use tokio::runtime::Runtime;

/// How long anything may take before the check fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A broker to check.
pub(crate) struct Target {
    pub(crate) bootstrap: String,
    pub(crate) runtime: Runtime,
    pub(crate) broker: Option<Broker>,
    prefix: String,
}

impl Target {
    /// A fresh embedded broker.
    pub(crate) fn embedded() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let broker = runtime.block_on(Broker::start(BrokerOptions::default())).unwrap();
        Self { bootstrap: broker.bootstrap(), runtime, broker: Some(broker), prefix: prefix() }
    }

    /// The Apache Kafka that the environment names.
    pub(crate) fn kafka() -> Self {
        let bootstrap = std::env::var("SPILLWAY_TEST_KAFKA").expect("left out: SPILLWAY_TEST_KAFKA=host:port is not set");
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        Self { bootstrap, runtime, broker: None, prefix: prefix() }
    }

    /// A name that nobody else uses.
    pub(crate) fn name(&self, what: &str) -> String {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        format!("{}-{what}-{}", self.prefix, COUNT.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap);
        config
    }

    pub(crate) fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.config().create().unwrap()
    }

    /// Creates a topic of its own for the check.
    pub(crate) fn topic(&self, what: &str, partitions: i32, settings: &[(&str, &str)]) -> String {
        let name = self.name(what);
        self.create(&name, partitions, settings).unwrap();
        name
    }

    pub(crate) fn create(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) -> Result<(), RDKafkaErrorCode> {
        let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        for (key, value) in settings {
            topic = topic.set(key, value);
        }
        let created = self.runtime.block_on(self.admin().create_topics([&topic], &admin_options()));
        created.unwrap().remove(0).map(|_| ()).map_err(|(_, code)| code)
    }

    pub(crate) fn producer(&self, settings: &[(&str, &str)]) -> Sender {
        let mut config = self.config();
        config.set("message.timeout.ms", "10000").set("linger.ms", "0");
        for (key, value) in settings {
            config.set(*key, *value);
        }
        let outcomes = Outcomes::default();
        let producer = config.create_with_context(outcomes.clone()).unwrap();
        Sender { producer, outcomes }
    }

    pub(crate) fn transactional(&self, id: &str) -> Sender {
        let sender = self.producer(&[("transactional.id", id), ("transaction.timeout.ms", "60000")]);
        sender.producer.init_transactions(PATIENCE).unwrap();
        sender
    }

    pub(crate) fn consumer(&self, settings: &[(&str, &str)]) -> BaseConsumer {
        let mut config = self.config();
        config
            .set("group.id", self.name("reader"))
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "error")
            .set("fetch.wait.max.ms", "100");
        for (key, value) in settings {
            config.set(*key, *value);
        }
        config.create().unwrap()
    }

    /// Everything that a partition holds from `start` on.
    pub(crate) fn read_from(&self, topic: &str, partition: i32, start: Offset, isolation: &str) -> Vec<Got> {
        let consumer = self.consumer(&[("isolation.level", isolation)]);
        assign(&consumer, topic, partition, start);
        to_the_end(&consumer, 1)
    }

    pub(crate) fn read(&self, topic: &str, partition: i32, isolation: &str) -> Vec<Got> {
        self.read_from(topic, partition, Offset::Beginning, isolation)
    }

    /// The values that `read_committed` sees, as text.
    pub(crate) fn committed(&self, topic: &str, partition: i32) -> Vec<String> {
        self.read(topic, partition, "read_committed").iter().map(Got::text).collect()
    }

    /// The values that `read_committed` must see. Apache Kafka answers a commit a moment before it writes the markers.
    pub(crate) fn expect_committed(&self, topic: &str, partition: i32, expected: &[impl AsRef<str>]) {
        let expected: Vec<_> = expected.iter().map(AsRef::as_ref).collect();
        self.expect(&expected, || self.committed(topic, partition));
    }

    /// The first and next offset that this isolation level must see.
    pub(crate) fn expect_watermarks(&self, topic: &str, partition: i32, isolation: &str, expected: (i64, i64)) {
        self.expect(&expected, || self.watermarks(topic, partition, isolation));
    }

    /// Compares; on Apache Kafka again and again, on the embedded broker, which does things at once, only once.
    fn expect<E: PartialEq<T> + Debug, T: Debug>(&self, expected: &E, find: impl Fn() -> T) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = find();
            if *expected == found {
                return;
            }
            let more = self.broker.is_none() && Instant::now() < deadline;
            assert!(more, "expected {expected:?}, found {found:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// First and next offset as this isolation level sees them.
    pub(crate) fn watermarks(&self, topic: &str, partition: i32, isolation: &str) -> (i64, i64) {
        self.consumer(&[("isolation.level", isolation)]).fetch_watermarks(topic, partition, PATIENCE).unwrap()
    }
}

/// A record as it came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Got {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<(String, Option<Vec<u8>>)>,
    pub(crate) timestamp: Timestamp,
}

impl Got {
    pub(crate) fn of(message: &BorrowedMessage<'_>) -> Self {
        let header = |header: rdkafka::message::Header<'_, &[u8]>| (header.key.to_owned(), header.value.map(<[u8]>::to_vec));
        Self {
            partition: message.partition(),
            offset: message.offset(),
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            headers: message.headers().map(|headers| headers.iter().map(header).collect()).unwrap_or_default(),
            timestamp: message.timestamp(),
        }
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(self.value.as_deref().unwrap_or_default()).into_owned()
    }
}

/// A record to be sent; everything but the topic may be left out.
#[derive(Debug, Clone, Default)]
pub(crate) struct Put<'a> {
    pub(crate) partition: i32,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    pub(crate) headers: Option<OwnedHeaders>,
    pub(crate) timestamp: Option<i64>,
}

/// A producer that remembers what became of its records.
pub(crate) struct Sender {
    pub(crate) producer: BaseProducer<Outcomes>,
    pub(crate) outcomes: Outcomes,
}

/// The delivery reports, in order.
#[derive(Clone, Default)]
pub(crate) struct Outcomes(Arc<Mutex<Vec<Result<i64, RDKafkaErrorCode>>>>);

impl ClientContext for Outcomes {}

impl ProducerContext for Outcomes {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let outcome = match result {
            Ok(message) => Ok(message.offset()),
            Err((error, _)) => Err(error.rdkafka_error_code().unwrap()),
        };
        self.0.lock().unwrap().push(outcome);
    }
}

impl Sender {
    pub(crate) fn put(&self, topic: &str, put: &Put<'_>) {
        let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(topic).partition(put.partition);
        if let Some(key) = put.key {
            record = record.key(key);
        }
        if let Some(value) = put.value {
            record = record.payload(value);
        }
        if let Some(headers) = put.headers.clone() {
            record = record.headers(headers);
        }
        if let Some(timestamp) = put.timestamp {
            record = record.timestamp(timestamp);
        }
        self.producer.send(record).map_err(|(error, _)| error).unwrap();
    }

    pub(crate) fn text(&self, topic: &str, partition: i32, value: &str) {
        self.put(topic, &Put { partition, value: Some(value.as_bytes()), ..Put::default() });
    }

    /// Waits for all and returns what became of each record since the last call.
    pub(crate) fn flush(&self) -> Vec<Result<i64, RDKafkaErrorCode>> {
        self.producer.flush(PATIENCE).unwrap();
        std::mem::take(&mut *self.outcomes.0.lock().unwrap())
    }

    /// Waits for all; none may fail.
    pub(crate) fn delivered(&self) -> Vec<i64> {
        self.flush().into_iter().collect::<Result<_, _>>().unwrap()
    }

    pub(crate) fn begin(&self) {
        self.producer.begin_transaction().unwrap();
    }

    pub(crate) fn commit(&self) {
        self.producer.commit_transaction(PATIENCE).unwrap();
    }

    /// Commits, or aborts if librdkafka asks for it; answers whether it committed.
    pub(crate) fn commit_or_abort(&self) -> bool {
        match self.producer.commit_transaction(PATIENCE) {
            Ok(()) => true,
            Err(KafkaError::Transaction(error)) if error.txn_requires_abort() => {
                self.abort();
                false
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// Aborts; librdkafka wants the delivery reports to be taken first.
    pub(crate) fn abort(&self) {
        self.producer.flush(PATIENCE).unwrap();
        self.producer.abort_transaction(PATIENCE).unwrap();
    }
}

pub(crate) fn admin_options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(PATIENCE)).request_timeout(Some(PATIENCE))
}

pub(crate) fn assign(consumer: &BaseConsumer, topic: &str, partition: i32, start: Offset) {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, start).unwrap();
    consumer.assign(&list).unwrap();
}

/// Polls until every one of so many partitions is at its end.
pub(crate) fn to_the_end(consumer: &BaseConsumer, partitions: usize) -> Vec<Got> {
    let deadline = Instant::now() + PATIENCE;
    let (mut got, mut ended) = (Vec::new(), HashSet::new());
    while ended.len() < partitions {
        assert!(Instant::now() < deadline, "not at the end after {PATIENCE:?}, got {} records", got.len());
        match consumer.poll(Duration::from_millis(100)) {
            None => {}
            Some(Ok(message)) => got.push(Got::of(&message)),
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                ended.insert(partition);
            }
            Some(Err(error)) => panic!("reading failed: {error}"),
        }
    }
    got
}

/// The records of several partitions, by partition.
pub(crate) fn by_partition(got: Vec<Got>) -> BTreeMap<i32, Vec<String>> {
    let mut sorted: BTreeMap<i32, Vec<String>> = BTreeMap::new();
    for got in got {
        sorted.entry(got.partition).or_default().push(got.text());
    }
    sorted
}

/// Polls a condition until it holds.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

pub(crate) fn now_ms() -> i64 {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(unix.as_millis()).unwrap()
}

/// Real brokers keep what former runs left: names must differ.
fn prefix() -> String {
    format!("t{:x}-{}", now_ms(), std::process::id())
}
