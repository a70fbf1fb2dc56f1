//! The socket under quinn: counts wire bytes of both directions and caps what is sent.
//!
//! Everything that QUIC does passes here: handshakes, acknowledgements, retransmissions, probes. So the figures are what a metered
//! line charges from the IP layer up (the frames of Ethernet, PPP or a VPN below come on top and are not known here).
//!
//! Over UDP the figures are exact. In a tunnel ([`crate::tunnel`]) TCP decides what becomes a packet, so they are an estimate that rounds up: each datagram is counted as a segment
//! of its own with a TLS record of its own, and half an acknowledgement of TCP in the other direction; a tunnel's opening is [`TUNNEL_HANDSHAKE_BYTES`] each way. What TCP
//! itself sends again is not known.

use std::{
    io::{self, IoSliceMut},
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{RecvMeta, Transmit},
};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::rate::RateCap;

/// IPv4 header without options, and UDP header.
pub const IPV4_UDP_HEADER_BYTES: u16 = 20 + 8;

/// IPv6 header without extensions, and UDP header.
pub const IPV6_UDP_HEADER_BYTES: u16 = 40 + 8;

/// IPv4 header, and TCP header with timestamps.
const IPV4_TCP_HEADER_BYTES: u16 = 20 + 32;

/// IPv6 header, and TCP header with timestamps.
const IPV6_TCP_HEADER_BYTES: u16 = 40 + 32;

/// What a datagram has around it in a tunnel: its length, and the frame of a TLS 1.3 record (header 5, content type 1, tag 16).
const TUNNEL_FRAME_BYTES: u16 = 2 + 5 + 1 + 16;

/// What opening a tunnel is counted as, each way: TCP's handshake and that of TLS, with a certificate of each side and none between it and the CA.
pub const TUNNEL_HANDSHAKE_BYTES: u32 = 2_500;

/// Longest sleep of a sender behind the cap. It bounds how late a raised cap is noticed; at 10 wake-ups a second it costs nothing.
const MAX_BLOCKED_SLEEP: Duration = Duration::from_millis(100);

/// Bytes and datagrams on the wire since the socket was made. Monotonic; read at any time.
#[derive(Debug, Default)]
pub struct WireCounters {
    sent_bytes: AtomicU64,
    sent_datagrams: AtomicU64,
    received_bytes: AtomicU64,
    received_datagrams: AtomicU64,
}

impl WireCounters {
    /// Bytes sent, with IP and UDP headers.
    pub fn sent_bytes(&self) -> u64 {
        self.sent_bytes.load(Relaxed)
    }

    /// Datagrams sent. In a tunnel they are QUIC's, and not those of TCP.
    pub fn sent_datagrams(&self) -> u64 {
        self.sent_datagrams.load(Relaxed)
    }

    /// Bytes received, with IP and UDP headers, whoever sent them.
    pub fn received_bytes(&self) -> u64 {
        self.received_bytes.load(Relaxed)
    }

    /// Datagrams received.
    pub fn received_datagrams(&self) -> u64 {
        self.received_datagrams.load(Relaxed)
    }

    /// A tunnel's opening.
    pub(crate) fn tunnel_opened(&self) {
        let wire = WireSize { datagrams: 0, bytes: u64::from(TUNNEL_HANDSHAKE_BYTES) };
        self.sent(wire);
        self.received(wire);
    }

    /// TCP was asked whether it reaches the collector.
    pub(crate) fn asked_for_tunnel(&self, bytes: u64) {
        self.sent(WireSize { datagrams: 0, bytes });
    }

    fn sent(&self, wire: WireSize) {
        self.sent_bytes.fetch_add(wire.bytes, Relaxed);
        self.sent_datagrams.fetch_add(wire.datagrams, Relaxed);
    }

    fn received(&self, wire: WireSize) {
        self.received_bytes.fetch_add(wire.bytes, Relaxed);
        self.received_datagrams.fetch_add(wire.datagrams, Relaxed);
    }
}

/// A socket for [`quinn::Endpoint::new_with_abstract_socket`] that counts and caps.
///
/// Under a cap quinn hands over one datagram at a time (no segmentation offload): a batch would leave as one burst. The endpoint's
/// own answers (version negotiation, retry, stateless reset) pass the same cap and are dropped when there is no budget; the peer
/// then asks again.
#[derive(Debug)]
pub struct CappedSocket {
    inner: Arc<dyn AsyncUdpSocket>,
    counters: Arc<WireCounters>,
    cap: RateCap,
    carrier: Carrier,
}

/// What carries the datagrams of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carrier {
    Udp,
    /// [`crate::tunnel`].
    Tunnel,
}

impl CappedSocket {
    /// Wraps `inner`, a UDP socket. `cap` may be shared with another socket: then both share the budget.
    pub fn new(inner: Arc<dyn AsyncUdpSocket>, cap: RateCap) -> Self {
        Self::sharing(inner, cap, Arc::default(), Carrier::Udp)
    }

    /// Wraps `inner`, and counts with others on the same line.
    pub(crate) fn sharing(inner: Arc<dyn AsyncUdpSocket>, cap: RateCap, counters: Arc<WireCounters>, carrier: Carrier) -> Self {
        Self { inner, counters, cap, carrier }
    }

    /// What passed the wire so far.
    pub fn counters(&self) -> Arc<WireCounters> {
        Arc::clone(&self.counters)
    }

    /// The handle that replaces the cap.
    pub fn cap(&self) -> RateCap {
        self.cap.clone()
    }
}

impl AsyncUdpSocket for CappedSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(CapPoller { cap: self.cap.clone(), sleep: None, inner: Arc::clone(&self.inner).create_io_poller() })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let wire = WireSize::of(self.carrier, transmit.contents.len(), transmit.segment_size, transmit.destination);
        let charge = u32::try_from(wire.bytes).unwrap_or(u32::MAX);
        self.cap.take(charge).map_err(|_until| io::Error::from(io::ErrorKind::WouldBlock))?;
        match self.inner.try_send(transmit) {
            Ok(()) => {
                self.cap.left();
                self.counters.sent(wire);
                if let Some(answer) = WireSize::of_answer(self.carrier, transmit.destination) {
                    self.counters.received(answer);
                    self.cap.received(answer.bytes);
                }
                Ok(())
            }
            Err(error) => {
                self.cap.give_back(charge);
                Err(error)
            }
        }
    }

    fn poll_recv(&self, cx: &mut Context<'_>, bufs: &mut [IoSliceMut<'_>], meta: &mut [RecvMeta]) -> Poll<io::Result<usize>> {
        let count = ready!(self.inner.poll_recv(cx, bufs, meta))?;
        for received in meta.iter().take(count) {
            let wire = WireSize::of(self.carrier, received.len, Some(received.stride), received.addr);
            self.counters.received(wire);
            self.cap.received(wire.bytes);
            if let Some(answer) = WireSize::of_answer(self.carrier, received.addr) {
                self.counters.sent(answer);
                self.cap.sent_unasked(answer.bytes);
            }
        }
        Poll::Ready(Ok(count))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        if self.cap.rate().is_some() { 1 } else { self.inner.max_transmit_segments() }
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}

/// Waits until the cap has budget again, then until the socket is writable.
#[derive(Debug)]
struct CapPoller {
    cap: RateCap,
    sleep: Option<Pin<Box<Sleep>>>,
    inner: Pin<Box<dyn UdpPoller>>,
}

impl UdpPoller for CapPoller {
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let now = Instant::now();
            let Some(until) = self.cap.blocked_until(now) else { break };
            let until = until.min(now + MAX_BLOCKED_SLEEP);
            let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(until)));
            sleep.as_mut().reset(until);
            ready!(sleep.as_mut().poll(cx));
        }
        self.inner.as_mut().poll_writable(cx)
    }
}

/// What one call of the socket puts on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct WireSize {
    datagrams: u64,
    bytes: u64,
}

impl WireSize {
    /// `length` bytes of payload, in datagrams of `segment` bytes of which the last may be shorter; `None`: one datagram.
    fn of(carrier: Carrier, length: usize, segment: Option<usize>, peer: SocketAddr) -> Self {
        let datagrams = match segment {
            Some(segment) if segment > 0 => length.div_ceil(segment).max(1),
            _ => 1,
        } as u64;
        let header = match (carrier, is_ipv4(peer)) {
            (Carrier::Udp, true) => IPV4_UDP_HEADER_BYTES,
            (Carrier::Udp, false) => IPV6_UDP_HEADER_BYTES,
            (Carrier::Tunnel, true) => IPV4_TCP_HEADER_BYTES + TUNNEL_FRAME_BYTES,
            (Carrier::Tunnel, false) => IPV6_TCP_HEADER_BYTES + TUNNEL_FRAME_BYTES,
        };
        Self { datagrams, bytes: length as u64 + datagrams * u64::from(header) }
    }

    /// What the other side's TCP says to a datagram: an acknowledgement for every second segment (RFC 9293, 3.8.6.3).
    fn of_answer(carrier: Carrier, peer: SocketAddr) -> Option<Self> {
        let header = if is_ipv4(peer) { IPV4_TCP_HEADER_BYTES } else { IPV6_TCP_HEADER_BYTES };
        (carrier == Carrier::Tunnel).then_some(Self { datagrams: 0, bytes: u64::from(header / 2) })
    }
}

/// A dual-stack socket names IPv4 peers by mapped IPv6 addresses.
fn is_ipv4(peer: SocketAddr) -> bool {
    peer.ip().to_canonical().is_ipv4()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn every_segment_has_its_headers() {
        let v4: SocketAddr = "192.0.2.1:4433".parse().unwrap();
        let mapped: SocketAddr = "[::ffff:192.0.2.1]:4433".parse().unwrap();
        let v6: SocketAddr = "[2001:db8::1]:4433".parse().unwrap();
        assert_eq!(WireSize::of(Carrier::Udp, 100, None, v4), WireSize { datagrams: 1, bytes: 128 });
        assert_eq!(WireSize::of(Carrier::Udp, 100, None, mapped), WireSize { datagrams: 1, bytes: 128 });
        assert_eq!(WireSize::of(Carrier::Udp, 100, None, v6), WireSize { datagrams: 1, bytes: 148 });
        assert_eq!(WireSize::of(Carrier::Udp, 2501, Some(1200), v4), WireSize { datagrams: 3, bytes: 2501 + 3 * 28 });
        assert_eq!(WireSize::of(Carrier::Udp, 2400, Some(1200), v6), WireSize { datagrams: 2, bytes: 2400 + 2 * 48 });
        assert_eq!(WireSize::of(Carrier::Udp, 0, Some(0), v4), WireSize { datagrams: 1, bytes: 28 });
    }

    #[test]
    fn in_a_tunnel_a_datagram_has_the_headers_of_tcp_and_half_an_answer() {
        let v4: SocketAddr = "192.0.2.1:4433".parse().unwrap();
        let v6: SocketAddr = "[2001:db8::1]:4433".parse().unwrap();
        assert_eq!(WireSize::of(Carrier::Tunnel, 100, None, v4), WireSize { datagrams: 1, bytes: 100 + 24 + 52 });
        assert_eq!(WireSize::of(Carrier::Tunnel, 1400, None, v6), WireSize { datagrams: 1, bytes: 1496 });
        assert_eq!(WireSize::of_answer(Carrier::Tunnel, v4), Some(WireSize { datagrams: 0, bytes: 26 }));
        assert_eq!(WireSize::of_answer(Carrier::Udp, v4), None);
    }
}
