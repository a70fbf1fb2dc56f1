//! One direction of the relay.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::weather::{Fate, Weather, turn};
use super::{ARRIVALS_MAX, Arrival};

/// Packets in flight; more are dropped as by a router.
const QUEUE_MAX: usize = 4096;

/// IPv4 and UDP headers of one packet.
const HEADER_BYTES: u64 = 28;

/// What has passed, and what has not.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) bytes: u64,
    pub(super) cut: u64,
    pub(super) cut_bytes: u64,
    pub(super) lost: u64,
    pub(super) doubled: u64,
    pub(super) reordered: u64,
    pub(super) corrupted: u64,
}

/// A direction. Packets that wait are sent by a thread of its own.
#[derive(Debug)]
pub(super) struct Lane {
    cut: AtomicBool,
    delay_us: AtomicU64,
    state: Mutex<State>,
    queue: Arc<Queue>,
}

#[derive(Debug)]
struct State {
    /// Bytes a second, and how long a packet may wait for its turn.
    rate: Option<(u64, Duration)>,
    /// When the last packet has left.
    free_at: Instant,
    weather: Weather,
    rng: StdRng,
    counts: Counts,
    /// While they are recorded.
    arrivals: Option<Vec<Arrival>>,
}

impl Lane {
    pub(super) fn start() -> (Self, JoinHandle<()>) {
        let queue = Arc::new(Queue::default());
        let sender = Arc::clone(&queue);
        let thread = std::thread::spawn(move || sender.run());
        let state = State {
            rate: None,
            free_at: Instant::now(),
            weather: Weather::default(),
            rng: StdRng::seed_from_u64(0),
            counts: Counts::default(),
            arrivals: None,
        };
        (Self { cut: AtomicBool::new(false), delay_us: AtomicU64::new(0), state: Mutex::new(state), queue }, thread)
    }

    pub(super) fn set_cut(&self, cut: bool) {
        self.cut.store(cut, Ordering::Relaxed);
    }

    pub(super) fn set_delay(&self, delay: Duration) {
        self.delay_us.store(u64::try_from(delay.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(super) fn set_rate(&self, bytes_per_second: Option<u64>, queue: Duration) {
        self.state().rate = bytes_per_second.map(|rate| (rate.max(1), queue));
    }

    pub(super) fn set_weather(&self, weather: Weather, seed: u64) {
        let mut state = self.state();
        (state.weather, state.rng) = (weather, StdRng::seed_from_u64(seed));
    }

    pub(super) fn counts(&self) -> Counts {
        self.state().counts
    }

    pub(super) fn record(&self) {
        self.state().arrivals = Some(Vec::new());
    }

    pub(super) fn arrivals(&self) -> Vec<Arrival> {
        self.state().arrivals.clone().unwrap_or_default()
    }

    /// Lets the thread end; what still waits is dropped.
    pub(super) fn stop(&self) {
        self.queue.waiting().stopped = true;
        self.queue.changed.notify_one();
    }

    /// Sends a packet that arrived at `at` on `socket`, to `to` or, for `None`, to where it is connected; or whatever the weather does to it.
    pub(super) fn forward(&self, bytes: &[u8], at: Duration, socket: &Arc<UdpSocket>, to: Option<SocketAddr>) {
        let Some((Fate { copies, hold_back, turned_bit }, wait)) = self.decide(bytes.len(), at) else { return };
        let delay = Duration::from_micros(self.delay_us.load(Ordering::Relaxed)) + hold_back + wait;
        if delay.is_zero() && turned_bit.is_none() {
            (0..copies).for_each(|_| send(socket, bytes, to));
            return;
        }
        let mut bytes = bytes.to_vec();
        if let Some(bit) = turned_bit {
            turn(&mut bytes, bit);
        }
        let due = Instant::now() + delay;
        for _ in 0..copies {
            self.queue.push(Packet { due, bytes: bytes.clone(), socket: Arc::clone(socket), to });
        }
    }

    /// Decides and counts; `None` for a packet that goes nowhere. Answers the time until it has left, too.
    fn decide(&self, len: usize, at: Duration) -> Option<(Fate, Duration)> {
        let size = u64::try_from(len).unwrap_or(0) + HEADER_BYTES;
        let mut state = self.state();
        let State { rate, free_at, weather, rng, counts, arrivals } = &mut *state;
        if self.cut.load(Ordering::Relaxed) {
            counts.cut += 1;
            counts.cut_bytes += size;
            return None;
        }
        counts.bytes += size;
        if let Some(arrivals) = arrivals.as_mut().filter(|arrivals| arrivals.len() < ARRIVALS_MAX) {
            arrivals.push(Arrival { at, bytes: size });
        }
        let now = Instant::now();
        if let Some((bytes_per_second, queue)) = *rate {
            let begins = (*free_at).max(now);
            if begins.saturating_duration_since(now) > queue {
                counts.lost += 1;
                return None;
            }
            *free_at = begins + Duration::from_micros(size * 1_000_000 / bytes_per_second);
        }
        let wait = free_at.saturating_duration_since(now);
        let fate = weather.fate(len, rng);
        counts.lost += u64::from(fate.copies == 0);
        counts.doubled += u64::from(fate.copies == 2);
        counts.reordered += u64::from(fate.copies > 0 && !fate.hold_back.is_zero());
        counts.corrupted += u64::from(fate.copies > 0 && fate.turned_bit.is_some());
        (fate.copies > 0).then_some((fate, wait))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    /// By the time they are due, and in the order in which they came.
    order: BinaryHeap<Reverse<(Instant, u64)>>,
    packets: std::collections::HashMap<u64, Packet>,
    next: u64,
    stopped: bool,
}

#[derive(Debug)]
struct Packet {
    due: Instant,
    bytes: Vec<u8>,
    socket: Arc<UdpSocket>,
    to: Option<SocketAddr>,
}

impl Queue {
    fn push(&self, packet: Packet) {
        let mut waiting = self.waiting();
        // A full queue drops the packet, as a router does.
        if waiting.packets.len() < QUEUE_MAX {
            let number = waiting.next;
            waiting.next += 1;
            waiting.order.push(Reverse((packet.due, number)));
            waiting.packets.insert(number, packet);
            self.changed.notify_one();
        }
    }

    fn run(&self) {
        while let Some(packet) = self.take() {
            send(&packet.socket, &packet.bytes, packet.to);
        }
    }

    /// Waits for the next packet that is due; `None` at the end.
    fn take(&self) -> Option<Packet> {
        let mut waiting = self.waiting();
        while !waiting.stopped {
            let due = waiting.order.peek().map(|Reverse((due, _))| due.saturating_duration_since(Instant::now()));
            waiting = match due {
                None => self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner),
                Some(left) if !left.is_zero() => self.changed.wait_timeout(waiting, left).unwrap_or_else(PoisonError::into_inner).0,
                Some(_) => {
                    let Some(Reverse((_, number))) = waiting.order.pop() else { continue };
                    return waiting.packets.remove(&number);
                }
            };
        }
        None
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A packet that cannot be sent is lost, as on any link.
fn send(socket: &UdpSocket, bytes: &[u8], to: Option<SocketAddr>) {
    drop(match to {
        Some(client) => socket.send_to(bytes, client),
        None => socket.send(bytes),
    });
}
