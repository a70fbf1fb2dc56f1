//! Who sends.

use std::fmt;
use std::str::FromStr;

use anyhow::{Error, Result, bail};

use super::figures::Sums;
use super::{Course, quic, tcp};

/// A protocol with its congestion control.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// The crate `spillway-link` with the settings that agent and collector ship with.
    Spillway,
    /// quinn as it is, with CUBIC.
    QuinnCubic,
    /// quinn as it is, with its BBR.
    QuinnBbr,
    /// The kernel's TCP with CUBIC.
    TcpCubic,
    /// The kernel's TCP with its BBR.
    TcpBbr,
}

impl Peer {
    /// In the order of the table.
    pub const ALL: [Self; 5] = [Self::Spillway, Self::QuinnCubic, Self::QuinnBbr, Self::TcpCubic, Self::TcpBbr];

    /// All but ours.
    pub const OTHERS: [Self; 4] = [Self::QuinnCubic, Self::QuinnBbr, Self::TcpCubic, Self::TcpBbr];

    /// What it is called.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Spillway => "spillway",
            Self::QuinnCubic => "quinn-cubic",
            Self::QuinnBbr => "quinn-bbr",
            Self::TcpCubic => "tcp-cubic",
            Self::TcpBbr => "tcp-bbr",
        }
    }

    /// Bytes of its full packet at the IP level, and of the payload in it.
    ///
    /// QUIC: datagrams of 1452 bytes, the most that quinn probes for, behind 28 of IPv4 and UDP; of these 1 for the kind, 8 for the connection, 2 for
    /// the number, 16 for the seal and 8 for the stream's frame. TCP: 1500 bytes, of which IPv4 takes 20 and TCP with timestamps 32.
    #[must_use]
    pub fn packet_and_payload_bytes(self) -> (u64, u64) {
        match self {
            Self::Spillway | Self::QuinnCubic | Self::QuinnBbr => (1480, 1452 - 35),
            Self::TcpCubic | Self::TcpBbr => (1500, 1448),
        }
    }

    /// Sends for the time of the course.
    ///
    /// # Errors
    /// When it does not connect, or the kernel lacks its congestion control.
    pub fn run(self, course: &Course<'_>) -> Result<Sums> {
        match self {
            Self::Spillway => quic::spillway(course),
            Self::QuinnCubic => quic::quinn(course, quic::Control::Cubic),
            Self::QuinnBbr => quic::quinn(course, quic::Control::Bbr),
            Self::TcpCubic => tcp::run(course, "cubic"),
            Self::TcpBbr => tcp::run(course, "bbr"),
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Peer {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match Self::ALL.into_iter().find(|peer| peer.name() == text) {
            Some(peer) => Ok(peer),
            None => bail!("no peer {text:?}; there are {}", Self::ALL.map(Self::name).join(", ")),
        }
    }
}
