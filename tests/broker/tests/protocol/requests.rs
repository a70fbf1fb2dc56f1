//! One request of each kind, as small as it can be and still mean something.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::StrBytes;

pub(crate) const TOPIC: StrBytes = StrBytes::from_static_str("topic");
pub(crate) const GROUP: StrBytes = StrBytes::from_static_str("group");
pub(crate) const TRANSACTION: StrBytes = StrBytes::from_static_str("transaction");

pub(crate) fn produce() -> ProduceRequest {
    use produce_request::{PartitionProduceData, TopicProduceData};
    let data = PartitionProduceData::default().with_records(Some(Bytes::from(batch())));
    ProduceRequest::default()
        .with_acks(-1)
        .with_timeout_ms(1_000)
        .with_topic_data(vec![TopicProduceData::default().with_name(TopicName(TOPIC)).with_partition_data(vec![data])])
}

/// A batch of one record with neither key nor value, by nobody in particular.
fn batch() -> Vec<u8> {
    batch_by(0, -1, -1, -1)
}

/// The same with attributes, producer id, epoch and sequence number.
pub(crate) fn batch_by(attributes: i16, producer_id: i64, epoch: i16, sequence: i32) -> Vec<u8> {
    let mut tail = BytesMut::new();
    tail.put_i16(attributes);
    tail.put_slice(&[0; 4 + 8 + 8]);
    tail.put_i64(producer_id);
    tail.put_i16(epoch);
    tail.put_i32(sequence);
    tail.put_i32(1);
    tail.put_slice(&[12, 0, 0, 0, 1, 1, 0]);
    let mut batch = BytesMut::new();
    batch.put_i64(0);
    batch.put_u32(u32::try_from(tail.len() + 9).unwrap());
    batch.put_i32(-1);
    batch.put_u8(2);
    batch.put_u32(crc32c::crc32c(&tail));
    batch.put_slice(&tail);
    batch.to_vec()
}

pub(crate) fn fetch(version: i16) -> FetchRequest {
    use fetch_request::{FetchPartition, FetchTopic};
    let partition = |offset| FetchPartition::default().with_fetch_offset(offset).with_partition_max_bytes(1_000);
    let topic = match version {
        ..13 => FetchTopic::default().with_topic(TopicName(TOPIC)),
        _ => FetchTopic::default().with_topic_id(uuid::Uuid::from_u128(1)),
    };
    FetchRequest::default()
        .with_max_bytes(1_000)
        .with_isolation_level(1)
        .with_topics(vec![topic.with_partitions(vec![partition(0), partition(99)])])
}

pub(crate) fn list_offsets() -> ListOffsetsRequest {
    use list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
    let partitions = [-1, -2, -3, 0].map(|timestamp| ListOffsetsPartition::default().with_timestamp(timestamp));
    let topic = ListOffsetsTopic::default().with_name(TopicName(TOPIC)).with_partitions(partitions.to_vec());
    ListOffsetsRequest::default().with_replica_id((-1).into()).with_topics(vec![topic])
}

pub(crate) fn metadata() -> MetadataRequest {
    use metadata_request::MetadataRequestTopic as Topic;
    let topics = [TOPIC, StrBytes::from_static_str("?")].map(|name| Topic::default().with_name(Some(TopicName(name))));
    MetadataRequest::default().with_topics(Some(topics.to_vec())).with_allow_auto_topic_creation(true)
}

pub(crate) fn offset_commit() -> OffsetCommitRequest {
    use offset_commit_request::{OffsetCommitRequestPartition as Partition, OffsetCommitRequestTopic as Topic};
    let partition = Partition::default().with_committed_offset(1);
    OffsetCommitRequest::default()
        .with_group_id(GroupId(StrBytes::from_static_str("alone")))
        .with_topics(vec![Topic::default().with_name(TopicName(TOPIC)).with_partitions(vec![partition])])
}

pub(crate) fn offset_fetch(version: i16) -> OffsetFetchRequest {
    use offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics};
    let name = TopicName(TOPIC);
    let group = GroupId(StrBytes::from_static_str("alone"));
    if version < 8 {
        let topic = OffsetFetchRequestTopic::default().with_name(name).with_partition_indexes(vec![0, 1]);
        return OffsetFetchRequest::default().with_group_id(group).with_topics(Some(vec![topic]));
    }
    let topic = OffsetFetchRequestTopics::default().with_name(name).with_partition_indexes(vec![0, 1]);
    let group = OffsetFetchRequestGroup::default().with_group_id(group).with_topics(Some(vec![topic]));
    OffsetFetchRequest::default().with_groups(vec![group])
}

pub(crate) fn find_coordinator(version: i16) -> FindCoordinatorRequest {
    if version < 4 {
        FindCoordinatorRequest::default().with_key(GROUP)
    } else {
        FindCoordinatorRequest::default().with_coordinator_keys(vec![GROUP])
    }
}

pub(crate) fn join_group(member_id: StrBytes, _version: i16) -> JoinGroupRequest {
    let protocol = join_group_request::JoinGroupRequestProtocol::default().with_name(StrBytes::from_static_str("range"));
    JoinGroupRequest::default()
        .with_group_id(GroupId(GROUP))
        .with_session_timeout_ms(10_000)
        .with_member_id(member_id)
        .with_protocol_type(StrBytes::from_static_str("consumer"))
        .with_protocols(vec![protocol])
}

pub(crate) fn heartbeat(member_id: StrBytes) -> HeartbeatRequest {
    HeartbeatRequest::default().with_group_id(GroupId(GROUP)).with_generation_id(1).with_member_id(member_id)
}

pub(crate) fn leave_group(version: i16) -> LeaveGroupRequest {
    let stranger = StrBytes::from_static_str("stranger");
    if version < 3 {
        return LeaveGroupRequest::default().with_group_id(GroupId(GROUP)).with_member_id(stranger);
    }
    let member = leave_group_request::MemberIdentity::default().with_member_id(stranger);
    LeaveGroupRequest::default().with_group_id(GroupId(GROUP)).with_members(vec![member])
}

pub(crate) fn create_topic(name: StrBytes) -> CreateTopicsRequest {
    let topic =
        create_topics_request::CreatableTopic::default().with_name(TopicName(name)).with_num_partitions(2).with_replication_factor(1);
    CreateTopicsRequest::default().with_topics(vec![topic])
}

pub(crate) fn delete_topics(round: u32, version: i16) -> DeleteTopicsRequest {
    let name = TopicName(StrBytes::from_string(format!("missing-{round}")));
    if version < 6 {
        return DeleteTopicsRequest::default().with_topic_names(vec![name]);
    }
    let topic = delete_topics_request::DeleteTopicState::default().with_name(Some(name));
    DeleteTopicsRequest::default().with_topics(vec![topic])
}

pub(crate) fn delete_records() -> DeleteRecordsRequest {
    use delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
    let partition = DeleteRecordsPartition::default().with_offset(0);
    let topic = DeleteRecordsTopic::default().with_name(TopicName(TOPIC)).with_partitions(vec![partition]);
    DeleteRecordsRequest::default().with_topics(vec![topic])
}

pub(crate) fn init_producer_id() -> InitProducerIdRequest {
    InitProducerIdRequest::default().with_transactional_id(Some(TransactionalId(TRANSACTION))).with_transaction_timeout_ms(60_000)
}

pub(crate) fn for_leader_epoch() -> OffsetForLeaderEpochRequest {
    use offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic};
    let partitions = [0, 1].map(|epoch| OffsetForLeaderPartition::default().with_leader_epoch(epoch));
    let topic = OffsetForLeaderTopic::default().with_topic(TopicName(TOPIC)).with_partitions(partitions.to_vec());
    OffsetForLeaderEpochRequest::default().with_topics(vec![topic])
}

pub(crate) fn describe_configs() -> DescribeConfigsRequest {
    let resource = |kind, name| {
        describe_configs_request::DescribeConfigsResource::default()
            .with_resource_type(kind)
            .with_resource_name(name)
            .with_configuration_keys(None)
    };
    DescribeConfigsRequest::default()
        .with_resources(vec![resource(2, TOPIC), resource(4, StrBytes::from_static_str("1")), resource(4, TOPIC)])
        .with_include_synonyms(true)
}

pub(crate) fn alter_configs() -> AlterConfigsRequest {
    use alter_configs_request::{AlterConfigsResource, AlterableConfig};
    let config =
        AlterableConfig::default().with_name(StrBytes::from_static_str("retention.ms")).with_value(Some(StrBytes::from_static_str("-1")));
    let resource = AlterConfigsResource::default().with_resource_type(2).with_resource_name(TOPIC).with_configs(vec![config]);
    AlterConfigsRequest::default().with_resources(vec![resource])
}

pub(crate) fn incremental() -> IncrementalAlterConfigsRequest {
    use incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
    let config =
        AlterableConfig::default().with_name(StrBytes::from_static_str("retention.ms")).with_value(Some(StrBytes::from_static_str("soon")));
    let resource = AlterConfigsResource::default().with_resource_type(2).with_resource_name(TOPIC).with_configs(vec![config]);
    IncrementalAlterConfigsRequest::default().with_resources(vec![resource])
}

pub(crate) fn create_partitions(round: u32) -> CreatePartitionsRequest {
    let count = i32::try_from(round).expect("few rounds") + 2;
    let topic =
        create_partitions_request::CreatePartitionsTopic::default().with_name(TopicName(TOPIC)).with_count(count).with_assignments(None);
    CreatePartitionsRequest::default().with_topics(vec![topic])
}

pub(crate) fn offset_delete() -> OffsetDeleteRequest {
    use offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
    let topic =
        OffsetDeleteRequestTopic::default().with_name(TopicName(TOPIC)).with_partitions(vec![OffsetDeleteRequestPartition::default()]);
    OffsetDeleteRequest::default().with_group_id(GroupId(StrBytes::from_static_str("alone"))).with_topics(vec![topic])
}
