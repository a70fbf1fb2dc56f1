//! ListOffsets and OffsetForLeaderEpoch.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::list_offsets_request::ListOffsetsPartition;
use kafka_protocol::messages::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
use kafka_protocol::messages::offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult};
use kafka_protocol::messages::{ListOffsetsRequest, ListOffsetsResponse, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};

use crate::batch::LEADER_EPOCH;
use crate::dispatch::Call;
use crate::log::{PartitionLog, TimedOffset};
use crate::state::State;

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
/// The first version whose answer tells the leader epoch.
const WITH_EPOCH: i16 = 4;
const NONE: TimedOffset = TimedOffset { offset: -1, timestamp: -1 };

pub(crate) fn list(call: &Call<'_>, state: &mut State, request: ListOffsetsRequest) -> ListOffsetsResponse {
    let committed = request.isolation_level == 1;
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|wanted| {
            let found = match call.injected {
                Some(error) => Err(error),
                None => state.topics.partition(&topic.name, wanted.partition_index),
            };
            respond(call.version, wanted, found.and_then(|log| find(log, wanted.timestamp, committed)))
        });
        ListOffsetsTopicResponse::default().with_name(topic.name.clone()).with_partitions(partitions.collect())
    });
    ListOffsetsResponse::default().with_topics(topics.collect())
}

/// One leader has only one epoch: it ends at the end of the log.
pub(crate) fn for_leader_epoch(_call: &Call<'_>, state: &mut State, request: OffsetForLeaderEpochRequest) -> OffsetForLeaderEpochResponse {
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|wanted| {
            let end = EpochEndOffset::default().with_partition(wanted.partition);
            match state.topics.partition(&topic.topic, wanted.partition) {
                Ok(_) if wanted.current_leader_epoch > LEADER_EPOCH => end.with_error_code(ResponseError::UnknownLeaderEpoch.code()),
                Ok(log) if wanted.leader_epoch == LEADER_EPOCH => end.with_leader_epoch(LEADER_EPOCH).with_end_offset(log.end()),
                Ok(_) => end.with_leader_epoch(-1).with_end_offset(-1),
                Err(error) => end.with_error_code(error.code()),
            }
        });
        OffsetForLeaderTopicResult::default().with_topic(topic.topic.clone()).with_partitions(partitions.collect())
    });
    OffsetForLeaderEpochResponse::default().with_topics(topics.collect())
}

fn find(log: &PartitionLog, timestamp: i64, committed: bool) -> Result<TimedOffset, ResponseError> {
    Ok(match timestamp {
        LATEST => TimedOffset { offset: log.readable_end(committed), ..NONE },
        EARLIEST => TimedOffset { offset: log.start(), ..NONE },
        MAX_TIMESTAMP => log.newest().unwrap_or(NONE),
        0.. => log.first_at(timestamp, committed).unwrap_or(NONE),
        _ => return Err(ResponseError::UnsupportedVersion),
    })
}

fn respond(version: i16, wanted: &ListOffsetsPartition, found: Result<TimedOffset, ResponseError>) -> ListOffsetsPartitionResponse {
    let response =
        ListOffsetsPartitionResponse::default().with_partition_index(wanted.partition_index).with_error_code(super::code(&found));
    let found = found.unwrap_or(NONE);
    let response = response.with_offset(found.offset).with_timestamp(found.timestamp);
    if version >= WITH_EPOCH && found != NONE { response.with_leader_epoch(LEADER_EPOCH) } else { response }
}
