//! A tunnel: QUIC's datagrams inside one TLS stream over TCP, for lines that let no UDP through.
//!
//! Nothing above the socket knows of it: connections, streams and certificates are those of the UDP link, and QUIC's own TLS runs inside. The outer TLS has the same
//! identities on both sides, so nobody gets a tunnel who could not get a connection.
//!
//! ```text
//! TLS 1.3, ALPN "spillway-tcp/1", both sides with their certificates; then in each direction any number of
//! u16 big endian    length of the datagram, 1 to 1472
//! u8 ×length        the datagram, a UDP payload of QUIC
//! ```
//! A length beyond the bounds ends the stream. A stream that ends, ends the connection in it as a lost one.
//!
//! | module | what it is for |
//! |---|---|
//! | `dial` | the agent's side: from an address to an endpoint |
//! | `listen` | the collector's side: a TCP listener, bounded, whose tunnels' connections come in as those of UDP |
//! | `pipe` | the two tasks that carry datagrams between the queues and the stream |
//! | `outbox` | datagrams that wait for the stream |
//! | `reach` | whether TCP reaches the collector |

pub(crate) mod dial;
pub(crate) mod listen;
mod outbox;
mod pipe;
mod reach;

use std::{
    fmt,
    io::{self, IoSliceMut},
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use quinn::{
    AsyncTimer, AsyncUdpSocket, Endpoint, EndpointConfig, Runtime, ServerConfig, TokioRuntime, UdpPoller,
    udp::{RecvMeta, Transmit},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{mpsc, watch},
    task::AbortHandle,
    time::Instant,
};

use crate::{CappedSocket, RateCap, WireCounters, socket::Carrier};
use outbox::Outbox;

/// The application protocol that both ends offer in the outer TLS. A version of its own: what is inside has [`crate::ALPN`].
pub const TUNNEL_ALPN: &[u8] = b"spillway-tcp/1";

/// Longest datagram: quinn's own bound for a UDP payload, and more than either side sends.
pub const MAX_TUNNEL_DATAGRAM_BYTES: usize = 1472;

/// UDP payload of QUIC in a tunnel: with its length, the frame of TLS and the headers of TCP over IPv6 it fits a packet of 1500 bytes.
pub(crate) const TUNNEL_MTU: u16 = 1400;

/// Datagrams received and not yet taken by QUIC. Full: the stream is not read, and TCP holds the peer back.
const MAX_RECEIVED: usize = 64;

/// The two ends of the TCP connection below a tunnel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ends {
    pub(crate) local: SocketAddr,
    pub(crate) peer: SocketAddr,
}

/// What all sockets of one end share: the cap, and the count of what crosses the wire.
#[derive(Clone, Debug)]
pub(crate) struct Meter {
    pub(crate) cap: RateCap,
    pub(crate) counters: Arc<WireCounters>,
}

/// An endpoint inside a stream. Its connections end when the stream does; the stream ends when the endpoint and its connections are gone.
pub(crate) struct Tunnel {
    pub(crate) endpoint: Endpoint,
    pub(crate) ended: Ended,
    end: watch::Sender<bool>,
}

impl Tunnel {
    /// Builds an endpoint on `stream`, which has its TLS handshake behind it; with `server` it takes connections.
    pub(crate) fn new<S>(stream: S, ends: Ends, server: Option<ServerConfig>, meter: &Meter) -> io::Result<Self>
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (read, write) = tokio::io::split(stream);
        let (tell, ended) = watch::channel(false);
        let ended = Ended { over: ended, why: Arc::default() };
        let (outbox, (arrived, received)) = (Arc::new(Outbox::default()), mpsc::channel(MAX_RECEIVED));
        tokio::spawn(pipe::write(write, Arc::clone(&outbox), tell.clone()));
        let reader = tokio::spawn(pipe::read(read, arrived, tell.clone(), Arc::clone(&ended.why))).abort_handle();
        let socket = TunnelSocket { ends, outbox, received: Mutex::new(received), reader };
        let socket = CappedSocket::sharing(Arc::new(socket), meter.cap.clone(), Arc::clone(&meter.counters), Carrier::Tunnel);
        let runtime = Arc::new(TunnelRuntime { over: ended.over.clone(), driver_runs: AtomicBool::new(false) });
        let endpoint = Endpoint::new_with_abstract_socket(EndpointConfig::default(), server, Arc::new(socket), runtime)?;
        Ok(Self { endpoint, ended, end: tell })
    }
}

/// Ends a stream of which nothing is to be expected.
#[derive(Clone, Debug)]
pub(crate) struct GiveUp(watch::Sender<bool>);

impl GiveUp {
    pub(crate) fn give_up(&self) {
        self.0.send_replace(true);
    }
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

/// Whether and why the stream has ended.
#[derive(Clone, Debug)]
pub(crate) struct Ended {
    over: watch::Receiver<bool>,
    why: Arc<Mutex<Option<io::Error>>>,
}

impl Ended {
    /// Returns when the stream has ended. Cancel safe.
    pub(crate) async fn wait(&mut self) {
        // An error means that both tasks are gone, which is an end as well.
        drop(self.over.wait_for(|over| *over).await);
    }

    /// What the system or TLS said; once.
    pub(crate) fn take_why(&self) -> io::Error {
        let why = self.why.lock().unwrap_or_else(PoisonError::into_inner).take();
        why.unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

/// A stream that quinn takes for a UDP socket with one peer.
#[derive(Debug)]
struct TunnelSocket {
    ends: Ends,
    outbox: Arc<Outbox>,
    received: Mutex<mpsc::Receiver<Vec<u8>>>,
    reader: AbortHandle,
}

impl Drop for TunnelSocket {
    fn drop(&mut self) {
        // The writer sends what waits, the close of the connection at the end of it.
        self.outbox.close();
        self.reader.abort();
    }
}

impl AsyncUdpSocket for TunnelSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(TunnelPoller(self))
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        if self.outbox.push(transmit.contents) { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) }
    }

    fn poll_recv(&self, cx: &mut Context<'_>, bufs: &mut [IoSliceMut<'_>], meta: &mut [RecvMeta]) -> Poll<io::Result<usize>> {
        let (Some(buffer), Some(meta)) = (bufs.first_mut(), meta.first_mut()) else { return Poll::Pending };
        let mut received = self.received.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            // A stream that has ended says nothing more here: the runtime below ends the endpoint.
            let Poll::Ready(Some(datagram)) = received.poll_recv(cx) else { return Poll::Pending };
            let length = datagram.len();
            // The reader's bound is quinn's; this is for completeness, and loses the datagram as a line would.
            let Some(room) = buffer.get_mut(..length) else { continue };
            room.copy_from_slice(&datagram);
            *meta = RecvMeta { addr: self.ends.peer, len: length, stride: length, ecn: None, dst_ip: None };
            return Poll::Ready(Ok(1));
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.ends.local)
    }

    fn may_fragment(&self) -> bool {
        // Nothing is lost for its size, so there is nothing to look for.
        true
    }
}

#[derive(Debug)]
struct TunnelPoller(Arc<TunnelSocket>);

impl UdpPoller for TunnelPoller {
    fn poll_writable(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.outbox.poll_room(cx).map(Ok)
    }
}

/// Tokio, but the endpoint's driver is dropped when the stream ends. quinn then ends the endpoint's connections at once; an error of the socket would do the same, and leave
/// a line "I/O error" in the log for every outage.
#[derive(Debug)]
struct TunnelRuntime {
    over: watch::Receiver<bool>,
    driver_runs: AtomicBool,
}

impl Runtime for TunnelRuntime {
    fn new_timer(&self, at: std::time::Instant) -> Pin<Box<dyn AsyncTimer>> {
        TokioRuntime.new_timer(at)
    }

    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        // The first is the endpoint's, the others its connections': they have to live on to tell of the end.
        if self.driver_runs.swap(true, Relaxed) {
            TokioRuntime.spawn(future);
            return;
        }
        let mut over = self.over.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = future => {}
                _ = over.wait_for(|over| *over) => {}
            }
        });
    }

    fn wrap_udp_socket(&self, socket: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        TokioRuntime.wrap_udp_socket(socket)
    }

    fn now(&self) -> std::time::Instant {
        Instant::now().into_std()
    }
}
