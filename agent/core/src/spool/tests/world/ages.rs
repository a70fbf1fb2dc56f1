//! What is told and asked of the age of records.

use std::collections::BTreeSet;
use std::time::Duration;

use spillway_proto::compress::Decompressor;
use spillway_proto::frame::{Frame, GapReason, SectionKind};

use super::{LIVE_FIRST, Open, World};

/// The time of day when the world begins, milliseconds since 1970.
const BEGAN_MS: i64 = 1_000_000_000;

impl World {
    /// Some records are written late, and one in nine has no timestamp.
    pub(super) fn write(&mut self, index: u32, count: u64) {
        let now_ms = self.now_ms();
        let (_, end) = self.site.logs.entry(index).or_default();
        for offset in *end..*end + count {
            let late_ms = (offset as i64 * 7 % 5) * 2_000;
            self.site.times.insert((index, offset), if offset % 9 == 4 { -1 } else { now_ms - late_ms });
        }
        *end += count;
    }

    pub(super) fn is_over(&self, timestamp: i64) -> bool {
        self.mortal.is_some_and(|ttl| ttl.is_over(timestamp, self.now_ms()))
    }

    pub(super) fn expire(&mut self) {
        let now_ms = self.now_ms();
        self.ledger.expire(self.now, now_ms);
    }

    /// What is sent is not all too old, and what is told to be too old is, as far as the centre does not have it.
    pub(super) fn check_ages(&mut self, frame: &Frame) {
        if self.mortal.is_none() {
            return;
        }
        let times = frame.timestamps(&mut Decompressor::new().unwrap()).unwrap();
        // What was spilled together, and is of several flows by now, or late in part only, goes as it is.
        let kind = |lane| self.ledger.book(lane).map(|book| (book.source.flow, book.until.is_some(), book.is_dead()));
        let kinds = frame.sections().iter().map(|section| kind(section.lane));
        let kinds = kinds.filter(|kind| kind.is_some() || self.rules.0 >= LIVE_FIRST).collect::<BTreeSet<_>>();
        let is_right = kinds.len() > 1 || times.is_none_or(|times| !self.is_over(times.newest));
        assert!(is_right, "{times:?} is sent at {}", self.now_ms());
        for section in frame.sections() {
            let (Some(Open { index, until }), SectionKind::Gap { first, next, reason: GapReason::Expired }) =
                (self.centre.lanes.get(&section.lane).copied(), section.kind)
            else {
                continue;
            };
            let at = self.centre.expected(index, until);
            let next = until.map_or(next, |until| next.min(until));
            self.passed += 1;
            for offset in first.value().max(at)..next.value() {
                let timestamp = self.site.times[&(index, offset)];
                assert!(self.is_over(timestamp), "{index}:{offset} of {timestamp} is passed over at {}", self.now_ms());
            }
        }
    }

    /// Gaps that were sent because of the age of their records.
    pub(in super::super) fn passed(&self) -> usize {
        self.passed
    }

    fn now_ms(&self) -> i64 {
        BEGAN_MS + (self.now - self.began).max(Duration::ZERO).as_millis() as i64
    }
}
