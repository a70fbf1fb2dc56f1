//! The agent's books: which lanes there are, which frames are not acknowledged, what may be sent, what may be committed.
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

use bytes::Bytes;
use spillway_proto::deferred::Deferred;
use spillway_proto::frame::{EncodedFrame, GapReason, Section, SectionKind, Timestamps};
use spillway_proto::message::{OpenLane, ResumePoint};
use spillway_proto::{FrameSeq, Lane, NextOffset, TopicId, TopicPartition, limits};
use spillway_spill_core::entry::Line;

use super::lane::{AfterDrain, LaneBook, LaneSource, Phase};
use super::schedule::{Flow, FlowSpec, Room, Scheduler};
use super::start::Beginning;

mod endings;
mod entries;
mod expire;
mod frames;
mod handover;
mod late;
mod returned;
mod spilled;

pub use entries::{Attachment, Detachment, Ended, Error, Outgoing, Passed, Resumed};
use expire::oldest;
pub(crate) use expire::times_of;
use frames::{Copy, Frames, Released, Retained};
pub use late::{MAX_LATE_LANES, MAX_SITE_RANGES};
pub use spilled::{FrameCopy, Wanted};

/// The books. See the module.
#[derive(Debug)]
pub struct Ledger {
    lanes: BTreeMap<Lane, LaneBook>,
    /// The newest line of each partition, and its topic's id.
    tails: BTreeMap<TopicPartition, (Line, TopicId)>,
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

/// This part of the session's window is for class 0, where there are topics of it.
const URGENT_WINDOW_PART: usize = 8;

/// The session's window.
#[derive(Debug)]
struct Window {
    next_seq: FrameSeq,
    /// The collector knows deferred ranges.
    defers: bool,
    /// The first lane number that was not given before it.
    first_lane: u32,
    sent_bytes: usize,
    max_bytes: usize,
    /// See [`Ledger::wait_no_longer`].
    waits_no_longer: bool,
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

    /// A session is open: these lanes are to be announced before any frame is sent. Dead lanes are not: a retained frame may still name
    /// them, and the collector skips sections of lanes that were never opened in its session.
    pub fn session_opened(&mut self, max_in_flight_bytes: usize) -> Vec<OpenLane> {
        self.session_opened_with(max_in_flight_bytes, false)
    }

    /// As [`Self::session_opened`]; `defers` tells whether the collector knows deferred ranges.
    pub fn session_opened_with(&mut self, max_bytes: usize, defers: bool) -> Vec<OpenLane> {
        self.prepare_late(defers);
        self.told.clear();
        let (next_seq, first_lane) = (FrameSeq(0), self.next_lane);
        self.session = Some(Window { next_seq, defers, first_lane, sent_bytes: 0, max_bytes, waits_no_longer: false });
        self.frames.rewind();
        for book in self.lanes.values_mut() {
            book.settled = false;
        }
        let alive = self.lanes.iter().filter(|(_, book)| !book.is_dead());
        alive.map(|(lane, book)| book.announcement(*lane)).collect()
    }

    /// The session is over; what was sent and not acknowledged will be sent again.
    pub fn session_closed(&mut self) {
        self.session = None;
    }

    /// The centre says where a lane goes on.
    ///
    /// # Errors
    /// When the lane was never opened, or has its answer in this session already.
    pub fn resume(&mut self, lane: Lane, point: ResumePoint, now: Instant) -> Result<Resumed, Error> {
        let Some(book) = self.known(lane)? else {
            return Ok(Resumed::Ignored);
        };
        if book.is_dead() {
            return Ok(Resumed::Ignored);
        }
        if std::mem::replace(&mut book.settled, true) {
            return Err(Error::AnsweredTwice(lane));
        }
        let done = book.until.filter(|until| ResumePoint::At(*until) == point && book.position.is_none());
        self.replace_deferred(lane);
        if let Some(until) = done {
            // All of the range is there.
            self.late_at_centre(lane, until);
            self.end(lane, AfterDrain::Close);
            return Ok(Resumed::Continues);
        }
        let Some(book) = self.lanes.get(&lane) else {
            return Ok(Resumed::Ignored);
        };
        if book.position.is_none() {
            return Ok(Resumed::Begin(Box::new(book.source.clone())));
        }
        match book.reconcile(point) {
            Ok(None) => Ok(Resumed::Continues),
            Ok(Some(next)) => {
                self.acknowledge(lane, next, now);
                Ok(Resumed::Continues)
            }
            Err(_diverged) => {
                let then = match &book.phase {
                    Phase::Draining { then } => then.clone(),
                    _ => AfterDrain::Reopen,
                };
                self.end(lane, then);
                Ok(Resumed::Diverged)
            }
        }
    }

    /// The source's log was looked at: the lane begins. Answers the section that tells of it, to be pushed in a frame before anything else;
    /// `None` when there is none, or the lane has ended meanwhile, or began already (its section may still wait to be pushed).
    pub fn begin(&mut self, lane: Lane, point: ResumePoint, beginning: Beginning) -> Option<Section> {
        let book = self.lanes.get_mut(&lane).filter(|book| book.phase == Phase::Live && book.base.is_none())?;
        book.origin = Some(point);
        book.base = Some(beginning.at());
        // What was told to be lost before that is taken into account already.
        book.lost_at = book.lost_at.filter(|at| *at >= beginning.at());
        book.goes_back = matches!(beginning, Beginning::Gap(gap) if gap.reason == GapReason::Truncated);
        let begins_anew =
            matches!(beginning, Beginning::Gap(gap) if matches!(gap.reason, GapReason::Truncated | GapReason::TopicRecreated));
        let partition = book.source.partition.clone();
        if book.goes_back {
            self.begin_line(lane);
        }
        if begins_anew {
            self.forget_deferred(&partition);
        }
        let book = self.lanes.get_mut(&lane)?;
        let kind = match beginning {
            Beginning::Resume { at } => {
                (book.position, book.acked) = (Some(at), Some(at));
                if book.read.is_none() {
                    book.read = Some(at);
                    attach(&mut self.attachments, lane, book, at);
                }
                self.commit(lane, at);
                return None;
            }
            Beginning::Start { at } => SectionKind::Start { next: at },
            Beginning::Gap(gap) if gap.reason == GapReason::Deferred => {
                self.note_deferral(lane, gap.first, gap.next);
                SectionKind::Gap { first: gap.first, next: gap.next, reason: gap.reason }
            }
            Beginning::Gap(gap) => SectionKind::Gap { first: gap.first, next: gap.next, reason: gap.reason },
        };
        Some(Section { lane, kind })
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

    /// Who sends next.
    pub fn scheduler(&mut self) -> &mut Scheduler {
        &mut self.scheduler
    }

    /// Lets `adapt` put other bytes in place of the frames that may be sent next, one of each flow, with the same sections: for a peer that does not
    /// know them as they are. The budget that they hold stays as it was, so memory may pass it by what the session's window holds.
    pub fn adapt_next(&mut self, mut adapt: impl FnMut(&Bytes) -> Option<Bytes>) {
        if self.session.is_some() {
            for (flow, _) in self.scheduler.flows() {
                self.frames.adapt_unsent(flow, &mut adapt);
            }
        }
    }

    /// The next frame that may be sent now, if whoever wants may send. As [`Self::next_frame_within`].
    pub fn next_frame(&mut self) -> Option<Outgoing> {
        self.next_frame_within(Room::ALL)
    }

    /// The next frame that may be sent now by those who may send; `None`: ask again after an ack, an answer or a push, when there is more room, or when a flow's cap
    /// allows more ([`Scheduler::next_cap`]).
    pub fn next_frame_within(&mut self, room: Room) -> Option<Outgoing> {
        let heads = self.heads()?;
        let flow = self.scheduler.pick(&heads, room)?;
        let is_other = |(flow, spec): (Flow, FlowSpec)| !spec.class.is_urgent() && heads.get(flow.0 as usize).is_some_and(Option::is_some);
        let others_wait = room.behind > 0 || self.scheduler.flows().any(is_other);
        let bytes = self.frames.mark_sent(flow);
        self.scheduler.sent(flow, bytes.len(), others_wait);
        let window = self.session.as_mut()?;
        window.sent_bytes += bytes.len();
        let seq = window.next_seq;
        window.next_seq = seq.next();
        Some(Outgoing { seq, class: self.scheduler.spec(flow).class, bytes })
    }

    /// True when a frame could be sent now, if there were room for it.
    pub fn waits(&mut self) -> bool {
        self.heads().is_some_and(|heads| heads.iter().any(Option::is_some))
    }

    /// The bytes of each flow's next frame that the session takes now; `None` without a session.
    fn heads(&mut self) -> Option<Vec<Option<usize>>> {
        let window = self.session.as_ref()?;
        let has_urgent = self.scheduler.flows().any(|(_, spec)| spec.class.is_urgent());
        let for_others = if has_urgent { window.max_bytes - window.max_bytes / URGENT_WINDOW_PART } else { window.max_bytes };
        let (lanes, frames) = (&self.lanes, &mut self.frames);
        let waits = |lane: &Lane| lanes.get(lane).is_some_and(|book| !book.is_dead() && !book.settled);
        let head = |(flow, spec): (Flow, FlowSpec)| {
            let frame = frames.unsent(flow)?;
            let most = if spec.class.is_urgent() { window.max_bytes } else { for_others };
            let has_room = window.sent_bytes == 0 || window.sent_bytes + frame.length() <= most;
            (has_room && !frame.is_held() && !frame.lanes().any(waits)).then_some(frame.length())
        };
        Some(self.scheduler.flows().map(head).collect())
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

fn attach(attachments: &mut Vec<Attachment>, lane: Lane, book: &mut LaneBook, next: NextOffset) {
    book.attached = true;
    attachments.push(Attachment { lane, partition: book.source.partition.clone(), next });
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
        let first = match section.kind {
            SectionKind::Data { first, .. } | SectionKind::Gap { first, .. } => first,
            SectionKind::Start { next } => next,
        };
        return Err(Error::NotContiguous { lane: section.lane, position: book.position, first });
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
