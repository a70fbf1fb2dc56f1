//! A UDP relay between agent and collector: the link of the lab. It can be cut, delayed, moved to another collector, and it
//! counts what passes.
//!
//! Per client address it keeps one socket towards the target, as a NAT would. Packets that arrive while the link is cut are
//! dropped, in both directions, as are those beyond `QUEUE_MAX` in flight. A change of the target gives every client a new
//! socket: the old collector hears nothing more.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::ports::free_port;

/// Packets in flight in each direction; more are dropped as by a router.
const QUEUE_MAX: usize = 4096;

/// Clients known at a time. A client that redials from new ports leaves old ones behind; beyond this the oldest are forgotten.
const CLIENTS_MAX: usize = 64;

/// How often a thread looks whether it shall end.
const TICK: Duration = Duration::from_millis(100);

/// IPv4 and UDP headers of one packet.
const HEADER_BYTES: u64 = 28;

/// Largest UDP datagram.
const DATAGRAM_MAX: usize = 65_536;

/// What has passed the relay, headers of IP and UDP included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes from the agent to the collector.
    pub up_bytes: u64,
    /// Bytes from the collector to the agent.
    pub down_bytes: u64,
    /// Packets dropped because the link was cut, both directions.
    pub cut_packets: u64,
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
    delay_us: AtomicU64,
    cut: AtomicBool,
    stop: AtomicBool,
    up: AtomicU64,
    down: AtomicU64,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct Clients {
    sockets: HashMap<SocketAddr, (u64, Arc<UdpSocket>)>,
    next: u64,
}

struct Packet {
    due: Instant,
    bytes: Vec<u8>,
    socket: Arc<UdpSocket>,
    /// The client it goes to; `None` for the target, to which the socket is connected.
    to: Option<SocketAddr>,
}

impl Relay {
    /// Starts a relay to a collector at `target`, on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// When no socket can be had.
    pub fn start(target: SocketAddr) -> Result<Self> {
        let front = UdpSocket::bind((Ipv4Addr::LOCALHOST, free_port()?))?;
        front.set_read_timeout(Some(TICK))?;
        let address = front.local_addr()?;
        let shared = Arc::new(Shared {
            front: Arc::new(front),
            target: Mutex::new(target),
            clients: Mutex::default(),
            delay_us: AtomicU64::new(0),
            cut: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            up: AtomicU64::new(0),
            down: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        });
        let (up, up_queue) = sync_channel(QUEUE_MAX);
        let (down, down_queue) = sync_channel(QUEUE_MAX);
        let upward = Arc::clone(&shared);
        let threads = vec![
            std::thread::spawn(move || upward.receive_from_agents(&up, &down)),
            std::thread::spawn(move || send_when_due(&up_queue)),
            std::thread::spawn(move || send_when_due(&down_queue)),
        ];
        Ok(Self { address, shared, threads })
    }

    /// Where the agent shall connect to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts or restores the link. Nothing tells the two sides: packets just stop.
    pub fn set_cut(&self, cut: bool) {
        self.shared.cut.store(cut, Ordering::Relaxed);
    }

    /// Delays packets so long in each direction (half of the round trip that it adds).
    pub fn set_delay(&self, one_way: Duration) {
        self.shared.delay_us.store(u64::try_from(one_way.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Moves the link to another collector.
    pub fn set_target(&self, target: SocketAddr) {
        *self.shared.target.lock().unwrap_or_else(PoisonError::into_inner) = target;
        self.shared.clients.lock().unwrap_or_else(PoisonError::into_inner).sockets.clear();
    }

    /// What has passed so far.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        Traffic {
            up_bytes: self.shared.up.load(Ordering::Relaxed),
            down_bytes: self.shared.down.load(Ordering::Relaxed),
            cut_packets: self.shared.dropped.load(Ordering::Relaxed),
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.shared.clients.lock().unwrap_or_else(PoisonError::into_inner).sockets.clear();
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
    }
}

impl Shared {
    fn receive_from_agents(self: &Arc<Self>, up: &SyncSender<Packet>, down: &SyncSender<Packet>) {
        let mut buffer = vec![0; DATAGRAM_MAX];
        while !self.stop.load(Ordering::Relaxed) {
            // A timeout, or the echo of an unreachable client: both mean to look again.
            let Ok((len, client)) = self.front.recv_from(&mut buffer) else { continue };
            let Some(bytes) = buffer.get(..len) else { continue };
            let Some(socket) = self.socket_of(client, down) else { continue };
            self.forward(bytes, &self.up, up, socket, None);
        }
    }

    /// The socket that stands for `client` towards the target, with a thread that carries the answers.
    fn socket_of(self: &Arc<Self>, client: SocketAddr, down: &SyncSender<Packet>) -> Option<Arc<UdpSocket>> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, socket)) = clients.sockets.get(&client) {
            return Some(Arc::clone(socket));
        }
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).ok()?;
        socket.connect(*self.target.lock().unwrap_or_else(PoisonError::into_inner)).ok()?;
        socket.set_read_timeout(Some(TICK)).ok()?;
        let socket = Arc::new(socket);
        let (shared, answers, down) = (Arc::clone(self), Arc::clone(&socket), down.clone());
        std::thread::spawn(move || shared.receive_from_target(client, &answers, &down));
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

    fn receive_from_target(&self, client: SocketAddr, socket: &Arc<UdpSocket>, down: &SyncSender<Packet>) {
        let mut buffer = vec![0; DATAGRAM_MAX];
        while !self.stop.load(Ordering::Relaxed) && self.is_current(client, socket) {
            let Ok(len) = socket.recv(&mut buffer) else { continue };
            let Some(bytes) = buffer.get(..len) else { continue };
            self.forward(bytes, &self.down, down, Arc::clone(&self.front), Some(client));
        }
    }

    fn is_current(&self, client: SocketAddr, socket: &Arc<UdpSocket>) -> bool {
        let clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        clients.sockets.get(&client).is_some_and(|(_, current)| Arc::ptr_eq(current, socket))
    }

    fn forward(&self, bytes: &[u8], counter: &AtomicU64, queue: &SyncSender<Packet>, socket: Arc<UdpSocket>, to: Option<SocketAddr>) {
        if self.cut.load(Ordering::Relaxed) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        counter.fetch_add(u64::try_from(bytes.len()).unwrap_or(0) + HEADER_BYTES, Ordering::Relaxed);
        let delay = self.delay_us.load(Ordering::Relaxed);
        if delay == 0 {
            send(&socket, bytes, to);
            return;
        }
        let due = Instant::now() + Duration::from_micros(delay);
        // A full queue drops the packet, as a router does.
        drop(queue.try_send(Packet { due, bytes: bytes.to_vec(), socket, to }));
    }
}

/// The delay is the same for all packets of a direction, so they leave in the order they came.
fn send_when_due(queue: &Receiver<Packet>) {
    while let Ok(packet) = queue.recv() {
        std::thread::sleep(packet.due.saturating_duration_since(Instant::now()));
        send(&packet.socket, &packet.bytes, packet.to);
    }
}

/// A packet that cannot be sent is lost, as on any link.
fn send(socket: &UdpSocket, bytes: &[u8], to: Option<SocketAddr>) {
    drop(match to {
        Some(client) => socket.send_to(bytes, client),
        None => socket.send(bytes),
    });
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn echo_server(mark: u8) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        std::thread::spawn(move || {
            let mut buffer = [0; 100];
            while let Ok((len, from)) = socket.recv_from(&mut buffer) {
                let mut answer = buffer[..len].to_vec();
                answer.push(mark);
                socket.send_to(&answer, from).unwrap();
            }
        });
        address
    }

    fn ask(socket: &UdpSocket, text: &[u8]) -> Option<Vec<u8>> {
        let mut buffer = [0; 100];
        socket.send(text).unwrap();
        socket.recv(&mut buffer).ok().map(|len| buffer[..len].to_vec())
    }

    #[test]
    fn packets_pass_stop_at_a_cut_wait_and_change_target() {
        let relay = Relay::start(echo_server(b'A')).unwrap();
        let agent = UdpSocket::bind("127.0.0.1:0").unwrap();
        agent.connect(relay.address()).unwrap();
        agent.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        assert_eq!(ask(&agent, b"one").unwrap(), b"oneA");
        assert_eq!(relay.traffic(), Traffic { up_bytes: 31, down_bytes: 32, cut_packets: 0 });

        relay.set_cut(true);
        assert_eq!(ask(&agent, b"two"), None);
        assert_eq!(relay.traffic().cut_packets, 1);
        relay.set_cut(false);

        relay.set_delay(Duration::from_millis(40));
        let asked = Instant::now();
        assert_eq!(ask(&agent, b"three").unwrap(), b"threeA");
        assert!(asked.elapsed() >= Duration::from_millis(80));

        relay.set_target(echo_server(b'B'));
        assert_eq!(ask(&agent, b"four").unwrap(), b"fourB");
    }
}
