//! Ports on loopback that nobody uses.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Result, bail};
use rand::Rng as _;

/// Below the range that kernels give to outgoing connections (Linux: from 32768 on), so that a broker that is down for a
/// moment finds its port free again.
const RANGE: std::ops::Range<u16> = 15_000..31_000;

/// A port on 127.0.0.1 that is free for TCP and for UDP at this moment, and that this process was not given before, unless it has had all.
///
/// What is killed for a while leaves its port, and its peers go on asking there: whoever had the port meanwhile would be taken for it.
///
/// # Errors
/// When none is found.
pub fn free_port() -> Result<u16> {
    static NEXT: OnceLock<AtomicUsize> = OnceLock::new();
    let next = NEXT.get_or_init(|| AtomicUsize::new(rand::rng().random_range(0..RANGE.len())));
    for _ in RANGE {
        let port = RANGE.start + u16::try_from(next.fetch_add(1, Ordering::Relaxed) % RANGE.len())?;
        if is_free(port) {
            return Ok(port);
        }
    }
    bail!("no free port between {} and {}", RANGE.start, RANGE.end)
}

/// The wished port if it is free, or any that is.
///
/// # Errors
/// When none is found.
pub fn free_port_or(wished: Option<u16>) -> Result<u16> {
    match wished {
        Some(port) if is_free(port) => Ok(port),
        _ => free_port(),
    }
}

/// Whether nobody holds this port of 127.0.0.1.
#[must_use]
pub fn is_free(port: u16) -> bool {
    let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, port));
    tcp.is_ok() && udp.is_ok()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_port_is_given_twice_although_nobody_holds_it() {
        let given: HashSet<u16> = (0..2000).map(|_| free_port().unwrap()).collect();
        assert_eq!(given.len(), 2000);
    }
}
