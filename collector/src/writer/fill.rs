//! Sections into the open transaction.

use std::sync::Arc;
use std::time::Instant;

use rdkafka::error::RDKafkaErrorCode;
use spillway_collector_core::sequencer::Ready;
use spillway_proto::codec::DecodeError;
use spillway_proto::deferred::{self, Range};
use spillway_proto::frame::{Frame, GapReason, RawBody, SectionKind};
use spillway_proto::{CloseCode, Lane, NextOffset};

use super::attempt::Gap;
use super::{End, LaneState, Writer};
use crate::centre::native::Outgoing;
use crate::centre::producer::{Report, SiteProducer};
use crate::custody::HeldFrame;

/// Records after which delivery reports are taken, so that they do not pile up.
const POLL_EVERY: usize = 4096;

/// What a gap's event takes in the producer's queue, generously; so a transaction's size bounds how many of them it holds.
const GAP_EVENT_BYTES: usize = 1024;

/// How a section went into the transaction.
enum Filled {
    /// Up to here.
    Until(NextOffset),
    /// Up to here, and nothing more of the lane may follow in this transaction.
    Last(NextOffset),
    /// Not at all: the lane's share is used up, or the section needs a transaction of its own.
    Nothing,
}

impl Writer {
    /// Takes sections from the backlog until the transaction is full or none is left. Begins the transaction.
    pub(super) fn fill(&mut self) -> Result<(), End> {
        self.begin()?;
        self.last_used = Instant::now();
        let mut opened: Option<(Arc<HeldFrame>, RawBody)> = None;
        while self.pacer.room() > 0 && !self.attempt.failed {
            let Some(ready) = self.backlog.pop() else {
                break;
            };
            let Some(lane) = self.lanes.get(&ready.lane).cloned() else {
                continue;
            };
            match self.fill_section(&ready, &lane, &mut opened)? {
                Filled::Until(until) => self.backlog.take(ready, until),
                Filled::Last(until) => {
                    self.backlog.cut(ready.lane);
                    self.backlog.take(ready, until);
                }
                Filled::Nothing => self.backlog.skip(ready),
            }
        }
        if self.attempt.failed || (self.backlog.is_drained() && self.backlog.has_skipped()) {
            // A lane is being searched for the record that the centre refuses, or has gone back: the next step needs this one's end.
            self.pacer.flush();
        }
        Ok(())
    }

    fn fill_section(
        &mut self,
        ready: &Ready<HeldFrame>,
        lane: &LaneState,
        opened: &mut Option<(Arc<HeldFrame>, RawBody)>,
    ) -> Result<Filled, End> {
        let frame: &Frame = ready.frame.as_ref().as_ref();
        let Some(section) = frame.sections().get(ready.section) else {
            return Ok(Filled::Until(ready.from));
        };
        let share = self.attempt.share(ready.lane, ready.from, lane.sync_slot);
        match section.kind {
            _ if lane.until.is_some_and(|until| self.attempt.moves.range(lane.before(&self.positions), until).is_none()) => {
                // It was told to be lost when the partition's offsets began anew.
                let next = ready.to;
                self.move_lane(lane, share, next);
                Ok(Filled::Until(next))
            }
            SectionKind::Start { next } => {
                self.move_lane(lane, share, next);
                Ok(Filled::Until(next))
            }
            SectionKind::Gap { reason, .. } => self.fill_gap(ready, lane, share, ready.to, reason),
            SectionKind::Data { raw_length, .. } => {
                if !opened.as_ref().is_some_and(|(held, _)| Arc::ptr_eq(held, &ready.frame)) {
                    let body = frame.open(&mut self.decompressor).map_err(|error| invalid(ready.lane, &error))?;
                    *opened = Some((Arc::clone(&ready.frame), body));
                }
                let Some((_, body)) = opened else {
                    return Ok(Filled::Nothing);
                };
                let filled = self.fill_records(ready, lane, body, share)?;
                if let Filled::Until(until) = filled {
                    self.move_lane(lane, share, until);
                    self.attempt.raw_bytes += raw_length as u64;
                    self.pacer.add(raw_length.max(1));
                }
                Ok(filled)
            }
        }
    }

    /// A gap that goes back is all that its transaction holds of the lane. With records before or after it the lane might end where it was,
    /// and the position would not tell whether a transaction with an unknown end was committed.
    fn fill_gap(
        &mut self,
        ready: &Ready<HeldFrame>,
        lane: &LaneState,
        share: usize,
        next: NextOffset,
        reason: GapReason,
    ) -> Result<Filled, End> {
        let goes_back = next < ready.from;
        if goes_back && self.attempt.lanes.get(share).is_some_and(|lane| lane.next != lane.first) {
            return Ok(Filled::Nothing);
        }
        if reason == GapReason::Deferred && !self.knows_deferred {
            return Err(End::new(
                CloseCode::ProtocolViolation,
                format!("lane {} defers, which the session's version does not know", ready.lane),
            ));
        }
        let gap = Gap { lane: ready.lane, first: ready.from, next, reason };
        if lane.until.is_none() {
            let range = Range { first: ready.from, end: next };
            let forgotten =
                self.attempt.moves.gap(lane.before(&self.positions), range, reason).map_err(|error| not_deferred(lane, error))?;
            let forgotten = forgotten.into_iter().map(|range| Gap { first: range.first, next: range.end, ..gap });
            self.attempt.gaps.extend(forgotten);
        }
        let told = if reason == GapReason::Deferred { &mut self.attempt.deferrals } else { &mut self.attempt.gaps };
        told.push(gap);
        self.move_lane(lane, share, next);
        self.pacer.add(GAP_EVENT_BYTES);
        Ok(if goes_back { Filled::Last(next) } else { Filled::Until(next) })
    }

    fn fill_records(&mut self, ready: &Ready<HeldFrame>, lane: &LaneState, body: &RawBody, share: usize) -> Result<Filled, End> {
        let frame: &Frame = ready.frame.as_ref().as_ref();
        let most = self.refusals.share(ready.lane).unwrap_or(u32::MAX);
        let mut until = ready.from;
        for record in body.records(frame, ready.section) {
            let record = record.map_err(|error| invalid(ready.lane, &error))?;
            if ready.from.covers(record.offset) || !ready.to.covers(record.offset) {
                continue;
            }
            if self.attempt.lanes.get(share).is_some_and(|lane| lane.taken >= most) {
                return Ok(if until == ready.from { Filled::Nothing } else { Filled::Until(until) });
            }
            let (offset, timestamp) = (record.offset, record.timestamp);
            let tag = self.attempt.next_tag();
            match self.produce(lane, &Outgoing::from(record), tag)? {
                Ok(()) => self.attempt.queued(share, offset, timestamp),
                Err(code) => {
                    self.attempt.not_queued(share, offset, code);
                    return Ok(Filled::Until(until));
                }
            }
            until = offset.next();
            if tag.is_multiple_of(POLL_EVERY) {
                self.take_reports(SiteProducer::poll_now);
                if self.attempt.failed {
                    return Ok(Filled::Until(until));
                }
            }
        }
        Ok(Filled::Until(ready.to))
    }

    /// Queues a record, waiting while librdkafka's queue is full.
    fn produce(&mut self, lane: &LaneState, record: &Outgoing<'_>, tag: usize) -> Result<Result<(), RDKafkaErrorCode>, End> {
        loop {
            let Some(producer) = &mut self.producer else {
                return Ok(Err(RDKafkaErrorCode::State));
            };
            match producer.produce(&lane.remote, lane.partition, record, tag) {
                Err(RDKafkaErrorCode::QueueFull) if !self.attempt.failed => {
                    self.check_wanted()?;
                    self.take_reports(SiteProducer::poll);
                }
                result => return Ok(result),
            }
        }
    }

    fn move_lane(&mut self, lane: &LaneState, share: usize, next: NextOffset) {
        if let Some(share) = self.attempt.lanes.get_mut(share) {
            share.next = next;
        }
        let before = lane.before(&self.positions);
        match lane.until {
            None => self.attempt.moves.own(before, next),
            Some(until) => self.attempt.moves.late(before, until, next),
        }
    }

    /// Takes delivery reports off the producer and into the books.
    pub(super) fn take_reports(&mut self, poll: impl FnOnce(&SiteProducer, &mut Vec<Report>)) {
        let Some(producer) = &self.producer else {
            return;
        };
        let mut reports = std::mem::take(&mut self.reports);
        poll(producer, &mut reports);
        let now = Instant::now();
        for report in reports.drain(..) {
            if let Some(delivered) = self.attempt.report(report.tag, report.outcome) {
                self.syncs.observe(delivered.sync_slot, delivered.upstream, delivered.downstream, now);
            }
        }
        self.reports = reports;
    }
}

fn not_deferred(lane: &LaneState, error: deferred::Error) -> End {
    let code = match error {
        deferred::Error::TooMany => CloseCode::LimitExceeded,
        deferred::Error::Disorder(_) => CloseCode::ProtocolViolation,
    };
    End::new(code, format!("what the agent defers of {}: {error}", lane.source))
}

fn invalid(lane: Lane, error: &DecodeError) -> End {
    End::new(CloseCode::FrameInvalid, format!("a frame with lane {lane} cannot be read: {error}"))
}
