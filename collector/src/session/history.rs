//! Frames with [history](spillway_proto::history): what they are without, and those that wait for a part of theirs.

use std::sync::{Mutex, PoisonError};

use spillway_proto::FrameSeq;
use spillway_proto::codec::DecodeError;
use spillway_proto::history::{Decoder, Restorer};

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
    /// Its history is another one: the agent is to be asked for the frame without.
    Again(FrameSeq, DecodeError),
}

impl History {
    /// Takes the history away from a frame that has arrived, its dictionary attached.
    pub(super) fn take_away(&mut self, mut arrived: Arrived, decoder: &Mutex<Decoder>) -> Without {
        let Some(after) = &arrived.after else {
            self.restorer.arrived(arrived.seq, arrived.frame.as_ref());
            return Without::Whole(arrived);
        };
        if self.restorer.waits(after) {
            self.waiting.push(arrived);
            return Without::Waits;
        }
        // Nothing that can panic leaves it half done: it is set up anew for each frame.
        match self.restorer.restore(after, &mut decoder.lock().unwrap_or_else(PoisonError::into_inner)) {
            Ok(frame) => {
                arrived.frame.restored(frame);
                arrived.after = None;
                Without::Whole(arrived)
            }
            Err(error) => Without::Again(arrived.seq, error),
        }
    }

    /// A frame that waited and need not any more.
    pub(super) fn take_ready(&mut self) -> Option<Arrived> {
        let is_ready = |arrived: &Arrived| arrived.after.as_ref().is_none_or(|after| !self.restorer.waits(after));
        self.waiting.iter().position(is_ready).map(|at| self.waiting.swap_remove(at))
    }
}
