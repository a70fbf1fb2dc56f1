//! Whether TCP reaches the collector: asked by connecting. What comes of it is kept for the next attempt.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    net::TcpStream,
    task::JoinSet,
    time::{Instant, timeout},
};

use super::dial::TunnelDialer;
use crate::vigil;

/// A connection is begun anew after so long. Linux repeats its first packet after 1, 3 and 7 s: on a line that was down meanwhile that is too late.
const TRY_AGAIN: Duration = Duration::from_millis(2500);

/// What a question costs at the most: TCP's first packet over IPv6, and once more.
const QUESTION_BYTES: u32 = 2 * 80;

/// A connection that is not used within so long is of no use: the collector waits for TLS no longer than for any other handshake.
const FRESH: Duration = Duration::from_secs(5);

/// The last connection that was made by asking.
#[derive(Debug)]
pub(super) struct Reached {
    tcp: TcpStream,
    at: Instant,
}

impl TunnelDialer {
    /// Returns when TCP reaches one of `peers`; never, if there is none. Cancel safe.
    pub(crate) async fn reach(&self, peers: &[SocketAddr]) {
        if peers.is_empty() {
            std::future::pending::<()>().await;
        }
        while !self.has_reached(peers) {
            let began = Instant::now();
            for _ in peers {
                self.meter.cap.wait_for(QUESTION_BYTES).await;
                self.meter.counters.asked_for_tunnel(QUESTION_BYTES.into());
            }
            if let Ok(Some(tcp)) = timeout(TRY_AGAIN, first_of(peers)).await {
                *self.reached() = Some(Reached { tcp, at: Instant::now() });
            } else {
                // Where nobody listens the answer comes at once.
                tokio::time::sleep_until(began + vigil::jittered(TRY_AGAIN)).await;
            }
        }
    }

    fn has_reached(&self, peers: &[SocketAddr]) -> bool {
        self.reached().as_ref().is_some_and(|reached| reached.is_fresh() && peers.iter().any(|peer| reached.is_to(*peer)))
    }

    /// A TCP connection with `address`: the one that was made by asking, or another.
    pub(super) async fn tcp(&self, address: SocketAddr) -> std::io::Result<TcpStream> {
        let reached = self.reached().take().filter(|reached| reached.is_fresh() && reached.is_to(address));
        if let Some(reached) = reached {
            return Ok(reached.tcp);
        }
        loop {
            if let Ok(outcome) = timeout(TRY_AGAIN, TcpStream::connect(address)).await {
                return outcome;
            }
        }
    }
}

impl Reached {
    fn is_fresh(&self) -> bool {
        self.at.elapsed() < FRESH
    }

    fn is_to(&self, address: SocketAddr) -> bool {
        self.tcp.peer_addr().is_ok_and(|peer| peer == address)
    }
}

async fn first_of(peers: &[SocketAddr]) -> Option<TcpStream> {
    let mut attempts: JoinSet<_> = peers.iter().copied().map(TcpStream::connect).collect();
    while let Some(attempt) = attempts.join_next().await {
        if let Ok(Ok(tcp)) = attempt {
            return Some(tcp);
        }
    }
    None
}
