//! Where a partition's lane is read on of which the spill knows something, and which of the partition's lines it continues.

use spillway_proto::{Lane, NextOffset, TopicId};
use spillway_spill_core::entry::Line;

use super::{Ledger, attach};

impl Ledger {
    /// Reads a lane from `next` on before the centre was asked where it goes on: what is read is put into the spill.
    pub(crate) fn read_on(&mut self, lane: Lane, next: NextOffset) {
        if let Some(book) = self.lanes.get_mut(&lane).filter(|book| !book.is_dead() && book.read.is_none()) {
            (book.read, book.durable) = (Some(next), Some(next));
            attach(&mut self.attachments, lane, book, next);
            self.commit(lane, next);
        }
    }

    /// Up to where all of the lane's partition is at the centre or in the spill, by the books of this process.
    pub(crate) fn safe_to(&self, lane: Lane) -> Option<NextOffset> {
        let source = &self.lanes.get(&lane)?.source;
        let (topic_id, next) = self.safe.get(&source.partition)?;
        (!source.topic_id.is_other_incarnation(*topic_id)).then_some(*next)
    }

    /// Where the lane is read from is a guess: nothing of it is committed before it has begun.
    pub(crate) fn assume(&mut self, lane: Lane) {
        if let Some(book) = self.lanes.get_mut(&lane) {
            book.is_assumed = true;
        }
    }

    /// Which of its partition's lines a lane continues that has not begun: the newest one that the spill (`newest`) or the books know, or another one if
    /// that is of another incarnation of the topic. The books alone number lines; the spill keeps what it is told.
    pub(crate) fn place(&mut self, lane: Lane, newest: Option<(Line, TopicId)>) {
        let Some(book) = self.lanes.get_mut(&lane).filter(|book| book.base.is_none()) else {
            return;
        };
        let topic_id = book.source.topic_id;
        let known = self.tails.get(&book.source.partition).copied();
        let line = match known.into_iter().chain(newest).max_by_key(|(line, _)| *line) {
            None => Line(0),
            Some((line, other)) if topic_id.is_other_incarnation(other) => Line(line.0 + 1),
            Some((line, _)) => line,
        };
        book.line = line;
        self.tails.insert(book.source.partition.clone(), (line, topic_id));
    }

    /// The partition's offsets start over with this lane.
    pub(crate) fn begin_line(&mut self, lane: Lane) {
        if let Some(book) = self.lanes.get_mut(&lane)
            && let Some((line, _)) = self.tails.get_mut(&book.source.partition)
        {
            *line = Line(line.0 + 1);
            book.line = *line;
            self.safe.remove(&book.source.partition);
        }
    }

    /// A lane for what the spill holds of a past incarnation, up to `end` of `line`: it is read from there only, and over with it.
    pub(crate) fn outlive(&mut self, lane: Lane, end: NextOffset, line: Line) {
        if let Some(book) = self.lanes.get_mut(&lane).filter(|book| book.base.is_none()) {
            (book.read, book.durable, book.line) = (Some(end), Some(end), line);
        }
    }
}
