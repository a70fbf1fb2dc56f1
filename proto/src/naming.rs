//! How remote and internal topics are named: MirrorMaker 2's default replication policy, with the site as the source cluster's alias.

use thiserror::Error;

use crate::types::{NameError, SiteName, TopicName};
use crate::{limits, progress};

/// The topic at the centre that tells of gaps: offsets of the sources that will never come. Its records are the collector's to make.
pub const GAPS_TOPIC: &str = "spillway-gaps.internal";

/// A source topic that has no remote name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RemoteNameError {
    /// `<site>.<topic>` would be longer than Kafka allows, or is one of Spillway's own topics.
    #[error("remote topic name {site}{separator}{topic} is not possible")]
    Refused {
        /// The site.
        site: SiteName,
        /// The separator.
        separator: String,
        /// The source topic.
        topic: TopicName,
        /// Why Kafka refuses the name.
        #[source]
        source: NameError,
    },
}

/// Names remote topics `<site><separator><topic>` (Kafka: `DefaultReplicationPolicy`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrefixPolicy {
    separator: String,
}

impl PrefixPolicy {
    /// A policy with the given separator; MirrorMaker 2's default is `.`.
    pub fn new(separator: impl Into<String>) -> Self {
        Self { separator: separator.into() }
    }

    /// The remote topic that mirrors `topic` of `site`. It begins with the site's own prefix whatever the topic's name (invariant H).
    ///
    /// # Errors
    /// When the name would be longer than [`limits::MAX_TOPIC_NAME`], or is [`progress::TOPIC`] or [`GAPS_TOPIC`], to which some separators
    /// lead.
    pub fn remote_topic(&self, site: &SiteName, topic: &TopicName) -> Result<TopicName, RemoteNameError> {
        let name = TopicName::parse(&format!("{site}{separator}{topic}", separator = self.separator));
        let name = name.and_then(|name| match name.as_str() {
            own @ (progress::TOPIC | GAPS_TOPIC) => Err(NameError::Reserved(own.to_owned())),
            _ => Ok(name),
        });
        name.map_err(|source| RemoteNameError::Refused {
            site: site.clone(),
            separator: self.separator.clone(),
            topic: topic.clone(),
            source,
        })
    }

    /// `mm2-offset-syncs<sep><site><sep>internal`: the syncs' topic at the centre, as MirrorMaker 2 names it with
    /// `offset-syncs.topic.location=target`.
    pub fn offset_syncs_topic(&self, site: &SiteName) -> String {
        format!("mm2-offset-syncs{sep}{site}{sep}internal", sep = self.separator)
    }

    /// True for topics that no mirror copies (Kafka: `ReplicationPolicy.isInternalTopic`).
    pub fn is_internal(&self, topic: &str) -> bool {
        topic.starts_with("__")
            || topic.starts_with('.')
            || topic.ends_with("-internal")
            || topic.ends_with(".internal")
            || topic.ends_with(&format!("{sep}internal", sep = self.separator))
    }
}

impl Default for PrefixPolicy {
    fn default() -> Self {
        Self::new(".")
    }
}

/// Longest source topic that any site can mirror with a separator of one character.
pub const MAX_SOURCE_TOPIC_NAME: usize = limits::MAX_TOPIC_NAME - limits::MAX_SITE_NAME - 1;

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn remote_topics_stay_under_the_sites_prefix() {
        let (policy, site) = (PrefixPolicy::default(), SiteName::parse("plant-7").unwrap());
        let remote = |topic: &str| policy.remote_topic(&site, &TopicName::parse(topic).unwrap());
        assert_eq!(remote("orders.v1").unwrap().as_str(), "plant-7.orders.v1");
        assert_eq!(remote("other.orders").unwrap().as_str(), "plant-7.other.orders");
        assert!(remote(&"x".repeat(241)).is_ok());
        assert!(remote(&"x".repeat(242)).is_err());
        assert_eq!(policy.offset_syncs_topic(&site), "mm2-offset-syncs.plant-7.internal");
    }

    #[test]
    fn no_separator_and_no_name_leads_a_site_to_a_topic_of_our_own() {
        let (site, internal) = (SiteName::parse("spillway").unwrap(), TopicName::parse("internal").unwrap());
        for (separator, own) in [("-progress.", progress::TOPIC), ("-gaps.", GAPS_TOPIC)] {
            let remote = PrefixPolicy::new(separator).remote_topic(&site, &internal);
            assert!(remote.is_err(), "{remote:?}");
            let namesake = own.trim_end_matches(".internal");
            assert_eq!(SiteName::parse(namesake), Err(NameError::Reserved(namesake.to_owned())));
        }
    }

    #[test]
    fn internal_topics_are_those_of_mirror_maker() {
        let policy = PrefixPolicy::default();
        for topic in ["__consumer_offsets", ".hidden", "a-internal", "mm2-offset-syncs.b.internal", progress::TOPIC, GAPS_TOPIC] {
            assert!(policy.is_internal(topic), "{topic}");
        }
        assert!(!policy.is_internal("internal-orders"));
        assert!(PrefixPolicy::new("_").is_internal("a_internal"));
    }
}
