//! CreateTopics, DeleteTopics, CreatePartitions and DeleteRecords.

use std::collections::HashMap;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::create_topics_response::{CreatableTopicConfigs, CreatableTopicResult};
use kafka_protocol::messages::delete_records_response::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult};
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreateTopicsRequest, CreateTopicsResponse, DeleteRecordsRequest,
    DeleteRecordsResponse, DeleteTopicsRequest, DeleteTopicsResponse, TopicName,
};
use uuid::Uuid;

use super::configs::TOPIC_SOURCE;
use super::{code, text};
use crate::config::{DEFINITIONS, Overrides};
use crate::dispatch::Call;
use crate::log::PartitionLog;
use crate::state::State;
use crate::topics::{Refused, Topic};

/// The first version of CreateTopics whose answer shows the topic's settings.
const SHOWS_CONFIGS: i16 = 5;
/// The first version of DeleteTopics that takes topic ids.
const DELETE_BY_ID: i16 = 6;
/// The end of the log, for DeleteRecords.
const HIGH_WATERMARK: i64 = -1;

pub(crate) fn create(call: &Call<'_>, state: &mut State, request: CreateTopicsRequest) -> CreateTopicsResponse {
    let mut named: HashMap<TopicName, usize> = HashMap::new();
    for topic in &request.topics {
        *named.entry(topic.name.clone()).or_default() += 1;
    }
    let topics = request.topics.iter().map(|wanted| {
        let twice = named.get(&wanted.name).is_some_and(|count| *count > 1);
        let created = match call.injected {
            Some(error) => Err(Refused::new(error, "injected")),
            None if twice => Err(Refused::new(ResponseError::InvalidRequest, "Duplicate topic name.")),
            None => create_one(call, state, wanted, request.validate_only),
        };
        respond_create(call, wanted, created, state.topics.get(&wanted.name))
    });
    CreateTopicsResponse::default().with_topics(topics.collect())
}

pub(crate) fn delete(call: &Call<'_>, state: &mut State, request: DeleteTopicsRequest) -> DeleteTopicsResponse {
    let by_name = request.topic_names.into_iter().map(|name| (Some(name), Uuid::nil()));
    let by_id = request.topics.into_iter().map(|topic| (topic.name, topic.topic_id));
    let mut responses = Vec::new();
    for (name, id) in by_name.chain(by_id) {
        let known = name.as_ref().map(|name| name.as_str()).or_else(|| state.topics.name(id)).map(str::to_owned);
        let deleted = match &known {
            Some(known) => state.topics.delete(known),
            None => Err(ResponseError::UnknownTopicId),
        };
        if let (Ok(_), Some(known)) = (&deleted, &known) {
            state.forget_topic_offsets(known);
        }
        let response = DeletableTopicResult::default().with_name(known.as_deref().map(super::topic_name)).with_error_code(code(&deleted));
        responses.push(match deleted {
            _ if call.version < DELETE_BY_ID => response,
            Ok(deleted) => response.with_topic_id(deleted),
            Err(_) => response.with_topic_id(id),
        });
    }
    call.server.wake();
    DeleteTopicsResponse::default().with_responses(responses)
}

pub(crate) fn create_partitions(_call: &Call<'_>, state: &mut State, request: CreatePartitionsRequest) -> CreatePartitionsResponse {
    let results = request.topics.iter().map(|wanted| {
        let result = CreatePartitionsTopicResult::default().with_name(wanted.name.clone());
        match grow(state, wanted, request.validate_only) {
            Ok(()) => result,
            Err(refused) => result.with_error_code(refused.code.code()).with_error_message(Some(text(&refused.message))),
        }
    });
    CreatePartitionsResponse::default().with_results(results.collect())
}

pub(crate) fn delete_records(call: &Call<'_>, state: &mut State, request: DeleteRecordsRequest) -> DeleteRecordsResponse {
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|wanted| {
            let low = delete_below(state, &topic.name, wanted.partition_index, wanted.offset);
            DeleteRecordsPartitionResult::default()
                .with_partition_index(wanted.partition_index)
                .with_error_code(code(&low))
                .with_low_watermark(low.unwrap_or(-1))
        });
        DeleteRecordsTopicResult::default().with_name(topic.name.clone()).with_partitions(partitions.collect())
    });
    let response = DeleteRecordsResponse::default().with_topics(topics.collect());
    call.server.wake();
    response
}

fn create_one(call: &Call<'_>, state: &mut State, wanted: &CreatableTopic, only_check: bool) -> Result<Uuid, Refused> {
    let placed = i32::try_from(wanted.assignments.len()).unwrap_or(i32::MAX);
    let partitions = match wanted.num_partitions {
        -1 if placed > 0 => placed,
        -1 => call.server.options().default_partitions,
        count => count,
    };
    if !matches!(wanted.replication_factor, -1 | 1) {
        let message = "Unable to replicate the partition: this broker is the only one.";
        return Err(Refused::new(ResponseError::InvalidReplicationFactor, message));
    }
    let value = |value: &Option<_>| value.as_ref().map(ToString::to_string).unwrap_or_default();
    let overrides: Overrides = wanted.configs.iter().map(|config| (config.name.to_string(), value(&config.value))).collect();
    if only_check {
        return state.topics.check_new(&wanted.name, partitions, &overrides).map(|()| Uuid::nil());
    }
    state.topics.create(&wanted.name, partitions, overrides)
}

fn respond_create(call: &Call<'_>, wanted: &CreatableTopic, created: Result<Uuid, Refused>, topic: Option<&Topic>) -> CreatableTopicResult {
    let result = CreatableTopicResult::default().with_name(wanted.name.clone());
    match created {
        Ok(id) if call.version >= SHOWS_CONFIGS => {
            let count = topic.map_or(-1, |topic| i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX));
            result
                .with_topic_id(id)
                .with_num_partitions(count)
                .with_replication_factor(1)
                .with_configs(topic.map(|topic| shown_configs(&topic.overrides)))
        }
        Ok(_) => result,
        Err(refused) => result.with_error_code(refused.code.code()).with_error_message(Some(text(&refused.message))),
    }
}

fn shown_configs(overrides: &Overrides) -> Vec<CreatableTopicConfigs> {
    let show = |definition: &crate::config::Definition| {
        let given = overrides.get(definition.name);
        CreatableTopicConfigs::default()
            .with_name(text(definition.name))
            .with_value(Some(text(given.map_or(definition.default, String::as_str))))
            .with_config_source(if given.is_some() { TOPIC_SOURCE } else { definition.source })
    };
    DEFINITIONS.iter().map(show).collect()
}

fn grow(state: &mut State, wanted: &CreatePartitionsTopic, only_check: bool) -> Result<(), Refused> {
    let Some(topic) = state.topics.get_mut(&wanted.name) else {
        let message = "This server does not host this topic-partition.";
        return Err(Refused::new(ResponseError::UnknownTopicOrPartition, message));
    };
    let count = topic.check_growth(wanted.count)?;
    if !only_check {
        topic.partitions.resize_with(count, PartitionLog::default);
    }
    Ok(())
}

fn delete_below(state: &mut State, topic: &str, partition: i32, offset: i64) -> Result<i64, ResponseError> {
    let (log, settings) = state.topics.partition_mut(topic, partition)?;
    if !settings.deletes {
        return Err(ResponseError::PolicyViolation);
    }
    let offset = if offset == HIGH_WATERMARK { log.end() } else { offset };
    log.delete_below(offset)?;
    Ok(log.start())
}
