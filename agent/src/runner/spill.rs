//! The spill beside the books: what the spool wants of the disk is passed on, and what the disk answers is taken in.
//!
//! The store's thread obeys in order. So the answers to [`Command::Tell`] come in the order of the questions, and whatever was released before a
//! question is known in its answer.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::future::pending;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use spillway_agent_core::forecast::Forecast;
use spillway_agent_core::lane::{LaneSource, RECORD_TOO_LARGE};
use spillway_agent_core::spool::{Append, Holdings, ReadEntry, SpoolLimits, Spools};
use spillway_agent_core::start::LogRange;
use spillway_proto::compress::Decompressor;
use spillway_proto::frame::{Frame, Section, Translator};
use spillway_proto::{Lane, NextOffset, TopicPartition, limits};
use spillway_spill::admission::Full;
use spillway_spill::entry::{Class, Entry};
use spillway_spill::keeper::{Command, Event, Keeper};
use spillway_spill::store::{Release, StoredEntry, Usage};
use tokio::sync::mpsc;

use super::translate::translated;
use super::{Error, Runner};
use crate::dictionaries::Dictionaries;
use crate::flows::Flows;
use crate::source::BuiltFrame;
use crate::survey::Question;

mod lanes;
mod told;

/// An opened spill, as the runner takes it over.
pub struct SpillParts {
    /// What the store's thread tells. Dropped before the thread, which may wait for room here.
    pub events: mpsc::Receiver<Event>,
    /// The store's thread.
    pub keeper: Keeper,
    /// What was found.
    pub holds: Holdings,
    /// Partitions that were found.
    pub partitions: Vec<TopicPartition>,
    /// The figures at the start.
    pub usage: Usage,
    /// Most bytes on disk.
    pub max_bytes: u64,
    /// When it is used.
    pub limits: SpoolLimits,
    /// The classes of the flows in the spill, by number.
    pub classes: Vec<Class>,
    /// Makes frames readable without what this process knows.
    pub translator: Translator,
    /// Looks into frames.
    pub decompressor: Decompressor,
}

impl fmt::Debug for SpillParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpillParts").field("holds", &self.holds.last).field("usage", &self.usage).finish_non_exhaustive()
    }
}

/// The spill and what is under way with it.
pub(super) struct Spill {
    pub(super) spool: Spools,
    // Dropped before the thread, which may wait for room here.
    events: mpsc::Receiver<Event>,
    keeper: Keeper,
    translator: Translator,
    dictionaries: Arc<Dictionaries>,
    limits: SpoolLimits,
    /// The classes of the flows, by number.
    classes: Vec<Class>,
    /// Flows whose records may be too old to be sent.
    mortal: BTreeSet<usize>,
    decompressor: Decompressor,
    /// Commands that the store's thread had no room for, oldest first. Bounded by the budget of frames and the number of partitions.
    waiting: VecDeque<Command>,
    /// What each answer to [`Command::Tell`] is for, in order.
    asked: VecDeque<Purpose>,
    /// Partitions that wait for such an answer before their lane is opened.
    opening: BTreeMap<TopicPartition, LaneSource>,
    /// Partitions of which the store may know something.
    known: BTreeSet<TopicPartition>,
    /// Partitions found at the start, until the topics were looked at.
    found: Vec<TopicPartition>,
    /// What the store was told last of what the centre has.
    released: BTreeMap<TopicPartition, Release>,
    /// What is at the centre, once the lane of a topic that the source does not have any more is over.
    past: BTreeMap<TopicPartition, Release>,
    /// Lanes whose partitions are looked at, to be read on without a session.
    ahead: BTreeSet<Lane>,
    pub(super) max_bytes: u64,
    pub(super) usage: Usage,
    /// The figures as the metrics have them.
    pub(super) told: Usage,
    pub(super) forecast: Forecast,
    /// Classes of which something waits for room.
    pub(super) full: BTreeMap<Class, Full>,
    pub(super) trouble: Option<String>,
}

/// What a question to the store is for.
enum Purpose {
    /// Which incarnation a lane is to be opened for.
    Open,
    /// What was noted durably: this may be sent now.
    Send(Section),
    /// How a lane begins.
    Begin(Box<Question>),
    /// How it begins, with what the source still has.
    Hole(Box<Question>, LogRange),
    /// Where to read on without a session.
    Ahead { lane: Lane, committed: Option<NextOffset>, log: LogRange, first: NextOffset },
}

/// The spill's next event; never without a spill. Cancel safe.
pub(super) async fn next_event(spill: &mut Option<Spill>) -> Option<Event> {
    match spill {
        Some(spill) => spill.events.recv().await,
        None => pending().await,
    }
}

impl Spill {
    pub(super) fn new(parts: SpillParts, flows: &Flows, dictionaries: Arc<Dictionaries>) -> Self {
        let SpillParts { keeper, events, holds, partitions, usage, max_bytes, limits, classes, translator, decompressor } = parts;
        let (flow_of, with_ttl) = (&flows.of, flows.specs.iter().enumerate().filter(|(_, spec)| spec.ttl.is_some()));
        Self {
            spool: Spools::new(limits, classes.clone(), &holds, |partition| flow_of(partition.topic.as_str())),
            keeper,
            events,
            translator,
            dictionaries,
            limits,
            classes,
            mortal: with_ttl.map(|(flow, _)| flow).collect(),
            decompressor,
            waiting: VecDeque::new(),
            asked: VecDeque::new(),
            opening: BTreeMap::new(),
            known: partitions.iter().cloned().collect(),
            found: partitions,
            released: BTreeMap::new(),
            past: BTreeMap::new(),
            ahead: BTreeSet::new(),
            max_bytes,
            usage,
            told: usage,
            forecast: Forecast::default(),
            full: BTreeMap::new(),
            trouble: None,
        }
    }

    fn give(&mut self, command: Command) {
        self.waiting.push_back(command);
        self.pass_on();
    }

    /// Gives the store what it had no room for.
    fn pass_on(&mut self) {
        while let Some(command) = self.waiting.pop_front() {
            if let Err(command) = self.keeper.give(command) {
                self.waiting.push_front(command);
                return;
            }
        }
    }

    fn tell(&mut self, partition: TopicPartition, purpose: Purpose) {
        self.asked.push_back(purpose);
        self.give(Command::Tell(partition));
    }

    fn decoded(&mut self, stored: StoredEntry) -> Result<ReadEntry, Error> {
        let StoredEntry { id, identity, frame } = stored;
        let failed = |source| Error::SpilledFrame { id, source };
        let frame = Frame::decode(frame, limits::MAX_FRAME_RAW_BYTES).map_err(failed)?;
        // How old its records are is found in its body only. What was spilled under other rules may be of any flow.
        let may_expire = self
            .classes
            .iter()
            .position(|class| *class == identity.class)
            .map_or(!self.mortal.is_empty(), |flow| self.mortal.contains(&flow));
        let times = if may_expire { frame.timestamps(&mut self.decompressor).map_err(failed)? } else { None };
        Ok(ReadEntry { id, created_ms: identity.created_ms, sections: identity.sections, frame, times })
    }

    fn append(&mut self, append: Append) {
        let Append { class, sections, bytes } = append;
        let bytes = translated(&mut self.translator, &self.dictionaries, &bytes).unwrap_or(bytes);
        for section in &sections {
            if !self.known.contains(&section.partition) {
                self.known.insert(section.partition.clone());
            }
        }
        self.give(Command::Append(Entry { class, created_ms: now_ms(), sections, frame: bytes }));
    }
}

impl Runner {
    pub(super) fn on_frame(&mut self, built: BuiltFrame) -> Result<(), Error> {
        let BuiltFrame { frame, timestamps, budget, .. } = built;
        let now = Instant::now();
        let outcome = match &mut self.spill {
            Some(spill) => spill.spool.built(&mut self.ledger, frame, &timestamps, budget, now),
            None => self.ledger.push(frame, &timestamps, budget, now),
        };
        outcome.map_err(Error::Books)
    }

    pub(super) fn on_spill(&mut self, event: Option<Event>) -> Result<(), Error> {
        let Some(spill) = &mut self.spill else {
            return Ok(());
        };
        match event.ok_or(Error::Spill)? {
            Event::Stored { class, count, last } => spill.spool.stored(&mut self.ledger, class, count, last),
            Event::Read(entry) => {
                let entry = entry.map(|stored| spill.decoded(stored)).transpose()?;
                let held = spill.spool.read(&mut self.ledger, entry, self.largest_raw, Instant::now()).map_err(Error::Books)?;
                for partition in held {
                    tracing::error!(
                        event = "held", topic = %partition.topic, partition = partition.partition.index(), reason = RECORD_TOO_LARGE,
                        limit = self.largest_raw,
                        "a spilled frame is larger than the collector takes: raise session.max_frame_bytes there. This partition stands still, the others go on"
                    );
                }
            }
            Event::TakenBack => {
                tracing::warn!(
                    event = "spill_passed_by",
                    "the spill takes nothing, and the line is up: records go straight to the line for now, and wait in the site's Kafka where it is too slow"
                );
                spill.spool.taken_back(&mut self.ledger, Instant::now()).map_err(Error::Books)?;
            }
            Event::Known { partition, spans, released } => self.on_known(&partition, spans, released)?,
            Event::Report(report) => self.on_report(report),
            Event::Unreported(count) => {
                tracing::error!(count, "the spill has more damage to tell than fits; `spillway-agent spill verify` shows all of it");
            }
            Event::Usage(usage) => spill.usage = usage,
            Event::Full(class, full) => self.on_full(class, full),
            Event::Trouble(trouble) => self.on_trouble(trouble),
        }
        Ok(())
    }

    /// What is done for the spill after every event.
    pub(super) fn keep_spill(&mut self) {
        let Some(spill) = &mut self.spill else {
            return;
        };
        spill.pass_on();
        let was_in_use = spill.spool.is_in_use();
        // Memory that is half full between two sessions is emptied as in an outage: the rest is for what comes until the next one.
        let is_half_full = || self.parts.budget.taken() >= self.parts.budget.total() / 2;
        let due_since = self.planned.due_since().or_else(|| is_half_full().then_some(self.away_since));
        spill.spool.check(&mut self.ledger, due_since, Instant::now());
        for append in spill.spool.take_appends() {
            spill.append(append);
        }
        if !self.looked || !spill.opening.is_empty() {
            // It is not known yet what lanes there are, so nothing that is read would be wanted.
            return;
        }
        spill.spool.settle(&mut self.ledger, spill.usage.entries == 0);
        let (full, in_trouble) = (&spill.full, spill.trouble.is_some());
        if let Some(class) = spill.spool.take_back(&self.ledger, |class| in_trouble || full.contains_key(&class)) {
            spill.give(Command::TakeBack(class));
        }
        while let Some((class, after)) = spill.spool.next_read(&self.ledger) {
            spill.give(Command::Read(class, after));
        }
        match (was_in_use, spill.spool.is_in_use()) {
            (false, true) => tracing::info!(
                event = "spill_begins",
                "the line, or a rate, lets out less than is read: records go into the spill from now on"
            ),
            (true, false) => {
                tracing::info!(event = "spill_drained", "what the spill held is at the centre: records go straight to the line again")
            }
            _ => {}
        }
    }

    /// Nothing is lost if the agent ends now: everything that was read is acknowledged, or durable in the spill.
    pub(super) fn is_safe(&self) -> bool {
        self.ledger.is_empty() || self.spill.as_ref().is_some_and(|spill| spill.spool.is_safe(&self.ledger))
    }
}

pub(super) fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}
