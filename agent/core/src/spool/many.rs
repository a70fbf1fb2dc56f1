//! A spool for each flow.
//!
//! What an earlier process spilled under other rules may have a partition's records in another flow's class. Then there is one spool for all flows, which reads
//! the spill in the order in which it was written, until all of that is deleted.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use spillway_proto::frame::{EncodedFrame, Timestamps};
use spillway_proto::message::ResumePoint;
use spillway_proto::{Lane, NextOffset, TopicPartition};
use spillway_spill_core::entry::{Class, EntryId};

use super::{Append, Begins, Known, ReadEntry, Spool, SpoolLimits};
use crate::ledger::{Error, Ledger};
use crate::schedule::{Flow, Scope};
use crate::start::{LogRange, StartPolicy};

/// What a spill holds from an earlier process.
#[derive(Debug, Clone, Default)]
pub struct Holdings {
    /// Its newest entry; [`EntryId::ZERO`]: it holds nothing.
    pub last: EntryId,
    /// The partitions of each of its classes.
    pub classes: BTreeMap<Class, Vec<TopicPartition>>,
}

/// The spools of all flows. See the module.
#[derive(Debug)]
pub struct Spools {
    limits: SpoolLimits,
    classes: Arc<[Class]>,
    /// One for all flows, or one for each, by number.
    list: Vec<Spool>,
    /// Who asked for what is read, in order.
    asked: VecDeque<usize>,
}

impl Spools {
    /// `classes` are the classes of the flows in the spill, by number, each another one. `flow_of` tells the flow of a partition.
    pub fn new(limits: SpoolLimits, classes: Vec<Class>, holds: &Holdings, flow_of: impl Fn(&TopicPartition) -> Flow) -> Self {
        let class_of = |partition: &TopicPartition| classes.get(flow_of(partition).0 as usize).copied();
        let fits = holds.classes.iter().all(|(class, partitions)| partitions.iter().all(|partition| class_of(partition) == Some(*class)));
        let classes: Arc<[Class]> = if classes.is_empty() { Arc::new([Class::DEFAULT]) } else { classes.into() };
        let mut spools = Self { limits, classes, list: Vec::new(), asked: VecDeque::new() };
        if fits {
            spools.part(holds.last, |class| holds.classes.contains_key(&class));
        } else {
            spools.list = vec![Spool::new(limits, Scope::All, Arc::clone(&spools.classes), holds.last, holds.last > EntryId::ZERO)];
        }
        spools
    }

    /// With one flow, of the default class. The spill holds entries up to `last` from an earlier process; [`EntryId::ZERO`]: none.
    pub fn single(limits: SpoolLimits, last: EntryId) -> Self {
        let mut classes = BTreeMap::new();
        if last > EntryId::ZERO {
            classes.insert(Class::DEFAULT, Vec::new());
        }
        Self::new(limits, vec![Class::DEFAULT], &Holdings { last, classes }, |_| Flow::default())
    }

    /// True while frames of any flow go through the spill.
    pub fn is_in_use(&self) -> bool {
        self.list.iter().any(Spool::is_in_use)
    }

    /// True while frames of this flow do.
    pub fn uses(&self, flow: Flow) -> bool {
        self.place(flow).and_then(|place| self.list.get(place)).is_some_and(Spool::is_in_use)
    }

    /// True while there is one for all flows.
    pub fn is_joined(&self) -> bool {
        self.list.len() < self.classes.len()
    }

    /// A frame was built: it goes to the ledger, or to the spill's end.
    ///
    /// # Errors
    /// When a section does not join its lane: a bug, and to go on would lose or duplicate records.
    pub fn built(
        &mut self,
        ledger: &mut Ledger,
        frame: EncodedFrame,
        timestamps: &[Option<Timestamps>],
        budget: usize,
        now: Instant,
    ) -> Result<(), Error> {
        match self.of(ledger.flow_of(&frame.sections)) {
            Some(spool) => spool.built(ledger, frame, timestamps, budget, now),
            None => ledger.push(frame, timestamps, budget, now),
        }
    }

    /// Begins to use the spill when it is time. What waits grows old from `due_since` on, when a session was wanted; without one by plan (`None`) it does not: the disk is
    /// spared, and nothing is lost with it, since it is not committed at the source.
    pub fn check(&mut self, ledger: &mut Ledger, due_since: Option<Instant>, now: Instant) {
        self.list.iter_mut().for_each(|spool| spool.check(ledger, due_since, now));
    }

    /// Nothing is lost with what is in memory: everything that was read is acknowledged, or durable in the spill.
    pub fn is_safe(&self, ledger: &Ledger) -> bool {
        self.list.iter().all(|spool| ledger.unacked_bytes_of(spool.scope) == 0 || spool.is_durable(ledger))
    }

    /// What is to be put at the spill's end, in order. Each is confirmed by [`Self::stored`].
    pub fn take_appends(&mut self) -> Vec<Append> {
        self.list.iter_mut().flat_map(Spool::take_appends).collect()
    }

    /// The spill takes nothing of the classes that `is_blocked` says. Answers a class, once, of which something waits that the line wants next, `Some(None)` for all of
    /// them. That is to be taken back, so that the line does not stand still; [`Self::taken_back`] follows.
    pub fn take_back(&mut self, ledger: &Ledger, is_blocked: impl Fn(Class) -> bool) -> Option<Option<Class>> {
        if self.list.iter().any(|spool| spool.appends.taking_back) {
            return None;
        }
        for spool in &mut self.list {
            let own = spool.own_class();
            let blocked = own.map_or_else(|| self.classes.iter().any(|class| is_blocked(*class)), &is_blocked);
            if blocked && spool.wants_back(ledger) {
                spool.appends.taking_back = true;
                return Some(own);
            }
        }
        None
    }

    /// The spill has forgotten what it had not confirmed of a class, or of all: that goes straight to the ledger, or to the spill's end again where something before
    /// it is still there.
    ///
    /// # Errors
    /// When the books do not add up: a bug.
    pub fn taken_back(&mut self, ledger: &mut Ledger, now: Instant) -> Result<(), Error> {
        // One at a time.
        match self.list.iter_mut().find(|spool| spool.appends.taking_back) {
            Some(spool) => spool.taken_back(ledger, now),
            None => Ok(()),
        }
    }

    /// The oldest `count` appends of a class that were not confirmed are durable, or dropped by policy and noted durably; `last` is the newest entry.
    pub fn stored(&mut self, ledger: &mut Ledger, class: Class, count: usize, last: EntryId) {
        let flow = self.classes.iter().position(|own| *own == class).and_then(|place| u16::try_from(place).ok());
        if let Some(spool) = self.of(Flow(flow.unwrap_or(0))) {
            spool.stored(ledger, class, count, last);
        }
    }

    /// The session is over: memory is freed of what the spill holds.
    pub fn session_closed(&mut self, ledger: &mut Ledger) {
        self.list.iter_mut().for_each(|spool| spool.session_closed(ledger));
    }

    /// The entry after this one, of this class if there is one, is to be read now, and given to [`Self::read`]. Ask until there is none; the answers are to come in the
    /// order of the questions, of which each flow has one at a time.
    pub fn next_read(&mut self, ledger: &Ledger) -> Option<(Option<Class>, EntryId)> {
        let is_joined = self.is_joined();
        for (place, spool) in self.list.iter_mut().enumerate() {
            if let Some(after) = spool.next_read(ledger) {
                self.asked.push_back(place);
                let own = spool.own_class();
                return Some((own.filter(|_| !is_joined), after));
            }
        }
        None
    }

    /// What was asked for by [`Self::next_read`]; `None`: there is no further entry. `largest_raw` is the largest raw frame that the session allows, in
    /// bytes: what was spilled under another collector, or before the first session, may be larger. Answers the partitions that stand still because of
    /// that, as they do for a record from the source that does not fit.
    ///
    /// # Errors
    /// When the books do not add up: a bug.
    pub fn read(
        &mut self,
        ledger: &mut Ledger,
        entry: Option<ReadEntry>,
        largest_raw: usize,
        now: Instant,
    ) -> Result<Vec<TopicPartition>, Error> {
        match self.asked.pop_front().and_then(|place| self.list.get_mut(place)) {
            Some(spool) => spool.read(ledger, entry, largest_raw, now),
            None => Ok(Vec::new()),
        }
    }

    /// To be called after everything else: leaves the spill when its end is reached, and finds what is lost there. `is_empty`: it has given back everything, also of
    /// partitions that stand still.
    pub fn settle(&mut self, ledger: &mut Ledger, is_empty: bool) {
        self.list.iter_mut().for_each(|spool| spool.settle(ledger));
        let last = match self.list.first() {
            Some(spool) if is_empty && self.is_joined() && spool.is_at_rest() => spool.cursor.last(),
            _ => return,
        };
        self.part(last, |_| false);
    }

    /// Reads a partition's lane on although there is no session, from the end of the spill, or from what the local group has committed if that
    /// is more: everything below is at the centre then. What is read goes into the spill. Without either, the centre is waited for.
    pub fn read_on(&mut self, ledger: &mut Ledger, lane: Lane, known: &Known, committed: Option<NextOffset>) {
        if let Some(spool) = self.of_lane(ledger, lane) {
            spool.read_on(ledger, lane, known, committed);
        }
    }

    /// As [`Self::read_on`], with a look at the source's log: for a partition of which neither the spill nor the local group may know anything. Where only
    /// `policy` says where to begin, nothing is committed before the centre has answered: what it has may end before that, and is read again then.
    /// What the log's beginning has passed is a gap. A log that ends before what is known was truncated or made anew: the centre is waited for.
    pub fn read_on_log(
        &mut self,
        ledger: &mut Ledger,
        lane: Lane,
        known: &Known,
        committed: Option<NextOffset>,
        log: LogRange,
        policy: StartPolicy,
    ) {
        if let Some(spool) = self.of_lane(ledger, lane) {
            spool.read_on_log(ledger, lane, known, committed, log, policy);
        }
    }

    /// The centre says where a lane goes on that has not begun.
    ///
    /// Before a lane is opened, [`announce`](spillway_spill_core::plan::announce) says for which incarnation: the oldest of which the spill holds
    /// something that is not released. If the source has another one by then, or none, [`LaneSource::outlived_by`](crate::lane::LaneSource) says
    /// so, and the lane ends by itself when all of that is at the centre: then what it released has to be told to the spill before it is asked again.
    pub fn begin(&mut self, ledger: &mut Ledger, lane: Lane, point: ResumePoint, known: &Known) -> Begins {
        self.of_lane(ledger, lane).map_or(Begins::Source, |spool| spool.begin(ledger, lane, point, known))
    }

    /// The spill does not have what the centre wants next. It is read again where the source still has it: then everything behind it is there, too.
    /// Else it is a gap, up to what the spill has, or to the source's beginning.
    pub fn begin_hole(&mut self, ledger: &mut Ledger, lane: Lane, point: ResumePoint, known: &Known, log: LogRange) -> Begins {
        self.of_lane(ledger, lane).map_or(Begins::Source, |spool| spool.begin_hole(ledger, lane, point, known, log))
    }

    /// One for each flow from now on.
    fn part(&mut self, last: EntryId, holds: impl Fn(Class) -> bool) {
        let flows = (0..).map(Flow).zip(self.classes.iter());
        let scope = |flow| if self.classes.len() == 1 { Scope::All } else { Scope::One(flow) };
        let spool = |(flow, class): (Flow, &Class)| Spool::new(self.limits, scope(flow), Arc::clone(&self.classes), last, holds(*class));
        self.list = flows.map(spool).collect();
    }

    fn place(&self, flow: Flow) -> Option<usize> {
        let place = if self.is_joined() { 0 } else { flow.0 as usize };
        (place < self.list.len()).then_some(place)
    }

    fn of(&mut self, flow: Flow) -> Option<&mut Spool> {
        let place = self.place(flow)?;
        self.list.get_mut(place)
    }

    fn of_lane(&mut self, ledger: &Ledger, lane: Lane) -> Option<&mut Spool> {
        let flow = ledger.book(lane)?.source.flow;
        self.of(flow)
    }
}
