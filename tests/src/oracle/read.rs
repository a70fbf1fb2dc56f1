//! Reading a topic as a consumer with `read_committed` would, and keeping a fingerprint of each record.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::{Offset, Timestamp, TopicPartitionList};

use crate::client::{Client, Headers, NewRecord};

/// A topic that yields nothing for so long is not going to.
const SILENCE_LIMIT: Duration = Duration::from_secs(30);

/// What is kept of a record: enough to recognise it anywhere, not enough to fill the memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint {
    /// Offset in its own log; not part of what is compared.
    pub offset: i64,
    /// CreateTime in milliseconds, `None` if the log has another kind of timestamp.
    pub create_time_ms: Option<i64>,
    /// Over key, value, headers in order and timestamp, null told from empty. 128 bits: two different records of a test never
    /// look alike.
    pub hash: u128,
    /// Bytes of key and value, for messages.
    pub size: usize,
}

/// Reads all committed records of all partitions of `topic`, up to what is stable now.
///
/// # Errors
/// When the topic is missing or the cluster stops answering.
pub fn read_topic(client: &Client, topic: &str) -> Result<Vec<Vec<Fingerprint>>> {
    let mut logs = Vec::new();
    visit_topic(client, topic, |partition, message| {
        if logs.len() <= partition {
            logs.resize_with(partition + 1, Vec::new);
        }
        if let Some(log) = logs.get_mut(partition) {
            log.push(fingerprint(message));
        }
    })
    .map(|partitions| {
        logs.resize_with(partitions, Vec::new);
        logs
    })
}

/// Reads all committed records of all partitions of `topic` whole: for small topics.
///
/// # Errors
/// When the topic is missing or the cluster stops answering.
pub fn read_records(client: &Client, topic: &str) -> Result<Vec<Vec<(i64, NewRecord)>>> {
    let mut logs: Vec<Vec<(i64, NewRecord)>> = Vec::new();
    let partitions = visit_topic(client, topic, |partition, message| {
        if logs.len() <= partition {
            logs.resize_with(partition + 1, Vec::new);
        }
        if let Some(log) = logs.get_mut(partition) {
            log.push((message.offset(), owned(message)));
        }
    })?;
    logs.resize_with(partitions, Vec::new);
    Ok(logs)
}

/// The committed record at exactly `offset`; `None` if there is no such record (a hole, a marker, beyond the end).
///
/// # Errors
/// When the cluster does not answer.
pub fn read_one(client: &Client, topic: &str, partition: i32, offset: i64) -> Result<Option<NewRecord>> {
    let consumer = client.reader()?;
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, Offset::Offset(offset))?;
    consumer.assign(&list)?;
    match consumer.poll(SILENCE_LIMIT) {
        Some(Ok(message)) if message.offset() == offset => Ok(Some(owned(&message))),
        Some(Ok(_) | Err(KafkaError::PartitionEOF(_))) => Ok(None),
        Some(Err(error)) => Err(error).with_context(|| format!("cannot read {topic}-{partition} at {offset}")),
        None => bail!("{topic}-{partition} at {offset}: nothing within {SILENCE_LIMIT:?}"),
    }
}

/// Calls `visit` for each committed record; returns the partition count.
fn visit_topic(client: &Client, topic: &str, mut visit: impl FnMut(usize, &BorrowedMessage<'_>)) -> Result<usize> {
    let partitions = *client.topics()?.get(topic).with_context(|| format!("there is no topic {topic} at {}", client.bootstrap()))?;
    client.wait_stable(topic, partitions)?;
    let consumer = client.reader()?;
    let mut list = TopicPartitionList::new();
    for partition in 0..partitions {
        list.add_partition_offset(topic, partition, Offset::Beginning)?;
    }
    consumer.assign(&list)?;
    let mut open: std::collections::BTreeSet<i32> = (0..partitions).collect();
    let mut heard = Instant::now();
    while !open.is_empty() {
        match consumer.poll(Duration::from_millis(200)) {
            Some(Ok(message)) => {
                visit(usize::try_from(message.partition())?, &message);
                heard = Instant::now();
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                open.remove(&partition);
                heard = Instant::now();
            }
            // librdkafka reconnects by itself; only silence is an end.
            Some(Err(_)) | None => {}
        }
        if heard.elapsed() > SILENCE_LIMIT {
            bail!("{topic} at {}: partitions {open:?} yield nothing for {SILENCE_LIMIT:?}", client.bootstrap());
        }
    }
    Ok(usize::try_from(partitions)?)
}

fn fingerprint(message: &BorrowedMessage<'_>) -> Fingerprint {
    let create_time_ms = match message.timestamp() {
        Timestamp::CreateTime(ms) => Some(ms),
        Timestamp::LogAppendTime(_) | Timestamp::NotAvailable => None,
    };
    let half = |seed: u64| {
        let mut hasher = DefaultHasher::new();
        seed.hash(&mut hasher);
        message.key().hash(&mut hasher);
        message.payload().hash(&mut hasher);
        create_time_ms.hash(&mut hasher);
        if let Some(headers) = message.headers() {
            for header in headers.iter() {
                (header.key, header.value).hash(&mut hasher);
            }
        }
        u128::from(hasher.finish())
    };
    Fingerprint { offset: message.offset(), create_time_ms, hash: half(1) << 64 | half(2), size: message.key_len() + message.payload_len() }
}

fn owned(message: &BorrowedMessage<'_>) -> NewRecord {
    let headers: Headers = message
        .headers()
        .map(|headers| headers.iter().map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec))).collect())
        .unwrap_or_default();
    NewRecord {
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers,
        timestamp_ms: match message.timestamp() {
            Timestamp::CreateTime(ms) => Some(ms),
            Timestamp::LogAppendTime(_) | Timestamp::NotAvailable => None,
        },
    }
}
