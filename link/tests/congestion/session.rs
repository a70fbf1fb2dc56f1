//! What a short session costs: connect, burst, disconnect, with the messages that agent and collector say to each other.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use quinn_proto::{
    ClientConfig, Connection, Dir, Endpoint, EndpointConfig, ServerConfig, Side, StreamId, VarInt,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use rand::{RngCore, SeedableRng, rngs::StdRng};
use spillway_link::{LineMemory, LinkSettings};
use spillway_proto::{
    Lane, NextOffset, Partition, TopicId, TopicName, TopicPartition,
    message::{
        AgentMessage, CollectorMessage, Hello, MessageBuffer, OpenLane, ResumePoint, Settings, SettingsOutcome, SettingsReport, Welcome,
        revision,
    },
};
use spillway_wan::{Line, Shape};

use crate::{
    flow::{End, IDENTITIES, address},
    sim::{Sends, Sim, ms, secs},
};

/// IPv4 and UDP.
const HEADERS: usize = 28;

/// From the last frame to its commit.
const COMMIT: Duration = ms(20);

/// The promise: most bytes of both directions, headers of IP and UDP included, that are no frame.
const PROMISED: u64 = 8 * 1024;

/// Most bytes of a packet that the path carries.
const PATH_MTU: usize = 1400;

/// What the centre says of the site.
const SITE: &str = "[link]\nrate_max = \"512kbit\"\nprofile = \"session\"\n";

/// What a session carries.
#[derive(Clone, Copy)]
struct Burst {
    lanes: u32,
    frames: usize,
    frame_bytes: usize,
}

/// Bytes at the IP level.
#[derive(Clone, Copy, Debug)]
struct Cost {
    up: u64,
    up_packets: u64,
    down: u64,
    down_packets: u64,
    /// Of all that.
    frames: u64,
    too_large: u64,
}

impl Cost {
    fn overhead(&self) -> u64 {
        self.up + self.down - self.frames
    }
}

/// The two ends.
struct Pair {
    agent: End,
    collector: End,
    burst: Burst,
    /// What the agent has heard, and the collector.
    heard: [MessageBuffer; 2],
    said_hello: bool,
    resumed: u32,
    gave_frames: bool,
    /// Streams of frames that have not arrived as a whole.
    arriving: Vec<StreamId>,
    /// Those that have.
    arrived: usize,
    commit_at: Option<Duration>,
    is_acked: bool,
}

/// Its first stream.
fn control() -> StreamId {
    StreamId::new(Side::Client, Dir::Bi, 0)
}

impl Pair {
    fn new(begin: Instant, settings: &LinkSettings, memory: &LineMemory, burst: Burst) -> Self {
        let (site, collector) = &*IDENTITIES;
        let mut server = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(collector.server_config().unwrap()).unwrap()));
        server.transport_config(LinkSettings::collector().transport(&LineMemory::default()));
        let mut client = ClientConfig::new(Arc::new(QuicClientConfig::try_from(site.client_config().unwrap()).unwrap()));
        client.transport_config(settings.transport(memory));
        let config = Arc::new(EndpointConfig::default());
        let (here, there) = (address(10_000), address(20_000));
        let mut agent = End { endpoint: Endpoint::new(Arc::clone(&config), None, true, None), connection: None, remote: there };
        agent.connection = Some(agent.endpoint.connect(begin, client, there, "localhost").unwrap());
        let collector = End { endpoint: Endpoint::new(config, Some(Arc::new(server)), true, None), connection: None, remote: here };
        let (heard, arriving) = (Default::default(), Vec::new());
        Self {
            agent,
            collector,
            burst,
            heard,
            said_hello: false,
            resumed: 0,
            gave_frames: false,
            arriving,
            arrived: 0,
            commit_at: None,
            is_acked: false,
        }
    }

    fn is_over(&self) -> bool {
        let is_gone = |end: &End| end.connection.as_ref().is_some_and(|(_, connection)| connection.is_drained());
        is_gone(&self.agent) && is_gone(&self.collector)
    }

    fn agent_works(&mut self, now: Instant) {
        let Some(connection) = open_one(&mut self.agent) else { return };
        if !std::mem::replace(&mut self.said_hello, true) {
            assert_eq!(connection.streams().open(Dir::Bi), Some(control()));
            say(connection, |out| {
                AgentMessage::Hello(Hello { min_version: 1, max_version: 2, software: "0.1.0".to_owned() }).encode(out);
            });
        }
        hear(connection, &mut self.heard[0]);
        while let Some(message) = self.heard[0].take().unwrap().map(|bytes| CollectorMessage::decode(bytes).unwrap()) {
            match message {
                CollectorMessage::Welcome(_) => say(connection, |out| (0..self.burst.lanes).for_each(|lane| open(lane).encode(out))),
                CollectorMessage::Settings(settings) => {
                    let report = SettingsReport { revision: settings.revision, outcome: SettingsOutcome::Accepted, detail: String::new() };
                    say(connection, |out| AgentMessage::SettingsReport(report).encode(out));
                }
                CollectorMessage::Resume { .. } => self.resumed += 1,
                CollectorMessage::SettingsSeen(_) if self.burst.frames == 0 => {
                    return connection.close(now, VarInt::from_u32(0), Bytes::new());
                }
                CollectorMessage::Ack(_) => return connection.close(now, VarInt::from_u32(0), Bytes::new()),
                _ => {}
            }
        }
        if self.resumed == self.burst.lanes && self.burst.frames > 0 && !std::mem::replace(&mut self.gave_frames, true) {
            let mut random = StdRng::seed_from_u64(1);
            for seq in 0..self.burst.frames {
                let stream = connection.streams().open(Dir::Uni).unwrap();
                // The stream's type, the frame's number, the frame.
                let mut bytes = vec![0; 2 + self.burst.frame_bytes];
                random.fill_bytes(&mut bytes[2..]);
                bytes[1] = u8::try_from(seq).unwrap();
                assert_eq!(connection.send_stream(stream).write(&bytes), Ok(bytes.len()), "the windows hold the burst");
                connection.send_stream(stream).finish().unwrap();
            }
            say(connection, |out| AgentMessage::Flush.encode(out));
        }
    }

    fn collector_works(&mut self, time: Duration) {
        let Some(connection) = open_one(&mut self.collector) else { return };
        _ = connection.streams().accept(Dir::Bi);
        hear(connection, &mut self.heard[1]);
        while let Some(message) = self.heard[1].take().unwrap().map(|bytes| AgentMessage::decode(bytes).unwrap()) {
            say(connection, |out| match message {
                AgentMessage::Hello(_) => {
                    let (version, software) = (2, "0.1.0".to_owned());
                    CollectorMessage::Welcome(Welcome { version, software, max_frame_raw_bytes: 8 << 20, max_in_flight_bytes: 64 << 20 })
                        .encode(out);
                    CollectorMessage::Settings(Settings { revision: revision(SITE), text: SITE.to_owned() }).encode(out);
                }
                AgentMessage::SettingsReport(report) => CollectorMessage::SettingsSeen(report.revision).encode(out),
                AgentMessage::Open(open) => CollectorMessage::Resume { lane: open.lane, resume: ResumePoint::At(next()) }.encode(out),
                _ => {}
            });
        }
        while let Some(stream) = connection.streams().accept(Dir::Uni) {
            self.arriving.push(stream);
        }
        let before = self.arriving.len();
        self.arriving.retain(|stream| read(connection, *stream, |_| {}));
        self.arrived += before - self.arriving.len();
        if self.arrived > 0 && self.arrived == self.burst.frames {
            let commit_at = *self.commit_at.get_or_insert(time + COMMIT);
            if commit_at <= time && !std::mem::replace(&mut self.is_acked, true) {
                let acks = (0..self.burst.lanes).map(|lane| (Lane(lane), next())).collect();
                say(connection, |out| CollectorMessage::Ack(acks).encode(out));
            }
        }
    }

    fn next_timer(&mut self) -> Option<Instant> {
        let timer = |end: &mut End| end.connection.as_mut().and_then(|(_, connection)| connection.poll_timeout());
        [timer(&mut self.agent), timer(&mut self.collector)].into_iter().flatten().min()
    }
}

/// The connection, if both sides may use it.
fn open_one(end: &mut End) -> Option<&mut Connection> {
    let (_, connection) = end.connection.as_mut()?;
    while connection.poll().is_some() {}
    (!connection.is_handshaking() && !connection.is_closed()).then_some(connection)
}

fn say(connection: &mut Connection, encode: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = Vec::new();
    encode(&mut bytes);
    assert_eq!(connection.send_stream(control()).write(&bytes), Ok(bytes.len()));
}

fn hear(connection: &mut Connection, heard: &mut MessageBuffer) {
    read(connection, control(), |bytes| heard.push(bytes));
}

/// Takes what has arrived on a stream; false when that was its end.
fn read(connection: &mut Connection, stream: StreamId, mut take: impl FnMut(&[u8])) -> bool {
    let mut received = connection.recv_stream(stream);
    let Ok(mut chunks) = received.read(true) else { return true };
    loop {
        match chunks.next(usize::MAX) {
            Ok(Some(chunk)) => take(&chunk.bytes),
            Ok(None) => return false,
            Err(_nothing_more) => return true,
        }
    }
}

fn open(lane: u32) -> AgentMessage {
    let topic = TopicName::parse("telemetry.line-3").unwrap();
    let source = TopicPartition { topic, partition: Partition::new(lane).unwrap() };
    AgentMessage::Open(OpenLane { lane: Lane(lane), source, topic_id: TopicId([7; 16]), partition_count: 64, until: None })
}

/// As after some weeks.
fn next() -> NextOffset {
    NextOffset::new(100_000_000).unwrap()
}

/// Runs a session to its end, in virtual time.
fn session(shape: Shape, settings: &LinkSettings, memory: &LineMemory, burst: Burst) -> Cost {
    let (start, mut now) = (Instant::now(), Duration::ZERO);
    let (mut up, mut down) = (Line::new(shape, 1), Line::new(shape, 2));
    let mut pair = Pair::new(start, settings, memory, burst);
    let mut cost = Cost { up: 0, up_packets: 0, down: 0, down_packets: 0, frames: (burst.frames * burst.frame_bytes) as u64, too_large: 0 };
    while !pair.is_over() {
        assert!(now < secs(300), "the session does not end");
        let instant = start + now;
        pair.agent_works(instant);
        pair.collector_works(now);
        for packet in pair.agent.packets(instant, 0) {
            let bytes = packet.bytes.len() + HEADERS;
            (cost.up, cost.up_packets) = (cost.up + bytes as u64, cost.up_packets + 1);
            if bytes > PATH_MTU {
                cost.too_large += 1;
            } else {
                up.push(now, bytes, packet);
            }
        }
        for packet in pair.collector.packets(instant, 0) {
            let bytes = packet.bytes.len() + HEADERS;
            (cost.down, cost.down_packets) = (cost.down + bytes as u64, cost.down_packets + 1);
            down.push(now, bytes, packet);
        }
        let timer = pair.next_timer().map(|at| at.saturating_duration_since(start));
        let commit = pair.commit_at.filter(|_| !pair.is_acked);
        let next = [timer, commit, up.next_due(), down.next_due()].into_iter().flatten().min().unwrap();
        // A timer that is due already is handled in the next turn, a little later.
        now = next.max(now + Duration::from_micros(1));
        let instant = start + now;
        while let Some(packet) = up.pop(now) {
            pair.collector.take(instant, packet.bytes);
        }
        while let Some(packet) = down.pop(now) {
            pair.agent.take(instant, packet.bytes);
        }
        pair.agent.timeouts(instant);
        pair.collector.timeouts(instant);
    }
    assert!(pair.is_acked || burst.frames == 0, "it ended before its end");
    cost
}

fn satellite() -> Shape {
    Shape { rate: Some(512_000), delay: ms(300), ..Shape::default() }
}

#[test]
fn a_session_costs_8_kb_beside_its_frames() {
    let settings = LinkSettings::agent().short_lived();
    for lanes in [1, 4, 16, 48] {
        for (frames, frame_bytes) in [(0, 0), (1, 1_000), (1, 10_000), (8, 1_000)] {
            let cost = session(satellite(), &settings, &LineMemory::default(), Burst { lanes, frames, frame_bytes });
            println!("{lanes} partitions, {frames} frames of {frame_bytes} bytes: {} beside them; {cost:?}", cost.overhead());
            assert!(cost.overhead() <= PROMISED, "{cost:?}");
            assert_eq!(cost.too_large, 0, "a larger packet was tried");
        }
    }
}

#[test]
fn a_session_takes_the_mtu_that_was_found_and_looks_for_none() {
    let burst = Burst { lanes: 4, frames: 1, frame_bytes: 50_000 };
    let cost = |memory| session(satellite(), &LinkSettings::agent().short_lived(), memory, burst);
    let memory = LineMemory::default();
    let before = cost(&memory);
    // As a site has it whose profile was another one.
    let mut sim = Sim::new(satellite(), 1);
    sim.set_path_mtu(PATH_MTU);
    sim.add(&Sends { memory: memory.clone(), ..Sends::nothing(LinkSettings::agent().metered()) });
    sim.run_until(secs(60));
    assert!(sim.too_large() > 0, "nothing was looked for");
    let after = cost(&memory);
    println!("before {before:?}, after {after:?}");
    assert_eq!((before.too_large, after.too_large), (0, 0));
    assert!(after.up_packets < before.up_packets && after.overhead() < before.overhead());
}
