//! Records that are too old to be sent: their frames turn into gaps while they wait.
//!
//! Invariants, beside those of [`super`]:
//! - K. What is under way in the open session is never changed. Of what is not, the collector takes what its position lacks, whether it was sent before or not: so a
//!   frame may turn into gaps between two sessions, and what the centre had taken of it by then stays taken.
//! - L. Gaps that follow each other in a flow go out as one, also if they come one after the other within a second.

use std::time::{Duration, Instant};

use spillway_proto::frame::{Section, SectionKind, Timestamps};
use spillway_proto::{Lane, NextOffset};

use super::frames::Settled;
use super::{Ledger, Passed};
use crate::schedule::{Flow, FlowSpec};

/// So long a frame of gaps waits for more of them while nothing else is behind it in its flow. Reading on from a spill in which all is too old makes thousands of
/// gaps a second; each is an event at the centre.
pub(super) const HOLD: Duration = Duration::from_secs(1);

impl Ledger {
    /// Makes gaps of frames that would be sent next and hold nothing but records that are too old. `now_ms` is the time of day, milliseconds since 1970. To be
    /// called before each [`Self::next_frame_within`], and now and then without a session: memory is freed of what nobody wants.
    pub fn expire(&mut self, now: Instant, now_ms: i64) {
        let with_ttl = |(flow, spec): (Flow, FlowSpec)| Some((flow, spec.ttl?));
        for (flow, ttl) in self.scheduler.flows().filter_map(with_ttl).collect::<Vec<_>>() {
            let freed = self.frames.expire(flow, |times| ttl.is_over_for_all(times, now_ms), now);
            if freed > 0 {
                self.give_back(flow, freed);
            }
        }
        self.sweep();
    }

    /// Offsets that the centre was moved over since the last call, because their records were too old.
    pub fn take_passed(&mut self) -> Vec<Passed> {
        std::mem::take(&mut self.passed)
    }

    /// Gaps of a lane were acknowledged; `before` is what was before that.
    pub(super) fn pass(&mut self, lane: Lane, before: Option<NextOffset>, settled: &Settled) {
        let Some(book) = self.lanes.get(&lane) else {
            return;
        };
        let range = |(first, next): &(NextOffset, NextOffset)| {
            // What the centre had of them when they were records still.
            let first = before.map_or(*first, |before| before.max(*first));
            Passed { partition: book.source.partition.clone(), first, next: *next }
        };
        self.passed.extend(settled.expired.iter().map(range));
    }
}

/// The timestamps of a frame's records, from those of its sections; `None` where they are not all known, or there are no records.
pub(crate) fn times_of(sections: &[Section], timestamps: &[Option<Timestamps>]) -> Option<Timestamps> {
    let with_records = |section: &Section| matches!(section.kind, SectionKind::Data { records, .. } if records > 0);
    let mut all: Option<Timestamps> = None;
    for (place, _) in sections.iter().enumerate().filter(|(_, section)| with_records(section)) {
        let own = timestamps.get(place).copied().flatten()?;
        all = Some(all.map_or(own, |all| all.and(own)));
    }
    all
}

/// The lowest timestamp; `None` without one.
pub(super) fn oldest(times: Option<Timestamps>) -> Option<i64> {
    times.map(|times| times.oldest).filter(|oldest| *oldest < i64::MAX)
}

#[cfg(test)]
mod tests;
