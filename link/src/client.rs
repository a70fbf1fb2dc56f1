//! The agent's endpoint: one UDP socket, counted and capped, that dials collectors; and tunnels through TCP where UDP is blocked.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use quinn::{
    AsyncUdpSocket, ClientConfig, ConnectError, Connection, ConnectionError, Endpoint, EndpointConfig, Runtime, TokioRuntime,
    crypto::rustls::QuicClientConfig,
};
use ring::rand::{SecureRandom, SystemRandom};
use spillway_proto::CloseCode;
use tokio::{task::JoinSet, time::Instant};

use crate::{
    CappedSocket, Identity, KnownLine, LineEstimate, LineMemory, LinkSettings, MtuDiscovery, Profile, RateCap, SLOW_LINE_BITS,
    WireCounters, identity,
    probe::ProbeSocket,
    tunnel::{Meter, Tunnel, dial::TunnelDialer},
    vigil::{self, Prober},
};

/// Most addresses of one host name that a dial tries. More than a few mean a load balancer's whole list.
const MAX_ADDRESSES: usize = 4;

/// How long an address may keep a dial waiting before the next one of the same name is tried beside it. Above the handshake of a
/// satellite line with a lost packet, so that a good address is not dialled twice over at the line's expense.
const NEXT_ADDRESS_AFTER: Duration = Duration::from_secs(3);

/// Sites whose line came back at the same time dial within so long of each other.
const RETURN_JITTER: Duration = Duration::from_millis(500);

/// What carries a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// QUIC on UDP.
    Udp,
    /// QUIC in a TLS stream over TCP: [`crate::tunnel`].
    Tcp,
}

/// The agent's end of the link. Cheap to use for any number of dials, one after the other; must live in a Tokio runtime.
#[derive(Debug)]
pub struct LinkClient {
    endpoint: Endpoint,
    config: ClientConfig,
    settings: LinkSettings,
    profile: Mutex<Profile>,
    counters: Arc<WireCounters>,
    cap: RateCap,
    memory: LineMemory,
    prober: Prober,
    tunnels: TunnelDialer,
    in_tunnel: AtomicBool,
}

impl LinkClient {
    /// Binds a UDP port of the system's choice, for IPv6 and IPv4, or for IPv4 where there is no IPv6.
    ///
    /// # Errors
    /// When no port can be bound, or TLS refuses the identity.
    pub fn new(identity: &Identity, settings: &LinkSettings, cap: RateCap) -> Result<Self, Error> {
        let tls = QuicClientConfig::try_from(identity.client_config()?).map_err(|_| Error::NoInitialCipherSuite)?;
        let config = ClientConfig::new(Arc::new(tls));
        let memory = LineMemory::default();
        let socket =
            UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).or_else(|_| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))).map_err(Error::Bind)?;
        let runtime = Arc::new(TokioRuntime);
        let socket = CappedSocket::new(runtime.wrap_udp_socket(socket).map_err(Error::Bind)?, cap);
        let (counters, cap) = (socket.counters(), socket.cap());
        let mut token = [0; 16];
        SystemRandom::new().fill(&mut token).map_err(|_| Error::NoRandomness)?;
        let socket = Arc::new(ProbeSocket::asking(socket, token));
        let prober = Prober::new(Arc::clone(&socket));
        let socket: Arc<dyn AsyncUdpSocket> = socket;
        let endpoint = Endpoint::new_with_abstract_socket(EndpointConfig::default(), None, socket, runtime).map_err(Error::Bind)?;
        let tunnels = TunnelDialer::new(identity, Meter { cap: cap.clone(), counters: Arc::clone(&counters) })?;
        let (settings, profile, in_tunnel) = (settings.clone(), Mutex::default(), AtomicBool::new(false));
        Ok(Self { endpoint, config, settings, profile, counters, cap, memory, prober, tunnels, in_tunnel })
    }

    /// Dials `host` over `way` (a name or an IP address; the collector's certificate must carry it), trying its addresses as
    /// [`LinkClient::dial_addresses`] does.
    ///
    /// A finished handshake does not mean that the collector took our certificate: TLS 1.3 lets the client finish first. A refusal
    /// arrives as the [`ConnectionError`] of whatever is awaited next (see [`Connection::closed`]).
    /// Cancel safe: dropping the future gives the attempt up.
    ///
    /// # Errors
    /// The error of the last address tried.
    pub async fn dial(&self, way: Way, host: &str, port: u16) -> Result<Connection, DialError> {
        // A bracketed IPv6 address is how configuration files write it, and not how resolvers or certificates do.
        let host = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        let addresses: Vec<_> = tokio::net::lookup_host((host, port))
            .await
            .map_err(|source| DialError::Resolve { host: host.to_owned(), source })?
            .take(MAX_ADDRESSES)
            .collect();
        if addresses.is_empty() {
            return Err(DialError::NoAddress { host: host.to_owned() });
        }
        self.dial_addresses(way, addresses, host).await
    }

    /// Dials the addresses one after the other; `name` is what the collector's certificate must carry.
    ///
    /// A failed address is followed by the next at once, a silent one after 3 s; the first finished handshake wins and the other
    /// attempts are given up.
    ///
    /// # Errors
    /// The last error, when every handshake failed or took longer than [`LinkSettings::handshake_timeout`].
    pub async fn dial_addresses(&self, way: Way, addresses: Vec<SocketAddr>, name: &str) -> Result<Connection, DialError> {
        self.prober.set_peers(&addresses);
        let mut waiting = addresses.into_iter();
        let mut attempts = JoinSet::new();
        let mut last = DialError::NoAddress { host: name.to_owned() };
        loop {
            if let Some(address) = waiting.next() {
                match way {
                    Way::Udp => attempts.spawn(self.attempt(address, name.to_owned())),
                    Way::Tcp => attempts.spawn(self.attempt_tunnel(address, name.to_owned())),
                };
            }
            tokio::select! {
                Some(attempt) = attempts.join_next() => match attempt {
                    Ok(Ok((connection, tunnel))) => {
                        self.prober.set_peers(&[connection.remote_address()]);
                        self.in_tunnel.store(tunnel.is_some(), Relaxed);
                        match tunnel {
                            // An answered probe says nothing of TCP.
                            Some(tunnel) => {
                                let stream = self.tunnels.adopt(connection.clone(), tunnel);
                                let peer = connection.remote_address();
                                tokio::spawn(vigil::watch_tunnel(connection.clone(), peer, self.tunnels.clone(), stream));
                            }
                            None => self.watch(&connection),
                        }
                        return Ok(connection);
                    }
                    Ok(Err(error)) => last = error,
                    Err(panicked) => tracing::error!(%panicked, "dialling failed"),
                },
                () = tokio::time::sleep(NEXT_ADDRESS_AFTER), if waiting.len() > 0 => {}
                else => return Err(last),
            }
        }
    }

    fn watch(&self, connection: &Connection) {
        tokio::spawn(vigil::watch(connection.clone(), self.prober.clone(), self.memory.clone(), self.settings.receive_window));
    }

    fn attempt_tunnel(&self, address: SocketAddr, name: String) -> impl Future<Output = Attempt> + Send + use<> {
        let (tunnels, mut config, settings) = (self.tunnels.clone(), self.config.clone(), self.settings_now());
        config.transport_config(settings.tunnel_transport(&tunnels.memory));
        async move {
            let (connection, tunnel) = tunnels.connect(config, address, &name, settings.handshake_timeout).await?;
            Ok((connection, Some(tunnel)))
        }
    }

    fn attempt(&self, address: SocketAddr, name: String) -> impl Future<Output = Attempt> + Send + use<> {
        let (endpoint, mut config, handshake_timeout) = (self.endpoint.clone(), self.config.clone(), self.settings.handshake_timeout);
        config.transport_config(self.settings_now().transport(&self.memory));
        let prober = self.prober.clone();
        async move {
            let began = Instant::now();
            let connect = || endpoint.connect_with(config.clone(), address, &name).map_err(|source| DialError::Connect { address, source });
            let handshake = |source| DialError::Handshake { address, source };
            let connecting = connect()?;
            tokio::pin!(connecting);
            tokio::select! {
                done = tokio::time::timeout(handshake_timeout, &mut connecting) => {
                    return done.unwrap_or(Err(ConnectionError::TimedOut)).map(over_udp).map_err(handshake);
                }
                // Once: a collector that answers probes and no handshakes is not to be asked more for it.
                () = prober.open_during_handshake() => connecting.set(connect()?),
            }
            let left = handshake_timeout.saturating_sub(began.elapsed());
            tokio::time::timeout(left, connecting).await.unwrap_or(Err(ConnectionError::TimedOut)).map(over_udp).map_err(handshake)
        }
    }

    /// What a connection that is made now is made with.
    fn settings_now(&self) -> LinkSettings {
        let mut settings = self.settings.clone();
        // What is large beside what the line carries in 10 s makes a cap coarse, and its probes are dear.
        if self.cap.rate().is_some_and(|rate| rate.bits_per_second() <= SLOW_LINE_BITS) {
            settings.mtu_discovery = MtuDiscovery::Never;
        }
        settings.of_profile(*self.profile())
    }

    /// Waits for `pause`, or until the way to the addresses that were dialled last is open; then for a little jitter, as others wait for the same.
    /// For pauses after an attempt that got no answer. With `over_tcp` TCP is asked for as well. Answers which way is open, if that is known. Cancel safe.
    pub async fn wait(&self, pause: Duration, over_tcp: bool) -> Option<Way> {
        let began = Instant::now();
        let open = tokio::select! {
            biased;
            () = self.udp_open() => Way::Udp,
            () = self.tcp_open(), if over_tcp => Way::Tcp,
            () = tokio::time::sleep(pause) => return None,
        };
        let left = pause.saturating_sub(began.elapsed());
        tokio::time::sleep(left.min(vigil::jitter(RETURN_JITTER))).await;
        Some(open)
    }

    /// Returns when UDP reaches one of the addresses that were dialled last, over whichever way: probes until one is answered. Cancel safe.
    pub async fn udp_open(&self) {
        self.prober.open().await;
    }

    /// Returns when TCP reaches one of the addresses that were dialled last, over whichever way: tries until it does. Cancel safe.
    pub async fn tcp_open(&self) {
        self.tunnels.reach(&self.prober.peers()).await;
    }

    /// Bytes on the wire, of all connections together.
    pub fn counters(&self) -> Arc<WireCounters> {
        Arc::clone(&self.counters)
    }

    /// The handle that replaces the cap on bytes sent.
    pub fn cap(&self) -> RateCap {
        self.cap.clone()
    }

    /// Connections from now on are made for a line that is paid so: [`LinkSettings::of_profile`].
    pub fn set_profile(&self, profile: Profile) {
        *self.profile() = profile;
        self.prober.set_thrifty(profile != Profile::Normal);
    }

    fn profile(&self) -> MutexGuard<'_, Profile> {
        // Nothing that can panic runs under the lock.
        self.profile.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the line delivers and how long it is, by the last connection that filled it; `None` before, and with another congestion control than ours.
    pub fn line(&self) -> Option<LineEstimate> {
        if self.in_tunnel.load(Relaxed) { self.tunnels.memory.line() } else { self.memory.line() }
    }

    /// What is known of the line over UDP, for the next process.
    pub fn known_line(&self) -> KnownLine {
        self.memory.known()
    }

    /// Begins with what an earlier process knew of the line, before the first dial: its rate and round trip, as after a reconnect, and the path MTU where the profile
    /// has that looked for once only. What no line has is left out.
    pub fn recall_line(&self, known: KnownLine) {
        self.memory.recall(known);
    }

    /// The UDP port we dial from.
    ///
    /// # Errors
    /// What the system says when it cannot tell.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// Closes every connection with `code` and waits, at most `deadline`, until the peers have heard of it.
    pub async fn shutdown(&self, code: CloseCode, deadline: Duration) {
        self.endpoint.close(code.code().into(), code.as_str().as_bytes());
        let all_idle = async { tokio::join!(self.endpoint.wait_idle(), self.tunnels.shutdown(code)) };
        if tokio::time::timeout(deadline, all_idle).await.is_err() {
            tracing::debug!(?deadline, "left without the peer's confirmation of the close");
        }
    }
}

/// A connection, and its tunnel if it is in one.
type Attempt = Result<(Connection, Option<Tunnel>), DialError>;

fn over_udp(connection: Connection) -> (Connection, Option<Tunnel>) {
    (connection, None)
}

/// Why there is no endpoint.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The identity cannot be used for TLS.
    #[error(transparent)]
    Identity(#[from] identity::Error),
    /// No UDP socket.
    #[error("cannot open a UDP socket to dial from")]
    Bind(#[source] io::Error),
    /// The system has no random numbers.
    #[error("the system gives no random numbers")]
    NoRandomness,
    /// The crypto provider lacks what QUIC's first packets are protected with.
    #[error("TLS lacks the cipher suite AES-128-GCM-SHA256, which QUIC begins with")]
    NoInitialCipherSuite,
}

/// Why a dial failed. [`DialError::explain`] says what to do.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The name is not known, or the resolver is not reached.
    #[error("cannot resolve {host}")]
    Resolve {
        /// The host as configured.
        host: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// The name is known and has no address.
    #[error("{host} has no address")]
    NoAddress {
        /// The host as configured.
        host: String,
    },
    /// The attempt could not begin.
    #[error("cannot dial {address}")]
    Connect {
        /// Where to.
        address: SocketAddr,
        /// What quinn said.
        source: ConnectError,
    },
    /// No TCP connection, or no TLS on it.
    #[error("no TLS over TCP with {address}")]
    Tcp {
        /// Where to.
        address: SocketAddr,
        /// What the system, or rustls within it, said.
        source: io::Error,
    },
    /// The handshake failed.
    #[error("no connection with {address}")]
    Handshake {
        /// Where to.
        address: SocketAddr,
        /// What happened.
        source: ConnectionError,
    },
}
