//! ApiVersions and Metadata.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::{MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic};
use kafka_protocol::messages::{ApiKey, ApiVersionsResponse, MetadataRequest, MetadataResponse};

use super::{HOST, NODE, topic_name};
use crate::batch::LEADER_EPOCH;
use crate::config::Overrides;
use crate::dispatch::{Call, VERSIONS};
use crate::state::State;
use crate::topics::Topic;

/// Before this version an empty list of topics means all.
const EMPTY_IS_NONE: i16 = 1;
/// Before this version every request creates the topics it names.
const MAY_CREATE: i16 = 4;
const LEADER_EPOCHS: i16 = 7;

/// The versions of every API.
pub(crate) fn versions(_call: &Call<'_>) -> ApiVersionsResponse {
    let keys = VERSIONS.iter().map(|(api, min, max)| {
        // As Kafka 4 does: librdkafka takes a broker without Produce version 0 for one that knows no compression.
        let min = if *api == ApiKey::Produce { 0 } else { *min };
        ApiVersion::default().with_api_key(*api as i16).with_min_version(min).with_max_version(*max)
    });
    ApiVersionsResponse::default().with_api_keys(keys.collect())
}

pub(crate) fn metadata(call: &Call<'_>, state: &mut State, request: MetadataRequest) -> MetadataResponse {
    let may_create = call.server.options().auto_create_topics && (call.version < MAY_CREATE || request.allow_auto_topic_creation);
    let all = |topics: &[MetadataRequestTopic]| call.version < EMPTY_IS_NONE && topics.is_empty();
    let topics = match request.topics {
        Some(topics) if !all(&topics) => topics.iter().map(|wanted| named(call, state, wanted, may_create)).collect(),
        _ => state.topics.iter().map(|(name, topic)| describe(call, name, topic)).collect(),
    };
    let broker = MetadataResponseBroker::default().with_node_id(NODE).with_host(HOST).with_port(i32::from(call.port));
    MetadataResponse::default()
        .with_brokers(vec![broker])
        .with_cluster_id(Some(state.cluster_id.clone()))
        .with_controller_id(NODE)
        .with_topics(topics)
}

fn named(call: &Call<'_>, state: &mut State, wanted: &MetadataRequestTopic, may_create: bool) -> MetadataResponseTopic {
    let unknown = MetadataResponseTopic::default().with_name(wanted.name.clone());
    if let Some(error) = call.injected {
        return unknown.with_error_code(error.code());
    }
    let Some(name) = &wanted.name else {
        return match state.topics.name(wanted.topic_id).and_then(|name| Some((name, state.topics.get(name)?))) {
            Some((name, topic)) => describe(call, name, topic),
            None => unknown.with_topic_id(wanted.topic_id).with_error_code(ResponseError::UnknownTopicId.code()),
        };
    };
    if let Some(topic) = state.topics.get(name) {
        return describe(call, name, topic);
    }
    if !may_create {
        let invalid = crate::topics::check_name(name).map_err(|refused| refused.code);
        let code = invalid.err().unwrap_or(ResponseError::UnknownTopicOrPartition);
        return unknown.with_error_code(code.code());
    }
    let partitions = call.server.options().default_partitions;
    match state.topics.create(name, partitions, Overrides::new()) {
        Ok(_) => state.topics.get(name).map_or(unknown, |topic| describe(call, name, topic)),
        Err(refused) => unknown.with_error_code(refused.code.code()),
    }
}

fn describe(call: &Call<'_>, name: &str, topic: &Topic) -> MetadataResponseTopic {
    let partitions = (0..).zip(&topic.partitions).map(|(index, _)| {
        let partition = MetadataResponsePartition::default()
            .with_partition_index(index)
            .with_leader_id(NODE)
            .with_replica_nodes(vec![NODE])
            .with_isr_nodes(vec![NODE]);
        if call.version >= LEADER_EPOCHS { partition.with_leader_epoch(LEADER_EPOCH) } else { partition }
    });
    MetadataResponseTopic::default().with_name(Some(topic_name(name))).with_topic_id(topic.id).with_partitions(partitions.collect())
}
