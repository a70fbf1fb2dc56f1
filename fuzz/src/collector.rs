//! An agent that sends anything, against what the collector decides: order, transactions, offset syncs, refusals.
//!
//! The session around it is played as `spillway-collector` does: a violation ends the session.

mod model;
mod world;

use arbitrary::{Arbitrary, Unstructured};

use world::World;

/// Most steps of one input.
const MAX_STEPS: usize = 300;

/// Something that happens.
#[derive(Debug, Clone, Arbitrary)]
pub(crate) enum Step {
    /// The agent announces a lane.
    Announce(u8),
    /// The writer tells where a lane goes on.
    Resume(u8, Point),
    /// A lane is over.
    Retire(u8),
    /// A frame arrives, so many numbers from the first that is missing.
    Frame(i8, Vec<Part>),
    /// The transaction takes so many sections, the last one short by so many offsets.
    Take(u8, u8),
    /// The transaction is committed.
    Commit,
    /// It is aborted.
    Abort,
    /// Time passes, in milliseconds.
    Wait(u16),
    /// The centre refuses a lane's records from so many to so many of its share.
    Refuse(u8, u8, u8),
    /// The agent wants no company waited for.
    Flush,
    /// Other sites of the collector want so many early commits.
    Others(u8),
}

/// Where a lane goes on.
#[derive(Debug, Clone, Copy, Arbitrary)]
pub(crate) enum Point {
    Fresh,
    At(u8),
    Recreated(u8),
    /// A late lane for a range: its first offset, and how many.
    Late(u8, u8),
}

/// A section.
#[derive(Debug, Clone, Copy, Arbitrary)]
pub(crate) struct Part {
    pub(crate) lane: u8,
    pub(crate) kind: Kind,
}

#[derive(Debug, Clone, Copy, Arbitrary)]
pub(crate) enum Kind {
    /// Goes on where the lane is if all that was sent is applied: so many offsets, every so manieth a record.
    Next {
        span: u8,
        every: u8,
    },
    /// Data at any place.
    Data {
        first: u8,
        span: u8,
    },
    /// To the end of all offsets.
    Endless {
        first: u8,
    },
    Gap {
        first: u8,
        next: u8,
        reason: u8,
    },
    Start {
        next: u8,
    },
}

/// The first byte is the session's limit in units of 64 bytes, the rest steps.
pub fn run(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let Ok(limit) = u8::arbitrary(&mut input) else { return };
    let mut world = World::new(usize::from(limit) * 64);
    for _ in 0..MAX_STEPS {
        if input.is_empty() {
            break;
        }
        let Ok(step) = Step::arbitrary(&mut input) else { break };
        crate::trace(&step);
        if !world.play(step) {
            break;
        }
    }
    world.finish();
}
