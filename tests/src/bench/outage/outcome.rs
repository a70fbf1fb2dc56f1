//! What is told of the outages.

use std::collections::BTreeSet;
use std::fmt;
use std::fmt::Write as _;
use std::time::Duration;

use crate::bench::report::median;

/// Promised beyond two round trips of the line.
const BOUND: Duration = Duration::from_secs(5);

/// From the end of an outage until something has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delay {
    /// So long.
    After(Duration),
    /// Longer than that; it was not waited for.
    Later(Duration),
}

/// What an outage has shown of what is watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Who, and what of it.
    pub name: String,
    /// What the outage counts as.
    pub nominal: Duration,
    /// How soon it was there.
    pub delay: Delay,
}

/// What is promised on a line with that round trip.
#[must_use]
pub fn bound(round_trip: Duration) -> Duration {
    BOUND + 2 * round_trip
}

impl Delay {
    /// In milliseconds; of what was not waited for, the least that it is.
    fn millis(self) -> f64 {
        let (Self::After(time) | Self::Later(time)) = self;
        time.as_secs_f64() * 1e3
    }
}

impl fmt::Display for Delay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let more = if matches!(self, Self::Later(_)) { "> " } else { "" };
        write!(f, "{more}{:.0} ms", self.millis())
    }
}

/// One block for each length: median and worst, in milliseconds and to the bound, and the median to that of the first row, which is ours.
#[must_use]
pub fn table(outcomes: &[Outcome], bound: Duration) -> String {
    let mut text = String::new();
    let bound_ms = bound.as_secs_f64() * 1e3;
    let lengths: BTreeSet<Duration> = outcomes.iter().map(|outcome| outcome.nominal).collect();
    for nominal in lengths {
        let of_length: Vec<&Outcome> = outcomes.iter().filter(|outcome| outcome.nominal == nominal).collect();
        let mut names: Vec<&str> = Vec::new();
        for outcome in &of_length {
            if !names.contains(&outcome.name.as_str()) {
                names.push(&outcome.name);
            }
        }
        let delays = |name: &str| of_length.iter().filter(|outcome| outcome.name == name).map(|outcome| outcome.delay).collect::<Vec<_>>();
        let middle = |name: &str| median(delays(name).into_iter().map(Delay::millis).collect()).unwrap_or_default();
        let first = names.first().map_or(0.0, |name| middle(name));
        let count = names.first().map_or(0, |name| delays(name).len());
        // Writing to a string cannot fail.
        let _written = writeln!(
            text,
            "  {count} outage(s) of {} s{:<15} {:>11} {:>11} {:>9} {:>9} {:>9}",
            nominal.as_secs(),
            "",
            "median",
            "worst",
            "to bound",
            "worst",
            "to first"
        );
        for name in names {
            let (middle, delays) = (middle(name), delays(name));
            let worst = delays.iter().copied().max_by(|one, other| one.millis().total_cmp(&other.millis()));
            let worst = worst.unwrap_or(Delay::After(Duration::ZERO));
            let _written = writeln!(
                text,
                "    {name:<29} {:>8.0} ms {:>11} {:>8.2}x {:>8.2}x {:>8.2}x",
                middle,
                worst.to_string(),
                middle / bound_ms,
                worst.millis() / bound_ms,
                middle / first,
            );
        }
    }
    let _written = write!(text, "  to bound: against 5 s and two round trips, {bound_ms:.0} ms");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_worst_and_ratios_are_told_for_each_length() {
        let outcome = |name: &str, seconds, delay| Outcome { name: name.to_owned(), nominal: Duration::from_secs(seconds), delay };
        let after = |millis| Delay::After(Duration::from_millis(millis));
        let mut all = Vec::new();
        for millis in [500, 2_800, 900] {
            all.push(outcome("ours", 10, after(millis)));
            all.push(outcome("theirs", 10, after(millis * 10)));
        }
        all.push(outcome("ours", 60, after(5_600)));
        all.push(outcome("theirs", 60, Delay::Later(Duration::from_secs(180))));
        let text = table(&all, bound(Duration::from_millis(300)));
        let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[0][..4], ["3", "outage(s)", "of", "10"], "{text}");
        assert_eq!(rows[1], ["ours", "900", "ms", "2800", "ms", "0.16x", "0.50x", "1.00x"], "{text}");
        assert_eq!(rows[2], ["theirs", "9000", "ms", "28000", "ms", "1.61x", "5.00x", "10.00x"], "{text}");
        assert_eq!(rows[4], ["ours", "5600", "ms", "5600", "ms", "1.00x", "1.00x", "1.00x"], "{text}");
        assert_eq!(rows[5], ["theirs", "180000", "ms", ">", "180000", "ms", "32.14x", "32.14x", "32.14x"], "{text}");
    }
}
