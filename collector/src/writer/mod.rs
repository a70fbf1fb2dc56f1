//! A site's writer: one thread that owns the site's producer and everything that is not committed yet.
//!
//! | module | what it is for |
//! |---|---|
//! | [`inbox`] | what the session hands over |
//! | [`open`] | the opening procedure: fence, marker, positions |
//! | `life` | when the producer is opened, closed, opened again |
//! | `fill` | sections into the open transaction |
//! | `gaps` | events for gaps |
//! | `commit` | deliveries, progress, syncs, commit; abort and what follows |
//! | [`attempt`] | the books of the open transaction |
//! | [`failure`] | what a failed delivery means |
//! | [`trouble`] | one log line when trouble begins and one when it ends |
//!
//! The thread lives as long as the session. A site that sends nothing for `transactions.idle_close` keeps its thread, asleep, and loses
//! its producer, which is what costs: connections and threads of librdkafka, and a place at the transaction coordinator.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::error::RDKafkaErrorCode;
use spillway_collector_core::backlog::Backlog;
use spillway_collector_core::progress::{Before, Positions};
use spillway_collector_core::refusal::Refusals;
use spillway_collector_core::syncs::{SyncSlot, Syncs};
use spillway_collector_core::transaction::Pacer;
use spillway_proto::compress::Decompressor;
use spillway_proto::deferred::Deferred;
use spillway_proto::message::{self, HoldReason, ResumePoint};
use spillway_proto::{CloseCode, Lane, NextOffset, SiteName, TopicId, TopicName, TopicPartition};
use tokio::sync::mpsc;

use self::attempt::Attempt;
use self::inbox::{Command, Ending, Inbox, OpenLane};
use self::trouble::Trouble;
use crate::centre::Centre;
use crate::centre::producer::{BATCH_BYTES, Report, SiteProducer};
use crate::centre::tail::Marker;
use crate::custody::{Custody, HeldFrame};

pub mod attempt;
mod commit;
pub mod failure;
mod fill;
mod gaps;
pub mod inbox;
mod life;
pub mod open;
pub mod trouble;

/// A session whose writer cannot be opened for so long is closed: the agent may try another collector.
pub const OPENING_DEADLINE: Duration = Duration::from_secs(30);

/// Pauses between attempts at the central Kafka, doubled up to the second.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// How long a fenced writer waits for the marker of the one that fenced it, to tell a successor from a transaction that grew too old.
const FENCED_WAIT: Duration = Duration::from_secs(2);

/// What the writer tells its session.
#[derive(Debug)]
pub enum Event {
    /// A lane's position.
    Resumed {
        /// The lane.
        lane: Lane,
        /// Where it goes on.
        resume: ResumePoint,
        /// Of a late lane: where its range ends.
        until: Option<NextOffset>,
        /// What else is to come of the partition of an own lane.
        deferred: Deferred,
    },
    /// Committed, per lane.
    Acked(Vec<(Lane, NextOffset)>),
    /// A record is refused; the lane is over.
    Held(Refusal),
    /// The writer has ended; nothing comes after this.
    Ended(End),
}

/// A record, or a topic, that the central Kafka refuses.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// The lane.
    pub lane: Lane,
    /// Its first offset that is not committed.
    pub next: NextOffset,
    /// The source partition.
    pub source: TopicPartition,
    /// The remote topic.
    pub remote: TopicName,
    /// Why.
    pub reason: HoldReason,
    /// What the broker answered.
    pub code: RDKafkaErrorCode,
    /// The record that is refused, where it is one.
    pub offset: Option<u64>,
    /// For people, where the topic's settings say nothing about it.
    pub detail: Option<String>,
}

/// Why a writer has ended: how its session is closed, with a text for the log and the peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// The close code.
    pub code: CloseCode,
    /// What happened.
    pub reason: String,
}

impl End {
    pub(crate) fn new(code: CloseCode, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into() }
    }

    /// The end that was asked for.
    fn wanted() -> Self {
        Self::new(CloseCode::Done, "the session is over")
    }
}

/// Starts the writer of a session's site; the session speaks this version of the protocol.
///
/// # Errors
/// When the system gives no thread.
pub fn start(
    centre: Arc<Centre>,
    (site, version): (SiteName, u8),
    inbox: Arc<Inbox>,
    custody: Arc<Custody>,
    press_bytes: usize,
    events: mpsc::Sender<Event>,
) -> io::Result<()> {
    let builder = thread::Builder::new().name(format!("site-{site}")).stack_size(STACK_BYTES);
    let pacer = Pacer::new(centre.transactions.max_bytes.as_usize(), centre.transactions.interval);
    let decompressor = Decompressor::new()?;
    builder.spawn(move || {
        let trouble = Trouble::new(site.clone());
        let mut writer = Writer {
            centre,
            site,
            knows_deferred: version >= message::DEFERRED_SINCE,
            inbox,
            custody,
            press_bytes,
            events,
            producer: None,
            marker: None,
            positions: Positions::new(),
            lanes: HashMap::new(),
            opens: VecDeque::new(),
            backlog: Backlog::new(),
            pacer,
            syncs: Syncs::default(),
            refusals: Refusals::default(),
            attempt: Attempt::default(),
            reports: Vec::new(),
            decompressor,
            batch_bytes: BATCH_BYTES,
            trouble,
            last_used: Instant::now(),
            failures: 0,
        };
        let Err(end) = writer.run();
        writer.abort_quietly();
        writer.close_producer();
        writer.send(Event::Ended(end));
    })?;
    Ok(())
}

/// Enough for librdkafka's calls and our shallow ones; a thousand sites have a thousand of these threads.
const STACK_BYTES: usize = 512 * 1024;

/// Never made: the writer ends by an [`End`] only.
enum Never {}

struct Writer {
    centre: Arc<Centre>,
    site: SiteName,
    /// The agent knows what deferred ranges are.
    knows_deferred: bool,
    inbox: Arc<Inbox>,
    custody: Arc<Custody>,
    /// Commit early when the session holds so many frame bytes: the agent's window is filling.
    press_bytes: usize,
    events: mpsc::Sender<Event>,
    producer: Option<SiteProducer>,
    /// Of the writer that was opened last.
    marker: Option<Marker>,
    /// Committed positions of the site.
    positions: Positions,
    lanes: HashMap<Lane, LaneState>,
    opens: VecDeque<OpenLane>,
    backlog: Backlog<HeldFrame>,
    pacer: Pacer,
    syncs: Syncs,
    refusals: Refusals,
    attempt: Attempt,
    /// Kept between polls for its memory.
    reports: Vec<Report>,
    decompressor: Decompressor,
    batch_bytes: usize,
    trouble: Trouble,
    last_used: Instant,
    /// Transactions aborted in a row for no fault of the data.
    failures: u32,
}

#[derive(Debug, Clone)]
struct LaneState {
    source: TopicPartition,
    topic_id: TopicId,
    remote: TopicName,
    partition: i32,
    partition_count: u32,
    /// Of a late lane: where its range ends.
    until: Option<NextOffset>,
    /// `None` for a late lane. Its records stand at the centre behind younger ones: a consumer group that was translated by a sync between them would go on
    /// behind live records that it has not read. Without such a sync it goes back to before them, and reads some again.
    sync_slot: Option<SyncSlot>,
}

impl LaneState {
    /// The lane's partition, before the open transaction.
    fn before<'a>(&'a self, positions: &'a Positions) -> Before<'a> {
        Before { source: &self.source, topic_id: self.topic_id, position: positions.get(&self.source) }
    }
}

impl Writer {
    fn run(&mut self) -> Result<Never, End> {
        let deadline = Instant::now() + OPENING_DEADLINE;
        let opened = self.reopen(Some(deadline))?;
        self.positions = opened;
        let mut commands = VecDeque::new();
        loop {
            let ending = self.inbox.take(&mut commands, self.next_deadline());
            for command in commands.drain(..) {
                self.accept(command)?;
            }
            match ending {
                Some(Ending::Abandon) => return Err(End::wanted()),
                Some(Ending::Commit(_)) => return self.finish(),
                None => self.step()?,
            }
        }
    }

    fn accept(&mut self, command: Command) -> Result<(), End> {
        match command {
            Command::Write(ready) => {
                if self.lanes.contains_key(&ready.lane) {
                    self.backlog.push(ready);
                }
            }
            Command::Open(open) => self.opens.push_back(*open),
            Command::Flush => self.pacer.flush(),
            Command::CheckMarker => self.check_marker()?,
        }
        Ok(())
    }

    /// One round: data into the transaction, the transaction to its commit, announced lanes in between.
    fn step(&mut self) -> Result<(), End> {
        if !self.opens.is_empty() {
            if self.pacer.is_open() {
                self.commit(false)?;
            }
            self.answer_opens()?;
        }
        let now = Instant::now();
        self.pacer.step_aside(self.centre.is_crowded());
        if self.may_fill() && self.pacer.not_before().is_none_or(|time| time <= now) {
            self.fill()?;
        }
        let now = Instant::now();
        let overdue = self.syncs.deadline().is_some_and(|deadline| deadline <= now);
        if overdue && !self.pacer.is_open() {
            self.begin()?;
        }
        if overdue || self.custody.held() >= self.press_bytes {
            self.pacer.flush();
        }
        if self.pacer.due().is_some_and(|due| due <= now) {
            self.commit(false)?;
        }
        if self.producer.is_some() && !self.pacer.is_open() && now >= self.last_used + self.centre.transactions.idle_close {
            self.close_producer();
            tracing::info!(event = "writer_closed", site = %self.site, "closed the producer of an idle site; its session stays");
        }
        Ok(())
    }

    /// Data waits, and the transaction has room for it.
    fn may_fill(&self) -> bool {
        !self.backlog.is_drained() && self.pacer.room() > 0
    }

    /// Until when there is nothing to do unless something comes in.
    fn next_deadline(&self) -> Option<Instant> {
        if !self.opens.is_empty() {
            return Some(Instant::now());
        }
        if self.may_fill() {
            // Looked at anew once an interval: those that we stepped aside for may be through long before.
            let now = Instant::now();
            return Some(self.pacer.not_before().map_or(now, |time| time.min(now + self.pacer.interval())));
        }
        let idle = self.producer.is_some().then(|| self.last_used + self.centre.transactions.idle_close);
        [self.pacer.due(), self.syncs.deadline(), idle].into_iter().flatten().min()
    }

    /// Tells announced lanes their positions. Only between transactions, so that the positions are the committed ones.
    fn answer_opens(&mut self) -> Result<(), End> {
        if self.producer.is_none() {
            self.check_marker()?;
        }
        while let Some(open) = self.opens.pop_front() {
            if let Some(old) = open.replaces {
                self.drop_lane(old);
            }
            let position = self.positions.get(&open.source);
            let deferred = position.map_or_else(Deferred::new, |position| position.deferred.clone());
            if !deferred.is_empty() && !self.knows_deferred {
                self.refuse_older(open);
                continue;
            }
            let resume = match position {
                // All of a range that is not there has come.
                Some(_) | None if open.until.is_some() => {
                    let range = open.until.and_then(|until| deferred.range(until));
                    ResumePoint::At(range.map(|range| range.first).or(open.until).unwrap_or(NextOffset::ZERO))
                }
                None => ResumePoint::Fresh,
                Some(at) if at.topic_id.is_other_incarnation(open.topic_id) => {
                    ResumePoint::Recreated { previous: at.topic_id, next: at.next }
                }
                Some(at) => ResumePoint::At(at.next),
            };
            let sync_slot = open.until.is_none().then(|| self.syncs.slot(&open.source));
            let partition = open.source.partition.to_kafka();
            if let Some(producer) = &mut self.producer {
                producer.expect_partitions(&open.remote, open.partition_count);
            }
            let OpenLane { source, topic_id, remote, partition_count, until, .. } = open;
            let state = LaneState { source, topic_id, remote, partition, partition_count, until, sync_slot };
            self.lanes.insert(open.lane, state);
            self.send(Event::Resumed { lane: open.lane, resume, until, deferred });
        }
        Ok(())
    }

    /// To an agent that does not know them, the deferred offsets would look as if they were there: it would drop them from its spill.
    fn refuse_older(&mut self, open: OpenLane) {
        let OpenLane { lane, source, remote, .. } = open;
        let detail = format!(
            "the site has deferred records of {source} (order = \"live-first\"), which its agent has in its spill and its version does not know: \
             upgrade the agent"
        );
        let (next, reason, code) = (NextOffset::ZERO, HoldReason::TopicRefused, RDKafkaErrorCode::NoError);
        self.refuse(Refusal { lane, next, source, remote, reason, code, offset: None, detail: Some(detail) });
    }

    fn drop_lane(&mut self, lane: Lane) {
        self.lanes.remove(&lane);
        self.backlog.retire(lane);
        self.refusals.forget(lane);
    }

    /// Everything that has arrived is committed, with the syncs that were delayed; then the writer ends.
    fn finish(&mut self) -> Result<Never, End> {
        while !self.backlog.is_empty() {
            if !self.backlog.is_drained() && self.pacer.room() > 0 {
                self.fill()?;
            }
            self.commit(true)?;
        }
        if self.producer.is_some() && (self.pacer.is_open() || self.syncs.deadline().is_some()) {
            self.begin()?;
            self.commit(true)?;
        }
        Err(End::wanted())
    }

    /// A session that has ended listens no more, which is its affair.
    fn send(&self, event: Event) {
        let _ended = self.events.blocking_send(event);
    }
}
