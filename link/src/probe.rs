//! Probes: is there a way to the collector, without a connection?
//!
//! QUIC repeats what is not acknowledged at ever longer intervals, and so finds a line that was down for a minute half a minute after it is back. Dialling every few seconds
//! instead costs 1,200 bytes each time, and throws away a connection that could go on. A probe is a datagram of 25 bytes beside QUIC, on the same ports: the collector
//! answers it with as many. It says nothing but that the way is open; what is done then is decided by whoever asked.
//!
//! ```text
//! u8 ×7  0x0f "spillw"       no QUIC packet begins so: the fixed bit is 0 (RFC 9000, 17.2)
//! u8     1                   version
//! u8     0 ask, 1 answer
//! u8 ×16 token               of the asker's choice; the answer has the same
//! ```
//! An answer is as long as the question, and at most [`ANSWERS_A_SECOND`] are given: nobody is served who wants to flood a third party.

use std::{
    io::{self, IoSliceMut},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{RecvMeta, Transmit},
};
use tokio::{sync::watch, time::Instant};

/// Bytes of a probe, as UDP payload.
pub const PROBE_BYTES: usize = 25;

/// Most probes answered in a second: 5,000 sites that ask every 1.75 s, as they do in the mean, are 2,860.
pub const ANSWERS_A_SECOND: u32 = 4_000;

const MAGIC: [u8; 8] = *b"\x0fspillw\x01";
const ASK: u8 = 0;
const ANSWER: u8 = 1;

/// Which probe is whose.
pub(crate) type Token = [u8; 16];

fn probe(kind: u8, token: Token) -> [u8; PROBE_BYTES] {
    let mut bytes = [0; PROBE_BYTES];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8] = kind;
    bytes[9..].copy_from_slice(&token);
    bytes
}

fn parse(datagram: &[u8]) -> Option<(u8, Token)> {
    let rest = datagram.strip_prefix(&MAGIC)?;
    let (kind, token) = rest.split_first()?;
    Some((*kind, token.try_into().ok()?))
}

/// What a socket does about probes.
#[derive(Debug)]
enum Role {
    /// Answers those of others.
    Answers(Mutex<Quota>),
    /// Waits for answers to its own.
    Asks { token: Token, answered: watch::Sender<u64> },
}

/// Answers left in the second that began at `since`.
#[derive(Debug)]
struct Quota {
    since: Instant,
    left: u32,
}

impl Quota {
    fn take(&mut self, now: Instant) -> bool {
        if now.saturating_duration_since(self.since) >= Duration::from_secs(1) {
            *self = Self { since: now, left: ANSWERS_A_SECOND };
        }
        let is_left = self.left > 0;
        self.left = self.left.saturating_sub(1);
        is_left
    }
}

/// A socket under quinn that keeps probes to itself.
#[derive(Debug)]
pub(crate) struct ProbeSocket<S> {
    inner: Arc<S>,
    role: Role,
}

impl<S: AsyncUdpSocket> ProbeSocket<S> {
    /// The collector's.
    pub(crate) fn answering(inner: S) -> Self {
        Self { inner: Arc::new(inner), role: Role::Answers(Mutex::new(Quota { since: Instant::now(), left: ANSWERS_A_SECOND })) }
    }

    /// The agent's. Only answers with `token` count.
    pub(crate) fn asking(inner: S, token: Token) -> Self {
        Self { inner: Arc::new(inner), role: Role::Asks { token, answered: watch::Sender::new(0) } }
    }

    /// Sends a probe to `peer`, if there is room for it now.
    pub(crate) fn ask(&self, peer: SocketAddr) {
        if let Role::Asks { token, .. } = &self.role {
            self.send(peer, None, &probe(ASK, *token));
        }
    }

    /// Counts answers.
    pub(crate) fn answers(&self) -> watch::Receiver<u64> {
        match &self.role {
            Role::Asks { answered, .. } => answered.subscribe(),
            Role::Answers(_) => watch::Sender::new(0).subscribe(),
        }
    }

    fn send(&self, peer: SocketAddr, src_ip: Option<IpAddr>, contents: &[u8]) {
        let transmit = Transmit { destination: self.reachable(peer), ecn: None, contents, segment_size: None, src_ip };
        if let Err(error) = self.inner.try_send(&transmit) {
            // It is asked again.
            tracing::trace!(%peer, %error, "a probe is not sent");
        }
    }

    /// A dual-stack socket reaches IPv4 by mapped addresses.
    fn reachable(&self, peer: SocketAddr) -> SocketAddr {
        match (self.inner.local_addr(), peer.ip()) {
            (Ok(SocketAddr::V6(_)), IpAddr::V4(ip)) => (Ipv4Addr::to_ipv6_mapped(&ip), peer.port()).into(),
            _ => peer,
        }
    }

    fn on_probe(&self, kind: u8, token: Token, meta: &RecvMeta) {
        match &self.role {
            Role::Answers(quota) if kind == ASK => {
                if quota.lock().unwrap_or_else(PoisonError::into_inner).take(Instant::now()) {
                    self.send(meta.addr, meta.dst_ip, &probe(ANSWER, token));
                }
            }
            Role::Asks { token: ours, answered } if kind == ANSWER && token == *ours => answered.send_modify(|count| *count += 1),
            Role::Answers(_) | Role::Asks { .. } => {}
        }
    }

    /// Takes the probes out of what was received at once.
    fn take_probes(&self, buffer: &mut [u8], meta: &mut RecvMeta) {
        let (length, stride) = (meta.len, meta.stride.max(1));
        let mut kept = 0;
        for start in (0..length).step_by(stride) {
            let end = length.min(start + stride);
            match buffer.get(start..end).and_then(parse) {
                Some((kind, token)) => self.on_probe(kind, token, meta),
                None => {
                    buffer.copy_within(start..end, kept);
                    kept += end - start;
                }
            }
        }
        meta.len = kept;
    }
}

impl<S: AsyncUdpSocket> AsyncUdpSocket for ProbeSocket<S> {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.inner).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.inner.try_send(transmit)
    }

    fn poll_recv(&self, cx: &mut Context<'_>, bufs: &mut [IoSliceMut<'_>], meta: &mut [RecvMeta]) -> Poll<io::Result<usize>> {
        let count = ready!(self.inner.poll_recv(cx, bufs, meta))?;
        for (buffer, meta) in bufs.iter_mut().zip(meta.iter_mut()).take(count) {
            self.take_probes(buffer, meta);
        }
        Poll::Ready(Ok(count))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.inner.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: Token = *b"0123456789abcdef";

    /// Receives nothing, and remembers what is sent.
    #[derive(Debug, Default)]
    struct Sink(Mutex<Vec<Vec<u8>>>);

    impl AsyncUdpSocket for Sink {
        fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
            unreachable!("nothing waits for it")
        }

        fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(transmit.contents.to_vec());
            Ok(())
        }

        fn poll_recv(&self, _: &mut Context<'_>, _: &mut [IoSliceMut<'_>], _: &mut [RecvMeta]) -> Poll<io::Result<usize>> {
            Poll::Pending
        }

        fn local_addr(&self) -> io::Result<SocketAddr> {
            Ok(SocketAddr::from(([127, 0, 0, 1], 1)))
        }
    }

    fn meta(length: usize, stride: usize) -> RecvMeta {
        RecvMeta { addr: SocketAddr::from(([127, 0, 0, 1], 2)), len: length, stride, ecn: None, dst_ip: None }
    }

    fn sent(socket: &ProbeSocket<Sink>) -> Vec<Vec<u8>> {
        socket.inner.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    #[test]
    fn the_bytes_are_those_of_the_documentation() {
        assert_eq!(&probe(ASK, TOKEN), b"\x0fspillw\x01\x000123456789abcdef");
        assert_eq!(&probe(ANSWER, TOKEN), b"\x0fspillw\x01\x010123456789abcdef");
    }

    #[test]
    fn a_question_is_answered_and_quinn_does_not_see_it() {
        let socket = ProbeSocket::answering(Sink::default());
        // Four datagrams at once, as the kernel joins those of one size: two of them are probes.
        let quic = [0x40; PROBE_BYTES];
        let mut buffer = [probe(ASK, TOKEN), quic, probe(ASK, TOKEN), quic].concat();
        let mut meta = meta(buffer.len(), PROBE_BYTES);
        socket.take_probes(&mut buffer, &mut meta);
        assert_eq!(sent(&socket), [probe(ANSWER, TOKEN), probe(ANSWER, TOKEN)]);
        assert_eq!(buffer.get(..meta.len), Some(&[quic, quic].concat()[..]));
    }

    #[test]
    fn what_only_looks_like_a_probe_is_left_to_quinn() {
        let socket = ProbeSocket::answering(Sink::default());
        let ask = probe(ASK, TOKEN);
        let mut longer = ask.to_vec();
        longer.push(0);
        let mut newer = ask.to_vec();
        newer[7] = 2;
        for mut datagram in [ask[..24].to_vec(), longer, newer, vec![]] {
            let mut meta = meta(datagram.len(), datagram.len());
            socket.take_probes(&mut datagram, &mut meta);
            assert_eq!(meta.len, datagram.len(), "{datagram:?}");
        }
        assert!(sent(&socket).is_empty());
    }

    #[test]
    fn only_answers_to_our_own_questions_count() {
        let socket = ProbeSocket::asking(Sink::default(), TOKEN);
        let answers = socket.answers();
        for (datagram, count) in [(probe(ANSWER, [0; 16]), 0), (probe(ASK, TOKEN), 0), (probe(ANSWER, TOKEN), 1)] {
            socket.take_probes(&mut datagram.to_vec(), &mut meta(PROBE_BYTES, PROBE_BYTES));
            assert_eq!(*answers.borrow(), count, "{datagram:?}");
        }
        assert!(sent(&socket).is_empty(), "an agent answers nobody");
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_not_answered() {
        let socket = ProbeSocket::answering(Sink::default());
        for _ in 0..2 * ANSWERS_A_SECOND {
            socket.take_probes(&mut probe(ASK, TOKEN).to_vec(), &mut meta(PROBE_BYTES, PROBE_BYTES));
        }
        assert_eq!(sent(&socket).len(), ANSWERS_A_SECOND as usize);
        tokio::time::advance(Duration::from_secs(1)).await;
        socket.take_probes(&mut probe(ASK, TOKEN).to_vec(), &mut meta(PROBE_BYTES, PROBE_BYTES));
        assert_eq!(sent(&socket).len(), ANSWERS_A_SECOND as usize + 1);
    }
}
