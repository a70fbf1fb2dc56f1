//! A thin line in virtual time: QUIC's streams by priority, packet by packet, and acknowledgements after a round trip.

use std::collections::VecDeque;

use super::*;
use crate::transit::{LineRate, Transit};

/// What a flow has to send.
#[derive(Debug, Clone, Copy)]
pub(super) enum Load {
    /// There is always a frame of this size.
    Always { bytes: usize },
    /// A frame of this size comes in every period.
    Every { period: Duration, bytes: usize },
}

#[derive(Debug)]
struct Stream {
    flow: Flow,
    bytes: usize,
    left: usize,
    since: Duration,
    given: Duration,
}

/// The line and all of the agent that matters for the order of frames.
pub(super) struct Simulated {
    bytes_per_second: u64,
    round_trip: Duration,
    scheduler: Scheduler,
    transit: Transit,
    /// Given to QUIC: those of class 0, and the others, in order.
    streams: [VecDeque<Stream>; 2],
    /// Acknowledgements on their way: when they come, for whom, of how many bytes.
    acks: VecDeque<(Duration, bool, usize)>,
    waiting: Vec<VecDeque<(Duration, usize)>>,
    due: Vec<Duration>,
    datagram_bytes: u64,
    now: Duration,
    sent: Vec<u64>,
    delays: Vec<Vec<Duration>>,
    longest: Duration,
}

const PACKET: usize = 1_250;
const HEADERS: usize = 60;

impl Simulated {
    pub(super) fn new(bytes_per_second: u64, round_trip: Duration, flows: Vec<FlowSpec>) -> Self {
        let count = flows.len();
        Self {
            bytes_per_second,
            round_trip,
            scheduler: Scheduler::new(flows),
            transit: Transit::default(),
            streams: [VecDeque::new(), VecDeque::new()],
            acks: VecDeque::new(),
            waiting: vec![VecDeque::new(); count],
            due: vec![Duration::ZERO; count],
            datagram_bytes: 0,
            now: Duration::ZERO,
            sent: vec![0; count],
            delays: vec![Vec::new(); count],
            longest: Duration::ZERO,
        }
    }

    pub(super) fn run(&mut self, time: Duration, load: &[Load]) {
        let end = self.now + time;
        while self.now < end {
            self.load(load);
            while let Some((_, urgent, bytes)) = self.acks.pop_front_if(|(at, ..)| *at <= self.now) {
                let left = self.transit.arrived(urgent, bytes);
                self.scheduler.left(left);
            }
            let left = self.transit.observe(self.datagram_bytes, 0);
            self.scheduler.left(left);
            self.give();
            self.packet();
        }
    }

    pub(super) fn bytes(&self, flow: Flow) -> u64 {
        self.sent[flow.0 as usize]
    }

    /// From when a frame was there to when all of it was at the centre, in order.
    pub(super) fn delays(&self, flow: Flow) -> Vec<Duration> {
        let mut delays = self.delays[flow.0 as usize].clone();
        delays.sort();
        delays
    }

    /// The longest time that a frame was in QUIC.
    pub(super) fn longest_wait(&self) -> Duration {
        let inside = self.streams.iter().flatten().map(|stream| self.now - stream.given);
        inside.max().unwrap_or_default().max(self.longest)
    }

    fn load(&mut self, load: &[Load]) {
        for (index, load) in load.iter().enumerate() {
            match load {
                Load::Always { bytes } => {
                    while self.waiting[index].len() * bytes < 4 * PACKET {
                        self.waiting[index].push_back((self.now, *bytes));
                    }
                }
                Load::Every { period, bytes } => {
                    while self.due[index] <= self.now {
                        self.waiting[index].push_back((self.due[index], *bytes));
                        self.due[index] += *period;
                    }
                }
            }
        }
    }

    fn give(&mut self) {
        loop {
            let line = LineRate { bytes_per_second: Some(self.bytes_per_second), round_trip: self.round_trip };
            let room = self.transit.room(line);
            let heads = self.waiting.iter().map(|frames| frames.front().map(|(_, bytes)| *bytes)).collect::<Vec<_>>();
            let Some(flow) = self.scheduler.pick(&heads, room) else {
                return;
            };
            let (since, bytes) = self.waiting[flow.0 as usize].pop_front().unwrap();
            let urgent = self.scheduler.spec(flow).class.is_urgent();
            let is_other = |(other, spec): (Flow, FlowSpec)| !spec.class.is_urgent() && heads[other.0 as usize].is_some();
            let others_wait = self.transit.holds_others() || self.scheduler.flows().any(is_other);
            self.scheduler.sent(flow, bytes, others_wait);
            self.transit.given(urgent, bytes);
            self.streams[usize::from(!urgent)].push_back(Stream { flow, bytes, left: bytes, since, given: self.now });
        }
    }

    /// The time of one packet goes by, with whatever is next in it.
    fn packet(&mut self) {
        let mut room = PACKET - HEADERS;
        for urgent in [true, false] {
            let streams = &mut self.streams[usize::from(!urgent)];
            while room > 0
                && let Some(stream) = streams.front_mut()
            {
                let taken = room.min(stream.left);
                (stream.left, room) = (stream.left - taken, room - taken);
                self.sent[stream.flow.0 as usize] += taken as u64;
                if let Some(done) = streams.pop_front_if(|stream| stream.left == 0) {
                    let delay = self.now + time(PACKET, self.bytes_per_second) + self.round_trip / 2 - done.since;
                    self.delays[done.flow.0 as usize].push(delay);
                    self.longest = self.longest.max(self.now - done.given);
                    self.acks.push_back((self.now + self.round_trip, urgent, done.bytes));
                }
            }
        }
        let used = PACKET - HEADERS - room;
        let on_wire = if used > 0 { used + HEADERS } else { PACKET / 10 };
        if used > 0 {
            self.datagram_bytes += on_wire as u64;
        }
        self.now += time(on_wire, self.bytes_per_second);
    }
}

fn time(bytes: usize, bytes_per_second: u64) -> Duration {
    Duration::from_secs_f64(bytes as f64 / bytes_per_second as f64)
}
