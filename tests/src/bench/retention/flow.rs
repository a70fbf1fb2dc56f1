//! The writer of numbered records at the source, and a reader of them at the centre; each on a thread of its own.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::Message as _;
use rdkafka::{Offset, TopicPartitionList};

use super::ledger::{Ledger, VALUE_BYTES, value};
use crate::client::{Client, LoadProducer, NewRecord};
use crate::telemetry::now_ms;

/// Partitions of the topic.
pub const PARTITIONS: i32 = 4;

/// Records are written in bursts so often.
const BURST_EVERY: Duration = Duration::from_millis(20);

/// Until everything queued is at the source.
const FLUSH_LIMIT: Duration = Duration::from_secs(60);

/// Writes at a steady rate until it is stopped.
#[derive(Debug)]
pub struct Writer {
    shared: Arc<Writing>,
    thread: Option<JoinHandle<Result<()>>>,
}

#[derive(Debug)]
struct Writing {
    producer: LoadProducer,
    topic: String,
    records: AtomicU64,
    stop: AtomicBool,
}

impl Writer {
    /// Starts writing about `bytes_per_second` of values, in turn to each partition.
    ///
    /// # Errors
    /// When librdkafka refuses its settings.
    pub fn start(source: &Client, topic: &str, bytes_per_second: u64) -> Result<Self> {
        let shared = Arc::new(Writing {
            producer: source.producer()?,
            topic: topic.to_owned(),
            records: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        });
        let writing = Arc::clone(&shared);
        let thread = std::thread::spawn(move || writing.write(bytes_per_second));
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Records written so far.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.shared.records.load(Ordering::Relaxed)
    }

    /// Ends writing, waits until everything is at the source, and answers the records of each partition.
    ///
    /// # Errors
    /// When the source did not take them.
    pub fn stop(&mut self) -> Result<Vec<u64>> {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().map_err(|_| anyhow!("the writer panicked"))??;
        }
        self.shared.producer.flush(FLUSH_LIMIT)?;
        Ok(by_partition(self.records()))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

impl Writing {
    fn write(&self, bytes_per_second: u64) -> Result<()> {
        let (started, mut written) = (Instant::now(), 0_u64);
        while !self.stop.load(Ordering::Relaxed) {
            let due_bytes = started.elapsed().as_micros() * u128::from(bytes_per_second) / 1_000_000;
            let due = u64::try_from(due_bytes)? / VALUE_BYTES as u64;
            while written < due {
                send(&self.producer, &self.topic, written)?;
                written += 1;
                self.records.store(written, Ordering::Relaxed);
            }
            std::thread::sleep(BURST_EVERY);
        }
        Ok(())
    }
}

/// Writes the records of these numbers as fast as the source takes them, in turn to each partition.
///
/// # Errors
/// When it does not take them.
pub fn write(source: &Client, topic: &str, numbers: std::ops::Range<u64>) -> Result<()> {
    let producer = source.clone().with("linger.ms", "20").producer()?;
    for number in numbers {
        send(&producer, topic, number)?;
    }
    producer.flush(FLUSH_LIMIT)
}

/// How many of the first `records` each partition has.
#[must_use]
pub fn by_partition(records: u64) -> Vec<u64> {
    let partitions = u64::from(PARTITIONS.unsigned_abs());
    (0..partitions).map(|partition| (records + partitions - 1 - partition) / partitions).collect()
}

/// The n-th record of all partitions together.
fn send(producer: &LoadProducer, topic: &str, number: u64) -> Result<()> {
    let partitions = u64::from(PARTITIONS.unsigned_abs());
    let partition = i32::try_from(number % partitions)?;
    let value = value(partition, number / partitions);
    producer.send(topic, partition, &NewRecord { value: Some(value), timestamp_ms: Some(now_ms()), ..NewRecord::default() })
}

/// Reads a remote topic as it grows. Dropping it ends it.
#[derive(Debug)]
pub struct Reader {
    shared: Arc<Reading>,
}

#[derive(Debug)]
struct Reading {
    ledger: Mutex<Ledger>,
    stop: AtomicBool,
}

impl Reader {
    /// Reads all of `topic`, which exists, as a `read_committed` consumer.
    ///
    /// # Errors
    /// When librdkafka refuses its settings.
    pub fn start(centre: &Client, topic: &str) -> Result<Self> {
        let mut list = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            list.add_partition_offset(topic, partition, Offset::Beginning)?;
        }
        let consumer = centre.reader()?;
        consumer.assign(&list)?;
        let ledger = Mutex::new(Ledger::new(usize::try_from(PARTITIONS)?));
        let shared = Arc::new(Reading { ledger, stop: AtomicBool::new(false) });
        let reading = Arc::clone(&shared);
        std::thread::spawn(move || reading.read(&consumer));
        Ok(Self { shared })
    }

    /// What has arrived so far.
    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.shared.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

impl Reading {
    fn read(&self, consumer: &BaseConsumer) {
        while !self.stop.load(Ordering::Relaxed) {
            // Ends of partitions and passing errors are no records; librdkafka goes on by itself.
            let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) else { continue };
            self.ledger.lock().unwrap_or_else(PoisonError::into_inner).note(message.partition(), message.payload());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_go_to_the_partitions_in_turn() {
        assert_eq!(by_partition(0), [0, 0, 0, 0]);
        assert_eq!(by_partition(6), [2, 2, 1, 1]);
        assert_eq!(by_partition(8).iter().sum::<u64>(), 8);
    }
}
