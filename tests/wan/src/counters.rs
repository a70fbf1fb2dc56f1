//! What became of the packets of a line.

use std::ops::{Add, AddAssign, Sub};

/// Packets, and the sum of their bytes as given to [`crate::Line::push`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// How many packets.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Counters of one direction since the line's start; they never go down.
///
/// Every packet that is offered ends as exactly one of the other four, or is [on the way](Self::on_the_way).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Handed in.
    pub offered: Count,
    /// Handed out.
    pub delivered: Count,
    /// Taken by random loss: these have used the line, or were to use it when the line went down.
    pub lost: Count,
    /// Dropped because the queue was full.
    pub overflowed: Count,
    /// Dropped because the line was down, or went down while they waited in the queue.
    pub down: Count,
}

impl Counters {
    /// What has gone or will go over the line as it stands: all but overflowed and down. This is what a provider bills the sender.
    #[must_use]
    pub fn carried(&self) -> Count {
        self.offered - self.overflowed - self.down
    }

    /// In the queue or between the two ends, and not destined to be lost.
    #[must_use]
    pub fn on_the_way(&self) -> Count {
        self.carried() - self.delivered - self.lost
    }

    /// Lost, overflowed and down together.
    #[must_use]
    pub fn dropped(&self) -> Count {
        self.lost + self.overflowed + self.down
    }

    /// What was counted since `earlier`, an older state of the same counters.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            offered: self.offered - earlier.offered,
            delivered: self.delivered - earlier.delivered,
            lost: self.lost - earlier.lost,
            overflowed: self.overflowed - earlier.overflowed,
            down: self.down - earlier.down,
        }
    }
}

impl Count {
    /// One packet of `bytes`.
    pub(crate) fn one(bytes: usize) -> Self {
        Self { packets: 1, bytes: u64::try_from(bytes).unwrap_or(u64::MAX) }
    }
}

impl Add for Count {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { packets: self.packets.saturating_add(other.packets), bytes: self.bytes.saturating_add(other.bytes) }
    }
}

impl AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

/// Stops at zero.
impl Sub for Count {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self { packets: self.packets.saturating_sub(other.packets), bytes: self.bytes.saturating_sub(other.bytes) }
    }
}
