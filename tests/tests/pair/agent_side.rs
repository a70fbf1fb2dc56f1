//! The agent's decisions, and as little of its shell as they need: it reads the model's source instead of a Kafka.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use spillway_agent_core::batcher::{Batcher, ClosedFrame, FrameLimits, Incoming, Pushed};
use spillway_agent_core::lane::LaneSource;
use spillway_agent_core::ledger::{Ledger, Resumed};
use spillway_agent_core::schedule::{Flow, FlowSpec, Scheduler, TopicClass};
use spillway_agent_core::start::{LogRange, StartPolicy, decide};
use spillway_agent_core::ttl::TimeToLive;
use spillway_proto::compress::Compressor;
use spillway_proto::frame::{FrameBuilder, SectionKind};
use spillway_proto::message::{CollectorMessage, OpenLane, ResumePoint};
use spillway_proto::{FrameSeq, Lane, Offset, TopicId};

use super::{PARTITIONS, Source, next, partition};

/// The flow of each partition, of classes 0, 1 and 3, under different rules.
pub(crate) const FLOWS: [[Flow; PARTITIONS as usize]; 3] =
    [[Flow(0), Flow(0), Flow(0)], [Flow(0), Flow(1), Flow(2)], [Flow(2), Flow(0), Flow(2)]];

/// An agent process.
#[derive(Debug)]
pub(crate) struct AgentSide {
    ledger: Ledger,
    specs: [FlowSpec; 3],
    rules: usize,
    /// One for each flow.
    batchers: Vec<Batcher>,
    compressor: Compressor,
    reading: BTreeMap<u32, (Lane, u64)>,
    connected: bool,
    now: Instant,
    now_ms: i64,
    pub(crate) announcements: VecDeque<OpenLane>,
}

impl AgentSide {
    /// Under one of [`FLOWS`].
    pub(crate) fn new(rules: usize) -> Self {
        let limits = FrameLimits { max_bytes: 120, max_records: 6, linger: Duration::from_secs(1), largest_raw: 4096 };
        let now = Instant::now();
        let ttl = |class: u8| (class > 0).then(|| TimeToLive::new(Duration::from_secs(class.into()) * 4));
        let spec = |class| FlowSpec { class: TopicClass::new(class).unwrap(), ttl: ttl(class), ..FlowSpec::default() };
        let mut agent = Self {
            ledger: Ledger::with(Scheduler::new([0, 1, 3].map(spec).into()), now),
            specs: [0, 1, 3].map(spec),
            rules,
            batchers: [limits; 3].map(Batcher::new).into(),
            compressor: Compressor::new(1).unwrap(),
            reading: BTreeMap::new(),
            connected: false,
            now,
            now_ms: 0,
            announcements: VecDeque::new(),
        };
        (0..PARTITIONS).for_each(|index| agent.open(index));
        agent
    }

    pub(crate) fn session_opened(&mut self, window: usize) {
        self.connected = true;
        self.announcements = self.ledger.session_opened(window).into();
    }

    pub(crate) fn session_closed(&mut self) {
        self.connected = false;
        self.announcements.clear();
        self.ledger.session_closed();
    }

    /// Reads up to `count` offsets; holes are skipped as a consumer skips them, and told by the end of the partition.
    pub(crate) fn read(&mut self, source: &Source, index: u32, count: u64) {
        let Some((lane, at)) = self.reading.get(&index).copied() else { return };
        let (end, now) = (source.ends[index as usize].min(at + count), self.now);
        for offset in (at..end).filter(|offset| Source::is_record(index, *offset)) {
            let value = format!("{index}:{offset}");
            let headers = std::iter::empty::<(&str, Option<&[u8]>)>();
            let timestamp = source.times[index as usize][offset as usize];
            let offset = Offset::new(offset).unwrap();
            if self.ttl(index).is_some_and(|ttl| ttl.is_over(timestamp, self.now_ms)) {
                assert!(self.batcher(index).expire(lane, offset, now));
                self.take_sealed();
                continue;
            }
            let record = Incoming { offset, timestamp, key: None, value: Some(value.as_bytes()), headers };
            assert_eq!(self.batcher(index).push(lane, record, now), Pushed::Added);
            self.take_sealed();
        }
        if end > at && end == source.ends[index as usize] {
            self.batcher(index).cover(lane, next(end), now);
            self.take_sealed();
        }
        self.reading.insert(index, (lane, end.max(at)));
    }

    pub(crate) fn close_frame(&mut self) {
        for closed in self.batchers.iter_mut().filter_map(Batcher::close).collect::<Vec<_>>() {
            self.push(closed);
        }
    }

    pub(crate) fn send(&mut self) -> Vec<(FrameSeq, Bytes)> {
        let next = || {
            self.ledger.expire(self.now, self.now_ms);
            self.ledger.next_frame()
        };
        std::iter::from_fn(next).map(|frame| (frame.seq, frame.bytes)).collect()
    }

    pub(crate) fn wait(&mut self, time: Duration, now_ms: i64) {
        self.now += time;
        self.now_ms = now_ms;
        self.ledger.expire(self.now, self.now_ms);
    }

    /// The partition of a living lane, its time to live, and what of it is acknowledged.
    pub(crate) fn lane(&self, lane: Lane) -> Option<(u32, Option<TimeToLive>, u64)> {
        let book = self.ledger.book(lane).filter(|book| !book.is_dead())?;
        let index = book.source.partition.partition.index();
        Some((index, self.ttl(index), book.acked.map_or(0, |acked| acked.value())))
    }

    pub(crate) fn hear(&mut self, message: CollectorMessage, source: &Source) {
        match message {
            CollectorMessage::Resume { lane, resume } => {
                if let Resumed::Begin(_) = self.ledger.resume(lane, resume, self.now).unwrap() {
                    self.begin(lane, resume, source);
                }
            }
            CollectorMessage::Ack(acks) => acks.into_iter().for_each(|(lane, to)| self.ledger.ack(lane, to, self.now).unwrap()),
            other => panic!("{other:?}"),
        }
    }

    /// What the shell does after each step. Nothing is ever to be committed at the source that the centre has not committed.
    pub(crate) fn settle(&mut self, committed: &BTreeMap<u32, u64>) {
        for attachment in self.ledger.take_attachments() {
            let index = attachment.partition.partition.index();
            self.batcher(index).attach(attachment.lane, attachment.next);
            self.reading.insert(index, (attachment.lane, attachment.next.value()));
        }
        for detachment in self.ledger.take_detachments() {
            self.batcher(detachment.partition.partition.index()).detach(detachment.lane, detachment.keep);
            if detachment.keep {
                self.close_frame();
            }
            self.reading.retain(|_, (lane, _)| *lane != detachment.lane);
            self.ledger.detached(detachment.lane);
        }
        for ended in self.ledger.take_ended() {
            self.open(ended.partition.partition.index());
        }
        for (source, to) in self.ledger.take_commits() {
            let centre = committed.get(&source.partition.index()).copied().unwrap_or_default();
            assert!(to.value() <= centre, "{source}: {to} is to be committed, the centre has {centre}");
        }
    }

    fn open(&mut self, index: u32) {
        let source = LaneSource {
            partition: partition(index),
            topic_id: TopicId([1; 16]),
            partition_count: PARTITIONS,
            born: false,
            outlived_by: None,
            flow: FLOWS[self.rules][index as usize],
        };
        let open = self.ledger.open(source).unwrap();
        if self.connected {
            self.announcements.push_back(open);
        }
    }

    fn begin(&mut self, lane: Lane, resume: ResumePoint, source: &Source) {
        let index = self.ledger.book(lane).unwrap().source.partition.partition.index();
        let log = LogRange { start: next(0), end: next(source.ends[index as usize]) };
        let Some(section) = self.ledger.begin(lane, resume, decide(resume, log, StartPolicy::Earliest)) else { return };
        let SectionKind::Start { next } = section.kind else { panic!("{section:?}") };
        let mut builder = FrameBuilder::new();
        builder.start(lane, next);
        self.push(ClosedFrame { builder, timestamps: vec![None] });
    }

    fn take_sealed(&mut self) {
        for closed in self.batchers.iter_mut().filter_map(Batcher::take_sealed).collect::<Vec<_>>() {
            self.push(closed);
        }
    }

    fn ttl(&self, index: u32) -> Option<TimeToLive> {
        let flow = FLOWS[self.rules][index as usize];
        self.specs.get(usize::from(flow.0)).and_then(|spec| spec.ttl)
    }

    fn batcher(&mut self, index: u32) -> &mut Batcher {
        &mut self.batchers[FLOWS[self.rules][index as usize].0 as usize]
    }

    fn push(&mut self, mut closed: ClosedFrame) {
        let frame = closed.builder.encode(&mut self.compressor);
        let budget = frame.bytes.len();
        self.ledger.push(frame, &closed.timestamps, budget, self.now).unwrap();
    }
}
