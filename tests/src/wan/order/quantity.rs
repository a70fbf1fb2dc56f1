//! Rates, sizes, times and losses, as orders and options write them.

use std::time::Duration;

use anyhow::{Error, Result, anyhow, ensure};
use spillway_config::units::{self, BitRate, ByteSize, Kind};
use spillway_wan::{Burst, Loss};

#[cfg(doc)]
use super::HELP;

/// Bits a second; `None` for `unlimited`.
///
/// # Errors
/// With what to write instead.
pub fn rate(text: &str) -> Result<Option<u64>> {
    let limit = BitRate::parse_limit(text).map_err(|error| told("rate", text, &error))?;
    Ok(limit.map(BitRate::bits_per_second))
}

/// Bytes with their unit.
///
/// # Errors
/// With what to write instead.
pub fn size(text: &str) -> Result<u64> {
    Ok(text.parse::<ByteSize>().map_err(|error| told("size", text, &error))?.bytes())
}

/// A time with its unit.
///
/// # Errors
/// With what to write instead.
pub fn duration(text: &str) -> Result<Duration> {
    units::parse_duration(text).map_err(|error| told("time", text, &error))
}

/// Loss as in [`HELP`].
///
/// # Errors
/// With what to write instead.
pub fn loss(text: &str) -> Result<Loss> {
    let hint =
        || anyhow!("{text:?} is no loss; write for example 2%, 2%/8 (in bursts of 8 packets), 0.01,0.2,0.5 (Gilbert-Elliott) or none");
    if text == "none" {
        return Ok(Loss::None);
    }
    let number = |text: &str, max: f64| text.parse().ok().filter(|number| (0.0..=max).contains(number)).ok_or_else(hint);
    if let [enter, leave, loss] = text.split(',').collect::<Vec<_>>().as_slice() {
        return Ok(Loss::Bursts(Burst { enter: number(enter, 1.0)?, leave: number(leave, 1.0)?, loss: number(loss, 1.0)? }));
    }
    let (share, packets) = text.split_once('/').map_or((text, None), |(share, packets)| (share, Some(packets)));
    let share = number(share.strip_suffix('%').ok_or_else(hint)?, 100.0)? / 100.0;
    match packets {
        None if share == 0.0 => Ok(Loss::None),
        None => Ok(Loss::Random(share)),
        Some(packets) => {
            let packets = number(packets, 1e6)?;
            ensure!(packets >= 1.0, "a burst has one packet at least: {text:?}");
            Ok(Loss::Bursts(Burst::of_mean(share, packets)))
        }
    }
}

fn told(kind: &str, text: &str, error: &units::Error) -> Error {
    let fix = match error {
        // What lines are like is written in smaller units than settings are.
        units::Error::UnitMissing { kind: Kind::Duration, number } => format!("write {number}ms or {number}s"),
        units::Error::UnitMissing { kind: Kind::Size, number } => format!("write {number}B or {number}KiB"),
        units::Error::UnitMissing { kind: Kind::Rate, number } => format!("write {number}bit, {number}kbit or {number}Mbit"),
        other => other.fix(),
    };
    anyhow!("{text:?} as a {kind}: {error}; {fix}")
}
