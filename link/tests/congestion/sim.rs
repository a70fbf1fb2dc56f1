//! Senders and their receivers at the two ends of one line, in virtual time.

use std::time::{Duration, Instant};

use spillway_link::{Congestion, LineMemory, LinkSettings};
use spillway_wan::{Line, Shape};

use crate::flow::{Flow, Packet};

/// IPv4 and UDP.
const HEADERS: usize = 28;

/// A line with senders at one end.
pub(crate) struct Sim {
    start: Instant,
    now: Duration,
    up: Line<Packet>,
    down: Line<Packet>,
    flows: Vec<Flow>,
    /// Larger packets are dropped, and counted.
    path_mtu: usize,
    too_large: u64,
    lost_bytes: u64,
}

/// What a flow is to do.
#[derive(Clone, Debug)]
pub(crate) struct Sends {
    pub(crate) settings: LinkSettings,
    /// As much as there is room for, else nothing.
    pub(crate) busy: bool,
    pub(crate) memory: LineMemory,
    pub(crate) from: Duration,
    pub(crate) until: Duration,
}

impl Sends {
    /// From the beginning to the end.
    pub(crate) fn always(congestion: Congestion) -> Self {
        let settings = LinkSettings { congestion, ..LinkSettings::agent() };
        Self { settings, busy: true, memory: LineMemory::default(), from: Duration::ZERO, until: Duration::MAX }
    }

    /// A connection with nothing to say.
    pub(crate) fn nothing(settings: LinkSettings) -> Self {
        Self { settings, busy: false, ..Self::always(Congestion::Spillway) }
    }
}

/// Figures of a flow over some time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figures {
    pub(crate) span: Duration,
    /// Bytes of the application.
    pub(crate) arrived: u64,
    /// Mean of the smoothed round trip, seconds.
    pub(crate) round_trip: f64,
}

impl Figures {
    /// Bits of the application a second.
    pub(crate) fn goodput(&self) -> f64 {
        8.0 * self.arrived as f64 / self.span.as_secs_f64()
    }
}

pub(crate) const fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

pub(crate) const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

impl Sim {
    /// Acknowledgements go back over a line of the same shape.
    pub(crate) fn new(shape: Shape, seed: u64) -> Self {
        Self {
            start: Instant::now(),
            now: Duration::ZERO,
            up: Line::new(shape, seed),
            down: Line::new(shape, seed + 1),
            flows: Vec::new(),
            path_mtu: 1500,
            too_large: 0,
            lost_bytes: 0,
        }
    }

    /// Changes the line, both ways.
    pub(crate) fn reshape(&mut self, change: impl Fn(Shape) -> Shape) {
        for line in [&mut self.up, &mut self.down] {
            let shape = change(*line.shape());
            line.set_shape(self.now, shape);
        }
    }

    /// Bytes on the wire, of both directions.
    pub(crate) fn wire_bytes(&self) -> u64 {
        self.up.counters().offered.bytes + self.down.counters().offered.bytes + self.lost_bytes
    }

    /// Senders' packets of more than `bytes`, with headers, are lost from now on.
    pub(crate) fn set_path_mtu(&mut self, bytes: usize) {
        self.path_mtu = bytes;
    }

    /// How many were.
    pub(crate) fn too_large(&self) -> u64 {
        self.too_large
    }

    /// What became of the packets to the receivers.
    pub(crate) fn counters(&self) -> spillway_wan::Counters {
        self.up.counters()
    }

    pub(crate) fn now(&self) -> Duration {
        self.now
    }

    pub(crate) fn add(&mut self, sends: &Sends) -> usize {
        let number = self.flows.len();
        self.flows.push(Flow::new(number, sends, self.start + sends.from));
        number
    }

    /// One flow, from the beginning to the end.
    pub(crate) fn with(mut self, congestion: Congestion) -> Self {
        self.add(&Sends::always(congestion));
        self
    }

    pub(crate) fn run_until(&mut self, end: Duration) {
        while self.now < end {
            let instant = self.start + self.now;
            for flow in self.flows.iter_mut().filter(|flow| flow.from <= self.now) {
                flow.work(instant, self.now);
                for packet in flow.sender_packets(instant) {
                    let bytes = packet.bytes.len() + HEADERS;
                    // It has left the sender, whatever becomes of it.
                    if bytes > self.path_mtu {
                        self.too_large += 1;
                        self.lost_bytes += bytes as u64;
                    } else {
                        self.up.push(self.now, bytes, packet);
                    }
                }
                for packet in flow.receiver_packets(instant) {
                    self.down.push(self.now, packet.bytes.len() + HEADERS, packet);
                }
            }
            let timer = self.flows.iter_mut().filter(|flow| flow.from <= self.now).filter_map(Flow::next_timer).min();
            let timer = timer.map(|at| at.saturating_duration_since(self.start));
            let begins = self.flows.iter().map(|flow| flow.from).filter(|from| *from > self.now).min();
            let next = [timer, begins, self.up.next_due(), self.down.next_due(), Some(end)].into_iter().flatten().min().unwrap();
            // A timer that is due already is handled in the next turn, a little later.
            self.now = next.max(self.now + Duration::from_micros(1)).min(end);
            self.arrivals();
        }
    }

    fn arrivals(&mut self) {
        let instant = self.start + self.now;
        while let Some(packet) = self.up.pop(self.now) {
            self.flows[packet.flow].receiver_takes(instant, packet.bytes);
        }
        while let Some(packet) = self.down.pop(self.now) {
            self.flows[packet.flow].sender_takes(instant, packet.bytes);
        }
        for flow in self.flows.iter_mut().filter(|flow| flow.from <= self.now) {
            flow.timeouts(instant);
        }
    }

    /// What the flows do between now and `end`.
    pub(crate) fn figures_until(&mut self, end: Duration) -> Vec<Figures> {
        let begin = self.now;
        let before: Vec<_> = self.flows.iter().map(|flow| flow.tally).collect();
        self.run_until(end);
        let figures = |(flow, before): (&Flow, _)| {
            let tally = flow.tally.since(before);
            let round_trip = tally.round_trips / tally.looks as f64;
            Figures { span: end - begin, arrived: tally.arrived, round_trip }
        };
        self.flows.iter().zip(before).map(figures).collect()
    }
}
