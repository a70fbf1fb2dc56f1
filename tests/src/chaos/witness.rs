//! Sees to it, while records flow, that the local group never claims what the centre has not committed.
//!
//! A sample is what the group has committed, and after that the end of the site's progress partition, open transactions included: whatever the
//! agent was told stands below that end. The sample is good when a *committed* position below that end covers each of the group's offsets.
//! A position that comes later proves nothing. That takes as long as the markers of the centre's transactions take.
//!
//! What is durable in the agent's spill may be claimed too. So a sample is taken only while the spill is empty; what is claimed while it is not, or when
//! it is damaged, is excused from then on, up to the offset that was claimed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::{Offset, TopicPartitionList};
use spillway_proto::SiteName;
use spillway_proto::progress::{self, Position, ProgressKey};

use crate::client::Client;
use crate::spill_dir;
use crate::wait::poll_until;

/// How long the site's Kafka may take to tell the group's offsets.
const REQUEST_LIMIT: Duration = Duration::from_secs(5);

/// How long the last samples may take to be settled, once everything has arrived.
const SETTLE_LIMIT: Duration = Duration::from_secs(60);

/// Samples that wait to be settled; while there are so many, no new one is taken.
const PENDING_MAX: usize = 1000;

/// A source partition: topic and index.
type Place = (String, i32);

/// The witness of one site.
pub struct Witness {
    site: String,
    spill: PathBuf,
    places: TopicPartitionList,
    group: BaseConsumer,
    /// Asked for the end of the progress partition, open transactions included.
    ends: BaseConsumer,
    /// Reads the progress partition, committed records only.
    tail: BaseConsumer,
    partition: Option<i32>,
    book: Book,
}

impl std::fmt::Debug for Witness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Witness").field("site", &self.site).field("book", &self.book).finish_non_exhaustive()
    }
}

impl Witness {
    /// A witness for `topics` with their partition counts, and an agent whose spill is in `spill`.
    ///
    /// # Errors
    /// When a client cannot be made.
    pub fn new(source: &Client, centre: &Client, site: &str, topics: &[(&str, i32)], spill: &Path) -> Result<Self> {
        let mut places = TopicPartitionList::new();
        for (topic, partitions) in topics {
            for partition in 0..*partitions {
                places.add_partition(topic, partition);
            }
        }
        Ok(Self {
            site: site.to_owned(),
            spill: spill.to_owned(),
            places,
            group: source.config().set("group.id", format!("spillway-{site}")).create()?,
            ends: centre.config().set("isolation.level", "read_uncommitted").create()?,
            tail: centre.reader()?,
            partition: None,
            book: Book::default(),
        })
    }

    /// Takes a sample and settles older ones. A cluster that does not answer gives no sample.
    ///
    /// # Errors
    /// When the group was past the centre.
    pub fn look(&mut self) -> Result<()> {
        if let Some(partition) = self.find()? {
            let empty = spill_dir::is_empty(&self.spill);
            if self.book.pending.len() < PENDING_MAX
                && let Some(claims) = self.claims()
                && let Ok((_, end)) = self.ends.fetch_watermarks(progress::TOPIC, partition, REQUEST_LIMIT)
            {
                // It may have begun meanwhile.
                if empty && spill_dir::is_empty(&self.spill) {
                    self.book.sample(claims, end);
                } else {
                    self.book.excuse(claims);
                }
            }
            self.read(Duration::ZERO)?;
        }
        Ok(())
    }

    /// Excuses what is claimed now. The agent is stopped.
    ///
    /// # Errors
    /// When the site's Kafka does not answer.
    pub fn excuse(&mut self) -> Result<()> {
        let claims = poll_until(SETTLE_LIMIT, || Ok(self.claims()))?.context("the local group's offsets cannot be had")?;
        self.book.excuse(claims);
        Ok(())
    }

    /// What the group has committed; `None` when it cannot be told.
    fn claims(&self) -> Option<BTreeMap<Place, i64>> {
        let committed = self.group.committed_offsets(self.places.clone(), REQUEST_LIMIT).ok()?;
        let claim = |element: rdkafka::topic_partition_list::TopicPartitionListElem<'_>| match element.offset() {
            Offset::Offset(offset) => Some(((element.topic().to_owned(), element.partition()), offset)),
            _ => None,
        };
        Some(committed.elements().into_iter().filter_map(claim).collect())
    }

    /// Settles all samples and says how many there were.
    ///
    /// # Errors
    /// When the group was past the centre, or that cannot be told in time.
    pub fn finish(&mut self) -> Result<u64> {
        let deadline = Instant::now() + SETTLE_LIMIT;
        while !self.book.pending.is_empty() {
            self.read(Duration::from_millis(100))?;
            if Instant::now() >= deadline {
                bail!("the local group was past the centre, or progress is not read: {:?}", self.book.pending.first());
            }
        }
        Ok(self.book.settled)
    }

    /// The site's partition of the progress topic, from the moment there is one.
    fn find(&mut self) -> Result<Option<i32>> {
        if self.partition.is_none() {
            let Ok(metadata) = self.ends.fetch_metadata(Some(progress::TOPIC), REQUEST_LIMIT) else { return Ok(None) };
            let count = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
            if count > 0 {
                let site = SiteName::parse(&self.site).context("no name for a site")?;
                let partition = progress::partition_of(&site, u32::try_from(count)?).to_kafka();
                let mut list = TopicPartitionList::new();
                list.add_partition_offset(progress::TOPIC, partition, Offset::Beginning)?;
                self.tail.assign(&list)?;
                self.partition = Some(partition);
            }
        }
        Ok(self.partition)
    }

    fn read(&mut self, wait: Duration) -> Result<()> {
        loop {
            match self.tail.poll(wait) {
                Some(Ok(message)) => {
                    let Ok(ProgressKey::Position { site, source }) = ProgressKey::decode(message.key().unwrap_or_default()) else {
                        continue;
                    };
                    if site.as_str() != self.site {
                        continue;
                    }
                    let position = message.payload().map(Position::decode).transpose().context("unreadable progress")?;
                    if let Some(position) = position {
                        let place = (source.topic.to_string(), source.partition.to_kafka());
                        self.book.committed(message.offset(), place, position.next.to_kafka())?;
                    }
                }
                Some(Err(KafkaError::PartitionEOF(_))) | None => return Ok(()),
                // librdkafka connects again by itself.
                Some(Err(_)) => {}
            }
        }
    }
}

/// What was sampled and what was read. Pure.
#[derive(Debug, Default)]
struct Book {
    positions: BTreeMap<Place, i64>,
    pending: Vec<Sample>,
    settled: u64,
    /// Claims up to here need nothing at the centre.
    excused: BTreeMap<Place, i64>,
}

#[derive(Debug)]
struct Sample {
    /// Claims that no committed position covers yet.
    claims: BTreeMap<Place, i64>,
    /// Only progress below this offset counts.
    end: i64,
}

impl Book {
    fn excuse(&mut self, claims: BTreeMap<Place, i64>) {
        for (place, offset) in claims {
            let excused = self.excused.entry(place).or_insert(offset);
            *excused = offset.max(*excused);
        }
    }

    fn sample(&mut self, mut claims: BTreeMap<Place, i64>, end: i64) {
        let all = claims.len();
        claims.retain(|place, offset| self.excused.get(place).is_none_or(|excused| excused < offset));
        if claims.is_empty() && all > 0 {
            // Nothing that could be wrong.
            return;
        }
        claims.retain(|place, offset| self.positions.get(place).is_none_or(|position| position < offset));
        // Offset 0 claims nothing.
        claims.retain(|_, offset| *offset > 0);
        if claims.is_empty() {
            self.settled += 1;
        } else {
            self.pending.push(Sample { claims, end });
        }
    }

    /// A committed position was read, in the order of the log.
    fn committed(&mut self, at: i64, place: Place, next: i64) -> Result<()> {
        if let Some(sample) = self.pending.iter().find(|sample| sample.end <= at) {
            bail!("the local group claimed {:?} when nothing committed below {} covered it", sample.claims, sample.end);
        }
        for sample in &mut self.pending {
            if sample.claims.get(&place).is_some_and(|offset| *offset <= next) {
                sample.claims.remove(&place);
            }
        }
        let before = self.pending.len();
        self.pending.retain(|sample| !sample.claims.is_empty());
        self.settled += u64::try_from(before - self.pending.len())?;
        self.positions.insert(place, next);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn place(partition: i32) -> Place {
        ("t".to_owned(), partition)
    }

    #[test]
    fn only_what_was_below_the_end_when_the_sample_was_taken_covers_it() {
        let mut book = Book::default();
        book.committed(3, place(0), 100).unwrap();
        book.sample([(place(0), 100), (place(1), 0)].into(), 4);
        assert_eq!((book.settled, book.pending.len()), (1, 0), "covered already");
        book.sample([(place(0), 120), (place(1), 7)].into(), 10);
        book.committed(8, place(0), 120).unwrap();
        book.committed(9, place(1), 8).unwrap();
        assert_eq!((book.settled, book.pending.len()), (2, 0), "covered by what was on its way");
        book.sample([(place(0), 121)].into(), 12);
        assert!(book.committed(12, place(0), 130).is_err(), "committed after the group had claimed it");
    }

    #[test]
    fn what_was_in_the_spill_is_excused_and_nothing_beyond_it() {
        let mut book = Book::default();
        book.excuse([(place(0), 100)].into());
        book.excuse([(place(0), 90)].into());
        book.sample([(place(0), 100)].into(), 4);
        assert_eq!((book.settled, book.pending.len()), (0, 0), "it proves nothing");
        book.sample([(place(0), 101), (place(1), 5)].into(), 4);
        assert_eq!(book.pending.len(), 1);
        assert!(book.committed(4, place(1), 5).is_err(), "committed after the group had claimed it");
    }
}
