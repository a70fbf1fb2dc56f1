//! The cap on bytes sent: a governor quota that can be replaced while the link is in use.

use std::{
    fmt,
    num::{NonZeroU32, NonZeroU64},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use governor::{
    Quota, RateLimiter,
    clock::Clock,
    middleware::NoOpMiddleware,
    nanos::Nanos,
    state::{InMemoryState, NotKeyed},
};
use tokio::time::Instant;

use crate::{settings::MAX_DATAGRAM_BYTES, socket::IPV6_UDP_HEADER_BYTES};

/// Line time that may go out at once when the line was silent. Long enough that a timer of 1 ms resolution keeps the line full,
/// short enough that no queue builds up behind the cap.
const BURST_TIME: Duration = Duration::from_millis(5);

/// Least burst: two datagrams of the largest size with their headers, so that any datagram fits and the next can follow at once.
const MIN_BURST_BYTES: u32 = 2 * (MAX_DATAGRAM_BYTES as u32 + IPV6_UDP_HEADER_BYTES as u32);

/// Bits per second on the wire, with IP and UDP headers. Never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BitRate(NonZeroU64);

impl BitRate {
    /// `bits` per second; `None` for zero, which is no rate but a stop.
    pub fn new(bits_per_second: u64) -> Option<Self> {
        NonZeroU64::new(bits_per_second).map(Self)
    }

    /// Bits per second.
    pub fn bits_per_second(self) -> u64 {
        self.0.get()
    }

    /// Time that one byte takes, rounded up to whole nanoseconds: the cap is never passed, and at 1 Gbit/s and above it may be
    /// missed by up to 12 %.
    fn byte_time(self) -> Duration {
        Duration::from_nanos(8_000_000_000_u64.div_ceil(self.bits_per_second()))
    }

    /// Bytes that may go out at once.
    fn burst(self) -> NonZeroU32 {
        let bytes = BURST_TIME.as_nanos() / self.byte_time().as_nanos().max(1);
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).max(MIN_BURST_BYTES);
        NonZeroU32::new(bytes).unwrap_or(NonZeroU32::MIN)
    }
}

impl fmt::Display for BitRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bit/s", self.0)
    }
}

/// Handle to the cap of a [`crate::CappedSocket`]; clones steer the same cap.
///
/// Over any span of time `t` the socket sends at most `rate x t` bytes plus one burst: the larger of two datagrams and 5 ms of line.
#[derive(Clone, Debug)]
pub struct RateCap(Arc<Mutex<State>>);

impl RateCap {
    /// A cap of `rate`; `None`: unlimited.
    pub fn new(rate: Option<BitRate>) -> Self {
        Self(Arc::new(Mutex::new(State::new(rate))))
    }

    /// Replaces the rate, from the next datagram on. Setting the rate that holds already changes nothing, and a new rate begins
    /// without a burst, so that frequent changes admit nothing extra.
    pub fn set_rate(&self, rate: Option<BitRate>) {
        let mut state = self.state();
        if state.rate != rate {
            *state = State::new(rate);
        }
    }

    /// The rate that holds now.
    pub fn rate(&self) -> Option<BitRate> {
        self.state().rate
    }

    /// Takes `bytes` out of the budget, or says when to ask again.
    pub(crate) fn take(&self, bytes: u32) -> Result<(), Instant> {
        self.state().take(bytes)
    }

    /// Gives back what [`RateCap::take`] gave, because the socket did not take the datagram.
    pub(crate) fn give_back(&self, bytes: u32) {
        let mut state = self.state();
        if state.limiter.is_some() {
            state.prepaid = state.prepaid.saturating_add(bytes);
        }
    }

    /// Until when there is no use in asking again; `None`: now.
    pub(crate) fn blocked_until(&self, now: Instant) -> Option<Instant> {
        self.state().blocked_until.filter(|until| *until > now)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code that can panic runs under the lock; were it poisoned, its plain values would still be sound.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Limiter = RateLimiter<NotKeyed, InMemoryState, TokioClock, NoOpMiddleware<Nanos>>;

struct State {
    rate: Option<BitRate>,
    limiter: Option<Limiter>,
    /// The clock that the limiter reads.
    clock: TokioClock,
    /// Bytes taken but not sent.
    prepaid: u32,
    blocked_until: Option<Instant>,
}

impl State {
    fn new(rate: Option<BitRate>) -> Self {
        let clock = TokioClock { base: Instant::now() };
        let limiter = rate.and_then(|rate| {
            let quota = Quota::with_period(rate.byte_time())?.allow_burst(rate.burst());
            let limiter = Limiter::direct_with_clock(quota, clock.clone());
            // Starts empty; see `RateCap::set_rate`. A fresh limiter always grants its whole burst.
            drop(limiter.check_n(rate.burst()));
            Some(limiter)
        });
        Self { rate, limiter, clock, prepaid: 0, blocked_until: None }
    }

    fn take(&mut self, bytes: u32) -> Result<(), Instant> {
        let (Some(limiter), Some(rate)) = (&self.limiter, self.rate) else { return Ok(()) };
        let from_prepaid = bytes.min(self.prepaid);
        // More than a burst at once happens only to a batch of segments that quinn had built before the cap was set.
        let Some(owed) = NonZeroU32::new((bytes - from_prepaid).min(rate.burst().get())) else {
            self.prepaid -= from_prepaid;
            return Ok(());
        };
        match limiter.check_n(owed) {
            Ok(Err(refused)) => {
                let until = Instant::now() + refused.wait_time_from(self.clock.now());
                self.blocked_until = Some(until);
                Err(until)
            }
            Ok(Ok(())) | Err(_) => {
                self.prepaid -= from_prepaid;
                self.blocked_until = None;
                Ok(())
            }
        }
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("rate", &self.rate)
            .field("prepaid", &self.prepaid)
            .field("blocked_until", &self.blocked_until)
            .finish_non_exhaustive()
    }
}

/// Tokio's clock, so that a test with paused time pauses the cap as well.
#[derive(Clone, Debug)]
struct TokioClock {
    base: Instant,
}

impl Clock for TokioClock {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        Nanos::from(self.base.elapsed())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn rate(bits: u64) -> BitRate {
        BitRate::new(bits).unwrap()
    }

    /// Sends 1500-byte datagrams whenever the cap allows, for `span`; bytes sent.
    async fn saturate(cap: &RateCap, span: Duration) -> u64 {
        let end = Instant::now() + span;
        let mut sent = 0;
        while Instant::now() < end {
            match cap.take(1500) {
                Ok(()) => sent += 1500,
                Err(until) => tokio::time::sleep_until(until).await,
            }
        }
        sent
    }

    #[tokio::test(start_paused = true)]
    async fn the_line_is_full_and_never_overfull() {
        for bits in [9_600, 64_000, 512_000, 2_000_000, 10_000_000, 300_000_000] {
            let cap = RateCap::new(Some(rate(bits)));
            let span = Duration::from_secs(20);
            let sent = saturate(&cap, span).await;
            let line = bits / 8 * span.as_secs();
            let burst = u64::from(rate(bits).burst().get());
            assert!(sent <= line + burst, "{bits} bit/s: {sent} of {line} bytes");
            assert!(sent + 3000 >= line * 94 / 100, "{bits} bit/s: {sent} of {line} bytes");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn changing_the_rate_often_admits_nothing_extra() {
        let cap = RateCap::new(Some(rate(64_000)));
        let mut sent = 0;
        for round in 0..1000 {
            cap.set_rate(Some(rate(64_000 + round % 2)));
            sent += saturate(&cap, Duration::from_millis(20)).await;
        }
        assert!(sent <= 8 * 20_000 + 3000, "{sent} bytes in 20 s at 64 kbit/s");
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_socket_did_not_take_is_not_paid_twice() {
        let cap = RateCap::new(Some(rate(64_000)));
        tokio::time::sleep(Duration::from_secs(1)).await;
        for _ in 0..100 {
            cap.take(1500).unwrap();
            cap.give_back(1500);
        }
        cap.take(1500).unwrap();
        cap.take(1500).unwrap();
        cap.take(1500).unwrap_err();
    }

    #[tokio::test(start_paused = true)]
    async fn an_unlimited_cap_never_blocks() {
        let cap = RateCap::new(None);
        for _ in 0..10_000 {
            cap.take(65_000).unwrap();
        }
        assert_eq!(cap.blocked_until(Instant::now()), None);
    }

    #[test]
    fn a_datagram_always_fits_the_burst() {
        for bits in [1, 1000, 64_000, 10_000_000, u64::MAX] {
            assert!(rate(bits).burst().get() >= MIN_BURST_BYTES, "{bits}");
        }
        assert_eq!(BitRate::new(0), None);
    }
}
