//! Reading a topic as a consumer with `read_committed` would, and keeping a fingerprint of each record.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::{Offset, Timestamp, TopicPartitionList};

use crate::client::{Client, Headers, NewRecord, PROBE_LIMIT, REQUEST_LIMIT, topics_known_to};
use crate::wait::wait_until;

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
    Reader::new(client)?.topic(topic)
}

/// Reads all committed records of all partitions of `topic` whole: for small topics.
///
/// # Errors
/// When the topic is missing or the cluster stops answering.
pub fn read_records(client: &Client, topic: &str) -> Result<Vec<Vec<(i64, NewRecord)>>> {
    Reader::new(client)?.records(topic)
}

/// The committed record at exactly `offset`; `None` if there is no such record (a hole, a marker, beyond the end).
///
/// # Errors
/// When the cluster does not answer.
pub fn read_one(client: &Client, topic: &str, partition: i32, offset: i64) -> Result<Option<NewRecord>> {
    Reader::new(client)?.one(topic, partition, offset)
}

/// Reads one topic after the other through the same connections: making them takes longer than reading a small topic.
pub struct Reader {
    client: Client,
    consumer: BaseConsumer,
    /// Asked for the end of a partition, open transactions included.
    ends: BaseConsumer,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("client", &self.client).finish_non_exhaustive()
    }
}

impl Reader {
    /// A reader of a cluster.
    ///
    /// # Errors
    /// When librdkafka refuses the settings.
    pub fn new(client: &Client) -> Result<Self> {
        let ends = client.config().set("isolation.level", "read_uncommitted").create()?;
        Ok(Self { client: client.clone(), consumer: client.reader()?, ends })
    }

    /// See [`read_topic`].
    ///
    /// # Errors
    /// When the topic is missing or the cluster stops answering.
    pub fn topic(&self, topic: &str) -> Result<Vec<Vec<Fingerprint>>> {
        self.logs(topic, fingerprint)
    }

    /// See [`read_records`].
    ///
    /// # Errors
    /// When the topic is missing or the cluster stops answering.
    pub fn records(&self, topic: &str) -> Result<Vec<Vec<(i64, NewRecord)>>> {
        self.logs(topic, |message| (message.offset(), owned(message)))
    }

    /// See [`read_one`].
    ///
    /// # Errors
    /// When the cluster does not answer.
    pub fn one(&self, topic: &str, partition: i32, offset: i64) -> Result<Option<NewRecord>> {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Offset(offset))?;
        self.consumer.assign(&list)?;
        let found = match self.consumer.poll(SILENCE_LIMIT) {
            Some(Ok(message)) => Ok((message.offset() == offset).then(|| owned(&message))),
            Some(Err(KafkaError::PartitionEOF(_))) => Ok(None),
            Some(Err(error)) => Err(error).with_context(|| format!("cannot read {topic}-{partition} at {offset}")),
            None => bail!("{topic}-{partition} at {offset}: nothing within {SILENCE_LIMIT:?}"),
        };
        self.consumer.unassign()?;
        found
    }

    /// What `keep` makes of each committed record, by partition.
    fn logs<T>(&self, topic: &str, keep: impl Fn(&BorrowedMessage<'_>) -> T) -> Result<Vec<Vec<T>>> {
        let known = topics_known_to(&self.ends)?;
        let partitions = *known.get(topic).with_context(|| format!("there is no topic {topic} at {}", self.client.bootstrap()))?;
        self.wait_stable(topic, partitions)?;
        let mut list = TopicPartitionList::new();
        for partition in 0..partitions {
            list.add_partition_offset(topic, partition, Offset::Beginning)?;
        }
        self.consumer.assign(&list)?;
        let mut logs: Vec<Vec<T>> = (0..partitions).map(|_| Vec::new()).collect();
        let mut open: std::collections::BTreeSet<i32> = (0..partitions).collect();
        let mut heard = Instant::now();
        while !open.is_empty() {
            match self.consumer.poll(Duration::from_millis(200)) {
                Some(Ok(message)) => {
                    if let Some(log) = logs.get_mut(usize::try_from(message.partition())?) {
                        log.push(keep(&message));
                    }
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
                bail!("{topic} at {}: partitions {open:?} yield nothing for {SILENCE_LIMIT:?}", self.client.bootstrap());
            }
        }
        self.consumer.unassign()?;
        Ok(logs)
    }

    /// Waits until no transaction is open on a topic. Kafka answers a commit before its markers are written, so a `read_committed` reader
    /// that comes right after it may not see the last records yet.
    fn wait_stable(&self, topic: &str, partitions: i32) -> Result<()> {
        for partition in 0..partitions {
            let end = |consumer: &BaseConsumer| consumer.fetch_watermarks(topic, partition, PROBE_LIMIT).ok().map(|(_, end)| end);
            wait_until(&format!("no transaction is open on {topic}-{partition}"), REQUEST_LIMIT, || {
                Ok(end(&self.consumer).is_some_and(|stable| Some(stable) == end(&self.ends)))
            })?;
        }
        Ok(())
    }
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
