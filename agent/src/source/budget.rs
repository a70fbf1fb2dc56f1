//! The bytes that unacknowledged frames may hold, shared by the thread that builds them and the runner that releases them.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A budget of bytes. Invariant: what is taken never exceeds the total.
#[derive(Debug)]
pub struct Budget {
    total: usize,
    taken: Mutex<usize>,
    released: Condvar,
}

impl Budget {
    /// A budget of `total` bytes, none taken.
    pub fn new(total: usize) -> Self {
        Self { total, taken: Mutex::new(0), released: Condvar::new() }
    }

    /// All there is, in bytes.
    pub fn total(&self) -> usize {
        self.total
    }

    /// Takes `bytes`, waiting for them at most `wait`. More than the total is asked for as the total. Answers what was taken.
    pub fn take(&self, bytes: usize, wait: Duration) -> Option<usize> {
        let bytes = bytes.min(self.total);
        let fits = |taken: &mut usize| *taken + bytes > self.total;
        let (mut taken, _) = self.released.wait_timeout_while(self.lock(), wait, fits).unwrap_or_else(PoisonError::into_inner);
        if *taken + bytes > self.total {
            return None;
        }
        *taken += bytes;
        Some(bytes)
    }

    /// Gives bytes back.
    pub fn give(&self, bytes: usize) {
        let mut taken = self.lock();
        *taken = taken.saturating_sub(bytes);
        drop(taken);
        self.released.notify_one();
    }

    /// Bytes taken.
    pub fn taken(&self) -> usize {
        *self.lock()
    }

    fn lock(&self) -> MutexGuard<'_, usize> {
        // Nothing that can panic runs under the lock.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_more_than_the_total() {
        let budget = Budget::new(100);
        assert_eq!(budget.take(60, Duration::ZERO), Some(60));
        assert_eq!(budget.take(60, Duration::ZERO), None);
        budget.give(20);
        assert_eq!(budget.take(60, Duration::ZERO), Some(60));
        assert_eq!(budget.taken(), 100);
    }

    #[test]
    fn what_is_larger_than_all_waits_for_all() {
        let budget = Budget::new(100);
        assert_eq!(budget.take(1, Duration::ZERO), Some(1));
        assert_eq!(budget.take(500, Duration::ZERO), None);
        budget.give(1);
        assert_eq!(budget.take(500, Duration::ZERO), Some(100));
    }
}
