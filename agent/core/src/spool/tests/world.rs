//! Everything around the spool.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use spillway_proto::frame::{Frame, GapReason};
use spillway_proto::message::{OpenLane, ResumePoint};
use spillway_proto::{FrameSeq, Lane};
use spillway_spill_core::entry::Class;

use super::centre::{Answer, Centre, Open};
use super::site::{Site, built, opening};
use super::{Action, LIMITS, next, source};
use crate::lane::{AfterDrain, HeldBecause, LaneSource};
use crate::ledger::{Ledger, Resumed};
use crate::schedule::{Flow, FlowSpec, Order, Scheduler, TopicClass};
use crate::spool::{Append, Begins, Holdings, Spools};
use crate::start::{LogRange, StartPolicy, decide};
use crate::ttl::TimeToLive;

mod ages;
mod disk;

pub(super) const PARTITIONS: u32 = 3;
const MAX_RAW: usize = 1 << 20;
const WINDOW: usize = 200;

/// What each frame holds of the agent's budget.
const FRAME_BUDGET: usize = 10;

/// The flow of each partition, under different rules.
pub(super) const RULES: [[u16; PARTITIONS as usize]; 8] =
    [[0, 0, 0], [0, 1, 2], [2, 2, 0], [1, 0, 1], [0, 0, 0], [0, 1, 2], [2, 2, 0], [1, 0, 1]];

/// From these rules on, all flows but that of class 1 are live-first.
pub(super) const LIVE_FIRST: usize = 4;

fn flow_of(rules: usize, index: u32) -> Flow {
    Flow(RULES[rules][index as usize])
}

/// Classes 0, 1 and 3. Under the first rules there is one flow.
fn ledger(rules: usize, ttl: Option<TimeToLive>, now: Instant) -> Ledger {
    let order = |class| if rules < LIVE_FIRST || class == 1 { Order::Fifo } else { Order::LiveFirst };
    let spec = |class| FlowSpec { class: TopicClass::new(class).unwrap(), ttl, order: order(class), ..FlowSpec::default() };
    let flows = if rules.is_multiple_of(LIVE_FIRST) { vec![spec(2)] } else { [0, 1, 3].map(spec).into() };
    Ledger::with(Scheduler::new(flows), now)
}

fn spools(rules: usize, holds: &Holdings) -> Spools {
    let classes = if rules.is_multiple_of(LIVE_FIRST) {
        vec![Class::DEFAULT]
    } else {
        [0, 1, 3].map(|class| Class::of(Class::BLOCK, class, 0).unwrap()).into()
    };
    Spools::new(LIMITS, classes, holds, |partition| flow_of(rules, partition.partition.index()))
}

pub(super) struct World {
    site: Site,
    centre: Centre,
    ledger: Ledger,
    spool: Spools,
    /// Place in [`RULES`] of the rules in force, and of those that the next agent has.
    rules: (usize, usize),
    now: Instant,
    /// Since when a session is wanted.
    due_since: Option<Instant>,
    connected: bool,
    /// What the source reads: lane and position of each partition.
    reading: BTreeMap<u32, (Lane, u64)>,
    unsynced: VecDeque<Append>,
    /// What each flow holds of the agent's budget.
    budget: BTreeMap<Flow, usize>,
    wire: VecDeque<(FrameSeq, Frame)>,
    acks: VecDeque<(Lane, u64)>,
    reopen: BTreeSet<u32>,
    appended: usize,
    reads_alone: bool,
    /// The spill takes nothing.
    blocked: bool,
    /// The spill has forgotten what waited, and the answer is on its way.
    returning: bool,
    returned: usize,
    /// The collector takes no frame that was spilled: all are too large for it.
    narrow: bool,
    stood_still: usize,
    began: Instant,
    mortal: Option<TimeToLive>,
    passed: usize,
    /// The next session is with a collector that knows no deferred ranges.
    older: bool,
}

impl World {
    pub(super) fn new() -> Self {
        Self::with(false, 0, None)
    }

    /// In which partitions are of several classes.
    pub(super) fn of(rules: usize) -> Self {
        Self::with(false, rules, None)
    }

    /// In which a partition of which nothing is known is read without a session.
    pub(super) fn alone(rules: usize) -> Self {
        Self::with(true, rules, None)
    }

    fn with(reads_alone: bool, rules: usize, mortal: Option<TimeToLive>) -> Self {
        let now = Instant::now();
        let mut world = Self {
            site: Site::default(),
            centre: Centre::default(),
            ledger: ledger(rules, mortal, now),
            spool: spools(rules, &Holdings::default()),
            rules: (rules, rules),
            now,
            due_since: Some(now),
            connected: false,
            reading: BTreeMap::new(),
            unsynced: VecDeque::new(),
            budget: BTreeMap::new(),
            wire: VecDeque::new(),
            acks: VecDeque::new(),
            reopen: BTreeSet::new(),
            appended: 0,
            reads_alone,
            blocked: false,
            returning: false,
            returned: 0,
            narrow: false,
            stood_still: 0,
            began: now,
            mortal,
            passed: 0,
            older: false,
        };
        (0..PARTITIONS).for_each(|index| world.open(index));
        world
    }

    /// In which records of more than ten seconds are too old to be sent.
    pub(super) fn mortal(rules: usize) -> Self {
        Self::with(false, rules, Some(TimeToLive::new(Duration::from_secs(10))))
    }

    pub(super) fn play(&mut self, action: Action) {
        if std::mem::take(&mut self.returning) {
            self.spool.taken_back(&mut self.ledger, self.now).unwrap();
        }
        match action {
            Action::Block(blocked) => self.blocked = blocked,
            Action::Older(older) => self.older = older,
            Action::Rules(rules) => self.rules.1 = rules,
            Action::Narrow(narrow) => self.narrow = narrow,
            Action::Write(counts) => (0..).zip(counts).for_each(|(index, count)| self.write(index, count)),
            Action::Read(counts) => self.read(counts),
            Action::Sync(count) => self.sync(count),
            Action::Drain(count) => (0..count).for_each(|_| self.drain()),
            Action::Send => {
                // Before each frame, also of what was taken back from the spill just now.
                self.expire();
                while let Some(frame) = self.ledger.next_frame() {
                    let (seq, frame) = (frame.seq, Frame::decode(frame.bytes, MAX_RAW).unwrap());
                    self.check_ages(&frame);
                    self.wire.push_back((seq, frame));
                    self.expire();
                }
            }
            // Each frame travels alone: some arrive in the other order.
            Action::Arrive(count) => (0..count).for_each(|_| self.arrive(count.is_multiple_of(3))),
            Action::Acks(count) => {
                for (lane, at) in self.acks.drain(..count.min(self.acks.len())) {
                    self.ledger.ack(lane, next(at), self.now).unwrap();
                }
            }
            Action::Delete => self.delete(),
            Action::Forget => {
                for (index, (start, _)) in &mut self.site.logs {
                    *start = (*start).max(self.site.committed.get(index).copied().unwrap_or(0));
                }
            }
            Action::Wait(seconds) => self.now += Duration::from_secs(seconds),
            Action::Rest => self.due_since = None,
            Action::Due => self.due_since = self.due_since.or(Some(self.now)),
            Action::Connect => self.connect(),
            Action::Disconnect => self.disconnect(),
            Action::Crash(kept) => self.crash(kept),
            Action::Hold(index) => _ = self.centre.refused.insert(index, true),
            Action::Retry(index) => self.retry(index),
            Action::Damage { place, told } => self.damage(place, told),
            Action::DropOldest(count) => (0..count).for_each(|_| self.drop_oldest()),
            Action::DropNewest(count) => self.drop_newest(count),
            Action::LoseGroup(index) => _ = self.site.committed.remove(&index),
            Action::Elsewhere(index, count) => self.elsewhere(index, count),
        }
        self.settle();
    }

    /// The link is back, and everything works: all of it has to arrive.
    pub(super) fn finish(&mut self) {
        (self.narrow, self.older) = (false, false);
        for _ in 0..3 * (20 + self.site.entries.len()) {
            // One that stands still is held once what was sent before is acknowledged.
            (0..PARTITIONS).for_each(|index| self.retry(index));
            for action in [
                Action::Connect,
                Action::Read([9; 3]),
                Action::Sync(9),
                Action::Drain(9),
                Action::Send,
                Action::Arrive(9),
                Action::Acks(99),
            ] {
                self.play(action);
            }
            // What is too old waits a second for more of it.
            self.now += Duration::from_secs(u64::from(self.mortal.is_some()));
        }
        for (index, (_, end)) in &self.site.logs {
            if *end > 0 {
                assert_eq!(
                    self.centre.progress.get(index),
                    Some(end),
                    "partition {index} did not arrive: {:#?}\n{:#?}",
                    self.spool,
                    self.ledger
                );
                let committed = self.site.committed.get(index);
                // The local group may have forgotten it when there was nothing to commit any more.
                assert!(
                    committed == Some(end) || (self.reads_alone && committed.is_none()),
                    "partition {index} is not committed: {committed:?}"
                );
            }
        }
        for (index, (_, end)) in &self.site.logs {
            assert!(self.centre.deferred(*index).is_empty(), "partition {index} is not all there: {:#?}", self.ledger);
            let mut there = self.centre.received.get(index).cloned().unwrap_or_default();
            there.extend(self.centre.lost.iter().filter(|(of, ..)| of == index).map(|(_, offset, _)| *offset));
            there.sort_unstable();
            assert_eq!(there, (0..*end).collect::<Vec<_>>(), "partition {index}: each offset once, or told to be lost");
        }
        assert!(self.ledger.is_empty() && !self.spool.is_in_use(), "something is left: {:#?}", self.spool);
        assert_eq!(self.budget.values().sum::<usize>(), 0, "memory that is never free again: {:?}", self.budget);
        for (index, offset, reason) in &self.centre.lost {
            let at = (*index, *offset);
            match reason {
                Some(GapReason::Expired) => assert!(self.mortal.is_some(), "{at:?} lives for ever"),
                Some(GapReason::Dropped) => assert!(self.site.dropped.contains(&at), "{at:?} was not dropped"),
                // The source had forgotten it.
                _ => assert!(self.site.damaged.contains(&at), "{at:?} is told to be lost ({reason:?}), and was not damaged"),
            }
        }
    }

    /// Offsets of a partition in the order in which they came.
    pub(super) fn received(&self, index: u32) -> Vec<u64> {
        self.centre.received.get(&index).cloned().unwrap_or_default()
    }

    /// How often something was deferred.
    pub(super) fn deferrals(&self) -> usize {
        self.centre.deferrals
    }

    /// How many offsets the centre was told to be lost.
    pub(super) fn lost(&self) -> usize {
        self.centre.lost.len()
    }

    /// What the centre was told to be lost, and why; `None`: it lies before a start.
    pub(super) fn told(&self) -> Vec<(u32, u64, Option<GapReason>)> {
        self.centre.lost.clone()
    }

    pub(super) fn dropped(&self) -> Vec<(u32, u64)> {
        self.site.dropped.iter().copied().collect()
    }

    pub(super) fn returned(&self) -> usize {
        self.returned
    }

    /// How often a partition stood still because the collector takes no frame of that size.
    pub(super) fn stood_still(&self) -> usize {
        self.stood_still
    }

    pub(super) fn is_in_use(&self) -> bool {
        self.spool.is_in_use()
    }

    pub(super) fn appended(&self) -> usize {
        self.appended
    }

    pub(super) fn committed(&self) -> Vec<u64> {
        self.site.committed.values().copied().collect()
    }

    pub(super) fn lane(&self, index: u32) -> Option<Lane> {
        self.ledger.lane_of(&source(index).partition)
    }

    /// What the shell does after each event.
    fn settle(&mut self) {
        self.expire();
        self.spool.check(&mut self.ledger, self.due_since, self.now);
        let appends = self.spool.take_appends();
        self.appended += appends.len();
        self.unsynced.extend(appends);
        self.spool.settle(&mut self.ledger, self.site.entries.is_empty());
        if self.blocked
            && let Some(class) = self.spool.take_back(&self.ledger, |_| true)
        {
            self.returned += self.unsynced.len();
            self.unsynced.retain(|append| class.is_some_and(|class| append.class != class));
            self.returning = true;
        }
        for open in self.ledger.open_late() {
            self.announce(&open);
        }
        for attachment in self.ledger.take_attachments() {
            self.reading.insert(attachment.partition.partition.index(), (attachment.lane, attachment.next.value()));
        }
        for detachment in self.ledger.take_detachments() {
            self.reading.retain(|_, (lane, _)| *lane != detachment.lane);
            self.ledger.detached(detachment.lane);
        }
        let ended = self.ledger.take_ended().into_iter().filter(|ended| !matches!(ended.then, AfterDrain::Hold(_)) && !ended.is_late);
        self.reopen.extend(ended.map(|ended| ended.partition.partition.index()));
        for (partition, committed) in self.ledger.take_commits() {
            let index = partition.partition.index();
            self.assert_committable(index, committed.value());
            self.site.committed.insert(index, committed.value());
        }
        for (flow, bytes) in self.ledger.take_released() {
            let held = self.budget.entry(flow).or_default();
            *held = held.checked_sub(bytes).unwrap_or_else(|| panic!("{flow:?} holds {held}, and gives back {bytes}"));
        }
        if let Some(index) = self.reopen.pop_first() {
            self.open(index);
            self.settle();
        }
    }

    /// Invariant A: what may be forgotten is at the centre or in the spill, unless the spill lost it.
    fn assert_committable(&self, index: u32, committed: u64) {
        let centre = self.centre.progress.get(&index).copied().unwrap_or(0);
        let mut held = BTreeSet::new();
        for section in
            self.site.entries.values().flat_map(|(sections, _)| sections).filter(|section| section.partition.partition.index() == index)
        {
            if let Some((first, next)) = section.kind.range() {
                held.extend(first.value()..next.value());
            }
        }
        let gone = |at| self.site.damaged.contains(&at) || self.site.dropped.contains(&at);
        let safe = |offset| held.contains(&offset) || gone((index, offset));
        let deferred = self.centre.deferred(index);
        let awaited = deferred.iter().flat_map(|range| range.first.value()..range.end.value());
        let missing = awaited.chain(centre..committed).find(|offset| *offset < committed && !safe(*offset));
        assert_eq!(missing, None, "partition {index}: {committed} is to be committed, the centre has {centre} but {deferred:?}");
    }

    fn open(&mut self, index: u32) {
        let open = self.ledger.open(LaneSource { flow: flow_of(self.rules.0, index), ..source(index) }).unwrap();
        let lane = open.lane;
        if self.connected {
            self.announce(&open);
        } else {
            let committed = self.site.committed.get(&index).map(|at| next(*at));
            let known = self.known(index);
            if self.reads_alone {
                let log = self.log(index);
                self.spool.read_on_log(&mut self.ledger, lane, &known, committed, log, StartPolicy::Earliest);
            } else {
                self.spool.read_on(&mut self.ledger, lane, &known, committed);
            }
        }
    }

    fn announce(&mut self, open: &OpenLane) {
        let (lane, index, until) = (open.lane, open.source.partition.index(), open.until);
        let point = self.centre.open(lane, Open { index, until });
        let deferred = self.centre.deferred(index);
        if until.is_none() && !deferred.is_empty() {
            self.ledger.tell_deferred(lane, deferred).unwrap();
        }
        if matches!(self.ledger.resume(lane, point, self.now).unwrap(), Resumed::Begin(_)) {
            self.begin(lane, index, point);
        }
    }

    fn begin(&mut self, lane: Lane, index: u32, point: ResumePoint) {
        let known = self.known(index);
        let log = self.log(index);
        let mut begins = self.spool.begin(&mut self.ledger, lane, point, &known);
        if begins == Begins::Hole {
            begins = self.spool.begin_hole(&mut self.ledger, lane, point, &known, log);
        }
        let section = match begins {
            Begins::Source => self.ledger.begin(lane, point, decide(point, log, StartPolicy::Earliest)),
            Begins::Begun(section) => section,
            Begins::Hole => panic!("the log was looked at"),
        };
        if let Some(section) = section {
            self.ledger.push(opening(section), &[None], 0, self.now).unwrap();
        }
    }

    fn log(&self, index: u32) -> LogRange {
        let (start, end) = self.site.logs.get(&index).copied().unwrap_or_default();
        LogRange { start: next(start), end: next(end) }
    }

    fn elsewhere(&mut self, index: u32, count: u64) {
        let end = self.site.logs.get(&index).copied().unwrap_or_default().1;
        if !self.connected && end > 0 {
            let at = self.centre.progress.get(&index).copied().unwrap_or(0);
            let to = (at + count).min(end).max(at);
            self.centre.progress.insert(index, to);
            self.centre.received.entry(index).or_default().extend(at..to);
        }
    }

    fn read(&mut self, counts: [u64; PARTITIONS as usize]) {
        let mut sections = Vec::new();
        for (index, count) in (0..).zip(counts) {
            let Some((lane, at)) = self.reading.get_mut(&index) else {
                continue;
            };
            let (start, end) = self.site.logs.get(&index).copied().unwrap_or_default();
            if *at < start {
                // What came from the spill may be at the centre before it is read again.
                let there = self.centre.progress.get(&index).is_some_and(|at| *at >= start);
                let gone = there || !self.site.damaged.is_empty() || !self.site.dropped.is_empty();
                assert!(gone, "partition {index}: the source has forgotten {at}, its log begins at {start}");
                self.ledger.drain(*lane, AfterDrain::Reopen);
                continue;
            }
            let to = (*at + count).min(end);
            if to > *at {
                sections.push((*lane, index, *at, to));
                *at = to;
            }
        }
        while let Some((lane, ..)) = sections.first() {
            let flow = |lane: &Lane| self.ledger.book(*lane).map(|book| book.source.flow);
            let own = flow(lane);
            let (together, others) = sections.iter().copied().partition::<Vec<_>, _>(|(lane, ..)| flow(lane) == own);
            sections = others;
            let (frame, timestamps) = built(&together, &self.site.times, |timestamp| self.is_over(timestamp));
            *self.budget.entry(own.unwrap_or_default()).or_default() += FRAME_BUDGET;
            self.spool.built(&mut self.ledger, frame, &timestamps, FRAME_BUDGET, self.now).unwrap();
        }
    }

    fn arrive(&mut self, newest: bool) {
        let arrived = if newest { self.wire.pop_back() } else { self.wire.pop_front() };
        if let Some((seq, frame)) = arrived {
            let Answer { acks, holds } = self.centre.take(seq, frame);
            self.acks.extend(acks);
            for (lane, at) in holds {
                let because = HeldBecause { reason: "test", detail: String::new() };
                self.ledger.hold(lane, next(at), because, self.now).unwrap();
            }
        }
    }

    fn connect(&mut self) {
        if !self.connected {
            self.connected = true;
            // One that does not know them refuses a site with deferred ranges.
            let defers = !self.older || self.centre.deferred.values().any(|deferred| !deferred.is_empty());
            for open in self.ledger.session_opened_with(WINDOW, defers) {
                self.announce(&open);
            }
        }
    }

    fn disconnect(&mut self) {
        if self.connected {
            self.connected = false;
            self.wire.clear();
            self.acks.clear();
            self.centre.clear();
            self.ledger.session_closed();
            self.spool.session_closed(&mut self.ledger);
        }
    }

    fn crash(&mut self, kept: usize) {
        self.returning = false;
        self.disconnect();
        for append in std::mem::take(&mut self.unsynced).into_iter().take(kept) {
            self.insert(append);
        }
        self.rules.0 = self.rules.1;
        self.ledger = ledger(self.rules.0, self.mortal, self.now);
        self.spool = spools(self.rules.0, &self.holdings());
        self.reading.clear();
        self.reopen.clear();
        self.budget.clear();
        (0..PARTITIONS).for_each(|index| self.open(index));
    }

    fn retry(&mut self, index: u32) {
        self.centre.refused.insert(index, false);
        if let Some(lane) = self.ledger.late_of(&source(index).partition) {
            self.ledger.retry_late(lane);
        }
        let lane = self.ledger.lane_of(&source(index).partition);
        if lane.and_then(|lane| self.ledger.book(lane)).is_some_and(|book| book.is_dead()) {
            self.open(index);
        }
    }
}
