//! Records for those that carry Kafka's: one every now and then at the edge, and who notices them at the centre.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use rand::RngCore as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::Message as _;
use rdkafka::{Offset, TopicPartitionList};

use crate::client::{Client, LoadProducer, NewRecord};
use crate::notice;
use crate::telemetry::now_ms;

/// The topic at the edge, with one partition.
pub const TOPIC: &str = "trickle";

/// Between two messages of a contestant.
pub const EVERY: Duration = Duration::from_millis(100);

/// Notes when something arrives.
#[derive(Debug, Default)]
pub struct Watch {
    first: Mutex<Option<Instant>>,
}

impl Watch {
    /// Something has arrived that the watch is about.
    pub fn note(&self) {
        self.lock().get_or_insert_with(Instant::now);
    }

    /// What arrives next is the first.
    pub fn arm(&self) {
        *self.lock() = None;
    }

    /// When the first has arrived since [`Self::arm`].
    #[must_use]
    pub fn first(&self) -> Option<Instant> {
        *self.lock()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Instant>> {
        self.first.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// So many random bytes.
#[must_use]
pub fn message(bytes: usize) -> Vec<u8> {
    let mut bytes = vec![0; bytes];
    rand::rng().fill_bytes(&mut bytes);
    bytes
}

/// Writes a record every [`EVERY`]. Dropping it ends it.
#[derive(Debug)]
pub struct Writer {
    stop: Arc<AtomicBool>,
}

impl Writer {
    /// Starts writing records of that size to [`TOPIC`], where the caller is.
    ///
    /// # Errors
    /// When librdkafka refuses its settings.
    pub fn start(source: &Client, bytes: usize) -> Result<Self> {
        let producer = source.clone().with("linger.ms", "0").producer()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                if let Err(error) = write(&producer, bytes) {
                    notice::tell(format_args!("lab: the trickle has ended: {error:#}"));
                    return;
                }
                std::thread::sleep(EVERY);
            }
        });
        Ok(Self { stop })
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn write(producer: &LoadProducer, bytes: usize) -> Result<()> {
    producer.send(TOPIC, 0, &NewRecord { value: Some(message(bytes)), ..NewRecord::default() })
}

/// What a [`Reader`] notes.
#[derive(Debug, Clone, Default)]
pub struct Records {
    /// Every record.
    pub any: Arc<Watch>,
    /// Records that were written after a moment: who brings one is not only emptying what was on its way.
    pub fresh: Arc<Watch>,
    fresh_from_ms: Arc<AtomicI64>,
}

impl Records {
    /// Fresh are those that are written from now on.
    pub fn fresh_from_now(&self) {
        self.fresh_from_ms.store(now_ms(), Ordering::Relaxed);
    }

    fn note(&self, created_ms: Option<i64>) {
        self.any.note();
        if created_ms.is_some_and(|created| created >= self.fresh_from_ms.load(Ordering::Relaxed)) {
            self.fresh.note();
        }
    }
}

/// Reads the only partition of a topic as a consumer with `read_committed` does. Dropping it ends it.
#[derive(Debug)]
pub struct Reader {
    stop: Arc<AtomicBool>,
}

impl Reader {
    /// Starts reading, where the caller is; every record is noted.
    ///
    /// # Errors
    /// When librdkafka refuses its settings.
    pub fn start(centre: &Client, topic: &str, records: Records) -> Result<Self> {
        let consumer: BaseConsumer = centre.reader()?;
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, 0, Offset::Beginning)?;
        consumer.assign(&list)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                // Ends of partitions and passing errors are no records; librdkafka goes on by itself.
                if let Some(Ok(message)) = consumer.poll(EVERY) {
                    records.note(message.timestamp().to_millis());
                }
            }
        });
        Ok(Self { stop })
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_after_arming_is_kept() {
        let watch = Watch::default();
        watch.note();
        watch.arm();
        assert_eq!(watch.first(), None);
        watch.note();
        let first = watch.first();
        std::thread::sleep(Duration::from_millis(2));
        watch.note();
        assert!(first.is_some() && watch.first() == first);
    }

    #[test]
    fn a_record_from_before_is_not_fresh() {
        let records = Records::default();
        let before = now_ms() - 1;
        records.fresh_from_now();
        records.note(Some(before));
        assert!(records.any.first().is_some() && records.fresh.first().is_none());
        records.note(Some(now_ms()));
        assert!(records.fresh.first().is_some());
    }
}
