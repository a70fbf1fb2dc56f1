//! The session, and what the collector says in it.

use spillway_agent_core::lane::Phase;
use spillway_agent_core::ledger::{Error, Resumed};
use spillway_proto::message::ResumePoint;
use spillway_proto::{Lane, NextOffset, TopicId};

use super::super::{Offset, Said};
use super::{World, because, next, partition};

impl World {
    pub(super) fn connect(&mut self, window: usize) {
        if self.window.is_some() {
            return;
        }
        self.window = Some(window);
        self.questions.clear();
        let opened = self.ledger.session_opened(window);
        self.announced = opened.iter().map(|open| open.lane).collect();
        self.model.session_opened();
        let held: Vec<_> = self.ledger.partitions().filter(|(_, book)| matches!(book.phase, Phase::Held(_))).collect();
        let held: Vec<_> = held.into_iter().map(|(lane, _)| self.lanes[lane.0 as usize]).collect();
        held.into_iter().for_each(|index| self.open(index));
    }

    pub(super) fn disconnect(&mut self) {
        self.window = None;
        self.questions.clear();
        self.announced.clear();
        self.ledger.session_closed();
    }

    pub(super) fn hear(&mut self, said: Said) {
        if self.window.is_none() {
            return;
        }
        let outcome = match said {
            Said::Fresh(back) => self.resume(self.lane(back), ResumePoint::Fresh),
            Said::At(back, offset) => self.resume(self.lane(back), ResumePoint::At(self.offset(back, offset))),
            Said::Recreated(back, offset) => {
                let point = ResumePoint::Recreated { previous: TopicId([9; 16]), next: self.offset(back, offset) };
                self.resume(self.lane(back), point)
            }
            Said::Ack(back, offset) => {
                let (lane, next) = (self.lane(back), self.offset(back, offset));
                self.claim(lane, next);
                self.ledger.ack(lane, next, self.now)
            }
            Said::Hold(back, offset) => {
                let (lane, next) = (self.lane(back), self.offset(back, offset));
                self.claim(lane, next);
                self.ledger.hold(lane, next, because(), self.now).map(drop)
            }
            Said::Retry(back) => {
                let lane = self.lane(back);
                let held = self.ledger.book(lane).is_some_and(|book| matches!(book.phase, Phase::Held(_)));
                if held && self.ledger.lane_of(&partition(self.lanes[lane.0 as usize])) == Some(lane) {
                    self.open(self.lanes[lane.0 as usize]);
                }
                Ok(())
            }
        };
        // A breach of the protocol ends the session, and nothing else.
        if outcome.is_err() {
            self.disconnect();
        }
    }

    pub(super) fn resume(&mut self, lane: Lane, point: ResumePoint) -> Result<(), Error> {
        if let ResumePoint::At(next) = point {
            self.claim(lane, next);
        }
        if let Resumed::Begin(_) = self.ledger.resume(lane, point, self.now)? {
            self.questions.push_back((lane, point));
        }
        Ok(())
    }

    pub(super) fn acknowledge_all(&mut self) {
        for lane in (0..self.lanes.len() as u32).map(Lane) {
            if let Some(position) = self.ledger.book(lane).filter(|book| !book.is_dead()).and_then(|book| book.position) {
                self.model.claim(&partition(self.lanes[lane.0 as usize]), position);
                assert_eq!(self.ledger.ack(lane, position, self.now), Ok(()));
            }
            self.keep_up();
        }
    }

    /// Where an honest collector says that a lane goes on: what the agent takes for acknowledged, or what it was told at the beginning.
    pub(super) fn true_point(&self, lane: Lane) -> ResumePoint {
        let book = self.ledger.book(lane);
        match book.and_then(|book| book.acked) {
            Some(acked) => ResumePoint::At(acked),
            None => book.and_then(|book| book.origin).unwrap_or(ResumePoint::Fresh),
        }
    }

    fn claim(&mut self, lane: Lane, next: NextOffset) {
        if let Some(index) = self.lanes.get(lane.0 as usize) {
            self.model.claim(&partition(*index), next);
        }
    }

    /// The newest lane is 0; one more than there are is one that was never opened.
    fn lane(&self, back: u8) -> Lane {
        let count = self.lanes.len();
        Lane((count - 1).wrapping_sub(usize::from(back) % (count + 1)) as u32)
    }

    fn offset(&self, back: u8, offset: Offset) -> NextOffset {
        let book = self.ledger.book(self.lane(back));
        let pushed = book.and_then(|book| book.position).map_or(0, NextOffset::value);
        match offset {
            Offset::True => book.and_then(|book| book.acked).unwrap_or(next(0)),
            Offset::Pushed(less) => next(pushed.saturating_sub(u64::from(less))),
            Offset::Small(value) => next(u64::from(value)),
            Offset::Huge(less) => next(i64::MAX as u64 - u64::from(less)),
        }
    }
}
