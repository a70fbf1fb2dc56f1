//! The open session: which frame is sent next in it, and how much of it is under way (invariants B and E of [`super`]).

use bytes::Bytes;
use spillway_proto::message::OpenLane;
use spillway_proto::{FrameSeq, Lane};

use super::{Ledger, Outgoing};
use crate::schedule::{Flow, FlowSpec, Room, Scheduler};

/// This part of the session's window is for class 0, where there are topics of it.
const URGENT_WINDOW_PART: usize = 8;

/// The session's window.
#[derive(Debug)]
pub(super) struct Window {
    next_seq: FrameSeq,
    /// The collector knows deferred ranges.
    pub(super) defers: bool,
    /// The first lane number that was not given before it.
    pub(super) first_lane: u32,
    /// Sent and not acknowledged.
    pub(super) sent_bytes: usize,
    /// Most of that, except for a single frame.
    max_bytes: usize,
    /// See [`Ledger::wait_no_longer`].
    pub(super) waits_no_longer: bool,
}

impl Ledger {
    /// A session is open: these lanes are to be announced before any frame is sent. Dead lanes are not: a retained frame may still name
    /// them, and the collector skips sections of lanes that were never opened in its session.
    pub fn session_opened(&mut self, max_in_flight_bytes: usize) -> Vec<OpenLane> {
        self.session_opened_with(max_in_flight_bytes, false)
    }

    /// As [`Self::session_opened`]; `defers` tells whether the collector knows deferred ranges.
    pub fn session_opened_with(&mut self, max_bytes: usize, defers: bool) -> Vec<OpenLane> {
        self.prepare_late(defers);
        self.told.clear();
        let (next_seq, first_lane) = (FrameSeq(0), self.next_lane);
        self.session = Some(Window { next_seq, defers, first_lane, sent_bytes: 0, max_bytes, waits_no_longer: false });
        self.frames.rewind();
        for book in self.lanes.values_mut() {
            book.settled = false;
        }
        let alive = self.lanes.iter().filter(|(_, book)| !book.is_dead());
        alive.map(|(lane, book)| book.announcement(*lane)).collect()
    }

    /// The session is over; what was sent and not acknowledged will be sent again.
    pub fn session_closed(&mut self) {
        self.session = None;
    }

    /// Who sends next.
    pub fn scheduler(&mut self) -> &mut Scheduler {
        &mut self.scheduler
    }

    /// Lets `adapt` put other bytes in place of the frames that may be sent next, one of each flow, with the same sections: for a peer that does not
    /// know them as they are. The budget that they hold stays as it was, so memory may pass it by what the session's window holds.
    pub fn adapt_next(&mut self, mut adapt: impl FnMut(&Bytes) -> Option<Bytes>) {
        if self.session.is_some() {
            for (flow, _) in self.scheduler.flows() {
                self.frames.adapt_unsent(flow, &mut adapt);
            }
        }
    }

    /// The next frame that may be sent now, if whoever wants may send. As [`Self::next_frame_within`].
    pub fn next_frame(&mut self) -> Option<Outgoing> {
        self.next_frame_within(Room::ALL)
    }

    /// The next frame that may be sent now by those who may send; `None`: ask again after an ack, an answer or a push, when there is more room, or when a flow's cap
    /// allows more ([`Scheduler::next_cap`]).
    pub fn next_frame_within(&mut self, room: Room) -> Option<Outgoing> {
        let heads = self.heads()?;
        let flow = self.scheduler.pick(&heads, room)?;
        let is_other = |(flow, spec): (Flow, FlowSpec)| !spec.class.is_urgent() && heads.get(flow.0 as usize).is_some_and(Option::is_some);
        let others_wait = room.behind > 0 || self.scheduler.flows().any(is_other);
        let bytes = self.frames.mark_sent(flow);
        self.scheduler.sent(flow, bytes.len(), others_wait);
        let window = self.session.as_mut()?;
        window.sent_bytes += bytes.len();
        let seq = window.next_seq;
        window.next_seq = seq.next();
        Some(Outgoing { seq, class: self.scheduler.spec(flow).class, bytes })
    }

    /// True when a frame could be sent now, if there were room for it.
    pub fn waits(&mut self) -> bool {
        self.heads().is_some_and(|heads| heads.iter().any(Option::is_some))
    }

    /// The bytes of each flow's next frame that the session takes now; `None` without a session.
    fn heads(&mut self) -> Option<Vec<Option<usize>>> {
        let window = self.session.as_ref()?;
        let has_urgent = self.scheduler.flows().any(|(_, spec)| spec.class.is_urgent());
        let for_others = if has_urgent { window.max_bytes - window.max_bytes / URGENT_WINDOW_PART } else { window.max_bytes };
        let (lanes, frames) = (&self.lanes, &mut self.frames);
        let waits = |lane: &Lane| lanes.get(lane).is_some_and(|book| !book.is_dead() && !book.settled);
        let head = |(flow, spec): (Flow, FlowSpec)| {
            let frame = frames.unsent(flow)?;
            let most = if spec.class.is_urgent() { window.max_bytes } else { for_others };
            let has_room = window.sent_bytes == 0 || window.sent_bytes + frame.length() <= most;
            (has_room && !frame.is_held() && !frame.lanes().any(waits)).then_some(frame.length())
        };
        Some(self.scheduler.flows().map(head).collect())
    }
}
