//! Writes telemetry at a steady rate from a thread of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};

use crate::client::{Client, LoadProducer, NewRecord};
use crate::telemetry::{TOPICS, Telemetry};

/// Records are sent in small bursts so often.
const BURST_EVERY: Duration = Duration::from_millis(10);

/// Until everything queued is delivered.
const FLUSH_LIMIT: Duration = Duration::from_secs(30);

/// The demo is the same each time.
const SEED: u64 = 7;

/// The writer of telemetry.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<()>>>,
}

#[derive(Debug)]
struct Shared {
    producer: LoadProducer,
    records: AtomicU64,
    raw_bytes: AtomicU64,
    stop: AtomicBool,
}

impl Load {
    /// A writer to the cluster of `source`; the topics exist.
    ///
    /// # Errors
    /// When librdkafka refuses its settings.
    pub fn new(source: &Client) -> Result<Self> {
        let shared =
            Shared { producer: source.producer()?, records: AtomicU64::new(0), raw_bytes: AtomicU64::new(0), stop: AtomicBool::new(false) };
        Ok(Self { shared: Arc::new(shared), thread: None })
    }

    /// Writes one record to every partition and waits for the delivery.
    ///
    /// # Errors
    /// When the cluster does not take them.
    pub fn one_record_each(&mut self) -> Result<()> {
        let mut telemetry = Telemetry::new(SEED + 1);
        for topic in TOPICS {
            for partition in 0..topic.partitions {
                let (_, _, record) = telemetry.next_record();
                self.shared.send(topic.name, partition, &record)?;
            }
        }
        self.shared.producer.flush(FLUSH_LIMIT)
    }

    /// Starts writing `rate` records a second.
    pub fn start(&mut self, rate: u32) {
        let shared = Arc::clone(&self.shared);
        self.thread = Some(std::thread::spawn(move || shared.write(rate)));
    }

    /// Ends writing and waits until everything is delivered to the local Kafka.
    ///
    /// # Errors
    /// When writing had failed, or the delivery does.
    pub fn stop(&mut self) -> Result<()> {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().map_err(|_| anyhow!("the writer panicked"))?.context("cannot write telemetry")?;
        }
        self.shared.producer.flush(FLUSH_LIMIT)
    }

    /// Records written so far.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.shared.records.load(Ordering::Relaxed)
    }

    /// Bytes of keys, values and headers written so far.
    #[must_use]
    pub fn raw_bytes(&self) -> u64 {
        self.shared.raw_bytes.load(Ordering::Relaxed)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    fn write(&self, rate: u32) -> Result<()> {
        let mut telemetry = Telemetry::new(SEED);
        let started = Instant::now();
        let mut written = 0_u64;
        while !self.stop.load(Ordering::Relaxed) {
            let due = u64::try_from(started.elapsed().as_micros() * u128::from(rate) / 1_000_000)?;
            while written < due {
                let (topic, partition, record) = telemetry.next_record();
                self.send(topic, partition, &record)?;
                written += 1;
            }
            std::thread::sleep(BURST_EVERY);
        }
        Ok(())
    }

    fn send(&self, topic: &str, partition: i32, record: &NewRecord) -> Result<()> {
        self.producer.send(topic, partition, record)?;
        let headers: usize = record.headers.iter().map(|(name, value)| name.len() + value.as_ref().map_or(0, Vec::len)).sum();
        let bytes = record.key.as_ref().map_or(0, Vec::len) + record.value.as_ref().map_or(0, Vec::len) + headers;
        self.raw_bytes.fetch_add(u64::try_from(bytes)?, Ordering::Relaxed);
        self.records.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}
