//! What a generation holds, by partition: small enough to be kept in memory for thousands of generations (32 bytes a span).

use std::collections::HashMap;

use spillway_proto::frame::{GapReason, SectionKind};
use spillway_proto::{NextOffset, TopicId, TopicPartition};

use crate::entry::{EntryId, Identity, Line, StoredSection};

/// Number of a [`Source`] in a [`Sources`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourceKey(u32);

/// A partition of one incarnation of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The partition.
    pub partition: TopicPartition,
    /// The topic's id.
    pub topic_id: TopicId,
    /// The largest number of partitions that the topic was seen with.
    pub partition_count: u32,
}

/// The partitions that a store has seen, each named once.
#[derive(Debug, Default)]
pub struct Sources {
    list: Vec<Source>,
    keys: HashMap<(TopicPartition, TopicId), SourceKey>,
}

impl Sources {
    /// The key of a section's partition.
    pub fn key(&mut self, section: &StoredSection) -> SourceKey {
        let StoredSection { partition, topic_id, partition_count, .. } = section;
        let list = &mut self.list;
        let key = *self.keys.entry((partition.clone(), *topic_id)).or_insert_with(|| {
            list.push(Source { partition: partition.clone(), topic_id: *topic_id, partition_count: *partition_count });
            SourceKey(list.len().saturating_sub(1) as u32)
        });
        if let Some(source) = self.list.get_mut(key.0 as usize) {
            source.partition_count = source.partition_count.max(*partition_count);
        }
        key
    }

    /// What a key stands for.
    pub fn source(&self, key: SourceKey) -> Option<&Source> {
        self.list.get(key.0 as usize)
    }
}

/// What is known of a stretch of offsets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// Frames hold it: records, holes, and gaps that stand between them.
    Data,
    /// Frames held it, and are damaged.
    Lost,
    /// It never came from the source, or was dropped on purpose.
    Gap(GapReason),
    /// The line begins here, and the centre had nothing before.
    Start,
}

/// A stretch of offsets of one line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The line.
    pub line: Line,
    /// What is known.
    pub what: What,
    /// First offset. Of a gap that begins a line it counts in the line before.
    pub first: NextOffset,
    /// One past the last offset.
    pub next: NextOffset,
}

/// What a generation holds.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// The first entry.
    pub first: Option<EntryId>,
    /// The last entry.
    pub last: Option<EntryId>,
    /// Entries that can be read.
    pub entries: u64,
    /// Their records.
    pub records: u64,
    /// The bytes of their frames.
    pub frame_bytes: u64,
    /// When the oldest frame was built, milliseconds since 1970.
    pub oldest_ms: Option<i64>,
    spans: Vec<(SourceKey, Span)>,
    /// Place of each partition's last span, so that the next section joins it.
    last_span: HashMap<SourceKey, usize>,
}

impl Summary {
    /// Adds an entry; `lost` when its frame is damaged.
    pub fn add(&mut self, id: EntryId, identity: &Identity, lost: bool, sources: &mut Sources) {
        self.first.get_or_insert(id);
        self.last = Some(id);
        if !lost {
            self.entries += 1;
            self.records += identity.records();
            self.frame_bytes += u64::from(identity.frame_bytes);
            self.oldest_ms = Some(self.oldest_ms.map_or(identity.created_ms, |oldest| oldest.min(identity.created_ms)));
        }
        for section in identity.sections.iter().filter(|section| !section.is_void()) {
            self.span(sources.key(section), span_of(section, lost));
        }
    }

    /// An entry turned out to be damaged: what it held is lost.
    pub fn lose(&mut self, identity: &Identity, sources: &mut Sources) {
        self.entries = self.entries.saturating_sub(1);
        self.records = self.records.saturating_sub(identity.records());
        self.frame_bytes = self.frame_bytes.saturating_sub(u64::from(identity.frame_bytes));
        for section in &identity.sections {
            let (key, lost) = (sources.key(section), span_of(section, true));
            let mut kept = Vec::with_capacity(self.spans.len() + 2);
            for (other, span) in std::mem::take(&mut self.spans) {
                let hit =
                    other == key && span.line == lost.line && span.what == What::Data && span.first < lost.next && lost.first < span.next;
                if !hit {
                    kept.push((other, span));
                    continue;
                }
                let parts = [(span.first, lost.first, What::Data), (lost.first, lost.next, What::Lost), (lost.next, span.next, What::Data)];
                kept.extend(
                    parts.into_iter().filter(|part| part.0 < part.1).map(|(first, next, what)| (key, Span { first, next, what, ..span })),
                );
            }
            self.spans = kept;
        }
        self.last_span.clear();
    }

    /// The spans, of each partition in the order of the entries.
    pub fn spans(&self) -> impl Iterator<Item = (SourceKey, Span)> + '_ {
        self.spans.iter().copied()
    }

    /// True without any span and entry.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty() && self.entries == 0
    }

    /// Nothing more comes: gives memory back.
    pub fn close(&mut self) {
        self.last_span = HashMap::new();
        self.spans.shrink_to_fit();
    }

    fn span(&mut self, key: SourceKey, span: Span) {
        if let Some((_, last)) = self.last_span.get(&key).and_then(|place| self.spans.get_mut(*place))
            && last.line == span.line
            && last.what == span.what
            && matches!(span.what, What::Data | What::Lost)
            && last.next == span.first
        {
            last.next = span.next;
            return;
        }
        self.last_span.insert(key, self.spans.len());
        self.spans.push((key, span));
    }
}

/// The span of a section.
pub fn span_of(section: &StoredSection, lost: bool) -> Span {
    let line = section.line;
    if let Some((first, next)) = section.kind.range() {
        return Span { line, what: if lost { What::Lost } else { What::Data }, first, next };
    }
    match section.kind {
        SectionKind::Data { first, next, .. } => Span { line, what: What::Data, first, next },
        SectionKind::Gap { first, next, reason } => Span { line, what: What::Gap(reason), first, next },
        SectionKind::Start { next } => Span { line, what: What::Start, first: next, next },
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use spillway_proto::{Partition, TopicName};

    use super::*;
    use crate::entry::Class;

    fn section(first: u64, next: u64) -> StoredSection {
        let offset = |value| NextOffset::new(value).unwrap();
        let kind = SectionKind::Data { first: offset(first), next: offset(next), records: (next - first) as u32, raw_length: 9 };
        let partition = TopicPartition { topic: TopicName::parse("t").unwrap(), partition: Partition::FIRST };
        StoredSection { partition, topic_id: TopicId([1; 16]), partition_count: 1, line: Line(0), kind }
    }

    fn spans(list: &[(u64, u64)]) -> Vec<(u64, u64, What)> {
        let (mut summary, mut sources) = (Summary::default(), Sources::default());
        for (n, (first, next)) in list.iter().enumerate() {
            let sections = vec![section(*first, *next)];
            let identity = Identity { class: Class::DEFAULT, created_ms: 5, sections, frame_bytes: 10, frame_crc: 0 };
            summary.add(EntryId(n as u64 + 1), &identity, false, &mut sources);
        }
        assert_eq!(summary.entries, list.len() as u64);
        summary.spans().map(|(_, span)| (span.first.value(), span.next.value(), span.what)).collect()
    }

    #[test]
    fn what_joins_is_one_span_and_what_is_void_is_none() {
        assert_eq!(spans(&[(0, 5), (5, 9), (12, 20)]), [(0, 9, What::Data), (12, 20, What::Data)]);
        assert_eq!(spans(&[(7, 7), (7, 9), (30, 30)]), [(7, 9, What::Data)]);
    }
}
