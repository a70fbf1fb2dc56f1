//! When the next datagram may leave. Pure: time comes in as an argument, counted from any fixed moment.
//!
//! Two rules, both exact in integers:
//!
//! 1. **The line.** A balance in bits grows with the rate. A datagram may leave when the balance is not negative, and takes its size from it. So datagrams
//!    follow each other as on a serial line of this rate: each has had its time before the next one leaves.
//! 2. **The window**, for slow lines, where a datagram is a large part of what 10 s may carry and the first rule alone would let 10 s see the beginning of
//!    one too many: the datagrams of the last 10 s are remembered, each from when it has really left, and the next one waits until it fits beside them.

use std::{collections::VecDeque, time::Duration};

use super::{BitRate, SLOW_LINE_BITS};

/// Line time that may be caught up on: a timer is late by a millisecond or two, on a busy machine by several. Short enough that no queue builds up.
const CREDIT_TIME: Duration = Duration::from_millis(10);

/// What the window rule is about, and a little more, so that whoever counts behind a line with some jitter finds it kept as well.
const WINDOW: Duration = Duration::from_millis(10_020);

/// Bytes in a window, in percent of what a line of this rate carries in 10 s. The first rule keeps the rate; this one keeps datagrams from falling
/// together, and leaves half of the 2 % that a cap may be off to what is received after the last datagram has left.
const WINDOW_PERCENT: u64 = 101;

/// Datagrams closer together than this are remembered as one: it bounds the memory of the window to some 1,000 entries.
const GRAIN: Duration = Duration::from_millis(10);

/// Most line time that is owed for what was received: what is more is forgiven. It bounds for how long a flood from outside is felt.
const DEBT_TIME_MAX: Duration = Duration::from_secs(2);

/// Likewise in bytes, for the slowest lines: three of the largest datagrams.
const DEBT_BYTES_MAX: u32 = 4_500;

/// A datagram that leaves pays at most so many times its size of what is owed. Under a flood sending goes on with an eighth of the line: were there
/// nothing left, acknowledgements would stop, and the connection with them.
const DEBT_SHARE: i128 = 7;

/// A bit in the unit of the balance: at a rate of `r` bits a second it grows by `r` in a nanosecond.
const BIT: i128 = 1_000_000_000;

/// See the module.
#[derive(Debug)]
pub(super) struct Pacer {
    rate: Option<BitRate>,
    /// In billionths of a bit. Negative: what has left has not had its time on the line yet.
    balance: i128,
    /// Owed for what was received; never negative.
    owed: i128,
    /// When the balance was right.
    at: Duration,
    window: Window,
}

impl Pacer {
    /// Without a rate everything may leave at once.
    pub(super) fn new(rate: Option<BitRate>) -> Self {
        Self { rate, balance: 0, owed: 0, at: Duration::ZERO, window: Window::default() }
    }

    pub(super) fn rate(&self) -> Option<BitRate> {
        self.rate
    }

    /// Replaces the rate. What is owed stays owed in bits, what is credited is gone.
    pub(super) fn set_rate(&mut self, rate: Option<BitRate>, now: Duration) {
        if self.rate != rate {
            self.advance(now);
            self.balance = self.balance.min(0);
            if rate.is_none() {
                (self.balance, self.owed, self.window) = (0, 0, Window::default());
            }
            self.rate = rate;
            self.at = now;
        }
    }

    /// Takes `bytes` that leave now, or says when to ask again.
    pub(super) fn take(&mut self, bytes: u32, now: Duration) -> Result<(), Duration> {
        let Some(rate) = self.rate else { return Ok(()) };
        self.advance(now);
        if self.balance < 0 {
            let nanoseconds = self.balance.unsigned_abs().div_ceil(u128::from(rate.bits_per_second()));
            return Err(now + Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX)));
        }
        if let Some(limit) = window_limit(rate) {
            self.window.fits(bytes, limit, now)?;
            self.window.sent(bytes, now);
        }
        let paid = self.owed.min(bits(bytes) * DEBT_SHARE);
        self.owed -= paid;
        self.balance -= bits(bytes) + paid;
        Ok(())
    }

    /// What was taken last did not leave.
    pub(super) fn refund(&mut self, bytes: u32) {
        if self.rate.is_some() {
            self.balance += bits(bytes);
            self.window.unsent(bytes);
        }
    }

    /// What was taken last has left by `now`. A sender that was held up between the two would else be let send the next ones too close behind it.
    pub(super) fn left(&mut self, now: Duration) {
        self.window.left(now);
    }

    /// So many bytes were received, and count.
    pub(super) fn owe(&mut self, bytes: u32, now: Duration) {
        let Some(rate) = self.rate else { return };
        self.advance(now);
        self.owed = (self.owed + bits(bytes)).min(amount(rate, DEBT_TIME_MAX).max(bits(DEBT_BYTES_MAX)));
        if let Some(limit) = window_limit(rate) {
            self.window.received(bytes, limit, now);
        }
    }

    fn advance(&mut self, now: Duration) {
        let Some(rate) = self.rate else { return };
        let grown = self.balance + amount(rate, now.saturating_sub(self.at));
        // What was given back may be more than the cap of credits.
        self.balance = grown.min(amount(rate, CREDIT_TIME).max(self.balance));
        self.owed = (self.owed - (grown - self.balance)).max(0);
        self.at = self.at.max(now);
    }
}

/// What passed in the last [`WINDOW`].
#[derive(Debug, Default)]
struct Window {
    passed: VecDeque<Passed>,
    /// Sums over `passed`.
    sent: u64,
    received: u64,
}

#[derive(Debug, Default)]
struct Passed {
    /// The first and the last datagram of the entry.
    first: Duration,
    last: Duration,
    sent: u32,
    received: u32,
}

impl Window {
    /// Whether `bytes` fit beside what passed, within `limit`; else when to ask again. What is larger than `limit` waits for an empty window.
    fn fits(&mut self, bytes: u32, limit: u64, now: Duration) -> Result<(), Duration> {
        while let Some(oldest) = self.passed.front().filter(|oldest| oldest.last + WINDOW <= now) {
            self.sent -= u64::from(oldest.sent);
            self.received -= u64::from(oldest.received);
            self.passed.pop_front();
        }
        let mut rest = self.sent + self.received + u64::from(bytes);
        for entry in &self.passed {
            if rest <= limit {
                return Ok(());
            }
            rest -= u64::from(entry.sent) + u64::from(entry.received);
            if rest <= limit || rest == u64::from(bytes) {
                return Err(entry.last + WINDOW);
            }
        }
        Ok(())
    }

    fn sent(&mut self, bytes: u32, now: Duration) {
        self.entry(now).sent += bytes;
        self.sent += u64::from(bytes);
    }

    fn left(&mut self, now: Duration) {
        if let Some(entry) = self.newest_sent() {
            entry.last = entry.last.max(now);
        }
    }

    fn unsent(&mut self, bytes: u32) {
        if let Some(entry) = self.newest_sent() {
            let bytes = bytes.min(entry.sent);
            entry.sent -= bytes;
            self.sent -= u64::from(bytes);
        }
    }

    /// What was received since may have entries of its own.
    fn newest_sent(&mut self) -> Option<&mut Passed> {
        self.passed.iter_mut().rev().find(|entry| entry.sent > 0)
    }

    /// At most half of the window is for what was received: the rest is always there for sending.
    fn received(&mut self, bytes: u32, limit: u64, now: Duration) {
        let bytes = u64::from(bytes).min((limit / 2).saturating_sub(self.received));
        if bytes > 0 {
            self.entry(now).received += bytes as u32;
            self.received += bytes;
        }
    }

    fn entry(&mut self, now: Duration) -> &mut Passed {
        if self.passed.back().is_none_or(|newest| now.saturating_sub(newest.first) >= GRAIN) {
            self.passed.push_back(Passed { first: now, ..Passed::default() });
        }
        let newest = self.passed.len() - 1;
        let entry = &mut self.passed[newest];
        entry.last = entry.last.max(now);
        entry
    }
}

/// Most bytes in a window; `None`: the window rule does not hold at this rate.
fn window_limit(rate: BitRate) -> Option<u64> {
    let bits = rate.bits_per_second();
    (bits <= SLOW_LINE_BITS).then(|| bits * 10 / 8 * WINDOW_PERCENT / 100)
}

/// What the line carries in so much time, in billionths of a bit.
fn amount(rate: BitRate, time: Duration) -> i128 {
    // A century at 10^19 bit/s is 10^38 of the 1.7 * 10^38 that fit.
    i128::try_from(time.as_nanos().saturating_mul(u128::from(rate.bits_per_second()))).unwrap_or(i128::MAX / 2).min(i128::MAX / 4)
}

fn bits(bytes: u32) -> i128 {
    i128::from(bytes) * 8 * BIT
}
