//! Orders, and what a line is like, as a person writes them.

use std::fmt;
use std::num::NonZeroU64;

use spillway_config::units::{BitRate, ByteSize, DurationText};
use spillway_wan::{Loss, Shape};

use super::{Change, Direction, Order};

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::ToCentre => "to-centre",
            Self::ToEdge => "to-edge",
        })
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Shape(only, _) | Self::SetUp(only, _) | Self::Outage(only, _)) = self else {
            return match self {
                Self::Address(Some(address)) => write!(f, "address {address}"),
                Self::Address(None) => f.write_str("address next"),
                Self::Ports => f.write_str("ports next"),
                Self::Udp(passes) => write!(f, "udp {}", on_or_off(*passes)),
                _ => f.write_str("counters"),
            };
        };
        if let Some(direction) = only {
            write!(f, "{direction} ")?;
        }
        match self {
            Self::Outage(_, time) => write!(f, "outage {}", DurationText(*time)),
            Self::Shape(_, changes) => {
                let changes: Vec<String> = changes.iter().map(ToString::to_string).collect();
                f.write_str(&changes.join(" "))
            }
            other => f.write_str(if *other == Self::SetUp(*only, true) { "up" } else { "down" }),
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rate(Some(0)) => f.write_str("rate 0bit"),
            Self::Rate(bits) => {
                write!(f, "rate {}", BitRate::limit_text(bits.and_then(NonZeroU64::new).map(BitRate::from_bits_per_second)))
            }
            Self::Delay(time) => write!(f, "delay {}", DurationText(*time)),
            Self::Jitter(time) => write!(f, "jitter {}", DurationText(*time)),
            Self::Reorder(reorder) => write!(f, "reorder {}", on_or_off(*reorder)),
            Self::Loss(Loss::None) => f.write_str("loss none"),
            Self::Loss(Loss::Random(share)) => write!(f, "loss {}%", share * 100.0),
            Self::Loss(Loss::Bursts(burst)) => write!(f, "loss {},{},{}", burst.enter, burst.leave, burst.loss),
            Self::Queue(bytes) => write!(f, "queue {}", ByteSize::from_bytes(*bytes)),
        }
    }
}

/// What a direction is like: whether it is up, and the order that would make it so.
#[must_use]
pub fn condition(direction: Direction, shape: &Shape) -> String {
    let changes = [
        Change::Rate(shape.rate),
        Change::Delay(shape.delay),
        Change::Jitter(shape.jitter),
        Change::Reorder(shape.reorder),
        Change::Loss(shape.loss),
        Change::Queue(shape.queue_bytes),
    ];
    let state = if shape.up { "up" } else { "down" };
    format!("{direction:<9} is {state}: {}", changes.map(|change| change.to_string()).join(" "))
}

fn on_or_off(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}
