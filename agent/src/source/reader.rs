//! The loop of the source's thread.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rdkafka::error::RDKafkaErrorCode;
use spillway_agent_core::batcher::{Gathering, Incoming, Pushed};
use spillway_agent_core::ledger::{Attachment, Detachment};
use spillway_kafka::events::{self, EventQueue, SourceRecord};
use spillway_proto::{Lane, NextOffset, Partition, TopicPartition};
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::mpsc::{Receiver, Sender};

use super::assignment::{Assignment, Reading};
use super::builders::{Builders, Slot};
use super::compression::Compression;
use super::{Command, Event, POLL_TIME, Settings, SiteConsumer};

/// Events taken from the queue before commands and the clock are looked at again.
const MAX_BURST: usize = 1000;

/// Makes whole milliseconds of what begins one.
const ROUND_UP: Duration = Duration::from_micros(999);

/// The runner is gone: the thread has no one to work for.
struct Gone;

/// Reads until the commands' sender is dropped.
pub(super) fn run(
    consumer: &SiteConsumer,
    settings: Settings,
    compression: Compression,
    commands: Receiver<Command>,
    events: &Sender<Event>,
) {
    let Some(queue) = EventQueue::new(consumer) else {
        drop(events.blocking_send(Event::Failed(super::Error::Queue.to_string())));
        return;
    };
    let (budget, flow_of) = (Arc::clone(&settings.budget), Arc::clone(&settings.flow_of));
    let mut reader = Reader {
        consumer,
        builders: Builders::new(settings.limits, budget, compression, flow_of, settings.specs.clone()),
        commands,
        events,
        assignment: Assignment::default(),
        now: Instant::now(),
        now_ms: now_ms(),
        caught_up: false,
        caught_up_linger: settings.limits.linger,
        gathering: Gathering::No,
        settings,
        troubles: HashMap::new(),
        finishing: false,
        finished: false,
    };
    while reader.turn(&queue).is_ok() {}
}

struct Reader<'r> {
    consumer: &'r SiteConsumer,
    settings: Settings,
    builders: Builders,
    commands: Receiver<Command>,
    events: &'r Sender<Event>,
    assignment: Assignment,
    /// When the burst of events began that is being taken.
    now: Instant,
    /// The same by the clock on the wall, milliseconds since 1970.
    now_ms: i64,
    /// The queue was empty when it was last looked at.
    caught_up: bool,
    /// How long the open frame waits then.
    caught_up_linger: Duration,
    /// Frames are left open for longer.
    gathering: Gathering,
    /// The last trouble of each lane, so that it is logged once.
    troubles: HashMap<Lane, RDKafkaErrorCode>,
    finishing: bool,
    finished: bool,
}

impl Reader<'_> {
    fn turn(&mut self, queue: &EventQueue<'_>) -> Result<(), Gone> {
        self.obey()?;
        self.hand_over()?;
        self.builders.reserve();
        (self.now, self.now_ms) = (Instant::now(), now_ms());
        self.go_on()?;
        if !self.builders.is_any_ready() {
            self.builders.wait(POLL_TIME);
            return Ok(());
        }
        let due = self.builders.due(self.linger()).map(|due| due.saturating_duration_since(self.now));
        // Polls count whole milliseconds: a rest of one is waited for, not spun away.
        let mut wait = due.map_or(POLL_TIME, |due| due + ROUND_UP).min(POLL_TIME);
        self.caught_up = false;
        for _ in 0..MAX_BURST {
            let Some(mut polled) = queue.poll(wait) else {
                self.caught_up = true;
                break;
            };
            if !wait.is_zero() {
                // Once a burst, which lasts milliseconds: a look at the clock costs as much as a record's way through the batcher.
                (self.now, self.now_ms) = (Instant::now(), now_ms());
            }
            self.take(polled.event())?;
            wait = Duration::ZERO;
            if self.builders.is_sealed() {
                break;
            }
        }
        Ok(())
    }

    fn linger(&self) -> Duration {
        match (self.gathering, self.caught_up) {
            (Gathering::No, true) => self.caught_up_linger,
            (Gathering::No, false) => self.settings.limits.linger,
            // As long as the limits of each say.
            _ => Duration::MAX,
        }
    }

    /// Takes all commands that wait.
    fn obey(&mut self) -> Result<(), Gone> {
        let mut attaching = Vec::new();
        loop {
            match self.commands.try_recv() {
                Ok(Command::Attach(Attachment { lane, partition, next })) => attaching.push((lane, partition, next)),
                Ok(Command::Detach(detachment)) => {
                    // It may be about one of those.
                    self.attach(std::mem::take(&mut attaching))?;
                    self.detach(detachment);
                }
                Ok(Command::LargestRaw(bytes)) => {
                    self.settings.limits.largest_raw = bytes;
                    self.builders.set_limits(self.settings.limits);
                }
                Ok(Command::Gather(gathering)) => {
                    self.gathering = gathering;
                    self.builders.set_gathering(gathering);
                }
                Ok(Command::Version(version)) => self.builders.compression().speak(version),
                Ok(Command::Line(line)) => self.builders.compression().line(line),
                Ok(Command::CaughtUpLinger(linger)) => self.caught_up_linger = linger,
                Ok(Command::FrameBytes(bytes)) => self.builders.set_line(bytes),
                Ok(Command::Finish) => {
                    attaching.clear();
                    self.finishing = true;
                    let result = self.assignment.clear(self.consumer);
                    self.ignore(result);
                }
                Err(TryRecvError::Empty) => return self.attach(attaching),
                Err(TryRecvError::Disconnected) => return Err(Gone),
            }
        }
    }

    fn attach(&mut self, list: Vec<(Lane, TopicPartition, NextOffset)>) -> Result<(), Gone> {
        if list.is_empty() || self.finishing {
            return Ok(());
        }
        let mut readings: BTreeMap<Slot, Vec<_>> = BTreeMap::new();
        for (lane, partition, next) in list {
            tracing::debug!(%partition, %lane, %next, "reading");
            let slot = self.builders.slot(partition.topic.as_str());
            self.builders.batcher(slot).attach(lane, next);
            self.builders.compression().know(lane, partition.topic.as_str());
            readings.entry(slot).or_default().push((lane, partition, next));
        }
        readings.into_iter().try_for_each(|(slot, list)| self.assign(slot, list))
    }

    fn assign(&mut self, slot: Slot, list: Vec<(Lane, TopicPartition, NextOffset)>) -> Result<(), Gone> {
        let readings = list.into_iter().map(|(lane, partition, next)| (Reading { lane, slot }, partition, next)).collect::<Vec<_>>();
        if let Err(error) = self.assignment.attach(self.consumer, &readings) {
            for (Reading { lane, .. }, ..) in readings {
                self.send(Event::Lost { lane, why: format!("cannot be assigned: {error}") })?;
            }
        }
        Ok(())
    }

    fn detach(&mut self, detachment: Detachment) {
        let Detachment { lane, partition, keep } = detachment;
        tracing::debug!(%partition, %lane, keep, "reading no more");
        let slot = self.builders.slot(partition.topic.as_str());
        self.builders.detach(slot, lane, keep);
        let result = self.assignment.detach(self.consumer, lane, &partition);
        self.ignore(result);
        self.troubles.remove(&lane);
    }

    /// A partition that was not assigned after all is no trouble for one that lets it go.
    fn ignore(&self, result: Result<(), rdkafka::error::KafkaError>) {
        if let Err(error) = result {
            tracing::debug!(%error, "unassign");
        }
    }

    /// Reads flows again of which nothing could be taken.
    fn go_on(&mut self) -> Result<(), Gone> {
        for slot in self.assignment.parked(self.now) {
            if self.builders.may_go_on(slot) {
                let parked = self.assignment.take_parked(slot);
                let with_position = |(lane, partition)| Some((lane, partition, self.builders.batcher(slot).position(lane)?));
                let readings = parked.into_iter().filter_map(with_position).collect();
                self.assign(slot, readings)?;
            }
        }
        Ok(())
    }

    /// Nothing of a flow can be taken: it is not read until its memory is free again, while the others are.
    fn park(&mut self, slot: Slot) {
        let result = self.assignment.park(self.consumer, slot, self.now);
        self.ignore(result);
    }

    /// Closes frames that are due and hands closed ones over.
    fn hand_over(&mut self) -> Result<(), Gone> {
        while let Some(event) = self.builders.next(self.linger(), self.finishing) {
            if let Event::Frame(built) = &event {
                self.settings.metrics.frame_bytes.inc_by(built.frame.bytes.len() as u64);
            }
            self.send(event)?;
        }
        if self.finishing && !self.finished && self.builders.is_empty() {
            self.finished = true;
            self.send(Event::Finished)?;
        }
        Ok(())
    }

    fn take(&mut self, event: events::Event<'_>) -> Result<(), Gone> {
        match event {
            events::Event::Record(record) => self.record(&record),
            events::Event::PartitionEnd { topic, partition, next } => {
                match self.assignment.reading(&topic, partition.index()) {
                    Some(Reading { lane, slot }) if self.builders.is_ready(slot) => self.builders.batcher(slot).cover(lane, next, self.now),
                    // It is told again when the partition is read again.
                    Some(Reading { slot, .. }) => self.park(slot),
                    None => {}
                }
                Ok(())
            }
            events::Event::PartitionFailed { topic, partition, code, text } => self.partition_failed(&topic, partition, code, text),
            events::Event::ClientFailed { text, fatal: true, .. } => self.send(Event::Failed(text)),
            // The watcher says once that Kafka is away, and once that it is back.
            events::Event::ClientFailed { text, fatal: false, .. } => {
                tracing::debug!(error = text, "Kafka client");
                Ok(())
            }
            events::Event::Committed(result) => self.send(Event::Committed(result.map_err(|code| code.to_string()))),
            events::Event::Other => Ok(()),
        }
    }

    fn record(&mut self, record: &SourceRecord<'_>) -> Result<(), Gone> {
        let Some(Reading { lane, slot }) = self.assignment.reading(record.topic, record.partition.index()) else {
            return Ok(());
        };
        if !self.builders.is_ready(slot) {
            self.park(slot);
            return Ok(());
        }
        let SourceRecord { offset, timestamp, key, value, headers, .. } = *record;
        let payload = key.map_or(0, <[u8]>::len)
            + value.map_or(0, <[u8]>::len)
            + headers.map(|(name, value)| name.len() + value.map_or(0, <[u8]>::len)).sum::<usize>();
        if self.builders.ttl(slot).is_some_and(|ttl| ttl.is_over(timestamp, self.now_ms)) {
            if self.builders.batcher(slot).expire(lane, offset, self.now) {
                self.settings.metrics.records_consumed.inc();
                self.settings.metrics.payload_bytes.inc_by(payload as u64);
            }
            return Ok(());
        }
        match self.builders.batcher(slot).push(lane, Incoming { offset, timestamp, key, value, headers }, self.now) {
            Pushed::Added => {
                self.settings.metrics.records_consumed.inc();
                self.settings.metrics.payload_bytes.inc_by(payload as u64);
                Ok(())
            }
            Pushed::Ignored => Ok(()),
            Pushed::TooLarge { bytes } => {
                // Nothing after the record may go into a frame: that would make it a hole.
                self.builders.batcher(slot).detach(lane, true);
                self.send(Event::TooLarge { lane, offset, bytes, limit: self.settings.limits.largest_raw })
            }
        }
    }

    fn partition_failed(&mut self, topic: &str, partition: Partition, code: RDKafkaErrorCode, text: String) -> Result<(), Gone> {
        let Some(Reading { lane, .. }) = self.assignment.reading(topic, partition.index()) else {
            return Ok(());
        };
        if code == RDKafkaErrorCode::AutoOffsetReset || code == RDKafkaErrorCode::OffsetOutOfRange {
            return self.send(Event::Lost { lane, why: text });
        }
        if self.troubles.insert(lane, code) != Some(code) {
            tracing::warn!(topic, partition = partition.index(), error = text, "cannot read a partition; trying again");
        }
        Ok(())
    }

    fn send(&self, event: Event) -> Result<(), Gone> {
        self.events.blocking_send(event).map_err(|_| Gone)
    }
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}
