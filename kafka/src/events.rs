//! A consumer's queue, event by event.
//!
//! rdkafka's own poll tells neither at which offset a partition ended nor which partition an error is about, and Spillway needs both: a
//! log that ends in transaction markers has no record to show how far it was read, and a vanished offset has to be reported with its
//! partition. Records are borrowed from librdkafka's buffers, nothing is copied.

#![expect(unsafe_code, reason = "rdkafka 0.39 hides the offsets of partition ends and the partitions of errors")]

use std::ffi::CStr;
use std::marker::PhantomData;
use std::os::raw::{c_char, c_void};
use std::ptr::NonNull;
use std::time::Duration;

use rdkafka::bindings as rd;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::RDKafkaErrorCode;
use spillway_proto::{NextOffset, Offset, Partition};

/// The queue of a consumer with manual assignment. Poll it in place of the consumer, from one thread, at least every few seconds.
///
/// The consumer must have a `group.id` (else its errors go to another queue) and `enable.partition.eof`.
#[derive(Debug)]
pub struct EventQueue<'c> {
    queue: NonNull<rd::rd_kafka_queue_t>,
    consumer: PhantomData<&'c ()>,
}

/// One thing that happened. Holds the record's bytes until it is dropped.
#[derive(Debug)]
pub struct Polled<'q> {
    event: NonNull<rd::rd_kafka_event_t>,
    queue: PhantomData<&'q ()>,
}

/// What a [`Polled`] says.
#[derive(Debug)]
pub enum Event<'p> {
    /// A record.
    Record(SourceRecord<'p>),
    /// Everything below the offset was read, and for now there is no more. With `read_committed` this is the last stable offset.
    PartitionEnd {
        /// Topic.
        topic: String,
        /// Partition.
        partition: Partition,
        /// The end.
        next: NextOffset,
    },
    /// A partition cannot be read. librdkafka goes on by itself, except after [`RDKafkaErrorCode::AutoOffsetReset`] (the offset has
    /// vanished): then the partition stands still until it is assigned anew.
    PartitionFailed {
        /// Topic.
        topic: String,
        /// Partition.
        partition: Partition,
        /// The kind of error.
        code: RDKafkaErrorCode,
        /// librdkafka's text.
        text: String,
    },
    /// The client as a whole has trouble, such as all brokers down. librdkafka goes on by itself unless `fatal`.
    ClientFailed {
        /// The kind of error.
        code: RDKafkaErrorCode,
        /// librdkafka's text.
        text: String,
        /// The client can do nothing more and has to be made anew.
        fatal: bool,
    },
    /// An asynchronous commit ended.
    Committed(Result<(), RDKafkaErrorCode>),
    /// Something that concerns nobody here.
    Other,
}

/// A record, borrowed from librdkafka's buffer.
#[derive(Debug, Clone, Copy)]
pub struct SourceRecord<'p> {
    /// Topic.
    pub topic: &'p str,
    /// Partition.
    pub partition: Partition,
    /// Offset.
    pub offset: Offset,
    /// Milliseconds since 1970; −1 when the record has none. CreateTime, or LogAppendTime where the topic keeps that.
    pub timestamp: i64,
    /// Key; `None` is null.
    pub key: Option<&'p [u8]>,
    /// Value; `None` is null.
    pub value: Option<&'p [u8]>,
    /// Headers in order.
    pub headers: SourceHeaders<'p>,
}

/// A record's headers, in order, names not necessarily distinct.
#[derive(Debug, Clone, Copy)]
pub struct SourceHeaders<'p> {
    list: *const rd::rd_kafka_headers_t,
    at: usize,
    count: usize,
    record: PhantomData<&'p [u8]>,
}

impl<'c> EventQueue<'c> {
    /// The consumer's queue; `None` for a consumer without group.
    pub fn new<C: ConsumerContext>(consumer: &'c BaseConsumer<C>) -> Option<Self> {
        // SAFETY: the handle is alive as long as the consumer, and the queue, a counted reference, is freed before it (lifetime 'c).
        let queue = unsafe { rd::rd_kafka_queue_get_consumer(consumer.client().native_ptr()) };
        NonNull::new(queue).map(|queue| Self { queue, consumer: PhantomData })
    }

    /// The next event; `None` when none came within `timeout`.
    pub fn poll(&self, timeout: Duration) -> Option<Polled<'_>> {
        let timeout_ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: the queue is alive; an event that comes out is ours to free, which `Polled` does.
        let event = unsafe { rd::rd_kafka_queue_poll(self.queue.as_ptr(), timeout_ms) };
        NonNull::new(event).map(|event| Polled { event, queue: PhantomData })
    }
}

impl Drop for EventQueue<'_> {
    fn drop(&mut self) {
        // SAFETY: the reference taken in `new`, given back once.
        unsafe { rd::rd_kafka_queue_destroy(self.queue.as_ptr()) }
    }
}

impl Polled<'_> {
    /// What happened. Call it once: librdkafka hands out the record of an event a single time, a second call answers [`Event::Other`].
    pub fn event(&mut self) -> Event<'_> {
        // SAFETY: the event is alive until `self` is dropped.
        match unsafe { rd::rd_kafka_event_type(self.event.as_ptr()) } {
            rd::RD_KAFKA_EVENT_FETCH => self.record(),
            rd::RD_KAFKA_EVENT_ERROR => self.error(),
            rd::RD_KAFKA_EVENT_OFFSET_COMMIT => Event::Committed(match self.code() {
                None => Ok(()),
                Some(code) => Err(code),
            }),
            _ => Event::Other,
        }
    }

    fn record(&mut self) -> Event<'_> {
        // SAFETY: message, topic name, key, value and headers belong to the event and stay until it is freed with `self`, which the
        // result borrows. Null pointers are checked; a length belongs to each non-null pointer.
        unsafe {
            let Some(message) = rd::rd_kafka_event_message_next(self.event.as_ptr()).as_ref() else {
                return Event::Other;
            };
            let topic = CStr::from_ptr(rd::rd_kafka_topic_name(message.rkt)).to_str();
            let (Ok(topic), Some(partition), Some(offset)) =
                (topic, Partition::from_kafka(message.partition), Offset::from_kafka(message.offset))
            else {
                return Event::Other;
            };
            let mut kind = rd::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
            let timestamp = rd::rd_kafka_message_timestamp(message, &raw mut kind);
            let key = bytes(message.key, message.key_len);
            let value = bytes(message.payload, message.len);
            Event::Record(SourceRecord { topic, partition, offset, timestamp, key, value, headers: headers(message) })
        }
    }

    fn error(&mut self) -> Event<'_> {
        let Some(code) = self.code() else {
            return Event::Other;
        };
        // SAFETY: the event is alive; its text belongs to it and is copied.
        let (text, fatal) = unsafe {
            let text = CStr::from_ptr(rd::rd_kafka_event_error_string(self.event.as_ptr()));
            (text.to_string_lossy().into_owned(), rd::rd_kafka_event_error_is_fatal(self.event.as_ptr()) != 0)
        };
        match self.partition() {
            Some((topic, partition, offset)) if code == RDKafkaErrorCode::PartitionEOF => match NextOffset::from_kafka(offset) {
                Some(next) => Event::PartitionEnd { topic, partition, next },
                None => Event::Other,
            },
            Some((topic, partition, _)) if !fatal => Event::PartitionFailed { topic, partition, code, text },
            _ => Event::ClientFailed { code, text, fatal },
        }
    }

    fn code(&self) -> Option<RDKafkaErrorCode> {
        // SAFETY: the event is alive.
        let code = unsafe { rd::rd_kafka_event_error(self.event.as_ptr()) };
        (code != rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR).then(|| code.into())
    }

    /// Topic, partition and offset that the event is about.
    fn partition(&self) -> Option<(String, Partition, i64)> {
        // SAFETY: the event is alive; the entry is made for us, read, and freed once.
        unsafe {
            let entry = NonNull::new(rd::rd_kafka_event_topic_partition(self.event.as_ptr()))?;
            let (topic, partition, offset) = {
                let entry = entry.as_ref();
                (text(entry.topic), Partition::from_kafka(entry.partition), entry.offset)
            };
            rd::rd_kafka_topic_partition_destroy(entry.as_ptr());
            Some((topic, partition?, offset))
        }
    }
}

impl Drop for Polled<'_> {
    fn drop(&mut self) {
        // SAFETY: the event came out of the queue for us, and is freed once.
        unsafe { rd::rd_kafka_event_destroy(self.event.as_ptr()) }
    }
}

impl<'p> Iterator for SourceHeaders<'p> {
    type Item = (&'p str, Option<&'p [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.at == self.count {
            return None;
        }
        let (mut name, mut value, mut length): (*const c_char, *const c_void, usize) = (std::ptr::null(), std::ptr::null(), 0);
        // SAFETY: the list belongs to the record, which 'p borrows, and `at` is below its count. librdkafka ends names and values with a
        // zero byte of its own.
        unsafe {
            rd::rd_kafka_header_get_all(self.list, self.at, &raw mut name, &raw mut value, &raw mut length);
            self.at += 1;
            // Kafka's header names are UTF-8 by definition; a producer that breaks it is shown by the replacement, not by a panic.
            let name = if name.is_null() { "" } else { CStr::from_ptr(name).to_str().unwrap_or(INVALID_NAME) };
            Some((name, bytes(value, length)))
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.count - self.at;
        (left, Some(left))
    }
}

impl ExactSizeIterator for SourceHeaders<'_> {}

/// Stands for a header name that is not UTF-8, which Kafka's own clients cannot write.
const INVALID_NAME: &str = "\u{fffd}";

/// # Safety
/// `message` is alive for `'p`.
unsafe fn headers<'p>(message: &'p rd::rd_kafka_message_t) -> SourceHeaders<'p> {
    let mut list = std::ptr::null_mut();
    // SAFETY: the caller's promise; the list belongs to the message. On any error, such as "no headers", it stays empty.
    let count = unsafe {
        match rd::rd_kafka_message_headers(message, &raw mut list) {
            rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => rd::rd_kafka_header_cnt(list),
            _ => 0,
        }
    };
    SourceHeaders { list, at: 0, count, record: PhantomData }
}

/// # Safety
/// `start` is null or points to `length` bytes that stay for `'p`.
unsafe fn bytes<'p>(start: *const c_void, length: usize) -> Option<&'p [u8]> {
    // SAFETY: the caller's promise.
    (!start.is_null()).then(|| unsafe { std::slice::from_raw_parts(start.cast(), length) })
}

/// # Safety
/// `start` is null or a C string.
unsafe fn text(start: *const c_char) -> String {
    if start.is_null() {
        return String::new();
    }
    // SAFETY: not null, and the caller's promise.
    unsafe { CStr::from_ptr(start) }.to_string_lossy().into_owned()
}
