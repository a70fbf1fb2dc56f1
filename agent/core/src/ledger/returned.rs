//! What comes back from a spill that takes nothing.

use std::collections::HashMap;
use std::time::Instant;

use bytes::Bytes;
use spillway_proto::frame::{Frame, Section, Timestamps};
use spillway_proto::{Lane, NextOffset, limits};

use super::frames::{Copy, Retained};
use super::{Error, Ledger};
use crate::lane::{LaneBook, NO_LANE};

impl Ledger {
    /// True when nothing is missing before a frame that was put into the spill: what its lanes want of it, they want next.
    pub fn joins(&self, sections: &[Section]) -> bool {
        let mut reached: HashMap<Lane, Option<NextOffset>> = HashMap::new();
        sections.iter().all(|section| {
            let book = self.lanes.get(&section.lane).filter(|book| !book.is_dead());
            let (Some(book), Some((first, next))) = (book, section.kind.range()) else {
                return true;
            };
            let position = reached.entry(section.lane).or_insert(book.position);
            let joins = *position >= Some(first) && !book.is_broken;
            *position = (*position).max(Some(next));
            joins
        })
    }

    /// A frame that was put into the spill is kept in memory after all. What its lanes have already, collectors pass over.
    ///
    /// # Errors
    /// When the frame is none: a bug.
    pub fn push_back(
        &mut self,
        sections: &[Section],
        bytes: Bytes,
        times: Option<Timestamps>,
        budget: usize,
        now: Instant,
    ) -> Result<(), Error> {
        let bytes = self.without_dead(sections, bytes)?;
        let mut retained = Retained::new(self.flow_of(sections), bytes, budget, Copy::None, now).dated(times);
        for section in sections {
            let (Some(book), Some((first, next))) = (self.lanes.get_mut(&section.lane), section.kind.range()) else {
                retained.add(section, (section.kind.next(), section.kind.next()), None, false);
                continue;
            };
            let wanted = book.position.filter(|position| !book.is_dead() && first <= *position && *position < next);
            if wanted.is_some() {
                book.position = Some(next);
            }
            retained.add(section, (wanted.unwrap_or(next), next), None, wanted.is_some());
        }
        self.keep(retained, now);
        Ok(())
    }

    /// A frame that was handed to the spill is in memory only after all.
    pub fn recall(&mut self, index: u64) {
        self.frames.recall(index);
    }

    /// The collector may not know yet that a lane is dead, and what comes before this on that lane may be missing: so it is no lane's.
    fn without_dead(&self, sections: &[Section], bytes: Bytes) -> Result<Bytes, Error> {
        let is_dead = |lane| self.lanes.get(&lane).is_none_or(LaneBook::is_dead);
        if !sections.iter().any(|section| is_dead(section.lane)) {
            return Ok(bytes);
        }
        let frame = Frame::decode(bytes, limits::MAX_FRAME_RAW_BYTES).map_err(Error::OwnFrame)?;
        Ok(frame.with_lanes(sections.iter().map(|section| if is_dead(section.lane) { NO_LANE } else { section.lane })).bytes)
    }
}
