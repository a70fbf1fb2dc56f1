//! The decisions of both sides, played against each other without I/O: the agent's batcher and ledger, the collector's sequencer and backlog,
//! a link that reorders and loses, a centre whose transactions commit or abort, and processes that die at any moment.
//!
//! What has to hold at the end, whatever happened: the centre has each record of the source once, in order, partition by partition; or has passed over it by a gap that tells
//! of its age, and it was too old when that gap was sent.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use proptest::prelude::*;

#[path = "pair/agent_side.rs"]
mod agent_side;
#[path = "pair/centre_side.rs"]
mod centre_side;

use agent_side::{AgentSide, FLOWS};
use centre_side::CentreSide;
use spillway_proto::compress::Decompressor;
use spillway_proto::frame::{Frame, GapReason, SectionKind};
use spillway_proto::{FrameSeq, NextOffset, Partition, TopicName, TopicPartition};

const PARTITIONS: u32 = 3;
const WINDOW: usize = 600;

#[derive(Debug, Clone)]
enum Action {
    /// So many offsets more in the source's partition.
    Produce(u32, u64),
    /// The agent reads so many offsets of a partition.
    Read(u32, u64),
    /// The open frame is closed.
    Close,
    /// All that may be sent is put on the link.
    Send,
    /// One of the frames on the link arrives, whichever.
    FrameArrives(usize),
    /// So many messages of the control stream arrive, one way and the other.
    MessagesArrive(usize),
    /// The collector's writer takes so many sections into its transaction, the last of them in part.
    Take(usize, u64),
    /// The transaction is committed, and acknowledged.
    Commit,
    /// The transaction is committed, but the collector dies before it acknowledges.
    CommitAndDie,
    /// The transaction is aborted.
    Abort,
    /// The connection is lost with all that was on its way.
    Cut,
    /// A new session.
    Connect,
    /// The agent is killed and started again, under these rules.
    AgentDies(usize),
    /// So many seconds pass.
    Wait(u8),
}

fn action() -> impl Strategy<Value = Action> {
    let partition = 0..PARTITIONS;
    prop_oneof![
        3 => (partition.clone(), 1u64..12).prop_map(|(partition, count)| Action::Produce(partition, count)),
        6 => (partition, 1u64..8).prop_map(|(partition, count)| Action::Read(partition, count)),
        4 => Just(Action::Close),
        4 => Just(Action::Send),
        8 => any::<usize>().prop_map(Action::FrameArrives),
        5 => (1usize..6).prop_map(Action::MessagesArrive),
        6 => (1usize..5, 0u64..4).prop_map(|(count, cut)| Action::Take(count, cut)),
        4 => Just(Action::Commit),
        1 => Just(Action::CommitAndDie),
        2 => Just(Action::Abort),
        1 => Just(Action::Cut),
        3 => Just(Action::Connect),
        1 => (0..FLOWS.len()).prop_map(Action::AgentDies),
        2 => (0u8..9).prop_map(Action::Wait),
    ]
}

/// The source: an offset is a record or a hole, for good.
#[derive(Debug, Default)]
struct Source {
    ends: [u64; PARTITIONS as usize],
    /// The timestamp of each offset.
    times: [Vec<i64>; PARTITIONS as usize],
}

impl Source {
    fn is_record(partition: u32, offset: u64) -> bool {
        !(offset * 7 + u64::from(partition) * 3).is_multiple_of(5)
    }

    /// Some are written late, and one in eleven has no timestamp.
    fn produce(&mut self, partition: u32, count: u64, now_ms: i64) {
        let (end, times) = (&mut self.ends[partition as usize], &mut self.times[partition as usize]);
        times.extend((*end..*end + count).map(|offset| if offset % 11 == 5 { -1 } else { now_ms - (offset % 3) as i64 * 2_000 }));
        *end += count;
    }

    fn records(&self, partition: u32) -> Vec<u64> {
        (0..self.ends[partition as usize]).filter(|offset| Self::is_record(partition, *offset)).collect()
    }
}

#[derive(Debug)]
struct World {
    source: Source,
    agent: AgentSide,
    centre: CentreSide,
    frames: Vec<(FrameSeq, bytes::Bytes)>,
    connected: bool,
    faults: usize,
    /// The time of day, milliseconds since 1970.
    now_ms: i64,
    /// Gaps that were sent.
    passed: usize,
}

impl World {
    fn new(rules: usize) -> Self {
        let (source, agent, centre) = (Source::default(), AgentSide::new(rules), CentreSide::new());
        Self { source, agent, centre, frames: Vec::new(), connected: false, faults: 0, now_ms: 1_000_000, passed: 0 }
    }

    fn play(&mut self, action: Action) {
        match action {
            Action::Produce(partition, count) => self.source.produce(partition, count, self.now_ms),
            Action::Read(partition, count) => self.agent.read(&self.source, partition, count),
            Action::Close => self.agent.close_frame(),
            Action::Send if self.connected => self.send(),
            Action::FrameArrives(which) if !self.frames.is_empty() => {
                let (seq, bytes) = self.frames.swap_remove(which % self.frames.len());
                self.centre.frame(seq, bytes);
            }
            Action::MessagesArrive(count) => self.exchange(count),
            Action::Take(count, cut) => self.centre.take(count, cut),
            Action::Commit => self.centre.commit(),
            Action::CommitAndDie => {
                self.centre.commit();
                self.cut();
            }
            Action::Abort => {
                self.faults += usize::from(self.centre.abort());
            }
            Action::Cut => self.cut(),
            Action::Connect => self.connect(),
            Action::AgentDies(rules) => {
                self.cut();
                self.agent = AgentSide::new(rules);
                self.agent.wait(Duration::ZERO, self.now_ms);
            }
            Action::Wait(seconds) => {
                self.now_ms += i64::from(seconds) * 1_000;
                self.agent.wait(Duration::from_secs(seconds.into()), self.now_ms);
            }
            Action::Send | Action::FrameArrives(_) => {}
        }
        self.agent.settle(&self.centre.committed);
    }

    fn send(&mut self) {
        for (seq, bytes) in self.agent.send() {
            let frame = Frame::decode(bytes.clone(), 4096).unwrap();
            self.passed += check_ages(&frame, &self.agent, &self.source, self.now_ms);
            self.frames.push((seq, bytes));
        }
    }

    /// Each record below the centre's position is there once and in order, or was passed over.
    fn check(&self) {
        for index in 0..PARTITIONS {
            let (there, gaps) = (self.centre.records(index), self.centre.passed(index));
            assert!(there.is_sorted_by(|a, b| a < b), "partition {index}: {there:?}");
            let committed = self.centre.committed.get(&index).copied().unwrap_or(0);
            let passed = |offset: &u64| gaps.iter().any(|gap| gap.contains(offset));
            let expected = self.source.records(index).into_iter().filter(|offset| *offset < committed && !passed(offset));
            assert_eq!(there, expected.collect::<Vec<_>>(), "partition {index}, without {gaps:?}");
            for pair in gaps.windows(2) {
                assert!(pair[0].end <= pair[1].start, "partition {index}: told twice: {gaps:?}");
            }
        }
    }

    fn exchange(&mut self, count: usize) {
        for _ in 0..count {
            if let Some(open) = self.agent.announcements.pop_front().filter(|_| self.connected) {
                self.centre.open(&open);
            }
            if let Some(message) = self.centre.answers.pop_front() {
                self.agent.hear(message, &self.source);
            }
        }
    }

    fn cut(&mut self) {
        self.faults += usize::from(self.connected);
        self.connected = false;
        self.frames.clear();
        self.agent.session_closed();
        self.centre.session_closed();
    }

    fn connect(&mut self) {
        if !self.connected {
            self.connected = true;
            self.agent.session_opened(WINDOW);
        }
    }

    /// No more trouble: everything has to arrive.
    fn calm(&mut self) {
        self.cut();
        self.connect();
        for _ in 0..60 {
            self.play(Action::MessagesArrive(100));
            (0..PARTITIONS).for_each(|partition| self.play(Action::Read(partition, 1000)));
            self.play(Action::Close);
            self.play(Action::Send);
            while !self.frames.is_empty() {
                self.play(Action::FrameArrives(0));
            }
            self.play(Action::Take(1000, 0));
            self.play(Action::Commit);
            // What is too old waits a second for more of it.
            self.play(Action::Wait(1));
        }
    }
}

/// What is sent of a topic with a time to live is not all too old, and what is told to be too old is. Answers how many gaps there are.
fn check_ages(frame: &Frame, agent: &AgentSide, source: &Source, now_ms: i64) -> usize {
    let times = frame.timestamps(&mut Decompressor::new().unwrap()).unwrap();
    let mut gaps = 0;
    for section in frame.sections() {
        let Some((index, Some(ttl), acked)) = agent.lane(section.lane) else { continue };
        assert!(times.is_none_or(|times| !ttl.is_over_for_all(times, now_ms)), "{times:?} at {now_ms}");
        if let SectionKind::Gap { first, next, reason: GapReason::Expired } = section.kind {
            gaps += 1;
            for offset in (first.value().max(acked)..next.value()).filter(|offset| Source::is_record(index, *offset)) {
                let time = source.times[index as usize][offset as usize];
                assert!(ttl.is_over(time, now_ms), "partition {index}: {offset} of {time} is passed over at {now_ms}");
            }
        }
    }
    gaps
}

fn partition(index: u32) -> TopicPartition {
    TopicPartition { topic: TopicName::parse("t").unwrap(), partition: Partition::new(index).unwrap() }
}

fn next(value: u64) -> NextOffset {
    NextOffset::new(value).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn each_record_reaches_the_centre_once_and_in_order(rules in 0..FLOWS.len(), actions in prop::collection::vec(action(), 20..200)) {
        let mut world = World::new(rules);
        for action in actions {
            world.play(action);
            world.check();
        }
        world.calm();
        world.check();
        for index in 0..PARTITIONS {
            let committed = world.centre.committed.get(&index).copied().unwrap_or(0);
            prop_assert_eq!(committed, world.source.ends[index as usize], "partition {}", index);
        }
    }
}

/// The schedules above would prove nothing if none of them had faults in it.
#[test]
fn schedules_have_faults() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let strategy = prop::collection::vec(action(), 100..200);
    let faults = (0..50).map(|_| {
        let mut world = World::new(1);
        strategy.new_tree(&mut runner).unwrap().current().into_iter().for_each(|action| world.play(action));
        let faults = world.faults;
        world.calm();
        (faults, world.passed)
    });
    let (faults, passed): (Vec<_>, Vec<_>) = faults.unzip();
    assert!(faults.iter().filter(|faults| **faults >= 3).count() > 25, "{faults:?}");
    assert!(passed.iter().filter(|passed| **passed >= 2).count() > 25, "gaps: {passed:?}");
}
