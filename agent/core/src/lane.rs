//! One lane's book: where it began, how far it was read, how far it was acknowledged.

use spillway_proto::deferred::Range;
use spillway_proto::message::{OpenLane, ResumePoint};
use spillway_proto::{Lane, NextOffset, TopicId, TopicPartition};
use spillway_spill_core::entry::Line;

use crate::schedule::Flow;

/// What a lane is opened for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneSource {
    /// The partition.
    pub partition: TopicPartition,
    /// The topic's id.
    pub topic_id: TopicId,
    /// How many partitions the topic has.
    pub partition_count: u32,
    /// The partition came to be after the agent first looked, so all of it was "written from now on": `latest` begins at its beginning.
    pub born: bool,
    /// The source has another topic of this name now, with this id, or none ([`TopicId::UNKNOWN`]); `None`: it has this one. A lane for a past incarnation
    /// is never read from the source and commits nothing there: it sends what the spill holds, and ends with [`AfterDrain::Reopen`].
    pub outlived_by: Option<TopicId>,
    /// Whose frames its records go into.
    pub flow: Flow,
}

/// What follows when everything read of a lane is acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AfterDrain {
    /// A new lane takes the partition over.
    Reopen,
    /// The partition is gone, or no longer selected.
    Close,
    /// The partition stands still until the next session or a retry; the text says why.
    Hold(HeldBecause),
}

/// A lane that is never opened: collectors pass over its sections.
pub const NO_LANE: Lane = Lane(u32::MAX);

/// Reason of a partition held by the agent itself: a record, or a spilled frame, is larger than the collector takes.
pub const RECORD_TOO_LARGE: &str = "record_too_large";

/// Why a partition stands still.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldBecause {
    /// Stable name, as in [`spillway_proto::message::HoldReason::as_str`].
    pub reason: &'static str,
    /// For people.
    pub detail: String,
}

/// What a lane is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// Announced, resumed or sending.
    Live,
    /// Not read any more; what was read is still sent.
    Draining {
        /// What follows.
        then: AfterDrain,
    },
    /// Held: dead until a new lane takes the partition over.
    Held(HeldBecause),
    /// Over.
    Closed,
}

/// One lane's book.
#[derive(Debug, Clone)]
pub struct LaneBook {
    /// What it is for.
    pub source: LaneSource,
    /// What it is doing.
    pub phase: Phase,
    /// What the centre said when the lane began; `None` until then.
    pub origin: Option<ResumePoint>,
    /// Where the lane's data begins: after its start or gap.
    pub base: Option<NextOffset>,
    /// The lane begins with a gap that goes back: nothing may follow it before it is acknowledged.
    pub goes_back: bool,
    /// End of what frames hold.
    pub position: Option<NextOffset>,
    /// Committed at the centre; `None`: not even the lane's beginning is.
    pub acked: Option<NextOffset>,
    /// The collector has answered its announcement in this session.
    pub settled: bool,
    /// The source reads it, or has not yet answered that it let go.
    pub attached: bool,
    /// Retained frames that name the lane.
    pub frames: usize,
    /// End of what the source has handed over: [`Self::position`], or what was put into the spill since.
    pub read: Option<NextOffset>,
    /// End of what is durable in the spill.
    pub durable: Option<NextOffset>,
    /// It is read from where nobody has said that all before it is safe: the centre's answer is waited for before anything is committed.
    pub is_assumed: bool,
    /// Which of the partition's lines in the spill it continues.
    pub line: Line,
    /// Its position when the spill was last begun to be gone through; `None`: it has begun since.
    pub pass_began: Option<NextOffset>,
    /// In that pass something was found that does not join yet.
    pub is_ahead: bool,
    /// From here on the spill has lost something that was read.
    pub lost_at: Option<NextOffset>,
    /// Of a late lane: where the deferred range ends that it brings. It is never read from the source and commits nothing there.
    pub until: Option<NextOffset>,
    /// It begins with a deferral of this range, which the centre has not acknowledged.
    pub defers: Option<Range>,
    /// The spill has lost what comes next: nothing more of the lane is sent, and a new one takes over when all is acknowledged.
    pub is_broken: bool,
}

impl LaneBook {
    /// A lane that is not announced yet.
    pub fn new(source: LaneSource) -> Self {
        Self {
            source,
            phase: Phase::Live,
            origin: None,
            base: None,
            goes_back: false,
            position: None,
            acked: None,
            settled: false,
            attached: false,
            frames: 0,
            read: None,
            durable: None,
            is_assumed: false,
            line: Line(0),
            pass_began: None,
            is_ahead: false,
            lost_at: None,
            until: None,
            defers: None,
            is_broken: false,
        }
    }

    /// True when nothing of the lane is to be sent any more.
    pub fn is_dead(&self) -> bool {
        matches!(self.phase, Phase::Held(_) | Phase::Closed)
    }

    /// True when everything that was read is acknowledged.
    pub fn is_settled_up(&self) -> bool {
        self.acked == self.position && self.read <= self.position
    }

    /// End of what may have been sent at any time: what went back into the spill was.
    pub fn end(&self) -> Option<NextOffset> {
        self.read.max(self.position)
    }

    /// The announcement.
    pub fn announcement(&self, lane: Lane) -> OpenLane {
        let LaneSource { partition, topic_id, partition_count, born: _, outlived_by: _, flow: _ } = &self.source;
        OpenLane { lane, source: partition.clone(), topic_id: *topic_id, partition_count: *partition_count, until: self.until }
    }

    /// Compares what the centre says in a new session with what this lane knows.
    ///
    /// Answers the position to take for acknowledged (`None`: not even the beginning is) when the lane can go on with what it retains. An
    /// error means that it cannot: another writer was there, or the centre forgot. Then a new lane has to ask from the beginning.
    pub fn reconcile(&self, point: ResumePoint) -> Result<Option<NextOffset>, Diverged> {
        let within = |low: Option<NextOffset>| match point {
            ResumePoint::At(next) if Some(next) >= low && Some(next) <= self.end() => Some(next),
            _ => None,
        };
        match self.acked {
            Some(_) => within(self.acked).map(Some).ok_or(Diverged),
            // Unambiguous, since a backward gap is sent alone: until it is acknowledged, nothing between its ends was sent.
            None if self.origin == Some(point) => Ok(None),
            None => within(self.base).map(Some).ok_or(Diverged),
        }
    }
}

/// The centre's position does not fit what the lane knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Diverged;

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use spillway_proto::{Partition, TopicName};

    use super::*;

    fn next(value: u64) -> NextOffset {
        NextOffset::new(value).unwrap()
    }

    fn book(origin: ResumePoint, base: u64, position: u64, acked: Option<u64>) -> LaneBook {
        let partition = TopicPartition { topic: TopicName::parse("t").unwrap(), partition: Partition::FIRST };
        let source =
            LaneSource { partition, topic_id: TopicId::UNKNOWN, partition_count: 1, born: false, outlived_by: None, flow: Flow::default() };
        let (base, position, acked) = (Some(next(base)), Some(next(position)), acked.map(next));
        LaneBook { origin: Some(origin), base, position, acked, ..LaneBook::new(source) }
    }

    #[test]
    fn the_centre_may_be_ahead_of_the_acks_but_not_of_what_was_sent() {
        let book = book(ResumePoint::At(next(10)), 10, 50, Some(20));
        for (at, outcome) in [(20, Ok(20)), (35, Ok(35)), (50, Ok(50)), (19, Err(Diverged)), (51, Err(Diverged))] {
            assert_eq!(book.reconcile(ResumePoint::At(next(at))), outcome.map(|at| Some(next(at))), "at {at}");
        }
        assert_eq!(book.reconcile(ResumePoint::Fresh), Err(Diverged), "the centre forgot");
    }

    #[test]
    fn a_start_that_was_never_committed_is_sent_again() {
        let book = book(ResumePoint::Fresh, 10, 50, None);
        assert_eq!(book.reconcile(ResumePoint::Fresh), Ok(None));
        assert_eq!(book.reconcile(ResumePoint::At(next(10))), Ok(Some(next(10))));
        assert_eq!(book.reconcile(ResumePoint::At(next(9))), Err(Diverged));
    }

    #[test]
    fn a_backward_gap_is_told_applied_from_not_applied() {
        let book = book(ResumePoint::At(next(100)), 50, 50, None);
        assert_eq!(book.reconcile(ResumePoint::At(next(100))), Ok(None), "not applied");
        assert_eq!(book.reconcile(ResumePoint::At(next(50))), Ok(Some(next(50))), "applied");
        assert_eq!(book.reconcile(ResumePoint::At(next(70))), Err(Diverged));
    }

    #[test]
    fn a_recreated_answer_to_a_lane_that_has_begun_ends_it() {
        let recreated = ResumePoint::Recreated { previous: TopicId([1; 16]), next: next(30) };
        assert_eq!(book(ResumePoint::At(next(10)), 10, 50, Some(20)).reconcile(recreated), Err(Diverged));
        assert_eq!(book(recreated, 0, 5, None).reconcile(recreated), Ok(None));
    }
}
