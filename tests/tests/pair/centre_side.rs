//! The collector's decisions, and a centre that keeps what its transactions committed.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use spillway_collector_core::backlog::{Backlog, end_of};
use spillway_collector_core::sequencer::{Ready, Sequencer};
use spillway_proto::compress::Decompressor;
use spillway_proto::frame::{Frame, GapReason, SectionKind};
use spillway_proto::message::{CollectorMessage, OpenLane, ResumePoint};
use spillway_proto::{FrameSeq, Lane, NextOffset};

use super::next;

const MAX_RAW: usize = 4096;

#[derive(Debug)]
pub(crate) struct Arrived(Frame);

impl AsRef<Frame> for Arrived {
    fn as_ref(&self) -> &Frame {
        &self.0
    }
}

/// A collector and the central Kafka behind it.
#[derive(Debug)]
pub(crate) struct CentreSide {
    /// Position of each partition, as the centre has committed it.
    pub(crate) committed: BTreeMap<u32, u64>,
    /// On their way to the agent.
    pub(crate) answers: VecDeque<CollectorMessage>,
    logs: BTreeMap<u32, Vec<u64>>,
    passed: BTreeMap<u32, Vec<Range<u64>>>,
    session: Session,
}

#[derive(Debug)]
struct Session {
    sequencer: Sequencer<Arrived>,
    backlog: Backlog<Arrived>,
    lanes: BTreeMap<Lane, u32>,
    /// The open transaction: records, positions.
    records: Vec<(u32, u64)>,
    gaps: Vec<(u32, Range<u64>)>,
    positions: BTreeMap<Lane, NextOffset>,
}

impl Session {
    fn new() -> Self {
        Self {
            sequencer: Sequencer::new(1 << 20),
            backlog: Backlog::new(),
            lanes: BTreeMap::new(),
            records: Vec::new(),
            gaps: Vec::new(),
            positions: BTreeMap::new(),
        }
    }
}

impl CentreSide {
    pub(crate) fn new() -> Self {
        Self {
            committed: BTreeMap::new(),
            answers: VecDeque::new(),
            logs: BTreeMap::new(),
            passed: BTreeMap::new(),
            session: Session::new(),
        }
    }

    /// The records of a partition that a read-committed reader sees.
    pub(crate) fn records(&self, partition: u32) -> &[u64] {
        self.logs.get(&partition).map_or(&[], Vec::as_slice)
    }

    /// Gaps of a partition that were told, because of the age of its records.
    pub(crate) fn passed(&self, partition: u32) -> &[Range<u64>] {
        self.passed.get(&partition).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn open(&mut self, open: &OpenLane) {
        let index = open.source.partition.index();
        let older: Vec<_> = self.session.lanes.iter().filter(|(_, partition)| **partition == index).map(|(lane, _)| *lane).collect();
        for lane in older {
            self.session.sequencer.retire(lane).unwrap();
        }
        self.session.lanes.insert(open.lane, index);
        self.session.sequencer.announce(open.lane).unwrap();
        let resume = self.committed.get(&index).map_or(ResumePoint::Fresh, |at| ResumePoint::At(next(*at)));
        self.session.sequencer.resume(open.lane, resume);
        self.answers.push_back(CollectorMessage::Resume { lane: open.lane, resume });
    }

    pub(crate) fn frame(&mut self, seq: FrameSeq, bytes: Bytes) {
        let frame = Arc::new(Arrived(Frame::decode(bytes, MAX_RAW).unwrap()));
        let mut ready = Vec::new();
        self.session.sequencer.arrive(seq, &frame, &mut ready).unwrap();
        ready.into_iter().for_each(|ready| self.session.backlog.push(ready));
    }

    /// Takes up to `count` sections into the transaction, the last one short by `cut` offsets.
    pub(crate) fn take(&mut self, count: usize, cut: u64) {
        for taken in 1..=count {
            let Some(ready) = self.session.backlog.pop() else { return };
            let end = end_of(&ready);
            let short = end.value().saturating_sub(if taken == count { cut } else { 0 });
            let is_data = matches!(ready.frame.0.sections()[ready.section].kind, SectionKind::Data { .. });
            let until = if is_data { next(short.max(ready.from.value())) } else { end };
            if is_data && until == ready.from && until != end {
                self.session.backlog.skip(ready);
                continue;
            }
            self.produce(&ready, until);
            self.session.positions.insert(ready.lane, until);
            self.session.backlog.take(ready, until);
        }
    }

    pub(crate) fn commit(&mut self) {
        for (partition, offset) in self.session.records.drain(..) {
            self.logs.entry(partition).or_default().push(offset);
        }
        for (partition, gap) in self.session.gaps.drain(..) {
            self.passed.entry(partition).or_default().push(gap);
        }
        let acks: Vec<_> = std::mem::take(&mut self.session.positions).into_iter().collect();
        for (lane, at) in &acks {
            self.committed.insert(self.session.lanes[lane], at.value());
        }
        self.session.backlog.committed();
        if !acks.is_empty() {
            self.answers.push_back(CollectorMessage::Ack(acks));
        }
    }

    /// Answers whether there was anything to abort.
    pub(crate) fn abort(&mut self) -> bool {
        let some = !self.session.positions.is_empty();
        self.session.records.clear();
        self.session.gaps.clear();
        self.session.positions.clear();
        self.session.backlog.aborted();
        some
    }

    /// The next session fences this one, which aborts its transaction.
    pub(crate) fn session_closed(&mut self) {
        self.session = Session::new();
        self.answers.clear();
    }

    fn produce(&mut self, ready: &Ready<Arrived>, until: NextOffset) {
        let frame = &ready.frame.0;
        if let SectionKind::Gap { next, reason, .. } = frame.sections()[ready.section].kind {
            assert_eq!((reason, next), (GapReason::Expired, until));
            self.session.gaps.push((self.session.lanes[&ready.lane], ready.from.value()..next.value()));
        }
        let raw = frame.open(&mut Decompressor::new().unwrap()).unwrap();
        for record in raw.records(frame, ready.section).map(Result::unwrap) {
            if record.offset.value() >= ready.from.value() && until.covers(record.offset) {
                let (partition, offset) = std::str::from_utf8(record.value.unwrap()).unwrap().split_once(':').unwrap();
                assert_eq!(offset, record.offset.to_string());
                assert_eq!(partition, self.session.lanes[&ready.lane].to_string());
                self.session.records.push((self.session.lanes[&ready.lane], record.offset.value()));
            }
        }
    }
}
