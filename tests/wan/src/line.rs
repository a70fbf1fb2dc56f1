//! One direction of a line.
//!
//! A packet waits in the queue until those before it have left, leaves bit by bit at the line's rate, and arrives a delay later. Whether it is
//! lost on the way is drawn when it enters, and it uses the line all the same.
//!
//! Arithmetic is exact: what is left of the packet that is being sent is kept in bit-nanoseconds (bits times 10⁹), of which a line of `rate` bits a
//! second does `rate` in a nanosecond. What a packet ends early within its last nanosecond is credited to the one behind it, so a line that is never
//! idle carries its rate to the bit, however long it runs.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::counters::{Count, Counters};
use crate::shape::{Dice, Shape};

/// Packets in the queue and on the way together; further ones overflow. 262,144: 0.6 s of 600 Mbit/s in full packets take a tenth of it.
pub const PACKETS_MAX: usize = 1 << 18;

/// Bit-nanoseconds in a byte.
const WORK_OF_BYTE: u128 = 8 * 1_000_000_000;

/// What [`Line::push`] did with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It will come out of [`Line::pop`], unless the line goes down before it has left the queue.
    Queued,
    /// It uses the line, and is lost on it.
    Lost,
    /// Dropped: the queue is full.
    Overflowed,
    /// Dropped: the line is down.
    Down,
}

/// One direction of a line, carrying packets of type `P`.
///
/// `now` is the time since the line's start. It should not go backwards; where it does, the latest time that was given counts.
#[derive(Debug)]
pub struct Line<P> {
    shape: Shape,
    rng: StdRng,
    dice: Dice,
    /// The latest time given.
    now_ns: u64,
    /// The first of these is being sent.
    queue: VecDeque<Waiting<P>>,
    /// Bytes of all in the queue but the first.
    waiting_bytes: u64,
    /// Bit-nanoseconds that were left of the first in the queue at `work_as_of_ns`.
    work_left: u128,
    work_as_of_ns: u64,
    flight: BinaryHeap<Flying<P>>,
    next_number: u64,
    /// No packet that must not pass another arrives before this.
    last_due_ns: u64,
    counters: Counters,
}

impl<P> Line<P> {
    /// A line, idle at time zero. What is left to chance is drawn from `seed`.
    #[must_use]
    pub fn new(shape: Shape, seed: u64) -> Self {
        Self {
            shape,
            rng: StdRng::seed_from_u64(seed),
            dice: Dice::default(),
            now_ns: 0,
            queue: VecDeque::new(),
            waiting_bytes: 0,
            work_left: 0,
            work_as_of_ns: 0,
            flight: BinaryHeap::new(),
            next_number: 0,
            last_due_ns: 0,
            counters: Counters::default(),
        }
    }

    /// Changes the line. What has left the queue is not touched; what has not leaves at the new rate from `now` on, the rest of a packet that is
    /// half sent included, and is dropped if the line goes down. A smaller queue keeps what it holds already.
    pub fn set_shape(&mut self, now: Duration, shape: Shape) {
        self.advance(now);
        self.work_left = self.work_left_now();
        self.work_as_of_ns = self.now_ns;
        self.shape = shape;
        if !shape.up {
            for packet in self.queue.drain(..).filter(|waiting| waiting.packet.is_some()) {
                self.counters.down += Count::one(packet.bytes);
            }
            self.waiting_bytes = 0;
        }
        self.advance(now);
    }

    /// What the line is like.
    #[must_use]
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Hands in a packet of `bytes`, which count against rate and queue.
    pub fn push(&mut self, now: Duration, bytes: usize, packet: P) -> Fate {
        self.advance(now);
        let count = Count::one(bytes);
        self.counters.offered += count;
        if !self.shape.up {
            self.counters.down += count;
            return Fate::Down;
        }
        let idle = self.queue.is_empty();
        if (!idle && self.waiting_bytes.saturating_add(count.bytes) > self.shape.queue_bytes)
            || self.queue.len() + self.flight.len() >= PACKETS_MAX
        {
            self.counters.overflowed += count;
            return Fate::Overflowed;
        }
        let lost = self.dice.lost(self.shape.loss, &mut self.rng);
        if lost {
            self.counters.lost += count;
        }
        self.queue.push_back(Waiting { bytes, packet: (!lost).then_some(packet) });
        if idle {
            (self.work_left, self.work_as_of_ns) = (work_of(bytes), self.now_ns);
            self.advance(now);
        } else {
            self.waiting_bytes += count.bytes;
        }
        if lost { Fate::Lost } else { Fate::Queued }
    }

    /// When to call [`Self::pop`] next, which may then still have nothing. `None`: not before something is pushed or the shape changes.
    #[must_use]
    pub fn next_due(&self) -> Option<Duration> {
        let flying = self.flight.peek().map(|first| first.due_ns);
        let sent = self.first_sent_ns().map(|sent_ns| sent_ns.saturating_add(nanos(self.shape.delay)));
        let due = match (flying, sent) {
            (Some(flying), Some(sent)) => Some(flying.min(sent)),
            (one, other) => one.or(other),
        };
        due.map(Duration::from_nanos)
    }

    /// Takes out a packet that has arrived by `now`, the earliest first; call it until it has none.
    pub fn pop(&mut self, now: Duration) -> Option<P> {
        self.advance(now);
        if self.flight.peek().is_none_or(|first| first.due_ns > self.now_ns) {
            return None;
        }
        let flying = self.flight.pop()?;
        self.counters.delivered += Count::one(flying.bytes);
        Some(flying.packet)
    }

    /// What became of all packets so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Bytes in the queue at the latest time that was given, without the packet that is being sent.
    #[must_use]
    pub fn waiting_bytes(&self) -> u64 {
        self.waiting_bytes
    }

    /// Lets leave the queue what has been sent by `now`.
    fn advance(&mut self, now: Duration) {
        self.now_ns = self.now_ns.max(nanos(now));
        while let Some(sent_ns) = self.first_sent_ns().filter(|sent_ns| *sent_ns <= self.now_ns) {
            let Some(first) = self.queue.pop_front() else { return };
            // What the line could have done in the rest of this nanosecond goes to the next packet.
            let done = u128::from(self.shape.rate.unwrap_or(0)) * u128::from(sent_ns - self.work_as_of_ns);
            let credit = done.saturating_sub(self.work_left);
            self.work_as_of_ns = sent_ns;
            if let Some(next) = self.queue.front() {
                self.work_left = work_of(next.bytes).saturating_sub(credit);
                self.waiting_bytes = self.waiting_bytes.saturating_sub(Count::one(next.bytes).bytes);
            }
            self.fly(first, sent_ns);
        }
    }

    /// Puts a packet that has left the queue on its way; jitter is drawn for lost ones too, so that loss does not change the others' jitter.
    fn fly(&mut self, waiting: Waiting<P>, sent_ns: u64) {
        let jitter_ns = nanos(self.shape.jitter);
        let late_ns = if jitter_ns == 0 { 0 } else { self.rng.random_range(0..=jitter_ns) };
        let Some(packet) = waiting.packet else { return };
        let mut due_ns = sent_ns.saturating_add(nanos(self.shape.delay)).saturating_add(late_ns);
        if !self.shape.reorder {
            due_ns = due_ns.max(self.last_due_ns);
        }
        self.last_due_ns = self.last_due_ns.max(due_ns);
        self.flight.push(Flying { due_ns, number: self.next_number, bytes: waiting.bytes, packet });
        self.next_number += 1;
    }

    /// When the last bit of the first in the queue is sent, at the rate of now.
    fn first_sent_ns(&self) -> Option<u64> {
        self.queue.front()?;
        let takes_ns = match self.shape.rate.map(u128::from) {
            None => 0,
            Some(_) if self.work_left == 0 => 0,
            Some(0) => return None,
            Some(rate) => self.work_left.div_ceil(rate),
        };
        self.work_as_of_ns.checked_add(u64::try_from(takes_ns).ok()?)
    }

    /// Bit-nanoseconds that are left of the first in the queue at the latest time that was given.
    fn work_left_now(&self) -> u128 {
        let done = u128::from(self.shape.rate.unwrap_or(0)) * u128::from(self.now_ns.saturating_sub(self.work_as_of_ns));
        self.work_left.saturating_sub(done)
    }
}

/// In the queue; without its packet if it is to be lost.
#[derive(Debug)]
struct Waiting<P> {
    bytes: usize,
    packet: Option<P>,
}

/// On its way; the greatest is due first, as a heap wants it.
#[derive(Debug)]
struct Flying<P> {
    due_ns: u64,
    number: u64,
    bytes: usize,
    packet: P,
}

impl<P> Ord for Flying<P> {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.due_ns, other.number).cmp(&(self.due_ns, self.number))
    }
}

impl<P> PartialOrd for Flying<P> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<P> PartialEq for Flying<P> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<P> Eq for Flying<P> {}

fn work_of(bytes: usize) -> u128 {
    u128::try_from(bytes).unwrap_or(u128::MAX).saturating_mul(WORK_OF_BYTE)
}

/// Beyond 584 years everything is the same.
fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
