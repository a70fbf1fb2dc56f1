//! Frames on their way out: which is given to QUIC, and when.

use std::future::pending;
use std::time::{Duration, Instant};

use spillway_agent_core::compression;
use spillway_agent_core::line;
use spillway_agent_core::schedule::TopicClass;
use spillway_agent_core::transit::{LineRate, Transit};
use spillway_config::LinkConfig;
use spillway_link::LinkClient;

use super::spill::now_ms;
use super::translate::translated;
use super::{Error, Runner};
use crate::session::{Departure, MAX_SENDING, Session};
use crate::source::Command;

/// Frames on their way through a session.
#[derive(Debug, Default)]
pub(super) struct Sending {
    /// Given to the session and not yet to QUIC: of class 0, and others.
    waiting: [usize; 2],
    /// In QUIC.
    pub(super) transit: Transit,
    /// When there may be room for the next frame.
    pub(super) again: Option<Instant>,
}

impl Sending {
    /// A frame was handed to QUIC as a whole.
    pub(super) fn sent(&mut self, class: TopicClass) {
        let waiting = &mut self.waiting[usize::from(!class.is_urgent())];
        *waiting = waiting.saturating_sub(1);
    }

    /// True when the session has handed all of them to QUIC.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting == [0, 0]
    }
}

/// Until there may be room for the next frame; for ever when nothing waits. Cancel safe.
pub(super) async fn look_again(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => pending().await,
    }
}

/// What is known of the line.
#[derive(Debug)]
pub(super) struct Line {
    /// The rate cap, in bytes a second.
    cap: Option<u64>,
    /// When the session began in which nothing was known of the line before; `None` once it has been seen for long enough, or without a session.
    young_since: Option<Instant>,
    /// The best rate of late, in bytes a second. A rate that has collapsed, as when the line is about to go, says nothing of the frames that are built meanwhile.
    best: Option<f64>,
    /// What the source was told.
    told: Vec<usize>,
}

/// The best rate counts so much less each second.
const FADING: f64 = 0.97;

impl Line {
    /// `known`: bytes a second that frames were made for by an earlier process.
    pub(super) fn new(link: &LinkConfig, known: Option<u64>) -> Self {
        let best = known.map(|rate| rate as f64);
        Self { cap: link.rate_max.map(|rate| rate.bytes_per_second()), young_since: None, best, told: Vec::new() }
    }

    /// Bytes a second that frames are made for; `None` while that is not known.
    pub(super) fn frames(&self) -> Option<u64> {
        self.best.map(|best| best as u64)
    }

    /// As it is now: what our congestion control has found out, or what another one makes of it.
    fn now(&self, link: &LinkClient, session: &Session) -> LineRate {
        let LineRate { bytes_per_second, round_trip } = session.line();
        let rate = link.line().map(|line| line.bytes_per_second as u64).or(bytes_per_second);
        LineRate { bytes_per_second: [rate, self.cap].into_iter().flatten().min(), round_trip }
    }

    /// What frames are made for. To be asked each second.
    fn of_late(&mut self, link: &LinkClient, session: Option<&Session>) -> LineRate {
        if let Some(line) = link.line() {
            // It remembers by itself, also while the line is away.
            let rate = (line.bytes_per_second as u64).min(self.cap.unwrap_or(u64::MAX));
            (self.best, self.young_since) = (Some(rate as f64), None);
        } else if let Some(rate) = session.and_then(|session| self.now(link, session).bytes_per_second) {
            let now = Instant::now();
            if self.best.is_none() {
                self.young_since = Some(now);
            }
            let young = self.young_since.map_or(u64::MAX, |since| line::young_rate(now.saturating_duration_since(since)));
            if young >= rate {
                self.young_since = None;
            }
            let rate = rate.min(young);
            self.best = Some(self.best.map_or(0.0, |best| best * FADING).max(rate as f64));
        }
        let best = [self.frames(), self.cap].into_iter().flatten().min();
        LineRate { bytes_per_second: best, round_trip: Duration::ZERO }
    }
}

impl Runner {
    /// Gives the session as many frames as there is room for.
    pub(super) fn send_frames(&mut self) {
        self.sending.again = None;
        self.line.cap = self.parts.link.cap().rate().map(|rate| rate.bits_per_second() / 8);
        let Some(session) = &self.session else {
            return;
        };
        let (now, line) = (Instant::now(), self.line.now(&self.parts.link, session));
        let (datagram_bytes, lost_bytes) = session.datagrams();
        let left = self.sending.transit.observe(datagram_bytes, lost_bytes);
        let scheduler = self.ledger.scheduler();
        scheduler.left(left);
        scheduler.advance(now);
        loop {
            self.ledger.expire(now, now_ms());
            let mut room = self.sending.transit.room(line);
            room.urgent &= self.sending.waiting[0] < MAX_SENDING && self.parts.plan.is_open_for(0);
            room.others &= self.sending.waiting[1] < MAX_SENDING && self.parts.plan.is_open_for(1) && !self.planned.is_last_call();
            if let Some(translator) = &mut self.translator {
                self.ledger.adapt_next(|bytes| translated(translator, &self.parts.dictionaries, bytes));
            }
            let again = self.history.as_mut().and_then(|history| history.again(room));
            let next = || {
                let frame = self.ledger.next_frame_within(room)?;
                Some(match &mut self.history {
                    Some(history) => history.depart(frame, now, &self.parts.dictionaries, &self.parts.metrics),
                    None => Departure::whole(frame),
                })
            };
            let Some(frame) = again.or_else(next) else {
                break;
            };
            let is_urgent = frame.class.is_urgent();
            self.sending.transit.given(is_urgent, frame.bytes.len());
            self.sending.waiting[usize::from(!is_urgent)] += 1;
            self.parts.metrics.sent(frame.class, frame.bytes.len());
            // It takes as many as may be under way; once it does not, it is ending, and the frame is sent in the next session.
            session.send(frame);
        }
        if self.ledger.waits() {
            let room_at = now + self.sending.transit.look_again(line);
            self.sending.again = Some(self.ledger.scheduler().next_cap().map_or(room_at, |cap| cap.max(now + CAP_LEAST).min(room_at)));
        }
    }

    /// Tells the source what waits for the line and what it carries: the level of compression depends on it.
    pub(super) fn tell_waiting(&self) -> Result<(), Error> {
        let spilled = self.spill.as_ref().filter(|spill| spill.spool.is_in_use()).map_or(0, |spill| spill.usage.frame_bytes);
        let bytes_per_second = self.session.as_ref().and_then(|session| self.line.now(&self.parts.link, session).bytes_per_second);
        let line = compression::Line { waiting_bytes: self.ledger.unsent_bytes() as u64 + spilled, bytes_per_second };
        Ok(self.parts.source.command(Command::Line(line))?)
    }

    /// Tells the source how large frames may be, when that has changed.
    pub(super) fn tell_line(&mut self) -> Result<(), Error> {
        let line = self.line.of_late(&self.parts.link, self.session.as_ref());
        let bytes = line::frame_bytes(self.ledger.scheduler(), line);
        let changed = |(now, told): (&usize, &usize)| now.abs_diff(*told) * LINE_STEP > *told;
        if bytes.len() != self.line.told.len() || bytes.iter().zip(&self.line.told).any(changed) {
            self.parts.source.command(Command::FrameBytes(bytes.clone()))?;
            self.line.told = bytes;
        }
        Ok(())
    }
}

/// Caps are looked at no more often.
const CAP_LEAST: Duration = Duration::from_millis(5);

/// A change by one in so many is worth telling.
const LINE_STEP: usize = 10;
