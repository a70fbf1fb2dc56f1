//! A collector for tests: orders frames, keeps what it is sent, breaks what a test wants broken. It is strict: whatever an honest agent does
//! not do is written down as a failure.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};

use quinn::{Connection, ConnectionError, RecvStream, SendStream};
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use spillway_link::{Identity, IdentityFiles, LinkServer, LinkSettings, Role};
use spillway_proto::codec::Reader;
use spillway_proto::compress::Decompressor;
use spillway_proto::frame::{Frame, GapReason, SectionKind};
use spillway_proto::message::{self, AgentMessage, CollectorMessage, Hold, HoldReason, MessageBuffer, ResumePoint, Welcome};
use spillway_proto::{CloseCode, Lane, NextOffset, TopicId};
use tempfile::TempDir;
use tokio::sync::{broadcast, mpsc};

type Source = (String, u32);

#[derive(Debug, Clone, Default)]
pub(crate) struct State {
    positions: BTreeMap<Source, (TopicId, u64)>,
    values: BTreeMap<Source, Vec<String>>,
    pub(crate) gaps: Vec<(String, u32, u64, u64, GapReason)>,
    pub(crate) failures: Vec<String>,
    pub(crate) sessions: usize,
    /// The codes by which the agent ended sessions.
    pub(crate) closes: Vec<CloseCode>,
    pub(crate) holds: usize,
    pub(crate) flushes: usize,
    held: Vec<Lane>,
    refused: Option<(Source, u64)>,
    cut_after: usize,
    withhold_acks: bool,
    raw_bytes: u64,
    away: bool,
    /// Attempts to connect while it was away.
    pub(crate) refusals: usize,
}

impl State {
    pub(crate) fn records(&self) -> usize {
        self.values.values().map(Vec::len).sum()
    }

    pub(crate) fn next(&self, topic: &str, partition: u32) -> Option<u64> {
        self.positions.get(&(topic.to_owned(), partition)).map(|(_, next)| *next)
    }

    pub(crate) fn values(&self, topic: &str, partition: u32) -> Vec<String> {
        self.values.get(&(topic.to_owned(), partition)).cloned().unwrap_or_default()
    }
}

pub(crate) struct Centre {
    state: Arc<Mutex<State>>,
    server: Arc<LinkServer>,
    issuer: Issuer<'static, KeyPair>,
    ca: String,
    orders: broadcast::Sender<Order>,
    _folder: TempDir,
}

#[derive(Debug, Clone)]
enum Order {
    Cut,
    Retry,
    /// Anything at all, so many times, on the control stream.
    Say(Vec<u8>, usize),
    /// The control stream ends.
    EndControl,
}

impl Centre {
    pub(crate) async fn start() -> Self {
        let folder = TempDir::new().unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let authority = params.self_signed(&key).unwrap();
        let issuer = Issuer::from_ca_cert_der(authority.der(), key).unwrap();
        let ca = authority.pem();
        let files = issue(&issuer, &ca, "server", ExtendedKeyUsagePurpose::ServerAuth, folder.path());
        let identity = Identity::load(&files, Role::Collector, SystemTime::now()).unwrap();
        let server = Arc::new(LinkServer::bind("127.0.0.1:0".parse().unwrap(), &identity, &LinkSettings::collector()).unwrap());
        let state = State { cut_after: usize::MAX, raw_bytes: 1 << 20, ..State::default() };
        let (orders, _) = broadcast::channel(16);
        let centre = Self { state: Arc::new(Mutex::new(state)), server, issuer, ca, orders, _folder: folder };
        let (server, state, orders) = (Arc::clone(&centre.server), Arc::clone(&centre.state), centre.orders.clone());
        tokio::spawn(async move {
            while let Some(incoming) = server.accept().await {
                if lock(&state).away {
                    lock(&state).refusals += 1;
                    incoming.refuse();
                    continue;
                }
                let (state, orders) = (Arc::clone(&state), orders.subscribe());
                tokio::spawn(async move {
                    if let Ok(connection) = incoming.accept().unwrap().await {
                        session(connection, state, orders).await;
                    }
                });
            }
        });
        centre
    }

    pub(crate) fn address(&self) -> String {
        format!("localhost:{}", self.server.local_addr().unwrap().port())
    }

    /// Writes the three files of a site.
    pub(crate) fn issue(&self, site: &str, folder: &Path) {
        issue(&self.issuer, &self.ca, site, ExtendedKeyUsagePurpose::ClientAuth, folder);
    }

    pub(crate) fn state(&self) -> State {
        lock(&self.state).clone()
    }

    /// Every session is cut after so many frames; half of what it was sent by then is not acknowledged.
    pub(crate) fn cut_after_frames(&self, frames: usize) {
        lock(&self.state).cut_after = frames;
    }

    pub(crate) fn withhold_acks(&self, withhold: bool) {
        lock(&self.state).withhold_acks = withhold;
    }

    pub(crate) fn allow_raw_bytes(&self, bytes: u64) {
        lock(&self.state).raw_bytes = bytes;
    }

    pub(crate) fn refuse(&self, topic: &str, partition: u32, offset: Option<u64>) {
        lock(&self.state).refused = offset.map(|offset| ((topic.to_owned(), partition), offset));
    }

    /// Cuts the session, if there is one.
    pub(crate) fn cut(&self) {
        drop(self.orders.send(Order::Cut));
    }

    /// Cuts the session and refuses others, until it is back.
    pub(crate) fn away(&self, away: bool) {
        lock(&self.state).away = away;
        if away {
            self.cut();
        }
    }

    /// Says anything at all, so many times.
    pub(crate) fn say(&self, bytes: &[u8], times: usize) {
        self.orders.send(Order::Say(bytes.to_vec(), times)).unwrap();
    }

    /// Ends the control stream.
    pub(crate) fn end_control(&self) {
        self.orders.send(Order::EndControl).unwrap();
    }

    pub(crate) fn retry(&self) {
        self.orders.send(Order::Retry).unwrap();
    }

    pub(crate) async fn wait(&self, what: &str, reached: impl Fn(&State) -> bool) {
        let begun = Instant::now();
        while !reached(&self.state()) {
            let state = self.state();
            assert!(begun.elapsed() < Duration::from_secs(40), "waited in vain for {what}: {:?} {:?}", state.positions, state.failures);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

struct OpenLane {
    source: Source,
    topic_id: TopicId,
    /// None: it waits for its start or gap.
    next: Option<u64>,
    dead: bool,
}

struct Session {
    state: Arc<Mutex<State>>,
    lanes: BTreeMap<Lane, OpenLane>,
    decompressor: Decompressor,
    frames: usize,
    refused: Option<(Source, u64)>,
}

async fn session(connection: Connection, state: Arc<Mutex<State>>, mut orders: broadcast::Receiver<Order>) {
    let Ok((mut send, receive)) = connection.accept_bi().await else { return };
    let raw_bytes = {
        let mut state = lock(&state);
        state.sessions += 1;
        state.raw_bytes
    };
    tokio::spawn(note_close(connection.clone(), Arc::clone(&state)));
    let (messages_out, mut messages) = mpsc::channel(100);
    tokio::spawn(read_control(receive, messages_out));
    let (frames_out, mut frames) = mpsc::channel(100);
    tokio::spawn(read_frames(connection.clone(), frames_out));
    let refused = lock(&state).refused.clone();
    let mut session = Session { state, lanes: BTreeMap::new(), decompressor: Decompressor::new().unwrap(), frames: 0, refused };
    let mut waiting = BTreeMap::new();
    let mut next_seq = 0;
    loop {
        tokio::select! {
            message = messages.recv() => match message {
                Some(AgentMessage::Hello(_)) => {
                    let software = "test".to_owned();
                    let welcome = Welcome { version: message::VERSION, software, max_frame_raw_bytes: raw_bytes, max_in_flight_bytes: 1 << 24 };
                    say(&mut send, CollectorMessage::Welcome(welcome)).await;
                }
                Some(AgentMessage::Open(open)) => {
                    let answer = session.open(open);
                    say(&mut send, answer).await;
                }
                Some(AgentMessage::Flush) => lock(&session.state).flushes += 1,
                Some(AgentMessage::CloseLane(_) | AgentMessage::Ignored(_)) => {}
                None => return,
            },
            Some((seq, bytes)) = frames.recv() => {
                waiting.insert(seq, bytes);
                while let Some(bytes) = waiting.remove(&next_seq) {
                    next_seq += 1;
                    for answer in session.apply(bytes, raw_bytes) {
                        say(&mut send, answer).await;
                    }
                }
                if session.frames >= lock(&session.state).cut_after {
                    return cut(&connection);
                }
            },
            order = orders.recv() => match order.unwrap() {
                Order::Cut => return cut(&connection),
                Order::Say(bytes, times) => {
                    for _ in 0..times {
                        drop(send.write_all(&bytes).await);
                    }
                }
                Order::EndControl => drop(send.finish()),
                Order::Retry => {
                    session.refused = None;
                    let held = std::mem::take(&mut lock(&session.state).held);
                    for lane in held {
                        say(&mut send, CollectorMessage::Retry(lane)).await;
                    }
                }
            },
        }
    }
}

async fn note_close(connection: Connection, state: Arc<Mutex<State>>) {
    if let ConnectionError::ApplicationClosed(close) = connection.closed().await {
        lock(&state).closes.push(CloseCode::from_code(close.error_code.into_inner()).expect("a known code"));
    }
}

fn cut(connection: &Connection) {
    connection.close(CloseCode::ShuttingDown.code().into(), b"cut by the test");
}

impl Session {
    fn open(&mut self, open: message::OpenLane) -> CollectorMessage {
        let source = (open.source.topic.to_string(), open.source.partition.index());
        for lane in self.lanes.values_mut().filter(|lane| lane.source == source) {
            lane.dead = true;
        }
        let state = lock(&self.state);
        let resume = match state.positions.get(&source) {
            None => ResumePoint::Fresh,
            Some((id, next)) if id.is_other_incarnation(open.topic_id) => {
                ResumePoint::Recreated { previous: *id, next: NextOffset::new(*next).unwrap() }
            }
            Some((_, next)) => ResumePoint::At(NextOffset::new(*next).unwrap()),
        };
        let next = if let ResumePoint::At(next) = resume { Some(next.value()) } else { None };
        let book = OpenLane { source, topic_id: open.topic_id, next, dead: false };
        if self.lanes.insert(open.lane, book).is_some() {
            fail(state, format!("lane {} was opened twice", open.lane));
        }
        CollectorMessage::Resume { lane: open.lane, resume }
    }

    fn apply(&mut self, bytes: Vec<u8>, raw_bytes: u64) -> Vec<CollectorMessage> {
        let mut state = lock(&self.state);
        self.frames += 1;
        let frame = Frame::decode(bytes.into(), raw_bytes as usize).unwrap();
        let body = frame.open(&mut self.decompressor).unwrap();
        let mut acks = Vec::new();
        let mut holds = Vec::new();
        for (index, section) in frame.sections().iter().enumerate() {
            let Some(lane) = self.lanes.get_mut(&section.lane).filter(|lane| !lane.dead) else { continue };
            match section.kind {
                SectionKind::Start { next } => lane.next = Some(lane.next.unwrap_or_else(|| next.value())),
                SectionKind::Gap { first, next, reason } if lane.next.is_none_or(|at| at == first.value()) => {
                    let (topic, partition) = lane.source.clone();
                    state.gaps.push((topic, partition, first.value(), next.value(), reason));
                    if reason == GapReason::TopicRecreated {
                        state.values.remove(&lane.source);
                    }
                    lane.next = Some(next.value());
                }
                SectionKind::Gap { .. } => {}
                SectionKind::Data { first, next, .. } => {
                    let Some(at) = lane.next.filter(|at| first.value() <= *at) else {
                        fail(state, format!("{:?}: {first} after {:?}", lane.source, lane.next));
                        return Vec::new();
                    };
                    let mut reached = at.max(next.value());
                    for record in body.records(&frame, index) {
                        let record = record.unwrap();
                        if self.refused.as_ref().is_some_and(|(source, offset)| *source == lane.source && *offset == record.offset.value())
                        {
                            reached = record.offset.value();
                            lane.dead = true;
                            let hold = Hold {
                                lane: section.lane,
                                next: NextOffset::new(reached).unwrap(),
                                reason: HoldReason::RecordTooLarge,
                                detail: "the test refuses it".to_owned(),
                            };
                            holds.push(CollectorMessage::Hold(hold));
                            state.holds += 1;
                            state.held.push(section.lane);
                            break;
                        }
                        if record.offset.value() >= at {
                            let value = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
                            state.values.entry(lane.source.clone()).or_default().push(value);
                        }
                    }
                    lane.next = Some(reached);
                }
            }
            let at = lane.next.unwrap();
            state.positions.insert(lane.source.clone(), (lane.topic_id, at));
            if !lane.dead {
                acks.push((section.lane, NextOffset::new(at).unwrap()));
            }
        }
        // Where sessions are cut, the last frames are committed and not acknowledged: the case that makes duplicates.
        if !state.withhold_acks && self.frames <= state.cut_after / 2 && !acks.is_empty() {
            holds.insert(0, CollectorMessage::Ack(acks));
        }
        holds
    }
}

fn fail(mut state: MutexGuard<'_, State>, failure: String) {
    state.failures.push(failure);
}

async fn say(send: &mut SendStream, message: CollectorMessage) {
    let mut bytes = Vec::new();
    message.encode(&mut bytes);
    // A session that is over by now needs no answer.
    drop(send.write_all(&bytes).await);
}

async fn read_control(mut receive: RecvStream, messages: mpsc::Sender<AgentMessage>) {
    let mut buffer = MessageBuffer::default();
    while let Ok(Some(chunk)) = receive.read_chunk(65_536, true).await {
        buffer.push(&chunk.bytes);
        while let Some(bytes) = buffer.take().unwrap() {
            if messages.send(AgentMessage::decode(bytes).unwrap()).await.is_err() {
                return;
            }
        }
    }
}

async fn read_frames(connection: Connection, frames: mpsc::Sender<(u64, Vec<u8>)>) {
    while let Ok(mut stream) = connection.accept_uni().await {
        let frames = frames.clone();
        tokio::spawn(async move {
            let Ok(bytes) = stream.read_to_end(1 << 24).await else { return };
            let mut reader = Reader::new(&bytes);
            assert_eq!(reader.varint("type").unwrap(), message::STREAM_FRAME);
            let seq = reader.varint("number").unwrap();
            let at = reader.position();
            drop(frames.send((seq, bytes[at..].to_vec())).await);
        });
    }
}

fn issue(issuer: &Issuer<'static, KeyPair>, ca: &str, name: &str, purpose: ExtendedKeyUsagePurpose, folder: &Path) -> IdentityFiles {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.extended_key_usages = vec![purpose];
    let certificate = params.signed_by(&key, issuer).unwrap();
    let path = |file: String| folder.join(file);
    let files = IdentityFiles { ca: path("ca.pem".into()), cert: path(format!("{name}.pem")), key: path(format!("{name}.key")) };
    std::fs::write(&files.ca, ca).unwrap();
    std::fs::write(&files.cert, certificate.pem()).unwrap();
    std::fs::write(&files.key, key.serialize_pem()).unwrap();
    files
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap()
}
