//! Frames that go into the spill.
//!
//! Invariants, beside those of [`super`]:
//! - F. A frame that is only in memory is never followed in the spill by a later one of its lanes: when the spill is begun, all that is in memory
//!   is copied there first, in order.
//! - G. What is let go of in memory is durable in the spill, and the lanes' positions go back to before it.

use std::time::Instant;

use bytes::Bytes;
use spillway_proto::frame::{Section, SectionKind};
use spillway_spill_core::entry::StoredSection;

use super::{Error, Ledger};
use crate::lane::{LaneBook, LaneSource};
use crate::schedule::{Flow, Scope};

/// A frame to be copied into the spill.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameCopy {
    /// Its place among all frames that were ever pushed.
    pub index: u64,
    /// Its bytes.
    pub bytes: Bytes,
    /// What it covers, as the spill names it.
    pub sections: Vec<StoredSection>,
    /// What it covers, by lanes.
    pub raw_sections: Vec<Section>,
}

impl Ledger {
    /// When the oldest frame was pushed that is in memory only.
    pub fn oldest_in_memory(&self, scope: Scope) -> Option<Instant> {
        self.frames.oldest(scope)
    }

    /// All frames that are in memory only, oldest first, to be put into the spill before anything else (F).
    pub fn copies(&mut self, scope: Scope) -> Vec<FrameCopy> {
        let handed = self.frames.hand_over(scope);
        handed
            .into_iter()
            .map(|(index, bytes, raw_sections)| FrameCopy { index, bytes, sections: self.name(&raw_sections), raw_sections })
            .collect()
    }

    /// A frame goes into the spill and not into memory. Answers its sections as the spill names them.
    ///
    /// # Errors
    /// When a section does not join its lane: a bug, and to go on would lose or duplicate records.
    pub fn store(&mut self, sections: &[Section]) -> Result<Vec<StoredSection>, Error> {
        for section in sections {
            let Some(book) = self.lanes.get_mut(&section.lane) else {
                return Err(Error::LaneUnknown(section.lane));
            };
            // Until it is durable there: it may be taken back.
            book.frames += 1;
            let Some((first, next)) = section.kind.range() else {
                continue;
            };
            if book.is_dead() {
                continue;
            }
            if book.read != Some(first) {
                return Err(Error::NotContiguous { lane: section.lane, position: book.read, first });
            }
            book.read = Some(next);
        }
        Ok(self.name(sections))
    }

    /// Sections are durable in the spill: they may be committed at the source. `copy` is the frame that is in memory, too.
    pub fn durable(&mut self, sections: &[Section], copy: Option<u64>) {
        match copy {
            Some(index) => self.frames.durable(index),
            None => sections.iter().for_each(|section| self.let_go_of(section.lane)),
        }
        for section in sections {
            if let Some(book) = self.lanes.get_mut(&section.lane).filter(|book| !book.is_dead()) {
                let next = section.kind.next();
                book.durable = book.durable.max(Some(next));
                self.commit(section.lane, next);
                self.end_if_drained(section.lane);
            }
        }
    }

    /// Lets go of what the spill holds, too; with a session open, of what was not sent in it. Answers whether anything has to be read from
    /// the spill (again).
    pub fn unload(&mut self, scope: Scope) -> bool {
        let unloaded = self.frames.unload(self.session.is_none(), scope);
        for (lane, from) in &unloaded {
            if let Some(book) = self.lanes.get_mut(lane) {
                // Of what the centre has in the middle of a section, the rest is sent again.
                book.position = Some(*from).max(book.acked);
            }
        }
        self.sweep();
        for (lane, _) in &unloaded {
            // One that was given up, and has now sent no more than what is acknowledged.
            self.end_if_drained(*lane);
        }
        !unloaded.is_empty()
    }

    /// Bytes of the agent's budget are free again: what held them is in the spill.
    pub fn give_back(&mut self, flow: Flow, budget: usize) {
        *self.released_budget.entry(flow).or_default() += budget;
    }

    /// Makes of what dead lanes have in a frame something that counts for nothing: what comes before it may not reach the spill.
    pub(crate) fn void_dead(&self, sections: &[Section], stored: &mut [StoredSection]) {
        for (section, stored) in sections.iter().zip(stored) {
            let is_dead = self.lanes.get(&section.lane).is_none_or(LaneBook::is_dead);
            if is_dead {
                stored.kind = void(stored.kind);
            }
        }
    }

    /// Names sections by their partitions, as the spill does. What a dead lane has in a frame counts for nothing there: something before it may be
    /// missing.
    fn name(&self, sections: &[Section]) -> Vec<StoredSection> {
        let name = |section: &Section| {
            let book = self.lanes.get(&section.lane)?;
            let LaneSource { partition, topic_id, partition_count, .. } = book.source.clone();
            let kind = match section.kind {
                kind if book.is_dead() => void(kind),
                kind => kind,
            };
            Some(StoredSection { partition, topic_id, partition_count, line: book.line, kind })
        };
        sections.iter().filter_map(name).collect()
    }
}

/// Something in the place of what a dead lane has in a frame that counts for nothing: what comes before it may not reach the spill.
fn void(kind: SectionKind) -> SectionKind {
    match (kind, kind.range()) {
        (_, Some((first, _))) => SectionKind::Data { first, next: first, records: 0, raw_length: kind.raw_length() },
        (kind, None) => kind,
    }
}
