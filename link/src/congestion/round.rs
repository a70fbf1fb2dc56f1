//! A round trip's worth of acknowledgements, and what was lost.

use std::time::{Duration, Instant};

/// Share of a round's bytes that may be lost before it counts as congestion. Radio and satellite lines lose up to some 5 %, in bursts more.
pub(super) const CONGESTED_LOSS: f64 = 0.15;

/// Shares are looked at when so many packets are acknowledged or lost: of 40 at 5 %, more than 15 % are lost once in 300 times.
const LOSS_PACKETS: f64 = 40.0;

/// From a moment to the acknowledgement of what was sent after it.
#[derive(Clone, Debug)]
pub(super) struct Round {
    pub(super) since: Instant,
    /// Best rate, bytes a second.
    pub(super) best: f64,
    /// Least round trip of the packets sent in it.
    pub(super) least: Option<Duration>,
    /// Bytes.
    pub(super) acked: f64,
    pub(super) lost: f64,
    /// The window was full at some time, the application had nothing to send at some time.
    pub(super) full: bool,
    pub(super) starved: bool,
}

impl Round {
    pub(super) fn new(since: Instant) -> Self {
        Self { since, best: 0.0, least: None, acked: 0.0, lost: 0.0, full: false, starved: false }
    }
}

/// What became of packets since shares were last looked at, in bytes.
#[derive(Clone, Debug, Default)]
pub(super) struct Losses {
    acked: f64,
    lost: f64,
}

impl Losses {
    /// Adds a round. True when more is lost than a bad line loses.
    pub(super) fn are_congestion(&mut self, round: &Round, mtu: f64) -> bool {
        (self.acked, self.lost) = (self.acked + round.acked, self.lost + round.lost);
        if self.acked + self.lost < LOSS_PACKETS * mtu {
            return false;
        }
        let seen = std::mem::take(self);
        seen.lost > CONGESTED_LOSS * (seen.acked + seen.lost)
    }
}
