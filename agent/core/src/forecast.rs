//! When the spill will be full, or empty, if things go on as they do.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// What is looked back at: long enough to see past generations that are deleted as a whole, short enough to follow a change.
const WINDOW: Duration = Duration::from_secs(60);

/// At most so many samples are kept; further ones replace the newest.
const MAX_SAMPLES: usize = 120;

/// Nothing is said before so much was seen.
const LEAST: Duration = Duration::from_secs(5);

/// Sizes of the last minute.
#[derive(Debug, Default)]
pub struct Forecast {
    samples: VecDeque<(Instant, u64)>,
}

impl Forecast {
    /// It is so large now.
    pub fn observe(&mut self, now: Instant, bytes: u64) {
        while self.samples.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) > WINDOW) {
            self.samples.pop_front();
        }
        if self.samples.len() == MAX_SAMPLES {
            self.samples.pop_back();
        }
        self.samples.push_back((now, bytes));
    }

    /// When it will hold `max_bytes`; `None` while it does not grow.
    pub fn full_in(&self, max_bytes: u64) -> Option<Duration> {
        let (span, from, to) = self.change()?;
        let grown = to.checked_sub(from).filter(|grown| *grown > 0)?;
        Some(scaled(span, max_bytes.saturating_sub(to), grown))
    }

    /// When it will be empty; `None` while it does not shrink.
    pub fn empty_in(&self) -> Option<Duration> {
        let (span, from, to) = self.change()?;
        let shrunk = from.checked_sub(to).filter(|shrunk| *shrunk > 0)?;
        Some(scaled(span, to, shrunk))
    }

    fn change(&self) -> Option<(Duration, u64, u64)> {
        let ((began, from), (ended, to)) = (self.samples.front()?, self.samples.back()?);
        let span = ended.saturating_duration_since(*began);
        (span >= LEAST).then_some((span, *from, *to))
    }
}

/// The time for `part` where `whole` took `span`.
fn scaled(span: Duration, part: u64, whole: u64) -> Duration {
    Duration::try_from_secs_f64(span.as_secs_f64() * part as f64 / whole as f64).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forecast(sizes: &[(u64, u64)]) -> Forecast {
        let (start, mut forecast) = (Instant::now(), Forecast::default());
        for (second, bytes) in sizes {
            forecast.observe(start + Duration::from_secs(*second), *bytes);
        }
        forecast
    }

    #[test]
    fn the_last_minute_goes_on() {
        let growing = forecast(&[(0, 100), (10, 200)]);
        assert_eq!((growing.full_in(500), growing.empty_in()), (Some(Duration::from_secs(30)), None));
        let shrinking = forecast(&[(0, 300), (10, 200)]);
        assert_eq!((shrinking.full_in(500), shrinking.empty_in()), (None, Some(Duration::from_secs(20))));
        let turned = forecast(&[(0, 0), (10, 1000), (71, 500)]);
        assert_eq!(turned.empty_in(), None, "what is older than a minute does not count, and one sample says nothing");
    }

    #[test]
    fn nothing_is_said_of_what_stands_still_or_was_hardly_seen() {
        assert_eq!(forecast(&[(0, 100), (10, 100)]).full_in(500), None);
        assert_eq!(forecast(&[(0, 100), (4, 200)]).full_in(500), None);
        assert_eq!(forecast(&[]).empty_in(), None);
    }

    #[test]
    fn a_clock_that_ticks_fast_costs_no_memory() {
        let sizes = (0..10_000).map(|n| (n / 1000, n)).collect::<Vec<_>>();
        assert_eq!(forecast(&sizes).samples.len(), MAX_SAMPLES);
    }
}
