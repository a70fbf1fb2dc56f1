//! What of the spill is sent, given what the centre has, and where reading of the local Kafka goes on: the newer of both, for each partition.
//!
//! A partition's frames are sent in legs. Each leg is a lane of its own: its offsets are contiguous, and what lies before it (a start, a gap) is its
//! opening. What is missing between is read again from the local Kafka where that still has it, and is a gap where it has not.

use std::collections::BTreeMap;

use spillway_proto::frame::GapReason;
use spillway_proto::message::ResumePoint;
use spillway_proto::{NextOffset, TopicId};

use crate::entry::{Line, StoredSection};
use crate::ranges::Ranges;
use crate::summary::{Source, Span, What};

/// How far a partition is at the centre.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Released {
    /// The topic's id.
    pub topic_id: TopicId,
    /// The line.
    pub line: Line,
    /// Everything below is at the centre, and all lines before.
    pub next: NextOffset,
}

/// How a leg begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// It joins what the centre has, or the leg before it.
    Joins,
    /// The centre has nothing: a start section.
    Start,
    /// Offsets from `first` up to the leg's are gone: a gap section.
    Gap {
        /// The next offset that the centre expects by then.
        first: NextOffset,
        /// Why.
        reason: GapReason,
    },
}

/// A part of the way from what the centre has to the end of the spill.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leg {
    /// Frames of the spill, from `first` to `next`; without any when both are equal: then only the opening counts.
    Send {
        /// What the lane is opened for.
        source: Source,
        /// The line.
        line: Line,
        /// How it begins.
        opening: Opening,
        /// First offset.
        first: NextOffset,
        /// One past the last offset.
        next: NextOffset,
    },
    /// Not in the spill, though it should be: to be read again. What the local Kafka has no more is a gap of reason
    /// [`GapReason::Damaged`].
    Refill {
        /// The partition.
        source: Source,
        /// The line, for frames that are spilled again.
        line: Line,
        /// First offset.
        first: NextOffset,
        /// One past the last offset.
        next: NextOffset,
    },
}

/// The way of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Parts in order.
    pub legs: Vec<Leg>,
    /// Where reading of the local Kafka goes on, in the topic with this id; `None`: the spill says nothing, the centre's answer counts alone.
    pub goes_on: Option<(TopicId, NextOffset)>,
}

/// What a partition's first lane is to be opened for: the oldest source that is not released. `None`: the spill has nothing to send.
pub fn announce(spans: &[(Source, Span)], released: Option<Released>) -> Option<Source> {
    let lines = lines(spans);
    let wanted =
        |(line, known): &(&Line, &Known)| released.is_none_or(|released| **line > released.line || known.end() > Some(released.next));
    lines
        .iter()
        .find(|(line, known)| released.is_none_or(|released| **line >= released.line) && wanted(&(line, known)))
        .map(|(_, known)| known.source.clone())
}

/// Plans a partition's way. `spans` is what the spill knows of it, `released` what it was told of the centre, `point` what the centre answers to a lane
/// opened for `announced`, `current` the id of the topic that the local Kafka has now.
pub fn plan(
    spans: &[(Source, Span)],
    released: Option<Released>,
    point: ResumePoint,
    announced: TopicId,
    current: Option<TopicId>,
) -> Plan {
    let lines = lines(spans);
    let Some(begin) = place(&lines, released, point, announced, current) else {
        return Plan { legs: Vec::new(), goes_on: None };
    };
    let mut walk = Walk { legs: Vec::new(), at: begin.at, opening: begin.opening };
    let mut topic_id = announced;
    for (line, known) in lines.range(begin.line..) {
        topic_id = known.source.topic_id;
        if *line > begin.line {
            walk.opening = Opening::Gap { first: walk.at, reason: known.begins.unwrap_or(GapReason::Damaged) };
            walk.at = known.begin().unwrap_or(walk.at);
        }
        walk.along(*line, known);
    }
    Plan { legs: walk.legs, goes_on: Some((topic_id, walk.at)) }
}

/// True when a section holds something above a position.
pub fn is_wanted(section: &StoredSection, line: Line, next: NextOffset) -> bool {
    section.line > line || (section.line == line && section.kind.next() > next)
}

/// What is known of a line.
#[derive(Debug)]
struct Known {
    source: Source,
    data: Ranges,
    gone: Vec<(NextOffset, NextOffset, GapReason)>,
    lost: Ranges,
    /// Why the line before ended.
    begins: Option<GapReason>,
    starts_at: Option<NextOffset>,
}

impl Known {
    fn new(source: Source) -> Self {
        Self { source, data: Ranges::default(), gone: Vec::new(), lost: Ranges::default(), begins: None, starts_at: None }
    }

    fn add(&mut self, span: Span) {
        match span.what {
            What::Data => self.data.insert(span.first, span.next),
            What::Lost => self.lost.insert(span.first, span.next),
            What::Gap(reason @ (GapReason::Truncated | GapReason::TopicRecreated)) => {
                (self.begins, self.starts_at) = (Some(reason), Some(span.next));
            }
            What::Gap(reason) => self.gone.push((span.first, span.next, reason)),
            What::Start => self.starts_at = Some(span.next),
        }
    }

    fn begin(&self) -> Option<NextOffset> {
        let gone = self.gone.iter().map(|gone| gone.0).min();
        self.starts_at.or_else(|| [self.data.first(), self.lost.first(), gone].into_iter().flatten().min())
    }

    fn end(&self) -> Option<NextOffset> {
        let gone = self.gone.iter().map(|gone| gone.1).max();
        [self.data.end(), self.lost.end(), gone, self.starts_at].into_iter().flatten().max()
    }
}

fn lines(spans: &[(Source, Span)]) -> BTreeMap<Line, Known> {
    let mut lines: BTreeMap<Line, Known> = BTreeMap::new();
    for (source, span) in spans {
        lines.entry(span.line).or_insert_with(|| Known::new(source.clone())).add(*span);
    }
    lines
}

struct Begin {
    line: Line,
    at: NextOffset,
    opening: Opening,
}

/// Where on the way the centre is.
fn place(
    lines: &BTreeMap<Line, Known>,
    released: Option<Released>,
    point: ResumePoint,
    announced: TopicId,
    current: Option<TopicId>,
) -> Option<Begin> {
    let (first_line, first) = lines.iter().find(|(line, _)| released.is_none_or(|released| **line >= released.line))?;
    match point {
        ResumePoint::Fresh => Some(Begin { line: *first_line, at: first.begin()?, opening: Opening::Start }),
        ResumePoint::At(at) => Some(Begin { line: line_at(lines, released, announced, at)?, at, opening: Opening::Joins }),
        ResumePoint::Recreated { previous, next } => {
            if let Some((line, _)) = lines.iter().rev().find(|(_, known)| known.source.topic_id == previous) {
                // The centre is further than what was announced: the older topic is all there.
                return Some(Begin { line: *line, at: next, opening: Opening::Joins });
            }
            if current == Some(previous) {
                return None;
            }
            let (line, known) = lines.range(first_line..).find(|(_, known)| !known.source.topic_id.is_other_incarnation(announced))?;
            Some(Begin { line: *line, at: known.begin()?, opening: Opening::Gap { first: next, reason: GapReason::TopicRecreated } })
        }
    }
}

/// The line that a position at the centre belongs to. Lines of one topic overlap where its log was truncated; before a gap that goes back is sent,
/// all before it is released durably, so that what was released decides.
fn line_at(lines: &BTreeMap<Line, Known>, released: Option<Released>, announced: TopicId, at: NextOffset) -> Option<Line> {
    let from = released.map_or(Line(0), |released| released.line);
    let mut candidates = lines.range(from..).filter(|(_, known)| !known.source.topic_id.is_other_incarnation(announced)).peekable();
    loop {
        let (line, known) = candidates.next()?;
        let all_released = released.is_some_and(|released| released.line == *line && Some(released.next) >= known.end());
        let Some((_, later)) = candidates.peek() else {
            // Before the end of what it had all of: a gap that goes back was applied, and nothing behind it is here.
            return (!all_released || Some(at) >= known.end()).then_some(*line);
        };
        let applied = all_released && later.begin() == Some(at) && Some(at) != known.end();
        if !applied && Some(at) <= known.end() {
            return Some(*line);
        }
    }
}

struct Walk {
    legs: Vec<Leg>,
    at: NextOffset,
    opening: Opening,
}

impl Walk {
    /// Goes along a line to its end.
    fn along(&mut self, line: Line, known: &Known) {
        let end = known.end().unwrap_or(self.at);
        while self.at < end {
            let here = |first: NextOffset, next: NextOffset| first <= self.at && self.at < next;
            if let Some((_, next)) = known.data.iter().find(|(first, next)| here(*first, *next)) {
                self.send(line, known, next);
                continue;
            }
            let data_begins = known.data.iter().map(|(first, _)| first).find(|first| *first > self.at).unwrap_or(end);
            if let Some((_, next, reason)) = known.gone.iter().find(|(first, next, _)| here(*first, *next)) {
                let next = (*next).min(data_begins);
                if !matches!(self.opening, Opening::Gap { reason: before, .. } if before == *reason) {
                    if self.opening != Opening::Joins {
                        // What is gone is told for itself: neither a start nor a gap of another reason says so.
                        self.send(line, known, self.at);
                    }
                    self.opening = Opening::Gap { first: self.at, reason: *reason };
                }
                self.at = next;
                continue;
            }
            let gone_begins = known.gone.iter().map(|gone| gone.0).filter(|first| *first > self.at).min().unwrap_or(end);
            let next = data_begins.min(gone_begins).min(end);
            if self.opening != Opening::Joins {
                // The opening goes out before what is read again.
                self.send(line, known, self.at);
            }
            self.legs.push(Leg::Refill { source: known.source.clone(), line, first: self.at, next });
            self.at = next;
        }
        if self.opening != Opening::Joins {
            self.send(line, known, self.at);
        }
    }

    fn send(&mut self, line: Line, known: &Known, next: NextOffset) {
        let opening = std::mem::replace(&mut self.opening, Opening::Joins);
        let first = std::mem::replace(&mut self.at, next);
        self.legs.push(Leg::Send { source: known.source.clone(), line, opening, first, next });
    }
}

#[cfg(test)]
mod tests;
