//! The agent's shell, its Kafka, and what the collector was told.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use spillway_agent_core::batcher::{Batcher, ClosedFrame, FrameLimits};
use spillway_agent_core::lane::{AfterDrain, HeldBecause, LaneSource};
use spillway_agent_core::ledger::{Detachment, Ledger};
use spillway_agent_core::schedule::Flow;
use spillway_agent_core::start::{LogRange, StartPolicy, decide};
use spillway_proto::frame::{FrameBuilder, Section, SectionKind};
use spillway_proto::message::ResumePoint;
use spillway_proto::{Lane, NextOffset, Partition, TopicId, TopicPartition};

use super::model::Model;
use super::{PARTITIONS, Step, Why};
use crate::tools::Tools;

mod centre;
mod site;

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

    fn send(&mut self, count: usize) {
        for _ in 0..count {
            let Some(window) = self.window else { return };
            let Some(outgoing) = self.ledger.next_frame() else { return };
            self.model.sent(&self.ledger, &outgoing, window);
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

fn next(value: u64) -> NextOffset {
    NextOffset::new(value.min(i64::MAX as u64)).expect("within INT64")
}

fn partition(index: usize) -> TopicPartition {
    TopicPartition { topic: "t".parse().expect("a topic"), partition: Partition::new(index as u32).expect("a partition") }
}

fn because() -> HeldBecause {
    HeldBecause { reason: "other", detail: String::new() }
}
