//! What a lane may be given, told again in few words: see `docs/wire-protocol.md`.

use std::collections::{BTreeMap, BTreeSet};

use spillway_proto::frame::{GapReason, Section, SectionKind};
use spillway_proto::message::ResumePoint;
use spillway_proto::{Lane, NextOffset};

/// The lanes of the session, and which frames have arrived.
#[derive(Debug, Default)]
pub(crate) struct Model {
    lanes: BTreeMap<Lane, Option<Place>>,
    /// Where the ranges of late lanes end.
    until: BTreeMap<Lane, NextOffset>,
    used: BTreeSet<Lane>,
    frames: BTreeSet<u64>,
}

/// Where a lane is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    BeforeStart,
    BeforeGap(NextOffset),
    At(NextOffset),
}

impl Model {
    /// Answers whether the announcement is allowed.
    pub(crate) fn announced(&mut self, lane: Lane) -> bool {
        let new = self.used.insert(lane);
        if new {
            self.lanes.insert(lane, None);
        }
        new
    }

    pub(crate) fn resumed(&mut self, lane: Lane, point: ResumePoint, until: Option<NextOffset>) {
        self.until.extend(until.map(|until| (lane, until)));
        if let Some(place) = self.lanes.get_mut(&lane) {
            *place = Some(match point {
                ResumePoint::Fresh => Place::BeforeStart,
                ResumePoint::At(next) => Place::At(next),
                ResumePoint::Recreated { next, .. } => Place::BeforeGap(next),
            });
        }
    }

    pub(crate) fn retired(&mut self, lane: Lane) {
        self.lanes.remove(&lane);
    }

    pub(crate) fn is_waiting(&self, lane: Lane) -> bool {
        self.lanes.get(&lane) == Some(&None)
    }

    pub(crate) fn lanes(&self) -> Vec<Lane> {
        self.lanes.keys().copied().collect()
    }

    pub(crate) fn first_missing(&self) -> u64 {
        (0..).find(|seq| !self.frames.contains(seq)).unwrap_or(0)
    }

    /// Answers whether the number is new.
    pub(crate) fn arrived(&mut self, seq: u64) -> bool {
        self.frames.insert(seq)
    }

    /// True when no frame is missing below one that arrived.
    pub(crate) fn is_whole(&self) -> bool {
        self.frames.last().is_none_or(|last| *last + 1 == self.frames.len() as u64)
    }

    /// A section comes out, to be applied from `from`: it must be exactly what its lane waits for.
    pub(crate) fn applied(&mut self, lane: Lane, section: &Section, (from, to): (NextOffset, NextOffset)) {
        assert_eq!(section.lane, lane);
        let place = self.lanes.get_mut(&lane).expect("a section of a lane that was retired or never announced").as_mut();
        let place = place.expect("a section of a lane that was not resumed");
        if self.until.contains_key(&lane)
            && let SectionKind::Gap { first, next, reason } = section.kind
        {
            let begins = matches!(reason, GapReason::Truncated | GapReason::TopicRecreated | GapReason::Deferred);
            assert!(!begins && first <= next, "lane {lane} is late and begins anew");
        }
        match (*place, section.kind) {
            (Place::BeforeStart, SectionKind::Start { next }) => assert_eq!(from, next),
            (Place::BeforeGap(at), SectionKind::Gap { first, reason: GapReason::TopicRecreated, .. }) => {
                assert_eq!((first, from), (at, at))
            }
            (Place::At(at), SectionKind::Data { first, next, .. }) => assert!(from == at && first <= at && at < next),
            (Place::At(at), SectionKind::Gap { first, next, reason }) => {
                let forward = first <= at && at < next;
                assert!(from == at && (forward || (first == at && next < first && reason == GapReason::Truncated)));
            }
            (place, kind) => panic!("lane {lane} at {place:?} is given {kind:?}"),
        }
        let end = self.until.get(&lane).map_or(section.kind.next(), |until| section.kind.next().min(*until));
        assert_eq!(to, end, "lane {lane} goes beyond its range, or not to its end");
        *place = Place::At(end);
    }
}
