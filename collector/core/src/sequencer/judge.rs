//! What a section means to a lane at a position.

use spillway_proto::NextOffset;
use spillway_proto::frame::{GapReason, Section, SectionKind};

use super::Violation;

/// Where a lane is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LanePosition {
    /// Announced, not resumed.
    Announced,
    /// Fresh: waits for its start.
    BeforeStart,
    /// Waits for the gap that tells of the recreated topic, which begins here.
    BeforeGap(NextOffset),
    /// The next offset.
    At(NextOffset),
}

/// What becomes of a section.
pub(super) enum Verdict {
    Apply { from: NextOffset, next: NextOffset },
    Duplicate { records: u64 },
    Wait,
}

/// What a section means to a lane at a position. See `docs/wire-protocol.md`.
pub(super) fn judge(section: &Section, position: LanePosition, until: Option<NextOffset>) -> Result<Verdict, Violation> {
    let lane = section.lane;
    if until.is_some() {
        check_late(section)?;
    }
    if let SectionKind::Gap { first, next, reason } = section.kind
        && next < first
        && !matches!(reason, GapReason::Truncated | GapReason::TopicRecreated)
    {
        return Err(Violation::GapBackwards { lane, first, next });
    }
    let at = match (position, section.kind) {
        (LanePosition::Announced, _) => return Err(Violation::LaneNotResumed(lane)),
        (LanePosition::BeforeStart, SectionKind::Start { next }) => return Ok(Verdict::Apply { from: next, next }),
        (LanePosition::BeforeGap(at), SectionKind::Gap { first, next, reason: GapReason::TopicRecreated }) if first == at => {
            return Ok(Verdict::Apply { from: at, next });
        }
        (LanePosition::BeforeStart | LanePosition::BeforeGap(_), _) => return Ok(Verdict::Wait),
        (LanePosition::At(at), _) => at,
    };
    let next = section.kind.next();
    let end = until.map_or(next, |until| until.min(next));
    Ok(match section.kind {
        // The lane has begun already, so this was sent before: its effect is in the position.
        SectionKind::Start { .. } | SectionKind::Gap { reason: GapReason::TopicRecreated, .. } => Verdict::Duplicate { records: 0 },
        SectionKind::Data { first, .. } | SectionKind::Gap { first, .. } if first > at => Verdict::Wait,
        SectionKind::Gap { first, next, .. } if next < first && first == at => Verdict::Apply { from: at, next },
        SectionKind::Gap { .. } if end <= at => Verdict::Duplicate { records: 0 },
        SectionKind::Data { records, .. } if end <= at => Verdict::Duplicate { records: u64::from(records) },
        SectionKind::Data { .. } | SectionKind::Gap { .. } => Verdict::Apply { from: at, next: end },
    })
}

/// What was deferred is sent as data, or is told to be lost.
fn check_late(section: &Section) -> Result<(), Violation> {
    let begins = match section.kind {
        SectionKind::Data { .. } => false,
        SectionKind::Start { .. } => true,
        SectionKind::Gap { first, next, reason } => {
            next < first || matches!(reason, GapReason::Truncated | GapReason::TopicRecreated | GapReason::Deferred)
        }
    };
    if begins { Err(Violation::LateBegins(section.lane)) } else { Ok(()) }
}
