//! The topics of the broker, by name and by id.

use std::collections::{BTreeMap, HashMap};

use kafka_protocol::ResponseError;
use uuid::Uuid;

use crate::config::{self, Overrides, Settings};
use crate::log::PartitionLog;

/// The longest topic name that Kafka takes.
const NAME_LEN_MAX: usize = 249;
/// The most partitions of one topic here; a request for more is a mistake, not a test.
const PARTITIONS_MAX: i32 = 10_000;

/// One topic. A topic that is deleted and made anew has another id.
#[derive(Debug)]
pub(crate) struct Topic {
    pub(crate) id: Uuid,
    pub(crate) overrides: Overrides,
    pub(crate) settings: Settings,
    pub(crate) partitions: Vec<PartitionLog>,
}

/// All topics.
#[derive(Debug, Default)]
pub(crate) struct Topics {
    by_name: BTreeMap<String, Topic>,
    names: HashMap<Uuid, String>,
}

/// Why a topic operation was refused: Kafka's code and what it says to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) code: ResponseError,
    pub(crate) message: String,
}

impl Refused {
    pub(crate) fn new(code: ResponseError, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

impl Topics {
    pub(crate) fn get(&self, name: &str) -> Option<&Topic> {
        self.by_name.get(name)
    }

    pub(crate) fn get_mut(&mut self, name: &str) -> Option<&mut Topic> {
        self.by_name.get_mut(name)
    }

    /// The name of the topic with this id.
    pub(crate) fn name(&self, id: Uuid) -> Option<&str> {
        self.names.get(&id).map(String::as_str)
    }

    /// All topics in the order of their names.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Topic)> {
        self.by_name.iter().map(|(name, topic)| (name.as_str(), topic))
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Topic> {
        self.by_name.values_mut()
    }

    /// Finds a partition.
    ///
    /// # Errors
    /// `UNKNOWN_TOPIC_OR_PARTITION`.
    pub(crate) fn partition(&self, topic: &str, partition: i32) -> Result<&PartitionLog, ResponseError> {
        let index = usize::try_from(partition).map_err(|_| ResponseError::UnknownTopicOrPartition)?;
        let topic = self.get(topic).ok_or(ResponseError::UnknownTopicOrPartition)?;
        topic.partitions.get(index).ok_or(ResponseError::UnknownTopicOrPartition)
    }

    /// Finds a partition together with its topic's settings.
    ///
    /// # Errors
    /// `UNKNOWN_TOPIC_OR_PARTITION`.
    pub(crate) fn partition_mut(&mut self, topic: &str, partition: i32) -> Result<(&mut PartitionLog, &Settings), ResponseError> {
        let index = usize::try_from(partition).map_err(|_| ResponseError::UnknownTopicOrPartition)?;
        let topic = self.get_mut(topic).ok_or(ResponseError::UnknownTopicOrPartition)?;
        let log = topic.partitions.get_mut(index).ok_or(ResponseError::UnknownTopicOrPartition)?;
        Ok((log, &topic.settings))
    }

    /// Checks whether a topic of this name, partition count and settings could be created.
    ///
    /// # Errors
    /// What Kafka answers to CreateTopics.
    pub(crate) fn check_new(&self, name: &str, partitions: i32, overrides: &Overrides) -> Result<(), Refused> {
        check_name(name)?;
        if self.by_name.contains_key(name) {
            return Err(Refused::new(ResponseError::TopicAlreadyExists, format!("Topic '{name}' already exists.")));
        }
        let folded = |name: &str| name.replace('.', "_");
        if let Some(other) = self.by_name.keys().find(|other| folded(other) == folded(name)) {
            let message = format!("Topic '{name}' collides with existing topic: {other}");
            return Err(Refused::new(ResponseError::InvalidTopicException, message));
        }
        if !(1..=PARTITIONS_MAX).contains(&partitions) {
            let message = "Number of partitions was set to an invalid non-positive value.";
            return Err(Refused::new(ResponseError::InvalidPartitions, message));
        }
        for (key, value) in overrides {
            config::check(key, value).map_err(|message| Refused::new(ResponseError::InvalidConfig, message))?;
        }
        Ok(())
    }

    /// Creates a topic.
    ///
    /// # Errors
    /// As [`check_new`](Self::check_new).
    pub(crate) fn create(&mut self, name: &str, partitions: i32, overrides: Overrides) -> Result<Uuid, Refused> {
        self.check_new(name, partitions, &overrides)?;
        let id = Uuid::from_u128(rand::random());
        let settings = Settings::of(&overrides);
        let partitions = (0..partitions).map(|_| PartitionLog::default()).collect();
        self.by_name.insert(name.to_owned(), Topic { id, overrides, settings, partitions });
        self.names.insert(id, name.to_owned());
        Ok(id)
    }

    /// Deletes a topic with all its records.
    ///
    /// # Errors
    /// `UNKNOWN_TOPIC_OR_PARTITION`.
    pub(crate) fn delete(&mut self, name: &str) -> Result<Uuid, ResponseError> {
        let topic = self.by_name.remove(name).ok_or(ResponseError::UnknownTopicOrPartition)?;
        self.names.remove(&topic.id);
        Ok(topic.id)
    }
}

impl Topic {
    /// Checks a new partition count.
    ///
    /// # Errors
    /// `INVALID_PARTITIONS` unless it is larger than now and at most 10,000.
    pub(crate) fn check_growth(&self, count: i32) -> Result<usize, Refused> {
        let now = self.partitions.len();
        let wanted = usize::try_from(count).unwrap_or(0);
        if count > PARTITIONS_MAX || wanted <= now {
            let message = format!("The topic currently has {now} partition(s); {count} would not be an increase.");
            return Err(Refused::new(ResponseError::InvalidPartitions, message));
        }
        Ok(wanted)
    }

    /// Replaces the topic's settings, which are checked already.
    pub(crate) fn configure(&mut self, overrides: Overrides) {
        self.settings = Settings::of(&overrides);
        self.overrides = overrides;
    }
}

/// Checks a topic's name as Kafka does.
///
/// # Errors
/// `INVALID_TOPIC_EXCEPTION`.
pub(crate) fn check_name(name: &str) -> Result<(), Refused> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let good = !name.is_empty() && name.len() <= NAME_LEN_MAX && name != "." && name != ".." && name.bytes().all(legal);
    if good {
        return Ok(());
    }
    Err(Refused::new(ResponseError::InvalidTopicException, format!("Topic name is invalid: '{name}'")))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_topic_made_anew_has_another_id() {
        let mut topics = Topics::default();
        let first = topics.create("a", 1, Overrides::new()).unwrap();
        topics.delete("a").unwrap();
        let second = topics.create("a", 1, Overrides::new()).unwrap();
        assert_ne!(first, second);
        assert_eq!((topics.name(first), topics.name(second)), (None, Some("a")));
    }

    #[test]
    fn names_that_collide_as_metrics_are_refused() {
        let mut topics = Topics::default();
        topics.create("a.b", 1, Overrides::new()).unwrap();
        let refused = topics.create("a_b", 1, Overrides::new()).unwrap_err();
        assert_eq!(refused.code, ResponseError::InvalidTopicException);
        assert_eq!(check_name("ö").unwrap_err().code, ResponseError::InvalidTopicException);
    }
}
