//! Where a partition goes on of which the spill knows something.

use spillway_proto::compress::Compressor;
use spillway_proto::frame::{FrameBuilder, GapReason, Section, SectionKind};
use spillway_proto::message::ResumePoint;
use spillway_proto::{Lane, NextOffset, TopicId};
use spillway_spill_core::entry::{Line, StoredSection};
use spillway_spill_core::plan::{Leg, Opening, Plan, Released, plan};
use spillway_spill_core::summary::{Source, Span};

use super::appending::Waiting;
use super::{Append, Spool};
use crate::lane::{AfterDrain, LaneSource, NO_LANE};
use crate::ledger::Ledger;
use crate::start::{Beginning, Gap, LogRange, StartPolicy, decide};

/// What the spill knows of a partition.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// What it holds and held.
    pub spans: Vec<(Source, Span)>,
    /// What it was told of the centre.
    pub released: Option<Released>,
}

/// What follows the centre's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begins {
    /// The spill has nothing of it: as without one, from the source's log.
    Source,
    /// It has begun; this section is to be sent before anything else of the lane.
    Begun(Option<Section>),
    /// Offsets from `first` are missing in the spill. Look at the source's log, then call [`Spools::begin_hole`](super::Spools::begin_hole).
    Hole,
}

impl Known {
    /// What the spill knows of one incarnation.
    pub(super) fn of(&self, topic_id: TopicId) -> Self {
        let own = self.spans.iter().filter(|(source, _)| !source.topic_id.is_other_incarnation(topic_id));
        Self { spans: own.cloned().collect(), released: self.released }
    }

    /// The newest line, and the incarnation that it is of.
    fn newest(&self) -> Option<(Line, TopicId)> {
        let released = self.released.map(|released| (released.line, released.topic_id));
        let spans = self.spans.iter().map(|(source, span)| (span.line, source.topic_id));
        spans.chain(released).max_by_key(|(line, _)| *line)
    }

    /// Where the source is to be read on, and which line that continues; `None`: the spill knows nothing of the partition.
    fn end(&self) -> Option<(NextOffset, Line)> {
        let line = self.spans.iter().map(|(_, span)| span.line).max()?;
        let ends = self.spans.iter().filter(|(_, span)| span.line == line).map(|(_, span)| span.next);
        Some((ends.max()?, line))
    }

    pub(super) fn plan(&self, ledger: &Ledger, lane: Lane, point: ResumePoint) -> Option<Plan> {
        let topic_id = ledger.book(lane)?.source.topic_id;
        Some(plan(&self.spans, self.released, point, topic_id, Some(topic_id)))
    }
}

impl Spool {
    /// Reads a partition's lane on although there is no session, from the end of the spill, or from what the local group has committed if that
    /// is more: everything below is at the centre then. What is read goes into the spill. Without either, the centre is waited for.
    pub(super) fn read_on(&mut self, ledger: &mut Ledger, lane: Lane, known: &Known, committed: Option<NextOffset>) {
        let Some((own, anew)) = own(ledger, lane, known) else {
            return;
        };
        let committed = committed.max(ledger.safe_to(lane)).filter(|_| !anew);
        if let Some(next) = own.end().map(|(end, _)| end).max(committed) {
            self.take_up(ledger);
            ledger.place(lane, known.newest());
            ledger.read_on(lane, next);
        }
    }

    /// As [`Self::read_on`], with a look at the source's log: for a partition of which neither the spill nor the local group may know anything. Where only
    /// `policy` says where to begin, nothing is committed before the centre has answered: what it has may end before that, and is read again then.
    /// What the log's beginning has passed is a gap. A log that ends before what is known was truncated or made anew: the centre is waited for.
    pub(super) fn read_on_log(
        &mut self,
        ledger: &mut Ledger,
        lane: Lane,
        known: &Known,
        committed: Option<NextOffset>,
        log: LogRange,
        policy: StartPolicy,
    ) {
        let Some((own, anew)) = own(ledger, lane, known) else {
            return;
        };
        // The group was asked before what this process has committed reached it.
        let committed = committed.max(ledger.safe_to(lane)).filter(|_| !anew);
        let at = own.end().map(|(end, _)| end).max(committed);
        if at.is_some_and(|at| at > log.end) {
            return;
        }
        // Whatever a topic made anew holds has never been at the centre.
        let policy = if anew { StartPolicy::Earliest } else { policy };
        let next = at.map_or_else(|| decide(ResumePoint::Fresh, log, policy).at(), |at| at.max(log.start));
        self.take_up(ledger);
        ledger.place(lane, known.newest());
        if let Some(gone) = at.filter(|at| *at < log.start) {
            self.store_gap(ledger, lane, gone, log.start);
        }
        if committed.is_none() || at < Some(log.start) {
            ledger.assume(lane);
        }
        ledger.read_on(lane, next);
    }

    /// What the source has removed before it was read is noted in the spill, so that the centre hears of it as what it is.
    fn store_gap(&mut self, ledger: &Ledger, lane: Lane, first: NextOffset, next: NextOffset) {
        let (Some(book), Ok(mut compressor)) = (ledger.book(lane), Compressor::new(1)) else {
            // Without memory for a moment it will be found missing, which is told, too.
            return;
        };
        let (line, LaneSource { partition, topic_id, partition_count, .. }) = (book.line, book.source.clone());
        let class = self.class(book.source.flow);
        let reason = GapReason::Retention;
        let mut builder = FrameBuilder::new();
        builder.gap(NO_LANE, first, next, reason);
        let bytes = builder.encode(&mut compressor).bytes;
        let kind = SectionKind::Gap { first, next, reason };
        let sections = vec![StoredSection { partition, topic_id, partition_count, line, kind }];
        let append = Append { class, sections, bytes };
        self.appends.add(Waiting { sections: Vec::new(), append, copy: None, budget: 0, times: None });
    }

    /// The centre says where a lane goes on that has not begun.
    ///
    /// Before a lane is opened, [`announce`](spillway_spill_core::plan::announce) says for which incarnation: the oldest of which the spill holds
    /// something that is not released. If the source has another one by then, or none, [`LaneSource::outlived_by`](crate::lane::LaneSource) says
    /// so, and the lane ends by itself when all of that is at the centre: then what it released has to be told to the spill before it is asked again.
    pub(super) fn begin(&mut self, ledger: &mut Ledger, lane: Lane, point: ResumePoint, known: &Known) -> Begins {
        if let Some(until) = ledger.book(lane).and_then(|book| book.until) {
            return self.begin_late(ledger, lane, until, point, known);
        }
        if ledger.book(lane).is_some_and(|book| book.source.outlived_by.is_some()) {
            return self.begin_past(ledger, lane, point, known);
        }
        ledger.place(lane, known.newest());
        let went_back = |released: Released| {
            let line = ledger.book(lane).is_some_and(|book| book.line == released.line);
            line && matches!(point, ResumePoint::At(at) if at < released.next)
        };
        let own = own_of(ledger, lane, known);
        let is_planned = own.plan(ledger, lane, point).is_some_and(|plan| plan.goes_on.is_some());
        if !is_planned && known.released.is_some_and(went_back) {
            // A gap that goes back was applied, and nothing behind it is in the spill: what is read from now on is of another line.
            ledger.begin_line(lane);
        }
        self.begin_own(ledger, lane, point, &own)
    }

    fn begin_own(&mut self, ledger: &mut Ledger, lane: Lane, point: ResumePoint, known: &Known) -> Begins {
        let Some(Plan { legs, goes_on: Some((_, at)) }) = known.plan(ledger, lane, point) else {
            return begin_read(ledger, lane, point);
        };
        match legs.first() {
            None => begin_read(ledger, lane, ResumePoint::At(at)),
            Some(Leg::Refill { .. }) => Begins::Hole,
            Some(Leg::Send { opening: Opening::Joins, first, next, .. })
                if legs.len() == 1 && first < next && self.defers(ledger, lane) =>
            {
                self.begin_deferring(ledger, lane, point, *first, *next)
            }
            Some(Leg::Send { opening, first, next, .. }) => {
                let beginning = beginning_of(*opening, *first);
                ledger.read_on(lane, at);
                let section = ledger.begin(lane, point, beginning);
                if legs.len() > 1 {
                    // A lane has one opening: what comes behind the first leg begins with another.
                    ledger.stop_at(lane, *next);
                }
                self.take_up(ledger);
                self.rewind(ledger);
                Begins::Begun(section)
            }
        }
    }

    /// The spill does not have what the centre wants next. It is read again where the source still has it: then everything behind it is there, too.
    /// Else it is a gap, up to what the spill has, or to the source's beginning.
    pub(super) fn begin_hole(&mut self, ledger: &mut Ledger, lane: Lane, point: ResumePoint, known: &Known, log: LogRange) -> Begins {
        let known = &own_of(ledger, lane, known);
        let Some(Plan { legs, goes_on: Some((_, end)) }) = known.plan(ledger, lane, point) else {
            return Begins::Source;
        };
        let Some(Leg::Refill { first, next, .. }) = legs.first() else {
            return self.begin_own(ledger, lane, point, known);
        };
        let (first, next) = (*first, *next);
        let gap = |next| Beginning::Gap(Gap { first, next, reason: GapReason::Damaged });
        let behind = matches!(legs.get(1), Some(Leg::Send { .. }));
        if log.start > first && behind && next <= log.start {
            ledger.read_on(lane, end);
            let section = ledger.begin(lane, point, gap(next));
            self.take_up(ledger);
            self.rewind(ledger);
            return Begins::Begun(section);
        }
        if ledger.book(lane).is_some_and(|book| book.read.is_some()) {
            // It is read behind the hole: a new lane begins before it.
            ledger.abandon(lane);
            return Begins::Begun(None);
        }
        let beginning = if log.start > first { gap(log.start) } else { Beginning::Resume { at: first } };
        Begins::Begun(ledger.begin(lane, point, beginning))
    }

    /// As [`Self::begin`], for an incarnation that the source does not have any more: what is missing in the spill is gone.
    fn begin_past(&mut self, ledger: &mut Ledger, lane: Lane, point: ResumePoint, known: &Known) -> Begins {
        let own = own_of(ledger, lane, known);
        let now = ledger.book(lane).and_then(|book| book.source.outlived_by);
        let newer = |previous| {
            let line = known.spans.iter().filter(|(source, _)| source.topic_id == previous).map(|(_, span)| span.line).max();
            now == Some(previous) || line > own.end().map(|(_, line)| line)
        };
        let is_over = matches!(point, ResumePoint::Recreated { previous, .. } if newer(previous));
        let plan = if is_over { None } else { own.plan(ledger, lane, point) };
        let (Some(Plan { legs, goes_on: Some((_, at)) }), Some((end, line))) = (plan, own.end()) else {
            ledger.abandon(lane);
            return Begins::Begun(None);
        };
        let (beginning, next) = match legs.first() {
            None => (Beginning::Resume { at }, at),
            Some(Leg::Refill { first, next, .. }) => {
                (Beginning::Gap(Gap { first: *first, next: *next, reason: GapReason::Damaged }), *next)
            }
            Some(Leg::Send { opening, first, next, .. }) => (beginning_of(*opening, *first), *next),
        };
        ledger.outlive(lane, end.max(at), line);
        let section = ledger.begin(lane, point, beginning);
        if legs.len() > 1 {
            ledger.stop_at(lane, next);
        }
        ledger.drain(lane, AfterDrain::Reopen);
        self.take_up(ledger);
        self.rewind(ledger);
        Begins::Begun(section)
    }
}

pub(super) fn beginning_of(opening: Opening, first: NextOffset) -> Beginning {
    match opening {
        Opening::Joins => Beginning::Resume { at: first },
        Opening::Start => Beginning::Start { at: first },
        Opening::Gap { first: gone, reason } => Beginning::Gap(Gap { first: gone, next: first, reason }),
    }
}

/// What the spill knows of a lane's own incarnation.
pub(super) fn own_of(ledger: &Ledger, lane: Lane, known: &Known) -> Known {
    ledger.book(lane).map_or_else(Known::default, |book| known.of(book.source.topic_id))
}

/// The same for a lane that may be read from the source, and whether the spill knows of another incarnation before it: then the local group may speak
/// of that one.
fn own(ledger: &Ledger, lane: Lane, known: &Known) -> Option<(Known, bool)> {
    let source = &ledger.book(lane).filter(|book| book.source.outlived_by.is_none())?.source;
    let own = known.of(source.topic_id);
    let anew = own.end().is_none() && known.newest().is_some_and(|(_, id)| id.is_other_incarnation(source.topic_id));
    Some((own, anew))
}

/// The spill has nothing that the centre wants: a lane that is read already goes on with what is on its way there, if that joins. If it does not,
/// a new lane takes over, which asks the source's log.
fn begin_read(ledger: &mut Ledger, lane: Lane, point: ResumePoint) -> Begins {
    let Some(book) = ledger.book(lane).filter(|book| book.read.is_some()) else {
        return Begins::Source;
    };
    match point {
        ResumePoint::At(at) if book.durable <= Some(at) && Some(at) <= book.read => {
            Begins::Begun(ledger.begin(lane, point, Beginning::Resume { at }))
        }
        _ => {
            ledger.abandon(lane);
            Begins::Begun(None)
        }
    }
}
