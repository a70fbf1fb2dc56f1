//! A client that sends one request at a time and reads its answer.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, HeaderVersion, Request, StrBytes, encode_request_header_into_buffer};
use spillway_broker::{ApiKey, ResponseError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::requests::*;

/// Far more than any answer takes; one that never comes fails the test.
const PATIENCE: Duration = Duration::from_secs(10);

/// The client, with what its requests refer to.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    member_id: StrBytes,
    producer: (ProducerId, i16),
    rounds: u32,
}

impl Client {
    pub(crate) async fn connect(address: &str) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        Self { stream, member_id: StrBytes::new(), producer: (ProducerId(-1), -1), rounds: 0 }
    }

    /// A topic with a record, a group with a member and an offset, an open transaction.
    pub(crate) async fn prepare(&mut self) {
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

    pub(crate) async fn ask_any(&mut self, key: ApiKey, version: i16) {
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

    pub(crate) async fn ask<Q: Request>(&mut self, request: Q, version: i16) -> Q::Response {
        self.send(&request, version, version).await;
        self.receive(version).await
    }

    pub(crate) async fn send<Q: Request>(&mut self, request: &Q, header_version: i16, version: i16) {
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

    pub(crate) async fn receive<A: Decodable + HeaderVersion>(&mut self, version: i16) -> A {
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
