//! A sender and its receiver: two QUIC connections without sockets.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, LazyLock},
    time::{Duration, Instant, SystemTime},
};

use bytes::{Bytes, BytesMut};
use quinn_proto::{
    ClientConfig, Connection, ConnectionHandle, DatagramEvent, Dir, Endpoint, EndpointConfig, Event, ServerConfig, StreamId, VarInt,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use spillway_link::{Identity, LineMemory, LinkSettings, Role};

use crate::{
    common::{Authority, Made},
    sim::Sends,
};

/// What a sender offers at once.
static CHUNK: [u8; 16 * 1024] = [0; 16 * 1024];

/// Most bytes that a sender lets wait in quinn: more than any line here holds.
const SEND_WINDOW: u64 = 8 * 1024 * 1024;

/// The collector's, so that the agent's counts.
const COLLECTOR_IDLE: Duration = Duration::from_secs(30 * 60);

/// Site and collector.
pub(crate) static IDENTITIES: LazyLock<(Identity, Identity)> = LazyLock::new(|| {
    let authority = Authority::new("test");
    let make = |made: Made<'_>, role| made.files(&authority, &[&authority]).load_at(role, SystemTime::now()).unwrap();
    (make(Made::site(), Role::Site), make(Made::collector(), Role::Collector))
});

/// A datagram of a flow.
pub(crate) struct Packet {
    pub(crate) flow: usize,
    pub(crate) bytes: BytesMut,
}

pub(crate) struct Flow {
    number: usize,
    sender: End,
    receiver: End,
    stream: Option<StreamId>,
    busy: bool,
    pub(crate) from: Duration,
    until: Duration,
    pub(crate) tally: Tally,
}

/// Sums; see [`Tally::since`].
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    /// Bytes of the application that arrived.
    pub(crate) arrived: u64,
    /// Smoothed round trips, seen when packets arrive at the sender, in seconds, and how many.
    pub(crate) round_trips: f64,
    pub(crate) looks: u64,
}

impl Tally {
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            arrived: self.arrived - before.arrived,
            round_trips: self.round_trips - before.round_trips,
            looks: self.looks - before.looks,
        }
    }
}

impl Flow {
    pub(crate) fn new(number: usize, sends: &Sends, begin: Instant) -> Self {
        let (site, collector) = &*IDENTITIES;
        let port = u16::try_from(number).unwrap();
        let (here, there) = (address(10_000 + port), address(20_000 + port));
        let mut server = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(collector.server_config().unwrap()).unwrap()));
        let receiving = LinkSettings {
            idle_timeout: COLLECTOR_IDLE,
            receive_window: u32::MAX,
            stream_receive_window: u32::MAX,
            ..LinkSettings::collector()
        };
        server.transport_config(receiving.transport(&LineMemory::default()));
        let mut client = ClientConfig::new(Arc::new(QuicClientConfig::try_from(site.client_config().unwrap()).unwrap()));
        let sending = LinkSettings { send_window: SEND_WINDOW, ..sends.settings.clone() };
        client.transport_config(sending.transport(&sends.memory));

        let config = Arc::new(EndpointConfig::default());
        let mut sender = End { endpoint: Endpoint::new(Arc::clone(&config), None, true, None), connection: None, remote: there };
        sender.connection = Some(sender.endpoint.connect(begin, client, there, "localhost").unwrap());
        let receiver = End { endpoint: Endpoint::new(config, Some(Arc::new(server)), true, None), connection: None, remote: here };
        Self { number, sender, receiver, stream: None, busy: sends.busy, from: sends.from, until: sends.until, tally: Tally::default() }
    }

    /// The applications' part: write while there is room, read what is there.
    pub(crate) fn work(&mut self, now: Instant, time: Duration) {
        if let Some((_, connection)) = &mut self.sender.connection {
            while let Some(event) = connection.poll() {
                assert!(!matches!(event, Event::ConnectionLost { .. }), "flow {}: {event:?}", self.number);
            }
            if time >= self.until {
                if !connection.is_closed() {
                    connection.close(now, VarInt::from_u32(0), Bytes::new());
                }
            } else if self.busy && !connection.is_handshaking() {
                let stream = *self.stream.get_or_insert_with(|| connection.streams().open(Dir::Uni).unwrap());
                while connection.send_stream(stream).write(&CHUNK).is_ok() {}
            }
        }
        let (Some((_, connection)), Some(stream)) = (&mut self.receiver.connection, self.stream) else { return };
        while connection.poll().is_some() {}
        while connection.streams().accept(Dir::Uni).is_some() {}
        let mut received = connection.recv_stream(stream);
        if let Ok(mut chunks) = received.read(false) {
            while let Ok(Some(chunk)) = chunks.next(usize::MAX) {
                self.tally.arrived += chunk.bytes.len() as u64;
            }
            // Whether windows are to be told is seen when packets are asked for.
            drop(chunks);
        }
    }

    pub(crate) fn sender_packets(&mut self, now: Instant) -> Vec<Packet> {
        self.sender.packets(now, self.number)
    }

    pub(crate) fn receiver_packets(&mut self, now: Instant) -> Vec<Packet> {
        self.receiver.packets(now, self.number)
    }

    pub(crate) fn receiver_takes(&mut self, now: Instant, bytes: BytesMut) {
        self.receiver.take(now, bytes);
    }

    pub(crate) fn sender_takes(&mut self, now: Instant, bytes: BytesMut) {
        self.sender.take(now, bytes);
        if let (Some((_, connection)), Some(_)) = (&self.sender.connection, self.stream) {
            self.tally.round_trips += connection.rtt().as_secs_f64();
            self.tally.looks += 1;
        }
    }

    pub(crate) fn timeouts(&mut self, now: Instant) {
        self.sender.timeouts(now);
        self.receiver.timeouts(now);
    }

    pub(crate) fn next_timer(&mut self) -> Option<Instant> {
        let timer = |end: &mut End| end.connection.as_mut().and_then(|(_, connection)| connection.poll_timeout());
        [timer(&mut self.sender), timer(&mut self.receiver)].into_iter().flatten().min()
    }
}

pub(crate) struct End {
    pub(crate) endpoint: Endpoint,
    pub(crate) connection: Option<(ConnectionHandle, Connection)>,
    pub(crate) remote: SocketAddr,
}

impl End {
    pub(crate) fn packets(&mut self, now: Instant, flow: usize) -> Vec<Packet> {
        let mut packets = Vec::new();
        if let Some((_, connection)) = &mut self.connection {
            let mut buffer = Vec::new();
            while connection.poll_transmit(now, 1, &mut buffer).is_some() {
                packets.push(Packet { flow, bytes: BytesMut::from(&buffer[..]) });
                buffer.clear();
            }
        }
        packets
    }

    pub(crate) fn take(&mut self, now: Instant, bytes: BytesMut) {
        let mut answer = Vec::new();
        match self.endpoint.handle(now, self.remote, None, None, bytes, &mut answer) {
            Some(DatagramEvent::NewConnection(incoming)) => {
                self.connection = Some(self.endpoint.accept(incoming, now, &mut answer, None).unwrap());
            }
            Some(DatagramEvent::ConnectionEvent(_, event)) => {
                if let Some((_, connection)) = &mut self.connection {
                    connection.handle_event(event);
                }
            }
            Some(DatagramEvent::Response(_)) | None => {}
        }
        self.endpoint_events();
    }

    pub(crate) fn timeouts(&mut self, now: Instant) {
        if let Some((_, connection)) = &mut self.connection
            && connection.poll_timeout().is_some_and(|at| at <= now)
        {
            connection.handle_timeout(now);
        }
        self.endpoint_events();
    }

    fn endpoint_events(&mut self) {
        let Some((handle, connection)) = &mut self.connection else { return };
        while let Some(event) = connection.poll_endpoint_events() {
            if let Some(event) = self.endpoint.handle_event(*handle, event) {
                connection.handle_event(event);
            }
        }
    }
}

pub(crate) fn address(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}
