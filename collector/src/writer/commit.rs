//! The end of a transaction: deliveries, gap events, syncs and progress last, commit; or abort, and what follows from it.
//!
//! Progress comes last so that the open transaction hides other sites' progress, which shares its partition, only for milliseconds.

use std::thread;
use std::time::Instant;

use rdkafka::error::RDKafkaErrorCode;
use spillway_collector_core::progress::Positions;
use spillway_collector_core::refusal::Verdict;
use spillway_proto::message::HoldReason;
use spillway_proto::progress::{self, ProgressKey};
use spillway_proto::{CloseCode, Lane, NextOffset, Partition, TopicName};

use super::attempt::{Attempt, LaneShare, Refused};
use super::failure::Failure;
use super::{End, Event, FENCED_WAIT, LaneState, PAUSE, Refusal, Writer};
use crate::centre::native::Outgoing;
use crate::centre::producer::{BATCH_OVERHEAD_BYTES, SiteProducer, TransactionError};
use crate::centre::topics::{self, syncs_topic};

/// What became of a transaction.
enum Outcome {
    Committed,
    /// It must be aborted.
    Broken,
    /// The producer is lost, and with it the answer.
    Uncertain(String),
}

impl Writer {
    /// Commits the open transaction, if one is. With `last` the syncs that were delayed go with it. After a failure the data waits again.
    pub(super) fn commit(&mut self, last: bool) -> Result<(), End> {
        if !self.pacer.is_open() {
            return Ok(());
        }
        let started = Instant::now();
        match self.try_commit(last)? {
            Outcome::Committed => self.committed(started),
            Outcome::Broken => self.abort()?,
            Outcome::Uncertain(error) => self.recover(started, &error)?,
        }
        Ok(())
    }

    /// Lets go of an open transaction before the writer ends, so that it does not hold up the topics' readers until it times out.
    pub(super) fn abort_quietly(&mut self) {
        let mut reports = Vec::new();
        let open = self.producer.as_ref().filter(|_| self.pacer.is_open());
        let Some(producer) = open else {
            return;
        };
        let deadline = Instant::now() + FENCED_WAIT;
        while let Err(TransactionError::Again(_)) = producer.abort(&mut reports)
            && Instant::now() < deadline
        {
            producer.poll(&mut reports);
        }
    }

    fn try_commit(&mut self, last: bool) -> Result<Outcome, End> {
        if !self.deliver()? {
            return Ok(Outcome::Broken);
        }
        if !self.write_gaps()? {
            return Ok(Outcome::Broken);
        }
        self.produce_own(last);
        if !self.deliver()? {
            return Ok(Outcome::Broken);
        }
        loop {
            let Some(producer) = &self.producer else {
                return Ok(Outcome::Uncertain("no producer".to_owned()));
            };
            match producer.commit() {
                Ok(()) => return Ok(Outcome::Committed),
                Err(TransactionError::Again(error)) => {
                    self.trouble.begin("commit", &error);
                    self.check_wanted()?;
                }
                Err(TransactionError::Abort(error)) => {
                    self.trouble.begin("commit", &error);
                    return Ok(Outcome::Broken);
                }
                Err(TransactionError::Fenced(error)) => return Err(self.fenced(&error)),
                Err(TransactionError::Reopen(error)) => return Ok(Outcome::Uncertain(error)),
            }
        }
    }

    /// Waits until every record was reported; false as soon as one has failed.
    pub(super) fn deliver(&mut self) -> Result<bool, End> {
        while !self.attempt.failed && self.producer.as_ref().is_some_and(|producer| producer.in_flight() > 0) {
            self.take_reports(SiteProducer::poll);
            self.check_wanted()?;
        }
        self.take_reports(SiteProducer::poll_now);
        Ok(!self.attempt.failed)
    }

    /// Syncs, then progress. A record that cannot even be queued fails the transaction.
    fn produce_own(&mut self, last: bool) {
        let now_ms = jiff::Timestamp::now().as_millisecond();
        let topic = syncs_topic(&self.centre.policy, &self.site);
        for sync in self.syncs.take(Instant::now(), last) {
            self.attempt.syncs += 1;
            self.queue_own(topic.as_ref(), Partition::FIRST, &Outgoing::own(&sync.encode_key(), &sync.encode_value(), now_ms));
        }
        let (topic, partition) = (TopicName::parse(progress::TOPIC).ok(), self.centre.tail.partition_of(&self.site));
        for (source, position) in self.moved() {
            let key = ProgressKey::Position { site: self.site.clone(), source }.encode();
            self.queue_own(topic.as_ref(), partition, &Outgoing::own(&key, &position.encode(), now_ms));
        }
    }

    fn queue_own(&mut self, topic: Option<&TopicName>, partition: Partition, record: &Outgoing<'_>) {
        match topic {
            Some(topic) => self.queue_tagged(topic, partition, record, Attempt::OWN),
            None => _ = self.attempt.report(Attempt::OWN, Err(RDKafkaErrorCode::State)),
        }
    }

    /// Queues a record that is not a lane's. One that cannot even be queued fails the transaction.
    pub(super) fn queue_tagged(&mut self, topic: &TopicName, partition: Partition, record: &Outgoing<'_>, tag: usize) {
        let queued = match &mut self.producer {
            Some(producer) => producer.produce(topic, partition.to_kafka(), record, tag),
            None => Err(RDKafkaErrorCode::State),
        };
        if let Err(code) = queued {
            self.attempt.report(tag, Err(code));
        }
    }

    /// Positions as the open transaction leaves them, of the partitions that it moves.
    fn moved(&self) -> Positions {
        let moved = self.attempt.moves.moved(&self.positions);
        moved.map(|(source, position)| (source.clone(), position.clone())).collect()
    }

    fn committed(&mut self, started: Instant) {
        let meters = &self.centre.meters;
        meters.transaction("committed");
        meters.commit_duration.observe(started.elapsed().as_secs_f64());
        meters.records_committed.inc_by(self.attempt.records() as u64);
        meters.record_bytes_committed.inc_by(self.attempt.raw_bytes);
        meters.offset_syncs.inc_by(self.attempt.syncs);
        let moved = self.moved();
        self.positions.extend(moved);
        let now_ms = jiff::Timestamp::now().as_millisecond();
        let mut acks = Vec::with_capacity(self.attempt.lanes.len());
        for share in &self.attempt.lanes {
            acks.push((share.lane, share.next));
            self.refusals.succeeded(share.lane, share.taken);
            if share.timestamp > 0 {
                meters.replication_latency.observe((now_ms - share.timestamp).max(0) as f64 / 1000.0);
            }
        }
        self.log_gaps();
        self.backlog.committed();
        self.syncs.committed();
        self.pacer.committed(Instant::now());
        self.failures = 0;
        self.trouble.end();
        self.last_used = Instant::now();
        if !acks.is_empty() {
            self.send(Event::Acked(acks));
        }
    }

    /// Ends the open transaction without a trace, and finds out what to do about the cause.
    fn abort(&mut self) -> Result<(), End> {
        loop {
            let mut result = Ok(());
            self.take_reports(|producer, reports| result = producer.abort(reports));
            match result {
                Ok(()) => break,
                Err(TransactionError::Again(error) | TransactionError::Abort(error)) => {
                    self.take_reports(SiteProducer::poll);
                    if self.attempt.transient.is_some() || !self.attempt.failed {
                        self.trouble.begin("abort", &error);
                    }
                    self.check_wanted()?;
                }
                Err(TransactionError::Fenced(error)) => return Err(self.fenced(&error)),
                Err(TransactionError::Reopen(error)) => {
                    self.trouble.begin("abort", &error);
                    let positions = self.reopen(None)?;
                    self.require_same(&positions)?;
                    break;
                }
            }
        }
        self.aborted("aborted");
        self.judge()
    }

    fn aborted(&mut self, outcome: &'static str) {
        self.centre.meters.transaction(outcome);
        self.backlog.aborted();
        self.syncs.aborted();
        self.pacer.aborted();
    }

    /// The producer was lost during the commit: a new one is opened, and the site's progress tells whether the commit had happened.
    fn recover(&mut self, started: Instant, error: &str) -> Result<(), End> {
        self.trouble.begin("commit", error);
        let positions = self.reopen(None)?;
        let mut with_attempt: Positions = self.positions.clone();
        with_attempt.extend(self.moved());
        if positions == with_attempt {
            self.committed(started);
            return Ok(());
        }
        self.require_same(&positions)?;
        self.aborted("uncertain");
        self.pause(PAUSE.0)
    }

    /// Either another session has the site now, or the brokers gave up our transaction for its age (they fence its producer then).
    fn fenced(&self, error: &str) -> End {
        let deadline = Instant::now() + FENCED_WAIT;
        while Instant::now() < deadline {
            if self.centre.tail.marker_of(&self.site) != self.marker {
                return End::new(CloseCode::Superseded, "a newer session of the site took over");
            }
            if self.check_wanted().is_err() {
                return End::new(CloseCode::Done, "the session is over");
            }
            thread::sleep(FENCED_WAIT / 100);
        }
        End::new(
            CloseCode::CentreUnavailable,
            format!("the central Kafka gave up the site's transaction ({error}); see transactions.timeout"),
        )
    }

    /// After an abort: who is to blame, and what is tried next.
    fn judge(&mut self) -> Result<(), End> {
        let shares = std::mem::take(&mut self.attempt.lanes);
        let mut searching = self.judge_gaps(&shares);
        tracing::debug!(site = %self.site, transient = ?self.attempt.transient, "a transaction was aborted");
        for share in &shares {
            if let Some((failure, code)) = share.topic_failure {
                searching |= self.judge_topic(share, failure, code);
            } else if let Some(refused) = share.refused {
                searching = true;
                self.judge_record(share, refused);
            }
        }
        if searching {
            return Ok(());
        }
        if let Some(code) = self.attempt.transient {
            self.trouble.begin("write", &code.to_string());
        }
        let pause = PAUSE.0 * 2u32.saturating_pow(self.failures.min(10));
        self.failures += 1;
        self.pause(pause.min(PAUSE.1))
    }

    /// Answers whether the cause is dealt with.
    fn judge_topic(&mut self, share: &LaneShare, failure: Failure, code: RDKafkaErrorCode) -> bool {
        let Some(lane) = self.lanes.get(&share.lane).cloned() else {
            return true;
        };
        if failure == Failure::Topic {
            self.hold(share.lane, share.first, HoldReason::TopicRefused, code, None);
            return true;
        }
        let (runtime, topics) = (self.centre.runtime.clone(), self.centre.topics.clone());
        let ensured = runtime.block_on(async {
            topics.forget(&lane.remote).await;
            topics.ensure_remote(&lane.remote, lane.partition_count).await
        });
        if let Some(producer) = &mut self.producer {
            producer.refresh(&lane.remote, lane.partition_count);
        }
        match ensured {
            Ok(()) => self.trouble.begin("write", &format!("{}: {code}", lane.remote)),
            Err(topics::Error::Refused { .. }) => {
                self.hold(share.lane, share.first, HoldReason::TopicRefused, code, None);
                return true;
            }
            Err(error) => self.trouble.begin("write", &error.to_string()),
        }
        false
    }

    fn judge_record(&mut self, share: &LaneShare, refused: Refused) {
        let Refused { first, last, code, .. } = refused;
        tracing::debug!(site = %self.site, lane = %share.lane, taken = share.taken, first, last, %code, "records of a lane were refused");
        match self.refusals.failed(share.lane, share.taken, refused.first, refused.last) {
            Verdict::Culprit => self.hold(share.lane, share.first, refused.reason, refused.code, Some(refused.offset)),
            Verdict::Narrowed if refused.reason == HoldReason::RecordTooLarge => self.fit_batches(share.lane),
            Verdict::Narrowed => {}
        }
    }

    /// The broker's limit is for batches: where a topic's is below ours, smaller batches are made, or good records would be refused.
    fn fit_batches(&mut self, lane: Lane) {
        let Some(remote) = self.lanes.get(&lane).map(|lane| lane.remote.clone()) else {
            return;
        };
        let (runtime, topics) = (self.centre.runtime.clone(), self.centre.topics.clone());
        let Ok(settings) = runtime.block_on(topics.refusing_settings(&remote)) else {
            return;
        };
        let limit = settings.get("max.message.bytes").and_then(|limit| limit.parse::<usize>().ok());
        let Some(fitting) = limit.map(|limit| limit.saturating_sub(BATCH_OVERHEAD_BYTES).max(1)) else {
            return;
        };
        if fitting < self.batch_bytes {
            tracing::info!(site = %self.site, topic = %remote, before = self.batch_bytes, batch_bytes = fitting, "smaller batches for a topic with a low max.message.bytes");
            self.batch_bytes = fitting;
            self.close_producer();
        }
    }

    fn hold(&mut self, lane: Lane, next: NextOffset, reason: HoldReason, code: RDKafkaErrorCode, offset: Option<u64>) {
        let Some(LaneState { source, remote, .. }) = self.lanes.get(&lane).cloned() else {
            return self.drop_lane(lane);
        };
        self.refuse(Refusal { lane, next, source, remote, reason, code, offset, detail: None });
    }

    /// The lane is over; its session is told why.
    pub(super) fn refuse(&mut self, refusal: Refusal) {
        let lane = refusal.lane;
        self.send(Event::Held(refusal));
        self.drop_lane(lane);
    }
}
