//! How the agent opens lanes, and where they begin.

use spillway_proto::Lane;
use spillway_proto::message::{OpenLane, ResumePoint};

use super::super::centre::Open;
use super::super::site::opening;
use super::super::{next, source};
use super::World;
use super::rules::flow_of;
use crate::lane::LaneSource;
use crate::ledger::Resumed;
use crate::spool::Begins;
use crate::start::{LogRange, StartPolicy, decide};

impl World {
    pub(super) fn open(&mut self, index: u32) {
        let open = self.ledger.open(LaneSource { flow: flow_of(self.rules.0, index), ..source(index) }).unwrap();
        let lane = open.lane;
        if self.connected {
            self.announce(&open);
        } else {
            let committed = self.site.committed.get(&index).map(|at| next(*at));
            let known = self.known(index);
            if self.reads_alone {
                let log = self.log(index);
                self.spool.read_on_log(&mut self.ledger, lane, &known, committed, log, StartPolicy::Earliest);
            } else {
                self.spool.read_on(&mut self.ledger, lane, &known, committed);
            }
        }
    }

    pub(super) fn announce(&mut self, open: &OpenLane) {
        let (lane, index, until) = (open.lane, open.source.partition.index(), open.until);
        let point = self.centre.open(lane, Open { index, until });
        let deferred = self.centre.deferred(index);
        if until.is_none() && !deferred.is_empty() {
            self.ledger.tell_deferred(lane, deferred).unwrap();
        }
        if matches!(self.ledger.resume(lane, point, self.now).unwrap(), Resumed::Begin(_)) {
            self.begin(lane, index, point);
        }
    }

    pub(super) fn retry(&mut self, index: u32) {
        self.centre.refused.insert(index, false);
        if let Some(lane) = self.ledger.late_of(&source(index).partition) {
            self.ledger.retry_late(lane);
        }
        let lane = self.ledger.lane_of(&source(index).partition);
        if lane.and_then(|lane| self.ledger.book(lane)).is_some_and(|book| book.is_dead()) {
            self.open(index);
        }
    }

    fn begin(&mut self, lane: Lane, index: u32, point: ResumePoint) {
        let known = self.known(index);
        let log = self.log(index);
        let mut begins = self.spool.begin(&mut self.ledger, lane, point, &known);
        if begins == Begins::Hole {
            begins = self.spool.begin_hole(&mut self.ledger, lane, point, &known, log);
        }
        let section = match begins {
            Begins::Source => self.ledger.begin(lane, point, decide(point, log, StartPolicy::Earliest)),
            Begins::Begun(section) => section,
            Begins::Hole => panic!("the log was looked at"),
        };
        if let Some(section) = section {
            self.ledger.push(opening(section), &[None], 0, self.now).unwrap();
        }
    }

    fn log(&self, index: u32) -> LogRange {
        let (start, end) = self.site.logs.get(&index).copied().unwrap_or_default();
        LogRange { start: next(start), end: next(end) }
    }
}
