//! Records of all shapes at the source, written while faults happen: plain, transactional with aborts, compacted with holes, and large ones.

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

use crate::client::{Client, NewRecord, base_record};
use crate::oracle::read::read_topic;
use crate::shapes::Shapes;
use crate::wait::wait_until;

/// All shapes, written by an idempotent producer.
pub const MIXED: &str = "mixed";
/// Written in transactions, of which every fourth is aborted.
pub const TRANSACTIONAL: &str = "transactional";
/// Compacted before the agent sees it: offsets have holes.
pub const COMPACTED: &str = "compacted";

/// Records of the compacted topic, and the number of their keys: about nine in ten go.
const COMPACTED_RECORDS: usize = 60_000;
const COMPACTED_KEYS: usize = 3_000;

/// What is written, and how fast.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Partitions of [`MIXED`].
    pub mixed: i32,
    /// Partitions of [`TRANSACTIONAL`].
    pub transactional: i32,
    /// Partitions of [`COMPACTED`]; 0 for none. Needs a broker that compacts.
    pub compacted: i32,
    /// Records a second, until the writers are told to hurry: slow enough that all faults meet a live flow.
    pub rate: u64,
    /// A value of 1 MiB comes every so many records of [`MIXED`].
    pub large_every: u64,
}

/// 20 partitions.
pub const TWENTY: Plan = Plan { mixed: 10, transactional: 6, compacted: 4, rate: 2_500, large_every: 9_000 };

impl Plan {
    /// The topics, with their partitions.
    #[must_use]
    pub fn topics(&self) -> Vec<(&'static str, i32)> {
        let all = [(MIXED, self.mixed), (TRANSACTIONAL, self.transactional), (COMPACTED, self.compacted)];
        all.into_iter().filter(|(_, partitions)| *partitions > 0).collect()
    }
}

/// Records of one transaction at the source, at most.
const TRANSACTION_MAX: usize = 60;

const FLUSH_LIMIT: Duration = Duration::from_secs(60);

/// The writers.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Result<()>>>,
    compacted: u64,
}

#[derive(Debug)]
struct Shared {
    source: Client,
    plan: Plan,
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
    ///
    /// # Errors
    /// When the source refuses something, or does not compact.
    pub fn prepare(source: &Client, plan: Plan, seed: u64) -> Result<Self> {
        source.create_topic(MIXED, plan.mixed, &[])?;
        source.create_topic(TRANSACTIONAL, plan.transactional, &[])?;
        let compacted = if plan.compacted > 0 { compacted_topic(source, plan.compacted, seed)? } else { 0 };
        let shared = Shared {
            source: source.clone(),
            plan,
            seed,
            committed: AtomicU64::new(0),
            aborted: AtomicU64::new(0),
            enough: AtomicU64::new(u64::MAX),
            hurry: AtomicBool::new(false),
        };
        Ok(Self { shared: Arc::new(shared), threads: Vec::new(), compacted })
    }

    /// Starts writing, slowly.
    pub fn start(&mut self) {
        let (plain, transactional) = (Arc::clone(&self.shared), Arc::clone(&self.shared));
        self.threads.push(std::thread::spawn(move || plain.write_plain()));
        self.threads.push(std::thread::spawn(move || transactional.write_transactions()));
    }

    /// Committed and aborted records at the source so far.
    #[must_use]
    pub fn written(&self) -> (u64, u64) {
        (self.compacted + self.shared.committed.load(Ordering::Relaxed), self.shared.aborted.load(Ordering::Relaxed))
    }

    /// Writes the rest at full speed until `total` records are committed at the source, and says how many there are, and how many were aborted.
    ///
    /// # Errors
    /// What a writer met.
    pub fn finish(&mut self, total: u64) -> Result<(u64, u64)> {
        self.shared.enough.store(total.saturating_sub(self.compacted), Ordering::Relaxed);
        self.shared.hurry.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().map_err(|_| anyhow!("a writer panicked"))??;
        }
        Ok(self.written())
    }
}

impl Shared {
    fn write_plain(&self) -> Result<()> {
        let producer = self.source.producer()?;
        let mut shapes = Shapes::new(self.seed, self.plan.large_every);
        let mut rng = StdRng::seed_from_u64(self.seed + 1);
        let mut pace = Pace::new(self.plan.rate * 2 / 3);
        while !self.is_enough() {
            producer.send(MIXED, rng.random_range(0..self.plan.mixed), &shapes.next_record())?;
            self.committed.fetch_add(1, Ordering::Relaxed);
            pace.keep(1, self.hurry.load(Ordering::Relaxed));
        }
        producer.flush(FLUSH_LIMIT)
    }

    fn write_transactions(&self) -> Result<()> {
        let producer = self.source.transactional_producer("lab-load")?;
        let mut shapes = Shapes::new(self.seed + 2, u64::MAX);
        let mut rng = StdRng::seed_from_u64(self.seed + 3);
        let mut pace = Pace::new(self.plan.rate / 3);
        while !self.is_enough() {
            let count = rng.random_range(1..=TRANSACTION_MAX);
            producer.begin_transaction()?;
            for _ in 0..count {
                send(&producer, rng.random_range(0..self.plan.transactional), &shapes.next_record())?;
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
fn compacted_topic(source: &Client, partitions: i32, seed: u64) -> Result<u64> {
    let settings =
        [("cleanup.policy", "compact"), ("segment.ms", "500"), ("min.cleanable.dirty.ratio", "0.01"), ("max.compaction.lag.ms", "1000")];
    source.create_topic(COMPACTED, partitions, &settings)?;
    let producer = source.producer()?;
    let mut rng = StdRng::seed_from_u64(seed + 4);
    for n in 0..COMPACTED_RECORDS {
        let key = rng.random_range(0..COMPACTED_KEYS);
        let value = (rng.random_range(0..10) > 0).then(|| format!("state {n} of key {key}").into_bytes());
        let record = NewRecord { key: Some(format!("key-{key}").into_bytes()), value, ..NewRecord::default() };
        producer.send(COMPACTED, i32::try_from(key)? % partitions, &record)?;
    }
    producer.flush(FLUSH_LIMIT)?;
    // Only a closed segment is compacted, and only a new record closes one.
    std::thread::sleep(Duration::from_secs(1));
    for partition in 0..partitions {
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
