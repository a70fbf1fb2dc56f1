//! The ledger against a tiny source, a tiny collector and a link that loses whatever was on its way.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use proptest::prelude::*;
use spillway_proto::frame::{Frame, SectionKind};
use spillway_proto::message::ResumePoint;
use spillway_proto::{FrameSeq, Lane};

use super::{Flow, FlowSpec, HeldBecause, LaneSource, Ledger, Resumed, Scheduler, TopicClass, frame, next, opening, partition, source};
use crate::start::Beginning;

const PARTITIONS: u32 = 3;
const MAX_RAW: usize = 1 << 20;
const WINDOW: usize = 200;

#[derive(Debug, Clone)]
enum Action {
    /// The source reads so many records of each partition into one frame.
    Read([u64; PARTITIONS as usize]),
    /// All that may be sent is sent.
    Send,
    /// So many frames arrive and are committed.
    Arrive(usize),
    /// So many acks reach the agent.
    Acks(usize),
    /// The connection is lost with all that was on its way.
    Disconnect,
    /// A session is opened.
    Connect,
    /// The centre refuses the partition's next record.
    Hold(u32),
    /// The centre takes it after all.
    Retry(u32),
    /// Another agent process brought the centre further.
    Elsewhere(u32),
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        4 => [0u64..4, 0u64..4, 0u64..4].prop_map(Action::Read),
        4 => Just(Action::Send),
        3 => (0usize..5).prop_map(Action::Arrive),
        3 => (0usize..5).prop_map(Action::Acks),
        1 => Just(Action::Disconnect),
        2 => Just(Action::Connect),
        1 => (0..PARTITIONS).prop_map(Action::Hold),
        1 => (0..PARTITIONS).prop_map(Action::Retry),
        1 => (0..PARTITIONS).prop_map(Action::Elsewhere),
    ]
}

/// The flow of each partition: classes 0, 1 and 3, or all of one.
const RULES: [[u16; PARTITIONS as usize]; 3] = [[0, 0, 0], [0, 1, 2], [2, 0, 2]];

struct World {
    ledger: Ledger,
    rules: usize,
    now: Instant,
    connected: bool,
    /// What the source reads: lane and position of each partition.
    reading: BTreeMap<u32, (Lane, u64)>,
    /// What the centre has of each partition; `None`: nothing.
    centre: BTreeMap<u32, u64>,
    /// The collector's lanes of this session: partition, and whether it is dead.
    lanes: BTreeMap<Lane, (u32, bool)>,
    /// Frames on their way, in order of their numbers.
    wire: VecDeque<Frame>,
    expected: FrameSeq,
    acks: VecDeque<(Lane, u64)>,
    /// What was sent in this session.
    sent: Vec<Frame>,
    /// What the agent was told of each lane in this session.
    told: BTreeMap<Lane, u64>,
}

impl World {
    fn new(rules: usize) -> Self {
        let now = Instant::now();
        let spec = |class| FlowSpec { class: TopicClass::new(class).unwrap(), ..FlowSpec::default() };
        let mut world = Self {
            ledger: Ledger::with(Scheduler::new([0, 1, 3].map(spec).into()), now),
            rules,
            now,
            connected: false,
            reading: BTreeMap::new(),
            centre: BTreeMap::new(),
            lanes: BTreeMap::new(),
            wire: VecDeque::new(),
            expected: FrameSeq(0),
            acks: VecDeque::new(),
            sent: Vec::new(),
            told: BTreeMap::new(),
        };
        for index in 0..PARTITIONS {
            world.open(index);
        }
        world
    }

    fn play(&mut self, action: Action) {
        match action {
            Action::Read(counts) => self.read(counts),
            Action::Send => self.send(),
            Action::Arrive(count) => (0..count).for_each(|_| self.arrive()),
            Action::Acks(count) => self.take_acks(count),
            Action::Disconnect => self.disconnect(),
            Action::Connect => self.connect(),
            Action::Hold(index) => self.hold(index),
            Action::Retry(index) => self.retry(index),
            Action::Elsewhere(index) => {
                if !self.connected {
                    *self.centre.entry(index).or_default() += 2;
                }
            }
        }
        self.settle();
    }

    /// What the shell does after each call.
    fn settle(&mut self) {
        for attachment in self.ledger.take_attachments() {
            self.reading.insert(attachment.partition.partition.index(), (attachment.lane, attachment.next.value()));
        }
        for detachment in self.ledger.take_detachments() {
            self.reading.retain(|_, (lane, _)| *lane != detachment.lane);
            self.ledger.detached(detachment.lane);
        }
        for ended in self.ledger.take_ended() {
            self.open(ended.partition.partition.index());
        }
        for (partition, committed) in self.ledger.take_commits() {
            let centre = self.centre.get(&partition.partition.index()).copied().unwrap_or_default();
            assert!(committed.value() <= centre, "{partition}: {committed} is to be committed, the centre has {centre}");
        }
    }

    fn open(&mut self, index: u32) {
        let lane = self.ledger.open(LaneSource { flow: Flow(RULES[self.rules][index as usize]), ..source(index) }).unwrap().lane;
        if self.connected {
            self.announce(lane, index);
        }
    }

    fn announce(&mut self, lane: Lane, index: u32) {
        for (_, dead) in self.lanes.values_mut().filter(|(partition, _)| *partition == index) {
            *dead = true;
        }
        self.lanes.insert(lane, (index, false));
        if let Some(at) = self.centre.get(&index) {
            self.told.insert(lane, *at);
        }
        let point = self.centre.get(&index).map_or(ResumePoint::Fresh, |at| ResumePoint::At(next(*at)));
        if let Resumed::Begin(_) = self.ledger.resume(lane, point, self.now).unwrap() {
            match point {
                ResumePoint::At(at) => assert_eq!(self.ledger.begin(lane, point, Beginning::Resume { at }), None),
                _ => opening(&mut self.ledger, lane, point, Beginning::Start { at: next(0) }, self.now),
            }
        }
    }

    fn connect(&mut self) {
        if self.connected {
            return;
        }
        self.connected = true;
        self.expected = FrameSeq(0);
        for open in self.ledger.session_opened(WINDOW) {
            self.announce(open.lane, open.source.partition.index());
        }
    }

    fn disconnect(&mut self) {
        self.connected = false;
        self.lanes.clear();
        self.wire.clear();
        self.acks.clear();
        self.sent.clear();
        self.told.clear();
        self.ledger.session_closed();
    }

    fn read(&mut self, counts: [u64; PARTITIONS as usize]) {
        let mut sections = Vec::new();
        for (index, (lane, at)) in &mut self.reading {
            let count = counts[*index as usize];
            if count > 0 {
                sections.push((*lane, *at, *at + count));
                *at += count;
            }
        }
        for flow in 0..PARTITIONS as u16 {
            let is_own = |(lane, ..): &&(Lane, u64, u64)| self.ledger.book(*lane).unwrap().source.flow == Flow(flow);
            let own = sections.iter().filter(is_own).copied().collect::<Vec<_>>();
            if !own.is_empty() {
                self.ledger.push(frame(&own), &[], 1, self.now).unwrap();
            }
        }
    }

    fn send(&mut self) {
        while let Some(outgoing) = self.ledger.next_frame() {
            assert_eq!(outgoing.seq, self.expected);
            self.expected = outgoing.seq.next();
            let unacked = self.sent.iter().filter(|frame| self.is_unacked(frame)).map(Frame::wire_length).sum::<usize>();
            assert!(unacked == 0 || unacked + outgoing.bytes.len() <= WINDOW, "{unacked} and {} bytes", outgoing.bytes.len());
            let frame = Frame::decode(outgoing.bytes, MAX_RAW).unwrap();
            self.sent.push(frame.clone());
            self.wire.push_back(frame);
        }
    }

    fn is_unacked(&self, frame: &Frame) -> bool {
        frame.sections().iter().any(|section| {
            let dead = self.lanes.get(&section.lane).is_none_or(|(_, dead)| *dead);
            !dead && self.told.get(&section.lane).is_none_or(|told| *told < section.kind.next().value())
        })
    }

    fn arrive(&mut self) {
        let Some(frame) = self.wire.pop_front() else {
            return;
        };
        for section in frame.sections() {
            // Dead, or never opened in this session.
            let Some((index, false)) = self.lanes.get(&section.lane).copied() else {
                continue;
            };
            let at = self.centre.get(&index).copied();
            match section.kind {
                SectionKind::Start { next } => _ = at.is_none().then(|| self.centre.insert(index, next.value())),
                SectionKind::Data { first, next, .. } => {
                    let at = at.unwrap();
                    assert!(first.value() <= at, "a hole: {first} after {at}");
                    self.centre.insert(index, at.max(next.value()));
                }
                SectionKind::Gap { .. } => panic!("no gaps here"),
            }
            self.acks.push_back((section.lane, self.centre[&index]));
        }
    }

    fn take_acks(&mut self, count: usize) {
        for _ in 0..count {
            if let Some((lane, to)) = self.acks.pop_front() {
                self.ledger.ack(lane, next(to), self.now).unwrap();
                self.told.insert(lane, to);
            }
        }
    }

    fn hold(&mut self, index: u32) {
        let live = self.lanes.iter_mut().find(|(_, (partition, dead))| *partition == index && !*dead);
        if let Some((lane, (_, dead))) = live {
            *dead = true;
            let because = HeldBecause { reason: "other", detail: String::new() };
            let at = self.centre.get(&index).copied().unwrap_or_default();
            self.ledger.hold(*lane, next(at), because, self.now).unwrap();
        }
    }

    fn retry(&mut self, index: u32) {
        let lane = self.ledger.lane_of(&partition(index)).unwrap();
        if self.ledger.book(lane).is_some_and(|book| book.is_dead()) {
            self.open(index);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    /// Whatever happens, nothing reaches the centre out of order or with a hole, nothing is committed too early, the window is kept, and
    /// when the trouble is over everything arrives and the books are empty.
    #[test]
    fn the_books_are_right_whatever_happens(rules in 0..RULES.len(), actions in proptest::collection::vec(action(), 1..150)) {
        let mut world = World::new(rules);
        for action in actions {
            world.play(action);
        }
        world.play(Action::Disconnect);
        world.play(Action::Connect);
        (0..PARTITIONS).for_each(|index| world.play(Action::Retry(index)));
        for _ in 0..1000 {
            world.play(Action::Send);
            world.play(Action::Arrive(10));
            world.play(Action::Acks(100));
        }
        prop_assert!(world.ledger.is_empty(), "{} bytes are left", world.ledger.unacked_bytes());
        for (index, (_, at)) in &world.reading {
            prop_assert_eq!(world.centre.get(index).copied().unwrap_or_default(), *at);
        }
        prop_assert_eq!(world.reading.len(), PARTITIONS as usize, "every partition is read again");
    }
}
