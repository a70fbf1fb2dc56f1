//! InitProducerId, AddPartitionsToTxn, AddOffsetsToTxn, TxnOffsetCommit and EndTxn.

use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::add_partitions_to_txn_response::{AddPartitionsToTxnPartitionResult, AddPartitionsToTxnTopicResult};
use kafka_protocol::messages::txn_offset_commit_response::{TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic};
use kafka_protocol::messages::{
    AddOffsetsToTxnRequest, AddOffsetsToTxnResponse, AddPartitionsToTxnRequest, AddPartitionsToTxnResponse, EndTxnRequest, EndTxnResponse,
    InitProducerIdRequest, InitProducerIdResponse, ProducerId, TxnOffsetCommitRequest, TxnOffsetCommitResponse,
};

use super::code;
use super::offsets::{check_metadata, committed};
use crate::batch::Marker;
use crate::dispatch::Call;
use crate::group::Caller;
use crate::state::State;
use crate::txn::Identity;

/// Older versions of the transaction APIs know a fenced producer only by its older name.
const KNOWS_FENCED: i16 = 2;
/// The same for InitProducerId.
const INIT_KNOWS_FENCED: i16 = 4;

pub(crate) fn initialise(call: &Call<'_>, state: &mut State, request: InitProducerIdRequest) -> InitProducerIdResponse {
    let identity = match call.injected {
        Some(error) => Err(error),
        None => identify(call, state, &request),
    };
    let identity = identity.map_err(|error| older(error, call.version, INIT_KNOWS_FENCED));
    let response = InitProducerIdResponse::default().with_error_code(code(&identity));
    match identity {
        Ok(Identity { producer_id, epoch }) => response.with_producer_id(ProducerId(producer_id)).with_producer_epoch(epoch),
        Err(_) => response.with_producer_id(ProducerId(-1)).with_producer_epoch(-1),
    }
}

pub(crate) fn add_partitions(call: &Call<'_>, state: &mut State, request: AddPartitionsToTxnRequest) -> AddPartitionsToTxnResponse {
    let topics = &request.v3_and_below_topics;
    let known = |topic: &AddPartitionsToTxnTopic, partition: i32| state.topics.partition(&topic.name, partition).is_ok();
    let all_known = topics.iter().all(|topic| topic.partitions.iter().all(|partition| known(topic, *partition)));
    let partitions = topics.iter().flat_map(|topic| topic.partitions.iter().map(|p| (topic.name.to_string(), *p)));
    let identity = Identity { producer_id: request.v3_and_below_producer_id.0, epoch: request.v3_and_below_producer_epoch };
    let id = &request.v3_and_below_transactional_id;
    let added = match call.injected {
        Some(error) => Err(error),
        // All or nothing: beside an unknown partition the others are not attempted.
        None if !all_known => Err(ResponseError::OperationNotAttempted),
        None => state.coordinator.add_partitions(id, identity, partitions, call.now.instant),
    };
    let added = code(&added.map_err(|error| older(error, call.version, KNOWS_FENCED)));
    let results = topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            let missing = call.injected.is_none() && state.topics.partition(&topic.name, *partition).is_err();
            let code = if missing { ResponseError::UnknownTopicOrPartition.code() } else { added };
            AddPartitionsToTxnPartitionResult::default().with_partition_index(*partition).with_partition_error_code(code)
        });
        AddPartitionsToTxnTopicResult::default().with_name(topic.name.clone()).with_results_by_partition(partitions.collect())
    });
    AddPartitionsToTxnResponse::default().with_results_by_topic_v3_and_below(results.collect())
}

pub(crate) fn add_offsets(call: &Call<'_>, state: &mut State, request: AddOffsetsToTxnRequest) -> AddOffsetsToTxnResponse {
    let identity = Identity { producer_id: request.producer_id.0, epoch: request.producer_epoch };
    let added = match call.injected {
        Some(error) => Err(error),
        None => state.coordinator.add_group(&request.transactional_id, identity, &request.group_id, call.now.instant),
    };
    let added = added.map_err(|error| older(error, call.version, KNOWS_FENCED));
    AddOffsetsToTxnResponse::default().with_error_code(code(&added))
}

pub(crate) fn commit_offsets(call: &Call<'_>, state: &mut State, request: TxnOffsetCommitRequest) -> TxnOffsetCommitResponse {
    let checked = match call.injected {
        Some(error) => Err(error),
        None => check_commit(call, state, &request),
    };
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in &request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for wanted in &topic.partitions {
            let place = (topic.name.to_string(), wanted.partition_index);
            let kept = checked.and_then(|()| {
                state.topics.partition(&place.0, place.1)?;
                check_metadata(wanted.committed_metadata.as_ref())
            });
            if kept.is_ok() {
                let group = state.groups.entry(request.group_id.to_string()).or_default();
                let offset = committed(wanted.committed_offset, wanted.committed_leader_epoch, wanted.committed_metadata.clone());
                group.offsets.commit_pending(request.producer_id.0, place, offset);
            }
            partitions.push(
                TxnOffsetCommitResponsePartition::default().with_partition_index(wanted.partition_index).with_error_code(code(&kept)),
            );
        }
        topics.push(TxnOffsetCommitResponseTopic::default().with_name(topic.name.clone()).with_partitions(partitions));
    }
    TxnOffsetCommitResponse::default().with_topics(topics)
}

pub(crate) fn end(call: &Call<'_>, state: &mut State, request: EndTxnRequest) -> EndTxnResponse {
    let identity = Identity { producer_id: request.producer_id.0, epoch: request.producer_epoch };
    let marker = if request.committed { Marker::Commit } else { Marker::Abort };
    let ended = match call.injected {
        Some(error) => Err(error),
        None => state.coordinator.end(&request.transactional_id, identity, marker),
    };
    if let Ok(Some(ending)) = &ended {
        state.end_transaction(ending, call.now);
        call.server.wake();
    }
    let ended = ended.map_err(|error| older(error, call.version, KNOWS_FENCED));
    EndTxnResponse::default().with_error_code(code(&ended))
}

fn identify(call: &Call<'_>, state: &mut State, request: &InitProducerIdRequest) -> Result<Identity, ResponseError> {
    let Some(id) = &request.transactional_id else {
        return Ok(state.coordinator.new_idempotent());
    };
    if id.is_empty() {
        return Err(ResponseError::InvalidRequest);
    }
    let timeout = Duration::from_millis(u64::try_from(request.transaction_timeout_ms).unwrap_or(0));
    let claimed = Identity { producer_id: request.producer_id.0, epoch: request.producer_epoch };
    let claimed = (claimed.producer_id >= 0).then_some(claimed);
    let initialised = state.coordinator.initialise(id, timeout, claimed);
    if let Some(ending) = &initialised.ending {
        state.end_transaction(ending, call.now);
        call.server.wake();
    }
    initialised.identity
}

fn check_commit(call: &Call<'_>, state: &mut State, request: &TxnOffsetCommitRequest) -> Result<(), ResponseError> {
    let identity = Identity { producer_id: request.producer_id.0, epoch: request.producer_epoch };
    let group_id = request.group_id.as_str();
    // The group coordinator knows a fenced producer only by its older name.
    state.coordinator.check_group(&request.transactional_id, identity, group_id).map_err(|error| older(error, 0, KNOWS_FENCED))?;
    let caller = Caller {
        member_id: &request.member_id,
        instance_id: request.group_instance_id.as_ref().map(|id| id.as_str()),
        generation: request.generation_id,
    };
    match state.groups.get_mut(group_id) {
        Some(group) => group.check_commit(caller, true, call.now.instant),
        None if caller.generation < 0 => Ok(()),
        None => Err(ResponseError::IllegalGeneration),
    }
}

/// The error as a client of this version knows it.
fn older(error: ResponseError, version: i16, knows_fenced: i16) -> ResponseError {
    match error {
        ResponseError::ProducerFenced if version < knows_fenced => ResponseError::InvalidProducerEpoch,
        error => error,
    }
}
