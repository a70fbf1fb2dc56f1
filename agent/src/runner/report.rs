//! What the outside sees: gaps, metrics, status.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rdkafka::consumer::Consumer;
use spillway_agent_core::lane::{LaneBook, Phase};
use spillway_agent_core::ledger::Passed;
use spillway_agent_core::schedule::{Flow, Scope, TopicClass};
use spillway_agent_core::start::Gap;
use spillway_kafka::watermarks::cached_end;
use spillway_ops::cli::VERSION;
use spillway_proto::TopicPartition;
use spillway_proto::deferred::Deferred;
use spillway_proto::frame::GapReason;

use super::Runner;
use crate::metrics::{ClassLabels, DirectionLabels, PartitionLabels, ReasonLabels};
use crate::status::{GapStatus, KafkaStatus, LinkStatus, PartitionStatus, SpillStatus, Status};

/// Data that waits for an acknowledgement longer than this, while the link is up, is a fault that a person should look at.
const STALLED: Duration = Duration::from_secs(60);

/// Gaps that the status shows.
const MAX_GAPS: usize = 20;

/// The log says so often how much was too old to be sent.
const TELL_EXPIRED: Duration = Duration::from_secs(60);

/// What was too old to be sent, for the log.
#[derive(Debug, Default)]
pub(super) struct Expired {
    untold: u64,
    told: Option<Instant>,
}

impl Runner {
    /// Tells of a gap wherever gaps are told of.
    pub(super) fn record_gap(&mut self, partition: &TopicPartition, gap: Gap) {
        let (first, next, count, reason) = (gap.first.value(), gap.next.value(), gap.lost_count(), gap.reason.as_str());
        let last = gap.lost().map(|(_, last)| last.value());
        tracing::error!(
            event = "gap", topic = %partition.topic, partition = partition.partition.index(), first, last, next, count, reason,
            "offsets are gone: they will never reach the centre"
        );
        self.parts.metrics.gaps.get_or_create(&ReasonLabels { reason }).inc();
        if self.gaps.len() == MAX_GAPS {
            self.gaps.pop_front();
        }
        self.gaps.push_back(GapStatus {
            time: jiff::Timestamp::now().to_string(),
            topic: partition.topic.to_string(),
            partition: partition.partition.index(),
            first,
            next,
            count,
            reason: reason.to_owned(),
        });
    }

    /// Counts what was passed over because it was too old. It is what the configuration asks for: the log tells how much at intervals, the centre has each range.
    pub(super) fn tell_passed(&mut self) {
        let passed = self.ledger.take_passed();
        if passed.is_empty() {
            return;
        }
        let reason = GapReason::Expired.as_str();
        for Passed { partition, first, next } in passed {
            let count = next.value().saturating_sub(first.value());
            tracing::debug!(event = "expired", topic = %partition.topic, partition = partition.partition.index(), %first, %next, count, "too old to be sent");
            self.parts.metrics.gaps.get_or_create(&ReasonLabels { reason }).inc();
            self.parts.metrics.records_expired.inc_by(count);
            self.expired.untold += count;
        }
        let now = Instant::now();
        if self.expired.told.is_none_or(|told| now.duration_since(told) >= TELL_EXPIRED) {
            let count = std::mem::take(&mut self.expired.untold);
            self.expired.told = Some(now);
            tracing::info!(
                event = "expired",
                count,
                "records were older than their topic's ttl: they were not sent, and are gaps at the centre"
            );
        }
    }

    pub(super) fn forget_metrics(&self, partition: &TopicPartition) {
        let labels = labels(partition);
        self.parts.metrics.lag_records.remove(&labels);
        self.parts.metrics.lag_seconds.remove(&labels);
    }

    pub(super) fn step_metrics(&mut self) {
        let metrics = &self.parts.metrics;
        metrics.unacked_bytes.set(self.ledger.unacked_bytes() as i64);
        for (class, bytes) in self.unacked_by_class() {
            metrics.class_waiting.get_or_create(&ClassLabels { class: class.as_str() }).set(bytes as i64);
        }
        if let Some(session) = &self.session {
            metrics.link_rtt.set(session.rtt().as_secs_f64());
        }
        let counters = self.parts.link.counters();
        let (sent, received) = (counters.sent_bytes(), counters.received_bytes());
        metrics.wire_bytes.get_or_create(&DirectionLabels { direction: "sent" }).inc_by(sent - self.wire.0);
        metrics.wire_bytes.get_or_create(&DirectionLabels { direction: "received" }).inc_by(received - self.wire.1);
        self.wire = (sent, received);
        self.step_plan_metrics();
        let metrics = &self.parts.metrics;
        metrics.link_waiting.set(i64::from(self.planned.is_waiting() || self.parts.plan.is_off()));
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
        let mut held = 0;
        let oldest_spilled = self.spill.as_ref().filter(|spill| spill.spool.is_in_use()).and_then(|spill| spill.usage.oldest_ms);
        for (lane, book) in self.ledger.partitions() {
            held += i64::from(matches!(book.phase, Phase::Held(_)));
            let labels = labels(&book.source.partition);
            let lag = self.lag(book);
            if let Some(lag) = lag {
                metrics.lag_records.get_or_create(&labels).set(lag as i64);
            }
            // Records that wait in Kafka are younger than the oldest in flight; without one in flight the last figure stands until the lag ends.
            // With a spill in use what is oldest may be there only, in the place of any partition that has not caught up.
            let spilled = oldest_spilled.filter(|_| lag.is_none_or(|lag| lag > 0));
            let oldest = self.ledger.oldest_unacked(lane).or(spilled);
            let age = oldest.map(|timestamp| now_ms.saturating_sub(timestamp).max(0) as f64 / 1000.0);
            if let Some(age) = age.or_else(|| (lag == Some(0)).then_some(0.0)) {
                metrics.lag_seconds.get_or_create(&labels).set(age);
            }
        }
        metrics.partitions_held.set(held);
    }

    /// Bytes that are not acknowledged, of each class that there are topics of.
    fn unacked_by_class(&self) -> BTreeMap<TopicClass, usize> {
        let mut bytes = BTreeMap::new();
        for (flow, spec) in (0..).map(Flow).zip(&self.parts.flows.specs) {
            *bytes.entry(spec.class).or_default() += self.ledger.unacked_bytes_of(Scope::One(flow));
        }
        bytes
    }

    /// Leaves the status for the admin endpoint, and tells systemd that the loop turns.
    pub(super) fn post(&self) {
        let status = self.status();
        if status.unhealthy.is_none() {
            spillway_ops::notify::watchdog();
        }
        self.parts.board.post(status);
    }

    fn status(&self) -> Status {
        Status {
            site: self.parts.config.site.to_string(),
            version: VERSION.to_owned(),
            draining: self.drain.is_some(),
            link: self.link_status(),
            kafka: KafkaStatus {
                state: match (&self.kafka_trouble, self.looked) {
                    (Some(_), _) => "away",
                    (None, true) => "up",
                    (None, false) => "unknown",
                }
                .to_owned(),
                error: self.kafka_trouble.clone(),
                topics: self.topics.known().len(),
            },
            unacked_bytes: self.ledger.unacked_bytes(),
            unacked_records: self.ledger.unacked_records(),
            budget_bytes: self.parts.budget.total(),
            unacked_bytes_by_class: self.unacked_by_class().into_iter().map(|(class, bytes)| (class.as_str().to_owned(), bytes)).collect(),
            spill: self.spill_status(),
            plan: self.parts.plan.status(),
            last_ack_seconds: self.last_ack.map(|at| at.elapsed().as_secs_f64()),
            partitions: self.ledger.partitions().map(|(lane, book)| self.partition_status(lane.0, book)).collect(),
            gaps: self.gaps.iter().cloned().collect(),
            unhealthy: self.unhealthy(),
            not_ready: self.not_ready(),
        }
    }

    /// Steps the spill's figures.
    pub(super) fn step_spill_metrics(&mut self) {
        let status = self.spill_status();
        let (metrics, Some(spill)) = (&self.parts.metrics, &mut self.spill) else {
            return;
        };
        let float = |value: Option<f64>| value.unwrap_or(f64::INFINITY);
        metrics.spill_in_use.set(i64::from(spill.spool.is_in_use()));
        metrics.spill_bytes.set(status.bytes as i64);
        metrics.spill_max_bytes.set(status.max_bytes as i64);
        metrics.spill_records.set(status.records as i64);
        metrics.spill_oldest.set(status.oldest_seconds.unwrap_or(0.0));
        metrics.spill_full.set(float(status.full_in_seconds));
        metrics.spill_drain.set(float(status.drain_in_seconds));
        metrics.spill_blocked.set(i64::from(status.trouble.is_some()));
        let told = std::mem::replace(&mut spill.told, spill.usage);
        metrics.spill_written.inc_by(spill.usage.written_bytes.saturating_sub(told.written_bytes));
        metrics.spill_dropped.inc_by(spill.usage.dropped_records.saturating_sub(told.dropped_records));
    }

    fn spill_status(&self) -> SpillStatus {
        let Some(spill) = &self.spill else {
            return SpillStatus { state: "off".to_owned(), ..SpillStatus::default() };
        };
        let usage = &spill.usage;
        let full = spill.full.values().next().copied();
        let (full_in, drain_in) = (spill.forecast.full_in(spill.max_bytes), spill.forecast.empty_in());
        let state = match (&spill.trouble, full, spill.spool.is_in_use()) {
            (Some(_), ..) => "trouble",
            (None, Some(_), _) => "full",
            (None, None, true) if self.session.is_none() || full_in.is_some() => "spilling",
            (None, None, true) => "draining",
            (None, None, false) => "idle",
        };
        let full = full.map(|full| format!("full ({}): reading waits for room", full.as_str()));
        let in_use = spill.spool.is_in_use();
        let now_ms = jiff::Timestamp::now().as_millisecond();
        SpillStatus {
            state: state.to_owned(),
            bytes: usage.disk_bytes,
            max_bytes: spill.max_bytes,
            records: usage.records,
            entries: usage.entries,
            oldest_seconds: usage.oldest_ms.filter(|_| in_use).map(|oldest| now_ms.saturating_sub(oldest).max(0) as f64 / 1000.0),
            full_in_seconds: full_in.filter(|_| in_use).map(|time| time.as_secs_f64()),
            drain_in_seconds: drain_in.filter(|_| in_use).map(|time| time.as_secs_f64()),
            written_bytes: usage.written_bytes,
            dropped_records: usage.dropped_records,
            trouble: spill.trouble.clone().or(full),
        }
    }

    fn link_status(&self) -> LinkStatus {
        let address = self.parts.config.collector.addresses.get(self.address).map(ToString::to_string);
        let next = self.planned.next_in(Instant::now());
        let state = match (&self.session, next) {
            (Some(_), _) => "open",
            (None, _) if self.parts.plan.is_off() => "off",
            (None, Some(_)) => "waiting",
            (None, None) => "dialling",
        };
        let off_until = self.parts.plan.decision().until.filter(|_| state == "off");
        LinkStatus {
            state: state.to_owned(),
            address,
            profile: self.profile().as_str().to_owned(),
            way: self.ways.way().as_str().to_owned(),
            collector_version: self.session.as_ref().map(|session| session.welcome.software.clone()),
            rtt_seconds: self.session.as_ref().map(|session| session.rtt().as_secs_f64()),
            last_error: self.link_trouble.clone(),
            sessions: self.sessions,
            next_session_seconds: next.map(|next| next.as_secs_f64()),
            off_until: off_until.map(|until| until.to_string()),
        }
    }

    fn partition_status(&self, lane: u32, book: &LaneBook) -> PartitionStatus {
        let (state, held) = match &book.phase {
            Phase::Live if book.position.is_none() => ("opening", None),
            Phase::Live => ("sending", None),
            Phase::Draining { .. } => ("draining", None),
            Phase::Held(because) => ("held", Some(format!("{}: {}", because.reason, because.detail))),
            Phase::Closed => ("closed", None),
        };
        PartitionStatus {
            topic: book.source.partition.topic.to_string(),
            partition: book.source.partition.partition.index(),
            class: self.parts.flows.specs.get(book.source.flow.0 as usize).map(|spec| spec.class.number()),
            lane,
            state: state.to_owned(),
            next: book.position.map(|next| next.value()),
            acked: book.acked.map(|next| next.value()),
            end: self.end_of(book).map(|next| next.value()),
            lag: self.lag(book),
            held,
        }
    }

    fn lag(&self, book: &LaneBook) -> Option<u64> {
        let deferred = self.ledger.deferred_of(&book.source.partition).map_or(0, Deferred::offsets);
        Some(self.end_of(book)?.value().saturating_sub(book.acked.or(book.base)?.value()) + deferred)
    }

    pub(super) fn end_of(&self, book: &LaneBook) -> Option<spillway_proto::NextOffset> {
        cached_end(self.parts.consumer.client(), &book.source.partition)
    }

    fn unhealthy(&self) -> Option<String> {
        // What has waited for the session since before it was due is not late.
        let due_for = self.planned.due_since().map_or(Duration::ZERO, |since| since.elapsed());
        let stalled = self.ledger.stalled_for(Instant::now()).min(due_for);
        // Where the plan holds data, waiting is what was asked for.
        let may_send = self.parts.plan.is_open_for(u8::MAX);
        (self.session.is_some() && may_send && stalled > STALLED).then(|| {
            format!(
                "{} records wait, the link is up, and nothing was acknowledged for {} s: look at the collector and the central Kafka",
                self.ledger.unacked_records(),
                stalled.as_secs()
            )
        })
    }

    fn not_ready(&self) -> Option<String> {
        if self.drain.is_some() {
            return Some("draining".to_owned());
        }
        if let Some(trouble) = &self.kafka_trouble {
            return Some(format!("the site's Kafka does not answer: {trouble}"));
        }
        if self.session.is_none() && !self.planned.is_waiting() && !self.parts.plan.needs_no_session() {
            let why = self.link_trouble.as_ref().map_or_else(String::new, |trouble| format!(": {trouble}"));
            return Some(format!("no session with a collector{why}"));
        }
        self.parts.on_ready.is_some().then(|| "starting".to_owned())
    }
}

fn labels(partition: &TopicPartition) -> PartitionLabels {
    PartitionLabels { topic: partition.topic.to_string(), partition: partition.partition.index() }
}
