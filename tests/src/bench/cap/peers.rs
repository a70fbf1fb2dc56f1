//! A cap inside the application, which is what there is without one at the socket: TCP and stock quinn, whose sender writes no more payload than the rate allows.
//! Headers, what is sent again and acknowledgements come on top.
//!
//! All run at the same time, each on a WAN of its own that loses as much as the relay does.

use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};

use super::LOST;
use super::sampler::{Figures, Sampler, figures};
use crate::bench::link::quic::{identities, pair, receive};
use crate::bench::link::tcp;
use crate::bench::peer::{Congestion, Peer};
use crate::reaper::scratch_dir;
use crate::stage::pki::Pki;
use crate::wan::Wan;

/// What the sender writes at once: a record, or as many as are due.
const RECORD_BYTES: usize = 1000;

/// Between two looks at what is due.
const TICK: Duration = Duration::from_millis(10);

/// One rate; each peer with its figures, or why it is left out.
#[must_use]
pub fn measure(peers: &[Peer], bits: u64, span: Duration) -> Vec<(Peer, Result<Figures>)> {
    let start = |peer: Peer| (peer, std::thread::spawn(move || one(peer, bits, span)));
    let threads: Vec<_> = peers.iter().copied().map(start).collect();
    threads.into_iter().map(|(peer, thread)| (peer, thread.join().map_err(|_| anyhow!("it has panicked")).flatten())).collect()
}

fn one(peer: Peer, bits: u64, span: Duration) -> Result<Figures> {
    let wan = Arc::new(Wan::start(bits)?);
    wan.tell(&format!("loss {}%", f64::from(LOST) / 10.0))?;
    let counted = Arc::clone(&wan);
    // As with ours, from when they are connected.
    let start = move || Sampler::start(move || counted.counters().to_centre.offered.bytes);
    let sampler = match peer {
        Peer::Tcp(congestion) => over_tcp(&wan, congestion, bits, span, start)?,
        Peer::Quinn(congestion) => over_quinn(&wan, congestion, bits, span, start)?,
        Peer::Spillway | Peer::MirrorMaker(_) => bail!("its cap is elsewhere"),
    };
    let samples = sampler.stop()?;
    Ok(figures(&samples, bits, wan.counters().to_centre.lost.packets))
}

fn over_tcp(wan: &Wan, congestion: Congestion, bits: u64, span: Duration, start: impl FnOnce() -> Sampler) -> Result<Sampler> {
    let (mut sending, mut receiving) = tcp::pair(wan, congestion)?;
    let sampler = start();
    // Ends with the connection.
    std::thread::spawn(move || {
        let mut buffer = [0; 16 * 1024];
        while receiving.read(&mut buffer).is_ok_and(|bytes| bytes > 0) {}
    });
    let (mut limiter, started) = (Limiter::new(bits), Instant::now());
    while started.elapsed() < span {
        sending.write_all(&vec![7; limiter.due_bytes(started.elapsed())])?;
        std::thread::sleep(TICK);
    }
    Ok(sampler)
}

fn over_quinn(wan: &Wan, congestion: Congestion, bits: u64, span: Duration, start: impl FnOnce() -> Sampler) -> Result<Sampler> {
    let pki = Pki::init(&scratch_dir("cap-quinn")?.join("pki"))?;
    let (client, server) = identities(&pki, &pki.issue("edge")?)?;
    let pair = pair(wan, client, server, congestion)?;
    let sampler = start();
    pair.centre.runtime.spawn(receive(pair.centre.connection.clone(), Arc::new(AtomicU64::new(0))));
    let sent = pair.edge.runtime.block_on(async {
        let mut stream = pair.edge.connection.open_uni().await?;
        let (mut limiter, started) = (Limiter::new(bits), Instant::now());
        while started.elapsed() < span {
            stream.write_all(&vec![7; limiter.due_bytes(started.elapsed())]).await?;
            tokio::time::sleep(TICK).await;
        }
        anyhow::Ok(())
    });
    pair.end();
    sent.map(|()| sampler)
}

/// Whole records, as soon as the rate has room for their payload.
struct Limiter {
    bits: u64,
    written: u64,
}

impl Limiter {
    fn new(bits: u64) -> Self {
        Self { bits, written: 0 }
    }

    /// What to write now, so long after the first call.
    fn due_bytes(&mut self, elapsed: Duration) -> usize {
        let allowed = elapsed.as_secs_f64() * self.bits as f64 / 8.0;
        let records = (allowed as u64).saturating_sub(self.written) / RECORD_BYTES as u64;
        self.written += records * RECORD_BYTES as u64;
        usize::try_from(records).unwrap_or(0) * RECORD_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_payload_is_never_more_than_the_rate_allows() {
        // 1,000 bytes a second.
        let mut limiter = Limiter::new(8_000);
        let written: Vec<usize> =
            [0, 999, 1_000, 1_001, 4_500, 5_000].map(|millis| limiter.due_bytes(Duration::from_millis(millis))).into();
        assert_eq!(written, [0, 0, 1_000, 0, 3_000, 1_000]);
    }
}
