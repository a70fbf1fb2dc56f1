//! A TCP relay before a broker: the link of whoever speaks Kafka's own protocol to the centre. It can be cut: then nothing passes, nothing is
//! closed, and nobody is told.
//!
//! Clients follow the addresses that a broker advertises, so the broker has to advertise the relay's ([`crate::kafka_cluster::KafkaOptions::relayed`]).

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Result;

use crate::ports::free_port;

/// How often a thread looks whether it shall end, and whether the link is up again.
const TICK: Duration = Duration::from_millis(50);

/// Bytes carried at once.
const PIECE_BYTES: usize = 64 * 1024;

/// Connections at a time; others wait in the system's queue. Kafka's clients have one or two for each broker and purpose.
const CONNECTIONS_MAX: usize = 256;

/// Until a broker on this machine takes a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// A running relay. Dropping it ends it.
#[derive(Debug)]
pub struct TcpRelay {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    target: Mutex<Option<SocketAddr>>,
    cut: AtomicBool,
    stop: AtomicBool,
    bytes: AtomicU64,
    connections: AtomicUsize,
}

impl TcpRelay {
    /// Starts a relay on a free port of 127.0.0.1. Connections wait until it has a target.
    ///
    /// # Errors
    /// When no socket can be had.
    pub fn start() -> Result<Self> {
        Self::start_at((Ipv4Addr::LOCALHOST, free_port()?).into())
    }

    /// As [`TcpRelay::start`], where a relay for UDP is: both are one link.
    ///
    /// # Errors
    /// When the port is taken.
    pub fn start_at(address: SocketAddr) -> Result<Self> {
        let front = TcpListener::bind(address)?;
        front.set_nonblocking(true)?;
        let (address, shared) = (front.local_addr()?, Arc::new(Shared::default()));
        let accepting = Arc::clone(&shared);
        Ok(Self { address, shared, thread: Some(std::thread::spawn(move || accepting.accept(&front))) })
    }

    /// Where clients shall connect to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where connections lead to, from now on.
    pub fn set_target(&self, target: SocketAddr) {
        *self.shared.target.lock().unwrap_or_else(PoisonError::into_inner) = Some(target);
    }

    /// Cuts or restores the link.
    pub fn set_cut(&self, cut: bool) {
        self.shared.cut.store(cut, Ordering::Relaxed);
    }

    /// Bytes that have passed, both directions.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::Relaxed)
    }
}

impl Drop for TcpRelay {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

impl Shared {
    fn stops(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Relaxed)
    }

    fn accept(self: &Arc<Self>, front: &TcpListener) {
        while !self.stops() {
            let target = *self.target.lock().unwrap_or_else(PoisonError::into_inner);
            let free = self.connections.load(Ordering::Relaxed) < CONNECTIONS_MAX;
            let (Some(target), true) = (target, free && !self.is_cut()) else {
                std::thread::sleep(TICK);
                continue;
            };
            // Nobody there, or a client that has gone again.
            let Ok((client, _)) = front.accept() else {
                std::thread::sleep(TICK);
                continue;
            };
            // A client whose broker does not answer sees its connection end, as it would without a relay.
            drop(self.connect(&client, target));
        }
    }

    /// Connects a client to the target, with a thread for each direction.
    fn connect(self: &Arc<Self>, client: &TcpStream, target: SocketAddr) -> std::io::Result<()> {
        let broker = TcpStream::connect_timeout(&target, CONNECT_LIMIT)?;
        for socket in [client, &broker] {
            socket.set_nonblocking(false)?;
            socket.set_nodelay(true)?;
            socket.set_read_timeout(Some(TICK))?;
        }
        self.connections.fetch_add(1, Ordering::Relaxed);
        let open = Arc::new(AtomicUsize::new(2));
        for (from, to) in [(client.try_clone()?, broker.try_clone()?), (broker, client.try_clone()?)] {
            let (shared, open) = (Arc::clone(self), Arc::clone(&open));
            std::thread::spawn(move || {
                shared.carry(from, to);
                if open.fetch_sub(1, Ordering::Relaxed) == 1 {
                    shared.connections.fetch_sub(1, Ordering::Relaxed);
                }
            });
        }
        Ok(())
    }

    /// Carries one direction until its sender closes it; while the link is cut neither bytes nor that pass.
    fn carry(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut piece = vec![0; PIECE_BYTES];
        while !self.stops() {
            if self.is_cut() {
                std::thread::sleep(TICK);
                continue;
            }
            match from.read(&mut piece) {
                Ok(0) => break,
                Ok(len) => {
                    // What was read as the cut came is on the far side of it already.
                    if to.write_all(piece.get(..len).unwrap_or_default()).is_err() {
                        break;
                    }
                    self.bytes.fetch_add(u64::try_from(len).unwrap_or(0), Ordering::Relaxed);
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) => {}
                Err(_) => break,
            }
        }
        // Both ways: a broker's clients never close one only.
        drop((from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both)));
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn echo_server() -> SocketAddr {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        std::thread::spawn(move || {
            for client in server.incoming() {
                let mut client = client.unwrap();
                std::thread::spawn(move || {
                    let mut buffer = [0; 100];
                    while let Ok(len) = client.read(&mut buffer)
                        && len > 0
                    {
                        client.write_all(&buffer[..len]).unwrap();
                    }
                });
            }
        });
        address
    }

    /// Until an answer that is expected, on a busy machine.
    const PATIENCE: Duration = Duration::from_secs(30);

    /// For an answer that is not.
    const SILENCE: Duration = Duration::from_millis(400);

    fn answer(client: &mut TcpStream, patience: Duration) -> Option<u8> {
        let mut one = [0];
        client.set_read_timeout(Some(patience)).unwrap();
        client.read(&mut one).ok().filter(|len| *len > 0).map(|_| one[0])
    }

    #[test]
    fn bytes_pass_wait_out_a_cut_and_are_not_lost_to_it() {
        let relay = TcpRelay::start().unwrap();
        relay.set_target(echo_server());
        let mut client = TcpStream::connect(relay.address()).unwrap();
        client.write_all(b"1").unwrap();
        assert_eq!(answer(&mut client, PATIENCE), Some(b'1'));
        // Counted behind the write.
        while relay.bytes() < 2 {
            std::thread::sleep(TICK);
        }

        relay.set_cut(true);
        // Longer than a thread looks at one socket.
        std::thread::sleep(4 * TICK);
        client.write_all(b"2").unwrap();
        assert_eq!((answer(&mut client, SILENCE), relay.bytes()), (None, 2));
        let mut late = TcpStream::connect(relay.address()).unwrap();
        late.write_all(b"3").unwrap();
        assert_eq!(answer(&mut late, SILENCE), None);

        relay.set_cut(false);
        assert_eq!(answer(&mut client, PATIENCE), Some(b'2'));
        assert_eq!(answer(&mut late, PATIENCE), Some(b'3'));
    }

    #[test]
    fn a_closed_connection_is_closed_on_the_other_side() {
        let relay = TcpRelay::start().unwrap();
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        relay.set_target(server.local_addr().unwrap());
        let mut client = TcpStream::connect(relay.address()).unwrap();
        drop(server.accept().unwrap());
        client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
    }
}
