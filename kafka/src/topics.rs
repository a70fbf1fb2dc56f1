//! Ids and partition counts of topics, by `DescribeTopics`: rdkafka's metadata carries no topic ids.

#![expect(unsafe_code, reason = "rdkafka 0.39 does not wrap DescribeTopics")]

use std::ffi::{CStr, CString, NulError};
use std::ptr::NonNull;
use std::time::Duration;

use rdkafka::bindings as rd;
use rdkafka::client::{Client, ClientContext};
use rdkafka::error::RDKafkaErrorCode;
use spillway_proto::{TopicId, TopicName};
use thiserror::Error;

/// What the cluster says about one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicDescription {
    /// The topic that was asked for.
    pub topic: TopicName,
    /// Its description, or why there is none, such as [`RDKafkaErrorCode::UnknownTopicOrPartition`].
    pub outcome: Result<TopicShape, RDKafkaErrorCode>,
}

/// A topic's id and size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicShape {
    /// [`TopicId::UNKNOWN`] from brokers before Kafka 2.8.
    pub id: TopicId,
    /// How many partitions there are.
    pub partitions: u32,
}

/// Why no answer came.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DescribeError {
    /// No answer within the time limit.
    #[error("no answer from Kafka within {0:?}")]
    TimedOut(Duration),
    /// The request failed as a whole.
    #[error("{text}")]
    Failed {
        /// librdkafka's code.
        code: RDKafkaErrorCode,
        /// What librdkafka says about it.
        text: String,
    },
    /// A name that C cannot carry. [`TopicName`] has none such.
    #[error("topic name with a zero byte")]
    Name(#[from] NulError),
}

/// Asks for topics by name; never creates any. Blocks for at most `timeout` and half a second. Works with any client, consumer or producer.
///
/// The answer holds each topic once, in the order asked. `topics` must not name one twice (librdkafka refuses that).
///
/// # Errors
/// When the cluster does not answer in time or refuses the request. What is wrong with one topic is in its description.
pub fn describe_topics<C: ClientContext>(
    client: &Client<C>,
    topics: &[TopicName],
    timeout: Duration,
) -> Result<Vec<TopicDescription>, DescribeError> {
    if topics.is_empty() {
        return Ok(Vec::new());
    }
    let names = topics.iter().map(|topic| CString::new(topic.as_str())).collect::<Result<Vec<_>, _>>()?;
    let mut pointers = names.iter().map(|name| name.as_ptr()).collect::<Vec<_>>();
    let timeout_ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX - POLL_SLACK_MS);
    // SAFETY: the client is alive for the whole call and `native_ptr` is its handle. Queue, options and collection are made here and
    // freed by their guards below; librdkafka copies the names and the options before DescribeTopics returns. The queue is reference
    // counted inside librdkafka, so an answer that comes after we gave up finds it alive and is thrown away.
    let event = unsafe {
        let rk = client.native_ptr();
        let queue = Guard::new(rd::rd_kafka_queue_new(rk), rd::rd_kafka_queue_destroy);
        let options = Guard::new(
            rd::rd_kafka_AdminOptions_new(rk, rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS),
            rd::rd_kafka_AdminOptions_destroy,
        );
        let collection = Guard::new(
            rd::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len()),
            rd::rd_kafka_TopicCollection_destroy,
        );
        // Out of range only below 0 or above an hour; librdkafka then keeps its own 60 s and our poll below still ends in time.
        rd::rd_kafka_AdminOptions_set_request_timeout(options.0, timeout_ms, std::ptr::null_mut(), 0);
        rd::rd_kafka_DescribeTopics(rk, collection.0, options.0, queue.0);
        let event = rd::rd_kafka_queue_poll(queue.0, timeout_ms + POLL_SLACK_MS);
        NonNull::new(event).map(|event| Guard::new(event.as_ptr(), rd::rd_kafka_event_destroy))
    };
    let event = event.ok_or(DescribeError::TimedOut(timeout))?;
    let described = read_answer(&event)?;
    let missing = RDKafkaErrorCode::UnknownTopicOrPartition;
    Ok(topics
        .iter()
        .map(|topic| {
            let found = described.iter().find(|(name, _)| name == topic.as_str());
            TopicDescription { topic: topic.clone(), outcome: found.map_or(Err(missing), |(_, outcome)| *outcome) }
        })
        .collect())
}

/// librdkafka ends the request at its time limit by an event; ours comes a little later so that its message is heard.
const POLL_SLACK_MS: i32 = 500;

type Described = (String, Result<TopicShape, RDKafkaErrorCode>);

fn read_answer(event: &Guard<rd::rd_kafka_event_t>) -> Result<Vec<Described>, DescribeError> {
    // SAFETY: the event is alive as long as its guard. Its error text, its result and everything the result points to belong to it; we
    // copy what we keep. The array has as many valid entries as librdkafka wrote into `count`.
    unsafe {
        let code = rd::rd_kafka_event_error(event.0);
        if code != rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            let text = CStr::from_ptr(rd::rd_kafka_event_error_string(event.0)).to_string_lossy().into_owned();
            return Err(DescribeError::Failed { code: code.into(), text });
        }
        let result = rd::rd_kafka_event_DescribeTopics_result(event.0);
        if result.is_null() {
            let text = "an answer of another kind".to_owned();
            return Err(DescribeError::Failed { code: RDKafkaErrorCode::BadMessage, text });
        }
        let mut count = 0;
        let list = rd::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
        if list.is_null() || count == 0 {
            return Ok(Vec::new());
        }
        Ok(std::slice::from_raw_parts(list, count).iter().map(|topic| read_topic(*topic)).collect())
    }
}

/// # Safety
/// `topic` belongs to a result that is alive.
unsafe fn read_topic(topic: *const rd::rd_kafka_TopicDescription_t) -> Described {
    // SAFETY: the caller's promise; the name is a C string, an error may be null (none), which `rd_kafka_error_code` takes, and the id is
    // copied out while its topic is alive.
    unsafe {
        let name = CStr::from_ptr(rd::rd_kafka_TopicDescription_name(topic)).to_string_lossy().into_owned();
        let error = rd::rd_kafka_TopicDescription_error(topic);
        if !error.is_null() {
            let code = rd::rd_kafka_error_code(error);
            if code != rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                return (name, Err(code.into()));
            }
        }
        let mut partitions = 0;
        rd::rd_kafka_TopicDescription_partitions(topic, &raw mut partitions);
        let id = read_id(rd::rd_kafka_TopicDescription_topic_id(topic));
        (name, Ok(TopicShape { id, partitions: u32::try_from(partitions).unwrap_or(u32::MAX) }))
    }
}

/// # Safety
/// `id` is null or a librdkafka Uuid that is alive.
unsafe fn read_id(id: *const rd::rd_kafka_Uuid_t) -> TopicId {
    if id.is_null() {
        return TopicId::UNKNOWN;
    }
    // SAFETY: not null, and the caller's promise.
    let (high, low) = unsafe { (rd::rd_kafka_Uuid_most_significant_bits(id), rd::rd_kafka_Uuid_least_significant_bits(id)) };
    let bits = (u128::from(high.cast_unsigned()) << 64) | u128::from(low.cast_unsigned());
    TopicId(bits.to_be_bytes())
}

/// Frees a librdkafka object when dropped.
struct Guard<T>(*mut T, unsafe extern "C" fn(*mut T));

impl<T> Guard<T> {
    fn new(object: *mut T, destroy: unsafe extern "C" fn(*mut T)) -> Self {
        Self(object, destroy)
    }
}

impl<T> Drop for Guard<T> {
    fn drop(&mut self) {
        // SAFETY: the object was made together with the function that frees it, and nobody else frees it.
        unsafe { (self.1)(self.0) }
    }
}
