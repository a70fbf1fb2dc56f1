//! The collector's side of tunnels: a TCP listener beside the UDP socket.
//!
//! Whoever connects has proved nothing yet: handshakes under way are few, fewer still from one address, and short. Who has got through TLS has a site's certificate.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use quinn::{Endpoint, Incoming, ServerConfig};
use spillway_proto::CloseCode;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::{AbortHandle, JoinSet},
    time::{Instant, timeout},
};
use tokio_rustls::TlsAcceptor;

use super::{Ends, Meter, TUNNEL_ALPN, Tunnel};
use crate::{Identity, identity};

/// Most TLS handshakes under way. Each holds a socket and some 30 KiB.
const MAX_HANDSHAKES: usize = 256;

/// Of them, most from one address: a few sites behind one NAT at the same moment, and not everybody's room.
const MAX_HANDSHAKES_EACH: usize = 16;

/// Most QUIC handshakes that a tunnel may begin: one, and the one that follows a retry. Nobody needs more, since a lost connection is dialled in a new tunnel.
const MAX_INCOMING_EACH: usize = 4;

/// Connections that wait to be accepted.
const MAX_WAITING: usize = 64;

/// How often a tunnel is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Pause when the system has no more sockets.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How many tunnels, and how long they may take to become a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Most tunnels.
    pub(crate) tunnels: usize,
    /// For the TLS handshake; and, after it, for a tunnel without a connection.
    pub(crate) handshake_timeout: Duration,
}

/// The listener and its tunnels. Dropping it ends all of them.
#[derive(Debug)]
pub(crate) struct Tunnels {
    shared: Arc<Shared>,
    incoming: tokio::sync::Mutex<mpsc::Receiver<Incoming>>,
    listening: AbortHandle,
}

struct Shared {
    tls: TlsAcceptor,
    config: ServerConfig,
    meter: Meter,
    limits: Limits,
    books: Mutex<Books>,
    waiting: mpsc::Sender<Incoming>,
}

/// Who is there.
#[derive(Debug, Default)]
struct Books {
    handshakes: HashMap<IpAddr, usize>,
    endpoints: HashMap<u64, Endpoint>,
    next: u64,
}

impl Tunnels {
    /// Serves `listener`. `config` is that of the connections inside.
    pub(crate) fn listen(
        listener: TcpListener,
        identity: &Identity,
        config: ServerConfig,
        meter: Meter,
        limits: Limits,
    ) -> Result<Self, identity::Error> {
        let mut config = config;
        config.max_incoming(MAX_INCOMING_EACH);
        let mut tls = identity.server_config()?;
        tls.alpn_protocols = vec![TUNNEL_ALPN.to_vec()];
        let (waiting, incoming) = mpsc::channel(MAX_WAITING);
        let shared = Arc::new(Shared { tls: Arc::new(tls).into(), config, meter, limits, books: Mutex::default(), waiting });
        let listening = tokio::spawn(listen(listener, Arc::clone(&shared))).abort_handle();
        Ok(Self { shared, incoming: incoming.into(), listening })
    }

    /// The next peer that wants in; never `None`, since the listener holds the queue. Cancel safe.
    pub(crate) async fn accept(&self) -> Option<Incoming> {
        self.incoming.lock().await.recv().await
    }

    /// Tunnels that exist.
    pub(crate) fn open(&self) -> usize {
        self.shared.books().endpoints.len()
    }

    /// Connections in them.
    pub(crate) fn open_connections(&self) -> usize {
        self.shared.books().endpoints.values().map(Endpoint::open_connections).sum()
    }

    pub(crate) fn stop_accepting(&self) {
        self.listening.abort();
    }

    /// Closes every connection and waits until the peers have heard of it.
    pub(crate) async fn shutdown(&self, code: CloseCode) {
        self.stop_accepting();
        let endpoints: Vec<_> = self.shared.books().endpoints.values().cloned().collect();
        for endpoint in &endpoints {
            endpoint.close(code.code().into(), code.as_str().as_bytes());
        }
        for endpoint in endpoints {
            endpoint.wait_idle().await;
        }
    }
}

impl Drop for Tunnels {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("limits", &self.limits).field("books", &self.books).finish_non_exhaustive()
    }
}

impl Shared {
    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place among the handshakes.
struct Place {
    shared: Arc<Shared>,
    address: IpAddr,
}

impl Place {
    fn take(shared: &Arc<Shared>, peer: SocketAddr) -> Option<Self> {
        let (address, mut books) = (peer.ip().to_canonical(), shared.books());
        let (all, each) = (books.handshakes.values().sum::<usize>(), books.handshakes.get(&address).copied().unwrap_or(0));
        // Those under way will be tunnels.
        if all >= MAX_HANDSHAKES || each >= MAX_HANDSHAKES_EACH || books.endpoints.len() + all >= shared.limits.tunnels {
            return None;
        }
        books.handshakes.insert(address, each + 1);
        Some(Self { shared: Arc::clone(shared), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut books = self.shared.books();
        let left = books.handshakes.get(&self.address).copied().unwrap_or(0).saturating_sub(1);
        if left == 0 {
            books.handshakes.remove(&self.address);
        } else {
            books.handshakes.insert(self.address, left);
        }
    }
}

/// A place among the tunnels.
struct Entry {
    shared: Arc<Shared>,
    key: u64,
}

impl Entry {
    fn new(shared: &Arc<Shared>, endpoint: &Endpoint) -> Self {
        let mut books = shared.books();
        let key = books.next;
        books.next += 1;
        books.endpoints.insert(key, endpoint.clone());
        Self { shared: Arc::clone(shared), key }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.shared.books().endpoints.remove(&self.key);
    }
}

async fn listen(listener: TcpListener, shared: Arc<Shared>) {
    // Handshakes end with the listener; a tunnel lives on in a task of its own.
    let mut handshakes = JoinSet::new();
    loop {
        let (tcp, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "no TCP connection is accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        while handshakes.try_join_next().is_some() {}
        let Some(place) = Place::take(&shared, peer) else {
            tracing::debug!(%peer, "no room for another tunnel");
            continue;
        };
        let shared = Arc::clone(&shared);
        handshakes.spawn(async move {
            match timeout(shared.limits.handshake_timeout, open(&shared, tcp, peer)).await {
                Ok(Ok((tunnel, entry))) => _ = tokio::spawn(serve(tunnel, entry)),
                Ok(Err(error)) => tracing::debug!(%peer, %error, "a tunnel is not opened"),
                Err(_elapsed) => tracing::debug!(%peer, "no TLS handshake in time on TCP"),
            }
            drop(place);
        });
    }
}

async fn open(shared: &Arc<Shared>, tcp: TcpStream, peer: SocketAddr) -> io::Result<(Tunnel, Entry)> {
    tcp.set_nodelay(true)?;
    let ends = Ends { local: tcp.local_addr()?, peer };
    shared.meter.counters.tunnel_opened();
    let stream = shared.tls.accept(tcp).await?;
    let tunnel = Tunnel::new(stream, ends, Some(shared.config.clone()), &shared.meter)?;
    let entry = Entry::new(shared, &tunnel.endpoint);
    Ok((tunnel, entry))
}

/// Hands a tunnel's connections on, and ends it when it has none for too long.
async fn serve(mut tunnel: Tunnel, entry: Entry) {
    let (shared, mut idle_since, mut begun) = (Arc::clone(&entry.shared), Instant::now(), 0);
    loop {
        tokio::select! {
            () = tunnel.ended.wait() => {
                tracing::debug!(reason = %tunnel.ended.take_why(), "a tunnel's stream has ended");
                return;
            }
            incoming = tunnel.endpoint.accept() => match incoming {
                Some(incoming) if begun < MAX_INCOMING_EACH => {
                    begun += 1;
                    if shared.waiting.send(incoming).await.is_err() {
                        return;
                    }
                }
                Some(incoming) => incoming.refuse(),
                None => return tunnel.endpoint.wait_idle().await,
            },
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        if tunnel.endpoint.open_connections() > 0 {
            idle_since = Instant::now();
        } else if idle_since.elapsed() >= shared.limits.handshake_timeout {
            return;
        }
    }
}
