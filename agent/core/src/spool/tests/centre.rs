//! A tiny centre behind what a collector really decides: which section comes next on its lane, and where a transaction leaves a partition.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use spillway_collector_core::progress::{Before, Moves, Positions};
use spillway_collector_core::sequencer::{Ready, Sequencer};
use spillway_proto::deferred::{Deferred, Range};
use spillway_proto::frame::{Frame, GapReason, SectionKind};
use spillway_proto::message::ResumePoint;
use spillway_proto::progress::Position;
use spillway_proto::{FrameSeq, Lane, NextOffset};

use super::{next, source};

/// What the centre has.
#[derive(Debug, Default)]
pub(super) struct Centre {
    /// The next offset that is expected; without an entry nothing is there.
    pub(super) progress: BTreeMap<u32, u64>,
    /// What comes later, below that.
    pub(super) deferred: BTreeMap<u32, Deferred>,
    /// How often something was deferred.
    pub(super) deferrals: usize,
    /// Offsets in the order in which they came.
    pub(super) received: BTreeMap<u32, Vec<u64>>,
    /// Offsets that were told to be lost, and why; `None`: they lie before a start.
    pub(super) lost: Vec<(u32, u64, Option<GapReason>)>,
    /// Partitions whose next record is refused.
    pub(super) refused: BTreeMap<u32, bool>,
    /// Lanes of the session.
    pub(super) lanes: BTreeMap<Lane, Open>,
    sequencer: Option<Sequencer<Arrived>>,
}

#[derive(Debug)]
struct Arrived(Frame);

impl AsRef<Frame> for Arrived {
    fn as_ref(&self) -> &Frame {
        &self.0
    }
}

/// A lane of the session.
#[derive(Debug, Clone, Copy)]
pub(super) struct Open {
    pub(super) index: u32,
    /// Of a late lane: where its range ends.
    pub(super) until: Option<NextOffset>,
}

/// What a frame leads to.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) acks: Vec<(Lane, u64)>,
    /// Lanes that are refused, and at which offset.
    pub(super) holds: Vec<(Lane, u64)>,
}

impl Centre {
    /// A session begins, or ends.
    pub(super) fn clear(&mut self) {
        self.lanes.clear();
        self.sequencer = None;
    }

    /// A lane is announced: its partition's older lane of the kind is over.
    pub(super) fn open(&mut self, lane: Lane, open: Open) -> ResumePoint {
        let sequencer = self.sequencer.get_or_insert_with(|| Sequencer::new(1 << 20));
        let is_older = |other: &Open| other.index == open.index && other.until.is_some() == open.until.is_some();
        for (older, _) in self.lanes.extract_if(.., |_, other| is_older(other)) {
            sequencer.retire(older).unwrap();
        }
        sequencer.announce(lane).unwrap();
        self.lanes.insert(lane, open);
        let Open { index, until } = open;
        let position = self.position(index);
        let point = match (until, &position) {
            (Some(until), _) => {
                let range = position.and_then(|position| position.deferred.range(until));
                ResumePoint::At(range.map_or(until, |range| range.first))
            }
            (None, Some(position)) => ResumePoint::At(position.next),
            (None, None) => ResumePoint::Fresh,
        };
        if let Some(sequencer) = &mut self.sequencer {
            match (until, point) {
                (Some(until), ResumePoint::At(at)) => sequencer.resume_late(lane, at, until),
                _ => sequencer.resume(lane, point),
            }
        }
        point
    }

    /// The first offset that a lane has to bring.
    pub(super) fn expected(&self, index: u32, until: Option<NextOffset>) -> u64 {
        let Some(until) = until else {
            return self.progress.get(&index).copied().unwrap_or(0);
        };
        self.deferred(index).range(until).map_or(until, |range| range.first).value()
    }

    /// What comes later of a partition.
    pub(super) fn deferred(&self, index: u32) -> Deferred {
        self.deferred.get(&index).cloned().unwrap_or_default()
    }

    /// Takes a frame, and commits what is next.
    pub(super) fn take(&mut self, seq: FrameSeq, frame: Frame) -> Answer {
        let mut answer = Answer::default();
        let Some(sequencer) = &mut self.sequencer else {
            return answer;
        };
        let mut ready = Vec::new();
        sequencer.arrive(seq, &Arc::new(Arrived(frame)), &mut ready).unwrap();
        let mut over = BTreeSet::new();
        for ready in ready {
            let Some(Open { index, until }) = self.lanes.get(&ready.lane).copied().filter(|_| !over.contains(&ready.lane)) else {
                continue;
            };
            let kind = ready.frame.0.sections()[ready.section].kind;
            if self.refused.get(&index) == Some(&true) && matches!(kind, SectionKind::Data { .. }) {
                over.insert(ready.lane);
                self.lanes.remove(&ready.lane);
                self.sequencer.as_mut().unwrap().retire(ready.lane).unwrap();
                answer.holds.push((ready.lane, ready.from.value()));
                continue;
            }
            self.apply(index, until, &ready, kind);
            answer.acks.push((ready.lane, ready.to.value()));
        }
        answer
    }

    fn apply(&mut self, index: u32, until: Option<NextOffset>, ready: &Ready<Arrived>, kind: SectionKind) {
        let source = source(index);
        let before: Positions = self.position(index).map(|position| (source.partition.clone(), position)).into_iter().collect();
        let of = Before { source: &source.partition, topic_id: source.topic_id, position: before.get(&source.partition) };
        let mut moves = Moves::default();
        let offsets = ready.from.value()..ready.to.value();
        match kind {
            // To a centre that has nothing, no gap can be told.
            SectionKind::Start { next } => self.lost.extend((0..next.value()).map(|offset| (index, offset, None))),
            SectionKind::Data { .. } => self.received.entry(index).or_default().extend(offsets),
            SectionKind::Gap { reason: GapReason::Deferred, .. } => self.deferrals += 1,
            SectionKind::Gap { reason, .. } => {
                // Of what the spill has no trace left, the source alone tells.
                let known = matches!(reason, GapReason::Damaged | GapReason::Retention | GapReason::Dropped | GapReason::Expired);
                assert!(known, "{reason:?}");
                self.lost.extend(offsets.map(|offset| (index, offset, Some(reason))));
            }
        }
        match (until, kind) {
            (Some(until), _) => {
                assert!(moves.range(of, until).is_some(), "partition {index}: something late that nobody waits for");
                moves.late(of, until, ready.to);
            }
            (None, SectionKind::Gap { reason, .. }) => {
                let forgotten = moves.gap(of, Range { first: ready.from, end: ready.to }, reason).unwrap();
                assert_eq!(forgotten, []);
            }
            (None, _) => moves.own(of, ready.to),
        }
        for (_, position) in moves.moved(&before) {
            self.progress.insert(index, position.next.value());
            self.deferred.insert(index, position.deferred.clone());
        }
    }

    fn position(&self, index: u32) -> Option<Position> {
        let at = self.progress.get(&index)?;
        Some(Position { topic_id: source(index).topic_id, next: next(*at), deferred: self.deferred(index) })
    }
}
