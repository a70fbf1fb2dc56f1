//! Where a schedule is played: real processes on real Kafka, or everything in this process.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::schedule::{Kind, Step};
use crate::relay::Relay;

/// The site's name in every scene.
pub const SITE: &str = "plant-7";

/// How fast time passes in a scene.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Longest time for which records flow before a fault.
    pub wait_max: Duration,
    /// Longest time that a fault lasts.
    pub hold_max: Duration,
    /// Between two looks at the centre.
    pub look: Duration,
    /// After which nothing that was on its way to the centre is still being written: more than a transaction's interval.
    pub quiet: Duration,
    /// After which the markers of a transaction whose commit was under way are written.
    pub markers: Duration,
    /// Until records arrive again after a fault.
    pub recovery: Duration,
    /// Longest time for which an outage goes on once frames are in the spill.
    pub outage_max: Duration,
    /// Delay of each direction with which a drain begins that shall be met.
    pub drain_delay: Duration,
    /// Whether so much flows that what an open spill has reserved is soon used up.
    pub fills: bool,
}

/// How far the watched partition of the centre reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reach {
    /// Offset of the next record.
    pub end: i64,
    /// Where a `read_committed` consumer comes to its end.
    pub stable: i64,
}

impl Reach {
    /// Whether a transaction is open.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.stable < self.end
    }
}

/// A deployment that faults can happen to. The link's own faults are the player's affair.
pub trait Scene {
    /// How fast time passes.
    fn pace(&self) -> Pace;

    /// The link.
    fn relay(&self) -> &Relay;

    /// How far the watched partition reaches; `None` while it does not exist or the centre does not answer.
    fn reach(&mut self) -> Option<Reach>;

    /// Whether no transaction is open on any partition of the site.
    ///
    /// # Errors
    /// When the centre cannot be asked.
    fn is_settled(&mut self) -> Result<bool>;

    /// Makes a fault begin, and sees that it did.
    ///
    /// # Errors
    /// When it cannot be made to happen.
    fn begin(&mut self, step: &Step) -> Result<()>;

    /// Ends a fault, and sees that it had an effect.
    ///
    /// # Errors
    /// When it had none, or what was stopped does not start.
    fn end(&mut self, kind: Kind) -> Result<()>;

    /// Called between faults, while records flow: the local group must not be past the centre.
    ///
    /// # Errors
    /// When it is.
    fn check(&mut self) -> Result<()>;

    /// Whether agent and collectors, all of which should run, do.
    ///
    /// # Errors
    /// Which of them has ended by itself.
    fn check_running(&mut self) -> Result<()>;

    /// The directory of the agent's spill.
    fn spill_dir(&self) -> &Path;

    /// `kill -9` of the agent.
    ///
    /// # Errors
    /// When it was not running.
    fn kill_agent(&mut self) -> Result<()>;

    /// Starts the agent that was killed.
    ///
    /// # Errors
    /// When it does not start.
    fn start_agent(&mut self) -> Result<()>;

    /// Takes all room of the spill's disk, or gives it back. Without the right to mount a small one, the agent is started with a limit that
    /// says the same.
    ///
    /// # Errors
    /// When that cannot be done.
    fn fill_disk(&mut self, full: bool) -> Result<()>;

    /// Whether the agent says that its spill takes nothing.
    ///
    /// # Errors
    /// When it does not tell.
    fn is_spill_full(&mut self) -> Result<bool>;

    /// The agent is stopped and its spill is about to be damaged: what the local group claims now may be read again.
    ///
    /// # Errors
    /// When the site's Kafka does not answer.
    fn excuse(&mut self) -> Result<()>;
}
