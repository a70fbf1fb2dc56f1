//! The agent's shell, its Kafka, and what the collector was told.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use spillway_agent_core::batcher::{Batcher, ClosedFrame, FrameLimits, Incoming, Pushed};
use spillway_agent_core::lane::{AfterDrain, HeldBecause, LaneSource, Phase};
use spillway_agent_core::ledger::{Detachment, Error, Ledger, Resumed};
use spillway_agent_core::schedule::Flow;
use spillway_agent_core::start::{LogRange, StartPolicy, decide};
use spillway_proto::frame::{Frame, FrameBuilder, Section, SectionKind};
use spillway_proto::message::ResumePoint;
use spillway_proto::{Lane, NextOffset, Partition, TopicId, TopicPartition};

use super::model::Model;
use super::{Offset, PARTITIONS, Said, Step, Why};
use crate::tools::Tools;

const LARGEST_RAW: usize = 1 << 20;
const HONEST_WINDOW: usize = 1 << 20;

/// Everything.
pub(crate) struct World {
    ledger: Ledger,
    batcher: Batcher,
    tools: Tools,
    model: Model,
    now: Instant,
    logs: [(u64, u64); PARTITIONS],
    reading: BTreeMap<usize, (Lane, u64)>,
    /// Lanes are numbered from 0: the partition of each.
    lanes: Vec<usize>,
    window: Option<usize>,
    questions: VecDeque<(Lane, ResumePoint)>,
    openings: Vec<Section>,
    letting_go: VecDeque<Detachment>,
    reopen: BTreeSet<usize>,
    commit_failed: bool,
    /// Lanes of this session that wait for their answer.
    announced: VecDeque<Lane>,
}

fn next(value: u64) -> NextOffset {
    NextOffset::new(value.min(i64::MAX as u64)).expect("within INT64")
}

fn partition(index: usize) -> TopicPartition {
    TopicPartition { topic: "t".parse().expect("a topic"), partition: Partition::new(index as u32).expect("a partition") }
}

fn because() -> HeldBecause {
    HeldBecause { reason: "other", detail: String::new() }
}

/// Which offsets are records; the others are holes.
fn is_record(index: usize, offset: u64) -> bool {
    !(offset + index as u64).is_multiple_of(5)
}

fn value_of(index: usize, offset: u64) -> String {
    format!("{index}:{offset}")
}

impl World {
    pub(crate) fn new((max_bytes, max_records): (u8, u8)) -> Self {
        let (max_bytes, max_records) = (usize::from(max_bytes) + 1, u32::from(max_records) + 1);
        let limits = FrameLimits { max_bytes, max_records, linger: Duration::from_secs(1), largest_raw: LARGEST_RAW };
        let now = Instant::now();
        let mut world = Self {
            ledger: Ledger::new(now),
            batcher: Batcher::new(limits),
            tools: Tools::take(),
            model: Model::default(),
            now,
            logs: [(0, 0); PARTITIONS],
            reading: BTreeMap::new(),
            lanes: Vec::new(),
            window: None,
            questions: VecDeque::new(),
            openings: Vec::new(),
            letting_go: VecDeque::new(),
            reopen: (0..PARTITIONS).collect(),
            commit_failed: false,
            announced: VecDeque::new(),
        };
        world.play(Step::Reopen);
        world
    }

    pub(crate) fn play(&mut self, step: Step) {
        match step {
            Step::Produce(index, count) => self.logs[usize::from(index) % PARTITIONS].1 += u64::from(count),
            Step::Retain(index, share) => {
                let (start, end) = &mut self.logs[usize::from(index) % PARTITIONS];
                *start = (*end * u64::from(share) / 255).max(*start);
            }
            Step::Read(index, count) => self.read(usize::from(index) % PARTITIONS, u64::from(count)),
            Step::Close => self.close(),
            Step::Send(count) => self.send(usize::from(count)),
            Step::Answer(count) => self.answer(usize::from(count)),
            Step::Connect(window) => self.connect(usize::from(window)),
            Step::Disconnect => self.disconnect(),
            Step::Hear(said) => self.hear(said),
            Step::Drain(index, why) => self.drain(usize::from(index) % PARTITIONS, why),
            Step::LetGo => self.let_go(),
            Step::Reopen => self.open_again(),
            Step::Commit(fails) => self.commit_failed = fails,
        }
        self.keep_up();
    }

    /// The collector is honest from now on and has what it said: everything arrives and nothing is left.
    pub(crate) fn finish(mut self) {
        self.play(Step::Disconnect);
        self.connect(HONEST_WINDOW);
        self.keep_up();
        for _ in 0..4 {
            while let Some(lane) = self.announced.pop_front() {
                let point = self.true_point(lane);
                let answered = self.resume(lane, point);
                assert_eq!(answered, Ok(()), "lane {lane} at {point:?}");
                self.keep_up();
            }
            self.play(Step::Answer(u8::MAX));
            self.play(Step::LetGo);
            (0..PARTITIONS).for_each(|index| self.read(index, u64::MAX));
            self.close();
            self.keep_up();
            self.send(usize::MAX);
            self.acknowledge_all();
            self.play(Step::Reopen);
        }
        assert!(self.ledger.is_empty(), "{} bytes are left", self.ledger.unacked_bytes());
        assert!(self.letting_go.is_empty() && self.announced.is_empty());
        self.tools.give_back();
    }

    fn acknowledge_all(&mut self) {
        for lane in (0..self.lanes.len() as u32).map(Lane) {
            if let Some(position) = self.ledger.book(lane).filter(|book| !book.is_dead()).and_then(|book| book.position) {
                self.model.claim(&partition(self.lanes[lane.0 as usize]), position);
                assert_eq!(self.ledger.ack(lane, position, self.now), Ok(()));
            }
            self.keep_up();
        }
    }

    /// Where an honest collector says that a lane goes on: what the agent takes for acknowledged, or what it was told at the beginning.
    fn true_point(&self, lane: Lane) -> ResumePoint {
        let book = self.ledger.book(lane);
        match book.and_then(|book| book.acked) {
            Some(acked) => ResumePoint::At(acked),
            None => book.and_then(|book| book.origin).unwrap_or(ResumePoint::Fresh),
        }
    }

    fn connect(&mut self, window: usize) {
        if self.window.is_some() {
            return;
        }
        self.window = Some(window);
        self.questions.clear();
        let opened = self.ledger.session_opened(window);
        self.announced = opened.iter().map(|open| open.lane).collect();
        self.model.session_opened();
        let held: Vec<_> = self.ledger.partitions().filter(|(_, book)| matches!(book.phase, Phase::Held(_))).collect();
        let held: Vec<_> = held.into_iter().map(|(lane, _)| self.lanes[lane.0 as usize]).collect();
        held.into_iter().for_each(|index| self.open(index));
    }

    fn disconnect(&mut self) {
        self.window = None;
        self.questions.clear();
        self.announced.clear();
        self.ledger.session_closed();
    }

    fn open(&mut self, index: usize) {
        let source = LaneSource {
            partition: partition(index),
            topic_id: TopicId([1; 16]),
            partition_count: PARTITIONS as u32,
            born: false,
            outlived_by: None,
            flow: Flow::default(),
        };
        let open = self.ledger.open(source).expect("few lanes");
        assert_eq!(open.lane.0 as usize, self.lanes.len(), "lanes are numbered");
        self.lanes.push(index);
        if self.window.is_some() {
            self.announced.push_back(open.lane);
        }
    }

    fn open_again(&mut self) {
        for index in std::mem::take(&mut self.reopen) {
            let lane = self.ledger.lane_of(&partition(index));
            match lane.and_then(|lane| self.ledger.book(lane)) {
                Some(book) if !book.is_dead() => {}
                _ => self.open(index),
            }
        }
    }

    fn hear(&mut self, said: Said) {
        if self.window.is_none() {
            return;
        }
        let outcome = match said {
            Said::Fresh(back) => self.resume(self.lane(back), ResumePoint::Fresh),
            Said::At(back, offset) => self.resume(self.lane(back), ResumePoint::At(self.offset(back, offset))),
            Said::Recreated(back, offset) => {
                let point = ResumePoint::Recreated { previous: TopicId([9; 16]), next: self.offset(back, offset) };
                self.resume(self.lane(back), point)
            }
            Said::Ack(back, offset) => {
                let (lane, next) = (self.lane(back), self.offset(back, offset));
                self.claim(lane, next);
                self.ledger.ack(lane, next, self.now)
            }
            Said::Hold(back, offset) => {
                let (lane, next) = (self.lane(back), self.offset(back, offset));
                self.claim(lane, next);
                self.ledger.hold(lane, next, because(), self.now).map(drop)
            }
            Said::Retry(back) => {
                let lane = self.lane(back);
                let held = self.ledger.book(lane).is_some_and(|book| matches!(book.phase, Phase::Held(_)));
                if held && self.ledger.lane_of(&partition(self.lanes[lane.0 as usize])) == Some(lane) {
                    self.open(self.lanes[lane.0 as usize]);
                }
                Ok(())
            }
        };
        // A breach of the protocol ends the session, and nothing else.
        if outcome.is_err() {
            self.disconnect();
        }
    }

    fn resume(&mut self, lane: Lane, point: ResumePoint) -> Result<(), Error> {
        if let ResumePoint::At(next) = point {
            self.claim(lane, next);
        }
        if let Resumed::Begin(_) = self.ledger.resume(lane, point, self.now)? {
            self.questions.push_back((lane, point));
        }
        Ok(())
    }

    fn claim(&mut self, lane: Lane, next: NextOffset) {
        if let Some(index) = self.lanes.get(lane.0 as usize) {
            self.model.claim(&partition(*index), next);
        }
    }

    /// The newest lane is 0; one more than there are is one that was never opened.
    fn lane(&self, back: u8) -> Lane {
        let count = self.lanes.len();
        Lane((count - 1).wrapping_sub(usize::from(back) % (count + 1)) as u32)
    }

    fn offset(&self, back: u8, offset: Offset) -> NextOffset {
        let book = self.ledger.book(self.lane(back));
        let pushed = book.and_then(|book| book.position).map_or(0, NextOffset::value);
        match offset {
            Offset::True => book.and_then(|book| book.acked).unwrap_or(next(0)),
            Offset::Pushed(less) => next(pushed.saturating_sub(u64::from(less))),
            Offset::Small(value) => next(u64::from(value)),
            Offset::Huge(less) => next(i64::MAX as u64 - u64::from(less)),
        }
    }

    fn answer(&mut self, count: usize) {
        let count = count.min(self.questions.len());
        for (lane, point) in self.questions.drain(..count).collect::<Vec<_>>() {
            let (start, end) = self.logs[self.lanes[lane.0 as usize]];
            let log = LogRange { start: next(start), end: next(end) };
            let beginning = decide(point, log, StartPolicy::Earliest);
            self.openings.extend(self.ledger.begin(lane, point, beginning));
        }
    }

    fn drain(&mut self, index: usize, why: Why) {
        let Some(lane) = self.ledger.lane_of(&partition(index)) else { return };
        let then = match why {
            Why::Lost => AfterDrain::Reopen,
            Why::Gone => AfterDrain::Close,
            Why::TooLarge => AfterDrain::Hold(because()),
        };
        self.ledger.drain(lane, then);
    }

    fn read(&mut self, index: usize, count: u64) {
        let Some((lane, at)) = self.reading.get(&index).copied() else { return };
        let (start, log_end) = self.logs[index];
        if at < start {
            // The consumer is told that its offset is out of range.
            self.ledger.drain(lane, AfterDrain::Reopen);
            return;
        }
        let end = log_end.min(at.saturating_add(count));
        for offset in (at..end).filter(|offset| is_record(index, *offset)) {
            let value = value_of(index, offset);
            let headers = std::iter::empty::<(&str, Option<&[u8]>)>();
            let offset = spillway_proto::Offset::new(offset).expect("small");
            let record = Incoming { offset, timestamp: 1, key: None, value: Some(value.as_bytes()), headers };
            assert_eq!(self.batcher.push(lane, record, self.now), Pushed::Added);
            self.take_sealed();
        }
        if end > at && end == log_end {
            self.batcher.cover(lane, next(end), self.now);
            self.take_sealed();
        }
        self.reading.insert(index, (lane, end.max(at)));
    }

    fn close(&mut self) {
        self.take_sealed();
        if let Some(closed) = self.batcher.close() {
            self.push(closed);
        }
    }

    fn take_sealed(&mut self) {
        while let Some(closed) = self.batcher.take_sealed() {
            self.push(closed);
        }
    }

    fn push(&mut self, mut closed: ClosedFrame) {
        let frame = closed.builder.encode(&mut self.tools.compressor);
        let budget = frame.raw_length;
        self.check_content(&frame.bytes);
        self.model.pushed(&self.ledger, &frame, budget);
        let pushed = self.ledger.push(frame, &closed.timestamps, budget, self.now);
        assert_eq!(pushed, Ok(()), "the agent would stop");
    }

    /// A section of a partition holds all its records in its range, and nothing else.
    fn check_content(&mut self, bytes: &bytes::Bytes) {
        let frame = Frame::decode(bytes.clone(), LARGEST_RAW).expect("our own frame");
        let body = frame.open(&mut self.tools.decompressor).expect("our own body");
        for (place, section) in frame.sections().iter().enumerate() {
            let SectionKind::Data { first, next, .. } = section.kind else { continue };
            let index = self.lanes[section.lane.0 as usize];
            let expected = (first.value()..next.value()).filter(|offset| is_record(index, *offset)).map(|offset| value_of(index, offset));
            let found = body.records(&frame, place).map(|record| record.expect("our own record"));
            assert!(found.map(|record| String::from_utf8_lossy(record.value.unwrap_or_default()).into_owned()).eq(expected));
        }
    }

    fn send(&mut self, count: usize) {
        for _ in 0..count {
            let Some(window) = self.window else { return };
            let Some(outgoing) = self.ledger.next_frame() else { return };
            self.model.sent(&self.ledger, &outgoing, window);
        }
    }

    fn let_go(&mut self) {
        while let Some(detachment) = self.letting_go.pop_front() {
            self.batcher.detach(detachment.lane, detachment.keep);
            if detachment.keep {
                self.close();
            }
            self.reading.retain(|_, (lane, _)| *lane != detachment.lane);
            self.ledger.detached(detachment.lane);
        }
    }

    /// What the runner does after every event.
    fn keep_up(&mut self) {
        for sections in std::mem::take(&mut self.openings).chunks(2) {
            let mut builder = FrameBuilder::new();
            for section in sections {
                match section.kind {
                    SectionKind::Start { next } => builder.start(section.lane, next),
                    SectionKind::Gap { first, next, reason } => builder.gap(section.lane, first, next, reason),
                    SectionKind::Data { .. } => panic!("a lane begins with data"),
                }
            }
            self.push(ClosedFrame { builder, timestamps: Vec::new() });
        }
        for attachment in self.ledger.take_attachments() {
            self.batcher.attach(attachment.lane, attachment.next);
            self.reading.insert(attachment.partition.partition.index() as usize, (attachment.lane, attachment.next.value()));
        }
        self.letting_go.extend(self.ledger.take_detachments());
        for ended in self.ledger.take_ended() {
            let index = self.lanes[ended.lane.0 as usize];
            match ended.then {
                AfterDrain::Reopen => _ = self.reopen.insert(index),
                AfterDrain::Close => self.ledger.forget(&ended.partition),
                AfterDrain::Hold(_) => {}
            }
        }
        self.model.compare(&mut self.ledger);
        let commits = self.ledger.take_commits();
        commits.iter().for_each(|(partition, next)| self.model.committed(partition, *next));
        if self.commit_failed {
            self.ledger.commit_failed(commits);
        }
    }
}
