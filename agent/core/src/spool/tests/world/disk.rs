//! What happens to the spill on the disk.

use spillway_proto::compress::Decompressor;
use spillway_proto::frame::{Frame, GapReason};
use spillway_spill_core::entry::{EntryId, Line, StoredSection};
use spillway_spill_core::plan::Released;
use spillway_spill_core::ranges::Ranges;
use spillway_spill_core::summary::{Source, Span, What, span_of};

use super::super::{next, source};
use super::{MAX_RAW, World};
use crate::lane::LaneSource;
use crate::spool::{Append, Holdings, Known, ReadEntry};

impl World {
    pub(super) fn known(&self, index: u32) -> Known {
        let LaneSource { partition, topic_id, partition_count, .. } = source(index);
        let whole = Source { partition, topic_id, partition_count };
        let mut dropped = Ranges::default();
        let unreleased = self.site.released.get(&index).copied().unwrap_or(0);
        for (_, offset) in self.site.dropped.range((index, unreleased)..(index + 1, 0)) {
            dropped.insert(next(*offset), next(offset + 1));
        }
        let what = What::Gap(GapReason::Dropped);
        let dropped = dropped.iter().map(|(first, next)| (whole.clone(), Span { line: Line(0), what, first, next }));
        let mut spans = dropped.collect::<Vec<_>>();
        for section in self
            .site
            .entries
            .values()
            .flat_map(|(sections, _)| sections)
            .filter(|section| section.partition.partition.index() == index && !section.is_void())
        {
            let StoredSection { partition, topic_id, partition_count, line, .. } = section.clone();
            spans.push((Source { partition, topic_id, partition_count }, span_of(section, false)));
            assert_eq!(line.0, 0);
        }
        let released = self.site.released.get(&index).map(|at| {
            let line = Line(0);
            Released { topic_id: source(index).topic_id, line, next: next(*at) }
        });
        Known { spans, released }
    }

    pub(super) fn sync(&mut self, count: usize) {
        if self.blocked {
            return;
        }
        for _ in 0..count {
            // Order is kept within a class only.
            let newest = self.unsynced.back().map(|append| append.class).filter(|_| count.is_multiple_of(2));
            let place = newest.and_then(|class| self.unsynced.iter().position(|append| append.class == class));
            let Some(append) = self.unsynced.remove(place.unwrap_or(0)) else {
                return;
            };
            let class = append.class;
            self.insert(append);
            self.spool.stored(&mut self.ledger, class, 1, self.site.last);
        }
    }

    pub(super) fn insert(&mut self, append: Append) {
        self.site.last = self.site.last.next();
        self.site.classes.insert(self.site.last, append.class);
        self.site.entries.insert(self.site.last, (append.sections, append.bytes));
    }

    pub(super) fn holdings(&self) -> Holdings {
        let mut holds = Holdings { last: self.site.entries.last_key_value().map_or(EntryId::ZERO, |(id, _)| *id), ..Holdings::default() };
        for (id, (sections, _)) in &self.site.entries {
            let partitions = holds.classes.entry(self.site.classes[id]).or_default();
            partitions.extend(sections.iter().map(|section| section.partition.clone()));
        }
        holds
    }

    pub(super) fn drain(&mut self) {
        let asked = std::iter::from_fn(|| self.spool.next_read(&self.ledger)).collect::<Vec<_>>();
        for (class, after) in asked {
            let of_class = |id: &EntryId| class.is_none_or(|class| self.site.classes[id] == class);
            let found = self.site.entries.range(after.next()..).find(|(id, _)| of_class(id));
            let entry = found.map(|(id, (sections, bytes))| {
                let frame = Frame::decode(bytes.clone(), MAX_RAW).unwrap();
                let times = frame.timestamps(&mut Decompressor::new().unwrap()).unwrap();
                ReadEntry { id: *id, created_ms: 0, sections: sections.clone(), frame, times }
            });
            let largest_raw = if self.narrow { 0 } else { usize::MAX };
            self.stood_still += self.spool.read(&mut self.ledger, entry, largest_raw, self.now).unwrap().len();
        }
    }

    pub(super) fn delete(&mut self) {
        for (_, book) in self.ledger.partitions() {
            if let Some(acked) = self.ledger.released(book) {
                let released = self.site.released.entry(book.source.partition.partition.index()).or_default();
                *released = acked.value().max(*released);
            }
        }
        let released = &self.site.released;
        let is_released = |section: &StoredSection| {
            let at = released.get(&section.partition.partition.index()).copied().unwrap_or(0);
            section.kind.next().value() <= at
        };
        while let Some(oldest) = self.site.entries.first_entry() {
            if !oldest.get().0.iter().all(is_released) {
                break;
            }
            oldest.remove();
        }
    }

    pub(super) fn drop_oldest(&mut self) {
        if let Some((_, (sections, _))) = self.site.entries.pop_first() {
            self.note_dropped(&sections);
            self.tell_lost(&sections);
        }
    }

    pub(super) fn drop_newest(&mut self, count: usize) {
        let count = count.min(self.unsynced.len());
        let dropped = self.unsynced.drain(..count).map(|append| (append.class, append.sections)).collect::<Vec<_>>();
        dropped.iter().for_each(|(_, sections)| self.note_dropped(sections));
        for (class, _) in &dropped {
            self.spool.stored(&mut self.ledger, *class, 1, self.site.last);
        }
        // The report follows the confirmation.
        dropped.iter().for_each(|(_, sections)| self.tell_lost(sections));
    }

    pub(super) fn note_dropped(&mut self, sections: &[StoredSection]) {
        for section in sections {
            if let Some((first, next)) = section.kind.range() {
                let index = section.partition.partition.index();
                self.site.dropped.extend((first.value()..next.value()).map(|offset| (index, offset)));
            }
        }
    }

    pub(super) fn tell_lost(&mut self, sections: &[StoredSection]) {
        for section in sections.iter().filter(|section| !section.is_void()) {
            if let Some((first, next)) = section.kind.range() {
                let StoredSection { partition, topic_id, partition_count, line, .. } = section.clone();
                self.ledger.lost(&Source { partition, topic_id, partition_count }, line, first, next);
            }
        }
    }

    pub(super) fn damage(&mut self, place: usize, told: bool) {
        let Some(id) = self.site.entries.keys().nth(place).copied() else {
            return;
        };
        let (sections, _) = self.site.entries.remove(&id).unwrap();
        for section in &sections {
            if let Some((first, next)) = section.kind.range() {
                self.site.damaged.extend((first.value()..next.value()).map(|offset| (section.partition.partition.index(), offset)));
            }
        }
        if told {
            self.tell_lost(&sections);
        }
    }
}
