//! Frames that are read from the spill: which lanes want them, and whether it has to be gone through again.

use std::collections::HashMap;
use std::time::Instant;

use spillway_proto::frame::{EncodedFrame, Timestamps};
use spillway_proto::{Lane, NextOffset, TopicPartition};
use spillway_spill_core::entry::StoredSection;

use super::frames::{Copy, Retained};
use super::{Error, Ledger};
use crate::lane::LaneBook;
use crate::schedule::Scope;

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

    /// The lanes that may want what the spill has of a partition: its late one, then its own.
    pub(super) fn takers(&self, partition: &TopicPartition) -> impl Iterator<Item = (Lane, &LaneBook)> {
        let lanes = [self.late.get(partition), self.newest.get(partition)].into_iter().flatten();
        lanes.filter_map(|lane| Some((*lane, self.lanes.get(lane).filter(|book| !book.is_dead())?)))
    }

    fn books(&self, scope: Scope) -> impl Iterator<Item = &LaneBook> {
        self.lanes.values().filter(move |book| scope.has(book.source.flow))
    }

    /// By its partition's late lane, or by its own. `reached` are the lanes of which something before it in the same frame is wanted now, and up to where.
    fn wanted_section(&self, section: &StoredSection, reached: &HashMap<Lane, NextOffset>) -> Wanted {
        let mut wanted = self.takers(&section.partition).map(|(lane, book)| wanted_by(lane, book, section, reached));
        wanted.find(|wanted| *wanted != Wanted::Not).unwrap_or(Wanted::Not)
    }
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
