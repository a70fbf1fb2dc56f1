//! The central Kafka of a test: the embedded broker, or a real one.

use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers, Message};
use rdkafka::{Offset, TopicPartitionList};
use spillway_broker::{Broker, BrokerOptions};

use super::PATIENCE;

pub(crate) struct Centre {
    broker: Option<Broker>,
    pub(crate) bootstrap: String,
}

/// A record at the centre.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CentralRecord {
    pub(crate) offset: i64,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) timestamp: Option<i64>,
    pub(crate) headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Centre {
    pub(crate) async fn embedded() -> Self {
        let broker = Broker::start(BrokerOptions::default()).await.unwrap();
        let bootstrap = broker.bootstrap().to_owned();
        Self { broker: Some(broker), bootstrap }
    }

    /// The Kafka that `SPILLWAY_TEST_KAFKA` names.
    pub(crate) fn real() -> Self {
        Self { broker: None, bootstrap: std::env::var("SPILLWAY_TEST_KAFKA").expect("SPILLWAY_TEST_KAFKA=host:port") }
    }

    /// The embedded broker, to be mistreated.
    pub(crate) fn broker(&self) -> &Broker {
        self.broker.as_ref().unwrap()
    }

    /// Everything committed in a partition.
    pub(crate) async fn read(&self, topic: &str, partition: i32) -> Vec<CentralRecord> {
        let (bootstrap, topic) = (self.bootstrap.clone(), topic.to_owned());
        tokio::task::spawn_blocking(move || read(&bootstrap, &topic, partition)).await.unwrap()
    }

    /// The values as text.
    pub(crate) async fn values(&self, topic: &str) -> Vec<String> {
        self.read(topic, 0).await.into_iter().map(|record| String::from_utf8(record.value.unwrap()).unwrap()).collect()
    }

    pub(crate) fn admin(&self) -> AdminClient<DefaultClientContext> {
        ClientConfig::new().set("bootstrap.servers", &self.bootstrap).create().unwrap()
    }

    pub(crate) async fn create(&self, topic: &str, partitions: i32, settings: &[(&str, &str)]) {
        let new =
            settings.iter().fold(NewTopic::new(topic, partitions, TopicReplication::Fixed(1)), |new, (key, value)| new.set(key, value));
        self.admin().create_topics([&new], &AdminOptions::new()).await.unwrap().remove(0).unwrap();
    }

    pub(crate) async fn alter(&self, topic: &str, key: &str, value: &str) {
        let alter = AlterConfig::new(ResourceSpecifier::Topic(topic)).set(key, value);
        self.admin().alter_configs([&alter], &AdminOptions::new()).await.unwrap().remove(0).unwrap();
    }

    /// Topics that exist.
    pub(crate) async fn topics(&self) -> Vec<(String, usize)> {
        let consumer = consumer(&self.bootstrap);
        let fetch = move || {
            let metadata = consumer.fetch_metadata(None, PATIENCE).unwrap();
            let mut topics: Vec<_> = metadata.topics().iter().map(|topic| (topic.name().to_owned(), topic.partitions().len())).collect();
            topics.sort();
            topics
        };
        tokio::task::spawn_blocking(fetch).await.unwrap()
    }
}

fn consumer(bootstrap: &str) -> BaseConsumer {
    let mut config = ClientConfig::new();
    for (key, value) in [
        ("bootstrap.servers", bootstrap),
        ("group.id", "test"),
        ("isolation.level", "read_committed"),
        ("enable.partition.eof", "true"),
        ("enable.auto.commit", "false"),
        ("auto.offset.reset", "earliest"),
    ] {
        config.set(key, value);
    }
    config.create().unwrap()
}

/// How long a transaction's markers may take. Real Kafka answers a commit before it writes them; a transaction that is open on purpose
/// costs a test this wait.
const MARKERS: Duration = Duration::from_secs(2);

fn wait_for_markers(bootstrap: &str, topic: &str, partition: i32) {
    let end = |isolation: &str| {
        let mut config = ClientConfig::new();
        let config = config.set("bootstrap.servers", bootstrap).set("isolation.level", isolation).set("group.id", "reader");
        let consumer: BaseConsumer = config.create().unwrap();
        consumer.fetch_watermarks(topic, partition, PATIENCE).unwrap().1
    };
    let deadline = Instant::now() + MARKERS;
    while end("read_committed") != end("read_uncommitted") && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn read(bootstrap: &str, topic: &str, partition: i32) -> Vec<CentralRecord> {
    wait_for_markers(bootstrap, topic, partition);
    let consumer = consumer(bootstrap);
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
    consumer.assign(&list).unwrap();
    let (mut out, deadline) = (Vec::new(), Instant::now() + PATIENCE);
    while Instant::now() < deadline {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => out.push(CentralRecord {
                offset: message.offset(),
                key: message.key().map(<[u8]>::to_vec),
                value: message.payload().map(<[u8]>::to_vec),
                timestamp: message.timestamp().to_millis(),
                headers: message.headers().map_or_else(Vec::new, |headers| {
                    headers.iter().map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec))).collect()
                }),
            }),
            Some(Err(KafkaError::PartitionEOF(_))) => return out,
            Some(Err(error)) => panic!("{topic}-{partition}: {error}"),
            None => {}
        }
    }
    panic!("{topic}-{partition} has no end");
}
