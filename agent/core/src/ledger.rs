//! The agent's books: which lanes there are, which frames are not acknowledged, what may be sent, what may be committed.
//!
//! | module | what it is for |
//! |---|---|
//! | `beginnings`, `endings` | how lanes begin, go on and end |
//! | `sending` | which frame is sent next in the open session |
//! | `frames` | the frames that are kept |
//! | `expire` | records that are too old to be sent |
//! | `spilled`, `returned` | what goes into the spill, and comes back when that takes nothing |
//! | `drained`, `lines`, `stops` | what is read from the spill, where its lanes go on, and why they stop |
//! | `late` | deferred ranges and the lanes that bring them |
//! | `handover`, `entries` | what the books tell, and in which words |
//!
//! Invariants, asserted here and played against a model in the tests:
//! - A. Of each lane, what is pushed joins: a section begins where the one before it ended.
//! - B. Frames of a flow are sent in the order in which they were pushed, in each session again, and a frame only when all its lanes have their answer. Which flow
//!   is next the scheduler says; a lane is of one flow, and where it was of another before, its frames wait for those.
//! - C. A frame is released when each of its sections is acknowledged or its lane is dead; not before.
//! - D. What is to be committed at the source is never above what the centre said to have committed, or what is durable in the spill.
//! - E. Bytes sent and not acknowledged stay within the session's window, except for a single frame that is alone. A part of it is for class 0.

use std::collections::BTreeMap;
use std::time::Instant;

use spillway_proto::deferred::Deferred;
use spillway_proto::frame::{EncodedFrame, Section, SectionKind, Timestamps};
use spillway_proto::message::OpenLane;
use spillway_proto::{Lane, NextOffset, TopicId, TopicPartition, limits};
use spillway_spill_core::entry::Line;

use super::lane::{AfterDrain, LaneBook, LaneSource, Phase};
use super::schedule::{Flow, Scheduler};

mod beginnings;
mod drained;
mod endings;
mod entries;
mod expire;
mod frames;
mod handover;
mod late;
mod lines;
mod returned;
mod sending;
mod spilled;
mod stops;

use beginnings::attach;
pub use drained::Wanted;
pub use entries::{Attachment, Detachment, Ended, Error, Outgoing, Passed, Resumed};
use expire::oldest;
pub(crate) use expire::times_of;
use frames::{Copy, Frames, Released, Retained};
pub use late::{MAX_LATE_LANES, MAX_SITE_RANGES};
use sending::Window;
pub use spilled::FrameCopy;

/// The books. See the module.
#[derive(Debug)]
pub struct Ledger {
    lanes: BTreeMap<Lane, LaneBook>,
    /// The newest line of each partition, and its topic's id.
    tails: BTreeMap<TopicPartition, (Line, TopicId)>,
    /// What was offered last to be committed of each partition, and its topic's id. The local group may not have it yet.
    safe: BTreeMap<TopicPartition, (TopicId, NextOffset)>,
    /// The lane that has each partition now, dead or alive.
    newest: BTreeMap<TopicPartition, Lane>,
    /// The late lane that each partition has now, alive or held.
    late: BTreeMap<TopicPartition, Lane>,
    /// What the centre waits for below the partitions' positions.
    deferred: BTreeMap<TopicPartition, Deferred>,
    /// The same as the centre tells it, of lanes that are resumed next.
    told: BTreeMap<Lane, Deferred>,
    /// Late lanes may be missing.
    is_late_due: bool,
    next_lane: u32,
    frames: Frames,
    scheduler: Scheduler,
    session: Option<Window>,
    commits: BTreeMap<TopicPartition, NextOffset>,
    attachments: Vec<Attachment>,
    detachments: Vec<Detachment>,
    ended: Vec<Ended>,
    acked_records: u64,
    passed: Vec<Passed>,
    released_budget: BTreeMap<Flow, usize>,
    progressed: Instant,
}

impl Ledger {
    /// Empty books, with one flow.
    pub fn new(now: Instant) -> Self {
        Self::with(Scheduler::new(Vec::new()), now)
    }

    /// Empty books. The scheduler says which flow sends next.
    pub fn with(scheduler: Scheduler, now: Instant) -> Self {
        Self {
            scheduler,
            lanes: BTreeMap::new(),
            tails: BTreeMap::new(),
            safe: BTreeMap::new(),
            newest: BTreeMap::new(),
            late: BTreeMap::new(),
            deferred: BTreeMap::new(),
            told: BTreeMap::new(),
            is_late_due: false,
            next_lane: 0,
            frames: Frames::default(),
            session: None,
            commits: BTreeMap::new(),
            attachments: Vec::new(),
            detachments: Vec::new(),
            ended: Vec::new(),
            acked_records: 0,
            passed: Vec::new(),
            released_budget: BTreeMap::new(),
            progressed: now,
        }
    }

    /// Opens a lane for a partition that has none, or only a dead one. Answers its announcement, to be sent if a session is open.
    ///
    /// # Errors
    /// When there are as many lanes as a session may have.
    pub fn open(&mut self, source: LaneSource) -> Result<OpenLane, Error> {
        if self.lanes.len() >= limits::MAX_LANES {
            return Err(Error::LanesTooMany);
        }
        let lane = Lane(self.next_lane);
        self.next_lane += 1;
        if let Some(older) = self.newest.insert(source.partition.clone(), lane) {
            self.forget_if_unused(older);
        }
        let book = LaneBook::new(source);
        let announcement = book.announcement(lane);
        self.lanes.insert(lane, book);
        Ok(announcement)
    }

    /// A frame was built. `budget` are the bytes of the agent's own budget that it holds until it is released; `timestamps` are those of the
    /// sections' records, `None` for a section without any.
    ///
    /// # Errors
    /// When a section does not join its lane: a bug, and to go on would lose or duplicate records.
    pub fn push(&mut self, frame: EncodedFrame, timestamps: &[Option<Timestamps>], budget: usize, now: Instant) -> Result<(), Error> {
        let flow = self.flow_of(&frame.sections);
        let times = times_of(&frame.sections, timestamps);
        let mut retained = Retained::new(flow, frame.bytes, budget, Copy::None, now).dated(times);
        for (place, section) in frame.sections.iter().enumerate() {
            let Some(book) = self.lanes.get_mut(&section.lane) else {
                return Err(Error::LaneUnknown(section.lane));
            };
            book.frames += 1;
            let open = !book.is_dead();
            let from = book.position.unwrap_or_else(|| section.kind.next());
            if open {
                // What the spill holds of it may be read already.
                let first_of_lane = book.position.is_none() && book.read.is_none() && book.source.outlived_by.is_none();
                advance(book, section)?;
                if let Some(next) = book.base.filter(|_| first_of_lane && !book.goes_back) {
                    attach(&mut self.attachments, section.lane, book, next);
                }
            }
            retained.add(section, (from, section.kind.next()), oldest(timestamps.get(place).copied().flatten()), open);
        }
        self.keep(retained, now);
        Ok(())
    }

    /// The flow of a frame: its lanes are all of one.
    pub fn flow_of(&self, sections: &[Section]) -> Flow {
        let book = sections.iter().find_map(|section| self.lanes.get(&section.lane));
        book.map_or_else(Flow::default, |book| book.source.flow)
    }

    /// The centre has committed everything of the lane below `next`.
    ///
    /// # Errors
    /// When it was never sent.
    pub fn ack(&mut self, lane: Lane, next: NextOffset, now: Instant) -> Result<(), Error> {
        let Some(book) = self.known(lane)? else {
            return Ok(());
        };
        if book.is_dead() || book.acked.is_some_and(|acked| next <= acked) {
            return Ok(());
        }
        if Some(next) > book.position || Some(next) < book.base {
            return Err(Error::AckBeyond { lane, next, position: book.position });
        }
        self.acknowledge(lane, next, now);
        Ok(())
    }

    /// The partition is not mirrored any more: nothing of it is kept but what frames name.
    pub fn forget(&mut self, partition: &TopicPartition) {
        if let Some(lane) = self.newest.remove(partition) {
            self.forget_if_unused(lane);
        }
    }

    fn known(&mut self, lane: Lane) -> Result<Option<&mut LaneBook>, Error> {
        if lane.0 >= self.next_lane {
            return Err(Error::LaneUnknown(lane));
        }
        Ok(self.lanes.get_mut(&lane))
    }

    fn acknowledge(&mut self, lane: Lane, next: NextOffset, now: Instant) {
        let Some(book) = self.lanes.get(&lane) else {
            return;
        };
        if book.until.is_some() {
            self.late_at_centre(lane, next);
        } else {
            self.deferred_at_centre(lane);
        }
        let Some(book) = self.lanes.get_mut(&lane) else {
            return;
        };
        // A gap that goes back was waiting for this.
        let opened = book.acked.is_none() && book.goes_back;
        let before = book.acked.replace(next);
        book.position = book.position.max(Some(next));
        if let Some(base) = book.base.filter(|_| opened && book.phase == Phase::Live) {
            attach(&mut self.attachments, lane, book, base);
        }
        self.commit(lane, next);
        self.progressed = now;
        let settled = self.frames.settle(lane, |section| section.next <= next);
        self.acked_records += settled.records;
        self.pass(lane, before, &settled);
        self.sweep();
        self.stop_at_loss(lane);
        self.end_if_drained(lane);
    }

    /// Offers a position for the local group: never below what the centre has, or what is durable in the spill.
    fn commit(&mut self, lane: Lane, next: NextOffset) {
        if let Some(book) = self.lanes.get(&lane).filter(|book| !book.is_assumed || book.base.is_some()) {
            let is_leaving = matches!(book.phase, Phase::Draining { then: AfterDrain::Reopen | AfterDrain::Close });
            if is_leaving || book.source.outlived_by.is_some() || book.until.is_some() {
                // In the topic that has its name now, or in a truncated log, its offsets may mean something else.
                return;
            }
            let next = Some(next).max(book.durable).max(book.acked).unwrap_or(next);
            self.safe.insert(book.source.partition.clone(), (book.source.topic_id, next));
            self.commits.insert(book.source.partition.clone(), next);
        }
    }

    fn keep(&mut self, frame: Retained, now: Instant) {
        if self.frames.is_empty() {
            self.progressed = now;
        }
        self.frames.push(frame);
        self.sweep();
    }

    /// Drops released frames, gives their bytes back, forgets dead lanes that nothing names any more.
    fn sweep(&mut self) {
        for Released { flow, budget, length, lanes, sent } in self.frames.take_released() {
            *self.released_budget.entry(flow).or_default() += budget;
            if let Some(window) = self.session.as_mut().filter(|_| sent) {
                window.sent_bytes -= length;
            }
            lanes.into_iter().for_each(|lane| self.let_go_of(lane));
        }
    }
}

/// Moves a lane's position over a section: invariant A.
fn advance(book: &mut LaneBook, section: &Section) -> Result<(), Error> {
    let has_begun = book.position.is_some();
    let joins = match (section.kind, book.position) {
        (kind, Some(position)) => kind.range().is_some_and(|(first, _)| first == position),
        (SectionKind::Start { .. } | SectionKind::Gap { .. }, None) => book.base == Some(section.kind.next()),
        (SectionKind::Data { .. }, None) => false,
    };
    if !joins {
        return Err(Error::NotContiguous { lane: section.lane, position: book.position, first: section.kind.first() });
    }
    book.position = Some(section.kind.next());
    // A lane that is read already may begin behind that, or before.
    if has_begun || book.read.is_none() {
        book.read = book.position;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
