//! One session of the test's collector.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use quinn::{Connection, ConnectionError, RecvStream, SendStream};
use spillway_proto::codec::Reader;
use spillway_proto::compress::Decompressor;
use spillway_proto::dictionary::DictionaryId;
use spillway_proto::frame::{Frame, FrameAfter, GapReason, SectionKind};
use spillway_proto::history::{Decoder, Restorer};
use spillway_proto::message::{
    self, AgentMessage, CollectorMessage, Hold, HoldReason, MessageBuffer, ResumePoint, SettingsOutcome, Welcome,
};
use spillway_proto::{CloseCode, FrameSeq, Lane, NextOffset, TopicId};
use tokio::sync::{broadcast, mpsc};

use super::{Order, Source, State, lock};

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
    version: u8,
    asked: BTreeSet<DictionaryId>,
    restorer: Restorer,
    decoder: Decoder,
}

/// What a stream held behind the frame's number.
struct Came {
    bytes: Bytes,
    has_history: bool,
}

pub(super) async fn session(connection: Connection, state: Arc<Mutex<State>>, mut orders: broadcast::Receiver<Order>) {
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
    let version = lock(&state).version;
    let mut session = Session {
        state,
        lanes: BTreeMap::new(),
        decompressor: Decompressor::new().unwrap(),
        frames: 0,
        refused,
        version,
        asked: BTreeSet::new(),
        restorer: Restorer::default(),
        decoder: Decoder::new().unwrap(),
    };
    let mut waiting = BTreeMap::new();
    let mut next_seq = 0;
    loop {
        tokio::select! {
            message = messages.recv() => match message {
                Some(AgentMessage::Hello(_)) => {
                    let software = "test".to_owned();
                    let welcome = Welcome { version: session.version, software, max_frame_raw_bytes: raw_bytes, max_in_flight_bytes: 1 << 24 };
                    say(&mut send, CollectorMessage::Welcome(welcome)).await;
                    let settings = lock(&session.state).settings.clone();
                    if let Some(settings) = settings {
                        say(&mut send, CollectorMessage::Settings(settings)).await;
                    }
                }
                Some(AgentMessage::Open(open)) => {
                    let answer = session.open(open);
                    say(&mut send, answer).await;
                }
                Some(AgentMessage::Dictionary(dictionary)) => {
                    lock(&session.state).dictionaries.insert(dictionary.id(), Arc::new(dictionary));
                    for answer in session.apply_ready(&mut waiting, &mut next_seq, raw_bytes) {
                        say(&mut send, answer).await;
                    }
                }
                Some(AgentMessage::Flush) => lock(&session.state).flushes += 1,
                Some(AgentMessage::SettingsReport(report)) => {
                    say(&mut send, CollectorMessage::SettingsSeen(report.revision)).await;
                    let cuts_off = {
                        let mut state = lock(&session.state);
                        let cuts_off = report.outcome == SettingsOutcome::Trying && state.cuts_off == Some(report.revision);
                        state.away |= cuts_off;
                        state.reports.push(report);
                        cuts_off
                    };
                    if cuts_off {
                        return cut(&connection);
                    }
                }
                Some(AgentMessage::CloseLane(_) | AgentMessage::Ignored(_)) => {}
                None => return,
            },
            Some((seq, came)) = frames.recv() => {
                waiting.insert(seq, came);
                for answer in session.apply_ready(&mut waiting, &mut next_seq, raw_bytes) {
                    say(&mut send, answer).await;
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

    /// Applies what has arrived in order, up to a frame whose dictionary or history is not there.
    fn apply_ready(&mut self, waiting: &mut BTreeMap<u64, Came>, next_seq: &mut u64, raw_bytes: u64) -> Vec<CollectorMessage> {
        let mut answers = Vec::new();
        while let Some(came) = waiting.remove(next_seq) {
            let (seq, limit) = (FrameSeq(*next_seq), raw_bytes as usize);
            let mut after = came.has_history.then(|| FrameAfter::decode(seq, &came.bytes, limit).unwrap());
            let mut frame = match &after {
                Some(after) => after.frame().clone(),
                None => Frame::decode(came.bytes.clone(), limit).unwrap(),
            };
            if let Some(id) = frame.missing_dictionary() {
                let mut state = lock(&self.state);
                let Some(dictionary) = state.dictionaries.get(&id).cloned() else {
                    waiting.insert(*next_seq, came);
                    if self.asked.insert(id) {
                        state.dictionaries_asked += 1;
                        answers.push(CollectorMessage::WantDictionary(id));
                    }
                    return answers;
                };
                frame.attach(Arc::clone(&dictionary));
                if let Some(after) = &mut after {
                    after.frame_mut().attach(dictionary);
                }
            }
            match after {
                None => self.restorer.arrived(seq, &frame),
                Some(after) => {
                    let mut state = lock(&self.state);
                    if self.version < message::HISTORY_SINCE {
                        fail(state, format!("history in a session of version {}", self.version));
                        return answers;
                    }
                    state.with_history += 1;
                    if state.again > 0 {
                        state.again -= 1;
                        state.asked_again += 1;
                        answers.push(CollectorMessage::FrameAgain(seq));
                        return answers;
                    }
                    assert!(!self.restorer.waits(&after), "all before it has been applied");
                    frame = self.restorer.restore(&after, &mut self.decoder).unwrap();
                }
            }
            *next_seq += 1;
            answers.extend(self.apply(frame));
        }
        answers
    }

    fn apply(&mut self, frame: Frame) -> Vec<CollectorMessage> {
        let mut state = lock(&self.state);
        self.frames += 1;
        if frame.codec().since() > self.version {
            fail(state, format!("{:?} in a session of version {}", frame.codec(), self.version));
            return Vec::new();
        }
        state.codecs.entry(self.version).or_default().push(frame.codec());
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

async fn read_frames(connection: Connection, frames: mpsc::Sender<(u64, Came)>) {
    while let Ok(mut stream) = connection.accept_uni().await {
        let frames = frames.clone();
        tokio::spawn(async move {
            let Ok(bytes) = stream.read_to_end(1 << 24).await else { return };
            let mut reader = Reader::new(&bytes);
            let kind = reader.varint("type").unwrap();
            assert!([message::STREAM_FRAME, message::STREAM_FRAME_AFTER].contains(&kind));
            let seq = reader.varint("number").unwrap();
            let bytes = Bytes::copy_from_slice(&bytes[reader.position()..]);
            drop(frames.send((seq, Came { bytes, has_history: kind == message::STREAM_FRAME_AFTER })).await);
        });
    }
}
