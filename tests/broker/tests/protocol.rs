//! Every API at every version that the broker advertises: a client on the same codecs asks, and must be able to read the
//! answer. The codec refuses to write a field that a version lacks, and the client would then wait for ever.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

#[path = "versions/requests.rs"]
mod requests;

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, HeaderVersion, Request, StrBytes, encode_request_header_into_buffer};
use spillway_broker::{ApiKey, Broker, BrokerOptions, ResponseError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::requests::*;

/// Far more than any answer takes; one that never comes fails the test.
const PATIENCE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn every_version_of_every_api_is_answered() {
    let broker = Broker::start(BrokerOptions::default()).await.unwrap();
    let mut client = Client::connect(&broker).await;
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
    let mut client = Client::connect(&broker).await;
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
    let mut client = Client::connect(&broker).await;
    client.send(&ApiVersionsRequest::default(), 4, 4).await;
    let answer: ApiVersionsResponse = client.receive(0).await;
    assert_eq!(answer.error_code, ResponseError::UnsupportedVersion.code());
    assert!(!answer.api_keys.is_empty());
}

#[tokio::test]
async fn an_unknown_version_ends_the_connection() {
    let broker = Broker::start(BrokerOptions::default()).await.unwrap();
    let mut client = Client::connect(&broker).await;
    client.send(&MetadataRequest::default(), 13, 13).await;
    assert_eq!(client.stream.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test]
async fn garbage_ends_the_connection_and_nothing_else() {
    let broker = Broker::start(BrokerOptions::default()).await.unwrap();
    for garbage in [&[0_u8, 0, 0, 3, 1, 2, 3][..], &[0, 0, 0, 10, 0, 1, 0, 12, 0, 0, 0, 0, 0xff, 0xff], &[0xff; 64]] {
        let mut client = Client::connect(&broker).await;
        client.stream.write_all(garbage).await.unwrap();
        assert_eq!(client.stream.read(&mut [0]).await.unwrap_or(0), 0);
    }
    let mut client = Client::connect(&broker).await;
    assert_eq!(client.ask(MetadataRequest::default(), 9).await.brokers.len(), 1);
}

struct Client {
    stream: TcpStream,
    member_id: StrBytes,
    producer: (ProducerId, i16),
    rounds: u32,
}

impl Client {
    async fn connect(broker: &Broker) -> Self {
        let stream = TcpStream::connect(broker.bootstrap()).await.unwrap();
        Self { stream, member_id: StrBytes::new(), producer: (ProducerId(-1), -1), rounds: 0 }
    }

    /// A topic with a record, a group with a member and an offset, an open transaction.
    async fn prepare(&mut self) {
        self.ask(create_topic(TOPIC), 5).await;
        self.ask(produce(), 9).await;
        let init = self.ask(init_producer_id(), 4).await;
        self.producer = (init.producer_id, init.producer_epoch);
        self.join(9).await;
        self.ask(self.sync_group(), 5).await;
    }

    async fn join(&mut self, version: i16) {
        let promised = self.ask(join_group(self.member_id.clone(), version), version).await;
        if promised.error_code == ResponseError::MemberIdRequired.code() {
            self.member_id = promised.member_id;
            let joined = self.ask(join_group(self.member_id.clone(), version), version).await;
            assert_eq!(joined.error_code, 0);
        }
    }

    async fn ask_any(&mut self, key: ApiKey, version: i16) {
        self.rounds += 1;
        match key {
            ApiKey::Produce => drop(self.ask(produce(), version).await),
            ApiKey::Fetch => drop(self.ask(fetch(version), version).await),
            ApiKey::ListOffsets => drop(self.ask(list_offsets(), version).await),
            ApiKey::Metadata => drop(self.ask(metadata(), version).await),
            ApiKey::OffsetCommit => drop(self.ask(offset_commit(), version).await),
            ApiKey::OffsetFetch => drop(self.ask(offset_fetch(version), version).await),
            ApiKey::FindCoordinator => drop(self.ask(find_coordinator(version), version).await),
            ApiKey::JoinGroup => self.join(version).await,
            ApiKey::Heartbeat => drop(self.ask(heartbeat(self.member_id.clone()), version).await),
            ApiKey::LeaveGroup => drop(self.ask(leave_group(version), version).await),
            ApiKey::SyncGroup => drop(self.ask(self.sync_group(), version).await),
            ApiKey::DescribeGroups => {
                let request = DescribeGroupsRequest::default().with_groups(vec![GroupId(GROUP)]);
                drop(self.ask(request, version).await);
            }
            ApiKey::ListGroups => drop(self.ask(ListGroupsRequest::default(), version).await),
            ApiKey::ApiVersions => drop(self.ask(ApiVersionsRequest::default(), version).await),
            ApiKey::CreateTopics => {
                let name = StrBytes::from_string(format!("topic-{}", self.rounds));
                let answer = self.ask(create_topic(name), version).await;
                assert_eq!(answer.topics[0].error_code, 0);
                let taken = self.ask(create_topic(TOPIC), version).await;
                assert_eq!(taken.topics[0].error_code, ResponseError::TopicAlreadyExists.code());
            }
            ApiKey::DeleteTopics => drop(self.ask(delete_topics(self.rounds, version), version).await),
            ApiKey::DeleteRecords => drop(self.ask(delete_records(), version).await),
            ApiKey::InitProducerId => {
                let init = self.ask(init_producer_id(), version).await;
                self.producer = (init.producer_id, init.producer_epoch);
            }
            ApiKey::OffsetForLeaderEpoch => drop(self.ask(for_leader_epoch(), version).await),
            ApiKey::AddPartitionsToTxn => drop(self.ask(self.add_partitions(), version).await),
            ApiKey::AddOffsetsToTxn => drop(self.ask(self.add_offsets(), version).await),
            ApiKey::EndTxn => drop(self.ask(self.end(), version).await),
            ApiKey::TxnOffsetCommit => drop(self.ask(self.commit_offsets(), version).await),
            ApiKey::DescribeConfigs => drop(self.ask(describe_configs(), version).await),
            ApiKey::AlterConfigs => drop(self.ask(alter_configs(), version).await),
            ApiKey::IncrementalAlterConfigs => drop(self.ask(incremental(), version).await),
            ApiKey::CreatePartitions => drop(self.ask(create_partitions(self.rounds), version).await),
            ApiKey::DeleteGroups => {
                let request = DeleteGroupsRequest::default().with_groups_names(vec![GroupId(GROUP)]);
                drop(self.ask(request, version).await);
            }
            ApiKey::OffsetDelete => drop(self.ask(offset_delete(), version).await),
            ApiKey::DescribeCluster => drop(self.ask(DescribeClusterRequest::default(), version).await),
            other => panic!("{other:?} is advertised but has no request here"),
        }
    }

    async fn ask<Q: Request>(&mut self, request: Q, version: i16) -> Q::Response {
        self.send(&request, version, version).await;
        self.receive(version).await
    }

    async fn send<Q: Request>(&mut self, request: &Q, header_version: i16, version: i16) {
        let header = RequestHeader::default()
            .with_request_api_key(Q::KEY)
            .with_request_api_version(header_version)
            .with_correlation_id(7)
            .with_client_id(Some(StrBytes::from_static_str("versions")));
        let mut body = BytesMut::new();
        encode_request_header_into_buffer(&mut body, &header).unwrap();
        request.encode(&mut body, version).unwrap_or_else(|error| panic!("{} version {version}: {error:#}", Q::KEY));
        let mut framed = BytesMut::new();
        framed.put_u32(u32::try_from(body.len()).unwrap());
        framed.put_slice(&body);
        self.stream.write_all(&framed).await.unwrap();
    }

    async fn receive<A: Decodable + HeaderVersion>(&mut self, version: i16) -> A {
        let what = std::any::type_name::<A>();
        let read = async {
            let length = self.stream.read_u32().await?;
            let mut body = vec![0; length as usize];
            self.stream.read_exact(&mut body).await?;
            std::io::Result::Ok(Bytes::from(body))
        };
        let read = tokio::time::timeout(PATIENCE, read).await.unwrap_or_else(|_| panic!("no {what} version {version}"));
        let mut body = read.unwrap_or_else(|error| panic!("no {what} version {version}: {error}"));
        let header = ResponseHeader::decode(&mut body, A::header_version(version)).unwrap();
        assert_eq!(header.correlation_id, 7);
        let answer = A::decode(&mut body, version).unwrap_or_else(|error| panic!("{what} version {version}: {error:#}"));
        assert!(!body.has_remaining(), "{what} version {version} has {} bytes too many", body.remaining());
        answer
    }

    fn sync_group(&self) -> SyncGroupRequest {
        SyncGroupRequest::default().with_group_id(GroupId(GROUP)).with_generation_id(1).with_member_id(self.member_id.clone())
    }

    fn add_partitions(&self) -> AddPartitionsToTxnRequest {
        let topic =
            add_partitions_to_txn_request::AddPartitionsToTxnTopic::default().with_name(TopicName(TOPIC)).with_partitions(vec![0, 9]);
        AddPartitionsToTxnRequest::default()
            .with_v3_and_below_transactional_id(TransactionalId(TRANSACTION))
            .with_v3_and_below_producer_id(self.producer.0)
            .with_v3_and_below_producer_epoch(self.producer.1)
            .with_v3_and_below_topics(vec![topic])
    }

    fn add_offsets(&self) -> AddOffsetsToTxnRequest {
        AddOffsetsToTxnRequest::default()
            .with_transactional_id(TransactionalId(TRANSACTION))
            .with_producer_id(self.producer.0)
            .with_producer_epoch(self.producer.1)
            .with_group_id(GroupId(GROUP))
    }

    fn commit_offsets(&self) -> TxnOffsetCommitRequest {
        use txn_offset_commit_request::{TxnOffsetCommitRequestPartition as Partition, TxnOffsetCommitRequestTopic as Topic};
        let partition = Partition::default().with_committed_offset(1);
        TxnOffsetCommitRequest::default()
            .with_transactional_id(TransactionalId(TRANSACTION))
            .with_group_id(GroupId(GROUP))
            .with_producer_id(self.producer.0)
            .with_producer_epoch(self.producer.1)
            .with_topics(vec![Topic::default().with_name(TopicName(TOPIC)).with_partitions(vec![partition])])
    }

    fn end(&self) -> EndTxnRequest {
        EndTxnRequest::default()
            .with_transactional_id(TransactionalId(TRANSACTION))
            .with_producer_id(self.producer.0)
            .with_producer_epoch(self.producer.1)
    }
}
