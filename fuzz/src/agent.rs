//! A collector that says anything, against the agent's batcher and books.
//!
//! The shell around the books is played as `spillway-agent`'s runner is: an error of the books at something the collector said ends the session;
//! at something the agent itself did it would stop the agent, so it is a finding.

mod model;
mod world;

use arbitrary::{Arbitrary, Unstructured};

use world::World;

/// Partitions of the site.
pub(crate) const PARTITIONS: usize = 3;

/// Most steps of one input.
const MAX_STEPS: usize = 400;

/// Something that happens.
#[derive(Debug, Clone, Copy, Arbitrary)]
pub(crate) enum Step {
    /// So many offsets more in the source's partition.
    Produce(u8, u8),
    /// The source loses its records below this share of the log.
    Retain(u8, u8),
    /// The agent reads so many offsets of a partition.
    Read(u8, u8),
    /// The open frame is closed.
    Close,
    /// What may be sent is sent, at most so many frames.
    Send(u8),
    /// So many questions about beginnings are answered, all in one turn of the loop.
    Answer(u8),
    /// A session opens, with this window.
    Connect(u16),
    /// The connection is lost.
    Disconnect,
    /// The collector speaks.
    Hear(Said),
    /// A partition's topic is made anew, is gone, or its position is lost.
    Drain(u8, Why),
    /// The source lets go of what it was asked to.
    LetGo,
    /// Partitions that wait for a lane get one.
    Reopen,
    /// The local group is committed, or fails to be.
    Commit(bool),
}

/// Why a lane is to be drained.
#[derive(Debug, Clone, Copy, Arbitrary)]
pub(crate) enum Why {
    Lost,
    Gone,
    TooLarge,
}

/// What the collector says, of lanes counted back from the newest.
#[derive(Debug, Clone, Copy, Arbitrary)]
pub(crate) enum Said {
    Fresh(u8),
    At(u8, Offset),
    Recreated(u8, Offset),
    Ack(u8, Offset),
    Hold(u8, Offset),
    Retry(u8),
}

/// An offset that means something to a lane, or none at all.
#[derive(Debug, Clone, Copy, Arbitrary)]
pub(crate) enum Offset {
    /// What the centre really has.
    True,
    /// What the agent has pushed, and so many less.
    Pushed(u8),
    /// Any small one.
    Small(u8),
    /// The largest but so many.
    Huge(u8),
}

/// The first bytes are the frame limits, the rest steps. At the end the collector is honest, and everything has to arrive.
pub fn run(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let Ok(limits) = <(u8, u8)>::arbitrary(&mut input) else { return };
    let mut world = World::new(limits);
    for _ in 0..MAX_STEPS {
        if input.is_empty() {
            break;
        }
        let Ok(step) = Step::arbitrary(&mut input) else { break };
        crate::trace(&step);
        world.play(step);
    }
    world.finish();
}
