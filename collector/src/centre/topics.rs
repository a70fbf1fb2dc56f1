//! Topics of the central Kafka: looked up, created, given partitions.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use spillway_config::{KafkaClient, RemoteTopicsConfig};
use spillway_kafka::topics::{DescribeError, describe_topics};
use spillway_proto::{SiteName, TopicName, naming, progress};

/// How long one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Topics whose state is remembered; beyond that the memory is emptied and filled anew. One entry takes about 200 bytes.
const MAX_KNOWN: usize = 100_000;

/// Creates topics and knows which are there. Cheap to clone.
#[derive(Clone)]
pub struct Topics {
    shared: Arc<Shared>,
}

struct Shared {
    admin: AdminClient<spillway_kafka::Context>,
    config: RemoteTopicsConfig,
    known: Mutex<HashMap<TopicName, Arc<tokio::sync::Mutex<Known>>>>,
}

/// Partitions that the topic has; 0: not looked up yet. Its lock joins those who ask for the same topic at once.
type Known = u32;

/// Why a topic is not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The central Kafka does not answer, or not well: try again.
    #[error("{action} topic {topic}: {reason}")]
    Unavailable {
        /// What was tried.
        action: &'static str,
        /// The topic.
        topic: TopicName,
        /// What the central Kafka or librdkafka said.
        reason: String,
    },
    /// The central Kafka will not have it.
    #[error("the central Kafka refuses to {action} topic {topic} ({code}); {remedy}")]
    Refused {
        /// What was tried.
        action: &'static str,
        /// The topic.
        topic: TopicName,
        /// What the central Kafka said.
        code: RDKafkaErrorCode,
        /// What to do about it.
        remedy: String,
    },
}

/// Settings of a topic that can refuse a record, by name.
pub type RefusingSettings = BTreeMap<String, String>;

/// The settings of [`RefusingSettings`].
const REFUSING: &[&str] = &[
    "max.message.bytes",
    "message.timestamp.type",
    "message.timestamp.difference.max.ms",
    "message.timestamp.before.max.ms",
    "message.timestamp.after.max.ms",
    "cleanup.policy",
];

impl Topics {
    /// Makes the client; nothing is asked yet.
    ///
    /// # Errors
    /// When librdkafka refuses the settings.
    pub fn new(kafka: &KafkaClient, config: RemoteTopicsConfig) -> Result<Self, KafkaError> {
        let client = spillway_kafka::admin_client_config(kafka, "spillway-collector-admin");
        let admin = client.create_with_context(spillway_kafka::Context)?;
        Ok(Self { shared: Arc::new(Shared { admin, config, known: Mutex::default() }) })
    }

    /// Makes sure that a remote topic exists with at least `partitions`.
    pub async fn ensure_remote(&self, topic: &TopicName, partitions: u32) -> Result<(), Error> {
        let factor = self.shared.config.replication_factor;
        self.ensure(topic, partitions, |topic| NewTopic::new(topic, to_i32(partitions), TopicReplication::Fixed(factor))).await?;
        Ok(())
    }

    /// Makes sure that a site's topic of offset syncs exists, as MirrorMaker 2 makes it.
    pub async fn ensure_syncs(&self, topic: &TopicName) -> Result<(), Error> {
        let factor = self.shared.config.internal_replication_factor;
        self.ensure(topic, 1, |topic| NewTopic::new(topic, 1, TopicReplication::Fixed(factor)).set("cleanup.policy", "compact")).await?;
        Ok(())
    }

    /// Makes sure that `spillway-progress.internal` exists, and answers its partitions. They are never added to: a site's place follows
    /// from their number.
    pub async fn ensure_progress(&self) -> Result<u32, Error> {
        let topic = TopicName::parse(progress::TOPIC).map_err(|error| Error::Unavailable {
            action: "name",
            topic: progress_name(),
            reason: error.to_string(),
        })?;
        let (factor, partitions) = (self.shared.config.internal_replication_factor, self.shared.config.progress_partitions);
        let new = |topic| {
            PROGRESS_SETTINGS
                .iter()
                .fold(NewTopic::new(topic, partitions, TopicReplication::Fixed(factor)), |new, (key, value)| new.set(key, value))
        };
        self.ensure(&topic, 1, new).await
    }

    /// Makes sure that `spillway-gaps.internal` exists; it is only asked for once while it is known to be there.
    pub async fn ensure_gaps(&self) -> Result<(), Error> {
        let factor = self.shared.config.internal_replication_factor;
        let new = |topic| {
            GAPS_SETTINGS.iter().fold(NewTopic::new(topic, 1, TopicReplication::Fixed(factor)), |new, (key, value)| new.set(key, value))
        };
        self.ensure(&gaps_name(), 1, new).await?;
        Ok(())
    }

    /// What was known of the topic may be wrong: look again next time.
    pub async fn forget(&self, topic: &TopicName) {
        *self.entry(topic).lock().await = 0;
    }

    /// The topic's settings that can refuse records; for those who hold a record that was refused.
    pub async fn refusing_settings(&self, topic: &TopicName) -> Result<RefusingSettings, Error> {
        let unavailable = |reason: String| Error::Unavailable { action: "read the settings of", topic: topic.clone(), reason };
        let resource = ResourceSpecifier::Topic(topic.as_str());
        let result = self.shared.admin.describe_configs([&resource], &options()).await;
        let described = result.map_err(|error| unavailable(error.to_string()))?.pop();
        let described = described.ok_or_else(|| unavailable("no answer".to_owned()))?.map_err(|code| unavailable(code.to_string()))?;
        let entries = described.entries.into_iter().filter(|entry| REFUSING.contains(&entry.name.as_str()));
        Ok(entries.filter_map(|entry| Some((entry.name, entry.value?))).collect())
    }

    /// True when the central Kafka answers.
    pub async fn reachable(&self) -> bool {
        self.partitions(&progress_name()).await.is_ok()
    }

    async fn ensure<'t>(&self, topic: &'t TopicName, partitions: u32, new: impl FnOnce(&'t str) -> NewTopic<'t>) -> Result<u32, Error> {
        let entry = self.entry(topic);
        let mut known = entry.lock().await;
        if *known >= partitions {
            return Ok(*known);
        }
        let mut found = self.partitions(topic).await?;
        if found.is_none() {
            found = self.create(topic, new(topic.as_str())).await?;
        }
        match found {
            Some(found) if found >= partitions => *known = found,
            // Just created by us, or by somebody at the same moment, who may have given it fewer partitions.
            None | Some(_) => *known = self.grow(topic, found, partitions).await?,
        }
        Ok(*known)
    }

    /// Creates the topic; answers its partitions, `None` where they are not known yet.
    async fn create(&self, topic: &TopicName, new: NewTopic<'_>) -> Result<Option<u32>, Error> {
        let action = "create";
        let count = u32::try_from(new.num_partitions).unwrap_or(1);
        let results = self.shared.admin.create_topics([&new], &options()).await;
        let results = results.map_err(|error| Error::Unavailable { action, topic: topic.clone(), reason: error.to_string() })?;
        match results.into_iter().next() {
            Some(Ok(_)) => {
                tracing::info!(%topic, partitions = count, "created topic at the central Kafka");
                Ok(Some(count))
            }
            Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => self.partitions(topic).await,
            Some(Err((_, code))) => Err(refusal(action, topic, code)),
            None => Err(Error::Unavailable { action, topic: topic.clone(), reason: "no answer".to_owned() }),
        }
    }

    async fn grow(&self, topic: &TopicName, found: Option<u32>, partitions: u32) -> Result<u32, Error> {
        let action = "add partitions to";
        let new = NewPartitions::new(topic.as_str(), partitions as usize);
        let results = self.shared.admin.create_partitions([&new], &options()).await;
        let results = results.map_err(|error| Error::Unavailable { action, topic: topic.clone(), reason: error.to_string() })?;
        match results.into_iter().next() {
            Some(Ok(_)) => {
                tracing::info!(%topic, before = found, partitions, "added partitions at the central Kafka");
                Ok(partitions)
            }
            // Somebody was faster, or the metadata is older than the topic: ask again.
            Some(Err((_, RDKafkaErrorCode::InvalidPartitions))) => match self.partitions(topic).await? {
                Some(found) if found >= partitions => Ok(found),
                _ => Err(Error::Unavailable { action, topic: topic.clone(), reason: "its partition count is in motion".to_owned() }),
            },
            Some(Err((_, code))) => Err(refusal(action, topic, code)),
            None => Err(Error::Unavailable { action, topic: topic.clone(), reason: "no answer".to_owned() }),
        }
    }

    /// Partitions of a topic; `None` when there is no such topic. Never creates it, whatever the brokers' auto-creation says.
    async fn partitions(&self, topic: &TopicName) -> Result<Option<u32>, Error> {
        let action = "look up";
        let unavailable = |reason: String| Error::Unavailable { action, topic: topic.clone(), reason };
        let (shared, name) = (Arc::clone(&self.shared), topic.clone());
        let ask = move || describe_topics(shared.admin.inner(), std::slice::from_ref(&name), REQUEST_TIMEOUT);
        let answer: Result<_, DescribeError> = tokio::task::spawn_blocking(ask).await.map_err(|error| unavailable(error.to_string()))?;
        let described = answer.map_err(|error| unavailable(error.to_string()))?.pop();
        match described.map(|described| described.outcome) {
            Some(Ok(shape)) => Ok(Some(shape.partitions)),
            Some(Err(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic)) => Ok(None),
            Some(Err(code)) => Err(refusal(action, topic, code)),
            None => Err(unavailable("no answer".to_owned())),
        }
    }

    fn entry(&self, topic: &TopicName) -> Arc<tokio::sync::Mutex<Known>> {
        let mut known = self.shared.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_KNOWN && !known.contains_key(topic) {
            known.clear();
        }
        Arc::clone(known.entry(topic.clone()).or_default())
    }
}

impl std::fmt::Debug for Topics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Topics").finish_non_exhaustive()
    }
}

/// The name of a site's topic of offset syncs. `None` cannot happen with a checked separator.
pub fn syncs_topic(policy: &naming::PrefixPolicy, site: &SiteName) -> Option<TopicName> {
    TopicName::parse(&policy.offset_syncs_topic(site)).ok()
}

/// `spillway-progress.internal` is written all the time and read whole by every collector that starts, so the brokers must clean it often:
/// small segments, rolled every ten minutes (only closed ones are cleaned), cleaned when a tenth of them is stale.
const PROGRESS_SETTINGS: &[(&str, &str)] = &[
    ("cleanup.policy", "compact"),
    ("segment.bytes", "16777216"),
    ("segment.ms", "600000"),
    ("min.cleanable.dirty.ratio", "0.1"),
    ("max.compaction.lag.ms", "3600000"),
];

/// `spillway-gaps.internal` is evidence, asked for when somebody misses records months later: no event goes for its age. An event takes some
/// 300 bytes, so the bound in bytes holds three million of them; it is there because a site that loses without end must not fill the disks.
/// The times are those that the collector wrote, whatever the brokers' default says.
const GAPS_SETTINGS: &[(&str, &str)] = &[
    ("cleanup.policy", "delete"),
    ("retention.ms", "-1"),
    ("retention.bytes", "1073741824"),
    ("segment.bytes", "67108864"),
    ("message.timestamp.type", "CreateTime"),
];

/// The name of the topic of gaps.
pub fn gaps_name() -> TopicName {
    #[expect(clippy::expect_used, reason = "a constant that the tests parse")]
    TopicName::parse(naming::GAPS_TOPIC).expect("a topic name")
}

fn progress_name() -> TopicName {
    #[expect(clippy::expect_used, reason = "a constant that the tests parse")]
    TopicName::parse(progress::TOPIC).expect("a topic name")
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(REQUEST_TIMEOUT)).operation_timeout(Some(REQUEST_TIMEOUT))
}

fn to_i32(partitions: u32) -> i32 {
    i32::try_from(partitions).unwrap_or(i32::MAX)
}

fn refusal(action: &'static str, topic: &TopicName, code: RDKafkaErrorCode) -> Error {
    let acl = |operation: &str| {
        let prefix = topic.as_str().split('.').next().unwrap_or_default();
        format!(
            "give the collector's user the right: kafka-acls --add --allow-principal User:NAME --operation {operation} --topic {prefix} --resource-pattern-type prefixed"
        )
    };
    let remedy = match (code, action) {
        (RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::ClusterAuthorizationFailed, "create") => acl("Create"),
        (RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::ClusterAuthorizationFailed, "look up") => acl("Describe"),
        (RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::ClusterAuthorizationFailed, _) => acl("Alter"),
        (RDKafkaErrorCode::PolicyViolation, _) => {
            "a policy of the central Kafka forbids it: make the topic by hand or change the policy".to_owned()
        }
        (RDKafkaErrorCode::InvalidReplicationFactor, _) => {
            "there are fewer brokers than topics.replication_factor: lower it in collector.toml or add brokers".to_owned()
        }
        (RDKafkaErrorCode::InvalidTopic, _) => "the central Kafka does not accept the name".to_owned(),
        _ => return Error::Unavailable { action, topic: topic.clone(), reason: code.to_string() },
    };
    Error::Refused { action, topic: topic.clone(), code, remedy }
}
