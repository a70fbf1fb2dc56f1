//! What the spill has to do with the books: frames go there and come back.
//!
//! Invariants, beside those of [`super`]:
//! - F. A frame that is only in memory is never followed in the spill by a later one of its lanes: when the spill is begun, all that is in memory
//!   is copied there first, in order.
//! - G. What is let go of in memory is durable in the spill, and the lanes' positions go back to before it.

use std::collections::HashMap;
use std::time::Instant;

use bytes::Bytes;
use spillway_proto::frame::{EncodedFrame, Section, SectionKind, Timestamps};
use spillway_proto::{Lane, NextOffset, TopicId, TopicPartition};
use spillway_spill_core::entry::{Line, StoredSection};
use spillway_spill_core::summary::Source;

use super::frames::{Copy, Retained};
use super::{Error, Ledger, attach};
use crate::lane::{AfterDrain, LaneBook, LaneSource};
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

/// What becomes of a section that was read from the spill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// It is next on this lane.
    Now(Lane),
    /// Nobody wants it: it is at the centre or under way, or its partition stands still.
    Not,
    /// What comes before it was not found yet.
    Later(Lane),
}

impl Ledger {
    /// Reads a lane from `next` on before the centre was asked where it goes on: what is read is put into the spill.
    pub(crate) fn read_on(&mut self, lane: Lane, next: NextOffset) {
        if let Some(book) = self.lanes.get_mut(&lane).filter(|book| !book.is_dead() && book.read.is_none()) {
            (book.read, book.durable) = (Some(next), Some(next));
            attach(&mut self.attachments, lane, book, next);
            self.commit(lane, next);
        }
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
        }
    }

    /// A lane for what the spill holds of a past incarnation, up to `end` of `line`: it is read from there only, and over with it.
    pub(crate) fn outlive(&mut self, lane: Lane, end: NextOffset, line: Line) {
        if let Some(book) = self.lanes.get_mut(&lane).filter(|book| book.base.is_none()) {
            (book.read, book.durable, book.line) = (Some(end), Some(end), line);
        }
    }

    /// The spill is gone through from its front.
    pub fn begin_pass(&mut self, scope: Scope) {
        for book in self.lanes.values_mut().filter(|book| scope.has(book.source.flow)) {
            (book.pass_began, book.is_ahead) = (book.position, false);
        }
    }

    /// True when the spill has to be gone through once more: something did not join when it was found, and what it joins was found behind it.
    pub fn needs_pass(&self, scope: Scope) -> bool {
        self.books(scope).any(|book| !book.is_dead() && !book.is_broken && book.is_ahead && book.pass_began < book.position)
    }

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

    /// What becomes of each section of an entry.
    pub fn wanted(&mut self, sections: &[StoredSection]) -> Vec<Wanted> {
        // Of a partition a frame may have several sections, one behind the other.
        let mut reached = HashMap::new();
        let mut wanted = Vec::with_capacity(sections.len());
        for section in sections {
            let of_section = self.wanted_section(section, &reached);
            if let Wanted::Now(lane) = of_section {
                reached.insert(lane, section.kind.next());
            }
            wanted.push(of_section);
        }
        for later in &wanted {
            if let Wanted::Later(lane) = later
                && let Some(book) = self.lanes.get_mut(lane)
            {
                book.is_ahead = true;
            }
        }
        wanted
    }

    /// An entry was read from the spill. `frame` has the lane of each section that is wanted, and any other for the rest; `created_ms` tells when
    /// it was built, milliseconds since 1970, which its records are not younger than, and `times` how old its records are, where that matters.
    ///
    /// # Errors
    /// When a section does not join its lane: a bug.
    pub fn push_stored(
        &mut self,
        frame: EncodedFrame,
        wanted: &[Wanted],
        created_ms: i64,
        times: Option<Timestamps>,
        now: Instant,
    ) -> Result<(), Error> {
        let flow = self.flow_of(&frame.sections);
        // Its bytes have a bound of their own, and hold nothing of the agent's budget.
        let mut retained = Retained::new(flow, frame.bytes, 0, Copy::Durable, now).dated(times);
        let (mut lates, mut others) = (0usize, 0usize);
        for (section, wanted) in frame.sections.iter().zip(wanted) {
            let Wanted::Now(lane) = wanted else {
                continue;
            };
            let (Some(book), Some((first, next))) = (self.lanes.get_mut(lane), section.kind.range()) else {
                continue;
            };
            // What is beyond a range is its partition's own lane's.
            let next = book.until.map_or(next, |until| next.min(until));
            let Some(from) = book.position.filter(|position| first <= *position && *position < next) else {
                return Err(Error::NotContiguous { lane: *lane, position: book.position, first });
            };
            // The source may be behind that still: what it reads then is passed over.
            (book.position, book.frames) = (Some(next), book.frames + 1);
            if book.source.flow != flow {
                retained.mix();
            }
            retained.add(section, (from, next), Some(created_ms), true);
            lates += usize::from(book.until.is_some());
            others += usize::from(book.until.is_none());
        }
        match (lates, others) {
            (0, _) => {}
            (_, 0) => retained.set_late(),
            // It goes with the others, but behind what goes before it on its late lanes.
            _ => retained.mix(),
        }
        self.keep(retained, now);
        for section in &frame.sections {
            self.stop_at_loss(section.lane);
        }
        Ok(())
    }

    /// The spill says that it no longer has what it had of a partition: it is damaged, or was dropped by policy. The lane sends what comes before
    /// it and is given up there. Untold, it is found out at the spill's end, which is never reached while more comes in than goes out.
    pub fn lost(&mut self, source: &Source, line: Line, first: NextOffset, next: NextOffset) {
        let lanes = [self.late_alive(&source.partition), self.newest_alive(&source.partition)];
        for lane in lanes.map(|found| found.map(|(lane, _)| lane)).into_iter().flatten() {
            self.lost_of(lane, source, line, first, next);
        }
    }

    fn lost_of(&mut self, lane: Lane, source: &Source, line: Line, first: NextOffset, next: NextOffset) {
        let Some(book) = self.lanes.get(&lane).filter(|book| book.until.is_none_or(|until| first < until)) else {
            return;
        };
        let other = book.source.topic_id.is_other_incarnation(source.topic_id) || (book.base.is_some() && book.line != line);
        // What has not begun may be planned with what the spill said before.
        if !other && book.position.is_none_or(|position| position < next) {
            self.stop_at(lane, first);
        }
    }

    /// The spill does not have what comes at `next`: the lane is given up there.
    pub(crate) fn stop_at(&mut self, lane: Lane, next: NextOffset) {
        if let Some(book) = self.lanes.get_mut(&lane) {
            book.lost_at = Some(book.lost_at.map_or(next, |at| at.min(next)));
        }
        self.stop_at_loss(lane);
    }

    /// The spill has lost what comes next on the lane: a new one takes over when all that was sent is acknowledged.
    pub fn give_up(&mut self, lane: Lane) {
        if let Some(book) = self.lanes.get_mut(&lane).filter(|book| !book.is_dead()) {
            book.is_broken = true;
        }
        self.end_if_drained(lane);
    }

    /// True when the session has answered all lanes, so that it is known what is wanted; after [`Self::wait_no_longer`] all that had begun before.
    pub fn is_answered(&self, scope: Scope) -> bool {
        let Some(session) = &self.session else {
            return false;
        };
        let answered = |book: &LaneBook| book.is_dead() || book.settled || (session.waits_no_longer && book.position.is_none());
        self.books(scope).all(answered)
    }

    /// Lanes that have not begun and not been answered in this session hold up the others no longer: what the spill has of them is passed over, and gone
    /// through again when they begin.
    pub fn wait_no_longer(&mut self) {
        if let Some(session) = &mut self.session {
            session.waits_no_longer = true;
        }
    }

    /// Lanes that have begun and of which something that was read is not in memory: it is in the spill, or lost.
    pub fn behind(&self, scope: Scope) -> impl Iterator<Item = Lane> + '_ {
        let behind = move |book: &LaneBook| {
            scope.has(book.source.flow) && !book.is_dead() && !book.is_broken && book.position.is_some() && book.read > book.position
        };
        self.lanes.iter().filter(move |(_, book)| behind(book)).map(|(lane, _)| *lane)
    }

    /// True when everything that was read is in memory, so that what is read next may follow it there.
    pub fn is_level(&self, scope: Scope) -> bool {
        self.books(scope).all(|book| book.is_dead() || (!book.is_broken && book.read == book.position))
    }

    /// Bytes of the agent's budget are free again: what held them is in the spill.
    pub fn give_back(&mut self, flow: Flow, budget: usize) {
        *self.released_budget.entry(flow).or_default() += budget;
    }

    fn books(&self, scope: Scope) -> impl Iterator<Item = &LaneBook> {
        self.lanes.values().filter(move |book| scope.has(book.source.flow))
    }

    /// A lane is over at once: another one takes the partition over.
    pub fn abandon(&mut self, lane: Lane) {
        if self.lanes.get(&lane).is_some_and(|book| !book.is_dead()) {
            self.end(lane, AfterDrain::Reopen);
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

    pub(super) fn stop_at_loss(&mut self, lane: Lane) {
        let reached = |book: &LaneBook| book.lost_at.is_some_and(|at| book.position >= Some(at));
        if self.lanes.get(&lane).is_some_and(reached) {
            self.give_up(lane);
        }
    }

    /// By its partition's late lane, or by its own. `reached` are the lanes of which something before it in the same frame is wanted now, and up to where.
    fn wanted_section(&self, section: &StoredSection, reached: &HashMap<Lane, NextOffset>) -> Wanted {
        let lanes = [self.late_alive(&section.partition), self.newest_alive(&section.partition)];
        let wanted = lanes.into_iter().flatten().map(|(lane, book)| Self::wanted_by(lane, book, section, reached));
        wanted.into_iter().find(|wanted| *wanted != Wanted::Not).unwrap_or(Wanted::Not)
    }

    fn wanted_by(lane: Lane, book: &LaneBook, section: &StoredSection, reached: &HashMap<Lane, NextOffset>) -> Wanted {
        let (Some((first, next)), Some(position)) = (section.kind.range(), reached.get(&lane).copied().or(book.position)) else {
            return Wanted::Not;
        };
        let other = book.line != section.line || book.source.topic_id.is_other_incarnation(section.topic_id);
        let next = book.until.map_or(next, |until| next.min(until));
        if other || book.is_broken || next <= position || section.is_void() {
            return Wanted::Not;
        }
        if first <= position { Wanted::Now(lane) } else { Wanted::Later(lane) }
    }

    fn late_alive(&self, partition: &TopicPartition) -> Option<(Lane, &LaneBook)> {
        let lane = *self.late.get(partition)?;
        Some((lane, self.lanes.get(&lane).filter(|book| !book.is_dead())?))
    }

    fn newest_alive(&self, partition: &TopicPartition) -> Option<(Lane, &LaneBook)> {
        let lane = *self.newest.get(partition)?;
        Some((lane, self.lanes.get(&lane).filter(|book| !book.is_dead())?))
    }
}

/// Something in the place of what a dead lane has in a frame that counts for nothing: what comes before it may not reach the spill.
pub(super) fn void(kind: SectionKind) -> SectionKind {
    match (kind, kind.range()) {
        (_, Some((first, _))) => SectionKind::Data { first, next: first, records: 0, raw_length: kind.raw_length() },
        (kind, None) => kind,
    }
}
