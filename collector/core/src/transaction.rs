//! When a transaction is committed.
//!
//! A commit costs the central Kafka the same whether it holds one record or ten thousand, so a busy site commits about four times a
//! second (`transactions.interval`), or when it holds enough (`transactions.max_bytes`). The first data after a pause is committed
//! almost at once: nobody waits for company that may not come. An idle site has no transaction at all.

use std::time::{Duration, Instant};

/// How long the first data after a pause waits for more: frames of one burst arrive within milliseconds.
const LINGER: Duration = Duration::from_millis(4);

/// Decides when the transaction of one site is committed.
#[derive(Debug)]
pub struct Pacer {
    max_bytes: usize,
    interval: Duration,
    open: Option<Open>,
    last_commit: Option<Instant>,
}

#[derive(Debug)]
struct Open {
    since: Instant,
    bytes: usize,
    flush: bool,
}

impl Pacer {
    /// `max_bytes` is what a transaction may hold (the section that passes it is still taken), `interval` the time between two commits
    /// of a busy site.
    pub fn new(max_bytes: usize, interval: Duration) -> Self {
        Self { max_bytes, interval, open: None, last_commit: None }
    }

    /// A transaction begins with its first data.
    pub fn begin(&mut self, now: Instant) {
        self.open = Some(Open { since: now, bytes: 0, flush: false });
    }

    /// Record bytes were added.
    pub fn add(&mut self, bytes: usize) {
        if let Some(open) = &mut self.open {
            open.bytes += bytes;
        }
    }

    /// Nothing more comes for now, or somebody waits: commit at once. Without effect when no transaction is open.
    pub fn flush(&mut self) {
        if let Some(open) = &mut self.open {
            open.flush = true;
        }
    }

    /// True while a transaction is open.
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Bytes that may still be added.
    pub fn room(&self) -> usize {
        self.max_bytes.saturating_sub(self.open.as_ref().map_or(0, |open| open.bytes))
    }

    /// When to commit; a time that is not in the future means now. `None` when no transaction is open.
    pub fn due(&self) -> Option<Instant> {
        let open = self.open.as_ref()?;
        if open.flush || open.bytes >= self.max_bytes {
            return Some(open.since);
        }
        let soon = open.since + LINGER.min(self.interval);
        let paced = self.last_commit.map_or(soon, |last| last + self.interval);
        Some(soon.max(paced).min(open.since + self.interval))
    }

    /// The transaction was committed.
    pub fn committed(&mut self, now: Instant) {
        self.open = None;
        self.last_commit = Some(now);
    }

    /// The transaction was aborted: its data is taken again.
    pub fn aborted(&mut self) {
        self.open = None;
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(250);

    fn pacer() -> (Pacer, Instant) {
        (Pacer::new(1000, INTERVAL), Instant::now())
    }

    #[test]
    fn an_idle_site_has_nothing_to_do() {
        assert_eq!(pacer().0.due(), None);
    }

    #[test]
    fn the_first_data_after_a_pause_is_committed_almost_at_once() {
        let (mut pacer, now) = pacer();
        pacer.begin(now);
        assert_eq!(pacer.due(), Some(now + LINGER));
        pacer.committed(now);
        let later = now + 10 * INTERVAL;
        pacer.begin(later);
        assert_eq!(pacer.due(), Some(later + LINGER));
    }

    #[test]
    fn a_busy_site_commits_once_an_interval() {
        let (mut pacer, now) = pacer();
        pacer.begin(now);
        pacer.committed(now + Duration::from_millis(10));
        pacer.begin(now + Duration::from_millis(11));
        assert_eq!(pacer.due(), Some(now + Duration::from_millis(10) + INTERVAL));
    }

    #[test]
    fn a_full_transaction_or_a_flush_is_committed_now() {
        let (mut pacer, now) = pacer();
        pacer.committed(now);
        pacer.begin(now);
        pacer.add(999);
        assert_eq!(pacer.room(), 1);
        assert!(pacer.due().unwrap() > now);
        pacer.add(1);
        assert_eq!((pacer.room(), pacer.due()), (0, Some(now)));
        pacer.committed(now);
        pacer.begin(now);
        pacer.flush();
        assert_eq!(pacer.due(), Some(now));
    }

    #[test]
    fn a_flush_without_a_transaction_does_not_hurry_the_next_one() {
        let (mut pacer, now) = pacer();
        pacer.committed(now);
        pacer.flush();
        pacer.begin(now);
        assert_eq!(pacer.due(), Some(now + INTERVAL));
    }
}
