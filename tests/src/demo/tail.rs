//! Reads the centre as a consumer with `read_committed` does, from a thread of its own, and notes how old records are when
//! they can be read.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::Message as _;
use rdkafka::{Offset, TopicPartitionList};

use crate::client::Client;
use crate::telemetry::now_ms;

/// Latencies kept, eight bytes each; a longer demo measures its first part.
const SAMPLES_MAX: usize = 5_000_000;

/// A running tail. Dropping it ends it.
#[derive(Debug)]
pub struct Tail {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    records: AtomicU64,
    measuring: AtomicBool,
    stop: AtomicBool,
    /// CreateTime and milliseconds from then to now, by record.
    samples: Mutex<Vec<(i64, i64)>>,
}

/// The middle and the worst hundredth of a set of latencies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Percentiles {
    /// Half of the records were faster.
    pub p50: Duration,
    /// 99 of 100 records were faster.
    pub p99: Duration,
}

impl Tail {
    /// Reads all partitions of `topics` from their beginning on. The topics exist.
    ///
    /// # Errors
    /// When the cluster does not answer.
    pub fn start(centre: &Client, topics: &[String]) -> Result<Self> {
        let known = centre.topics()?;
        let mut list = TopicPartitionList::new();
        for topic in topics {
            for partition in 0..*known.get(topic).with_context(|| format!("no topic {topic}"))? {
                list.add_partition_offset(topic, partition, Offset::Beginning)?;
            }
        }
        let consumer = centre.reader()?;
        consumer.assign(&list)?;
        let shared = Arc::new(Shared::default());
        let reader = Arc::clone(&shared);
        std::thread::spawn(move || reader.read(&consumer));
        Ok(Self { shared })
    }

    /// Records read so far.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.shared.records.load(Ordering::Relaxed)
    }

    /// Notes latencies from now on.
    pub fn start_measuring(&self) {
        self.shared.measuring.store(true, Ordering::Relaxed);
    }

    /// CreateTime and milliseconds from then to when it was read, of each record that was read while it was measured.
    #[must_use]
    pub fn samples(&self) -> Vec<(i64, i64)> {
        self.shared.samples.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The latencies of all records, and of those not created within one of `waited`.
    ///
    /// # Errors
    /// When nothing was measured.
    pub fn latencies(&self, waited: &[Range<i64>]) -> Result<(Percentiles, Percentiles)> {
        let samples = self.shared.samples.lock().unwrap_or_else(PoisonError::into_inner);
        let all = samples.iter().map(|(_, latency)| *latency).collect();
        let link_up = samples
            .iter()
            .filter(|(created, _)| !waited.iter().any(|range| range.contains(created)))
            .map(|(_, latency)| *latency)
            .collect();
        Ok((percentiles(all).context("nothing was measured")?, percentiles(link_up).context("nothing was measured while the link was up")?))
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    fn read(&self, consumer: &BaseConsumer) {
        while !self.stop.load(Ordering::Relaxed) {
            // Ends of partitions and passing errors are no records; librdkafka goes on by itself.
            let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) else { continue };
            if self.measuring.load(Ordering::Relaxed)
                && let Some(created) = message.timestamp().to_millis()
            {
                let mut samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
                if samples.len() < SAMPLES_MAX {
                    samples.push((created, now_ms() - created));
                }
            }
            self.records.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn percentiles(mut latencies_ms: Vec<i64>) -> Option<Percentiles> {
    latencies_ms.sort_unstable();
    let at = |percent: usize| {
        let index = (latencies_ms.len() * percent / 100).min(latencies_ms.len().checked_sub(1)?);
        latencies_ms.get(index).map(|ms| Duration::from_millis(u64::try_from(*ms).unwrap_or(0)))
    };
    Some(Percentiles { p50: at(50)?, p99: at(99)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_taken_from_sorted_latencies() {
        let found = percentiles((1..=200).rev().collect());
        assert_eq!(found, Some(Percentiles { p50: Duration::from_millis(101), p99: Duration::from_millis(199) }));
        assert_eq!(percentiles(Vec::new()), None);
    }
}
