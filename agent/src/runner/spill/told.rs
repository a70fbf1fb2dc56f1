//! What the store tells of itself: loss, trouble, figures.

use std::time::{Duration, Instant};

use spillway_agent_core::lane::LaneBook;
use spillway_ops::exit;
use spillway_proto::{NextOffset, TopicPartition};
use spillway_spill::Class;
use spillway_spill::admission::Full;
use spillway_spill::store::{Error, Release, Report};

use super::super::Runner;
use super::{Command, Spill};

/// So long after the beginning of a session the spill is sent although some partition has no answer: its topic may not be to be had at the centre.
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);

impl Spill {
    /// With what may be released of each.
    fn release<'b>(&mut self, books: impl IntoIterator<Item = (&'b LaneBook, Option<NextOffset>)>) {
        let mut releases = Vec::new();
        for (book, released) in books {
            let (partition, line) = (&book.source.partition, book.line);
            let Some(next) = released.filter(|_| self.known.contains(partition)) else {
                continue;
            };
            let release = Release { partition: partition.clone(), topic_id: book.source.topic_id, line, next };
            if self.released.get(partition) != Some(&release) {
                self.released.insert(partition.clone(), release.clone());
                releases.push(release);
            }
        }
        // What was released before it was durable is found again, so that the last of the disk is given back, too.
        let is_left = !self.spool.is_in_use() && self.usage.entries > 0;
        if !releases.is_empty() || is_left {
            self.give(Command::Release(releases));
        }
    }
}

impl Runner {
    pub(super) fn on_report(&mut self, report: Report) {
        match report {
            Report::Damaged { path, what } => {
                self.parts.metrics.spill_damaged.inc();
                tracing::error!(event = "spill_damaged", path = %path.display(), what, "the spill is damaged; what that means for the data follows");
            }
            Report::Lost { source, line, first, next } => {
                tracing::error!(
                    event = "spill_lost", topic = %source.partition.topic, partition = source.partition.partition.index(),
                    first = first.value(), next = next.value(),
                    "offsets are lost in the spill; they are read again where the site's Kafka still has them, else they will be a gap at the centre"
                );
                self.ledger.lost(&source, line, first, next);
            }
            Report::Dropped { class: _, source, line, first, next } => {
                tracing::warn!(
                    event = "spill_dropped", topic = %source.partition.topic, partition = source.partition.partition.index(),
                    first = first.value(), next = next.value(), "dropped, since the spill is full and when_full says so; it will be a gap at the centre"
                );
                self.ledger.lost(&source, line, first, next);
            }
            Report::Quarantined { path } => {
                tracing::error!(
                    event = "spill_quarantined", path = %path.display(),
                    "damaged data was put aside; `spillway-agent spill salvage` writes out what is left in it"
                );
            }
        }
    }

    pub(super) fn on_full(&mut self, class: Class, full: Option<Full>) {
        let Some(spill) = &mut self.spill else {
            return;
        };
        match full {
            Some(because) => {
                let (limit, bytes) = (because.as_str(), spill.usage.disk_bytes);
                tracing::warn!(
                    event = "spill_full",
                    class = class.urgency(),
                    limit,
                    bytes,
                    "the spill is full: what comes waits in the site's Kafka, unless the line takes it"
                );
            }
            None => tracing::info!(event = "spill_has_room", class = class.urgency(), "nothing waits for room in the spill any more"),
        }
        match full {
            Some(because) => _ = spill.full.insert(class, because),
            None => _ = spill.full.remove(&class),
        }
    }

    pub(super) fn on_trouble(&mut self, trouble: Option<Error>) {
        let Some(spill) = &mut self.spill else {
            return;
        };
        spill.trouble = trouble.map(|error| {
            let text = exit::chain(&error);
            let fix = if error.is_disk_full() { "make room on its disk" } else { "look at its disk, its owner and its permissions" };
            tracing::error!(
                event = "spill_trouble",
                error = text,
                fix,
                "the spill cannot be written; trying again. What comes waits in the site's Kafka, unless the line takes it"
            );
            text
        });
        if spill.trouble.is_none() {
            tracing::info!(event = "spill_recovered", "the spill can be written again");
        }
    }

    /// Tells the store what the centre has, of all partitions that it knows.
    fn release_all(&mut self) {
        let Some(spill) = self.spill.as_mut().filter(|spill| !spill.known.is_empty()) else {
            return;
        };
        spill.release(self.ledger.partitions().map(|(_, book)| (book, self.ledger.released(book))));
    }

    /// Tells the store what the centre has of a partition, before something is asked about it.
    pub(super) fn release(&mut self, partition: &TopicPartition) {
        let book = self.ledger.lane_of(partition).and_then(|lane| self.ledger.book(lane));
        if let (Some(spill), Some(book)) = (&mut self.spill, book) {
            spill.release([(book, self.ledger.released(book))]);
        }
    }

    /// Steps what changes by itself.
    pub(in super::super) fn tick_spill(&mut self, now: Instant) {
        self.release_all();
        if self.session.is_some() && now.duration_since(self.session_since) >= ANSWER_PATIENCE {
            self.ledger.wait_no_longer();
        }
        if let Some(spill) = &mut self.spill {
            spill.forecast.observe(now, spill.usage.disk_bytes);
        }
        self.step_spill_metrics();
        self.look_ahead(now);
    }
}
