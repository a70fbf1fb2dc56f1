//! librdkafka's transactional producer, without rdkafka's wrapper around it.
//!
//! The wrapper looks a topic up by name for every record, in a list of all topics, and copies the name first; its polls last their full time
//! even when reports came at once; and it has no place for the interceptor that timestamp 0 needs. Here a topic is a handle, a poll ends
//! with the first event, and records are borrowed: librdkafka makes the one copy that it needs.

#![expect(unsafe_code, reason = "rdkafka 0.39 has no produce call with a topic handle and no interceptors")]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::fmt;
use std::ptr::{self, NonNull};
use std::rc::Rc;
use std::time::Duration;

use rdkafka::bindings as rd;
use rdkafka::client::Client;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::types::RDKafkaType;
use spillway_proto::record::{Headers, Record};

use super::producer::{Report, TransactionError};

/// A record on its way out, borrowed.
#[derive(Debug, Clone)]
pub struct Outgoing<'a> {
    /// Key; `None` is null.
    pub key: Option<&'a [u8]>,
    /// Value; `None` is null.
    pub value: Option<&'a [u8]>,
    /// CreateTime in milliseconds since 1970; −1 for none.
    pub timestamp: i64,
    /// Headers; `None` for a record of our own, which has none.
    pub headers: Option<Headers<'a>>,
}

impl<'a> Outgoing<'a> {
    /// A record of our own.
    pub fn own(key: &'a [u8], value: &'a [u8], timestamp: i64) -> Self {
        Self { key: Some(key), value: Some(value), timestamp, headers: None }
    }
}

impl<'a> From<Record<'a>> for Outgoing<'a> {
    fn from(record: Record<'a>) -> Self {
        Self { key: record.key, value: record.value, timestamp: record.timestamp, headers: Some(record.headers) }
    }
}

/// The client. Dropping it closes the connections; records that were not delivered are forgotten.
pub struct NativeProducer {
    queue: NonNull<rd::rd_kafka_queue_t>,
    client: Client<spillway_kafka::Context>,
}

/// A remote topic of one producer.
pub struct TopicHandle {
    topic: NonNull<rd::rd_kafka_topic_t>,
    /// Keeps the client alive for as long as the handle.
    producer: Rc<NativeProducer>,
}

/// A call on the transaction.
#[derive(Debug, Clone, Copy)]
pub enum Call {
    /// `rd_kafka_init_transactions`.
    Init,
    /// `rd_kafka_begin_transaction`; has no time limit since it asks nobody.
    Begin,
    /// `rd_kafka_commit_transaction`.
    Commit,
    /// `rd_kafka_abort_transaction`.
    Abort,
}

impl NativeProducer {
    /// Makes the client; nothing is sent yet.
    ///
    /// # Errors
    /// When librdkafka refuses the settings.
    pub fn new(config: &ClientConfig) -> Result<Self, KafkaError> {
        let native = config.create_native_config()?;
        // SAFETY: the configuration is alive and ours until the client takes it over; the name is a C string that is copied; `on_new` has
        // no state of its own.
        unsafe {
            rd::rd_kafka_conf_set_events(native.ptr(), rd::RD_KAFKA_EVENT_DR | rd::RD_KAFKA_EVENT_ERROR);
            rd::rd_kafka_conf_interceptor_add_on_new(native.ptr(), INTERCEPTOR.as_ptr(), Some(on_new), ptr::null_mut());
        }
        let client = Client::new(config, native, RDKafkaType::RD_KAFKA_PRODUCER, spillway_kafka::Context)?;
        // SAFETY: the client is alive; the queue is a counted reference, given back in `drop`.
        let queue = unsafe { rd::rd_kafka_queue_get_main(client.native_ptr()) };
        let queue = NonNull::new(queue).ok_or_else(|| KafkaError::ClientCreation("no queue".to_owned()))?;
        Ok(Self { queue, client })
    }

    /// Takes what has happened; waits for the first event at most `timeout`.
    pub fn poll(&self, timeout: Duration, reports: &mut Vec<Report>) {
        let mut timeout_ms = c_int::try_from(timeout.as_millis()).unwrap_or(c_int::MAX);
        loop {
            // SAFETY: the queue is alive; an event that comes out is ours to free.
            let Some(event) = NonNull::new(unsafe { rd::rd_kafka_queue_poll(self.queue.as_ptr(), timeout_ms) }) else {
                return;
            };
            timeout_ms = 0;
            // SAFETY: the event is alive until it is freed, once, at the end.
            unsafe {
                take_event(event.as_ptr(), reports);
                rd::rd_kafka_event_destroy(event.as_ptr());
            }
        }
    }

    /// Records that are queued or sent and not reported yet.
    pub fn in_flight(&self) -> usize {
        // SAFETY: the client is alive.
        usize::try_from(unsafe { rd::rd_kafka_outq_len(self.client.native_ptr()) }).unwrap_or(0)
    }

    /// Asks the brokers how many partitions a topic has, and makes the client know it.
    pub fn partitions(&self, topic: &str, timeout: Duration) -> Option<u32> {
        let metadata = self.client.fetch_metadata(Some(topic), timeout).ok()?;
        let found = metadata.topics().iter().find(|found| found.name() == topic)?;
        u32::try_from(found.partitions().len()).ok()
    }

    /// Makes a call on the transaction, which blocks for at most `timeout`.
    ///
    /// # Errors
    /// With what to do next.
    pub fn call(&self, call: Call, timeout: Duration) -> Result<(), TransactionError> {
        let timeout_ms = c_int::try_from(timeout.as_millis()).unwrap_or(c_int::MAX);
        let rk = self.client.native_ptr();
        // SAFETY: the client is alive; an error is ours to free, once, after it was read; its text is copied.
        unsafe {
            let error = match call {
                Call::Init => rd::rd_kafka_init_transactions(rk, timeout_ms),
                Call::Begin => rd::rd_kafka_begin_transaction(rk),
                Call::Commit => rd::rd_kafka_commit_transaction(rk, timeout_ms),
                Call::Abort => rd::rd_kafka_abort_transaction(rk, timeout_ms),
            };
            if error.is_null() {
                return Ok(());
            }
            let result = disposition(error);
            rd::rd_kafka_error_destroy(error);
            Err(result)
        }
    }
}

impl Drop for NativeProducer {
    fn drop(&mut self) {
        // SAFETY: the reference taken in `new`, given back once, while the client is alive.
        unsafe { rd::rd_kafka_queue_destroy(self.queue.as_ptr()) }
    }
}

impl fmt::Debug for NativeProducer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NativeProducer").finish_non_exhaustive()
    }
}

impl TopicHandle {
    /// The handle of a topic, which need not exist yet. `None` when librdkafka refuses the name.
    pub fn new(producer: &Rc<NativeProducer>, name: &str) -> Option<Self> {
        let name = CString::new(name).ok()?;
        // SAFETY: the client is alive; the name is a C string that librdkafka copies; without a configuration the client's default is taken.
        let topic = unsafe { rd::rd_kafka_topic_new(producer.client.native_ptr(), name.as_ptr(), ptr::null_mut()) };
        NonNull::new(topic).map(|topic| Self { topic, producer: Rc::clone(producer) })
    }

    /// Queues a record. `tag` comes back with its delivery report.
    ///
    /// # Errors
    /// [`RDKafkaErrorCode::QueueFull`] when the queue has no room now; any other code is about this record or this producer.
    pub fn produce(&self, partition: i32, record: &Outgoing<'_>, tag: usize) -> Result<(), RDKafkaErrorCode> {
        let headers = native_headers(record.headers.as_ref())?;
        let (key, key_length) = borrowed(record.key);
        let (value, value_length) = borrowed(record.value);
        // SAFETY: client and topic are alive. Every argument has the C type that its tag announces, and the list ends with END. Key and
        // value are copied (F_COPY) before the call returns; a null pointer with length 0 is Kafka's null. Headers are ours again on error.
        let error = unsafe {
            rd::rd_kafka_producev(
                self.producer.client.native_ptr(),
                rd::rd_kafka_vtype_t::RD_KAFKA_VTYPE_RKT,
                self.topic.as_ptr(),
                rd::rd_kafka_vtype_t::RD_KAFKA_VTYPE_PARTITION,
                partition,
                rd::rd_kafka_vtype_t::RD_KAFKA_VTYPE_MSGFLAGS,
                rd::RD_KAFKA_MSG_F_COPY,
                rd::rd_kafka_vtype_t::RD_KAFKA_VTYPE_VALUE,
                value,
                value_length,
                rd::rd_kafka_vtype_t::RD_KAFKA_VTYPE_KEY,
                key,
                key_length,
                rd::rd_kafka_vtype_t::RD_KAFKA_VTYPE_OPAQUE,
                tag as *mut c_void,
                rd::rd_kafka_vtype_t::RD_KAFKA_VTYPE_TIMESTAMP,
                if record.timestamp == 0 { EPOCH } else { record.timestamp },
                rd::rd_kafka_vtype_t::RD_KAFKA_VTYPE_HEADERS,
                headers,
                rd::rd_kafka_vtype_t::RD_KAFKA_VTYPE_END,
            )
        };
        if error == rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Ok(());
        }
        if !headers.is_null() {
            // SAFETY: the call failed, so the headers are still ours, and are freed once.
            unsafe { rd::rd_kafka_headers_destroy(headers) };
        }
        Err(error.into())
    }
}

impl Drop for TopicHandle {
    fn drop(&mut self) {
        // SAFETY: the reference taken in `new`, given back once, while the client is alive.
        unsafe { rd::rd_kafka_topic_destroy(self.topic.as_ptr()) }
    }
}

impl fmt::Debug for TopicHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TopicHandle").finish_non_exhaustive()
    }
}

/// The name that librdkafka's log knows our interceptor by.
const INTERCEPTOR: &CStr = c"spillway-epoch";

/// Stands for timestamp 0 on the way into librdkafka. No record has it: it is 292 million years ago.
const EPOCH: i64 = i64::MIN + 1;

/// The beginning of librdkafka's message (`rd_kafka_msg_t` in `rdkafka_msg.h` of 2.12.1, which rdkafka-sys builds and links statically).
#[repr(C)]
struct MessageHead {
    message: rd::rd_kafka_message_t,
    link: [*mut c_void; 2],
    flags: i32,
    timestamp_type: i32,
    timestamp: i64,
}

/// Takes one event apart.
///
/// # Safety
/// The event is alive.
unsafe fn take_event(event: *mut rd::rd_kafka_event_t, reports: &mut Vec<Report>) {
    // SAFETY: the caller's promise. Messages and texts belong to the event; the pointers are read only if they are not null.
    unsafe {
        match rd::rd_kafka_event_type(event) {
            rd::RD_KAFKA_EVENT_DR => {
                while let Some(message) = rd::rd_kafka_event_message_next(event).as_ref() {
                    let delivered = message.err == rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;
                    let outcome = if delivered { Ok(message.offset) } else { Err(message.err.into()) };
                    reports.push(Report { tag: message._private as usize, outcome });
                }
            }
            rd::RD_KAFKA_EVENT_LOG => {
                let (mut facility, mut text, mut level): (*const c_char, *const c_char, c_int) = (ptr::null(), ptr::null(), 0);
                if rd::rd_kafka_event_log(event, &raw mut facility, &raw mut text, &raw mut level) == 0 {
                    spillway_kafka::log_line(log_level(level), &text_of(facility), &text_of(text));
                }
            }
            rd::RD_KAFKA_EVENT_ERROR => {
                let error = text_of(rd::rd_kafka_event_error_string(event));
                tracing::debug!(target: "librdkafka", error, "client error");
            }
            _ => {}
        }
    }
}

/// What to do after an error of a transactional call.
///
/// # Safety
/// The error is alive.
unsafe fn disposition(error: *const rd::rd_kafka_error_t) -> TransactionError {
    // SAFETY: the caller's promise.
    unsafe {
        let text = text_of(rd::rd_kafka_error_string(error));
        let fenced = matches!(
            rd::rd_kafka_error_code(error).into(),
            RDKafkaErrorCode::Fenced | RDKafkaErrorCode::ProducerFenced | RDKafkaErrorCode::InvalidProducerEpoch
        );
        if fenced {
            TransactionError::Fenced(text)
        } else if rd::rd_kafka_error_is_fatal(error) != 0 {
            TransactionError::Reopen(text)
        } else if rd::rd_kafka_error_txn_requires_abort(error) != 0 {
            TransactionError::Abort(text)
        } else if rd::rd_kafka_error_is_retriable(error) != 0 {
            TransactionError::Again(text)
        } else {
            TransactionError::Reopen(text)
        }
    }
}

/// # Safety
/// `start` is null or a C string.
unsafe fn text_of(start: *const c_char) -> String {
    if start.is_null() {
        return String::new();
    }
    // SAFETY: not null, and the caller's promise.
    unsafe { CStr::from_ptr(start) }.to_string_lossy().into_owned()
}

/// A level of syslog as librdkafka gives it.
fn log_level(level: c_int) -> RDKafkaLogLevel {
    match level {
        ..=0 => RDKafkaLogLevel::Emerg,
        1 => RDKafkaLogLevel::Alert,
        2 => RDKafkaLogLevel::Critical,
        3 => RDKafkaLogLevel::Error,
        4 => RDKafkaLogLevel::Warning,
        5 => RDKafkaLogLevel::Notice,
        6 => RDKafkaLogLevel::Info,
        _ => RDKafkaLogLevel::Debug,
    }
}

/// Called by librdkafka when the client has been made: only now may it take an interceptor of records.
unsafe extern "C" fn on_new(
    client: *mut rd::rd_kafka_t,
    _config: *const rd::rd_kafka_conf_t,
    _opaque: *mut c_void,
    _error: *mut c_char,
    _error_length: usize,
) -> rd::rd_kafka_resp_err_t {
    // SAFETY: librdkafka hands over its new client; the name is a C string that is copied; `on_send` has no state.
    unsafe { rd::rd_kafka_interceptor_add_on_send(client, INTERCEPTOR.as_ptr(), Some(on_send), ptr::null_mut()) }
}

/// Called by librdkafka for each record before it is queued: puts timestamp 0 back where [`EPOCH`] stands for it.
unsafe extern "C" fn on_send(
    _client: *mut rd::rd_kafka_t,
    message: *mut rd::rd_kafka_message_t,
    _opaque: *mut c_void,
) -> rd::rd_kafka_resp_err_t {
    // SAFETY: librdkafka calls this with a new message of its own that only this thread knows yet; `rd_kafka_message_t` is the first field
    // of the larger struct. The public function is asked first, so that the private field is touched only where it must hold EPOCH, and
    // it is changed only if it does.
    unsafe {
        if rd::rd_kafka_message_timestamp(message, ptr::null_mut()) == EPOCH {
            let head = message.cast::<MessageHead>();
            if (*head).timestamp == EPOCH {
                (*head).timestamp = 0;
            }
        }
    }
    rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
}

fn borrowed(bytes: Option<&[u8]>) -> (*const c_void, usize) {
    // An empty slice's pointer is not null, which is what tells empty from null.
    bytes.map_or((ptr::null(), 0), |bytes| (bytes.as_ptr().cast(), bytes.len()))
}

/// Headers as librdkafka's list; null without any.
fn native_headers(headers: Option<&Headers<'_>>) -> Result<*mut rd::rd_kafka_headers_t, RDKafkaErrorCode> {
    let Some(headers) = headers.filter(|headers| !headers.is_empty()) else {
        return Ok(ptr::null_mut());
    };
    // SAFETY: a new list, handed to the caller; names and values are copied with their lengths, a null value with length 0 is a null.
    unsafe {
        let list = rd::rd_kafka_headers_new(headers.len());
        for (name, value) in headers.iter() {
            let (value, value_length) = borrowed(value);
            let error = rd::rd_kafka_header_add(list, name.as_ptr().cast(), name.len().cast_signed(), value, value_length.cast_signed());
            if error != rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                rd::rd_kafka_headers_destroy(list);
                return Err(error.into());
            }
        }
        Ok(list)
    }
}
