//! What has to be true, and what came of it.

use std::collections::BTreeSet;
use std::time::Duration;

use spillway_proto::Lane;
use spillway_proto::frame::GapReason;

use super::super::{Action, source};
use super::{PARTITIONS, World};

impl World {
    /// The link is back, and everything works: all of it has to arrive.
    pub(in super::super) fn finish(&mut self) {
        (self.narrow, self.older) = (false, false);
        for _ in 0..3 * (20 + self.site.entries.len()) {
            // One that stands still is held once what was sent before is acknowledged.
            (0..PARTITIONS).for_each(|index| self.retry(index));
            for action in [
                Action::Connect,
                Action::Read([9; 3]),
                Action::Sync(9),
                Action::Drain(9),
                Action::Send,
                Action::Arrive(9),
                Action::Acks(99),
            ] {
                self.play(action);
            }
            // What is too old waits a second for more of it.
            self.now += Duration::from_secs(u64::from(self.mortal.is_some()));
        }
        for (index, (_, end)) in &self.site.logs {
            if *end > 0 {
                assert_eq!(
                    self.centre.progress.get(index),
                    Some(end),
                    "partition {index} did not arrive: {:#?}\n{:#?}",
                    self.spool,
                    self.ledger
                );
                let committed = self.site.committed.get(index);
                // The local group may have forgotten it when there was nothing to commit any more.
                assert!(
                    committed == Some(end) || (self.reads_alone && committed.is_none()),
                    "partition {index} is not committed: {committed:?}"
                );
            }
        }
        for (index, (_, end)) in &self.site.logs {
            assert!(self.centre.deferred(*index).is_empty(), "partition {index} is not all there: {:#?}", self.ledger);
            let mut there = self.centre.received.get(index).cloned().unwrap_or_default();
            there.extend(self.centre.lost.iter().filter(|(of, ..)| of == index).map(|(_, offset, _)| *offset));
            there.sort_unstable();
            assert_eq!(there, (0..*end).collect::<Vec<_>>(), "partition {index}: each offset once, or told to be lost");
        }
        assert!(self.ledger.is_empty() && !self.spool.is_in_use(), "something is left: {:#?}", self.spool);
        assert_eq!(self.budget.values().sum::<usize>(), 0, "memory that is never free again: {:?}", self.budget);
        for (index, offset, reason) in &self.centre.lost {
            let at = (*index, *offset);
            match reason {
                Some(GapReason::Expired) => assert!(self.mortal.is_some(), "{at:?} lives for ever"),
                Some(GapReason::Dropped) => assert!(self.site.dropped.contains(&at), "{at:?} was not dropped"),
                // The source had forgotten it.
                _ => assert!(self.site.damaged.contains(&at), "{at:?} is told to be lost ({reason:?}), and was not damaged"),
            }
        }
    }

    /// Offsets of a partition in the order in which they came.
    pub(in super::super) fn received(&self, index: u32) -> Vec<u64> {
        self.centre.received.get(&index).cloned().unwrap_or_default()
    }

    /// How often something was deferred.
    pub(in super::super) fn deferrals(&self) -> usize {
        self.centre.deferrals
    }

    /// How many offsets the centre was told to be lost.
    pub(in super::super) fn lost(&self) -> usize {
        self.centre.lost.len()
    }

    /// What the centre was told to be lost, and why; `None`: it lies before a start.
    pub(in super::super) fn told(&self) -> Vec<(u32, u64, Option<GapReason>)> {
        self.centre.lost.clone()
    }

    pub(in super::super) fn dropped(&self) -> Vec<(u32, u64)> {
        self.site.dropped.iter().copied().collect()
    }

    pub(in super::super) fn returned(&self) -> usize {
        self.returned
    }

    /// How often a partition stood still because the collector takes no frame of that size.
    pub(in super::super) fn stood_still(&self) -> usize {
        self.stood_still
    }

    pub(in super::super) fn is_in_use(&self) -> bool {
        self.spool.is_in_use()
    }

    pub(in super::super) fn appended(&self) -> usize {
        self.appended
    }

    pub(in super::super) fn committed(&self) -> Vec<u64> {
        self.site.committed.values().copied().collect()
    }

    pub(in super::super) fn lane(&self, index: u32) -> Option<Lane> {
        self.ledger.lane_of(&source(index).partition)
    }

    /// Invariant A: what may be forgotten is at the centre or in the spill, unless the spill lost it.
    pub(super) fn assert_committable(&self, index: u32, committed: u64) {
        let centre = self.centre.progress.get(&index).copied().unwrap_or(0);
        let mut held = BTreeSet::new();
        for section in
            self.site.entries.values().flat_map(|(sections, _)| sections).filter(|section| section.partition.partition.index() == index)
        {
            if let Some((first, next)) = section.kind.range() {
                held.extend(first.value()..next.value());
            }
        }
        let gone = |at| self.site.damaged.contains(&at) || self.site.dropped.contains(&at);
        let safe = |offset| held.contains(&offset) || gone((index, offset));
        let deferred = self.centre.deferred(index);
        let awaited = deferred.iter().flat_map(|range| range.first.value()..range.end.value());
        let missing = awaited.chain(centre..committed).find(|offset| *offset < committed && !safe(*offset));
        assert_eq!(missing, None, "partition {index}: {committed} is to be committed, the centre has {centre} but {deferred:?}");
    }
}
