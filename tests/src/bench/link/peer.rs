//! Who sends, and how. Spillway is here the crate `spillway-link` with the settings that agent and collector ship with.

use anyhow::Result;

use super::figures::Sums;
use super::{Course, mirror, quic, tcp};
use crate::bench::peer::Peer;

/// Bytes of a peer's full packet at the IP level, and of the payload in it.
///
/// QUIC: datagrams of 1452 bytes, the most that quinn probes for, behind 28 of IPv4 and UDP; of these 1 for the kind, 8 for the connection, 2 for
/// the number, 16 for the seal and 8 for the stream's frame. TCP: 1500 bytes, of which IPv4 takes 20 and TCP with timestamps 32.
#[must_use]
pub fn packet_and_payload_bytes(peer: Peer) -> (u64, u64) {
    match peer {
        Peer::Spillway | Peer::Quinn(_) => (1480, 1452 - 35),
        Peer::Tcp(_) | Peer::MirrorMaker(_) => (1500, 1448),
    }
}

/// Sends for the time of the course.
///
/// # Errors
/// When it does not connect, or the kernel lacks its congestion control.
pub fn run(peer: Peer, course: &Course<'_>) -> Result<Sums> {
    match peer {
        Peer::Spillway => quic::spillway(course),
        Peer::Quinn(congestion) => quic::quinn(course, congestion),
        Peer::Tcp(congestion) => tcp::run(course, congestion),
        Peer::MirrorMaker(mirror) => mirror::run(course, mirror),
    }
}
