//! The UDP socket under quinn: counts wire bytes of both directions and caps what is sent.
//!
//! Everything that QUIC does passes here: handshakes, acknowledgements, retransmissions, probes. So the figures are what a metered
//! line charges from the IP layer up (the frames of Ethernet, PPP or a tunnel below come on top and are not known here).

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

    /// Datagrams sent.
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
}

impl CappedSocket {
    /// Wraps `inner`. `cap` and [`CappedSocket::counters`] may be shared with another socket: then both share the budget.
    pub fn new(inner: Arc<dyn AsyncUdpSocket>, cap: RateCap) -> Self {
        Self { inner, counters: Arc::default(), cap }
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
        let wire = WireSize::of(transmit.contents.len(), transmit.segment_size, transmit.destination);
        let charge = u32::try_from(wire.bytes).unwrap_or(u32::MAX);
        self.cap.take(charge).map_err(|_until| io::Error::from(io::ErrorKind::WouldBlock))?;
        match self.inner.try_send(transmit) {
            Ok(()) => {
                self.counters.sent(wire);
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
            let wire = WireSize::of(received.len, Some(received.stride), received.addr);
            self.counters.received(wire);
            self.cap.received(wire.bytes);
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
    fn of(length: usize, segment: Option<usize>, peer: SocketAddr) -> Self {
        let datagrams = match segment {
            Some(segment) if segment > 0 => length.div_ceil(segment).max(1),
            _ => 1,
        } as u64;
        // A dual-stack socket names IPv4 peers by mapped IPv6 addresses.
        let header = if peer.ip().to_canonical().is_ipv4() { IPV4_UDP_HEADER_BYTES } else { IPV6_UDP_HEADER_BYTES };
        Self { datagrams, bytes: length as u64 + datagrams * u64::from(header) }
    }
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
        assert_eq!(WireSize::of(100, None, v4), WireSize { datagrams: 1, bytes: 128 });
        assert_eq!(WireSize::of(100, None, mapped), WireSize { datagrams: 1, bytes: 128 });
        assert_eq!(WireSize::of(100, None, v6), WireSize { datagrams: 1, bytes: 148 });
        assert_eq!(WireSize::of(2501, Some(1200), v4), WireSize { datagrams: 3, bytes: 2501 + 3 * 28 });
        assert_eq!(WireSize::of(2400, Some(1200), v6), WireSize { datagrams: 2, bytes: 2400 + 2 * 48 });
        assert_eq!(WireSize::of(0, Some(0), v4), WireSize { datagrams: 1, bytes: 28 });
    }
}
