//! Which line of its partition a section belongs to, and what is known of a partition.

use std::collections::BTreeMap;

use spillway_proto::frame::GapReason;
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
    /// Notes the lines of an entry's sections: whoever appends them numbers them.
    pub(super) fn place(&mut self, entry: &Entry) -> Vec<StoredSection> {
        for StoredSection { partition, topic_id, line, .. } in &entry.sections {
            let (line, topic_id) = (*line, *topic_id);
            let tail = self.tails.entry(partition.clone()).or_insert(Tail { line, topic_id });
            if tail.line < line {
                *tail = Tail { line, topic_id };
            }
        }
        entry.sections.clone()
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
