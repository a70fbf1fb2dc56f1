//! How a connection is kept alive, bounded and given up: [`LinkSettings`] to quinn's transport configuration.

use std::{sync::Arc, time::Duration};

use quinn::{IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};

use crate::{Congestion, LineMemory};

/// Largest UDP payload that either side sends or probes for: an Ethernet frame without IPv6 and UDP headers.
///
/// [`crate::socket`] sizes the burst of a rate cap by it: a datagram never exceeds the burst.
pub const MAX_DATAGRAM_BYTES: u16 = 1452;

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
    /// Look for a path MTU above 1200 bytes. On a path of 1400 bytes the probes cost up to 98 MB a month.
    pub mtu_discovery: bool,
    /// How much may be in flight.
    pub congestion: Congestion,
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
            mtu_discovery: true,
            congestion: Congestion::Spillway,
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
            mtu_discovery: false,
            // It sends acknowledgements and small messages only.
            congestion: Congestion::Cubic,
        }
    }

    /// As quinn wants it. An idle timeout beyond what QUIC can say (146 million years) becomes that bound. Connections made with it begin with what
    /// `memory` knows of the line, and tell it what they learn.
    pub fn transport(&self, memory: &LineMemory) -> Arc<TransportConfig> {
        let idle = IdleTimeout::try_from(self.idle_timeout).unwrap_or_else(|_| IdleTimeout::from(VarInt::MAX));
        let mtu = self.mtu_discovery.then(|| {
            let mut mtu = MtuDiscoveryConfig::default();
            mtu.upper_bound(MAX_DATAGRAM_BYTES);
            mtu
        });
        let mut transport = TransportConfig::default();
        transport
            .keep_alive_interval(self.keep_alive)
            .max_idle_timeout(Some(idle))
            .send_window(self.send_window)
            .receive_window(VarInt::from_u32(self.receive_window))
            .stream_receive_window(VarInt::from_u32(self.stream_receive_window))
            .max_concurrent_bidi_streams(VarInt::from_u32(self.peer_bidi_streams))
            .max_concurrent_uni_streams(VarInt::from_u32(self.peer_uni_streams))
            .mtu_discovery_config(mtu)
            .congestion_controller_factory(self.congestion.factory(memory))
            // Frames are finished in the order they were begun: half of each of ten frames serves nobody.
            .send_fairness(false)
            .datagram_receive_buffer_size(None);
        Arc::new(transport)
    }
}

impl Default for LinkSettings {
    fn default() -> Self {
        Self::agent()
    }
}
