//! How lanes begin, and how they go on in a session.

use std::time::Instant;

use spillway_proto::frame::{GapReason, Section, SectionKind};
use spillway_proto::message::ResumePoint;
use spillway_proto::{Lane, NextOffset};

use super::{Attachment, Error, Ledger, Resumed};
use crate::lane::{AfterDrain, LaneBook, Phase};
use crate::start::Beginning;

impl Ledger {
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
}

/// The source is to read the lane.
pub(super) fn attach(attachments: &mut Vec<Attachment>, lane: Lane, book: &mut LaneBook, next: NextOffset) {
    book.attached = true;
    attachments.push(Attachment { lane, partition: book.source.partition.clone(), next });
}
