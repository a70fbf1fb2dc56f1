//! The bytes that unacknowledged frames may hold, shared by the thread that builds them and the runner that releases them.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use spillway_agent_core::budget::Shares;
use spillway_agent_core::schedule::Flow;

/// A budget of bytes. Who may take how much is decided by [`Shares`].
#[derive(Debug)]
pub struct Budget {
    shares: Mutex<Shares>,
    released: Condvar,
}

impl Budget {
    /// A budget of which nothing is taken.
    pub fn new(shares: Shares) -> Self {
        Self { shares: Mutex::new(shares), released: Condvar::new() }
    }

    /// All there is, in bytes.
    pub fn total(&self) -> usize {
        self.lock().total()
    }

    /// Takes `bytes` for a flow's open frame. More than the total is asked for as the total. Answers what was taken.
    pub fn take(&self, flow: Flow, bytes: usize) -> Option<usize> {
        self.lock().take(flow, bytes)
    }

    /// The same for a closed frame, for which the others make room.
    pub fn take_for_closed(&self, flow: Flow, bytes: usize) -> Option<usize> {
        self.lock().take_for_closed(flow, bytes)
    }

    /// Bytes that a flow may take now, and what it is sure of.
    pub fn room(&self, flow: Flow) -> (usize, usize) {
        let shares = self.lock();
        (shares.room(flow), shares.part(flow))
    }

    /// Gives bytes back.
    pub fn give(&self, flow: Flow, bytes: usize) {
        self.lock().give(flow, bytes);
        self.released.notify_one();
    }

    /// Waits until something is given back, at most so long.
    pub fn wait(&self, most: Duration) {
        let taken = self.taken();
        let is_same = |shares: &mut Shares| shares.taken() >= taken;
        drop(self.released.wait_timeout_while(self.lock(), most, is_same).unwrap_or_else(PoisonError::into_inner));
    }

    /// Bytes taken.
    pub fn taken(&self) -> usize {
        self.lock().taken()
    }

    fn lock(&self) -> MutexGuard<'_, Shares> {
        // Nothing that can panic runs under the lock.
        self.shares.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
