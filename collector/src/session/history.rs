//! Frames with [history](spillway_proto::history): what they are without, and those that wait for a part of theirs.

use std::sync::{Arc, Mutex, PoisonError};

use spillway_proto::history::{Decoder, Restorer};
use spillway_proto::message::CollectorMessage;

use super::frames::Arrived;

/// History in one session.
#[derive(Debug, Default)]
pub(super) struct History {
    restorer: Restorer,
    /// Bounded with all frames that the session holds ([`super::limits::MAX_FRAMES_HELD`]).
    waiting: Vec<Arrived>,
}

/// What became of a frame.
#[derive(Debug)]
pub(super) enum Without {
    /// It makes sense now.
    Whole(Arrived),
    /// A part of its history has not arrived: it comes back with [`History::take_ready`].
    Waits,
    /// Its history is another one: the agent is asked for it as it is without.
    Again(CollectorMessage),
}

impl History {
    /// Takes the history away from a frame that has arrived, its dictionary attached.
    pub(super) fn take_away(&mut self, mut arrived: Arrived, decoder: &Mutex<Decoder>) -> Without {
        let Some(after) = &arrived.after else {
            self.restorer.arrived(arrived.seq, arrived.frame.as_ref().as_ref());
            return Without::Whole(arrived);
        };
        if self.restorer.waits(after) {
            self.waiting.push(arrived);
            return Without::Waits;
        }
        // Nothing that can panic leaves it half done: it is set up anew for each frame.
        let restored = self.restorer.restore(after, &mut decoder.lock().unwrap_or_else(PoisonError::into_inner));
        let again = Without::Again(CollectorMessage::FrameAgain(arrived.seq));
        match (restored, Arc::get_mut(&mut arrived.frame)) {
            (Ok(frame), Some(held)) => held.restored(frame),
            (Ok(_), None) => return again,
            (Err(error), _) => {
                tracing::warn!(event = "frame_again", seq = arrived.seq.0, %error, "a frame does not fit its history: the agent is asked for it without");
                return again;
            }
        }
        arrived.after = None;
        Without::Whole(arrived)
    }

    /// A frame that waited and need not any more.
    pub(super) fn take_ready(&mut self) -> Option<Arrived> {
        let is_ready = |arrived: &Arrived| arrived.after.as_ref().is_none_or(|after| !self.restorer.waits(after));
        self.waiting.iter().position(is_ready).map(|at| self.waiting.swap_remove(at))
    }
}
