//! A UDP relay between agent and collector: the link of the lab. It can be cut, also in one direction only, delayed, moved to another
//! collector, given another source address, and made to lose, double, delay and damage packets; and it counts what passes.
//!
//! Per client address it keeps one socket towards the target, as a NAT would. Packets that arrive while the link is cut are
//! dropped, as are those beyond `QUEUE_MAX` in flight. A change of the target gives every client a new socket: the old
//! collector hears nothing more.
//!
//! | module | what it is for |
//! |---|---|
//! | [`weather`] | what becomes of a packet (pure) |
//! | `lane` | one direction: cut, weather, delay, counters |
//! | `receive` | a packet, and when the kernel had it |

mod lane;
mod receive;
pub mod weather;

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Result;

use crate::ports::free_port;
use lane::Lane;
use receive::{Received, receive, stamp};
use weather::Weather;

/// Clients known at a time. A client that redials from new ports leaves old ones behind; beyond this the oldest are forgotten.
const CLIENTS_MAX: usize = 64;

/// How often a thread looks whether it shall end.
const TICK: Duration = Duration::from_millis(100);

/// Largest UDP datagram.
const DATAGRAM_MAX: usize = 65_536;

/// A direction of the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the agent to the collector.
    Up,
    /// From the collector to the agent.
    Down,
}

/// What has passed the relay, headers of IP and UDP included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes from the agent to the collector.
    pub up_bytes: u64,
    /// Bytes from the collector to the agent.
    pub down_bytes: u64,
    /// Packets dropped because the link was cut, both directions.
    pub cut_packets: u64,
    /// Bytes of those that came from the agent.
    pub cut_up_bytes: u64,
    /// Packets lost to the weather, or for want of room in the queue of a slow link, both directions.
    pub lost_packets: u64,
    /// Packets sent twice.
    pub doubled_packets: u64,
    /// Packets held back, so that later ones passed them.
    pub reordered_packets: u64,
    /// Packets of which a bit was turned.
    pub corrupted_packets: u64,
}

/// Most packets of a direction that are remembered: ten minutes of 10 Mbit/s.
pub const ARRIVALS_MAX: usize = 1 << 20;

/// A packet that arrived at the relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// When the kernel had it, by the system's clock, since 1970. On loopback that is the moment it was sent.
    pub at: Duration,
    /// With headers of IP and UDP.
    pub bytes: u64,
}

/// A running relay. Dropping it ends it.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    front: Arc<UdpSocket>,
    target: Mutex<SocketAddr>,
    clients: Mutex<Clients>,
    stop: AtomicBool,
    up: Lane,
    down: Lane,
}

#[derive(Debug, Default)]
struct Clients {
    sockets: HashMap<SocketAddr, (u64, Arc<UdpSocket>)>,
    next: u64,
}

impl Relay {
    /// Starts a relay to a collector at `target`, on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// When no socket can be had.
    pub fn start(target: SocketAddr) -> Result<Self> {
        let front = UdpSocket::bind((Ipv4Addr::LOCALHOST, free_port()?))?;
        front.set_read_timeout(Some(TICK))?;
        stamp(&front)?;
        let address = front.local_addr()?;
        let (up, up_thread) = Lane::start();
        let (down, down_thread) = Lane::start();
        let shared = Arc::new(Shared {
            front: Arc::new(front),
            target: Mutex::new(target),
            clients: Mutex::default(),
            stop: AtomicBool::new(false),
            up,
            down,
        });
        let upward = Arc::clone(&shared);
        let threads = vec![std::thread::spawn(move || upward.receive_from_agents()), up_thread, down_thread];
        Ok(Self { address, shared, threads })
    }

    /// Where the agent shall connect to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts or restores the link. Nothing tells the two sides: packets just stop.
    pub fn set_cut(&self, cut: bool) {
        self.cut_direction(Direction::Up, cut);
        self.cut_direction(Direction::Down, cut);
    }

    /// Cuts or restores one direction.
    pub fn cut_direction(&self, direction: Direction, cut: bool) {
        self.lane(direction).set_cut(cut);
    }

    /// Delays packets so long in each direction (half of the round trip that it adds).
    pub fn set_delay(&self, one_way: Duration) {
        self.shared.up.set_delay(one_way);
        self.shared.down.set_delay(one_way);
    }

    /// Lets each direction carry so many bytes a second, headers included; `None`: as many as come. Packets that would wait longer than
    /// `queue` are dropped.
    pub fn set_rate(&self, bytes_per_second: Option<u64>, queue: Duration) {
        self.shared.up.set_rate(bytes_per_second, queue);
        self.shared.down.set_rate(bytes_per_second, queue);
    }

    /// Brings weather over both directions, or takes it away. `seed` decides which packets it meets.
    pub fn set_weather(&self, weather: Weather, seed: u64) {
        self.shared.up.set_weather(weather, seed);
        self.shared.down.set_weather(weather, seed.wrapping_add(1));
    }

    /// Moves the link to another collector.
    pub fn set_target(&self, target: SocketAddr) {
        *self.shared.target.lock().unwrap_or_else(PoisonError::into_inner) = target;
        self.change_source();
    }

    /// From now on the collector sees the same connections come from other ports, as after a NAT has forgotten them.
    pub fn change_source(&self) {
        self.shared.clients().sockets.clear();
    }

    /// What has passed so far.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        let (up, down) = (self.shared.up.counts(), self.shared.down.counts());
        Traffic {
            up_bytes: up.bytes,
            down_bytes: down.bytes,
            cut_packets: up.cut + down.cut,
            cut_up_bytes: up.cut_bytes,
            lost_packets: up.lost + down.lost,
            doubled_packets: up.doubled + down.doubled,
            reordered_packets: up.reordered + down.reordered,
            corrupted_packets: up.corrupted + down.corrupted,
        }
    }

    /// From now on remembers what arrives, for [`Relay::arrivals`].
    pub fn record(&self) {
        self.shared.up.record();
        self.shared.down.record();
    }

    /// What has arrived in one direction since [`Relay::record`] and was not dropped at a cut, in order, [`ARRIVALS_MAX`] at the most.
    #[must_use]
    pub fn arrivals(&self, direction: Direction) -> Vec<Arrival> {
        self.lane(direction).arrivals()
    }

    fn lane(&self, direction: Direction) -> &Lane {
        match direction {
            Direction::Up => &self.shared.up,
            Direction::Down => &self.shared.down,
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.shared.clients().sockets.clear();
        self.shared.up.stop();
        self.shared.down.stop();
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
    }
}

impl Shared {
    fn clients(&self) -> std::sync::MutexGuard<'_, Clients> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn receive_from_agents(self: &Arc<Self>) {
        let mut buffer = vec![0; DATAGRAM_MAX];
        while !self.stop.load(Ordering::Relaxed) {
            // A timeout, or the echo of an unreachable client: both mean to look again.
            let Ok(Received { len, from: client, at }) = receive(&self.front, &mut buffer) else { continue };
            let Some(bytes) = buffer.get(..len) else { continue };
            let Some(socket) = self.socket_of(client) else { continue };
            self.up.forward(bytes, at, &socket, None);
        }
    }

    /// The socket that stands for `client` towards the target, with a thread that carries the answers.
    fn socket_of(self: &Arc<Self>, client: SocketAddr) -> Option<Arc<UdpSocket>> {
        let mut clients = self.clients();
        if let Some((_, socket)) = clients.sockets.get(&client) {
            return Some(Arc::clone(socket));
        }
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).ok()?;
        socket.connect(*self.target.lock().unwrap_or_else(PoisonError::into_inner)).ok()?;
        socket.set_read_timeout(Some(TICK)).ok()?;
        stamp(&socket).ok()?;
        let socket = Arc::new(socket);
        let (shared, answers) = (Arc::clone(self), Arc::clone(&socket));
        std::thread::spawn(move || shared.receive_from_target(client, &answers));
        clients.next += 1;
        let number = clients.next;
        clients.sockets.insert(client, (number, Arc::clone(&socket)));
        if clients.sockets.len() > CLIENTS_MAX
            && let Some(oldest) = clients.sockets.iter().min_by_key(|(_, (number, _))| *number).map(|(client, _)| *client)
        {
            clients.sockets.remove(&oldest);
        }
        Some(socket)
    }

    fn receive_from_target(&self, client: SocketAddr, socket: &Arc<UdpSocket>) {
        let mut buffer = vec![0; DATAGRAM_MAX];
        while !self.stop.load(Ordering::Relaxed) && self.is_current(client, socket) {
            let Ok(Received { len, at, .. }) = receive(socket, &mut buffer) else { continue };
            let Some(bytes) = buffer.get(..len) else { continue };
            self.down.forward(bytes, at, &self.front, Some(client));
        }
    }

    fn is_current(&self, client: SocketAddr, socket: &Arc<UdpSocket>) -> bool {
        self.clients().sockets.get(&client).is_some_and(|(_, current)| Arc::ptr_eq(current, socket))
    }
}

#[cfg(test)]
mod tests;
