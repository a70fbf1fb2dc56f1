//! How long a record is worth sending.
//!
//! The record's timestamp counts, whatever it says: when it was made, or when the site's broker took it. What has none does not expire, nor does what lies in the
//! future; so nothing does while the gateway's clock is behind, as at boot before it is set.

use std::time::Duration;

use spillway_proto::frame::Timestamps;

/// A topic rule's `ttl`: a record that is older is not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TimeToLive {
    milliseconds: i64,
}

impl TimeToLive {
    /// Whole milliseconds count.
    pub fn new(time: Duration) -> Self {
        Self { milliseconds: i64::try_from(time.as_millis()).unwrap_or(i64::MAX) }
    }

    /// How long.
    pub fn time(self) -> Duration {
        Duration::from_millis(self.milliseconds.unsigned_abs())
    }

    /// True when a record with this timestamp is too old at `now_ms`. Both are milliseconds since 1970; a negative timestamp is none.
    pub fn is_over(self, timestamp: i64, now_ms: i64) -> bool {
        timestamp >= 0 && now_ms.saturating_sub(timestamp) > self.milliseconds
    }

    /// True when all records with these timestamps are too old.
    pub fn is_over_for_all(self, times: Timestamps, now_ms: i64) -> bool {
        self.is_over(times.newest, now_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_older_is_over() {
        let ttl = TimeToLive::new(Duration::from_secs(10));
        assert!(!ttl.is_over(5_000, 15_000), "as old as it may be");
        assert!(ttl.is_over(5_000, 15_001));
        assert!(ttl.is_over(0, 15_001), "1970 is a timestamp");
        assert!(!ttl.is_over(-1, i64::MAX), "no timestamp");
        assert!(!ttl.is_over(i64::MAX, 15_001), "the future");
        assert!(!ttl.is_over(1_700_000_000_000, 3_000), "a clock that was not set yet");
        assert!(!TimeToLive::new(Duration::MAX).is_over(0, i64::MAX));
    }

    #[test]
    fn one_young_record_or_one_without_a_timestamp_keeps_all() {
        let ttl = TimeToLive::new(Duration::from_secs(10));
        let over = |timestamps: &[i64]| {
            timestamps.iter().copied().map(Timestamps::of).reduce(Timestamps::and).map(|all| ttl.is_over_for_all(all, 100_000))
        };
        assert_eq!(over(&[1, 89_999]), Some(true));
        assert_eq!(over(&[1, 90_000]), Some(false));
        assert_eq!(over(&[1, -1]), Some(false));
    }
}
