//! The cap on wire bytes: a rate that can be replaced while the link is in use, a stop, and a fuse.
//!
//! [`pacer`] decides; here are its clock and its lock. A token bucket of a library (governor's) is not enough: its burst cannot be less than what it
//! admits at once, which over 10 s at 8 kbit/s is 30 % too much, it knows time per byte in whole nanoseconds only, and it cannot owe what was received.

use std::{
    fmt,
    num::NonZeroU64,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

mod pacer;

use pacer::Pacer;

/// Up to this rate, in bits per second, a line is slow: no 10 s may carry more than the rate allows, and datagrams are best kept at QUIC's least size. Above
/// it one datagram of 1,500 bytes is less than 0.5 % of what 10 s carry.
pub const SLOW_LINE_BITS: u64 = 256_000;

/// How often a sender that is stopped looks again, in case nobody wakes it.
const STOPPED_PAUSE: Duration = Duration::from_millis(100);

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
}

impl fmt::Display for BitRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bit/s", self.0)
    }
}

/// Which bytes a cap, and a budget behind it, are about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Counting {
    /// Those sent.
    #[default]
    Sent,
    /// Those sent and those received. What is received cannot be refused: it is a debt that sending pays first.
    Both,
}

/// Handle to the cap of a [`crate::CappedSocket`]; clones steer the same cap.
///
/// Datagrams leave one after the other, each when the one before has had its time on the line; at most 10 ms of line are caught up on after a timer that
/// was late. Up to 256 kbit/s, where one datagram is much, there are moreover never more bytes in any 10 s than the rate allows (unless a single datagram
/// is more). Above, any 10 s may see one datagram and 10 ms of line more.
#[derive(Clone, Debug)]
pub struct RateCap(Arc<Mutex<State>>);

impl RateCap {
    /// A cap of `rate`; `None`: unlimited.
    pub fn new(rate: Option<BitRate>) -> Self {
        let pacer = Pacer::new(rate);
        let state =
            State { pacer, base: Instant::now(), counting: Counting::Sent, stopped: false, fuse: None, spent: 0, blocked_until: None };
        Self(Arc::new(Mutex::new(state)))
    }

    /// Replaces the rate, from the next datagram on. What is owed stays owed, so that frequent changes admit nothing extra.
    pub fn set_rate(&self, rate: Option<BitRate>) {
        let mut state = self.state();
        let now = state.now();
        state.pacer.set_rate(rate, now);
        state.blocked_until = None;
    }

    /// The rate that holds now; `None`: unlimited.
    pub fn rate(&self) -> Option<BitRate> {
        self.state().pacer.rate()
    }

    /// Which bytes count, from the next datagram on.
    pub fn set_counting(&self, counting: Counting) {
        self.state().counting = counting;
    }

    /// Sends nothing any more, or goes on.
    pub fn set_stopped(&self, stopped: bool) {
        let mut state = self.state();
        state.stopped = stopped;
        state.blocked_until = None;
    }

    /// Whether nothing is sent.
    pub fn is_stopped(&self) -> bool {
        self.state().stopped
    }

    /// Sends only as long as [`RateCap::spent`] does not pass `most`; `None`: as long as you like.
    pub fn set_fuse(&self, most: Option<u64>) {
        let mut state = self.state();
        state.fuse = most;
        state.blocked_until = None;
    }

    /// Bytes that counted (see [`RateCap::set_counting`]) since the cap was made. Only grows.
    pub fn spent(&self) -> u64 {
        self.state().spent
    }

    /// Takes `bytes` that are to be sent now, or says when to ask again.
    pub(crate) fn take(&self, bytes: u32) -> Result<(), Instant> {
        self.state().take(bytes)
    }

    /// Gives back what [`RateCap::take`] gave last, because the socket did not take the datagram.
    pub(crate) fn give_back(&self, bytes: u32) {
        let mut state = self.state();
        state.pacer.refund(bytes);
        state.spent = state.spent.saturating_sub(u64::from(bytes));
    }

    /// What [`RateCap::take`] gave last has left.
    pub(crate) fn left(&self) {
        let mut state = self.state();
        let now = state.now();
        state.pacer.left(now);
    }

    /// So many bytes are sent by the system of its own accord: they count, and later ones wait for them.
    pub(crate) fn sent_unasked(&self, bytes: u64) {
        self.state().owe(bytes);
    }

    /// Waits until `bytes` may be sent now, and takes them. Cancel safe.
    pub(crate) async fn wait_for(&self, bytes: u32) {
        while let Err(until) = self.take(bytes) {
            tokio::time::sleep_until(until).await;
        }
    }

    /// So many bytes were received.
    pub(crate) fn received(&self, bytes: u64) {
        let mut state = self.state();
        if state.counting == Counting::Both {
            state.owe(bytes);
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

#[derive(Debug)]
struct State {
    pacer: Pacer,
    /// The pacer's time is since then. Tokio's clock, so that a test with paused time pauses the cap as well.
    base: Instant,
    counting: Counting,
    stopped: bool,
    fuse: Option<u64>,
    spent: u64,
    blocked_until: Option<Instant>,
}

impl State {
    fn now(&self) -> Duration {
        self.base.elapsed()
    }

    fn owe(&mut self, bytes: u64) {
        let now = self.now();
        self.pacer.owe(u32::try_from(bytes).unwrap_or(u32::MAX), now);
        self.spent = self.spent.saturating_add(bytes);
    }

    fn take(&mut self, bytes: u32) -> Result<(), Instant> {
        let now = self.now();
        let spent = self.spent.saturating_add(u64::from(bytes));
        let taken =
            if self.stopped || self.fuse.is_some_and(|most| spent > most) { Err(now + STOPPED_PAUSE) } else { self.pacer.take(bytes, now) };
        match taken {
            Ok(()) => {
                self.spent = spent;
                self.blocked_until = None;
                Ok(())
            }
            Err(until) => {
                let until = self.base + until;
                self.blocked_until = Some(until);
                Err(until)
            }
        }
    }
}

#[cfg(test)]
mod tests;
