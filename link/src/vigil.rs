//! Watching over the way to the collector: noticing that it is silent, probing, and going on as soon as it is open again.
//!
//! A line that is down costs a probe every few seconds (see [`mod@crate::probe`]), and only while there is something to say. When a probe is answered, a connection that lives is
//! woken: it sends a few packets past its window, whose acknowledgements tell it what was lost. One that has ended is dialled anew.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use quinn::{Connection, VarInt};
use ring::rand::{SecureRandom, SystemRandom};
use tokio::time::Instant;

use crate::{
    CappedSocket, LineMemory,
    probe::ProbeSocket,
    tunnel::{GiveUp, dial::TunnelDialer},
};

/// How often is probed, before jitter of a quarter downwards. So often that the way is found open within 5 s and two round trips even where a probe, or its answer, is lost.
const PROBE_EVERY: Duration = Duration::from_secs(2);

/// The same for a line that is paid by the byte, or the minute: within 4 s and a round trip, if nothing is lost. A day costs 1.3 MB.
const PROBE_EVERY_THRIFTY: Duration = Duration::from_secs(4);

/// How often a connection is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A connection that sent something and heard nothing for so long is probed for.
const SILENCE: Duration = Duration::from_secs(2);

/// The same for a connection in a tunnel: TCP, which repeats what was lost by itself, is left alone with shorter interruptions.
const TUNNEL_SILENCE: Duration = Duration::from_secs(4);

/// When TCP reaches the collector the stream that is silent gets so long, and a round trip, to go on.
const TUNNEL_GRACE: Duration = Duration::from_millis(500);

/// After an answered probe a handshake gets so long before it is begun anew; its repetitions may be seconds away. Two periods of probes, this, and two and a half round
/// trips are within 5 s and two round trips, on lines of up to a second: one lost probe is made up for.
const HANDSHAKE_GRACE: Duration = Duration::from_millis(500);

/// Probes a collector's addresses, those that were dialled last.
#[derive(Clone, Debug)]
pub(crate) struct Prober {
    socket: Arc<ProbeSocket<CappedSocket>>,
    peers: Arc<Mutex<Vec<SocketAddr>>>,
    thrifty: Arc<AtomicBool>,
}

impl Prober {
    pub(crate) fn new(socket: Arc<ProbeSocket<CappedSocket>>) -> Self {
        Self { socket, peers: Arc::default(), thrifty: Arc::default() }
    }

    /// Whether bytes are dearer than seconds.
    pub(crate) fn set_thrifty(&self, thrifty: bool) {
        self.thrifty.store(thrifty, Relaxed);
    }

    fn probe_every(&self) -> Duration {
        jittered(if self.thrifty.load(Relaxed) { PROBE_EVERY_THRIFTY } else { PROBE_EVERY })
    }

    pub(crate) fn set_peers(&self, peers: &[SocketAddr]) {
        peers.clone_into(&mut self.peers.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub(crate) fn peers(&self) -> Vec<SocketAddr> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns when the way is open: probes until one is answered. Cancel safe.
    pub(crate) async fn open(&self) {
        let mut answers = self.socket.answers();
        answers.mark_unchanged();
        loop {
            for peer in self.peers() {
                self.socket.ask(peer);
            }
            match tokio::time::timeout(self.probe_every(), answers.changed()).await {
                Ok(Ok(())) => return,
                // The socket is gone, and so will be whoever waits.
                Ok(Err(_)) => std::future::pending().await,
                Err(_elapsed) => {}
            }
        }
    }

    /// As [`Prober::open`], for a handshake that is under way: it may be lost packets' turn to be repeated in seconds only.
    pub(crate) async fn open_during_handshake(&self) {
        tokio::time::sleep(SILENCE).await;
        self.open().await;
        tokio::time::sleep(HANDSHAKE_GRACE).await;
    }
}

/// So that a thousand sites do not ask in step.
pub(crate) fn jittered(time: Duration) -> Duration {
    time - jitter(time / 4)
}

/// Something between nothing and `most`.
pub(crate) fn jitter(most: Duration) -> Duration {
    let mut random = [0; 2];
    // Without randomness there is no jitter; nothing else depends on it.
    let share = SystemRandom::new().fill(&mut random).map_or(0.0, |()| f64::from(u16::from_le_bytes(random)) / f64::from(u16::MAX));
    most.mul_f64(share)
}

/// What was heard of a connection, by its counters.
#[derive(Debug)]
struct Heard {
    at: Instant,
    received: u64,
    /// Datagrams sent when the last one was received.
    sent: u64,
}

impl Heard {
    fn new(now: Instant, connection: &Connection) -> Self {
        let stats = connection.stats();
        Self { at: now, received: stats.udp_rx.datagrams, sent: stats.udp_tx.datagrams }
    }

    /// True when something was sent since the peer was heard last, and the answer is overdue: after `silence`, but not before four round trips.
    fn is_overdue(&mut self, now: Instant, connection: &Connection, silence: Duration) -> bool {
        let stats = connection.stats();
        if stats.udp_rx.datagrams != self.received || stats.udp_tx.datagrams == self.sent {
            *self = Self::new(now, connection);
        }
        now.saturating_duration_since(self.at) >= silence.max(4 * connection.rtt())
    }
}

/// Keeps a connection going through outages until it ends. `receive_window` is the one it was opened with.
pub(crate) async fn watch(connection: Connection, prober: Prober, memory: LineMemory, receive_window: u32) {
    let mut heard = Heard::new(Instant::now(), &connection);
    let mut window = receive_window;
    loop {
        tokio::select! {
            _ = connection.closed() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        if !heard.is_overdue(Instant::now(), &connection, SILENCE) {
            continue;
        }
        tokio::select! {
            _ = connection.closed() => return,
            // What the collector repeats may be through first, and says nothing of what we sent.
            () = heard_again(&connection, heard.received) => {}
            () = prober.open() => {}
        }
        tracing::debug!(peer = %connection.remote_address(), "the way to the collector is open again: the connection goes on");
        memory.revive();
        // A window that is larger by a byte has to be told, which wakes the connection and is acknowledged.
        window = window.saturating_add(1);
        connection.set_receive_window(VarInt::from_u32(window));
        heard = Heard::new(Instant::now(), &connection);
    }
}

/// Watches over a connection in a tunnel with `peer` until it ends. After an outage TCP repeats what was lost as late as the outage was long; where another TCP connection is
/// through before that, the stream is given up, and the connection ends as one that was lost.
pub(crate) async fn watch_tunnel(connection: Connection, peer: SocketAddr, tunnels: TunnelDialer, stream: GiveUp) {
    let mut heard = Heard::new(Instant::now(), &connection);
    loop {
        tokio::select! {
            _ = connection.closed() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        if !heard.is_overdue(Instant::now(), &connection, TUNNEL_SILENCE) {
            continue;
        }
        let reached = async {
            tunnels.reach(&[peer]).await;
            tokio::time::sleep(TUNNEL_GRACE + connection.rtt()).await;
        };
        tokio::select! {
            _ = connection.closed() => return,
            () = heard_again(&connection, heard.received) => {}
            () = reached => {
                tracing::debug!(%peer, "TCP reaches the collector again, but not in the old connection: it is given up");
                return stream.give_up();
            }
        }
        heard = Heard::new(Instant::now(), &connection);
    }
}

/// Returns when a datagram beyond `received` has arrived.
async fn heard_again(connection: &Connection, received: u64) {
    while connection.stats().udp_rx.datagrams == received {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
