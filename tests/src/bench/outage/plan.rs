//! When the line is down. Pure.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

/// While the line is up: long enough for everybody to be as before, and never in step with what they repeat.
const PAUSE_MS: std::ops::Range<u64> = 5_000..15_000;

/// An outage is longer than it counts by up to half, and by no more than that: the same lengths would meet everybody at the same step of what they repeat.
const LONGER_MS_MAX: u64 = 30_000;

/// An outage and the time before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outage {
    /// What it counts as.
    pub nominal: Duration,
    /// The line is up for so long before, from when everybody was back.
    pub pause: Duration,
    /// It is down for so long.
    pub length: Duration,
}

/// `times` outages of each length in turn, and one of so many minutes. Each is up to half longer than it counts, 30 s at most.
#[must_use]
pub fn plan(seconds: &[u64], times: u32, minutes: Option<u64>, seed: u64) -> Vec<Outage> {
    let mut rng = StdRng::seed_from_u64(seed);
    let lengths = (0..times).flat_map(|_| seconds.iter().copied()).chain(minutes.map(|minutes| minutes * 60));
    lengths
        .map(|seconds| Outage {
            nominal: Duration::from_secs(seconds),
            pause: Duration::from_millis(rng.random_range(PAUSE_MS)),
            length: Duration::from_millis(seconds * 1000 + rng.random_range(0..=LONGER_MS_MAX.min(seconds * 500))),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_take_turns_and_no_outage_is_like_another() {
        let all = plan(&[10, 60], 3, Some(10), 7);
        let nominal: Vec<u64> = all.iter().map(|outage| outage.nominal.as_secs()).collect();
        assert_eq!(nominal, [10, 60, 10, 60, 10, 60, 600]);
        for outage in &all {
            let most = outage.nominal + Duration::from_secs(30).min(outage.nominal / 2);
            assert!((outage.nominal..=most).contains(&outage.length), "{outage:?}");
            assert!(outage.pause >= Duration::from_secs(5), "{outage:?}");
        }
        assert!(all.windows(2).all(|pair| pair[0].pause != pair[1].pause), "{all:?}");
        assert_eq!(all, plan(&[10, 60], 3, Some(10), 7));
        assert_ne!(all, plan(&[10, 60], 3, Some(10), 8));
    }
}
