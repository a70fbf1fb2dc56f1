//! How fast the line delivers, measured at the acknowledgements.
//!
//! The method is that of [draft-ietf-ccwg-bbr, section 4.1.1](https://datatracker.ietf.org/doc/html/draft-ietf-ccwg-bbr#section-4.1.1): each packet
//! remembers how much had been delivered when it was sent; what was delivered until its acknowledgement, over the longer of the time it took to
//! send that and the time it took to acknowledge it, is a sample. The longer one, because acknowledgements that arrive in a clump, or a burst that
//! was sent at once, would tell of a line that is not there.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Most sending moments remembered: 10 Mbit/s through 10 s, a packet each. Beyond it the oldest are forgotten, which loses samples and nothing else.
const MAX_MOMENTS: usize = 8192;

/// A shorter round trip is the machine's own time, and no line's.
pub(super) const LEAST_ROUND_TRIP: Duration = Duration::from_millis(1);

/// The delivery so far of one connection on one path.
#[derive(Clone, Debug)]
pub(super) struct Delivery {
    /// Moments at which packets were sent, the oldest first.
    moments: VecDeque<Moment>,
    /// Bytes acknowledged so far, and when the last of them were.
    delivered: u64,
    delivered_at: Instant,
    /// When the packet was sent that was acknowledged last.
    acked_sent_at: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Moment {
    at: Instant,
    delivered: u64,
    delivered_at: Instant,
    acked_sent_at: Instant,
}

/// What one acknowledged packet tells.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Sample {
    /// Bytes a second; `None` for a packet of which no moment is known, or too soon after another.
    pub(super) rate: Option<f64>,
    /// From sending to acknowledgement, with what the peer waited before it acknowledged; at least [`LEAST_ROUND_TRIP`].
    pub(super) round_trip: Duration,
}

impl Delivery {
    pub(super) fn new(now: Instant) -> Self {
        Self { moments: VecDeque::new(), delivered: 0, delivered_at: now, acked_sent_at: now }
    }

    /// Packets are sent. `idle`: nothing was in flight; time that passed without sending is not the line's.
    pub(super) fn sent(&mut self, now: Instant, idle: bool) {
        if idle {
            (self.delivered_at, self.acked_sent_at) = (now, now);
        }
        if self.moments.back().is_some_and(|last| last.at == now) {
            return;
        }
        if self.moments.len() == MAX_MOMENTS {
            self.moments.pop_front();
        }
        let Self { delivered, delivered_at, acked_sent_at, .. } = *self;
        self.moments.push_back(Moment { at: now, delivered, delivered_at, acked_sent_at });
    }

    /// A packet of `bytes` that was sent at `sent` is acknowledged.
    pub(super) fn acked(&mut self, now: Instant, sent: Instant, bytes: u64) -> Sample {
        self.delivered += bytes;
        self.delivered_at = now;
        let round_trip = now.saturating_duration_since(sent).max(LEAST_ROUND_TRIP);
        let Ok(place) = self.moments.binary_search_by_key(&sent, |moment| moment.at) else {
            return Sample { rate: None, round_trip };
        };
        let moment = self.moments[place];
        self.acked_sent_at = self.acked_sent_at.max(sent);
        let sending = sent.saturating_duration_since(moment.acked_sent_at);
        let acking = now.saturating_duration_since(moment.delivered_at);
        let span = sending.max(acking).as_secs_f64();
        // A span far below the round trip is a clump, not a measurement.
        let rate = (span * 2.0 > round_trip.as_secs_f64()).then(|| (self.delivered - moment.delivered) as f64 / span);
        Sample { rate, round_trip }
    }

    /// Forgets the moments before `oldest`: what was sent before it is acknowledged or lost.
    pub(super) fn forget_before(&mut self, oldest: Instant) {
        while self.moments.front().is_some_and(|moment| moment.at < oldest) {
            self.moments.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const PACKET: u64 = 1200;

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    /// A packet each 10 ms, acknowledged 100 ms later.
    #[test]
    fn a_steady_line_is_measured_exactly() {
        let start = Instant::now();
        let mut delivery = Delivery::new(start);
        let mut last = None;
        for step in 0..100_u64 {
            let now = start + ms(10 * step);
            if step >= 10 {
                last = delivery.acked(now, now - ms(100), PACKET).rate;
            }
            delivery.sent(now, step == 0);
        }
        let rate = last.unwrap();
        assert!((rate - 120_000.0).abs() < 1.0, "{rate} of 120,000 bytes a second");
    }

    #[test]
    fn a_burst_tells_the_rate_of_its_acknowledgements() {
        let start = Instant::now();
        let mut delivery = Delivery::new(start);
        delivery.sent(start, true);
        let rates: Vec<_> = (1..=10).filter_map(|k| delivery.acked(start + ms(100 + 10 * k), start, PACKET).rate).collect();
        let most = rates.iter().copied().fold(0.0, f64::max);
        assert!(most <= 120_000.0 && most > 0.0, "{rates:?}");
    }

    #[test]
    fn acknowledgements_in_a_clump_do_not_make_the_line_faster() {
        let start = Instant::now();
        let mut delivery = Delivery::new(start);
        for step in 0..20 {
            delivery.sent(start + ms(10 * step), step == 0);
        }
        let clump = start + ms(300);
        let rates: Vec<_> = (0..20).filter_map(|step| delivery.acked(clump, start + ms(10 * step), PACKET).rate).collect();
        assert!(rates.iter().all(|rate| *rate <= 20.0 * 1200.0 / 0.29), "{rates:?}");
    }

    #[test]
    fn idle_time_does_not_count() {
        let start = Instant::now();
        let mut delivery = Delivery::new(start);
        delivery.sent(start, true);
        delivery.acked(start + ms(100), start, PACKET);
        let later = start + ms(60_000);
        delivery.sent(later, true);
        let rate = delivery.acked(later + ms(100), later, PACKET).rate.unwrap();
        assert!((rate - 12_000.0).abs() < 1.0, "{rate}");
    }

    #[test]
    fn what_was_sent_before_is_forgotten_at_the_bound() {
        let start = Instant::now();
        let mut delivery = Delivery::new(start);
        for step in 0..2 * MAX_MOMENTS as u64 {
            delivery.sent(start + Duration::from_micros(step), false);
        }
        assert_eq!(delivery.moments.len(), MAX_MOMENTS);
        assert_eq!(delivery.acked(start + ms(100), start, PACKET).rate, None, "its moment is forgotten");
        delivery.forget_before(start + ms(100));
        assert!(delivery.moments.is_empty());
    }
}
