//! What the agent reads at the site.

use spillway_proto::Lane;

use super::super::site::built;
use super::{FRAME_BUDGET, PARTITIONS, World};
use crate::lane::AfterDrain;

impl World {
    pub(super) fn read(&mut self, counts: [u64; PARTITIONS as usize]) {
        let mut sections = Vec::new();
        for (index, count) in (0..).zip(counts) {
            let Some((lane, at)) = self.reading.get_mut(&index) else {
                continue;
            };
            let (start, end) = self.site.logs.get(&index).copied().unwrap_or_default();
            if *at < start {
                // What came from the spill may be at the centre before it is read again.
                let there = self.centre.progress.get(&index).is_some_and(|at| *at >= start);
                let gone = there || !self.site.damaged.is_empty() || !self.site.dropped.is_empty();
                assert!(gone, "partition {index}: the source has forgotten {at}, its log begins at {start}");
                self.ledger.drain(*lane, AfterDrain::Reopen);
                continue;
            }
            let to = (*at + count).min(end);
            if to > *at {
                sections.push((*lane, index, *at, to));
                *at = to;
            }
        }
        while let Some((lane, ..)) = sections.first() {
            let flow = |lane: &Lane| self.ledger.book(*lane).map(|book| book.source.flow);
            let own = flow(lane);
            let (together, others) = sections.iter().copied().partition::<Vec<_>, _>(|(lane, ..)| flow(lane) == own);
            sections = others;
            let (frame, timestamps) = built(&together, &self.site.times, |timestamp| self.is_over(timestamp));
            *self.budget.entry(own.unwrap_or_default()).or_default() += FRAME_BUDGET;
            self.spool.built(&mut self.ledger, frame, &timestamps, FRAME_BUDGET, self.now).unwrap();
        }
    }
}
