//! Live first: what is built goes around the spill, and what the spill holds comes beside it.

use std::time::{Duration, Instant};

use spillway_proto::frame::{GapReason, Section};
use spillway_proto::message::ResumePoint;
use spillway_proto::{Lane, NextOffset};
use spillway_spill_core::entry::Line;
use spillway_spill_core::plan::{Leg, Opening, Plan};

use super::begin::{beginning_of, own_of};
use super::{Begins, Known, Spool};
use crate::lane::AfterDrain;
use crate::ledger::Ledger;
use crate::start::{Beginning, Gap};

/// Lanes are given up for a deferral at most so often in a session: a line that does not even keep up with what is new makes a range each time, of which a
/// partition may have few.
const DEFERRAL_PAUSE: Duration = Duration::from_secs(300);

/// What comes next on a late lane.
enum Next {
    /// Frames of the spill, behind what they begin with, up to here.
    Send { beginning: Beginning, line: Line, next: NextOffset },
    /// The spill does not have it, up to here.
    Missing(NextOffset),
}

impl Spool {
    /// Gives up the lanes of which the spill holds something, where all of them may begin anew with a deferral; from then on what is built goes around the
    /// spill. It is done when a session knows where its lanes are, and again when the line did not keep up with what is new.
    pub(super) fn defer(&mut self, ledger: &mut Ledger, now: Instant) {
        let is_due = self.cut.is_none_or(|cut| now.saturating_duration_since(cut) >= DEFERRAL_PAUSE);
        if !self.in_use
            || self.around
            || !is_due
            || self.appends.taking_back
            || !ledger.may_defer(self.scope)
            || !ledger.is_answered(self.scope)
        {
            return;
        }
        let Some(behind) = ledger.deferrable(self.scope) else {
            return;
        };
        // What comes of the others meanwhile goes around, or they would be behind as well.
        (self.cut, self.around) = (Some(now), true);
        for lane in behind {
            ledger.abandon(lane);
        }
    }

    /// True when a lane that begins may go over what the spill holds.
    pub(super) fn defers(&self, ledger: &Ledger, lane: Lane) -> bool {
        ledger.may_defer(self.scope) && ledger.book(lane).is_some_and(|book| ledger.has_range_left(&book.source.partition))
    }

    /// The lane goes over everything that the spill holds of it.
    pub(super) fn begin_deferring(
        &mut self,
        ledger: &mut Ledger,
        lane: Lane,
        point: ResumePoint,
        first: NextOffset,
        next: NextOffset,
    ) -> Begins {
        if ledger.book(lane).is_some_and(|book| book.read.is_some()) {
            // It is read into the spill already: a new lane goes over that as well.
            ledger.abandon(lane);
            return Begins::Begun(None);
        }
        (self.in_use, self.around, self.backlog_end) = (true, true, None);
        Begins::Begun(ledger.begin(lane, point, Beginning::Gap(Gap { first, next, reason: GapReason::Deferred })))
    }

    /// The centre says where a late lane goes on, whose range ends at `until`. What the spill lacks of it is told to be lost: the source is read in one place
    /// of a partition at a time, and that is where its own lane is.
    pub(super) fn begin_late(&mut self, ledger: &mut Ledger, lane: Lane, until: NextOffset, point: ResumePoint, known: &Known) -> Begins {
        (self.in_use, self.backlog_end) = (true, None);
        Begins::Begun(begin_range(ledger, lane, until, point, known))
    }
}

/// As [`Spools::begin`](super::Spools::begin), for a late lane of an agent without a spill: what was deferred is lost.
pub fn begin_without_spill(ledger: &mut Ledger, lane: Lane, point: ResumePoint) -> Option<Section> {
    let until = ledger.book(lane)?.until?;
    begin_range(ledger, lane, until, point, &Known::default())
}

fn begin_range(ledger: &mut Ledger, lane: Lane, until: NextOffset, point: ResumePoint, known: &Known) -> Option<Section> {
    let ResumePoint::At(at) = point else {
        // There is no such range.
        ledger.abandon(lane);
        return None;
    };
    let own = own_of(ledger, lane, known);
    let (beginning, line, next) = match next_of(own.plan(ledger, lane, point), at, until) {
        Next::Send { beginning, line, next } => (beginning, line, next),
        Next::Missing(next) => {
            let own = ledger.book(lane).and_then(|book| ledger.lane_of(&book.source.partition)).and_then(|own| ledger.book(own));
            let gap = Gap { first: at, next, reason: GapReason::Damaged };
            (Beginning::Gap(gap), own.map_or(Line(0), |own| own.line), next)
        }
    };
    ledger.outlive(lane, until, line);
    let section = ledger.begin(lane, point, beginning);
    if next < until {
        // What comes behind it begins with another opening.
        ledger.stop_at(lane, next);
    }
    ledger.drain(lane, AfterDrain::Close);
    // The cursor need not go back for each lane: it does so once for all of them, when it has reached the end.
    ledger.look_behind(lane);
    section
}

/// What comes next of a range, of which the centre has what is below `at`.
fn next_of(plan: Option<Plan>, at: NextOffset, until: NextOffset) -> Next {
    let legs = plan.filter(|plan| plan.goes_on.is_some()).map(|plan| plan.legs).unwrap_or_default();
    match legs.first() {
        Some(Leg::Send { opening, line, first, next, .. }) if *first <= until => {
            Next::Send { beginning: beginning_of(*opening, *first), line: *line, next: (*next).min(until) }
        }
        Some(Leg::Refill { next, .. }) => Next::Missing((*next).min(until)),
        // A gap that goes beyond the range, or nothing at all.
        Some(Leg::Send { opening: Opening::Gap { reason, .. }, line, .. }) => {
            let gap = Gap { first: at, next: until, reason: *reason };
            Next::Send { beginning: Beginning::Gap(gap), line: *line, next: until }
        }
        Some(Leg::Send { .. }) | None => Next::Missing(until),
    }
}
