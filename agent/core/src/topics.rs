//! Which topics are mirrored, and what has changed since the last look.

use std::collections::BTreeMap;

use spillway_proto::{TopicId, TopicName};

/// A selected topic as the source describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicState {
    /// Its id.
    pub id: TopicId,
    /// How many partitions it has.
    pub partitions: u32,
}

/// A look at the source's topics. Holds selected topics only.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Topics whose state is known.
    pub present: BTreeMap<TopicName, TopicState>,
    /// Topics that the source answered it does not have. A topic that is in neither list could not be asked about: nothing changes.
    pub absent: Vec<TopicName>,
}

/// What a look brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A topic that was not mirrored so far.
    Appeared {
        /// The topic.
        topic: TopicName,
        /// Its state.
        state: TopicState,
        /// It did not exist when the agent first looked, so that all of it was written since.
        born: bool,
    },
    /// A topic has more partitions.
    Grew {
        /// The topic.
        topic: TopicName,
        /// Its state.
        state: TopicState,
        /// How many partitions were known.
        before: u32,
    },
    /// A topic was deleted and made anew.
    Recreated {
        /// The topic.
        topic: TopicName,
        /// Its new state.
        state: TopicState,
        /// How many partitions the old one had.
        before: u32,
    },
    /// A topic is gone.
    Vanished {
        /// The topic.
        topic: TopicName,
        /// How many partitions it had.
        before: u32,
    },
}

/// What is known of the source's topics.
#[derive(Debug, Clone, Default)]
pub struct Topics {
    known: BTreeMap<TopicName, TopicState>,
    looked: bool,
}

impl Topics {
    /// The topics that are mirrored now.
    pub fn known(&self) -> &BTreeMap<TopicName, TopicState> {
        &self.known
    }

    /// Takes a look into account and says what is new.
    ///
    /// Fewer partitions under the same id, which Kafka cannot do, are taken for a topic made anew: brokers before 2.8 tell no ids.
    pub fn update(&mut self, snapshot: Snapshot) -> Vec<Change> {
        let mut changes = Vec::new();
        for topic in snapshot.absent {
            if let Some(state) = self.known.remove(&topic) {
                changes.push(Change::Vanished { topic, before: state.partitions });
            }
        }
        for (topic, state) in snapshot.present {
            let before = self.known.insert(topic.clone(), state);
            changes.extend(compare(topic, before, state, self.looked));
        }
        self.looked = true;
        changes
    }
}

fn compare(topic: TopicName, before: Option<TopicState>, state: TopicState, born: bool) -> Option<Change> {
    let Some(known) = before else {
        return Some(Change::Appeared { topic, state, born });
    };
    let before = known.partitions;
    if known.id.is_other_incarnation(state.id) || state.partitions < before {
        return Some(Change::Recreated { topic, state, before });
    }
    (state.partitions > before).then_some(Change::Grew { topic, state, before })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn topic(name: &str) -> TopicName {
        TopicName::parse(name).unwrap()
    }

    fn state(id: u8, partitions: u32) -> TopicState {
        TopicState { id: TopicId([id; 16]), partitions }
    }

    fn look(topics: &[(&str, u8, u32)], absent: &[&str]) -> Snapshot {
        let present = topics.iter().map(|(name, id, partitions)| (topic(name), state(*id, *partitions))).collect();
        Snapshot { present, absent: absent.iter().map(|name| topic(name)).collect() }
    }

    #[test]
    fn a_topic_that_appears_later_was_born_under_our_eyes() {
        let mut topics = Topics::default();
        let first = topics.update(look(&[("a", 1, 2)], &[]));
        assert_eq!(first, [Change::Appeared { topic: topic("a"), state: state(1, 2), born: false }]);
        let second = topics.update(look(&[("a", 1, 2), ("b", 2, 1)], &[]));
        assert_eq!(second, [Change::Appeared { topic: topic("b"), state: state(2, 1), born: true }]);
        assert_eq!(topics.update(look(&[("a", 1, 2), ("b", 2, 1)], &[])), []);
    }

    #[test]
    fn growth_and_a_new_incarnation_are_told_apart() {
        let mut topics = Topics::default();
        topics.update(look(&[("a", 1, 2), ("b", 1, 2), ("c", 0, 3)], &[]));
        let changes = topics.update(look(&[("a", 1, 4), ("b", 9, 4), ("c", 0, 2)], &[]));
        assert_eq!(
            changes,
            [
                Change::Grew { topic: topic("a"), state: state(1, 4), before: 2 },
                Change::Recreated { topic: topic("b"), state: state(9, 4), before: 2 },
                Change::Recreated { topic: topic("c"), state: state(0, 2), before: 3 },
            ]
        );
    }

    #[test]
    fn only_a_definite_absence_is_one() {
        let mut topics = Topics::default();
        topics.update(look(&[("a", 1, 2), ("b", 1, 2)], &[]));
        assert_eq!(topics.update(look(&[], &[])), [], "nothing was answered");
        assert_eq!(topics.update(look(&[("a", 1, 2)], &["b"])), [Change::Vanished { topic: topic("b"), before: 2 }]);
        assert_eq!(topics.known().len(), 1);
        let back = topics.update(look(&[("b", 5, 1)], &[]));
        assert_eq!(back, [Change::Appeared { topic: topic("b"), state: state(5, 1), born: true }]);
    }
}
