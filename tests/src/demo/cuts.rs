//! When the link of the demo is cut: once for a moment, which memory bridges, and once for long, which the spill does. Pure.

use std::ops::Range;
use std::time::Duration;

/// Beginning and length of the cuts, in hundredths of the writing time, and the longest that each may be.
const CUTS: [(u32, u32, Duration); 2] = [(10, 8, Duration::from_secs(4)), (30, 40, Duration::from_secs(20))];

/// A cut that has begun. Times in milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// When the link was cut.
    pub from_ms: i64,
    /// When it was restored.
    pub to_ms: Option<i64>,
    /// When the backlog was worked off.
    pub caught_up_ms: Option<i64>,
}

/// The cuts of one demo.
#[derive(Debug, Clone)]
pub struct Cuts {
    writing: Duration,
    begun: Vec<Cut>,
}

impl Cut {
    /// How long the link was cut.
    #[must_use]
    pub fn length(&self) -> Duration {
        millis(self.to_ms.unwrap_or(self.from_ms) - self.from_ms)
    }

    /// From its end until the backlog was worked off.
    #[must_use]
    pub fn catch_up(&self) -> Duration {
        let to_ms = self.to_ms.unwrap_or(self.from_ms);
        millis(self.caught_up_ms.unwrap_or(to_ms) - to_ms)
    }

    /// The times of records that waited for the link.
    #[must_use]
    pub fn waited(&self) -> Range<i64> {
        self.from_ms..self.caught_up_ms.unwrap_or(i64::MAX)
    }
}

impl Cuts {
    /// The cuts of a demo that writes for so long.
    #[must_use]
    pub fn new(writing: Duration) -> Self {
        Self { writing, begun: Vec::new() }
    }

    /// Time has passed. Answers whether the link is cut now.
    pub fn pass(&mut self, elapsed: Duration, now_ms: i64) -> bool {
        if let Some((at, _)) = self.plan(self.begun.len())
            && elapsed >= at
        {
            self.begun.push(Cut { from_ms: now_ms, to_ms: None, caught_up_ms: None });
        }
        let current = self.begun.len().checked_sub(1);
        if let Some((at, length)) = current.and_then(|index| self.plan(index))
            && let Some(cut) = self.begun.last_mut()
            && cut.to_ms.is_none()
        {
            if elapsed < at + length {
                return true;
            }
            cut.to_ms = Some(now_ms);
        }
        false
    }

    /// The backlog is worked off.
    pub fn caught_up(&mut self, now_ms: i64) {
        for cut in self.begun.iter_mut().filter(|cut| cut.to_ms.is_some()) {
            cut.caught_up_ms.get_or_insert(now_ms);
        }
    }

    /// The cuts that have begun, in their order.
    #[must_use]
    pub fn begun(&self) -> &[Cut] {
        &self.begun
    }

    /// When a cut begins, and how long it is.
    fn plan(&self, index: usize) -> Option<(Duration, Duration)> {
        let (at, length, most) = CUTS.get(index)?;
        Some((self.writing * *at / 100, (self.writing * *length / 100).min(*most)))
    }
}

fn millis(ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_demo_of_fifty_seconds_is_cut_for_four_and_for_twenty() {
        let mut cuts = Cuts::new(Duration::from_secs(50));
        let mut cut_seconds = Vec::new();
        for second in 0..50 {
            if cuts.pass(Duration::from_secs(second), i64::try_from(second).unwrap_or(0) * 1000) {
                cut_seconds.push(second);
            }
            if second == 12 || second == 40 {
                cuts.caught_up(i64::try_from(second).unwrap_or(0) * 1000);
            }
        }
        assert_eq!(cut_seconds, (5..9).chain(15..35).collect::<Vec<_>>());
        let [short, long] = cuts.begun() else { panic!("{cuts:?}") };
        assert_eq!((short.length(), short.catch_up(), short.waited()), (Duration::from_secs(4), Duration::from_secs(3), 5_000..12_000));
        assert_eq!((long.length(), long.catch_up(), long.waited()), (Duration::from_secs(20), Duration::from_secs(5), 15_000..40_000));
    }
}
