//! DescribeConfigs, AlterConfigs and IncrementalAlterConfigs.

use std::collections::BTreeSet;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym};
use kafka_protocol::messages::incremental_alter_configs_request::AlterableConfig;
use kafka_protocol::messages::{
    AlterConfigsRequest, AlterConfigsResponse, DescribeConfigsRequest, DescribeConfigsResponse, IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse, alter_configs_response, incremental_alter_configs_response,
};
use kafka_protocol::protocol::StrBytes;

use super::{NODE, text};
use crate::config::{self, DEFINITIONS, Definition, Kind, Overrides};
use crate::dispatch::Call;
use crate::state::State;
use crate::topics::Refused;

/// A value that the topic was given.
pub(crate) const TOPIC_SOURCE: i8 = 1;
/// A value from the broker's start.
const BROKER_SOURCE: i8 = 4;

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
/// The first version whose answer tells the type of a value.
const SHOWS_TYPES: i16 = 3;

pub(crate) fn describe(call: &Call<'_>, state: &mut State, request: DescribeConfigsRequest) -> DescribeConfigsResponse {
    let results = request.resources.iter().map(|resource| {
        let result =
            DescribeConfigsResult::default().with_resource_type(resource.resource_type).with_resource_name(resource.resource_name.clone());
        match describe_one(call, state, resource) {
            Ok(configs) => {
                let synonyms = request.include_synonyms;
                result.with_configs(configs.into_iter().map(|value| value.show(call, synonyms)).collect())
            }
            Err(refused) => result.with_error_code(refused.code.code()).with_error_message(Some(text(&refused.message))),
        }
    });
    DescribeConfigsResponse::default().with_results(results.collect())
}

/// The older way: what the request does not name goes back to its default.
pub(crate) fn alter(_call: &Call<'_>, state: &mut State, request: AlterConfigsRequest) -> AlterConfigsResponse {
    let responses = request.resources.iter().map(|resource| {
        let value = |value: &Option<StrBytes>| value.as_ref().map(ToString::to_string).unwrap_or_default();
        let overrides = resource.configs.iter().map(|config| (config.name.to_string(), value(&config.value)));
        let kind = resource.resource_type;
        let altered = replace(state, kind, &resource.resource_name, request.validate_only, |_| Ok(overrides.collect()));
        let response = alter_configs_response::AlterConfigsResourceResponse::default()
            .with_resource_type(kind)
            .with_resource_name(resource.resource_name.clone());
        match altered {
            Ok(()) => response,
            Err(refused) => response.with_error_code(refused.code.code()).with_error_message(Some(text(&refused.message))),
        }
    });
    AlterConfigsResponse::default().with_responses(responses.collect())
}

pub(crate) fn alter_incrementally(
    _call: &Call<'_>,
    state: &mut State,
    request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let responses = request.resources.iter().map(|resource| {
        let kind = resource.resource_type;
        let altered = replace(state, kind, &resource.resource_name, request.validate_only, |overrides| {
            resource.configs.iter().try_fold(overrides, apply)
        });
        let response = incremental_alter_configs_response::AlterConfigsResourceResponse::default()
            .with_resource_type(kind)
            .with_resource_name(resource.resource_name.clone());
        match altered {
            Ok(()) => response,
            Err(refused) => response.with_error_code(refused.code.code()).with_error_message(Some(text(&refused.message))),
        }
    });
    IncrementalAlterConfigsResponse::default().with_responses(responses.collect())
}

/// One setting with its value.
struct Value {
    name: &'static str,
    kind: Kind,
    value: String,
    source: i8,
    /// For a value that the topic was given: what it would be otherwise, and where that comes from.
    default: Option<(&'static str, i8)>,
}

impl Value {
    fn of_topic(definition: &'static Definition, overrides: &Overrides) -> Self {
        let given = overrides.get(definition.name);
        Self {
            name: definition.name,
            kind: definition.kind,
            value: given.map_or_else(|| definition.default.to_owned(), String::clone),
            source: if given.is_some() { TOPIC_SOURCE } else { definition.source },
            default: given.map(|_| (definition.default, definition.source)),
        }
    }

    fn of_broker(name: &'static str, kind: Kind, value: impl ToString) -> Self {
        Self { name, kind, value: value.to_string(), source: BROKER_SOURCE, default: None }
    }

    fn show(self, call: &Call<'_>, synonyms: bool) -> DescribeConfigsResourceResult {
        let synonym = |value: &str, source| {
            DescribeConfigsSynonym::default().with_name(text(self.name)).with_value(Some(text(value))).with_source(source)
        };
        let mut all = Vec::new();
        if synonyms {
            all.push(synonym(&self.value, self.source));
            all.extend(self.default.map(|(value, source)| synonym(value, source)));
        }
        let result = DescribeConfigsResourceResult::default()
            .with_name(text(self.name))
            .with_value(Some(text(&self.value)))
            .with_read_only(self.source == BROKER_SOURCE)
            .with_config_source(self.source)
            .with_synonyms(all);
        if call.version >= SHOWS_TYPES { result.with_config_type(self.kind as i8) } else { result }
    }
}

fn describe_one(call: &Call<'_>, state: &State, resource: &DescribeConfigsResource) -> Result<Vec<Value>, Refused> {
    let keys: Option<BTreeSet<&str>> = resource.configuration_keys.as_ref().map(|keys| keys.iter().map(StrBytes::as_str).collect());
    let wanted = |name: &str| keys.as_ref().is_none_or(|keys| keys.contains(name));
    match resource.resource_type {
        TOPIC => {
            let topic = state.topics.get(&resource.resource_name).ok_or_else(unknown_topic)?;
            let definitions = DEFINITIONS.iter().filter(|definition| wanted(definition.name));
            Ok(definitions.map(|definition| Value::of_topic(definition, &topic.overrides)).collect())
        }
        BROKER if resource.resource_name.as_str() == NODE.0.to_string() => {
            Ok(broker_values(call).into_iter().filter(|value| wanted(value.name)).collect())
        }
        kind => Err(Refused::new(ResponseError::InvalidRequest, format!("no configuration of resource type {kind}"))),
    }
}

fn broker_values(call: &Call<'_>) -> Vec<Value> {
    let options = call.server.options();
    vec![
        Value::of_broker("auto.create.topics.enable", Kind::Boolean, options.auto_create_topics),
        Value::of_broker("default.replication.factor", Kind::Int, 1),
        Value::of_broker("log.retention.check.interval.ms", Kind::Long, options.retention_check.as_millis()),
        Value::of_broker("message.max.bytes", Kind::Int, 1_048_588),
        Value::of_broker("min.insync.replicas", Kind::Int, 1),
        Value::of_broker("node.id", Kind::Int, NODE.0),
        Value::of_broker("num.partitions", Kind::Int, options.default_partitions),
        Value::of_broker("transaction.max.timeout.ms", Kind::Int, crate::txn::TIMEOUT_MAX.as_millis()),
    ]
}

fn replace(
    state: &mut State,
    kind: i8,
    name: &str,
    only_check: bool,
    change: impl FnOnce(Overrides) -> Result<Overrides, Refused>,
) -> Result<(), Refused> {
    if kind != TOPIC {
        let message = "this broker's own configuration cannot be changed";
        return Err(Refused::new(ResponseError::InvalidRequest, message));
    }
    let topic = state.topics.get_mut(name).ok_or_else(unknown_topic)?;
    let overrides = change(topic.overrides.clone())?;
    for (key, value) in &overrides {
        config::check(key, value).map_err(|message| Refused::new(ResponseError::InvalidConfig, message))?;
    }
    if !only_check {
        topic.configure(overrides);
    }
    Ok(())
}

/// Applies one incremental change.
fn apply(mut overrides: Overrides, change: &AlterableConfig) -> Result<Overrides, Refused> {
    const SET: i8 = 0;
    const DELETE: i8 = 1;
    const APPEND: i8 = 2;
    const SUBTRACT: i8 = 3;
    let name = change.name.to_string();
    let value = change.value.as_ref().map(ToString::to_string).unwrap_or_default();
    let Some(definition) = config::definition(&name) else {
        let message = format!("Unknown topic config name: {name}");
        return Err(Refused::new(ResponseError::InvalidConfig, message));
    };
    let now = || overrides.get(&name).cloned().unwrap_or_else(|| definition.default.to_owned());
    let parts = |list: &str| list.split(',').filter(|part| !part.is_empty()).map(str::to_owned).collect::<Vec<_>>();
    let list = match change.config_operation {
        SET => {
            overrides.insert(name, value);
            return Ok(overrides);
        }
        DELETE => {
            overrides.remove(&name);
            return Ok(overrides);
        }
        APPEND | SUBTRACT if definition.kind != Kind::List => {
            let message = format!("Config value append is not allowed for config key: {name}");
            return Err(Refused::new(ResponseError::InvalidConfig, message));
        }
        APPEND => {
            let mut list = parts(&now());
            list.extend(parts(&value).into_iter().filter(|part| !parts(&now()).contains(part)));
            list
        }
        SUBTRACT => parts(&now()).into_iter().filter(|part| !parts(&value).contains(part)).collect(),
        operation => {
            let message = format!("Unknown operation: {operation}");
            return Err(Refused::new(ResponseError::InvalidRequest, message));
        }
    };
    overrides.insert(name, list.join(","));
    Ok(overrides)
}

fn unknown_topic() -> Refused {
    Refused::new(ResponseError::UnknownTopicOrPartition, "This server does not host this topic-partition.")
}
