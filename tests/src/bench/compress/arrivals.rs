//! How much has arrived: a `read_committed` reader at the centre. Every record of the backlog has a place and a time that no other has.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::{Offset, TopicPartitionList};

use crate::client::Client;

/// Reads what one contestant brings.
pub struct Arrivals {
    consumer: BaseConsumer,
    topics: Vec<String>,
    seen: HashSet<(usize, i32, i64)>,
    copies: u64,
}

impl std::fmt::Debug for Arrivals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Arrivals").field("distinct", &self.seen.len()).field("copies", &self.copies).finish_non_exhaustive()
    }
}

impl Arrivals {
    /// Reads `topics` with so many partitions each from their beginning.
    ///
    /// # Errors
    /// When librdkafka refuses.
    pub fn start(centre: &Client, topics: &[(String, i32)]) -> Result<Self> {
        let consumer = centre.reader()?;
        let mut all = TopicPartitionList::new();
        for (topic, partitions) in topics {
            for partition in 0..*partitions {
                all.add_partition_offset(topic, partition, Offset::Beginning)?;
            }
        }
        consumer.assign(&all)?;
        Ok(Self { consumer, topics: topics.iter().map(|(topic, _)| topic.clone()).collect(), seen: HashSet::new(), copies: 0 })
    }

    /// Reads for `time`; answers how many different records have arrived.
    ///
    /// # Errors
    /// When a record is not one of the backlog's.
    pub fn look(&mut self, time: Duration) -> Result<u64> {
        let until = Instant::now() + time;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.consumer.poll(left) {
                Some(Ok(message)) => {
                    let topic = self.topics.iter().position(|topic| topic == message.topic()).context("a record of another topic")?;
                    let time_ms = message.timestamp().to_millis().context("a record without time")?;
                    self.copies += u64::from(!self.seen.insert((topic, message.partition(), time_ms)));
                }
                Some(Err(KafkaError::PartitionEOF(_))) => {}
                // Passes, as long as the centre lives; a centre that does not is noticed by its contestant.
                Some(Err(_)) => std::thread::sleep(left.min(Duration::from_millis(10))),
                None => return Ok(self.distinct()),
            }
            if left.is_zero() {
                return Ok(self.distinct());
            }
        }
    }

    /// Different records that have arrived.
    #[must_use]
    pub fn distinct(&self) -> u64 {
        u64::try_from(self.seen.len()).unwrap_or(u64::MAX)
    }

    /// Records that had arrived before.
    #[must_use]
    pub fn copies(&self) -> u64 {
        self.copies
    }
}
