//! When what was appended is synced: by size and by time, so that a busy agent syncs full blocks and a quiet one does not wait.

use std::time::{Duration, Instant};

/// When to sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommitLimits {
    /// As soon as so many bytes wait. Default 64 KiB.
    pub max_bytes: usize,
    /// So long after the first byte. Default 200 ms.
    pub max_wait: Duration,
}

impl Default for CommitLimits {
    fn default() -> Self {
        Self { max_bytes: 64 * 1024, max_wait: Duration::from_millis(200) }
    }
}

/// Decides when to sync.
#[derive(Debug)]
pub struct GroupCommit {
    limits: CommitLimits,
    bytes: usize,
    since: Option<Instant>,
}

impl GroupCommit {
    /// Nothing waits.
    pub fn new(limits: CommitLimits) -> Self {
        Self { limits, bytes: 0, since: None }
    }

    /// So many bytes were appended.
    pub fn appended(&mut self, bytes: usize, now: Instant) {
        self.bytes = self.bytes.saturating_add(bytes);
        self.since.get_or_insert(now);
    }

    /// True when it is time.
    pub fn is_due(&self, now: Instant) -> bool {
        self.due().is_some_and(|due| self.bytes >= self.limits.max_bytes || due <= now)
    }

    /// When it will be time at the latest; `None` while nothing waits.
    pub fn due(&self) -> Option<Instant> {
        self.since.map(|since| since + self.limits.max_wait)
    }

    /// Everything was synced, or was given back.
    pub fn done(&mut self) {
        (self.bytes, self.since) = (0, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_or_old_is_due() {
        let (start, mut commit) = (Instant::now(), GroupCommit::new(CommitLimits::default()));
        assert_eq!((commit.due(), commit.is_due(start)), (None, false));
        commit.appended(1, start);
        commit.appended(65_534, start + Duration::from_millis(150));
        assert!(!commit.is_due(start + Duration::from_millis(199)));
        assert!(commit.is_due(start + Duration::from_millis(200)), "the first byte counts");
        commit.appended(1, start);
        assert!(commit.is_due(start), "64 KiB wait");
        commit.done();
        assert!(!commit.is_due(start + Duration::from_secs(9)));
    }
}
