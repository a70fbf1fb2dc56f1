//! What comes from the site's Kafka: frames, topics, beginnings.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::error::KafkaResult;
use rdkafka::topic_partition_list::Offset;
use spillway_agent_core::lane::{AfterDrain, HeldBecause, LaneSource, RECORD_TOO_LARGE};
use spillway_agent_core::schedule::Flow;
use spillway_agent_core::start::{Beginning, Gap};
use spillway_agent_core::topics::{Change, Snapshot, TopicState};
use spillway_config::OnGap;
use spillway_proto::{Lane, NextOffset, Partition, TopicName, TopicPartition, limits};

use super::{Error, Runner};
use crate::source::{Event, SiteConsumer};
use crate::survey::{Answer, Asked, Question};

/// Answers taken at once, so that many lanes begin in one frame.
const MAX_ANSWERS_AT_ONCE: usize = 1000;

impl Runner {
    pub(super) fn on_source(&mut self, event: Event) -> Result<(), Error> {
        match event {
            Event::Frame(built) => self.on_frame(built)?,
            Event::Detached(lane) => self.ledger.detached(lane),
            Event::Lost { lane, why } => {
                if let Some(book) = self.ledger.book(lane) {
                    tracing::warn!(partition = %book.source.partition, why, "the position in this partition is lost; looking where it goes on");
                }
                self.ledger.drain(lane, AfterDrain::Reopen);
            }
            Event::TooLarge { lane, offset, bytes, limit } => {
                if let Some(book) = self.ledger.book(lane) {
                    let partition = &book.source.partition;
                    let detail = format!(
                        "record {offset} needs a frame of {bytes} bytes, the collector allows {limit}: raise session.max_frame_bytes there"
                    );
                    tracing::error!(
                        event = "held", topic = %partition.topic, partition = partition.partition.index(), offset = offset.value(),
                        reason = RECORD_TOO_LARGE, detail, "a record does not fit: this partition stands still, the others go on"
                    );
                    self.ledger.drain(lane, AfterDrain::Hold(HeldBecause { reason: RECORD_TOO_LARGE, detail }));
                }
            }
            Event::Committed(outcome) => self.on_committed(outcome),
            Event::Finished => {
                if let Some(drain) = &mut self.drain {
                    drain.finished = true;
                }
            }
            Event::Failed(text) => return Err(Error::Client(text)),
        }
        Ok(())
    }

    pub(super) fn on_answer(&mut self, answer: Answer) -> Result<(), Error> {
        self.take_answer(answer)?;
        for _ in 0..MAX_ANSWERS_AT_ONCE {
            match self.parts.survey.answers.try_recv() {
                Ok(answer) => self.take_answer(answer)?,
                Err(_) => break,
            }
        }
        Ok(())
    }

    fn take_answer(&mut self, answer: Answer) -> Result<(), Error> {
        match answer {
            Answer::Topics(snapshot) => self.on_topics(snapshot),
            Answer::Begin { question, beginning } => return self.on_begin(*question, beginning),
            Answer::Hole { question, log } => self.on_hole(question, log),
            Answer::Ahead { question, committed, log, first } => {
                self.on_ahead(question.lane, question.source.partition, committed, log, first);
            }
            Answer::Away(text) => {
                let servers = &self.parts.config.kafka.client.bootstrap_servers;
                tracing::warn!(
                    event = "kafka_away",
                    error = text,
                    bootstrap_servers = servers,
                    "the site's Kafka does not answer; trying again. If it runs: check kafka.bootstrap_servers, security_protocol and the brokers' advertised.listeners"
                );
                self.kafka_trouble = Some(text);
            }
            Answer::Back => {
                tracing::info!(event = "kafka_up", "the site's Kafka answers");
                self.kafka_trouble = None;
            }
        }
        Ok(())
    }

    fn on_topics(&mut self, snapshot: Snapshot) {
        if self.drain.is_some() {
            return;
        }
        for change in self.topics.update(snapshot) {
            self.on_change(change);
        }
        if !std::mem::replace(&mut self.looked, true) {
            self.open_found();
        }
        for partition in std::mem::take(&mut self.reopen) {
            let state = self.topics.known().get(&partition.topic).copied();
            match state.filter(|state| partition.partition.index() < state.partitions) {
                Some(state) => self.open(lane_source(partition, state, false)),
                None => self.close_partition(&partition),
            }
        }
    }

    fn on_change(&mut self, change: Change) {
        match change {
            Change::Appeared { topic, state, born } => {
                tracing::info!(event = "topic", %topic, id = %state.id, partitions = state.partitions, "mirroring a topic");
                self.open_range(&topic, state, 0, born);
            }
            Change::Grew { topic, state, before } => {
                tracing::info!(event = "topic", %topic, partitions = state.partitions, before, "a topic has more partitions");
                self.open_range(&topic, state, before, true);
            }
            Change::Recreated { topic, state, before } => {
                tracing::warn!(event = "topic", %topic, id = %state.id, partitions = state.partitions, "a topic was deleted and made anew");
                for partition in partitions(&topic, 0, before) {
                    let gone = partition.partition.index() >= state.partitions;
                    self.drain_partition(&partition, if gone { AfterDrain::Close } else { AfterDrain::Reopen });
                }
                self.open_range(&topic, state, before, true);
            }
            Change::Vanished { topic, before } => {
                tracing::info!(event = "topic", %topic, "a topic is gone");
                for partition in partitions(&topic, 0, before) {
                    self.drain_partition(&partition, AfterDrain::Close);
                }
            }
        }
    }

    fn open_range(&mut self, topic: &TopicName, state: TopicState, first: u32, born: bool) {
        if state.partitions > limits::MAX_PARTITIONS {
            tracing::error!(%topic, partitions = state.partitions, "more partitions than the protocol allows; the topic is not mirrored");
            return;
        }
        for partition in partitions(topic, first, state.partitions) {
            // One that vanished a moment ago and is still draining gets its lane when that is over.
            self.revive(&partition, state);
            match self.ledger.lane_of(&partition).and_then(|lane| Some((lane, self.ledger.book(lane)?.is_dead()))) {
                Some((lane, false)) => self.ledger.redirect(lane, AfterDrain::Reopen),
                Some((_, true)) | None => self.open(lane_source(partition, state, born)),
            }
        }
    }

    fn drain_partition(&mut self, partition: &TopicPartition, then: AfterDrain) {
        match self.ledger.lane_of(partition) {
            Some(lane) if self.ledger.book(lane).is_some_and(|book| !book.is_dead()) => self.ledger.drain(lane, then),
            Some(_) if then == AfterDrain::Reopen => _ = self.reopen.insert(partition.clone()),
            Some(_) => self.close_partition(partition),
            None if self.forget_opening(partition) && then == AfterDrain::Reopen => _ = self.reopen.insert(partition.clone()),
            None => {}
        }
    }

    /// The partition is not mirrored any more.
    pub(super) fn let_go(&mut self, partition: &TopicPartition) {
        self.ledger.forget(partition);
        self.forget_metrics(partition);
    }

    fn on_begin(&mut self, question: Question, beginning: Beginning) -> Result<(), Error> {
        if question.session != self.sessions || self.session.is_none() || self.drain.is_some() {
            return Ok(());
        }
        let Question { lane, source, asked: Asked::Begin(point), .. } = question else {
            return Ok(());
        };
        if let Beginning::Gap(gap) = beginning
            && self.announce_gap(lane, &source.partition, gap)?
        {
            return Ok(());
        }
        if let Some(section) = self.ledger.begin(lane, point, beginning) {
            self.send_opening(&source.partition, section);
        }
        Ok(())
    }

    /// Tells of a gap. Answers true when the agent halts because of it.
    fn announce_gap(&mut self, lane: Lane, partition: &TopicPartition, gap: Gap) -> Result<bool, Error> {
        // The lane may have ended while the question was asked; its successor will ask again.
        if self.ledger.book(lane).is_none_or(|book| book.is_dead() || book.position.is_some()) {
            return Ok(true);
        }
        if self.parts.config.on_gap_of(partition.topic.as_str()) == OnGap::Halt {
            let (first, next, reason) = (gap.first, gap.next, gap.reason.as_str());
            self.begin_drain(Some(Error::GapHalt { partition: partition.clone(), first, next, reason }))?;
            return Ok(true);
        }
        self.record_gap(partition, gap);
        Ok(false)
    }

    /// Commits what was acknowledged since the last time, in the background. The first time at once: without a commit, an agent that is started anew
    /// in an outage cannot tell how much of a partition the centre has, and commits nothing of it until it is asked.
    pub(super) fn commit(&mut self, now: Instant) {
        let interval = self.parts.config.kafka.commit_interval;
        if now < self.commit_due {
            return;
        }
        match self.commit.take_if(|commit| now.duration_since(commit.since) > 2 * interval) {
            // While reading stands still, outcomes wait behind records. To commit again does no harm.
            Some(stale) => self.ledger.commit_failed(stale.offsets),
            None if self.commit.is_some() => return,
            None => {}
        }
        let offsets = self.ledger.take_commits();
        if offsets.is_empty() {
            return;
        }
        self.commit_due = now + interval;
        let outcome = offset_list(&offsets).and_then(|list| self.parts.consumer.commit(&list, CommitMode::Async));
        self.commit = Some(super::Commit { offsets, since: now });
        if let Err(error) = outcome {
            self.on_committed(Err(error.to_string()));
        }
    }

    fn on_committed(&mut self, outcome: Result<(), String>) {
        let Some(commit) = self.commit.take() else {
            return;
        };
        match outcome {
            Ok(()) => {
                if self.commit_trouble.take().is_some() {
                    tracing::info!("the local group is committed again");
                }
            }
            Err(error) => {
                self.parts.metrics.commit_failures.inc();
                self.ledger.commit_failed(commit.offsets);
                if self.commit_trouble.as_ref() != Some(&error) {
                    let group = format!("spillway-{}", self.parts.config.site);
                    tracing::warn!(
                        error,
                        group,
                        "cannot commit the local group; trying again. Nothing is lost, only the lag shown is wrong. Does the agent have the ACL to read the group?"
                    );
                    self.commit_trouble = Some(error);
                }
            }
        }
    }
}

/// The last commit: waits for its outcome, for at most `timeout`.
pub(super) async fn commit_last(consumer: Arc<SiteConsumer>, offsets: BTreeMap<TopicPartition, NextOffset>, timeout: Duration) {
    let commit = move || offset_list(&offsets).and_then(|list| consumer.commit(&list, CommitMode::Sync));
    match tokio::time::timeout(timeout, tokio::task::spawn_blocking(commit)).await {
        Ok(Ok(Ok(()))) => {}
        Ok(Ok(Err(error))) => {
            tracing::warn!(%error, "the local group was not committed at the end; nothing is lost, only the lag shown is wrong")
        }
        Ok(Err(_)) | Err(_) => {
            tracing::warn!(?timeout, "the local group was not committed in time; nothing is lost, only the lag shown is wrong")
        }
    }
}

fn offset_list(offsets: &BTreeMap<TopicPartition, NextOffset>) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::with_capacity(offsets.len());
    for (partition, next) in offsets {
        list.add_partition_offset(partition.topic.as_str(), partition.partition.to_kafka(), Offset::Offset(next.to_kafka()))?;
    }
    Ok(list)
}

fn partitions(topic: &TopicName, first: u32, end: u32) -> impl Iterator<Item = TopicPartition> {
    (first..end).filter_map(Partition::new).map(|partition| TopicPartition { topic: topic.clone(), partition })
}

fn lane_source(partition: TopicPartition, state: TopicState, born: bool) -> LaneSource {
    LaneSource { partition, topic_id: state.id, partition_count: state.partitions, born, outlived_by: None, flow: Flow::default() }
}
