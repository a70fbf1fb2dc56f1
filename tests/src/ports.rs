//! Ports on loopback that nobody uses.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};

use anyhow::{Result, bail};
use rand::Rng as _;

/// Below the range that kernels give to outgoing connections (Linux: from 32768 on), so that a broker that is down for a
/// moment finds its port free again.
const RANGE: std::ops::Range<u16> = 15_000..31_000;

/// Tries before giving up: with half of the range in use the chance of needing more is below 1e-60.
const MAX_TRIES: usize = 200;

/// A port on 127.0.0.1 that is free for TCP and for UDP at this moment.
///
/// # Errors
/// When none is found.
pub fn free_port() -> Result<u16> {
    for _ in 0..MAX_TRIES {
        let port = rand::rng().random_range(RANGE);
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

fn is_free(port: u16) -> bool {
    let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, port));
    tcp.is_ok() && udp.is_ok()
}
