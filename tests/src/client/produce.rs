//! Producing records.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rdkafka::error::KafkaError;
use rdkafka::message::OwnedHeaders;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};
use rdkafka::types::RDKafkaErrorCode;

use super::NewRecord;

/// Produces records in the background; delivery is only certain after [`Self::flush`].
pub struct LoadProducer {
    pub(super) producer: ThreadedProducer<DefaultProducerContext>,
}

impl std::fmt::Debug for LoadProducer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoadProducer").finish_non_exhaustive()
    }
}

impl LoadProducer {
    /// Queues a record, waiting while the queue is full.
    ///
    /// # Errors
    /// When librdkafka refuses it.
    pub fn send(&self, topic: &str, partition: i32, record: &NewRecord) -> Result<()> {
        let mut base = base_record(topic, partition, record);
        loop {
            match self.producer.send(base) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    base = back;
                    std::thread::sleep(Duration::from_millis(2));
                }
                Err((error, _)) => return Err(error).with_context(|| format!("cannot produce to {topic}-{partition}")),
            }
        }
    }

    /// Waits until everything queued is delivered.
    ///
    /// # Errors
    /// When it is not within `limit`.
    pub fn flush(&self, limit: Duration) -> Result<()> {
        self.producer.flush(limit)?;
        match self.producer.in_flight_count() {
            0 => Ok(()),
            left => bail!("{left} records are still not delivered after {limit:?}"),
        }
    }
}

/// A record in librdkafka's form.
#[must_use]
pub fn base_record<'a>(topic: &'a str, partition: i32, record: &'a NewRecord) -> BaseRecord<'a, [u8], [u8]> {
    let mut base = BaseRecord::to(topic).partition(partition);
    if let Some(key) = &record.key {
        base = base.key(key.as_slice());
    }
    if let Some(value) = &record.value {
        base = base.payload(value.as_slice());
    }
    if let Some(timestamp) = record.timestamp_ms {
        base = base.timestamp(timestamp);
    }
    if !record.headers.is_empty() {
        let headers = record
            .headers
            .iter()
            .fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(rdkafka::message::Header { key, value: value.as_deref() }));
        base = base.headers(headers);
    }
    base
}
