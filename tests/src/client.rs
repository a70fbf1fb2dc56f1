//! What the lab asks of a Kafka cluster, whichever broker it is: topics, records, offsets.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, Producer as _};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};
use tokio::runtime::Runtime;

use crate::wait::{poll_until, wait_until};

mod produce;

pub use produce::{LoadProducer, base_record};

/// Bound of every single request.
pub(crate) const REQUEST_LIMIT: Duration = Duration::from_secs(20);

/// How long a probe of a cluster that may be down waits.
pub(crate) const PROBE_LIMIT: Duration = Duration::from_millis(1500);

/// What a cluster answers while coordinators or leaders are moving.
const MOVING: [RDKafkaErrorCode; 5] = [
    RDKafkaErrorCode::NotCoordinator,
    RDKafkaErrorCode::CoordinatorNotAvailable,
    RDKafkaErrorCode::CoordinatorLoadInProgress,
    RDKafkaErrorCode::NotLeaderForPartition,
    RDKafkaErrorCode::LeaderNotAvailable,
];

/// Record headers in order, as the lab writes them: a header may have no value.
pub type Headers = Vec<(String, Option<Vec<u8>>)>;

/// One record to produce.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewRecord {
    /// `None` is null, which is not the same as empty.
    pub key: Option<Vec<u8>>,
    /// `None` is null (a tombstone), which is not the same as empty.
    pub value: Option<Vec<u8>>,
    /// In order; names may repeat.
    pub headers: Headers,
    /// CreateTime in milliseconds since 1970; now if `None`.
    pub timestamp_ms: Option<i64>,
}

/// A cluster by its bootstrap servers, and further librdkafka settings if it wants any.
#[derive(Debug, Clone)]
pub struct Client {
    bootstrap: String,
    settings: Vec<(String, String)>,
}

/// Whether `brokers` brokers answer for a cluster and every partition has a leader.
///
/// # Errors
/// When it does not answer.
pub fn is_whole(bootstrap: &str, brokers: usize) -> Result<bool> {
    let consumer: BaseConsumer = Client::new(bootstrap).config().create()?;
    let metadata = consumer.fetch_metadata(None, PROBE_LIMIT)?;
    let led = metadata.topics().iter().flat_map(|topic| topic.partitions()).all(|partition| partition.leader() >= 0);
    Ok(led && metadata.brokers().len() == brokers)
}

impl Client {
    /// A client without security. Nothing is connected yet.
    #[must_use]
    pub fn new(bootstrap: impl Into<String>) -> Self {
        Self { bootstrap: bootstrap.into(), settings: Vec::new() }
    }

    /// Adds a librdkafka setting to everything this client does.
    #[must_use]
    pub fn with(mut self, key: &str, value: &str) -> Self {
        self.settings.push((key.to_owned(), value.to_owned()));
        self
    }

    /// The bootstrap servers.
    #[must_use]
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// librdkafka's settings for this cluster, to build on.
    #[must_use]
    pub fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap).set("client.id", "spillway-lab");
        for (key, value) in &self.settings {
            config.set(key, value);
        }
        config
    }

    /// Creates a topic with the cluster's default replication factor and waits until its partitions have leaders.
    ///
    /// # Errors
    /// When the broker refuses it, also because it exists.
    pub fn create_topic(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) -> Result<()> {
        let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(-1));
        for (key, value) in settings {
            topic = topic.set(key, value);
        }
        let done = block_on(self.admin()?.create_topics(&[topic], &options()))?;
        one_topic(done).with_context(|| format!("cannot create topic {name}"))?;
        self.wait_for_partitions(name, partitions)
    }

    /// Deletes a topic and waits until it is gone from the metadata.
    ///
    /// # Errors
    /// When the broker refuses.
    pub fn delete_topic(&self, name: &str) -> Result<()> {
        let done = block_on(self.admin()?.delete_topics(&[name], &options()))?;
        one_topic(done).with_context(|| format!("cannot delete topic {name}"))?;
        wait_until(&format!("topic {name} is gone"), REQUEST_LIMIT, || Ok(!self.topics()?.contains_key(name)))
    }

    /// Raises the partition count and waits until the new ones have leaders.
    ///
    /// # Errors
    /// When the broker refuses.
    pub fn set_partitions(&self, name: &str, count: i32) -> Result<()> {
        let new_count = usize::try_from(count)?;
        let done = block_on(self.admin()?.create_partitions(&[NewPartitions::new(name, new_count)], &options()))?;
        one_topic(done).with_context(|| format!("cannot add partitions to {name}"))?;
        self.wait_for_partitions(name, count)
    }

    /// Sets one setting of a topic. (The broker's older request: settings of the topic not named here fall back to defaults.)
    ///
    /// # Errors
    /// When the broker refuses.
    pub fn alter_topic(&self, name: &str, settings: &[(&str, &str)]) -> Result<()> {
        let mut change = AlterConfig::new(ResourceSpecifier::Topic(name));
        for (key, value) in settings {
            change = change.set(key, value);
        }
        for result in block_on(self.admin()?.alter_configs([&change], &options()))? {
            result.map_err(|(_, code)| anyhow!("cannot alter topic {name}: {code}"))?;
        }
        Ok(())
    }

    /// Deletes a partition's records below offset `before`.
    ///
    /// # Errors
    /// When the broker refuses.
    pub fn delete_records(&self, topic: &str, partition: i32, before: i64) -> Result<()> {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Offset(before))?;
        let done = block_on(self.admin()?.delete_records(&list, &options()))?;
        for element in done.elements() {
            element.error().with_context(|| format!("cannot delete records of {topic}-{partition}"))?;
        }
        Ok(())
    }

    /// All topics and their partition counts.
    ///
    /// # Errors
    /// When the cluster does not answer.
    pub fn topics(&self) -> Result<BTreeMap<String, i32>> {
        topics_known_to(&self.config().create()?)
    }

    /// First offset of a partition, and where a `read_committed` reader comes to its end.
    ///
    /// # Errors
    /// When the cluster does not answer.
    pub fn watermarks(&self, topic: &str, partition: i32) -> Result<(i64, i64)> {
        let consumer: BaseConsumer = self.config().create()?;
        // Right after a restart a broker may not know yet that it leads the partition.
        let found = poll_until(REQUEST_LIMIT, || Ok(consumer.fetch_watermarks(topic, partition, PROBE_LIMIT).ok()))?;
        found.with_context(|| format!("no watermarks of {topic}-{partition} within {REQUEST_LIMIT:?}"))
    }

    /// The leader of a partition (`None` while it has none) and how many of its replicas are in sync.
    ///
    /// # Errors
    /// When the cluster does not answer, or has no such partition.
    pub fn leader(&self, topic: &str, partition: i32) -> Result<(Option<i32>, usize)> {
        let consumer: BaseConsumer = self.config().create()?;
        let metadata = once_settled(|| consumer.fetch_metadata(Some(topic), REQUEST_LIMIT))?;
        let mut partitions = metadata.topics().iter().flat_map(|topic| topic.partitions());
        let found = partitions.find(|found| found.id() == partition).with_context(|| format!("there is no {topic}-{partition}"))?;
        Ok((Some(found.leader()).filter(|leader| *leader >= 0), found.isr().len()))
    }

    /// What `group` has committed for the first `partitions` partitions of `topic`; `None` where nothing is.
    ///
    /// # Errors
    /// When the cluster does not answer.
    pub fn committed(&self, group: &str, topic: &str, partitions: i32) -> Result<Vec<Option<i64>>> {
        let consumer: BaseConsumer = self.config().set("group.id", group).create()?;
        let mut list = TopicPartitionList::new();
        for partition in 0..partitions {
            list.add_partition(topic, partition);
        }
        let committed = once_settled(|| consumer.committed_offsets(list.clone(), REQUEST_LIMIT))?;
        let mut offsets = vec![None; usize::try_from(partitions)?];
        for element in committed.elements() {
            if let (Offset::Offset(offset), Ok(index)) = (element.offset(), usize::try_from(element.partition()))
                && let Some(slot) = offsets.get_mut(index)
            {
                *slot = Some(offset);
            }
        }
        Ok(offsets)
    }

    /// A producer that keeps order and loses nothing while the cluster is there.
    ///
    /// # Errors
    /// When librdkafka refuses the settings.
    pub fn producer(&self) -> Result<LoadProducer> {
        let mut config = self.config();
        config
            .set("enable.idempotence", "true")
            .set("linger.ms", "5")
            .set("message.max.bytes", "10000000")
            .set("queue.buffering.max.kbytes", "65536");
        Ok(LoadProducer { producer: config.create()? })
    }

    /// A transactional producer, for sources with aborted records. Transactions are initialised.
    ///
    /// # Errors
    /// When the cluster does not answer.
    pub fn transactional_producer(&self, id: &str) -> Result<BaseProducer> {
        let mut config = self.config();
        config.set("transactional.id", id).set("linger.ms", "5").set("message.max.bytes", "10000000");
        let producer: BaseProducer = config.create()?;
        once_settled(|| producer.init_transactions(REQUEST_LIMIT))?;
        Ok(producer)
    }

    /// A consumer without a group that reads committed records only and says where a partition ends.
    ///
    /// # Errors
    /// When librdkafka refuses the settings.
    pub fn reader(&self) -> Result<BaseConsumer> {
        let mut config = self.config();
        config
            .set("group.id", "spillway-lab-reader")
            .set("enable.auto.commit", "false")
            .set("isolation.level", "read_committed")
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "error")
            .set("check.crcs", "true")
            .set("fetch.wait.max.ms", "50")
            .set("queued.min.messages", "10000")
            .set("message.max.bytes", "10000000");
        Ok(config.create()?)
    }

    fn admin(&self) -> Result<AdminClient<DefaultClientContext>> {
        Ok(self.config().create()?)
    }

    fn wait_for_partitions(&self, name: &str, count: i32) -> Result<()> {
        let consumer: BaseConsumer = self.config().create()?;
        wait_until(&format!("topic {name} has {count} partitions with leaders"), REQUEST_LIMIT, || {
            let metadata = once_settled(|| consumer.fetch_metadata(Some(name), REQUEST_LIMIT))?;
            let led = metadata.topics().first().map_or(0, |topic| topic.partitions().iter().filter(|p| p.leader() >= 0).count());
            Ok(i32::try_from(led)? == count)
        })
    }
}

/// Asks again while the cluster says that it is still finding its order: a coordinator or leader that is moving, or that is created with the
/// very first request (on a loaded machine that takes seconds).
fn once_settled<T>(mut ask: impl FnMut() -> Result<T, KafkaError>) -> Result<T> {
    let mut last = None;
    let answer = poll_until(REQUEST_LIMIT, || match ask() {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if error.rdkafka_error_code().is_some_and(|code| MOVING.contains(&code)) => {
            last = Some(error);
            Ok(None)
        }
        Err(error) => Err(error.into()),
    })?;
    answer.with_context(|| format!("no answer within {REQUEST_LIMIT:?}: {last:?}"))
}

/// All topics that the cluster knows, with their partition counts.
pub(crate) fn topics_known_to(consumer: &BaseConsumer) -> Result<BTreeMap<String, i32>> {
    let metadata = once_settled(|| consumer.fetch_metadata(None, REQUEST_LIMIT))?;
    let count = |topic: &rdkafka::metadata::MetadataTopic| i32::try_from(topic.partitions().len()).unwrap_or(i32::MAX);
    Ok(metadata.topics().iter().map(|topic| (topic.name().to_owned(), count(topic))).collect())
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(REQUEST_LIMIT)).operation_timeout(Some(REQUEST_LIMIT))
}

fn one_topic(results: Vec<rdkafka::admin::TopicResult>) -> Result<()> {
    for result in results {
        result.map_err(|(_, code)| anyhow!("{code}"))?;
    }
    Ok(())
}

/// Runs one of librdkafka's admin futures; they are woken by a thread of their own and need no reactor.
fn block_on<T, E: std::error::Error + Send + Sync + 'static>(work: impl Future<Output = Result<T, E>>) -> Result<T> {
    static RUNTIME: OnceLock<std::io::Result<Runtime>> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build());
    match runtime {
        Ok(runtime) => Ok(runtime.block_on(work)?),
        Err(error) => bail!("cannot start a runtime: {error}"),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_moving_coordinator_is_asked_again_and_any_other_error_is_told_at_once() {
        let mut answers = [Err(RDKafkaErrorCode::NotCoordinator), Err(RDKafkaErrorCode::LeaderNotAvailable), Ok(7)].into_iter();
        let answer = once_settled(|| answers.next().unwrap().map_err(KafkaError::MetadataFetch)).unwrap();
        assert_eq!(answer, 7);
        let mut asked = 0;
        let refused: Result<()> = once_settled(|| {
            asked += 1;
            Err(KafkaError::MetadataFetch(RDKafkaErrorCode::TopicAuthorizationFailed))
        });
        assert!(refused.is_err() && asked == 1, "asked {asked} times");
    }
}
