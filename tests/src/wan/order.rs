//! Orders to a WAN: one line of text each, the same in a scenario file, over the control socket and in code.

mod print;
mod quantity;

use std::net::Ipv4Addr;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, Error, Result, bail, ensure};
use spillway_wan::{Loss, Shape};

pub use print::condition;
pub use quantity::{duration, loss, rate, size};

/// What can be ordered, for people.
pub const HELP: &str = "\
Orders (without to-centre or to-edge: both directions)
  [to-centre|to-edge] KEY VALUE [KEY VALUE …]     for example: to-centre rate 2Mbit delay 150ms loss 2%
      rate 2Mbit | unlimited     bits a second at the IP level
      delay 150ms                one way
      jitter 20ms                up to so much more for each packet
      reorder on | off           whether jitter lets a packet pass another
      loss 2% | 2%/8 | none      of packets; 2%/8: in bursts of 8 in the mean
      loss ENTER,LEAVE,LOSS      Gilbert-Elliott: probabilities to enter and to leave the bad state, and of loss in it
      queue 64KiB                waits at most, beside the packet that is being sent; what does not fit is dropped
  [to-centre|to-edge] down | up
  [to-centre|to-edge] outage 10s                  down, and up again so much later
  address next | A.B.C.D                          the centre sees the edge under another address of 10.93.0.0/16
  ports next                                      the centre sees other ports of the edge's connections
  udp off | on                                    nothing but TCP passes, as behind some firewalls; and UDP again
  counters                                        packets and bytes at the IP level, and what the line is like

Scenario file: a line is `AT ORDER` (30s outage 10s) or `every PERIOD ORDER` (every 5m outage 10s); times from the start. # begins a comment.";

/// Lines of a scenario, at most.
pub const SCENARIO_LINES_MAX: usize = 10_000;

/// From which end to which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the edge to the centre.
    ToCentre,
    /// From the centre to the edge.
    ToEdge,
}

/// Both directions, in the order in which everything is told.
pub const DIRECTIONS: [Direction; 2] = [Direction::ToCentre, Direction::ToEdge];

/// One thing to be done to a WAN.
#[derive(Debug, Clone, PartialEq)]
pub enum Order {
    /// Change what the line is like.
    Shape(Option<Direction>, Vec<Change>),
    /// Up or down.
    SetUp(Option<Direction>, bool),
    /// Down, and up again after so long.
    Outage(Option<Direction>, Duration),
    /// Another address of the edge; `None`: one that it has not had.
    Address(Option<Ipv4Addr>),
    /// Other ports of the edge's connections.
    Ports,
    /// Whether UDP passes.
    Udp(bool),
    /// Tell the counters.
    Counters,
}

/// One property of a line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Change {
    /// [`Shape::rate`].
    Rate(Option<u64>),
    /// [`Shape::delay`].
    Delay(Duration),
    /// [`Shape::jitter`].
    Jitter(Duration),
    /// [`Shape::reorder`].
    Reorder(bool),
    /// [`Shape::loss`].
    Loss(Loss),
    /// [`Shape::queue_bytes`].
    Queue(u64),
}

impl Change {
    /// `shape`, changed.
    #[must_use]
    pub fn of(self, shape: Shape) -> Shape {
        match self {
            Self::Rate(rate) => shape.with_rate(rate),
            Self::Delay(delay) => shape.with_delay(delay),
            Self::Jitter(jitter) => shape.with_jitter(jitter),
            Self::Reorder(reorder) => Shape { reorder, ..shape },
            Self::Loss(loss) => shape.with_loss(loss),
            Self::Queue(bytes) => shape.with_queue_bytes(bytes),
        }
    }
}

impl Order {
    /// Whether it is about `direction`.
    #[must_use]
    pub fn is_about(only: Option<Direction>, direction: Direction) -> bool {
        only.is_none_or(|only| only == direction)
    }
}

impl FromStr for Order {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut words = text.split_whitespace().peekable();
        let only = match words.peek() {
            Some(&"to-centre") => Some(Direction::ToCentre),
            Some(&"to-edge") => Some(Direction::ToEdge),
            _ => None,
        };
        if only.is_some() {
            words.next();
        }
        let words: Vec<&str> = words.collect();
        let order = match (only, words.as_slice()) {
            (_, []) => bail!("an order is missing; for example: to-centre rate 2Mbit delay 150ms"),
            (_, ["down"]) => Self::SetUp(only, false),
            (_, ["up"]) => Self::SetUp(only, true),
            (_, ["outage", time]) => Self::Outage(only, duration(time)?),
            (None, ["address", "next"]) => Self::Address(None),
            (None, ["address", address]) => Self::Address(Some(
                address.parse().with_context(|| format!("{address:?} is no IPv4 address; write `next` or for example 10.93.7.2"))?,
            )),
            (None, ["ports", "next"]) => Self::Ports,
            (None, ["udp", "off"]) => Self::Udp(false),
            (None, ["udp", "on"]) => Self::Udp(true),
            (None, ["counters"]) => Self::Counters,
            (Some(_), [word @ ("address" | "ports" | "udp" | "counters"), ..]) => bail!("`{word}` has no direction; leave that out"),
            (_, ["outage", ..]) => bail!("`outage` has one time and nothing else; for example: outage 10s"),
            (_, [word @ ("down" | "up" | "counters"), ..]) => bail!("`{word}` stands alone; give another order for the rest"),
            (_, ["address", ..]) => bail!("`address` is followed by `next` or an address; for example: address next"),
            (_, ["ports", ..]) => bail!("`ports` is followed by `next`: ports next"),
            (_, ["udp", ..]) => bail!("`udp` is followed by `on` or `off`: udp off"),
            (_, pairs) => Self::Shape(only, changes(pairs)?),
        };
        Ok(order)
    }
}

/// A scenario: what is ordered when.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Scenario {
    /// In the order of the file.
    pub steps: Vec<Step>,
}

/// One line of a scenario.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// From the start.
    pub at: Duration,
    /// Again and again after so long; not zero.
    pub every: Option<Duration>,
    /// What.
    pub order: Order,
}

impl Scenario {
    /// Reads a scenario file.
    ///
    /// # Errors
    /// With file and line, when it cannot be read or a line is not understood.
    pub fn read(file: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(file).with_context(|| format!("cannot read the scenario {}", file.display()))?;
        text.parse().with_context(|| file.display().to_string())
    }
}

impl FromStr for Scenario {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut steps = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if !line.is_empty() {
                ensure!(steps.len() < SCENARIO_LINES_MAX, "more than {SCENARIO_LINES_MAX} lines");
                steps.push(step(line).with_context(|| format!("line {}: {line}", number + 1))?);
            }
        }
        Ok(Self { steps })
    }
}

fn step(line: &str) -> Result<Step> {
    let (first, rest) = line.split_once(char::is_whitespace).context("an order is missing after the time")?;
    if first != "every" {
        return Ok(Step { at: duration(first).context("a line begins with a time or `every`")?, every: None, order: rest.parse()? });
    }
    let (period, order) = rest.trim_start().split_once(char::is_whitespace).context("an order is missing after the period")?;
    let period = duration(period)?;
    ensure!(!period.is_zero(), "the period is zero");
    Ok(Step { at: period, every: Some(period), order: order.parse()? })
}

fn changes(words: &[&str]) -> Result<Vec<Change>> {
    words.chunks(2).map(|pair| change(pair.first().copied().unwrap_or_default(), pair.get(1).copied())).collect()
}

fn change(key: &str, value: Option<&str>) -> Result<Change> {
    match key {
        "rate" | "delay" | "jitter" | "reorder" | "loss" | "queue" => {}
        "to-centre" | "to-edge" => bail!("`{key}` stands at the beginning of an order"),
        "down" | "up" | "outage" | "address" | "ports" | "udp" | "counters" => {
            bail!("`{key}` does not go together with others; give it as an order of its own")
        }
        _ => bail!(
            "{key:?} is not known; an order begins with to-centre, to-edge or neither, and there are rate, delay, jitter, reorder, loss, queue, \
             down, up, outage, address, ports, udp and counters"
        ),
    }
    let value = value.with_context(|| format!("`{key}` has no value"))?;
    Ok(match key {
        "rate" => Change::Rate(rate(value)?),
        "delay" => Change::Delay(duration(value)?),
        "jitter" => Change::Jitter(duration(value)?),
        "loss" => Change::Loss(loss(value)?),
        "queue" => Change::Queue(size(value)?),
        _ => Change::Reorder(match value {
            "on" => true,
            "off" => false,
            other => bail!("`reorder` is `on` or `off`, not {other:?}"),
        }),
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use spillway_wan::Burst;

    use super::*;

    #[test]
    fn every_order_is_read() {
        let both = |changes: &[Change]| Order::Shape(None, changes.to_vec());
        for (text, order) in [
            ("down", Order::SetUp(None, false)),
            ("to-edge up", Order::SetUp(Some(Direction::ToEdge), true)),
            ("outage 10s", Order::Outage(None, Duration::from_secs(10))),
            ("address next", Order::Address(None)),
            ("address 10.93.7.2", Order::Address(Some(Ipv4Addr::new(10, 93, 7, 2)))),
            ("ports next", Order::Ports),
            ("udp off", Order::Udp(false)),
            ("udp on", Order::Udp(true)),
            ("counters", Order::Counters),
            ("  rate  unlimited ", both(&[Change::Rate(None)])),
            ("loss 2%/8", both(&[Change::Loss(Loss::Bursts(Burst::of_mean(0.02, 8.0)))])),
            ("loss 0.01,0.2,0.5", both(&[Change::Loss(Loss::Bursts(Burst { enter: 0.01, leave: 0.2, loss: 0.5 }))])),
            ("loss 0%", both(&[Change::Loss(Loss::None)])),
            (
                "reorder on queue 64KiB jitter 20ms",
                both(&[Change::Reorder(true), Change::Queue(65_536), Change::Jitter(Duration::from_millis(20))]),
            ),
            (
                "to-centre rate 2Mbit delay 150ms loss 2%",
                Order::Shape(
                    Some(Direction::ToCentre),
                    vec![Change::Rate(Some(2_000_000)), Change::Delay(Duration::from_millis(150)), Change::Loss(Loss::Random(0.02))],
                ),
            ),
        ] {
            assert_eq!(text.parse::<Order>().unwrap(), order, "{text}");
            assert_eq!(order.to_string().parse::<Order>().unwrap(), order, "{order}");
        }
    }

    #[test]
    fn a_bad_order_is_told_what_to_write() {
        for (text, told) in [
            ("", "an order is missing"),
            ("to-edge", "an order is missing"),
            ("speed 2Mbit", "there are rate, delay,"),
            ("to-moon rate 1Mbit", "begins with to-centre, to-edge or neither"),
            ("rate 1Mbit to-edge", "`to-edge` stands at the beginning"),
            ("outage", "`outage` has one time and nothing else; for example: outage 10s"),
            ("to-edge outage 10s 20s", "`outage` has one time"),
            ("up 10s", "`up` stands alone"),
            ("rate 1Mbit outage 10s", "`outage` does not go together with others"),
            ("address", "`address` is followed by"),
            ("ports", "`ports` is followed by"),
            ("udp", "`udp` is followed by"),
            ("delay 150", "write 150ms or 150s"),
            ("queue 10", "write 10B or 10KiB"),
            ("rate", "`rate` has no value"),
            ("rate 2", "a number without a unit; write 2bit, 2kbit or 2Mbit"),
            ("delay 1.5s", "\"1.5s\" as a time"),
            ("loss 2", "write for example 2%"),
            ("loss 101%", "write for example 2%"),
            ("loss NaN%", "write for example 2%"),
            ("loss 2%/0", "one packet at least"),
            ("to-edge address next", "has no direction"),
            ("to-edge udp off", "has no direction"),
            ("address home", "is no IPv4 address"),
            ("rate 2Mbit delay", "`delay` has no value"),
        ] {
            let error = format!("{:#}", text.parse::<Order>().unwrap_err());
            assert!(error.contains(told), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_scenario_has_times_and_comments() {
        let scenario: Scenario = "# a bad day\n0s rate 2Mbit\n\n30s outage 10s # dig\nevery 5m address next\n".parse().unwrap();
        let steps: Vec<_> = scenario.steps.iter().map(|step| (step.at.as_secs(), step.every.map(|every| every.as_secs()))).collect();
        assert_eq!(steps, [(0, None), (30, None), (300, Some(300))]);
        for (text, told) in [
            ("0s down\nnow up", "line 2: now up: a line begins with a time or `every`"),
            ("every 0s up", "the period is zero"),
            ("5s", "line 1: 5s: an order is missing"),
        ] {
            let error = format!("{:#}", text.parse::<Scenario>().unwrap_err());
            assert!(error.contains(told), "{text:?}: {error}");
        }
    }
}
