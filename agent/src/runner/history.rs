//! Small frames leave with [history](spillway_proto::history) where that is less, and once more without where the collector asks.

use std::collections::VecDeque;
use std::io;
use std::time::Instant;

use spillway_agent_core::ledger::Outgoing;
use spillway_agent_core::schedule::Room;
use spillway_proto::FrameSeq;
use spillway_proto::history::Shortener;

use crate::dictionaries::Dictionaries;
use crate::metrics::AgentMetrics;
use crate::session::Departure;

/// History in one session.
#[derive(Debug)]
pub(super) struct History {
    shortener: Shortener,
    /// The last frames that left with history, as they are without.
    left: VecDeque<Outgoing>,
    left_bytes: usize,
    /// Frames that the collector wants without.
    again: VecDeque<Outgoing>,
}

/// Bytes of frames that may be asked for. A collector asks when a frame arrives, so that more than are under way are not needed.
const MOST_LEFT: usize = 64 * 1024;

impl History {
    /// A session begins.
    ///
    /// # Errors
    /// When zstd cannot allocate its contexts.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { shortener: Shortener::new()?, left: VecDeque::new(), left_bytes: 0, again: VecDeque::new() })
    }

    /// A frame is about to be sent.
    pub(super) fn depart(&mut self, frame: Outgoing, now: Instant, dictionaries: &Dictionaries, metrics: &AgentMetrics) -> Departure {
        let is_urgent = frame.class.is_urgent();
        let Some(bytes) = self.shortener.send(frame.seq, is_urgent, &frame.bytes, now, |id| dictionaries.find(id)) else {
            return Departure::whole(frame);
        };
        metrics.history_saved.inc_by((frame.bytes.len() - bytes.len()) as u64);
        let departure = Departure { seq: frame.seq, class: frame.class, bytes, is_after: true };
        self.left_bytes += frame.bytes.len();
        self.left.push_back(frame);
        while self.left_bytes > MOST_LEFT
            && let Some(oldest) = self.left.pop_front()
        {
            self.left_bytes -= oldest.bytes.len();
        }
        departure
    }

    /// The collector has all of a frame.
    pub(super) fn arrived(&mut self, seq: FrameSeq) {
        self.shortener.arrived(seq);
    }

    /// The collector wants a frame without history. Answers false if it is not known any more.
    pub(super) fn want(&mut self, seq: FrameSeq) -> bool {
        let found = self.left.iter().position(|frame| frame.seq == seq).and_then(|at| self.left.remove(at));
        let Some(frame) = found else {
            return false;
        };
        self.left_bytes -= frame.bytes.len();
        self.again.push_back(frame);
        true
    }

    /// The next frame to be sent once more, if there is room for it.
    pub(super) fn again(&mut self, room: Room) -> Option<Departure> {
        let fits = |frame: &Outgoing| if frame.class.is_urgent() { room.urgent } else { room.others };
        self.again.pop_front_if(|frame| fits(frame)).map(Departure::whole)
    }
}
