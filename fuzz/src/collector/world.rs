//! A session of the collector, its writer, and a centre that keeps what was committed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use spillway_collector_core::backlog::{Backlog, end_of};
use spillway_collector_core::refusal::Refusals;
use spillway_collector_core::sequencer::{Ready, Sequencer, Violation};
use spillway_collector_core::syncs::{MAX_DELAY, Syncs};
use spillway_collector_core::transaction::{Pacer, Turns};
use spillway_proto::frame::{Frame, FrameBuilder, GapReason, SectionKind};
use spillway_proto::message::ResumePoint;
use spillway_proto::record::RecordWriter;
use spillway_proto::{CloseCode, FrameSeq, Lane, NextOffset, Offset, Partition, TopicId, TopicPartition};

use super::model::Model;
use super::{Kind, Part, Point, Step};
use crate::tools::Tools;

const LANES: u8 = 6;
const MAX_RAW: usize = 1 << 20;
const TRANSACTION_BYTES: usize = 300;
const INTERVAL: Duration = Duration::from_millis(250);

#[derive(Debug)]
struct Arrived(Frame);

impl AsRef<Frame> for Arrived {
    fn as_ref(&self) -> &Frame {
        &self.0
    }
}

/// Everything.
pub(crate) struct World {
    limit: usize,
    sequencer: Sequencer<Arrived>,
    backlog: Backlog<Arrived>,
    pacer: Pacer,
    turns: Turns,
    syncs: Syncs,
    refusals: Refusals,
    tools: Tools,
    model: Model,
    now: Instant,
    /// Where each lane is if all that was sent is applied.
    sent: BTreeMap<Lane, u64>,
    /// Where the writer is: committed, and in the open transaction.
    committed: BTreeMap<Lane, NextOffset>,
    tentative: BTreeMap<Lane, NextOffset>,
    /// Pairs of offsets that the open transaction was told; the centre's next offset.
    pairs: BTreeSet<(u32, u64, u64)>,
    committed_pairs: BTreeSet<(u32, u64, u64)>,
    downstream: u64,
}

fn next(value: u64) -> NextOffset {
    NextOffset::new(value.min(i64::MAX as u64)).expect("within INT64")
}

fn source(lane: Lane) -> TopicPartition {
    TopicPartition { topic: "t".parse().expect("a topic"), partition: Partition::new(lane.0).expect("a partition") }
}

impl World {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            sequencer: Sequencer::new(limit),
            backlog: Backlog::new(),
            pacer: Pacer::new(TRANSACTION_BYTES, INTERVAL),
            turns: Turns::default(),
            syncs: Syncs::default(),
            refusals: Refusals::default(),
            tools: Tools::take(),
            model: Model::default(),
            now: Instant::now(),
            sent: BTreeMap::new(),
            committed: BTreeMap::new(),
            tentative: BTreeMap::new(),
            pairs: BTreeSet::new(),
            committed_pairs: BTreeSet::new(),
            downstream: 0,
        }
    }

    /// Answers false when the session is over.
    pub(crate) fn play(&mut self, step: Step) -> bool {
        let lane = |number: u8| Lane(u32::from(number % LANES));
        let alive = match step {
            Step::Announce(number) => self.announce(lane(number)),
            Step::Resume(number, point) => self.resume(lane(number), point),
            Step::Retire(number) => self.retire(lane(number)),
            Step::Frame(ahead, parts) => self.frame(ahead, &parts),
            Step::Take(count, cut) => self.take(count, u64::from(cut)),
            Step::Commit => self.commit(),
            Step::Abort => self.abort(),
            Step::Wait(milliseconds) => self.wait(milliseconds),
            Step::Refuse(number, first, last) => self.refuse(lane(number), u32::from(first), u32::from(last)),
            Step::Others(count) => {
                _ = (0..count).filter_map(|_| self.turns.take(self.now, INTERVAL)).count();
                true
            }
            Step::Flush => {
                self.pacer.flush();
                assert!(!self.pacer.is_open() || self.pacer.due() <= Some(self.now));
                true
            }
        };
        assert!(self.sequencer.parked_bytes() <= self.limit, "invariant B");
        alive
    }

    /// What is left is committed; then nothing waits, and a session whose lanes are over parks nothing.
    pub(crate) fn finish(mut self) {
        self.abort();
        while self.backlog.pop().is_some_and(|ready| self.take_one(ready, None)) {}
        self.commit();
        assert!(self.backlog.is_empty());
        for lane in self.model.lanes() {
            assert_eq!(self.sequencer.retire(lane), Ok(()));
        }
        assert_eq!(self.sequencer.parked_bytes(), 0, "what retired lanes had parked is given back");
        self.tools.give_back();
    }

    fn announce(&mut self, lane: Lane) -> bool {
        let announced = self.sequencer.announce(lane);
        assert_eq!(announced.is_ok(), self.model.announced(lane), "{announced:?}");
        announced.is_ok()
    }

    fn resume(&mut self, lane: Lane, point: Point) -> bool {
        // The writer answers each announcement once.
        if self.model.is_waiting(lane) {
            let point = match point {
                Point::Late(at, span) => {
                    let (at, until) = (next(u64::from(at)), next(u64::from(at) + u64::from(span)));
                    self.sent.insert(lane, at.value());
                    self.sequencer.resume_late(lane, at, until);
                    self.model.resumed(lane, ResumePoint::At(at), Some(until));
                    return true;
                }
                Point::Fresh => ResumePoint::Fresh,
                Point::At(at) => ResumePoint::At(next(u64::from(at))),
                Point::Recreated(at) => ResumePoint::Recreated { previous: TopicId([9; 16]), next: next(u64::from(at)) },
            };
            if let ResumePoint::At(at) = point {
                self.sent.insert(lane, at.value());
            }
            self.sequencer.resume(lane, point);
            self.model.resumed(lane, point, None);
        }
        true
    }

    fn retire(&mut self, lane: Lane) -> bool {
        assert_eq!(self.sequencer.retire(lane), Ok(()));
        self.model.retired(lane);
        // The writer lets go of a lane between transactions only.
        self.abort();
        self.backlog.retire(lane);
        self.refusals.forget(lane);
        self.committed.remove(&lane);
        true
    }

    fn frame(&mut self, ahead: i8, parts: &[Part]) -> bool {
        let mut builder = FrameBuilder::new();
        for part in parts {
            self.section(&mut builder, *part);
        }
        if builder.sections().is_empty() {
            return true;
        }
        let bytes = builder.encode(&mut self.tools.compressor).bytes;
        let frame = Arc::new(Arrived(Frame::decode(bytes, MAX_RAW).expect("our own frame")));
        let seq = self.model.first_missing().saturating_add_signed(i64::from(ahead));
        let (new, mut ready) = (self.model.arrived(seq), Vec::new());
        let arrived = self.sequencer.arrive(FrameSeq(seq), &frame, &mut ready);
        for ready in ready {
            let section = ready.frame.0.sections()[ready.section];
            self.model.applied(ready.lane, &section, (ready.from, ready.to));
            self.backlog.push(ready);
        }
        match arrived {
            Ok(_) => {
                assert!(new, "a frame's number used twice");
                assert!(!self.model.is_whole() || self.sequencer.parked_bytes() == 0, "nothing is missing, and yet something waits");
                true
            }
            Err(violation) => {
                assert_eq!(matches!(violation, Violation::FrameRepeated(_)), !new, "{violation}");
                assert!(!matches!(violation.close_code(), CloseCode::Done | CloseCode::Internal));
                false
            }
        }
    }

    fn section(&mut self, builder: &mut FrameBuilder, Part { lane, kind }: Part) {
        let lane = Lane(u32::from(lane % LANES));
        match kind {
            Kind::Next { span, every } => {
                let first = self.sent.get(&lane).copied().unwrap_or(0);
                let end = first.saturating_add(u64::from(span));
                builder.data(lane, records(first, end, u64::from(every) + 1));
                self.sent.insert(lane, end);
            }
            Kind::Data { first, span } => builder.data(lane, records(u64::from(first), u64::from(first) + u64::from(span), 1)),
            Kind::Endless { first } => builder.data(lane, records(u64::from(first), i64::MAX as u64, u64::MAX)),
            Kind::Gap { first, next: to, reason } => {
                builder.gap(lane, next(u64::from(first)), next(u64::from(to)), GapReason::from_code(reason));
                self.sent.insert(lane, u64::from(to));
            }
            Kind::Start { next: at } => {
                builder.start(lane, next(u64::from(at)));
                self.sent.insert(lane, u64::from(at));
            }
        }
    }

    fn take(&mut self, count: u8, cut: u64) -> bool {
        for taken in 1..=count {
            let Some(ready) = self.backlog.pop() else { break };
            self.take_one(ready, Some(if taken == count { cut } else { 0 }));
        }
        true
    }

    /// As the writer fills a transaction. Without `cut` all of the section is taken.
    fn take_one(&mut self, ready: Ready<Arrived>, cut: Option<u64>) -> bool {
        let (lane, end) = (ready.lane, end_of(&ready));
        let at = self.tentative.get(&lane).or_else(|| self.committed.get(&lane));
        let is_data = matches!(ready.frame.0.sections()[ready.section].kind, SectionKind::Data { .. });
        if let Some(at) = at {
            assert_eq!(ready.from, *at, "lane {lane}: in order, without hole or overlap");
        }
        let share = cut.and_then(|_| self.refusals.share(lane)).map_or(u64::MAX, u64::from);
        assert!(share > 0, "a lane under suspicion would never go on");
        let until =
            next(end.value().saturating_sub(cut.unwrap_or(0)).max(ready.from.value()).min(ready.from.value().saturating_add(share)));
        if is_data && until == ready.from {
            self.backlog.skip(ready);
            return true;
        }
        if !self.pacer.is_open() {
            self.begin();
        }
        self.pacer.add(16);
        let until = if is_data { until } else { end };
        if is_data {
            self.observe(lane, ready.from);
            self.observe(lane, next(until.value() - 1));
        }
        self.tentative.insert(lane, until);
        self.backlog.take(ready, until);
        true
    }

    /// A transaction begins once the markers of the last one are there.
    fn begin(&mut self) {
        self.now = self.pacer.not_before().map_or(self.now, |at| at.max(self.now));
        let turn = self.turns.take(self.now, INTERVAL);
        assert!(turn.is_none_or(|turn| turn >= self.now && turn <= self.now + INTERVAL), "a turn is worth waiting for");
        self.pacer.begin(self.now, turn);
        assert_eq!(self.pacer.not_before(), None, "what is open is filled");
        assert!(self.pacer.due().is_some_and(|due| due >= self.now), "company is waited for");
    }

    /// A record was delivered.
    fn observe(&mut self, lane: Lane, upstream: NextOffset) {
        let slot = self.syncs.slot(&source(lane));
        self.syncs.observe(slot, upstream.record(), Offset::new(self.downstream).expect("small"), self.now);
        self.pairs.insert((lane.0, upstream.value(), self.downstream));
        self.downstream += 1;
    }

    fn commit(&mut self) -> bool {
        let room = self.pacer.room();
        assert!(room <= TRANSACTION_BYTES);
        let mut seen = BTreeSet::new();
        for sync in self.syncs.take(self.now, false) {
            let lane = sync.source.partition.index();
            assert!(seen.insert(lane), "one sync a partition and transaction");
            let pair = (lane, sync.upstream.value(), sync.downstream.value());
            assert!(self.pairs.contains(&pair) || self.committed_pairs.contains(&pair), "a sync of what is not at the centre");
        }
        self.syncs.committed();
        assert!(self.syncs.deadline().is_none_or(|deadline| deadline > self.now && deadline <= self.now + MAX_DELAY));
        self.committed_pairs.append(&mut self.pairs);
        for (lane, at) in std::mem::take(&mut self.tentative) {
            self.refusals.succeeded(lane, 1);
            self.committed.insert(lane, at);
        }
        self.backlog.committed();
        self.pacer.committed(self.now);
        assert_eq!(self.pacer.due(), None);
        true
    }

    fn abort(&mut self) -> bool {
        self.syncs.aborted();
        self.pairs.clear();
        self.tentative.clear();
        self.backlog.aborted();
        self.pacer.aborted();
        true
    }

    fn wait(&mut self, milliseconds: u16) -> bool {
        self.now += Duration::from_millis(u64::from(milliseconds));
        assert!(self.pacer.due().is_none_or(|due| due <= self.now + INTERVAL), "nobody waits longer than an interval");
        true
    }

    fn refuse(&mut self, lane: Lane, first: u32, last: u32) -> bool {
        if self.tentative.contains_key(&lane) {
            let taken = first.max(last) + 1;
            self.refusals.failed(lane, taken, first, last);
            assert!(self.refusals.share(lane).is_none_or(|share| share >= 1));
            self.abort();
        }
        true
    }
}

/// A section that covers `first..end`; every so manieth offset of the first hundred is a record.
fn records(first: u64, end: u64, every: u64) -> RecordWriter {
    let mut writer = RecordWriter::new(next(first));
    for offset in (first..end.min(first.saturating_add(100))).step_by(usize::try_from(every).unwrap_or(usize::MAX)) {
        let offset = Offset::new(offset).expect("small");
        assert!(writer.push(offset, 0, None, Some(b"v"), std::iter::empty::<(&str, Option<&[u8]>)>()));
    }
    writer.cover(next(end));
    writer
}
