//! The lines that are measured.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, Error, Result, bail, ensure};
use spillway_config::units::{BitRate, DurationText};
use spillway_wan::Loss;

use crate::wan::order::{self, Change, Order};

/// Least queue: twenty full packets.
const QUEUE_BYTES_MIN: u64 = 32_000;

/// A line, the same in both directions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LineOptions {
    /// Bits a second.
    pub rate: u64,
    /// There and back, without waiting.
    pub round_trip: Duration,
    /// Of packets.
    pub loss: Loss,
}

/// Every line of the grid.
#[must_use]
pub fn grid() -> Vec<LineOptions> {
    let mut lines = Vec::new();
    for rate in [1_000_000, 10_000_000] {
        for millis in [100, 300, 600] {
            for percent in [0.0, 1.0, 3.0, 5.0] {
                let loss = if percent > 0.0 { Loss::Random(percent / 100.0) } else { Loss::None };
                lines.push(LineOptions { rate, round_trip: Duration::from_millis(millis), loss });
            }
        }
    }
    lines
}

impl LineOptions {
    /// The queue before each direction: as wished, or what the line carries in a round trip.
    #[must_use]
    pub fn queue_bytes(&self, wished: Option<u64>) -> u64 {
        let carried = u128::from(self.rate) * self.round_trip.as_millis() / 8000;
        wished.unwrap_or_else(|| u64::try_from(carried).unwrap_or(u64::MAX).max(QUEUE_BYTES_MIN))
    }

    /// What makes a perfect WAN this line.
    #[must_use]
    pub fn orders(&self, queue: Option<u64>) -> Vec<Order> {
        let changes = vec![
            Change::Rate(Some(self.rate)),
            Change::Delay(self.round_trip / 2),
            Change::Loss(self.loss),
            Change::Queue(self.queue_bytes(queue)),
        ];
        vec![Order::Shape(None, changes)]
    }
}

impl FromStr for LineOptions {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (rate, rest) = text.split_once(',').context("write RATE,RTT,LOSS, for example 2Mbit,300ms,2%")?;
        let (round_trip, loss) = rest.split_once(',').context("write RATE,RTT,LOSS, for example 2Mbit,300ms,2%")?;
        let Some(rate) = order::rate(rate)? else { bail!("a line that is to be filled has a rate") };
        let round_trip = order::duration(round_trip)?;
        ensure!(!round_trip.is_zero(), "the round trip is zero");
        Ok(Self { rate, round_trip, loss: order::loss(loss)? })
    }
}

impl fmt::Display for LineOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = std::num::NonZeroU64::new(self.rate).map(BitRate::from_bits_per_second);
        let bursts = if matches!(self.loss, Loss::Bursts(_)) { " in bursts" } else { "" };
        write!(
            f,
            "{}, {}, {} % loss{bursts}",
            BitRate::limit_text(rate),
            DurationText(self.round_trip),
            (self.loss.mean() * 1e4).round() / 100.0
        )
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_line_is_read_told_and_ordered() {
        let line: LineOptions = "2Mbit,300ms,2%".parse().unwrap();
        assert_eq!(line, LineOptions { rate: 2_000_000, round_trip: Duration::from_millis(300), loss: Loss::Random(0.02) });
        assert_eq!(line.to_string(), "2Mbit, 300ms, 2 % loss");
        assert_eq!((line.queue_bytes(None), line.queue_bytes(Some(7))), (75_000, 7));
        assert_eq!("2Mbit,300ms,2%/8".parse::<LineOptions>().unwrap().to_string(), "2Mbit, 300ms, 2 % loss in bursts");
        assert_eq!(grid().len(), 24);
        for bad in ["2Mbit", "2Mbit,300ms", "unlimited,300ms,2%", "2Mbit,0s,2%", "2Mbit,300ms,2"] {
            bad.parse::<LineOptions>().unwrap_err();
        }
    }
}
