//! What a question is answered from: a partition's log, the group's offset, the topic's id.

use rdkafka::consumer::Consumer;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use spillway_agent_core::lane::LaneSource;
use spillway_agent_core::start::{Beginning, LogRange, StartPolicy, decide};
use spillway_config::StartFrom;
use spillway_kafka::topics::describe_topics;
use spillway_proto::frame::GapReason;
use spillway_proto::message::ResumePoint;
use spillway_proto::{NextOffset, TopicPartition};

#[cfg(doc)]
use super::RETRY_PAUSE;
use super::{Asked, Pending, QUERY_TIMEOUT, Question, Surveyor, Trouble};

/// Looks at a log that seems truncated, [`RETRY_PAUSE`] apart, before it is believed.
const TRUNCATION_LOOKS: u32 = 3;

/// What was found.
pub(super) enum Found {
    Begin(Beginning),
    Hole(LogRange),
    Ahead { committed: Option<NextOffset>, log: LogRange, first: NextOffset },
}

impl Surveyor {
    pub(super) fn found(&self, pending: &mut Pending) -> Result<Found, Trouble> {
        let question = &pending.question;
        let partition = &question.source.partition;
        let (topic, index) = (partition.topic.as_str(), partition.partition.to_kafka());
        let (start, end) = self.client.fetch_watermarks(topic, index, QUERY_TIMEOUT)?;
        let offset = |offset| NextOffset::from_kafka(offset).ok_or_else(|| Trouble::NoOffset(partition.clone()));
        let log = LogRange { start: offset(start)?, end: offset(end)? };
        let policy = self.policy(question)?;
        let committed = if question.asked == Asked::Ahead { self.committed(partition)? } else { None };
        // Asked last, so that what was told above belongs to this topic and not to one made anew meanwhile.
        self.check_incarnation(&question.source)?;
        match question.asked {
            Asked::Begin(point) => pending.believe(decide(point, log, policy)).map(Found::Begin),
            Asked::Hole(_) => Ok(Found::Hole(log)),
            Asked::Ahead => Ok(Found::Ahead { committed, log, first: decide(ResumePoint::Fresh, log, policy).at() }),
        }
    }

    /// What the local group has committed.
    fn committed(&self, partition: &TopicPartition) -> Result<Option<NextOffset>, Trouble> {
        let (topic, index) = (partition.topic.as_str(), partition.partition.to_kafka());
        let mut asked = TopicPartitionList::with_capacity(1);
        asked.add_partition(topic, index);
        let committed = self.client.committed_offsets(asked, QUERY_TIMEOUT)?;
        let committed = committed.find_partition(topic, index).ok_or_else(|| Trouble::NoOffset(partition.clone()))?;
        committed.error()?;
        Ok(match committed.offset() {
            Offset::Offset(offset) => NextOffset::from_kafka(offset),
            _ => None,
        })
    }

    fn policy(&self, question: &Question) -> Result<StartPolicy, Trouble> {
        match question.start {
            _ if !matches!(question.asked, Asked::Begin(ResumePoint::Fresh) | Asked::Ahead) => Ok(StartPolicy::Earliest),
            StartFrom::Earliest => Ok(StartPolicy::Earliest),
            StartFrom::Latest if question.source.born => Ok(StartPolicy::Earliest),
            StartFrom::Latest => Ok(StartPolicy::Latest),
            StartFrom::Time(time) => {
                let partition = &question.source.partition;
                let (topic, index) = (partition.topic.as_str(), partition.partition.to_kafka());
                let mut asked = TopicPartitionList::with_capacity(1);
                asked.add_partition_offset(topic, index, Offset::Offset(time.as_millisecond().max(0)))?;
                let found = self.client.offsets_for_times(asked, QUERY_TIMEOUT)?;
                let found = found.find_partition(topic, index).ok_or_else(|| Trouble::NoOffset(partition.clone()))?;
                found.error()?;
                let offset = match found.offset() {
                    Offset::Offset(offset) => NextOffset::from_kafka(offset),
                    _ => None,
                };
                Ok(StartPolicy::Found(offset))
            }
        }
    }

    fn check_incarnation(&self, source: &LaneSource) -> Result<(), Trouble> {
        let topic = &source.partition.topic;
        let described = describe_topics(self.client.client(), std::slice::from_ref(topic), QUERY_TIMEOUT)?;
        for description in described {
            match description.outcome {
                Ok(shape) if shape.id.is_other_incarnation(source.topic_id) => return Err(Trouble::OtherTopic(topic.clone())),
                Ok(_) => {}
                Err(RDKafkaErrorCode::UnknownTopicOrPartition) => return Err(Trouble::OtherTopic(topic.clone())),
                Err(error) => return Err(Trouble::Topic(topic.clone(), error)),
            }
        }
        Ok(())
    }
}

impl Pending {
    /// A truncation is believed when it was seen several times.
    fn believe(&mut self, beginning: Beginning) -> Result<Beginning, Trouble> {
        if !matches!(beginning, Beginning::Gap(gap) if gap.reason == GapReason::Truncated) {
            return Ok(beginning);
        }
        let looks = self.suspected.filter(|(before, _)| *before == beginning).map_or(1, |(_, looks)| looks + 1);
        self.suspected = Some((beginning, looks));
        if looks < TRUNCATION_LOOKS { Err(Trouble::Suspicious(self.question.source.partition.clone())) } else { Ok(beginning) }
    }
}
