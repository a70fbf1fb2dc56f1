//! Which line of its partition a section belongs to, and what is known of a partition.

use std::collections::BTreeMap;

use spillway_proto::frame::{GapReason, SectionKind};
use spillway_proto::{TopicId, TopicPartition};

use super::RotatingStore;
use crate::entry::{Entry, Line, StoredSection};
use crate::plan::Released;
use crate::store::Release;
use crate::summary::{Source, Span, What};

/// The newest line of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tail {
    line: Line,
    topic_id: TopicId,
}

impl RotatingStore {
    /// The offsets of a partition start over outside of the spill: a gap that goes back, or a topic made anew, was sent from memory.
    pub fn begin_line(&mut self, partition: &TopicPartition, topic_id: TopicId) -> Line {
        let line = self.tails.get(partition).map_or(Line(0), |tail| Line(tail.line.0 + 1));
        self.tails.insert(partition.clone(), Tail { line, topic_id });
        line
    }

    /// The newest line of a partition, which its next section belongs to unless it starts over.
    pub fn line(&self, partition: &TopicPartition) -> Line {
        self.tails.get(partition).map_or(Line(0), |tail| tail.line)
    }

    /// Gives each section its line.
    pub(super) fn place(&mut self, entry: &Entry) -> Vec<StoredSection> {
        let mut sections = entry.sections.clone();
        for section in sections.iter_mut().filter(|_| !entry.refill) {
            let tail = self.tails.get(&section.partition);
            let goes_back = matches!(section.kind, SectionKind::Gap { reason: GapReason::Truncated | GapReason::TopicRecreated, .. });
            let starts_over = tail.is_some_and(|tail| goes_back || tail.topic_id.is_other_incarnation(section.topic_id));
            section.line = match tail {
                _ if starts_over => self.begin_line(&section.partition, section.topic_id),
                Some(tail) => tail.line,
                None => {
                    self.tails.insert(section.partition.clone(), Tail { line: Line(0), topic_id: section.topic_id });
                    Line(0)
                }
            };
        }
        sections
    }

    /// Moves what is released forward, never back.
    pub(super) fn forward(&mut self, release: &Release) {
        let Release { partition, topic_id, line, next } = release;
        let released = Released { topic_id: *topic_id, line: *line, next: *next };
        let known = self.state.released.entry(partition.clone()).or_insert(released);
        if (released.line, released.next) > (known.line, known.next) {
            *known = released;
        }
        let tail = self.tails.entry(partition.clone()).or_insert(Tail { line: *line, topic_id: *topic_id });
        if tail.line < *line {
            *tail = Tail { line: *line, topic_id: *topic_id };
        }
    }

    pub(super) fn tails_now(&self) -> BTreeMap<TopicPartition, Tail> {
        let mut tails = BTreeMap::new();
        let mut see = |partition: &TopicPartition, line: Line, topic_id: TopicId| {
            let tail = tails.entry(partition.clone()).or_insert(Tail { line, topic_id });
            if tail.line <= line {
                *tail = Tail { line, topic_id };
            }
        };
        for (partition, released) in &self.state.released {
            see(partition, released.line, released.topic_id);
        }
        for ((partition, line), dropped) in &self.state.dropped {
            see(partition, *line, dropped.topic_id);
        }
        for (key, span) in self.generations.values().flat_map(|generation| generation.summary.spans()) {
            if let Some(source) = self.sources.source(key) {
                see(&source.partition, span.line, source.topic_id);
            }
        }
        tails
    }

    pub(super) fn spans_of(&self, wanted: impl Fn(&Source) -> bool) -> Vec<(Source, Span)> {
        let dropped = self.state.dropped.iter().flat_map(|((partition, line), dropped)| {
            let source = Source { partition: partition.clone(), topic_id: dropped.topic_id, partition_count: dropped.partition_count };
            let what = What::Gap(GapReason::Dropped);
            dropped.ranges.iter().map(move |(first, next)| (source.clone(), Span { line: *line, what, first, next }))
        });
        let held = self.generations.values().flat_map(|generation| generation.summary.spans());
        let held = held.filter_map(|(key, span)| Some((self.sources.source(key)?, span)));
        let held = held.filter(|(source, _)| wanted(source)).map(|(source, span)| (source.clone(), span));
        dropped.filter(|(source, _)| wanted(source)).chain(held).collect()
    }
}
