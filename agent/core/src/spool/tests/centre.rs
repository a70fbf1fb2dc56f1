//! A tiny collector: each lane in order, every offset once.

use std::collections::BTreeMap;

use spillway_proto::Lane;
use spillway_proto::frame::{Frame, GapReason, SectionKind};
use spillway_proto::message::ResumePoint;

use super::next;

/// What the centre has.
#[derive(Debug, Default)]
pub(super) struct Centre {
    /// The next offset that is expected; without an entry nothing is there.
    pub(super) progress: BTreeMap<u32, u64>,
    /// Offsets that were told to be lost, and why; `None`: they lie before a start.
    pub(super) lost: Vec<(u32, u64, Option<GapReason>)>,
    /// Partitions whose next record is refused.
    pub(super) refused: BTreeMap<u32, bool>,
    /// Lanes of the session, and whether they are dead.
    pub(super) lanes: BTreeMap<Lane, (u32, bool)>,
}

/// What a frame leads to.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) acks: Vec<(Lane, u64)>,
    /// Lanes that are refused, and at which offset.
    pub(super) holds: Vec<(Lane, u64)>,
}

impl Centre {
    pub(super) fn point(&self, index: u32) -> ResumePoint {
        self.progress.get(&index).map_or(ResumePoint::Fresh, |at| ResumePoint::At(next(*at)))
    }

    /// Takes a frame.
    pub(super) fn take(&mut self, frame: &Frame) -> Answer {
        let mut answer = Answer::default();
        for section in frame.sections() {
            let Some((index, false)) = self.lanes.get(&section.lane).copied() else {
                continue;
            };
            let expected = self.progress.get(&index).copied();
            if self.refused.get(&index) == Some(&true) && matches!(section.kind, SectionKind::Data { .. }) {
                self.lanes.insert(section.lane, (index, true));
                answer.holds.push((section.lane, expected.unwrap()));
                continue;
            }
            let at = self.apply(index, section.kind, expected);
            self.progress.insert(index, at);
            answer.acks.push((section.lane, at));
        }
        answer
    }

    fn apply(&mut self, index: u32, kind: SectionKind, expected: Option<u64>) -> u64 {
        match (kind, expected) {
            (SectionKind::Start { next }, None) => {
                // To a centre that has nothing, no gap can be told.
                self.lost.extend((0..next.value()).map(|offset| (index, offset, None)));
                next.value()
            }
            (SectionKind::Start { .. }, Some(expected)) => expected,
            (SectionKind::Data { first, next, .. }, Some(expected)) => {
                assert!(first.value() <= expected, "partition {index}: {first} follows {expected}: a hole");
                expected.max(next.value())
            }
            (SectionKind::Gap { first, next, reason }, Some(expected)) => {
                // Of what the spill has no trace left, the source alone tells.
                let known = matches!(reason, GapReason::Damaged | GapReason::Retention | GapReason::Dropped | GapReason::Expired);
                assert!(known, "{reason:?}");
                if next.value() <= expected {
                    return expected;
                }
                // What is too old may have been there as records in part.
                let begins = first.value() == expected || (reason == GapReason::Expired && first.value() < expected);
                assert!(begins, "a gap begins where the centre is: {first}, {expected}");
                self.lost.extend((expected..next.value()).map(|offset| (index, offset, Some(reason))));
                next.value()
            }
            (kind, None) => panic!("partition {index} begins with {kind:?}"),
        }
    }
}
