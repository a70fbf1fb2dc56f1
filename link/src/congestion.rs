//! Congestion control: how much may be in flight.
//!
//! Stock algorithms fail on the lines that sites have. Those that take loss for congestion (CUBIC, New Reno) use a fifth of a line of 2 Mbit/s and 300 ms that loses
//! 2 %; BBR as quinn has it overfills the queue and sends much twice. Ours follows a model of the line, in `model`, made of what `delivery`
//! measures at the acknowledgements. It is pure: time comes with each call.

use std::{
    any::Any,
    fmt,
    ops::RangeInclusive,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU16, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use quinn::congestion::{BbrConfig, Controller, ControllerFactory, ControllerMetrics, CubicConfig};
use quinn_proto::RttEstimator;

use self::{delivery::Delivery, model::Model};

mod delivery;
mod model;
mod round;

pub use model::LineEstimate;

/// Acknowledgements that come so long after that of a later packet measure nothing any more.
const LATE: Duration = Duration::from_secs(1);

/// Packets that may be sent beyond the window when the line is back.
const REVIVAL_PACKETS: u64 = 4;

/// Which algorithm decides how much may be in flight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Congestion {
    /// Ours: made for thin, long, lossy lines.
    #[default]
    Spillway,
    /// quinn's CUBIC (RFC 9438), as most of the internet.
    Cubic,
    /// quinn's BBR, version 1; its authors call it experimental.
    Bbr,
}

impl Congestion {
    /// For quinn's transport configuration. `memory` is written and read by ours only.
    pub(crate) fn factory(self, memory: &LineMemory) -> Arc<dyn ControllerFactory + Send + Sync> {
        match self {
            Self::Spillway => Arc::new(SpillwayConfig { memory: memory.clone() }),
            Self::Cubic => Arc::new(CubicConfig::default()),
            Self::Bbr => Arc::new(BbrConfig::default()),
        }
    }
}

impl fmt::Display for Congestion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Spillway => "spillway",
            Self::Cubic => "cubic",
            Self::Bbr => "bbr",
        })
    }
}

/// What is worth keeping of a line for the next process: [`LinkClient::known_line`](crate::LinkClient::known_line).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct KnownLine {
    /// What it delivers, and how long it is.
    pub line: Option<LineEstimate>,
    /// Largest packet that the path carries, in bytes of UDP payload.
    pub mtu: Option<u16>,
}

/// Bytes a second that some line carries: 80 bit/s to 100 Gbit/s.
const SOUND_RATES: RangeInclusive<f64> = 10.0..=12.5e9;

/// Round trips of lines.
const SOUND_ROUND_TRIPS: RangeInclusive<Duration> = Duration::from_micros(1)..=Duration::from_secs(60);

/// From QUIC's least (RFC 9000, 14) to what a UDP datagram holds.
const SOUND_MTUS: RangeInclusive<u16> = 1200..=65_507;

/// What the connections of an endpoint know of its line. Clones share it; a new connection begins with what the last one knew.
#[derive(Clone, Debug, Default)]
pub struct LineMemory(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    line: Mutex<Option<LineEstimate>>,
    /// How often the line came back.
    revivals: AtomicU64,
    /// Largest packet that the path was found to carry, in bytes of UDP payload; 0: not looked for.
    mtu: AtomicU16,
}

impl LineMemory {
    /// The last estimate, whether a connection is open or not; `None` before the first line was filled.
    pub fn line(&self) -> Option<LineEstimate> {
        *self.0.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(&self, line: LineEstimate) {
        *self.0.line.lock().unwrap_or_else(PoisonError::into_inner) = Some(line);
    }

    /// Puts in place what an earlier process knew. What no line has is left out; where a connection has measured already, that holds.
    pub(crate) fn recall(&self, known: KnownLine) {
        let is_sound = |line: &LineEstimate| SOUND_RATES.contains(&line.bytes_per_second) && SOUND_ROUND_TRIPS.contains(&line.round_trip);
        let mut line = self.0.line.lock().unwrap_or_else(PoisonError::into_inner);
        *line = line.or(known.line.filter(is_sound));
        if let (None, Some(mtu)) = (self.mtu(), known.mtu.filter(|mtu| SOUND_MTUS.contains(mtu))) {
            self.0.mtu.store(mtu, Relaxed);
        }
    }

    /// What the next process is to know.
    pub(crate) fn known(&self) -> KnownLine {
        KnownLine { line: self.line(), mtu: self.mtu() }
    }

    /// Largest UDP payload that the path was found to carry.
    pub(crate) fn mtu(&self) -> Option<u16> {
        Some(self.0.mtu.load(Relaxed)).filter(|mtu| *mtu > 0)
    }

    /// The line, which was down, is known to be back: connections may send a few packets beyond their windows, which are full of what was lost, once.
    pub(crate) fn revive(&self) {
        self.0.revivals.fetch_add(1, Relaxed);
    }
}

/// Makes a [`Spillway`] for each connection.
#[derive(Debug)]
struct SpillwayConfig {
    memory: LineMemory,
}

impl ControllerFactory for SpillwayConfig {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        let model = Model::new(now, current_mtu, self.memory.line());
        Box::new(Spillway {
            initial_window: model.window(),
            delivery: Delivery::new(now),
            model,
            in_flight: 0,
            newest: None,
            mtu: current_mtu,
            revivals: self.memory.0.revivals.load(Relaxed),
            memory: self.memory.clone(),
        })
    }
}

/// The controller of one connection.
#[derive(Clone, Debug)]
struct Spillway {
    delivery: Delivery,
    model: Model,
    /// Bytes in flight: what quinn said last, and what was sent and lost since.
    in_flight: u64,
    /// Of the acknowledgements of one batch: when the newest packet was sent.
    newest: Option<Instant>,
    mtu: u16,
    /// Of the line's revivals, those that were used.
    revivals: u64,
    initial_window: u64,
    memory: LineMemory,
}

impl Controller for Spillway {
    fn on_sent(&mut self, now: Instant, bytes: u64, _last_packet_number: u64) {
        self.revivals = self.memory.0.revivals.load(Relaxed);
        self.delivery.sent(now, self.in_flight == 0);
        self.in_flight += bytes;
        self.model.sent(self.in_flight);
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, _app_limited: bool, _rtt: &RttEstimator) {
        let sample = self.delivery.acked(now, sent, bytes);
        self.model.acked(now, sent, bytes, sample);
        self.newest = self.newest.max(Some(sent));
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, _largest_packet_num_acked: Option<u64>) {
        self.in_flight = in_flight;
        let Some(newest) = self.newest.take() else { return };
        if let Some(oldest) = newest.checked_sub(LATE) {
            self.delivery.forget_before(oldest);
        }
        self.model.acks_ended(now, newest, in_flight, app_limited);
        if let Some(line) = self.model.line() {
            self.memory.remember(line);
        }
    }

    fn on_congestion_event(&mut self, now: Instant, _sent: Instant, is_persistent_congestion: bool, lost_bytes: u64) {
        self.in_flight = self.in_flight.saturating_sub(lost_bytes);
        match lost_bytes {
            // Not lost, but marked by the network.
            0 => self.model.marked(now),
            _ => self.model.lost(lost_bytes),
        }
        if is_persistent_congestion {
            self.model.went_silent(now);
        }
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.mtu = new_mtu;
        self.memory.0.mtu.store(new_mtu, Relaxed);
        self.model.set_mtu(new_mtu);
    }

    fn window(&self) -> u64 {
        let revived = self.revivals != self.memory.0.revivals.load(Relaxed);
        let beyond = if revived { self.in_flight + REVIVAL_PACKETS * u64::from(self.mtu) } else { 0 };
        self.model.window().max(beyond)
    }

    fn metrics(&self) -> ControllerMetrics {
        let mut metrics = ControllerMetrics::default();
        metrics.congestion_window = self.window();
        metrics.pacing_rate = self.model.line().map(|line| (8.0 * line.bytes_per_second) as u64);
        metrics
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        self.initial_window
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_line_has_is_not_recalled_and_what_was_measured_since_holds() {
        let line = |bytes_per_second, millis| Some(LineEstimate { bytes_per_second, round_trip: Duration::from_millis(millis) });
        for unsound in [line(0.0, 300), line(f64::NAN, 300), line(f64::INFINITY, 300), line(1e12, 300), line(1e5, 0), line(1e5, 3_600_000)]
        {
            let memory = LineMemory::default();
            memory.recall(KnownLine { line: unsound, mtu: Some(100) });
            assert_eq!(memory.known(), KnownLine::default(), "{unsound:?}");
        }
        let (known, other) = (KnownLine { line: line(1e5, 300), mtu: Some(1400) }, KnownLine { line: line(2e5, 20), mtu: Some(1452) });
        let memory = LineMemory::default();
        memory.recall(known);
        memory.recall(other);
        assert_eq!(memory.known(), known);
    }
}
