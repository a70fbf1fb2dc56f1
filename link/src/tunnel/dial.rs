//! The agent's side of a tunnel.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use quinn::{ClientConfig, Connection, ConnectionError, Endpoint};
use rustls_pki_types::ServerName;
use spillway_proto::CloseCode;
use tokio_rustls::TlsConnector;

use super::{Ends, GiveUp, Meter, TUNNEL_ALPN, Tunnel, reach::Reached};
use crate::{Identity, LineMemory, client::DialError, identity, socket::TUNNEL_HANDSHAKE_BYTES};

/// A connection, and the tunnel that it is in.
pub(crate) type Dialled = (Connection, Tunnel);

/// Dials through TCP. Clones share the endpoint that is in use.
#[derive(Clone)]
pub(crate) struct TunnelDialer {
    tls: TlsConnector,
    pub(super) meter: Meter,
    /// Of the line as TCP makes it: another one than that of UDP.
    pub(crate) memory: LineMemory,
    held: Arc<Mutex<Option<Held>>>,
    next_key: Arc<AtomicU64>,
    reached: Arc<Mutex<Option<Reached>>>,
}

/// The tunnel in use, or the last one.
#[derive(Debug)]
struct Held {
    key: u64,
    endpoint: Option<Endpoint>,
    /// Once a stream has ended, quinn takes the last handle but one that is dropped for the last, and the end for one of our own making.
    _connection: Connection,
}

impl std::fmt::Debug for TunnelDialer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TunnelDialer").field("held", &self.held).finish_non_exhaustive()
    }
}

impl TunnelDialer {
    pub(crate) fn new(identity: &Identity, meter: Meter) -> Result<Self, identity::Error> {
        let mut tls = identity.client_config()?;
        tls.alpn_protocols = vec![TUNNEL_ALPN.to_vec()];
        let tls = Arc::new(tls).into();
        Ok(Self { tls, meter, memory: LineMemory::default(), held: Arc::default(), next_key: Arc::default(), reached: Arc::default() })
    }

    /// One attempt: TCP, TLS, and QUIC inside, together within `timeout`. `name` is what the collector's certificate must carry. Cancel safe: dropping the future gives the
    /// attempt up.
    pub(crate) async fn connect(
        &self,
        config: ClientConfig,
        address: SocketAddr,
        name: &str,
        timeout: Duration,
    ) -> Result<Dialled, DialError> {
        let attempt = Box::pin(self.attempt(config, address, name));
        let timed_out = DialError::Tcp { address, source: std::io::ErrorKind::TimedOut.into() };
        tokio::time::timeout(timeout, attempt).await.unwrap_or(Err(timed_out))
    }

    async fn attempt(&self, config: ClientConfig, address: SocketAddr, name: &str) -> Result<Dialled, DialError> {
        let tcp_failed = |source| DialError::Tcp { address, source };
        let server = ServerName::try_from(name.to_owned())
            .map_err(|_| DialError::Connect { address, source: quinn::ConnectError::InvalidServerName(name.to_owned()) })?;
        self.meter.cap.wait_for(TUNNEL_HANDSHAKE_BYTES).await;
        self.meter.cap.received(TUNNEL_HANDSHAKE_BYTES.into());
        self.meter.counters.tunnel_opened();
        let tcp = self.tcp(address).await.map_err(tcp_failed)?;
        tcp.set_nodelay(true).map_err(tcp_failed)?;
        let ends = Ends { local: tcp.local_addr().map_err(tcp_failed)?, peer: tcp.peer_addr().map_err(tcp_failed)? };
        let stream = self.tls.connect(server, tcp).await.map_err(tcp_failed)?;
        let Tunnel { endpoint, mut ended, end } = Tunnel::new(stream, ends, None, &self.meter).map_err(tcp_failed)?;
        let connecting = endpoint.connect_with(config, ends.peer, name).map_err(|source| DialError::Connect { address, source })?;
        let connection = tokio::select! {
            // The collector looks at our certificate when our side of TLS is done: its refusal is the end of the stream, and says more than QUIC's.
            biased;
            () = ended.wait() => return Err(tcp_failed(ended.take_why())),
            connected = connecting => connected.map_err(|source: ConnectionError| DialError::Handshake { address, source })?,
        };
        Ok((connection, Tunnel { endpoint, ended, end }))
    }

    /// The attempt that won. Its endpoint is kept as long as its connection lives: then the TCP connection goes as well.
    /// Answers what ends it before that.
    pub(crate) fn adopt(&self, connection: Connection, tunnel: Tunnel) -> GiveUp {
        let Tunnel { endpoint, mut ended, end } = tunnel;
        let key = self.next_key.fetch_add(1, Relaxed);
        *self.slot() = Some(Held { key, endpoint: Some(endpoint.clone()), _connection: connection });
        let dialer = self.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = endpoint.wait_idle() => {}
                () = ended.wait() => {}
            }
            if let Some(held) = dialer.slot().as_mut().filter(|held| held.key == key) {
                held.endpoint = None;
            }
        });
        GiveUp(end)
    }

    pub(super) fn reached(&self) -> MutexGuard<'_, Option<Reached>> {
        self.reached.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn slot(&self) -> MutexGuard<'_, Option<Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes what is open, and waits until the peer has heard of it.
    pub(crate) async fn shutdown(&self, code: CloseCode) {
        let endpoint = self.slot().take().and_then(|held| held.endpoint);
        if let Some(endpoint) = endpoint {
            endpoint.close(code.code().into(), code.as_str().as_bytes());
            endpoint.wait_idle().await;
        }
    }
}
