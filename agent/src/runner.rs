//! The agent's loop: one task that owns the books and connects source, survey and session.
//!
//! Every decision is made in [`spillway_agent_core`]; here events are taken, handed to the books, and what the books ask for is done.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use spillway_agent_core::batcher::Gathering;
use spillway_agent_core::ledger::Ledger;
use spillway_agent_core::redial::{Attempt, Redial};
use spillway_agent_core::schedule::Scheduler;
use spillway_agent_core::sessions::{Goal, Reason, Sessions};
use spillway_agent_core::silence::Silence;
use spillway_agent_core::topics::Topics;
use spillway_agent_core::way::Ways;
use spillway_proto::close::CloseCode;
use spillway_proto::frame::{Section, Translator};
use spillway_proto::message::SettingsReport;
use spillway_proto::{NextOffset, TopicPartition, limits};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::metrics::ReasonLabels;
use crate::session::Session;
use crate::source::{self};
use crate::status::GapStatus;
use crate::survey::Question;

mod history;
mod link;
mod local;
mod parts;
mod plan;
mod planned;
mod remembered;
mod report;
mod sending;
mod spill;
mod translate;
mod upkeep;
mod way;

use history::History;
pub use parts::{Ended, Error, Parts};
use remembered::Remembered;
use report::Expired;
use sending::{Line, Sending};
use spill::Spill;
pub use spill::SpillParts;
use way::{Course, Dialling};

/// How often the status is written and clocks are looked at.
const TICK: Duration = Duration::from_secs(1);

/// How long the last commit of the local group may take when the agent ends.
const LAST_COMMIT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the collector may take to hear of our end.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(2);

/// Runs until `stop` is cancelled and the drain is over.
///
/// # Errors
/// When going on would lose or duplicate data, or the site's Kafka cannot be read for good. Trouble that may pass is waited out.
pub async fn run(parts: Parts, stop: CancellationToken) -> Result<Ended, Error> {
    // On the heap: the books are large, and whoever waits for this keeps them on its stack else.
    Box::pin(Runner::new(parts).run(stop)).await
}

struct Runner {
    parts: Parts,
    ledger: Ledger,
    spill: Option<Spill>,
    topics: Topics,
    redial: Redial,
    /// When there is to be a session.
    planned: Sessions,
    /// What the open one has to bring to the centre; `None` until that is known.
    goal: Option<Goal>,
    /// Some session has seen the site's topics.
    told_topics: bool,
    /// The collector was asked to commit what was sent before the end of the session.
    flushed: bool,
    /// Reports about settings that the collector has not answered in this session.
    unseen_reports: usize,
    /// The report that the log has.
    told_settings: Option<SettingsReport>,
    /// The number of lanes of the last session: a later one has not been announced.
    lanes_known: u32,
    session: Option<Session>,
    dialling: Option<Dialling>,
    /// Over UDP or TCP.
    ways: Ways,
    /// UDP is asked for, beside a session over TCP.
    asking: Option<JoinHandle<bool>>,
    /// The log says that UDP is blocked.
    told_blocked: bool,
    /// Address that is dialled or open.
    address: usize,
    /// Number of the session, or of the last one.
    sessions: u64,
    session_since: Instant,
    /// When the last session ended, or the agent began.
    away_since: Instant,
    /// Frames that are on their way through the session and QUIC.
    sending: Sending,
    /// What is known of the line.
    line: Line,
    remembered: Remembered,
    /// What the source was told last: how long a frame waits once it has caught up.
    linger: Duration,
    /// What the source was told last: whether frames are left open for longer.
    gathering: Gathering,
    /// The largest raw frame that the session allows, in bytes.
    largest_raw: usize,
    /// For a collector that speaks an older version.
    translator: Option<Translator>,
    /// Small frames leave with it. `None`: the collector does not know it.
    history: Option<History>,
    /// Partitions that wait for the next look at the topics to get a new lane.
    reopen: BTreeSet<TopicPartition>,
    refresh_asked: Option<Instant>,
    /// Questions that the survey had no room for.
    questions: VecDeque<Question>,
    /// Sections to be sent in a frame of their own.
    openings: Vec<Section>,
    commit: Option<Commit>,
    commit_due: Instant,
    commit_trouble: Option<String>,
    looked: bool,
    kafka_trouble: Option<String>,
    link_trouble: Option<String>,
    /// The troubles that the log has, one for each way: where both are tried in turn, each is told once.
    told_trouble: BTreeMap<&'static str, String>,
    /// Nobody answered when it was dialled last, or the session ended in silence: the next pause ends when somebody answers.
    silent: bool,
    gaps: VecDeque<GapStatus>,
    expired: Expired,
    last_ack: Option<Instant>,
    silence: Silence,
    wire: (u64, u64),
    drain: Option<Drain>,
}

/// A commit on its way.
struct Commit {
    offsets: BTreeMap<TopicPartition, NextOffset>,
    since: Instant,
}

/// The end has begun.
struct Drain {
    deadline: Instant,
    /// The source has handed everything over.
    finished: bool,
    flushed: bool,
    because: Option<Error>,
}

impl Runner {
    fn new(mut parts: Parts) -> Self {
        let now = Instant::now();
        let remembered = Remembered::open(parts.config.state_dir.clone(), &parts.link);
        let redial = Redial::new(parts.config.collector.addresses.len(), parts.config.link.redial_max);
        parts.metrics.sessions.get_or_create(&ReasonLabels { reason: Reason::Start.as_str() }).inc();
        Self {
            ledger: Ledger::with(Scheduler::new(parts.flows.specs.clone()), now),
            spill: parts.spill.take().map(|spill| Spill::new(spill, &parts.flows, Arc::clone(&parts.dictionaries))),
            topics: Topics::default(),
            redial,
            // The profile is looked at with the first tick.
            planned: Sessions::new(None, now),
            goal: None,
            told_topics: false,
            flushed: false,
            unseen_reports: 0,
            told_settings: None,
            lanes_known: 0,
            session: None,
            dialling: None,
            ways: Ways::new(parts.config.collector.addresses.len(), parts.config.link.udp_retry),
            asking: None,
            told_blocked: false,
            address: 0,
            sessions: 0,
            session_since: now,
            away_since: now,
            sending: Sending::default(),
            line: Line::new(&parts.config.link, remembered.frames()),
            remembered,
            linger: parts.config.link.frame_linger,
            gathering: Gathering::No,
            largest_raw: limits::MAX_FRAME_RAW_BYTES,
            translator: None,
            history: None,
            reopen: BTreeSet::new(),
            refresh_asked: None,
            questions: VecDeque::new(),
            openings: Vec::new(),
            commit: None,
            commit_due: now,
            commit_trouble: None,
            looked: false,
            kafka_trouble: None,
            link_trouble: None,
            told_trouble: BTreeMap::new(),
            silent: false,
            gaps: VecDeque::new(),
            expired: Expired::default(),
            last_ack: None,
            silence: Silence::new(now),
            wire: (0, 0),
            drain: None,
            parts,
        }
    }

    async fn run(mut self, stop: CancellationToken) -> Result<Ended, Error> {
        self.tell_line()?;
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while !self.is_done() {
            // Acks come before new data, so that what is bounded shrinks before it grows.
            tokio::select! {
                biased;
                () = stop.cancelled(), if self.drain.is_none() => self.begin_drain(None)?,
                event = link::next_event(&mut self.session) => self.on_session(event),
                opened = link::opened(&mut self.dialling) => self.on_dialled(opened)?,
                is_open = way::asked(&mut self.asking) => self.on_udp_asked(is_open),
                answer = self.parts.survey.answers.recv() => self.on_answer(answer.ok_or(Error::Survey)?)?,
                event = spill::next_event(&mut self.spill) => self.on_spill(event)?,
                event = self.parts.source.events.recv() => self.on_source(event.ok_or(source::Error::Gone)?)?,
                () = sending::look_again(self.sending.again) => {}
                _ = tick.tick() => self.on_tick()?,
            }
            self.keep_up()?;
        }
        self.end().await
    }

    /// Begins the end: stop reading, send what there is, wait for acks.
    fn begin_drain(&mut self, because: Option<Error>) -> Result<(), Error> {
        if self.drain.is_some() {
            return Ok(());
        }
        let deadline = self.parts.config.shutdown.deadline;
        tracing::info!(
            ?deadline,
            unacked_records = self.ledger.unacked_records(),
            "draining: reading stops, acknowledgements are waited for"
        );
        spillway_ops::notify::stopping();
        self.drain = Some(Drain { deadline: Instant::now() + deadline, finished: false, flushed: false, because });
        self.parts.source.command(source::Command::Finish)?;
        self.post();
        Ok(())
    }

    fn is_done(&self) -> bool {
        self.drain.as_ref().is_some_and(|drain| (drain.finished && self.is_safe()) || Instant::now() >= drain.deadline)
    }

    /// Commits what is acknowledged, takes leave, and says what is left.
    async fn end(mut self) -> Result<Ended, Error> {
        let unacked_records = self.ledger.unacked_records();
        if unacked_records > 0 && self.is_safe() {
            tracing::info!(unacked_records, "what is not acknowledged is in the spill, and sent after the next start");
        } else if unacked_records > 0 {
            tracing::warn!(
                unacked_records,
                "not everything was acknowledged in time; nothing is lost: it is read from the site's Kafka and sent again after the next start"
            );
        }
        if let Some(spill) = self.spill.take() {
            // Syncs and closes the store.
            drop(tokio::task::spawn_blocking(move || drop(spill)).await);
        }
        if let Some(commit) = self.commit.take() {
            self.ledger.commit_failed(commit.offsets);
        }
        let offsets = self.ledger.take_commits();
        if !offsets.is_empty() {
            local::commit_last(Arc::clone(&self.parts.consumer), offsets, LAST_COMMIT_TIMEOUT).await;
        }
        if let Some(dialling) = self.dialling.take() {
            dialling.abort();
        }
        if let Some(session) = self.session.take() {
            session.close(CloseCode::Done, "");
        }
        self.parts.link.shutdown(CloseCode::Done, GOODBYE_TIMEOUT).await;
        self.parts.plan.settle().await;
        self.remembered.settle(self.line.frames(), self.parts.link.known_line()).await;
        match self.drain.and_then(|drain| drain.because) {
            Some(error) => Err(error),
            None => Ok(Ended { unacked_records }),
        }
    }

    /// Dials in the background.
    fn dial(&mut self, attempt: Attempt) {
        let Some(address) = self.parts.config.collector.addresses.get(attempt.address).cloned() else {
            return;
        };
        if self.parts.plan.is_off() {
            // The first look that finds it on again dials.
            return;
        }
        self.address = attempt.address;
        let (link, collector) = (Arc::clone(&self.parts.link), self.parts.config.collector.clone());
        if !attempt.pause.is_zero() {
            tracing::debug!(pause = ?attempt.pause, %address, "dialling after a pause");
        }
        let (silent, course) = (self.silent, Course::of(&self.ways));
        self.dialling = Some(tokio::spawn(async move {
            if silent {
                course.wait(&link, attempt.pause).await?;
            } else {
                tokio::time::sleep(attempt.pause).await;
            }
            course.open(&link, &collector, &address).await
        }));
    }
}
