//! OffsetCommit, OffsetFetch and OffsetDelete.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_commit_request::OffsetCommitRequestPartition;
use kafka_protocol::messages::offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic};
use kafka_protocol::messages::offset_delete_response::{OffsetDeleteResponsePartition, OffsetDeleteResponseTopic};
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions, OffsetFetchResponseTopic,
    OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{
    OffsetCommitRequest, OffsetCommitResponse, OffsetDeleteRequest, OffsetDeleteResponse, OffsetFetchRequest, OffsetFetchResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::{code, topic_name};
use crate::dispatch::Call;
use crate::group::{Caller, Group};
use crate::offsets::{Committed, Partition};
use crate::state::State;

/// `offset.metadata.max.bytes`.
const METADATA_LEN_MAX: usize = 4_096;
/// The first version of OffsetFetch that asks for several groups at once.
const MANY_GROUPS: i16 = 8;
/// The first version of OffsetFetch whose answer tells the leader epoch.
const WITH_EPOCH: i16 = 5;

pub(crate) fn commit(call: &Call<'_>, state: &mut State, request: OffsetCommitRequest) -> OffsetCommitResponse {
    let checked = match call.injected {
        Some(error) => Err(error),
        None => check_commit(call, state, &request),
    };
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in &request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for wanted in &topic.partitions {
            let place = (topic.name.to_string(), wanted.partition_index);
            let kept = checked.and_then(|()| commit_one(state, &request.group_id, place, wanted));
            partitions
                .push(OffsetCommitResponsePartition::default().with_partition_index(wanted.partition_index).with_error_code(code(&kept)));
        }
        topics.push(OffsetCommitResponseTopic::default().with_name(topic.name.clone()).with_partitions(partitions));
    }
    OffsetCommitResponse::default().with_topics(topics)
}

pub(crate) fn fetch(call: &Call<'_>, state: &mut State, request: OffsetFetchRequest) -> OffsetFetchResponse {
    if call.version < MANY_GROUPS {
        let group = state.groups.get(request.group_id.as_str());
        let wanted =
            request.topics.map(|topics| topics.into_iter().map(|topic| (topic.name.to_string(), topic.partition_indexes)).collect());
        let topics = look_up(group, wanted, request.require_stable);
        return OffsetFetchResponse::default()
            .with_topics(topics.into_iter().map(|(name, found)| old_topic(call.version, &name, found)).collect());
    }
    let groups = request.groups.into_iter().map(|asked| {
        let group = state.groups.get(asked.group_id.as_str());
        let wanted = asked.topics.map(|topics| topics.into_iter().map(|topic| (topic.name.to_string(), topic.partition_indexes)).collect());
        let topics = look_up(group, wanted, request.require_stable);
        OffsetFetchResponseGroup::default()
            .with_group_id(asked.group_id)
            .with_topics(topics.into_iter().map(|(name, found)| new_topic(&name, found)).collect())
    });
    OffsetFetchResponse::default().with_groups(groups.collect())
}

pub(crate) fn delete(_call: &Call<'_>, state: &mut State, request: OffsetDeleteRequest) -> OffsetDeleteResponse {
    let Some(group) = state.groups.get_mut(request.group_id.as_str()) else {
        return OffsetDeleteResponse::default().with_error_code(ResponseError::GroupIdNotFound.code());
    };
    let topics = request.topics.iter().map(|topic| {
        let subscribed = group.subscribes(&topic.name);
        let partitions = topic.partitions.iter().map(|partition| {
            let index = partition.partition_index;
            let deleted = match state.topics.partition(&topic.name, index) {
                Ok(_) if subscribed => Err(ResponseError::GroupSubscribedToTopic),
                known => known.map(|_| group.offsets.delete(&(topic.name.to_string(), index))),
            };
            OffsetDeleteResponsePartition::default().with_partition_index(index).with_error_code(code(&deleted))
        });
        OffsetDeleteResponseTopic::default().with_name(topic.name.clone()).with_partitions(partitions.collect())
    });
    OffsetDeleteResponse::default().with_topics(topics.collect())
}

/// Checks what a client wrote beside an offset.
///
/// # Errors
/// `OFFSET_METADATA_TOO_LARGE` beyond 4,096 bytes.
pub(super) fn check_metadata(metadata: Option<&StrBytes>) -> Result<(), ResponseError> {
    if metadata.is_some_and(|metadata| metadata.len() > METADATA_LEN_MAX) {
        return Err(ResponseError::OffsetMetadataTooLarge);
    }
    Ok(())
}

pub(super) fn committed(offset: i64, leader_epoch: i32, metadata: Option<StrBytes>) -> Committed {
    Committed { offset, leader_epoch, metadata: metadata.unwrap_or_default() }
}

fn check_commit(call: &Call<'_>, state: &mut State, request: &OffsetCommitRequest) -> Result<(), ResponseError> {
    let caller = Caller {
        member_id: &request.member_id,
        instance_id: request.group_instance_id.as_ref().map(StrBytes::as_str),
        generation: request.generation_id_or_member_epoch,
    };
    match state.groups.get_mut(request.group_id.as_str()) {
        Some(group) => group.check_commit(caller, false, call.now.instant),
        None if caller.generation < 0 => Ok(()),
        None => Err(ResponseError::IllegalGeneration),
    }
}

fn commit_one(state: &mut State, group: &str, place: Partition, wanted: &OffsetCommitRequestPartition) -> Result<(), ResponseError> {
    state.topics.partition(&place.0, place.1)?;
    check_metadata(wanted.committed_metadata.as_ref())?;
    let offset = committed(wanted.committed_offset, wanted.committed_leader_epoch, wanted.committed_metadata.clone());
    state.groups.entry(group.to_owned()).or_default().offsets.commit(place, offset);
    Ok(())
}

/// What is known of a partition: an offset, none, or an error.
struct Found {
    partition: i32,
    offset: Result<Option<Committed>, ResponseError>,
}

/// Finds the offsets of the wanted partitions, or of all that the group has.
fn look_up(group: Option<&Group>, wanted: Option<Vec<(String, Vec<i32>)>>, require_stable: bool) -> Vec<(String, Vec<Found>)> {
    let wanted = wanted.unwrap_or_else(|| {
        let mut all: Vec<(String, Vec<i32>)> = Vec::new();
        for ((topic, partition), _) in group.into_iter().flat_map(|group| group.offsets.iter()) {
            match all.last_mut().filter(|(name, _)| name == topic) {
                Some((_, partitions)) => partitions.push(*partition),
                None => all.push((topic.clone(), vec![*partition])),
            }
        }
        all
    });
    let find = |place: &Partition| match group {
        Some(group) if require_stable && group.offsets.is_pending(place) => Err(ResponseError::UnstableOffsetCommit),
        Some(group) => Ok(group.offsets.get(place).cloned()),
        None => Ok(None),
    };
    wanted
        .into_iter()
        .map(|(topic, partitions)| {
            let found = partitions.into_iter().map(|partition| Found { partition, offset: find(&(topic.clone(), partition)) }).collect();
            (topic, found)
        })
        .collect()
}

fn old_topic(version: i16, name: &str, found: Vec<Found>) -> OffsetFetchResponseTopic {
    let partitions = found.into_iter().map(|Found { partition, offset }| {
        let response = OffsetFetchResponsePartition::default().with_partition_index(partition).with_error_code(code(&offset));
        match offset {
            Ok(Some(committed)) => {
                let response = response.with_committed_offset(committed.offset).with_metadata(Some(committed.metadata));
                if version >= WITH_EPOCH { response.with_committed_leader_epoch(committed.leader_epoch) } else { response }
            }
            Ok(None) | Err(_) => response.with_committed_offset(-1).with_metadata(Some(StrBytes::new())),
        }
    });
    OffsetFetchResponseTopic::default().with_name(topic_name(name)).with_partitions(partitions.collect())
}

fn new_topic(name: &str, found: Vec<Found>) -> OffsetFetchResponseTopics {
    let partitions = found.into_iter().map(|Found { partition, offset }| {
        let response = OffsetFetchResponsePartitions::default().with_partition_index(partition).with_error_code(code(&offset));
        match offset {
            Ok(Some(committed)) => response
                .with_committed_offset(committed.offset)
                .with_committed_leader_epoch(committed.leader_epoch)
                .with_metadata(Some(committed.metadata)),
            Ok(None) | Err(_) => response.with_committed_offset(-1).with_metadata(Some(StrBytes::new())),
        }
    });
    OffsetFetchResponseTopics::default().with_name(topic_name(name)).with_partitions(partitions.collect())
}
