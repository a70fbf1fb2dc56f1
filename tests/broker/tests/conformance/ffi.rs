//! What librdkafka can do and rdkafka does not show: topic ids, incremental changes of settings, the newest record of a
//! partition, description of a group, deletion of its offsets.

#![expect(unsafe_code, reason = "calls into librdkafka")]

use std::ffi::{CStr, CString, c_char};
use std::ptr;

use rdkafka::admin::AdminClient;
use rdkafka::bindings as ffi;
use rdkafka::client::DefaultClientContext;
use rdkafka::error::RDKafkaErrorCode;

use crate::support::PATIENCE;

type Admin = AdminClient<DefaultClientContext>;

/// How a setting is changed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Change {
    Set,
    Delete,
    Append,
    Subtract,
}

/// The id of a topic, in base64.
pub(crate) fn topic_id(admin: &Admin, topic: &str) -> Result<String, RDKafkaErrorCode> {
    let topic = CString::new(topic).unwrap();
    let mut names: [*const c_char; 1] = [topic.as_ptr()];
    // SAFETY: the client outlives the call; collection, options, queue and event are freed once, after their last use;
    // what is read belongs to the event.
    unsafe {
        let client = admin.inner().native_ptr();
        let collection = ffi::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), 1);
        let operation = Operation::new(client, ffi::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS);
        ffi::rd_kafka_DescribeTopics(client, collection, operation.options, operation.queue);
        ffi::rd_kafka_TopicCollection_destroy(collection);
        let event = operation.wait();
        let result = ffi::rd_kafka_event_DescribeTopics_result(event);
        let mut count = 0;
        let topics = ffi::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        assert_eq!(count, 1);
        let described = *topics;
        let code = ffi::rd_kafka_error_code(ffi::rd_kafka_TopicDescription_error(described));
        let id = ffi::rd_kafka_Uuid_base64str(ffi::rd_kafka_TopicDescription_topic_id(described));
        let id = CStr::from_ptr(id).to_string_lossy().into_owned();
        ffi::rd_kafka_event_destroy(event);
        answer(code).map(|()| id)
    }
}

/// Changes one setting of a topic and leaves the others alone.
pub(crate) fn alter_incrementally(admin: &Admin, topic: &str, change: Change, name: &str, value: &str) -> Result<(), RDKafkaErrorCode> {
    use ffi::rd_kafka_AlterConfigOpType_t as Op;
    let change = match change {
        Change::Set => Op::RD_KAFKA_ALTER_CONFIG_OP_TYPE_SET,
        Change::Delete => Op::RD_KAFKA_ALTER_CONFIG_OP_TYPE_DELETE,
        Change::Append => Op::RD_KAFKA_ALTER_CONFIG_OP_TYPE_APPEND,
        Change::Subtract => Op::RD_KAFKA_ALTER_CONFIG_OP_TYPE_SUBTRACT,
    };
    let (topic, name) = (CString::new(topic).unwrap(), CString::new(name).unwrap());
    let value = CString::new(value).unwrap();
    // SAFETY: as above.
    unsafe {
        let client = admin.inner().native_ptr();
        let mut resource = ffi::rd_kafka_ConfigResource_new(ffi::rd_kafka_ResourceType_t::RD_KAFKA_RESOURCE_TOPIC, topic.as_ptr());
        let value = if matches!(change, Op::RD_KAFKA_ALTER_CONFIG_OP_TYPE_DELETE) { ptr::null() } else { value.as_ptr() };
        let error = ffi::rd_kafka_ConfigResource_add_incremental_config(resource, name.as_ptr(), change, value);
        assert!(error.is_null());
        let operation = Operation::new(client, ffi::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_INCREMENTALALTERCONFIGS);
        ffi::rd_kafka_IncrementalAlterConfigs(client, &mut resource, 1, operation.options, operation.queue);
        ffi::rd_kafka_ConfigResource_destroy(resource);
        let event = operation.wait();
        let result = ffi::rd_kafka_event_IncrementalAlterConfigs_result(event);
        let mut count = 0;
        let resources = ffi::rd_kafka_IncrementalAlterConfigs_result_resources(result, &mut count);
        assert_eq!(count, 1);
        let code = ffi::rd_kafka_ConfigResource_error(*resources);
        ffi::rd_kafka_event_destroy(event);
        answer(code)
    }
}

/// The offset of the record with the largest timestamp in partition 0; -1 for none.
pub(crate) fn newest_offset(admin: &Admin, topic: &str) -> Result<i64, RDKafkaErrorCode> {
    let topic = CString::new(topic).unwrap();
    // SAFETY: as above.
    unsafe {
        let client = admin.inner().native_ptr();
        let list = ffi::rd_kafka_topic_partition_list_new(1);
        let wanted = ffi::rd_kafka_topic_partition_list_add(list, topic.as_ptr(), 0);
        (*wanted).offset = i64::from(ffi::rd_kafka_OffsetSpec_t::RD_KAFKA_OFFSET_SPEC_MAX_TIMESTAMP as i32);
        let operation = Operation::new(client, ffi::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_LISTOFFSETS);
        ffi::rd_kafka_ListOffsets(client, list, operation.options, operation.queue);
        ffi::rd_kafka_topic_partition_list_destroy(list);
        let event = operation.wait();
        let result = ffi::rd_kafka_event_ListOffsets_result(event);
        let mut count = 0;
        let found = ffi::rd_kafka_ListOffsets_result_infos(result, &mut count);
        assert_eq!(count, 1);
        let found = *ffi::rd_kafka_ListOffsetsResultInfo_topic_partition(*found);
        ffi::rd_kafka_event_destroy(event);
        answer(found.err).map(|()| found.offset)
    }
}

/// Deletes the offset of a group for partition 0 of a topic.
pub(crate) fn delete_group_offset(admin: &Admin, group: &str, topic: &str) -> Result<(), RDKafkaErrorCode> {
    let (group, topic) = (CString::new(group).unwrap(), CString::new(topic).unwrap());
    // SAFETY: as above.
    unsafe {
        let client = admin.inner().native_ptr();
        let list = ffi::rd_kafka_topic_partition_list_new(1);
        ffi::rd_kafka_topic_partition_list_add(list, topic.as_ptr(), 0);
        let mut wanted = ffi::rd_kafka_DeleteConsumerGroupOffsets_new(group.as_ptr(), list);
        ffi::rd_kafka_topic_partition_list_destroy(list);
        let operation = Operation::new(client, ffi::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DELETECONSUMERGROUPOFFSETS);
        ffi::rd_kafka_DeleteConsumerGroupOffsets(client, &mut wanted, 1, operation.options, operation.queue);
        ffi::rd_kafka_DeleteConsumerGroupOffsets_destroy(wanted);
        let event = operation.wait();
        let result = ffi::rd_kafka_event_DeleteConsumerGroupOffsets_result(event);
        let mut count = 0;
        let groups = ffi::rd_kafka_DeleteConsumerGroupOffsets_result_groups(result, &mut count);
        assert_eq!(count, 1);
        let deleted = *ffi::rd_kafka_group_result_partitions(*groups);
        let code = (*deleted.elems).err;
        ffi::rd_kafka_event_destroy(event);
        answer(code)
    }
}

/// State, protocol and member count of a group.
pub(crate) fn describe_group(admin: &Admin, group: &str) -> Result<(String, String, usize), RDKafkaErrorCode> {
    let group = CString::new(group).unwrap();
    let mut names: [*const c_char; 1] = [group.as_ptr()];
    // SAFETY: as above.
    unsafe {
        let client = admin.inner().native_ptr();
        let operation = Operation::new(client, ffi::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBECONSUMERGROUPS);
        ffi::rd_kafka_DescribeConsumerGroups(client, names.as_mut_ptr(), 1, operation.options, operation.queue);
        let event = operation.wait();
        let result = ffi::rd_kafka_event_DescribeConsumerGroups_result(event);
        let mut count = 0;
        let groups = ffi::rd_kafka_DescribeConsumerGroups_result_groups(result, &mut count);
        assert_eq!(count, 1);
        let described = *groups;
        let code = ffi::rd_kafka_error_code(ffi::rd_kafka_ConsumerGroupDescription_error(described));
        let state = ffi::rd_kafka_consumer_group_state_name(ffi::rd_kafka_ConsumerGroupDescription_state(described));
        let protocol = ffi::rd_kafka_ConsumerGroupDescription_partition_assignor(described);
        let text = |text: *const c_char| CStr::from_ptr(text).to_string_lossy().into_owned();
        let found = (text(state), text(protocol), ffi::rd_kafka_ConsumerGroupDescription_member_count(described));
        ffi::rd_kafka_event_destroy(event);
        answer(code).map(|()| found)
    }
}

/// Options and queue of one administrative call.
struct Operation {
    options: *mut ffi::rd_kafka_AdminOptions_t,
    queue: *mut ffi::rd_kafka_queue_t,
}

impl Operation {
    unsafe fn new(client: *mut ffi::rd_kafka_t, kind: ffi::rd_kafka_admin_op_t) -> Self {
        // SAFETY: the caller's client is alive.
        unsafe { Self { options: ffi::rd_kafka_AdminOptions_new(client, kind), queue: ffi::rd_kafka_queue_new(client) } }
    }

    /// Waits for the answer, which the caller frees.
    fn wait(&self) -> *mut ffi::rd_kafka_event_t {
        // SAFETY: the queue lives as long as this.
        let event = unsafe { ffi::rd_kafka_queue_poll(self.queue, i32::try_from(PATIENCE.as_millis()).unwrap()) };
        assert!(!event.is_null(), "no answer within {PATIENCE:?}");
        // SAFETY: the event is not null.
        let code = unsafe { ffi::rd_kafka_event_error(event) };
        assert_eq!(answer(code), Ok(()));
        event
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        // SAFETY: both were made in `new` and are freed only here.
        unsafe {
            ffi::rd_kafka_AdminOptions_destroy(self.options);
            ffi::rd_kafka_queue_destroy(self.queue);
        }
    }
}

fn answer(code: ffi::rd_kafka_resp_err_t) -> Result<(), RDKafkaErrorCode> {
    match RDKafkaErrorCode::from(code) {
        RDKafkaErrorCode::NoError => Ok(()),
        code => Err(code),
    }
}
