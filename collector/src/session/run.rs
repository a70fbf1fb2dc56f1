//! The session's loop: one task, one event at a time.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use quinn::{Connection, SendStream};
use spillway_collector_core::sequencer::{Ready, Sequencer, Violation};
use spillway_link::{Side, explain};
use spillway_proto::history::Decoder;
use spillway_proto::message::{self, AgentMessage, CollectorMessage, Hold, HoldReason, ResumePoint, Welcome};
use spillway_proto::{CloseCode, SiteName};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::control::{ControlError, ControlReader};
use super::dictionaries::{Dictionaries, Parked};
use super::frames::{Arrival, Arrived, FrameReader};
use super::handshake::Greeted;
use super::held::{Held, Step};
use super::history::{History, Without};
use super::lanes::{Lanes, Prepared};
use super::outgoing::Outgoing;
use super::refusals::Refusals;
use super::registry::{Entry, Registry};
use super::told::Told;
use super::{Refused, limits};
use crate::centre::Centre;
use crate::custody::{Custody, HeldFrame};
use crate::metrics::ReasonLabel;
use crate::sites::Sites;
use crate::writer::inbox::{Command, Ending, Inbox};
use crate::writer::{self, Event};

/// What all sessions share.
#[derive(Debug)]
pub struct Shared {
    /// The central Kafka.
    pub centre: Arc<Centre>,
    /// Live sessions.
    pub registry: Registry,
    /// The site files.
    pub sites: Arc<Sites>,
    /// Refusals told in the log.
    pub refusals: Refusals,
    /// `session.max_frame_bytes`.
    pub max_frame_bytes: usize,
    /// `session.max_inflight_bytes`.
    pub max_inflight_bytes: usize,
    /// How long the end may take.
    pub shutdown_deadline: Duration,
    /// What sites' frames name.
    pub dictionaries: Dictionaries,
    /// Restores frames with history, of all sessions: each takes some microseconds.
    pub decoder: Mutex<Decoder>,
    /// Cancelled by SIGTERM.
    pub shutdown: CancellationToken,
}

/// How a session's loop ended.
pub(super) enum Over {
    /// The connection is gone.
    Lost,
    /// We close it.
    Close(Refused),
    /// SIGTERM.
    ShuttingDown,
}

pub(super) struct Session {
    pub(super) shared: Arc<Shared>,
    pub(super) site: SiteName,
    version: u8,
    pub(super) entry: Arc<Entry>,
    pub(super) connection: Connection,
    control: ControlReader,
    pub(super) send: SendStream,
    pub(super) outgoing: Outgoing,
    sequencer: Sequencer<HeldFrame>,
    ready: Vec<Ready<HeldFrame>>,
    lanes: Lanes,
    held: Held,
    pub(super) inbox: Arc<Inbox>,
    pub(super) events: mpsc::Receiver<Event>,
    arrivals: mpsc::Receiver<Arrival>,
    pub(super) told: Told,
    parked: Parked,
    history: History,
}

/// Runs a session to its end, the connection's close included.
pub async fn run(shared: Arc<Shared>, greeted: Greeted) {
    let Greeted { connection, site, file, version, hello, control, send } = greeted;
    let meters = shared.centre.meters.clone();
    let limit = shared.max_inflight_bytes + shared.max_frame_bytes;
    let custody = Custody::new(limit, meters.held_bytes.clone());
    let entry = Entry::new(connection.remote_address(), hello.software.clone(), Arc::clone(&custody));
    let (event_sender, events) = mpsc::channel(limits::MAX_WRITER_EVENTS);
    let (arrival_sender, arrivals) = mpsc::channel(limits::MAX_FRAMES_QUEUED);
    let inbox = Arc::new(Inbox::default());
    shared.registry.enter(&site, &entry);
    meters.sites_connected.inc();
    tracing::info!(event = "session_opened", %site, address = %entry.address, agent = hello.software, version, "session opened");
    let press = shared.max_inflight_bytes / 2;
    let (centre, name) = (Arc::clone(&shared.centre), (site.clone(), version));
    let started = writer::start(centre, name, Arc::clone(&inbox), Arc::clone(&custody), press, event_sender);
    let reader = FrameReader {
        connection: connection.clone(),
        version,
        custody,
        max_raw_bytes: shared.max_frame_bytes,
        meters,
        arrivals: arrival_sender,
    };
    let frames = tokio::spawn(reader.run());
    let mut outgoing = Outgoing::new();
    outgoing.push(&CollectorMessage::Welcome(Welcome {
        version,
        software: spillway_ops::cli::VERSION.to_owned(),
        max_frame_raw_bytes: shared.max_frame_bytes as u64,
        max_in_flight_bytes: shared.max_inflight_bytes as u64,
    }));
    let centre = &shared.centre;
    let mut session = Session {
        told: Told::new(file),
        lanes: Lanes::new(site.clone(), centre.policy.clone(), centre.topics.clone()),
        held: Held::new(centre.topics.clone()),
        sequencer: Sequencer::new(limit),
        ready: Vec::new(),
        shared: Arc::clone(&shared),
        site: site.clone(),
        version,
        entry: Arc::clone(&entry),
        connection,
        control,
        send,
        outgoing,
        inbox,
        events,
        arrivals,
        parked: Parked::default(),
        history: History::default(),
    };
    session.tell_settings();
    match started {
        Ok(()) => session.run().await,
        Err(error) => session.close(&Refused::new(CloseCode::Internal, format!("no thread for the site's writer: {error}"))),
    }
    frames.abort();
    shared.registry.leave(&site, &entry);
    shared.centre.meters.sites_connected.dec();
}

/// A session that ends without having said so, by a panic or by the end of its runtime, must not leave its writer behind.
impl Drop for Session {
    fn drop(&mut self) {
        self.inbox.end(Ending::Abandon);
    }
}

impl Session {
    async fn run(mut self) {
        let over = self.work().await;
        self.shared.centre.meters.partitions_held.dec_by(self.held.len() as i64);
        match over {
            Over::Lost => {
                let explanation = explain(&self.connection.closed().await, Side::Collector);
                tracing::info!(event = "session_closed", site = %self.site, reason = explanation.reason, "{explanation}");
                self.inbox.end(Ending::Commit(Instant::now() + limits::LOST_COMMIT_TIMEOUT));
            }
            Over::Close(refused) => {
                let superseded = refused.code == CloseCode::Superseded;
                self.close(&refused);
                self.inbox.end(if superseded { Ending::Abandon } else { Ending::Commit(Instant::now() + limits::LOST_COMMIT_TIMEOUT) });
            }
            Over::ShuttingDown => self.shut_down().await,
        }
        self.writer_ended().await;
    }

    async fn work(&mut self) -> Over {
        let (shutdown, superseded) = (self.shared.shutdown.clone(), self.entry.superseded.clone());
        let connection = self.connection.clone();
        let mut marker = self.shared.centre.tail.watch_marker(&self.site);
        loop {
            let step = tokio::select! {
                biased;
                _ = connection.closed() => Err(Over::Lost),
                () = superseded.cancelled() => Err(Over::Close(Refused::new(CloseCode::Superseded, "a newer session of the site took over"))),
                () = shutdown.cancelled() => Err(Over::ShuttingDown),
                event = self.events.recv() => self.on_event(event),
                Ok(()) = marker.changed() => { self.inbox.push(Command::CheckMarker); Ok(()) }
                written = write(&mut self.send, &mut self.outgoing) => written,
                step = self.held.next() => { self.on_held(step); Ok(()) }
                prepared = self.lanes.prepared() => { self.on_prepared(prepared); Ok(()) }
                () = self.told.changed() => self.on_site_file(),
                message = self.control.next() => self.on_message(message),
                Some(arrival) = self.arrivals.recv() => arrival.map_err(Over::Close).and_then(|arrived| self.on_arrival(arrived)),
            };
            if let Err(over) = step.and_then(|()| self.check_reader()) {
                return over;
            }
        }
    }

    /// An agent that does not read what it is told must not make it pile up here.
    fn check_reader(&self) -> Result<(), Over> {
        let waiting = self.outgoing.waiting_bytes();
        if waiting > limits::MAX_OUTGOING_BYTES {
            let reason = format!("{waiting} bytes of messages wait to be read, at most {} are allowed", limits::MAX_OUTGOING_BYTES);
            return Err(Over::Close(Refused::new(CloseCode::LimitExceeded, reason)));
        }
        Ok(())
    }

    fn on_message(&mut self, message: Result<AgentMessage, ControlError>) -> Result<(), Over> {
        match message {
            Ok(AgentMessage::Open(open)) if open.until.is_some() && self.version < message::DEFERRED_SINCE => {
                Err(Over::Close(Refused::new(CloseCode::ProtocolViolation, "a late lane, which the session's version does not know")))
            }
            Ok(AgentMessage::Open(open)) => {
                self.sequencer.announce(open.lane).map_err(violated)?;
                let lane = open.lane;
                let source = open.source.to_string();
                let (replaces, announced) = self.lanes.announce(open);
                if let Some(old) = replaces {
                    self.sequencer.retire(old).map_err(violated)?;
                }
                if let Err(hold) = announced {
                    self.sequencer.retire(lane).map_err(violated)?;
                    self.tell_hold(&source, hold);
                }
                self.entry.shown().lanes = self.lanes.len();
                Ok(())
            }
            // What the agent sent before may still be on its way; the lane ends when its partition is announced anew.
            Ok(AgentMessage::CloseLane(_) | AgentMessage::Ignored(_)) => Ok(()),
            Ok(AgentMessage::Flush) => {
                self.inbox.push(Command::Flush);
                Ok(())
            }
            Ok(AgentMessage::SettingsReport(report)) => {
                self.on_report(report);
                Ok(())
            }
            Ok(AgentMessage::Dictionary(dictionary)) => {
                let id = dictionary.id();
                self.shared.dictionaries.add(&self.site, Arc::new(dictionary));
                self.parked.take(id).into_iter().try_for_each(|arrived| self.on_arrival(arrived))
            }
            Ok(AgentMessage::Hello(_)) => Err(Over::Close(Refused::new(CloseCode::ProtocolViolation, "a second hello"))),
            Err(ControlError::Lost) => Err(Over::Lost),
            Err(ControlError::Refused(refused)) => Err(Over::Close(refused)),
        }
    }

    fn on_arrival(&mut self, mut arrived: Arrived) -> Result<(), Over> {
        if let Some(id) = arrived.missing_dictionary() {
            match self.shared.dictionaries.find(&self.site, id) {
                Some(dictionary) => arrived.attach(dictionary),
                None => {
                    if let Some(question) = self.parked.park(id, arrived) {
                        self.outgoing.push(&question);
                    }
                    return Ok(());
                }
            }
        }
        let mut next = Some(arrived);
        while let Some(arrived) = next {
            match self.history.take_away(arrived, &self.shared.decoder) {
                Without::Whole(Arrived { seq, frame, .. }) => {
                    let duplicates = self.sequencer.arrive(seq, &Arc::new(frame), &mut self.ready);
                    self.inbox.push_all(&mut self.ready);
                    self.shared.centre.meters.records_duplicate.inc_by(duplicates.map_err(violated)?);
                }
                Without::Waits => {}
                Without::Again(seq, error) => {
                    tracing::warn!(event = "frame_again", site = %self.site, seq = seq.0, %error, "a frame does not fit its history: the agent is asked for it without");
                    self.shared.centre.meters.frames_again.inc();
                    self.outgoing.push(&CollectorMessage::FrameAgain(seq));
                }
            }
            next = self.history.take_ready();
        }
        Ok(())
    }

    fn on_prepared(&mut self, Prepared { open, refused }: Prepared) {
        if !self.lanes.is_current(&open) {
            return;
        }
        let Some(refused) = refused else {
            self.inbox.push(Command::Open(Box::new(open)));
            return;
        };
        let (lane, source, detail) = (open.lane, open.source.to_string(), refused.to_string());
        self.held.hold_topic(lane, source.clone(), open.remote, detail.clone());
        self.shared.centre.meters.partitions_held.inc();
        // Retiring cannot fail: the lane is counted already.
        let _retired = self.sequencer.retire(lane);
        let reason = HoldReason::TopicRefused;
        self.tell_hold(&source, Hold { lane, next: spillway_proto::NextOffset::ZERO, reason, detail });
    }

    fn on_event(&mut self, event: Option<Event>) -> Result<(), Over> {
        let event = event.ok_or_else(|| Over::Close(Refused::new(CloseCode::Internal, "the site's writer has died")))?;
        match event {
            Event::Resumed { lane, resume: resume @ ResumePoint::At(at), until: Some(until), .. } => {
                self.sequencer.resume_late(lane, at, until);
                self.outgoing.push(&CollectorMessage::Resume { lane, resume });
            }
            Event::Resumed { lane, resume, until: _, deferred } => {
                self.sequencer.resume(lane, resume);
                if !deferred.is_empty() {
                    self.outgoing.push(&CollectorMessage::Deferred { lane, deferred });
                }
                self.outgoing.push(&CollectorMessage::Resume { lane, resume });
            }
            Event::Acked(acks) => {
                let mut shown = self.entry.shown();
                shown.last_commit = Some(Timestamp::now());
                drop(shown);
                self.outgoing.ack(acks);
            }
            Event::Held(refusal) => {
                self.sequencer.retire(refusal.lane).map_err(violated)?;
                self.held.refused(refusal);
            }
            Event::Ended(end) => return Err(Over::Close(Refused::new(end.code, end.reason))),
        }
        Ok(())
    }

    fn on_held(&mut self, step: Step) {
        match step {
            Step::Hold(hold) => {
                self.shared.centre.meters.partitions_held.inc();
                let source = self.held.source_of(hold.lane).unwrap_or_default();
                self.tell_hold(&source, hold);
            }
            Step::Retry(lanes) => {
                self.shared.centre.meters.partitions_held.dec_by(lanes.len() as i64);
                for lane in lanes {
                    tracing::info!(event = "retry", site = %self.site, %lane, "asked the agent to try a held partition again");
                    self.outgoing.push(&CollectorMessage::Retry(lane));
                }
            }
        }
        self.entry.shown().held = self.held.shown();
    }

    fn tell_hold(&mut self, source: &str, hold: Hold) {
        let reason = hold.reason.as_str();
        tracing::error!(event = "hold", site = %self.site, partition = source, next = %hold.next, reason, detail = hold.detail, "a source partition stands still");
        self.shared.centre.meters.holds.get_or_create(&ReasonLabel { reason }).inc();
        self.outgoing.push(&CollectorMessage::Hold(hold));
        self.entry.shown().held = self.held.shown();
    }
}

fn violated(violation: Violation) -> Over {
    Over::Close(Refused::new(violation.close_code(), violation.to_string()))
}

/// Writes some of what waits; pends while nothing does. Cancel safe.
pub(super) async fn write(send: &mut SendStream, outgoing: &mut Outgoing) -> Result<(), Over> {
    let pending = outgoing.pending();
    if pending.is_empty() {
        return std::future::pending().await;
    }
    let count = send.write(pending).await.map_err(|_| Over::Lost)?;
    outgoing.advance(count);
    Ok(())
}
