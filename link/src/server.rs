//! The collector's endpoint: accepts sites that prove a certificate of the CA, over UDP and in tunnels, and sheds load before it costs anything.

use std::{
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
    sync::Arc,
    time::Duration,
};

use quinn::{AsyncUdpSocket, Endpoint, EndpointConfig, Incoming, Runtime, ServerConfig, TokioRuntime, crypto::rustls::QuicServerConfig};
use quinn_proto::{ConnectionIdGenerator, HashedConnectionIdGenerator};
use ring::hmac;
use spillway_proto::CloseCode;

use crate::{
    CappedSocket, Identity, LineMemory, LinkSettings, RateCap, WireCounters, identity,
    probe::ProbeSocket,
    tunnel::{
        Meter,
        listen::{Limits, Tunnels},
    },
};

/// Most handshakes that wait to be accepted; quinn refuses more. Each holds its first packets, bounded by the next constant.
const MAX_INCOMING: usize = 1024;

/// Most bytes that all waiting handshakes hold together.
const MAX_INCOMING_BYTES: u64 = 16 * 1024 * 1024;

/// Most bytes that one waiting handshake holds: a client hello and its retransmissions.
const MAX_INCOMING_BYTES_EACH: u64 = 64 * 1024;

/// How often a port is chosen that is free for UDP and TCP.
const PORT_TRIES: u32 = 16;

/// The collector's end of the link. Must live in a Tokio runtime.
#[derive(Debug)]
pub struct LinkServer {
    endpoint: Endpoint,
    counters: Arc<WireCounters>,
    /// For the connections in tunnels.
    config: ServerConfig,
    handshake_timeout: Duration,
    tunnels: Option<Tunnels>,
}

impl LinkServer {
    /// Binds `address` (`[::]` serves IPv4 as well, where the system has dual-stack sockets).
    ///
    /// After a restart on the same address and key, agents of the process before learn at their next packet that their connection
    /// is gone (a stateless reset), instead of waiting out the idle timeout.
    ///
    /// # Errors
    /// When the port cannot be bound, or TLS refuses the identity.
    pub fn bind(address: SocketAddr, identity: &Identity, settings: &LinkSettings) -> Result<Self, Error> {
        let tls = QuicServerConfig::try_from(identity.server_config()?).map_err(|_| Error::NoInitialCipherSuite)?;
        let mut config = ServerConfig::with_crypto(Arc::new(tls));
        config
            .transport_config(settings.transport(&LineMemory::default()))
            .max_incoming(MAX_INCOMING)
            .incoming_buffer_size(MAX_INCOMING_BYTES_EACH)
            .incoming_buffer_size_total(MAX_INCOMING_BYTES);

        let bind = |source| Error::Bind { address, source };
        let socket = UdpSocket::bind(address).map_err(bind)?;
        let runtime = Arc::new(TokioRuntime);
        // No cap here: the collector sends little, and each agent caps its own side of the line.
        let socket = CappedSocket::new(runtime.wrap_udp_socket(socket).map_err(bind)?, RateCap::new(None));
        let counters = socket.counters();
        let socket: Arc<dyn AsyncUdpSocket> = Arc::new(ProbeSocket::answering(socket));
        let endpoint = Endpoint::new_with_abstract_socket(restartable(identity), Some(config.clone()), socket, runtime).map_err(bind)?;
        config.transport_config(settings.tunnel_transport(&LineMemory::default()));
        Ok(Self { endpoint, counters, config, handshake_timeout: settings.handshake_timeout, tunnels: None })
    }

    /// As [`LinkServer::bind`], and takes tunnels ([`crate::tunnel`]) as well, on the TCP port of the same number: at most `tunnels`. Their connections come out of
    /// [`LinkServer::accept`] as the others do.
    ///
    /// # Errors
    /// As [`LinkServer::bind`], and when the TCP port cannot be bound.
    pub fn bind_both(address: SocketAddr, identity: &Identity, settings: &LinkSettings, tunnels: usize) -> Result<Self, Error> {
        // A UDP port of the system's choice may be somebody else's for TCP.
        let mut tries = if address.port() == 0 { PORT_TRIES } else { 1 };
        loop {
            let mut server = Self::bind(address, identity, settings)?;
            tries -= 1;
            match server.listen_tcp(identity, tunnels) {
                Ok(()) => return Ok(server),
                Err(Error::BindTcp { .. }) if tries > 0 => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn listen_tcp(&mut self, identity: &Identity, most: usize) -> Result<(), Error> {
        let address = self.endpoint.local_addr().map_err(Error::Address)?;
        let bind = |source| Error::BindTcp { address, source };
        let listener = TcpListener::bind(address).map_err(bind)?;
        listener.set_nonblocking(true).map_err(bind)?;
        let listener = tokio::net::TcpListener::from_std(listener).map_err(bind)?;
        let meter = Meter { cap: RateCap::new(None), counters: self.counters() };
        let limits = Limits { tunnels: most, handshake_timeout: self.handshake_timeout };
        self.tunnels = Some(Tunnels::listen(listener, identity, self.config.clone(), meter, limits)?);
        Ok(())
    }

    /// The next peer that wants in; `None` once [`LinkServer::shutdown`] was called. Cancel safe.
    ///
    /// Decide with [`admit`], then await the connection in a task of its own under [`LinkSettings::handshake_timeout`].
    pub async fn accept(&self) -> Option<Incoming> {
        let Some(tunnels) = &self.tunnels else { return self.endpoint.accept().await };
        tokio::select! {
            incoming = self.endpoint.accept() => incoming,
            Some(incoming) = tunnels.accept() => Some(incoming),
        }
    }

    /// Connections that exist now, with those still in their handshake, over UDP and in tunnels.
    pub fn open_connections(&self) -> usize {
        self.endpoint.open_connections() + self.tunnels.as_ref().map_or(0, Tunnels::open_connections)
    }

    /// Tunnels that exist now.
    pub fn tunnels(&self) -> usize {
        self.tunnels.as_ref().map_or(0, Tunnels::open)
    }

    /// Bytes on the wire, of all sites together.
    pub fn counters(&self) -> Arc<WireCounters> {
        Arc::clone(&self.counters)
    }

    /// The address that is served, with the port that the system chose if 0 was asked for.
    ///
    /// # Errors
    /// What the system says when it cannot tell.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// Takes no more connections from now on; those that exist go on.
    pub fn stop_accepting(&self) {
        self.endpoint.set_server_config(None);
        if let Some(tunnels) = &self.tunnels {
            tunnels.stop_accepting();
        }
    }

    /// Closes every connection with `code` and waits, at most `deadline`, until the peers have heard of it.
    pub async fn shutdown(&self, code: CloseCode, deadline: Duration) {
        self.endpoint.close(code.code().into(), code.as_str().as_bytes());
        let tunnels_closed = async {
            if let Some(tunnels) = &self.tunnels {
                tunnels.shutdown(code).await;
            }
        };
        let all_idle = async { tokio::join!(self.endpoint.wait_idle(), tunnels_closed) };
        if tokio::time::timeout(deadline, all_idle).await.is_err() {
            tracing::debug!(?deadline, "left without every site's confirmation of the close");
        }
    }
}

/// What to do with a peer that knocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Begin the handshake: [`Incoming::accept`].
    Accept,
    /// Let it prove first that its address is its own: [`Incoming::retry`]. Costs it a round trip and us no memory.
    Retry,
    /// No room: [`Incoming::refuse`]. The agent reads it as "too many connections".
    Refuse,
}

/// How many may come in.
#[derive(Clone, Copy, Debug)]
pub struct AdmissionLimits {
    /// Most connections, with those in their handshake.
    pub max_connections: usize,
    /// From so many handshakes at once on, addresses must be proved: by then it may be a flood from forged addresses.
    pub retry_from_handshakes: usize,
}

/// Decides on a peer that knocks. `open` counts connections with those in their `handshakes`; `validated` is
/// [`Incoming::remote_address_validated`].
pub fn admit(open: usize, handshakes: usize, validated: bool, limits: AdmissionLimits) -> Admission {
    if open >= limits.max_connections {
        Admission::Refuse
    } else if !validated && handshakes >= limits.retry_from_handshakes {
        Admission::Retry
    } else {
        Admission::Accept
    }
}

/// Why there is no endpoint.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The identity cannot be used for TLS.
    #[error(transparent)]
    Identity(#[from] identity::Error),
    /// The UDP port cannot be had.
    #[error("cannot listen on udp {address} (listen.address)")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The TCP port cannot be had.
    #[error("cannot listen on tcp {address} (listen.address); if something else needs that port, set listen.tcp = false")]
    BindTcp {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The system does not say where we listen.
    #[error("the listening address is unknown")]
    Address(#[source] io::Error),
    /// The crypto provider lacks what QUIC's first packets are protected with.
    #[error("TLS lacks the cipher suite AES-128-GCM-SHA256, which QUIC begins with")]
    NoInitialCipherSuite,
}

/// Least time between two stateless resets. quinn's default of 20 ms would answer fifty sites a second after a restart, and those that
/// are sending ask again and again; a reset is smaller than the packet that it answers, so it cannot be used to amplify.
const RESET_EVERY: Duration = Duration::from_millis(1);

/// Keys for stateless resets and connection ids that are the same after a restart: derived from our private key, so that nobody
/// else can forge a reset, and nothing has to be stored.
fn restartable(identity: &Identity) -> EndpointConfig {
    let secret = hmac::Key::new(hmac::HMAC_SHA256, identity.secret());
    let reset = hmac::sign(&secret, b"spillway quic stateless reset");
    let ids = hmac::sign(&secret, b"spillway quic connection ids");
    let mut id_key = [0; 8];
    for (to, from) in id_key.iter_mut().zip(ids.as_ref()) {
        *to = *from;
    }
    let id_key = u64::from_le_bytes(id_key);
    let mut config = EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, reset.as_ref())));
    config.min_reset_interval(RESET_EVERY);
    config.cid_generator(move || -> Box<dyn ConnectionIdGenerator> { Box::new(HashedConnectionIdGenerator::from_key(id_key)) });
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn load_is_shed_before_it_costs_memory() {
        let limits = AdmissionLimits { max_connections: 10, retry_from_handshakes: 4 };
        assert_eq!(admit(0, 0, false, limits), Admission::Accept);
        assert_eq!(admit(9, 3, false, limits), Admission::Accept);
        assert_eq!(admit(9, 4, false, limits), Admission::Retry);
        assert_eq!(admit(9, 4, true, limits), Admission::Accept);
        assert_eq!(admit(10, 0, true, limits), Admission::Refuse);
        assert_eq!(admit(10, 9, false, limits), Admission::Refuse);
    }
}
