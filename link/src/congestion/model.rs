//! The model of the line that the window follows: what it delivers, how long it is, and whether it is being measured, filled or drained.
//!
//! Invariants:
//! - A. The window is what the line holds (its rate times its empty round trip), and a little more, so that a queue stands that is just long enough to keep
//!   the line busy. It is never below [`LEAST_PACKETS`].
//! - B. Loss alone lowers nothing, unless it is more than a bad radio line's: [`super::round::CONGESTED_LOSS`].
//! - C. The empty round trip is measured with the queue drained, at least each [`DRAIN_EVERY`]; so a line that has become longer is not taken for a
//!   queue for ever, and a queue not for a longer line. Who shares a line drains at the same time.
//! - D. A round in which the application had too little to send tells nothing against the line.

use std::time::{Duration, Instant};

use super::{
    delivery::{LEAST_ROUND_TRIP, Sample},
    round::{Losses, Round},
};

/// Window, as a multiple of what the line holds, when it is known and full.
const CRUISE_GAIN: f64 = 1.04;

/// … when the line seems to hold more than was thought.
const PROBE_GAIN: f64 = 1.25;

/// … when it does hold more, and at the start: doubling in each round trip.
const GROW_GAIN: f64 = 2.0;

/// … when the queue is drained: so little, that it is gone as well where others, who came while it stood, take it for a part of the line.
const DRAIN_GAIN: f64 = 0.75;

/// … after an outage: half, as others come back as well.
const RETURN_GAIN: f64 = 0.5;

/// Packets that each sender keeps in the queue, whatever its rate: where several share a line, that is what makes their shares equal. It also covers acknowledgements that
/// are held back, every second packet or 25 ms (RFC 9000's default). On very thin lines no more than the time says, at the sender's rate.
const QUEUE_PACKETS: f64 = 4.0;
const QUEUE_TIME: Duration = Duration::from_millis(100);

/// Least window in packets: one on its way, one that keeps the acknowledgements coming.
const LEAST_PACKETS: f64 = 2.0;

/// Most bytes of a window: 10 Gbit/s through 50 ms. It keeps a wrong measurement from going on for ever.
const MOST_WINDOW: f64 = 64.0 * 1024.0 * 1024.0;

/// Window of a connection that knows nothing, in packets. Less than RFC 9002's ten: on 50 kbit/s ten are a queue of two seconds.
const FIRST_PACKETS: f64 = 6.0;

/// Rounds of which the best rate counts. Long enough to ride out a round with many losses, short enough to notice that the line got thinner.
const RATE_ROUNDS: usize = 8;

/// How often the queue is drained to see the empty round trip. With the gain above it costs 1 % of a line of 300 ms.
const DRAIN_EVERY: Duration = Duration::from_secs(15);

/// A round trip of so much more than the empty one is a queue. Below it a full window means that the line holds more.
const QUEUE_SHARE: f64 = 0.02;
const QUEUE_LEAST: Duration = Duration::from_millis(2);

/// At the start: a queue of so much ends the doubling.
const START_QUEUE_SHARE: f64 = 0.125;
const START_QUEUE_LEAST: Duration = Duration::from_millis(4);

/// Packets of a round that must all have waited in the queue, before the start ends in its middle.
const START_QUEUE_PACKETS: u32 = 8;

/// The line holds more than thought for so many rounds: grow faster.
const GROW_AFTER: u32 = 3;

/// At the start: rounds in which the rate may fail to grow by [`START_GROWTH`].
const START_ROUNDS: u32 = 3;
const START_GROWTH: f64 = 1.25;

/// Round trip and rate that are both so far off say that the line has changed: drain and see.
const CHANGED_ROUND_TRIP: f64 = 1.3;
const CHANGED_RATE: f64 = 0.85;
const CHANGED_ROUNDS: u32 = 2;

/// A line whose round trip is within this range of the remembered one is taken for the same.
const SAME_LINE: std::ops::RangeInclusive<f64> = 0.7..=1.5;

/// What is known of the line. Bytes are those of UDP payloads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LineEstimate {
    /// What the line delivers, in bytes a second.
    pub bytes_per_second: f64,
    /// The round trip of the empty line.
    pub round_trip: Duration,
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Model {
    mtu: f64,
    /// Best rate of each of the last rounds that count, the newest first.
    rates: [f64; RATE_ROUNDS],
    /// Of the empty line, as it was measured last, and the shortest ever; they differ until a longer one is confirmed.
    round_trip: Option<Duration>,
    shortest: Option<Duration>,
    was_longer: bool,
    phase: Phase,
    round: Round,
    losses: Losses,
    /// Rounds in a row in which the line held more, or was otherwise, than thought.
    free_rounds: u32,
    odd_rounds: u32,
    /// When the round trip of the empty line was last measured, by us or by others on the line.
    drained: Instant,
    /// What an earlier connection of this endpoint knew, until the first round trip says whether this is its line.
    remembered: Option<LineEstimate>,
}

/// What the window is for.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    /// Doubling a window of so many bytes, until the rate, `best` so far, has not grown for some rounds or a queue builds up.
    Start { window: f64, best: f64, flat: u32, waiting: u32 },
    /// The line is known.
    Cruise { gain: f64 },
    /// Waiting until the queue is gone.
    Drain { gain: f64 },
    /// The queue is gone: for a round the round trip is that of the empty line.
    Measure { gain: f64 },
    /// Nothing came back for long. What was sent since tells when the line is back.
    Silent { since: Instant },
}

impl Model {
    pub(super) fn new(now: Instant, mtu: u16, remembered: Option<LineEstimate>) -> Self {
        let mtu = f64::from(mtu);
        Self {
            mtu,
            rates: [0.0; RATE_ROUNDS],
            round_trip: None,
            shortest: None,
            was_longer: false,
            phase: Phase::Start { window: FIRST_PACKETS * mtu, best: 0.0, flat: 0, waiting: 0 },
            round: Round::new(now),
            losses: Losses::default(),
            free_rounds: 0,
            odd_rounds: 0,
            drained: now,
            remembered,
        }
    }

    /// Most bytes that may be in flight.
    pub(super) fn window(&self) -> u64 {
        let window = match self.phase {
            Phase::Start { window, .. } => window,
            Phase::Cruise { gain } => gain * self.holds() + self.margin(),
            Phase::Drain { gain } | Phase::Measure { gain } => gain * self.rate() * self.shortest.unwrap_or(LEAST_ROUND_TRIP).as_secs_f64(),
            Phase::Silent { .. } => 0.0,
        };
        // quinn sends a packet while one more byte would still fit.
        window.clamp(LEAST_PACKETS * self.mtu, MOST_WINDOW) as u64 + 1
    }

    /// What is known of the line, once it is.
    pub(super) fn line(&self) -> Option<LineEstimate> {
        let bytes_per_second = self.rate();
        let settled = !matches!(self.phase, Phase::Start { .. }) && bytes_per_second > 0.0;
        self.round_trip.filter(|_| settled).map(|round_trip| LineEstimate { bytes_per_second, round_trip })
    }

    pub(super) fn set_mtu(&mut self, mtu: u16) {
        self.mtu = f64::from(mtu);
    }

    /// Packets were sent; so many bytes are in flight.
    pub(super) fn sent(&mut self, in_flight: u64) {
        self.round.full |= in_flight as f64 + self.mtu >= self.window() as f64;
    }

    /// A packet of `bytes`, sent at `sent`, is acknowledged.
    pub(super) fn acked(&mut self, now: Instant, sent: Instant, bytes: u64, sample: Sample) {
        let round_trip = sample.round_trip;
        self.recall(round_trip);
        // Others have drained their part of the queue. Whoever sees it drains next together with them, and then the line is empty.
        if self.round_trip.is_some_and(|least| round_trip < least) {
            self.drained = now;
        }
        for least in [&mut self.round_trip, &mut self.shortest] {
            *least = Some(least.map_or(round_trip, |least| least.min(round_trip)));
        }
        self.round.acked += bytes as f64;
        self.round.best = self.round.best.max(sample.rate.unwrap_or(0.0));
        // What was sent before the round began saw the queue of the round before.
        if sent >= self.round.since {
            self.round.least = Some(self.round.least.map_or(round_trip, |least| least.min(round_trip)));
        }
        let empty = self.round_trip.unwrap_or(round_trip);
        let waited = round_trip > empty + START_QUEUE_LEAST.max(empty.mul_f64(START_QUEUE_SHARE));
        if let Phase::Start { window, waiting, .. } = &mut self.phase {
            *waiting = if waited { *waiting + 1 } else { 0 };
            if self.round.full {
                *window += bytes as f64;
            }
        }
    }

    /// A batch of acknowledgements is over. The newest is of a packet sent at `sent`, so many bytes are in flight, and `starved` says that the application had
    /// nothing to send before.
    pub(super) fn acks_ended(&mut self, now: Instant, sent: Instant, in_flight: u64, starved: bool) {
        self.round.starved |= starved;
        match self.phase {
            Phase::Start { waiting, .. } if waiting >= START_QUEUE_PACKETS => self.drain(now, DRAIN_GAIN),
            Phase::Drain { gain } if in_flight <= self.window() => {
                self.phase = Phase::Measure { gain };
                self.round = Round::new(now);
            }
            Phase::Silent { since } if sent >= since => self.drain(now, RETURN_GAIN),
            _ if sent >= self.round.since => self.end_round(now),
            _ => {}
        }
    }

    /// `bytes` are lost.
    pub(super) fn lost(&mut self, bytes: u64) {
        self.round.lost += bytes as f64;
    }

    /// The network says that there is a queue (ECN).
    pub(super) fn marked(&mut self, now: Instant) {
        if matches!(self.phase, Phase::Start { .. } | Phase::Cruise { .. }) {
            self.drain(now, DRAIN_GAIN);
        }
    }

    /// Nothing came back for so long that the line must have been down.
    pub(super) fn went_silent(&mut self, now: Instant) {
        self.phase = Phase::Silent { since: now };
    }

    fn end_round(&mut self, now: Instant) {
        let round = std::mem::replace(&mut self.round, Round::new(now));
        if self.losses.are_congestion(&round, self.mtu) {
            self.rates = [0.0; RATE_ROUNDS];
            self.rates[0] = round.best;
            self.drain(now, DRAIN_GAIN);
            return;
        }
        let expected = self.rate();
        self.note_rate(&round);
        match self.phase {
            Phase::Start { window, best, flat, waiting } => {
                let grew = round.best >= START_GROWTH * best;
                let flat = if grew || round.starved { 0 } else { flat + 1 };
                self.phase = Phase::Start { window, best: best.max(round.best), flat, waiting };
                if flat == START_ROUNDS {
                    self.drain(now, DRAIN_GAIN);
                }
            }
            Phase::Cruise { .. } if round.starved || !round.full => {}
            Phase::Cruise { .. } => self.cruise(now, &round, expected),
            Phase::Measure { gain } => {
                // Back from an outage it does not even deliver the half that it was asked for. (At other times it may be that others took what we left to them.)
                if gain <= RETURN_GAIN && !round.starved && round.best < CHANGED_RATE * gain * expected {
                    self.rates = [0.0; RATE_ROUNDS];
                    self.rates[0] = round.best;
                }
                self.measure(&round);
                self.drained = now;
                self.phase = Phase::Cruise { gain: CRUISE_GAIN };
            }
            Phase::Drain { .. } | Phase::Silent { .. } => {}
        }
    }

    /// After a round with a full window: does the line hold more, is it another, is it time to measure it?
    fn cruise(&mut self, now: Instant, round: &Round, expected: f64) {
        let (Some(empty), Some(least)) = (self.round_trip, round.least) else { return };
        let queued = least.saturating_sub(empty);
        let is_free = queued <= QUEUE_LEAST.max(empty.mul_f64(QUEUE_SHARE));
        self.free_rounds = if is_free { self.free_rounds + 1 } else { 0 };
        let is_odd = least > empty.mul_f64(CHANGED_ROUND_TRIP) && round.best < CHANGED_RATE * expected;
        self.odd_rounds = if is_odd { self.odd_rounds + 1 } else { 0 };
        if self.odd_rounds == CHANGED_ROUNDS {
            self.rates = [0.0; RATE_ROUNDS];
            self.rates[0] = round.best;
            self.drain(now, DRAIN_GAIN);
        } else if !is_odd && now.saturating_duration_since(self.drained) >= DRAIN_EVERY {
            self.drain(now, DRAIN_GAIN);
        } else {
            let gain = match self.free_rounds {
                0 => CRUISE_GAIN,
                1..GROW_AFTER => PROBE_GAIN,
                _ => GROW_GAIN,
            };
            self.phase = Phase::Cruise { gain };
        }
    }

    fn drain(&mut self, now: Instant, gain: f64) {
        // What the round saw so far counts: a start ends in the middle of one.
        self.rates[0] = self.rates[0].max(self.round.best);
        (self.free_rounds, self.odd_rounds) = (0, 0);
        self.phase = Phase::Drain { gain };
        self.round = Round::new(now);
    }

    /// Takes over the empty round trip after a round without a queue of ours.
    ///
    /// What is a little longer is the queue of others: if each took the other's queue for a longer line, both would grow without end. What is much longer is a
    /// longer line, or an old queue that has outlived the packets that made it: that shows at the next time, which drains to the shortest again.
    fn measure(&mut self, round: &Round) {
        let Some(least) = round.least else { return };
        let shortest = self.shortest.unwrap_or(least);
        let is_longer = least >= shortest.mul_f64(CHANGED_ROUND_TRIP);
        if !is_longer || self.was_longer {
            self.shortest = Some(if is_longer { least } else { shortest.min(least) });
        }
        self.round_trip = if is_longer { Some(least) } else { self.shortest };
        self.was_longer = is_longer;
    }

    /// A round that was starved can show that the line is faster than thought, and never that it is slower.
    fn note_rate(&mut self, round: &Round) {
        if !round.starved && !matches!(self.phase, Phase::Measure { .. } | Phase::Drain { .. }) {
            self.rates.rotate_right(1);
            self.rates[0] = 0.0;
        }
        self.rates[0] = self.rates[0].max(round.best);
    }

    /// The first round trip of the connection tells whether the line is the remembered one.
    fn recall(&mut self, round_trip: Duration) {
        if let Some(line) = self.remembered.take()
            && SAME_LINE.contains(&(round_trip.as_secs_f64() / line.round_trip.as_secs_f64()))
        {
            self.rates[0] = line.bytes_per_second;
            self.phase = Phase::Cruise { gain: 1.0 };
        }
    }

    fn rate(&self) -> f64 {
        self.rates.iter().copied().fold(0.0, f64::max)
    }

    /// Bytes that are on the line when it is full and no queue stands.
    fn holds(&self) -> f64 {
        self.rate() * self.round_trip.unwrap_or(LEAST_ROUND_TRIP).as_secs_f64()
    }

    /// Bytes in flight beside those: the queue, and a packet that is being sent.
    fn margin(&self) -> f64 {
        (self.rate() * QUEUE_TIME.as_secs_f64()).min(QUEUE_PACKETS * self.mtu) + self.mtu
    }
}
