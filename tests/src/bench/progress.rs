//! How far the centre is: its partitions' ends and the contestant's processor time, sampled together.
//!
//! Ends of partitions are asked for, not records read: a consumer of everything would take a share of the two cores that the contest is about.
//! The end is the last stable offset, which is what a `read_committed` reader can see. In a transaction's partition it counts the
//! transaction's marker as well; that is a few offsets a second.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{Offset, TopicPartitionList};

use super::usage::{Watched, cpu_time};
use super::workload::PARTITIONS;
use crate::client::Client;

/// Between two samples.
const SAMPLE_EVERY: Duration = Duration::from_millis(50);

/// Everything has arrived when the centre has enough and stands still for so long.
const STANDSTILL: Duration = Duration::from_millis(1500);

/// Longest wait for one answer of the centre.
const REQUEST_LIMIT: Duration = Duration::from_secs(5);

/// A run that has not got anywhere for so long has failed.
const STUCK: Duration = Duration::from_secs(90);

/// Part of the records after which the steady state begins: connections are open, the Java machine has compiled what is hot.
const STEADY_FROM_PERCENT: u64 = 25;

/// One look.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Since the contestant was started.
    pub at: Duration,
    /// Records that can be read at the centre.
    pub records: u64,
    /// Processor time of each watched process since it was started, in seconds.
    pub cpu_seconds: Vec<f64>,
}

/// From one sample to another.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// How long.
    pub seconds: f64,
    /// Records that came in.
    pub records: u64,
    /// Processor time of each watched process, in seconds.
    pub cpu_seconds: Vec<f64>,
}

/// A run, watched from its start until everything had arrived.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    samples: Vec<Sample>,
    records: u64,
}

/// Watches until `expected` records are at the centre's `topic`.
///
/// # Errors
/// When nothing moves for 90 s, or a process is gone.
pub fn watch(centre: &Client, topic: &str, expected: u64, started: Instant, watched: &[Watched]) -> Result<Run> {
    let ends = Ends::new(centre, topic)?;
    let (mut samples, mut moved): (Vec<Sample>, Instant) = (Vec::new(), Instant::now());
    loop {
        let sample = Sample { at: started.elapsed(), records: ends.sum().unwrap_or(0), cpu_seconds: cpu_seconds(watched)? };
        if samples.last().is_none_or(|last| last.records < sample.records) {
            moved = Instant::now();
        }
        let arrived = sample.records;
        samples.push(sample);
        if arrived >= expected && moved.elapsed() >= STANDSTILL {
            return Ok(Run { samples, records: expected });
        }
        ensure!(moved.elapsed() < STUCK, "{arrived} of {expected} records arrived, and nothing has moved for {STUCK:?}");
        std::thread::sleep(SAMPLE_EVERY);
    }
}

fn cpu_seconds(watched: &[Watched]) -> Result<Vec<f64>> {
    watched.iter().map(|process| Ok(cpu_time(process.pid)?.as_secs_f64())).collect()
}

impl Run {
    /// From the start of the contestant to the last record.
    #[must_use]
    pub fn with_start_up(&self) -> Option<Span> {
        let last = self.last()?;
        Some(Span { seconds: last.at.as_secs_f64(), records: self.records, cpu_seconds: last.cpu_seconds.clone() })
    }

    /// From the first quarter of the records to the last record.
    #[must_use]
    pub fn steady(&self) -> Option<Span> {
        let first = self.samples.iter().find(|sample| sample.records * 100 >= self.records * STEADY_FROM_PERCENT)?;
        let last = self.last()?;
        let spent = last.cpu_seconds.iter().zip(&first.cpu_seconds).map(|(last, first)| last - first);
        Some(Span {
            seconds: (last.at - first.at).as_secs_f64(),
            records: last.records.saturating_sub(first.records),
            cpu_seconds: spent.collect(),
        })
    }

    /// From the start of the contestant until the first record was at the centre.
    #[must_use]
    pub fn first_record(&self) -> Option<Duration> {
        self.samples.iter().find(|sample| sample.records > 0).map(|sample| sample.at)
    }

    /// The sample with which everything had arrived.
    fn last(&self) -> Option<&Sample> {
        let most = self.samples.last()?.records;
        self.samples.iter().find(|sample| sample.records == most)
    }
}

impl Span {
    /// Records a second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        as_f64(self.records) / self.seconds.max(f64::MIN_POSITIVE)
    }

    /// Processor seconds for a million records, of each watched process.
    #[must_use]
    pub fn cpu_per_million(&self) -> Vec<f64> {
        self.cpu_seconds.iter().map(|seconds| seconds * 1e6 / as_f64(self.records).max(1.0)).collect()
    }
}

/// A count as a figure; counts of records are far below what a float holds exactly.
#[expect(clippy::cast_precision_loss, reason = "counts below 2^52")]
pub fn as_f64(count: u64) -> f64 {
    count as f64
}

/// Asks for the ends of all partitions in one request.
struct Ends {
    consumer: BaseConsumer,
    list: TopicPartitionList,
}

impl Ends {
    fn new(centre: &Client, topic: &str) -> Result<Self> {
        let consumer = centre.config().set("isolation.level", "read_committed").create().context("cannot make a consumer")?;
        let mut list = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            // "The offset of the time `end`": how the request asks for the last stable offset.
            list.add_partition_offset(topic, partition, Offset::End)?;
        }
        Ok(Self { consumer, list })
    }

    fn sum(&self) -> Result<u64> {
        let found = self.consumer.offsets_for_times(self.list.clone(), REQUEST_LIMIT)?;
        let mut sum = 0;
        for element in found.elements() {
            element.error()?;
            if let Offset::Offset(offset) = element.offset() {
                sum += u64::try_from(offset)?;
            }
        }
        Ok(sum)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn sample(seconds: u64, records: u64, cpu: f64) -> Sample {
        Sample { at: Duration::from_secs(seconds), records, cpu_seconds: vec![cpu, cpu * 2.0] }
    }

    #[test]
    fn the_steady_state_leaves_out_the_first_quarter_and_the_standstill() {
        let samples = vec![sample(0, 0, 0.0), sample(5, 10, 1.0), sample(6, 250, 2.0), sample(8, 1003, 3.0), sample(20, 1003, 9.0)];
        let run = Run { samples, records: 1000 };
        let steady = run.steady().unwrap();
        assert_eq!((steady.seconds, steady.records, steady.cpu_seconds.clone()), (2.0, 753, vec![1.0, 2.0]));
        let all = run.with_start_up().unwrap();
        assert_eq!((all.seconds, all.records, all.cpu_per_million()), (8.0, 1000, vec![3000.0, 6000.0]));
        assert_eq!(run.first_record(), Some(Duration::from_secs(5)));
    }
}
