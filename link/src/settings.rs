//! How a connection is kept alive, bounded and given up: [`LinkSettings`] to quinn's transport configuration.

use std::{sync::Arc, time::Duration};

use quinn::{IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};

use crate::{Congestion, LineMemory, tunnel::TUNNEL_MTU};

/// Largest UDP payload that either side sends or probes for: an Ethernet frame without IPv6 and UDP headers.
pub const MAX_DATAGRAM_BYTES: u16 = 1452;

/// Longest silence of a metered connection.
const METERED_KEEP_ALIVE: Duration = Duration::from_secs(240);

/// QUIC's least (RFC 9000, 14), which every path carries.
const LEAST_MTU: u16 = 1200;

/// Paths change a few times a year.
const OFTEN: Duration = Duration::from_secs(24 * 3600);

/// Longer than a connection lives.
const NEVER: Duration = Duration::from_secs(100 * 365 * 86_400);

/// Settings of the transport, for either side. `Default` is the agent's; see [`LinkSettings::agent`] and [`LinkSettings::collector`].
///
/// Worst-case memory of one connection is about `send_window + receive_window`, plus 32 KiB of handshake buffers while it opens.
#[derive(Clone, Debug)]
pub struct LinkSettings {
    /// A packet is sent when the connection was silent for so long; `None`: never. One packet each way every 25 s costs
    /// 12.9 MB a month. Must be below `idle_timeout`, and below the shortest UDP mapping of the NATs between (often 30 s).
    pub keep_alive: Option<Duration>,
    /// The connection is given up when nothing was received for so long; the shorter of both peers' values holds.
    pub idle_timeout: Duration,
    /// How long one dial may take, from the first packet to the finished handshake.
    pub handshake_timeout: Duration,
    /// Most bytes sent and not acknowledged by the peer's QUIC, over all streams: memory, and how far bulk can run ahead of an
    /// urgent frame. At least twice the line's bandwidth times its round trip, or it limits the rate.
    pub send_window: u64,
    /// Most bytes the peer may send before the application reads, over all streams. This is the memory a connection can pin.
    pub receive_window: u32,
    /// As `receive_window`, for one stream. At least the largest frame that is to arrive without a pause.
    pub stream_receive_window: u32,
    /// Most bidirectional streams that the peer may hold open.
    pub peer_bidi_streams: u32,
    /// Most unidirectional streams that the peer may hold open.
    pub peer_uni_streams: u32,
    /// Look for a path MTU above 1200 bytes.
    pub mtu_discovery: MtuDiscovery,
    /// How much may be in flight.
    pub congestion: Congestion,
}

/// What a line is paid by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// Its rate: see [`LinkSettings::agent`].
    #[default]
    Normal,
    /// The byte: [`LinkSettings::metered`].
    Metered,
    /// The minute, or the connection: [`LinkSettings::short_lived`].
    Session,
}

/// When the largest packet that the path carries is looked for. A look is some packets of up to 1480 bytes, of which those that are too large are lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MtuDiscovery {
    /// After each handshake, and once a day. On a path that carries 1400 bytes every ten minutes, as quinn has it, cost 40 MB a month more.
    Often,
    /// After the first handshake; what was found holds for later connections too. A path that carries less after that is noticed by lost packets.
    Once,
    /// Not by this connection: what an earlier one has found holds, else 1200 bytes.
    Known,
    /// Packets of 1200 bytes.
    Never,
}

impl LinkSettings {
    /// The agent's: it receives nothing but small control messages, and the collector opens no streams.
    pub fn agent() -> Self {
        Self {
            keep_alive: Some(Duration::from_secs(15)),
            idle_timeout: Duration::from_secs(45),
            handshake_timeout: Duration::from_secs(15),
            send_window: 4 * 1024 * 1024,
            receive_window: 256 * 1024,
            stream_receive_window: 128 * 1024,
            peer_bidi_streams: 0,
            peer_uni_streams: 0,
            mtu_discovery: MtuDiscovery::Often,
            congestion: Congestion::Spillway,
        }
    }

    /// For a line that is paid by the byte: a quiet connection says something every 4 minutes only, and the path MTU is looked for once. An idle month costs
    /// 1.4 MB. NATs forget a connection that is so quiet; that costs nothing, since the agent is who speaks first.
    #[must_use]
    pub fn metered(self) -> Self {
        let keep_alive = self.keep_alive.map(|time| time.max(METERED_KEEP_ALIVE));
        let idle_timeout = self.idle_timeout.max(3 * METERED_KEEP_ALIVE);
        let mtu_discovery = match self.mtu_discovery {
            MtuDiscovery::Often => MtuDiscovery::Once,
            seldom => seldom,
        };
        Self { keep_alive, idle_timeout, mtu_discovery, ..self }
    }

    /// For connections that live for seconds, one after the other: what looking for the path MTU costs is more than they would gain by it.
    #[must_use]
    pub fn short_lived(self) -> Self {
        let mtu_discovery = match self.mtu_discovery {
            MtuDiscovery::Often | MtuDiscovery::Once => MtuDiscovery::Known,
            none => none,
        };
        Self { mtu_discovery, ..self }
    }

    /// These settings, made for a line that is paid as `profile` says.
    #[must_use]
    pub fn of_profile(self, profile: Profile) -> Self {
        match profile {
            Profile::Normal => self,
            Profile::Metered => self.metered(),
            Profile::Session => self.short_lived(),
        }
    }

    /// The collector's: one control stream a session, and frames on streams of their own.
    pub fn collector() -> Self {
        Self {
            keep_alive: None,
            idle_timeout: Duration::from_secs(45),
            handshake_timeout: Duration::from_secs(15),
            send_window: 256 * 1024,
            receive_window: 8 * 1024 * 1024,
            stream_receive_window: 4 * 1024 * 1024,
            peer_bidi_streams: 1,
            peer_uni_streams: 64,
            mtu_discovery: MtuDiscovery::Never,
            // It sends acknowledgements and small messages only.
            congestion: Congestion::Cubic,
        }
    }

    /// As quinn wants it. An idle timeout beyond what QUIC can say (146 million years) becomes that bound. Connections made with it begin with what
    /// `memory` knows of the line, and tell it what they learn.
    pub fn transport(&self, memory: &LineMemory) -> Arc<TransportConfig> {
        Arc::new(self.transport_config(memory))
    }

    /// As [`LinkSettings::transport`], in a tunnel: a stream carries datagrams of any size, so there is nothing to look for.
    pub(crate) fn tunnel_transport(&self, memory: &LineMemory) -> Arc<TransportConfig> {
        let settings = Self { mtu_discovery: MtuDiscovery::Never, ..self.clone() };
        let mut transport = settings.transport_config(memory);
        transport.initial_mtu(TUNNEL_MTU);
        Arc::new(transport)
    }

    fn transport_config(&self, memory: &LineMemory) -> TransportConfig {
        let idle = IdleTimeout::try_from(self.idle_timeout).unwrap_or_else(|_| IdleTimeout::from(VarInt::MAX));
        let known_mtu = memory.mtu().filter(|_| matches!(self.mtu_discovery, MtuDiscovery::Once | MtuDiscovery::Known));
        let mut discovery = MtuDiscoveryConfig::default();
        discovery.upper_bound(MAX_DATAGRAM_BYTES);
        let discovery = match self.mtu_discovery {
            MtuDiscovery::Often => {
                discovery.interval(OFTEN);
                Some(discovery)
            }
            MtuDiscovery::Once if known_mtu.is_some() => None,
            MtuDiscovery::Once => {
                discovery.interval(NEVER);
                Some(discovery)
            }
            MtuDiscovery::Known | MtuDiscovery::Never => None,
        };
        let mut transport = TransportConfig::default();
        transport
            .keep_alive_interval(self.keep_alive)
            .max_idle_timeout(Some(idle))
            .send_window(self.send_window)
            .receive_window(VarInt::from_u32(self.receive_window))
            .stream_receive_window(VarInt::from_u32(self.stream_receive_window))
            .max_concurrent_bidi_streams(VarInt::from_u32(self.peer_bidi_streams))
            .max_concurrent_uni_streams(VarInt::from_u32(self.peer_uni_streams))
            .mtu_discovery_config(discovery)
            .initial_mtu(known_mtu.unwrap_or(LEAST_MTU))
            .congestion_controller_factory(self.congestion.factory(memory))
            // Without it, a stream that was begun is finished before one of a higher priority is looked at. Frames have priorities of their own, each another
            // one, so that they are finished in the order they were begun all the same: half of each of ten frames serves nobody.
            .send_fairness(true)
            .datagram_receive_buffer_size(None);
        transport
    }
}

impl Default for LinkSettings {
    fn default() -> Self {
        Self::agent()
    }
}
