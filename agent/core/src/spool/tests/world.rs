//! Everything around the spool.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use spillway_proto::frame::Frame;
use spillway_proto::{FrameSeq, Lane};

use super::centre::{Centre, Open};
use super::site::Site;
use super::{Action, next};
use crate::lane::AfterDrain;
use crate::ledger::Ledger;
use crate::schedule::Flow;
use crate::spool::{Append, Holdings, Spools};
use crate::ttl::TimeToLive;

mod ages;
mod checks;
mod disk;
mod lanes;
mod link;
mod rules;
mod source;

pub(super) use rules::{LIVE_FIRST, RULES};
use rules::{ledger, spools};

pub(super) const PARTITIONS: u32 = 3;
const MAX_RAW: usize = 1 << 20;
const WINDOW: usize = 200;

/// What each frame holds of the agent's budget.
const FRAME_BUDGET: usize = 10;

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

    /// In which records of more than ten seconds are too old to be sent.
    pub(super) fn mortal(rules: usize) -> Self {
        Self::with(false, rules, Some(TimeToLive::new(Duration::from_secs(10))))
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
}
