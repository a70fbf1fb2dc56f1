//! Twenty partitions of records of all shapes: plain, transactional with aborts, compacted with holes, and large ones.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, Producer as _};
use rdkafka::types::RDKafkaErrorCode;
use spillway_lab::client::{Client, NewRecord, base_record};
use spillway_lab::oracle::read::read_topic;
use spillway_lab::shapes::Shapes;
use spillway_lab::wait::wait_until;

/// All shapes, written by an idempotent producer.
pub(super) const MIXED: &str = "mixed";
const MIXED_PARTITIONS: i32 = 10;
/// Written in transactions, of which every fourth is aborted.
const TRANSACTIONAL: &str = "transactional";
const TRANSACTIONAL_PARTITIONS: i32 = 6;
/// Compacted before the agent sees it: offsets have holes.
const COMPACTED: &str = "compacted";
const COMPACTED_PARTITIONS: i32 = 4;

/// The three topics: 20 partitions.
pub(super) const TOPICS: [&str; 3] = [MIXED, TRANSACTIONAL, COMPACTED];

/// Records of the compacted topic, and the number of their keys: about nine in ten go.
const COMPACTED_RECORDS: usize = 60_000;
const COMPACTED_KEYS: usize = 3_000;

/// While faults happen, records are written slowly enough that all faults meet a live flow.
const RATE: u64 = 2_500;

/// A value of 1 MiB comes every so many records: some dozens altogether.
const LARGE_EVERY: u64 = 9_000;

/// Records of one transaction at the source, at most.
const TRANSACTION_MAX: usize = 60;

const FLUSH_LIMIT: Duration = Duration::from_secs(60);

/// The writers.
pub(super) struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Result<()>>>,
    compacted: u64,
}

struct Shared {
    source: Client,
    seed: u64,
    /// Committed records so far, of the topics that are written while the agent runs.
    committed: AtomicU64,
    aborted: AtomicU64,
    /// Committed records at which the writers end.
    enough: AtomicU64,
    hurry: AtomicBool,
}

impl Load {
    /// Creates the topics and fills and compacts the one that has to have holes.
    pub(super) fn prepare(source: &Client, seed: u64) -> Result<Self> {
        source.create_topic(MIXED, MIXED_PARTITIONS, &[])?;
        source.create_topic(TRANSACTIONAL, TRANSACTIONAL_PARTITIONS, &[])?;
        let compacted = compacted_topic(source, seed)?;
        let shared = Shared {
            source: source.clone(),
            seed,
            committed: AtomicU64::new(0),
            aborted: AtomicU64::new(0),
            enough: AtomicU64::new(u64::MAX),
            hurry: AtomicBool::new(false),
        };
        Ok(Self { shared: Arc::new(shared), threads: Vec::new(), compacted })
    }

    /// Starts writing, slowly.
    pub(super) fn start(&mut self) {
        let (plain, transactional) = (Arc::clone(&self.shared), Arc::clone(&self.shared));
        self.threads.push(std::thread::spawn(move || plain.write_plain()));
        self.threads.push(std::thread::spawn(move || transactional.write_transactions()));
    }

    /// Writes the rest at full speed until `total` records are committed at the source, and says how many there are.
    pub(super) fn finish(&mut self, total: u64) -> Result<u64> {
        self.shared.enough.store(total.saturating_sub(self.compacted), Ordering::Relaxed);
        self.shared.hurry.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().map_err(|_| anyhow!("a writer panicked"))??;
        }
        let aborted = self.shared.aborted.load(Ordering::Relaxed);
        anyhow::ensure!(aborted > 1000, "only {aborted} aborted records at the source");
        Ok(self.compacted + self.shared.committed.load(Ordering::Relaxed))
    }
}

impl Shared {
    fn write_plain(&self) -> Result<()> {
        let producer = self.source.producer()?;
        let mut shapes = Shapes::new(self.seed, LARGE_EVERY);
        let mut rng = StdRng::seed_from_u64(self.seed + 1);
        let mut pace = Pace::new(RATE * 2 / 3);
        while !self.is_enough() {
            producer.send(MIXED, rng.random_range(0..MIXED_PARTITIONS), &shapes.next_record())?;
            self.committed.fetch_add(1, Ordering::Relaxed);
            pace.keep(1, self.hurry.load(Ordering::Relaxed));
        }
        producer.flush(FLUSH_LIMIT)
    }

    fn write_transactions(&self) -> Result<()> {
        let producer = self.source.transactional_producer("lab-load")?;
        let mut shapes = Shapes::new(self.seed + 2, u64::MAX);
        let mut rng = StdRng::seed_from_u64(self.seed + 3);
        let mut pace = Pace::new(RATE / 3);
        while !self.is_enough() {
            let count = rng.random_range(1..=TRANSACTION_MAX);
            producer.begin_transaction()?;
            for _ in 0..count {
                send(&producer, rng.random_range(0..TRANSACTIONAL_PARTITIONS), &shapes.next_record())?;
            }
            let counter = if rng.random_range(0..4) == 0 {
                producer.flush(FLUSH_LIMIT)?;
                producer.abort_transaction(FLUSH_LIMIT)?;
                &self.aborted
            } else {
                producer.commit_transaction(FLUSH_LIMIT)?;
                &self.committed
            };
            counter.fetch_add(u64::try_from(count)?, Ordering::Relaxed);
            pace.keep(count, self.hurry.load(Ordering::Relaxed));
        }
        Ok(())
    }

    fn is_enough(&self) -> bool {
        self.committed.load(Ordering::Relaxed) >= self.enough.load(Ordering::Relaxed)
    }
}

/// Holds a writer to a rate until it is told to hurry.
struct Pace {
    started: Instant,
    per_second: u64,
    done: u64,
}

impl Pace {
    fn new(per_second: u64) -> Self {
        Self { started: Instant::now(), per_second, done: 0 }
    }

    fn keep(&mut self, records: usize, hurry: bool) {
        self.done += u64::try_from(records).unwrap_or(0);
        let due = Duration::from_micros(self.done * 1_000_000 / self.per_second);
        if !hurry {
            std::thread::sleep(due.saturating_sub(self.started.elapsed()));
        }
    }
}

fn send(producer: &BaseProducer, partition: i32, record: &NewRecord) -> Result<()> {
    let mut base = base_record(TRANSACTIONAL, partition, record);
    loop {
        match producer.send(base) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                base = back;
                producer.poll(Duration::from_millis(5));
            }
            Err((error, _)) => return Err(error).context("cannot produce"),
        }
    }
}

/// Writes keys over and over, tombstones among them, waits until Kafka has compacted, and then forbids it to go on: the source
/// must stay as it is while it is compared. Returns how many records are left.
fn compacted_topic(source: &Client, seed: u64) -> Result<u64> {
    let settings =
        [("cleanup.policy", "compact"), ("segment.ms", "500"), ("min.cleanable.dirty.ratio", "0.01"), ("max.compaction.lag.ms", "1000")];
    source.create_topic(COMPACTED, COMPACTED_PARTITIONS, &settings)?;
    let producer = source.producer()?;
    let mut rng = StdRng::seed_from_u64(seed + 4);
    for n in 0..COMPACTED_RECORDS {
        let key = rng.random_range(0..COMPACTED_KEYS);
        let value = (rng.random_range(0..10) > 0).then(|| format!("state {n} of key {key}").into_bytes());
        let record = NewRecord { key: Some(format!("key-{key}").into_bytes()), value, ..NewRecord::default() };
        producer.send(COMPACTED, i32::try_from(key)? % COMPACTED_PARTITIONS, &record)?;
    }
    producer.flush(FLUSH_LIMIT)?;
    // Only a closed segment is compacted, and only a new record closes one.
    std::thread::sleep(Duration::from_secs(1));
    for partition in 0..COMPACTED_PARTITIONS {
        let record = NewRecord { key: Some(b"last".to_vec()), value: Some(b"last".to_vec()), ..NewRecord::default() };
        producer.send(COMPACTED, partition, &record)?;
    }
    producer.flush(FLUSH_LIMIT)?;
    let left = || Ok::<_, anyhow::Error>(read_topic(source, COMPACTED)?.iter().map(Vec::len).sum::<usize>());
    wait_until("the topic is compacted", FLUSH_LIMIT, || Ok(left()? < COMPACTED_RECORDS / 2))?;
    source.alter_topic(COMPACTED, &[("cleanup.policy", "delete"), ("retention.ms", "-1")])?;
    // A round of the cleaner may be under way.
    let mut last = left()?;
    wait_until("compaction has ended", FLUSH_LIMIT, || {
        std::thread::sleep(Duration::from_secs(2));
        let now = left()?;
        Ok(std::mem::replace(&mut last, now) == now)
    })?;
    Ok(u64::try_from(last)?)
}
