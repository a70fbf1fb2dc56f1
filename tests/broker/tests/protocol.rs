//! What librdkafka never does, with a client on the broker's own codecs: every API at every version that is advertised
//! (the codec refuses to write a field that a version lacks, and the client would then wait for ever), garbage, and
//! producers that break the rules of transactions. The latter run against Apache Kafka, too (`SPILLWAY_TEST_KAFKA`).

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

#[path = "protocol/client.rs"]
mod client;
#[path = "protocol/requests.rs"]
mod requests;
#[path = "protocol/transactions.rs"]
mod transactions;

use std::collections::BTreeSet;

use kafka_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse, MetadataRequest};
use spillway_broker::{ApiKey, Broker, BrokerOptions, ResponseError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::Client;

#[tokio::test]
async fn every_version_of_every_api_is_answered() {
    let broker = Broker::start(BrokerOptions::default()).await.unwrap();
    let mut client = Client::connect(&broker.bootstrap()).await;
    let versions = client.ask(ApiVersionsRequest::default(), 3).await;
    client.prepare().await;
    let mut asked = BTreeSet::new();
    for api in versions.api_keys {
        let key = ApiKey::try_from(api.api_key).unwrap();
        // Produce 0 to 2 is advertised for the sake of librdkafka only.
        let min = if key == ApiKey::Produce { 3 } else { api.min_version };
        for version in min..=api.max_version {
            client.ask_any(key, version).await;
            asked.insert((api.api_key, version));
        }
    }
    assert!(asked.len() > 100, "only {} versions were asked for", asked.len());
}

#[tokio::test]
async fn refusals_can_be_told_in_every_version() {
    let broker = Broker::start(BrokerOptions { auto_create_topics: false, ..BrokerOptions::default() }).await.unwrap();
    let mut client = Client::connect(&broker.bootstrap()).await;
    // The same requests, but there is neither topic nor group nor transaction: everything is an error.
    let versions = client.ask(ApiVersionsRequest::default(), 3).await;
    let skipped = [ApiKey::CreateTopics, ApiKey::InitProducerId, ApiKey::JoinGroup].map(|key| key as i16);
    for api in versions.api_keys.into_iter().filter(|api| !skipped.contains(&api.api_key)) {
        let key = ApiKey::try_from(api.api_key).unwrap();
        let min = if key == ApiKey::Produce { 3 } else { api.min_version };
        for version in min..=api.max_version {
            client.ask_any(key, version).await;
        }
    }
}

#[tokio::test]
async fn a_newer_question_for_the_versions_is_answered_in_version_0() {
    let broker = Broker::start(BrokerOptions::default()).await.unwrap();
    let mut client = Client::connect(&broker.bootstrap()).await;
    client.send(&ApiVersionsRequest::default(), 4, 4).await;
    let answer: ApiVersionsResponse = client.receive(0).await;
    assert_eq!(answer.error_code, ResponseError::UnsupportedVersion.code());
    assert!(!answer.api_keys.is_empty());
}

#[tokio::test]
async fn an_unknown_version_ends_the_connection() {
    let broker = Broker::start(BrokerOptions::default()).await.unwrap();
    let mut client = Client::connect(&broker.bootstrap()).await;
    client.send(&MetadataRequest::default(), 13, 13).await;
    assert_eq!(client.stream.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_fetch_by_the_id_of_no_topic_says_so() {
    let broker = Broker::start(BrokerOptions::default()).await.unwrap();
    let mut client = Client::connect(&broker.bootstrap()).await;
    let answer = client.ask(requests::fetch(13), 13).await;
    assert_eq!(answer.responses[0].partitions[0].error_code, ResponseError::UnknownTopicId.code());
}

#[tokio::test]
async fn garbage_ends_the_connection_and_nothing_else() {
    let broker = Broker::start(BrokerOptions::default()).await.unwrap();
    for garbage in [&[0_u8, 0, 0, 3, 1, 2, 3][..], &[0, 0, 0, 10, 0, 1, 0, 12, 0, 0, 0, 0, 0xff, 0xff], &[0xff; 64]] {
        let mut client = Client::connect(&broker.bootstrap()).await;
        client.stream.write_all(garbage).await.unwrap();
        assert_eq!(client.stream.read(&mut [0]).await.unwrap_or(0), 0);
    }
    let mut client = Client::connect(&broker.bootstrap()).await;
    assert_eq!(client.ask(MetadataRequest::default(), 9).await.brokers.len(), 1);
}
