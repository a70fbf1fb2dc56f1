//! The requests, one module per family: each takes a decoded message apart, asks the state and builds the answer.
//!
//! A field that a version does not have must keep its default, else the answer cannot be encoded; where that matters
//! the handlers look at the version.

pub(crate) mod cluster;
pub(crate) mod configs;
pub(crate) mod fetch;
pub(crate) mod groups;
pub(crate) mod list_offsets;
pub(crate) mod metadata;
pub(crate) mod offsets;
pub(crate) mod produce;
pub(crate) mod topics;
pub(crate) mod txn;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::{BrokerId, TopicName};
use kafka_protocol::protocol::StrBytes;

/// The only node.
pub(crate) const NODE: BrokerId = BrokerId(1);
/// The address that clients are told.
pub(crate) const HOST: StrBytes = StrBytes::from_static_str("127.0.0.1");

/// The error code of a result; 0 is success.
fn code<T>(result: &Result<T, ResponseError>) -> i16 {
    result.as_ref().err().map_or(0, ResponseError::code)
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn topic_name(name: &str) -> TopicName {
    TopicName(text(name))
}
