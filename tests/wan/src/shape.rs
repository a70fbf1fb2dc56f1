//! What one direction of a line is like.

use std::time::Duration;

use rand::Rng;

/// Bytes that a queue holds unless told otherwise: one second of 2 Mbit/s.
pub const QUEUE_BYTES_DEFAULT: u64 = 250_000;

/// One direction of a line. The default is a perfect one: unlimited, without delay or loss, up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shape {
    /// Bits a second that leave the queue, of the bytes given to [`crate::Line::push`]; `None`: unlimited, `Some(0)`: the line stands still.
    pub rate: Option<u64>,
    /// One way, after the last bit of a packet has left the queue.
    pub delay: Duration,
    /// Each packet is late by up to this much more, evenly distributed; the mean delay is `delay + jitter / 2`.
    pub jitter: Duration,
    /// Whether jitter, or a delay that becomes shorter, lets a packet pass an earlier one. Otherwise it arrives together with that one.
    pub reorder: bool,
    /// Which packets are lost at random. They have used the line: the queue comes first.
    pub loss: Loss,
    /// Bytes that wait, without the packet that is just being sent; a packet that does not fit is dropped (tail drop).
    pub queue_bytes: u64,
    /// `false`: nothing enters, and what waits in the queue is dropped; what has left the queue still arrives.
    pub up: bool,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            rate: None,
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            reorder: false,
            loss: Loss::None,
            queue_bytes: QUEUE_BYTES_DEFAULT,
            up: true,
        }
    }
}

impl Shape {
    /// This shape with another rate, in bits a second.
    #[must_use]
    pub fn with_rate(self, rate: Option<u64>) -> Self {
        Self { rate, ..self }
    }

    /// This shape with another delay, one way.
    #[must_use]
    pub fn with_delay(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }

    /// This shape with another jitter.
    #[must_use]
    pub fn with_jitter(self, jitter: Duration) -> Self {
        Self { jitter, ..self }
    }

    /// This shape with another loss.
    #[must_use]
    pub fn with_loss(self, loss: Loss) -> Self {
        Self { loss, ..self }
    }

    /// This shape with another queue, in bytes.
    #[must_use]
    pub fn with_queue_bytes(self, queue_bytes: u64) -> Self {
        Self { queue_bytes, ..self }
    }

    /// This shape, up or down.
    #[must_use]
    pub fn with_up(self, up: bool) -> Self {
        Self { up, ..self }
    }
}

/// Which packets are lost. Probabilities are between 0 and 1; what is beyond counts as the nearer end.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub enum Loss {
    /// None.
    #[default]
    None,
    /// Each with this probability, whatever became of the others.
    Random(f64),
    /// In bursts.
    Bursts(Burst),
}

/// Loss in bursts: the model of Gilbert and Elliott. The line is in a good state, where nothing is lost, or in a bad one; before each packet
/// it may change from one to the other.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Burst {
    /// Probability to enter the bad state, for each packet in the good one.
    pub enter: f64,
    /// Probability to leave the bad state, for each packet in it; a bad spell lasts `1 / leave` packets in the mean.
    pub leave: f64,
    /// Probability that a packet is lost in the bad state.
    pub loss: f64,
}

impl Loss {
    /// The share of packets that is lost in the long run, 0 to 1.
    #[must_use]
    pub fn mean(&self) -> f64 {
        match self {
            Self::None => 0.0,
            Self::Random(share) => share.clamp(0.0, 1.0),
            Self::Bursts(burst) => burst.mean(),
        }
    }
}

impl Burst {
    /// Bad spells of `packets` in the mean (at least 1) in which everything is lost, so often that the share `mean` is lost in the long run.
    #[must_use]
    pub fn of_mean(mean: f64, packets: f64) -> Self {
        let (mean, leave) = (mean.clamp(0.0, 1.0), 1.0 / packets.max(1.0));
        if mean >= 1.0 {
            return Self { enter: 1.0, leave: 0.0, loss: 1.0 };
        }
        Self { enter: (mean * leave / (1.0 - mean)).min(1.0), leave, loss: 1.0 }
    }

    /// The share of packets that is lost in the long run, 0 to 1: the share of packets in the bad state times the loss in it.
    #[must_use]
    pub fn mean(&self) -> f64 {
        let (enter, leave) = (self.enter.clamp(0.0, 1.0), self.leave.clamp(0.0, 1.0));
        if enter <= 0.0 { 0.0 } else { enter / (enter + leave) * self.loss.clamp(0.0, 1.0) }
    }
}

/// Draws what becomes of packets, one after the other.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Dice {
    bad: bool,
}

impl Dice {
    /// Whether the next packet is lost.
    pub(crate) fn lost(&mut self, loss: Loss, rng: &mut impl Rng) -> bool {
        let mut meets = |share: f64| rng.random::<f64>() < share;
        match loss {
            Loss::None => false,
            Loss::Random(share) => meets(share),
            Loss::Bursts(burst) => {
                self.bad = if self.bad { !meets(burst.leave) } else { meets(burst.enter) };
                self.bad && meets(burst.loss)
            }
        }
    }
}
