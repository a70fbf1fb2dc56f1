//! Where a partition goes on of which the spill knows something.

use spillway_proto::compress::Compressor;
use spillway_proto::frame::{FrameBuilder, GapReason, Section, SectionKind};
use spillway_proto::message::ResumePoint;
use spillway_proto::{Lane, NextOffset};
use spillway_spill_core::entry::{Line, StoredSection};
use spillway_spill_core::plan::{Leg, Opening, Plan, Released, plan};
use spillway_spill_core::summary::{Source, Span};

use super::{Append, NO_LANE, Spool, Waiting};
use crate::lane::LaneSource;
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
    /// Offsets from `first` are missing in the spill. Look at the source's log, then call [`Spool::begin_hole`].
    Hole,
}

impl Known {
    /// Where the source is to be read on, and which line that continues; `None`: the spill knows nothing of the partition.
    pub fn end(&self) -> Option<(NextOffset, Line)> {
        let line = self.spans.iter().map(|(_, span)| span.line).max()?;
        let ends = self.spans.iter().filter(|(_, span)| span.line == line).map(|(_, span)| span.next);
        Some((ends.max()?, line))
    }

    fn line(&self) -> Line {
        self.end().map_or(Line(0), |(_, line)| line)
    }

    fn plan(&self, ledger: &Ledger, lane: Lane, point: ResumePoint) -> Option<Plan> {
        let topic_id = ledger.book(lane)?.source.topic_id;
        Some(plan(&self.spans, self.released, point, topic_id, Some(topic_id)))
    }
}

impl Spool {
    /// Reads a partition's lane on although there is no session, from the end of the spill, or from what the local group has committed if that
    /// is more: everything below is at the centre then. What is read goes into the spill. Without either, the centre is waited for.
    pub fn read_on(&mut self, ledger: &mut Ledger, lane: Lane, known: &Known, committed: Option<NextOffset>) {
        if let Some(next) = known.end().map(|(end, _)| end).max(committed) {
            self.take_up(ledger);
            ledger.read_on(lane, next, known.line());
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
        let at = known.end().map(|(end, _)| end).max(committed);
        if at.is_some_and(|at| at > log.end) {
            return;
        }
        let next = at.map_or_else(|| decide(ResumePoint::Fresh, log, policy).at(), |at| at.max(log.start));
        self.take_up(ledger);
        if let Some(gone) = at.filter(|at| *at < log.start) {
            self.store_gap(ledger, lane, gone, log.start, known.line());
        }
        if committed.is_none() || at < Some(log.start) {
            ledger.assume(lane);
        }
        ledger.read_on(lane, next, known.line());
    }

    /// What the source has removed before it was read is noted in the spill, so that the centre hears of it as what it is.
    fn store_gap(&mut self, ledger: &Ledger, lane: Lane, first: NextOffset, next: NextOffset, line: Line) {
        let (Some(book), Ok(mut compressor)) = (ledger.book(lane), Compressor::new(1)) else {
            // Without memory for a moment it will be found missing, which is told, too.
            return;
        };
        let LaneSource { partition, topic_id, partition_count, .. } = book.source.clone();
        let reason = GapReason::Retention;
        let mut builder = FrameBuilder::new();
        builder.gap(NO_LANE, first, next, reason);
        let bytes = builder.encode(&mut compressor).bytes;
        let kind = SectionKind::Gap { first, next, reason };
        let sections = vec![StoredSection { partition, topic_id, partition_count, line, kind }];
        self.waiting.push_back(Waiting { sections: Vec::new(), copy: None, budget: 0 });
        self.appends.push(Append { sections, bytes });
    }

    /// The centre says where a lane goes on that has not begun.
    pub fn begin(&mut self, ledger: &mut Ledger, lane: Lane, point: ResumePoint, known: &Known) -> Begins {
        let Some(Plan { legs, goes_on: Some((_, at)) }) = known.plan(ledger, lane, point) else {
            return begin_read(ledger, lane, point);
        };
        match legs.first() {
            None => begin_read(ledger, lane, ResumePoint::At(at)),
            Some(Leg::Refill { .. }) => Begins::Hole,
            Some(Leg::Send { opening, first, next, .. }) => {
                let beginning = match *opening {
                    Opening::Joins => Beginning::Resume { at: *first },
                    Opening::Start => Beginning::Start { at: *first },
                    Opening::Gap { first: gone, reason } => Beginning::Gap(Gap { first: gone, next: *first, reason }),
                };
                ledger.read_on(lane, at, known.line());
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
    pub fn begin_hole(&mut self, ledger: &mut Ledger, lane: Lane, point: ResumePoint, known: &Known, log: LogRange) -> Begins {
        let Some(Plan { legs, goes_on: Some((_, end)) }) = known.plan(ledger, lane, point) else {
            return Begins::Source;
        };
        let Some(Leg::Refill { first, next, .. }) = legs.first() else {
            return self.begin(ledger, lane, point, known);
        };
        let (first, next, line) = (*first, *next, known.line());
        let gap = |next| Beginning::Gap(Gap { first, next, reason: GapReason::Damaged });
        let behind = matches!(legs.get(1), Some(Leg::Send { .. }));
        if log.start > first && behind && next <= log.start {
            ledger.read_on(lane, end, line);
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
        ledger.set_line(lane, line);
        let beginning = if log.start > first { gap(log.start) } else { Beginning::Resume { at: first } };
        Begins::Begun(ledger.begin(lane, point, beginning))
    }
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
