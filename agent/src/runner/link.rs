//! What comes from the collector.

use std::future::pending;
use std::time::{Duration, Instant};

use spillway_agent_core::forecast::Forecast;
use spillway_agent_core::lane::{HeldBecause, LaneSource, Phase};
use spillway_agent_core::ledger::{self, Resumed};
use spillway_agent_core::redial::Attempt;
use spillway_agent_core::schedule::Order;
use spillway_link::Explanation;
use spillway_proto::close::{CloseCode, Disposition};
use spillway_proto::compress::Codec;
use spillway_proto::frame::Translator;
use spillway_proto::message::{self, AgentMessage, CollectorMessage, Hold};
use spillway_proto::{FrameSeq, Lane, limits};

use super::history::History;
use super::sending::Sending;
use super::way::{Dialling, NotOpened};
use super::{Error, Runner};
use crate::session::{Event, Session};
use crate::source::Command;
use crate::survey::{Asked, Question};

/// The session's next event; never without a session. Cancel safe.
pub(super) async fn next_event(session: &mut Option<Session>) -> Event {
    match session {
        Some(session) => match session.events.recv().await {
            Some(event) => event,
            // The reader always says why it ends, and is the last to hold the channel; this is for completeness.
            None => Event::Ended(Explanation {
                what: "the session ended".to_owned(),
                fix: "nothing to do: the agent redials".to_owned(),
                retry: Disposition::Redial,
                reason: "session_ended",
            }),
        },
        None => pending().await,
    }
}

/// The end of the attempt under way; never without one. Cancel safe.
pub(super) async fn opened(dialling: &mut Option<Dialling>) -> Result<Session, NotOpened> {
    let Some(handle) = dialling else {
        return pending().await;
    };
    let outcome = handle.await;
    *dialling = None;
    outcome.unwrap_or_else(|panic| {
        Err(NotOpened::Failed(Box::new(Explanation {
            what: format!("dialling failed: {panic}"),
            fix: "a bug: report it with this log".to_owned(),
            retry: Disposition::Redial,
            reason: "internal",
        })))
    })
}

impl Runner {
    pub(super) fn on_dialled(&mut self, outcome: Result<Session, NotOpened>) -> Result<(), Error> {
        let address = self.parts.config.collector.addresses.get(self.address).map(ToString::to_string).unwrap_or_default();
        let session = match outcome {
            Ok(session) => session,
            Err(NotOpened::UdpAnswers) => {
                self.ways.udp_answered();
                self.dial(Attempt { pause: Duration::ZERO, address: self.address });
                return Ok(());
            }
            Err(NotOpened::TcpAnswers) => {
                self.ways.tcp_answered();
                self.dial(Attempt { pause: Duration::ZERO, address: self.address });
                return Ok(());
            }
            Err(NotOpened::Failed(explanation)) => {
                self.complain(&address, &explanation);
                self.way_failed(&explanation);
                let attempt = self.redial.failed(explanation.retry, rand::random());
                self.dial(attempt);
                return Ok(());
            }
        };
        let welcome = &session.welcome;
        let way = self.ways.way().as_str();
        tracing::info!(event = "session_open", address, way, collector = welcome.software, rtt = ?session.rtt(), "session open");
        self.redial.opened();
        self.way_opened();
        self.sessions += 1;
        if self.planned.opened(Instant::now()) {
            self.parts.metrics.reconnects.inc();
        }
        (self.goal, self.flushed, self.unseen_reports) = (None, false, 0);
        self.parts.metrics.link_up.set(1);
        (self.link_trouble, self.sending, self.session_since) = (None, Sending::default(), Instant::now());
        self.told_trouble.clear();
        self.silence.end(self.session_since);
        self.forget_questions();
        let largest_raw = usize::try_from(welcome.max_frame_raw_bytes).unwrap_or(usize::MAX).min(limits::MAX_FRAME_RAW_BYTES);
        let in_flight = usize::try_from(welcome.max_in_flight_bytes).unwrap_or(usize::MAX);
        self.largest_raw = largest_raw;
        self.parts.source.command(Command::LargestRaw(largest_raw))?;
        self.parts.source.command(Command::Version(welcome.version))?;
        let older = welcome.version < Codec::ColumnsWithDictionary.since();
        self.translator = older.then(|| Translator::new(welcome.version)).transpose().map_err(Error::Compression)?;
        self.history = (welcome.version >= message::HISTORY_SINCE).then(History::new).transpose().map_err(Error::Compression)?;
        let defers = welcome.version >= message::DEFERRED_SINCE;
        if !defers && self.parts.flows.specs.iter().any(|spec| spec.order == Order::LiveFirst) {
            let version = welcome.version;
            tracing::warn!(
                event = "live_first_off",
                version,
                "the collector does not know deferred records: topics with order = \"live-first\" are sent in order until it is upgraded"
            );
        }
        for open in self.ledger.session_opened_with(in_flight, defers) {
            session.say(AgentMessage::Open(open));
        }
        self.session = Some(session);
        self.forget_forecast();
        self.tell_linger()?;
        self.tell_line()?;
        self.reopen_held();
        // A short session has no tick.
        self.ask_for_udp(Instant::now());
        Ok(())
    }

    pub(super) fn on_session(&mut self, event: Event) {
        match event {
            Event::Message(message) => {
                if let Err(error) = self.on_message(message) {
                    let what = spillway_ops::exit::chain(&error);
                    tracing::error!(
                        error = what,
                        "the collector broke the protocol: a bug, please report it with both logs; the session starts over"
                    );
                    if let Some(session) = self.session.take() {
                        session.close(CloseCode::ProtocolViolation, &what);
                    }
                    self.session_over(Disposition::Redial);
                }
            }
            Event::Sent(class) => self.sending.sent(class),
            Event::Arrived { seq, class, bytes } => {
                if let Some(history) = &mut self.history {
                    history.arrived(seq);
                }
                let left = self.sending.transit.arrived(class.is_urgent(), bytes);
                self.ledger.scheduler().left(left);
            }
            Event::Ended(explanation) => {
                let address = self.session.take().map(|session| session.address().to_string()).unwrap_or_default();
                self.complain(&address, &explanation);
                self.session_over(explanation.retry);
            }
        }
    }

    /// With a line the spill does not go on as it did without one.
    fn forget_forecast(&mut self) {
        if let Some(spill) = &mut self.spill {
            spill.forecast = Forecast::default();
        }
    }

    /// The session was lost: the next one is dialled.
    pub(super) fn session_over(&mut self, disposition: Disposition) {
        self.planned.lost();
        self.session_gone();
        let attempt = self.redial.lost(disposition, rand::random());
        self.dial(attempt);
        self.post();
    }

    /// There is no session any more.
    pub(super) fn session_gone(&mut self) {
        self.ledger.session_closed();
        if let Some(spill) = &mut self.spill {
            spill.spool.session_closed(&mut self.ledger);
        }
        self.forget_forecast();
        (self.sending, self.away_since) = (Sending::default(), Instant::now());
        self.forget_questions();
        self.parts.metrics.link_up.set(0);
        self.forget_question();
    }

    /// Logs why there is no session: once for each change, further times at `debug`.
    fn complain(&mut self, address: &str, explanation: &Explanation) {
        self.silent = explanation.is_silence();
        let text = explanation.to_string();
        self.link_trouble = Some(text.clone());
        if self.told_trouble.insert(self.ways.way().as_str(), text.clone()).as_ref() == Some(&text) {
            tracing::debug!(event = "session_failed", address, reason = explanation.reason, "{text}");
            return;
        }
        tracing::warn!(event = "session_failed", address, reason = explanation.reason, "{text}");
    }

    fn on_message(&mut self, message: CollectorMessage) -> Result<(), ledger::Error> {
        let now = Instant::now();
        self.silence.end(now);
        self.on_heard();
        match message {
            CollectorMessage::Resume { lane, resume } => match self.ledger.resume(lane, resume, now)? {
                Resumed::Begin(source) => self.begin(lane, *source, resume),
                Resumed::Diverged => {
                    tracing::info!(%lane, ?resume, "the centre's position is not ours: another agent of this site was there, or it was reset");
                }
                Resumed::Continues | Resumed::Ignored => {}
            },
            CollectorMessage::Ack(acks) => {
                for (lane, next) in acks {
                    self.ledger.ack(lane, next, now)?;
                }
                self.last_ack = Some(now);
            }
            CollectorMessage::Hold(hold) => self.on_hold(hold, now)?,
            CollectorMessage::Retry(lane) => self.on_retry(lane),
            CollectorMessage::WantDictionary(id) => match (self.parts.dictionaries.find(id), &self.session) {
                (Some(dictionary), Some(session)) => {
                    tracing::debug!(id = id.0, bytes = dictionary.bytes().len(), "the collector gets a dictionary");
                    session.say(AgentMessage::Dictionary((*dictionary).clone()));
                }
                // Frames name what is here; whoever asks for anything else gets no answer.
                _ => tracing::warn!(id = id.0, "the collector wants a dictionary that was never made"),
            },
            CollectorMessage::FrameAgain(seq) => self.send_again(seq),
            // A second welcome changes nothing: the first one's terms hold.
            CollectorMessage::Settings(settings) => self.on_settings(settings),
            CollectorMessage::SettingsSeen(_) => {
                self.unseen_reports = self.unseen_reports.saturating_sub(1);
                if self.parts.plan.is_off() {
                    self.follow_plan();
                }
            }
            CollectorMessage::Deferred { lane, deferred } => self.ledger.tell_deferred(lane, deferred)?,
            CollectorMessage::Welcome(_) | CollectorMessage::Ignored(_) => {}
        }
        Ok(())
    }

    /// The collector could not make sense of a frame's history.
    fn send_again(&mut self, seq: FrameSeq) {
        let known = self.history.as_mut().is_some_and(|history| history.want(seq));
        tracing::warn!(
            event = "frame_again",
            seq = seq.0,
            known,
            "the collector asks for a frame without history, which costs a round trip: a bug if it happens again, please report it"
        );
        if !known && let Some(session) = self.session.take() {
            // Everything that is not acknowledged is sent in the next session, which begins without history.
            session.close(CloseCode::ProtocolViolation, "a frame was asked for that did not leave with history");
            self.session_over(Disposition::Redial);
        }
    }

    pub(super) fn question(&self, lane: Lane, source: LaneSource, asked: Asked) -> Question {
        let start = self.parts.config.start_of(source.partition.topic.as_str());
        Question { lane, source, asked, session: self.sessions, start }
    }

    fn on_hold(&mut self, hold: Hold, now: Instant) -> Result<(), ledger::Error> {
        let Hold { lane, next, reason, detail } = hold;
        let because = HeldBecause { reason: reason.as_str(), detail: detail.clone() };
        if let Some(partition) = self.ledger.hold(lane, next, because, now)? {
            tracing::error!(
                event = "held", topic = %partition.topic, partition = partition.partition.index(), offset = next.value(), reason = reason.as_str(), detail,
                "the centre refuses a record: this partition stands still until that changes, the others go on"
            );
        }
        Ok(())
    }

    fn on_retry(&mut self, lane: Lane) {
        if self.ledger.retry_late(lane) {
            tracing::info!(%lane, "what held deferred records may have changed: trying again");
            return;
        }
        let held = self.ledger.book(lane).filter(|book| matches!(book.phase, Phase::Held(_)));
        if let Some(source) = held.map(|book| book.source.clone())
            && self.ledger.lane_of(&source.partition) == Some(lane)
        {
            tracing::info!(partition = %source.partition, "what held this partition may have changed: trying again");
            self.open(source);
        }
    }

    /// Gives every held partition a new lane: another collector may take what the last one refused.
    fn reopen_held(&mut self) {
        let held = self.ledger.partitions().filter(|(_, book)| matches!(book.phase, Phase::Held(_)));
        for source in held.map(|(_, book)| book.source.clone()).collect::<Vec<_>>() {
            self.open(source);
        }
    }

    /// Opens a lane, and announces it if a session is open.
    pub(super) fn open_lane(&mut self, source: LaneSource) {
        let partition = source.partition.clone();
        let source = LaneSource { flow: (self.parts.flows.of)(partition.topic.as_str()), ..source };
        match self.ledger.open(source) {
            Ok(announcement) => {
                if let Some(session) = &self.session {
                    session.say(AgentMessage::Open(announcement));
                }
            }
            Err(error) => {
                tracing::error!(%partition, %error, "this partition is not mirrored: narrow topics.include, or run one more agent for a part of the topics");
            }
        }
    }
}
