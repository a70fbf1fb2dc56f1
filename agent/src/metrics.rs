//! The agent's metrics. Labels are topics and partitions of this site's Kafka, directions and fixed reasons: all of bounded number.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use spillway_agent_core::schedule::TopicClass;
use spillway_agent_core::sessions::Reason;
use spillway_ops::Metrics;
use spillway_ops::metrics::{FloatCounter, FloatGauge};
use spillway_proto::frame::GapReason;

spillway_ops::metric_names! {
    /// Every metric of the agent.
    pub enum AgentMetric {
        RecordsConsumed = "records_consumed_total", "Records read from the site's Kafka";
        RecordsAcked = "records_acked_total", "Records that the centre has committed";
        PayloadBytes = "payload_bytes_total", "Bytes of keys, values and headers read from the site's Kafka";
        FrameBytes = "frame_bytes_total", "Bytes of frames built, compressed";
        SentFrames = "sent_frames_total", "Frames given to QUIC, by class of topics";
        SentBytes = "sent_bytes_total", "Bytes of frames given to QUIC, by class of topics";
        HistorySaved = "history_saved_bytes_total", "Bytes by which frames given to QUIC were smaller than those built, because of what was sent before";
        ClassWaiting = "class_unacked_bytes", "Bytes of frames in memory that are not acknowledged, by class of topics";
        CompressionRaw = "compression_raw_bytes_total", "Bytes of records before compression, by topic";
        CompressionEncoded = "compression_encoded_bytes_total", "The same bytes compressed; a frame holds many topics, each counts its part by its raw bytes";
        CompressionSeconds = "compression_cpu_seconds_total", "Processor time of compression; a frame's is parted among its topics by their raw bytes";
        CompressionLevel = "compression_level", "Level at which the topic was compressed last";
        WireBytes = "wire_bytes_total", "Bytes on the wire with IP and UDP headers, by direction";
        LagRecords = "lag_records", "Offsets from what the centre has committed to the end of the source's log";
        LagSeconds = "lag_seconds", "Age of the oldest record that the centre has not committed";
        UnackedBytes = "unacked_bytes", "Bytes of frames that are not acknowledged";
        Gaps = "gaps_total", "Ranges of offsets that will never reach the centre, by reason";
        RecordsExpired = "records_expired_total", "Offsets that were not sent because they were older than their topic's ttl";
        PartitionsHeld = "partitions_held", "Partitions that stand still because a record or topic is refused";
        LinkUp = "link_up", "1 while a session with a collector is open";
        LinkWay = "link_way", "1 for the way that the session, or the last one, goes: udp, or tcp where UDP is blocked";
        Reconnects = "reconnects_total", "Sessions that were opened in place of one that was lost";
        LinkWaiting = "link_waiting", "1 between two sessions of the profile session, and while the plan says off: none is wanted";
        Sessions = "sessions_total", "Sessions that were due, by reason";
        LinkRtt = "link_rtt_seconds", "Round-trip time of the link as QUIC measures it";
        SpillInUse = "spill_in_use", "1 while records go through the spill";
        SpillBytes = "spill_bytes", "Bytes of the spill's files";
        SpillMaxBytes = "spill_max_bytes", "Most bytes that the spill may take; 0 without a spill";
        SpillRecords = "spill_records", "Records in the spill that its files have not given back yet";
        SpillOldest = "spill_oldest_seconds", "Age of the oldest frame in the spill; 0 while it is empty";
        SpillFull = "spill_full_seconds", "Time until the spill is full if it goes on growing as in the last minute; +Inf while it does not grow";
        SpillDrain = "spill_drain_seconds", "Time until the spill is drained if it goes on shrinking as in the last minute; +Inf while it does not shrink";
        SpillBlocked = "spill_blocked", "1 while the spill takes nothing, because it is full or its disk fails";
        SpillWritten = "spill_written_bytes_total", "Bytes that the spill handed to the disk";
        SpillDropped = "spill_dropped_records_total", "Records that were dropped because the spill was full";
        SpillDamaged = "spill_damaged_total", "Damaged files found in the spill, and frames found unreadable";
        RateLimit = "rate_limit_bits_per_second", "The rate in force; 0: nothing is sent, +Inf: unlimited";
        RateReason = "rate_limit_reason", "1 for what set the rate in force: unlimited, agent, site, timetable or budget";
        BudgetUsed = "budget_used_bytes", "Bytes on the wire used of the budget, by period";
        BudgetLeft = "budget_left_bytes", "Bytes on the wire left of the budget, by period; +Inf: unlimited";
        BudgetRunsOut = "budget_runs_out_timestamp_seconds", "When the budget runs out at the pace so far; +Inf: not before it begins anew";
        SettingsRolledBack = "settings_rolled_back_total", "Settings of the centre that were given up because contact was lost under them";
        CommitFailures = "commit_failures_total", "Commits of the local group that failed and were repeated";
    }
}

/// A partition of the site's Kafka.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PartitionLabels {
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: u32,
}

/// A topic of the site's Kafka.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct TopicLabels {
    /// Topic.
    pub topic: String,
}

/// Why something was lost.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReasonLabels {
    /// A stable name.
    pub reason: &'static str,
}

/// A day or a month.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PeriodLabels {
    /// `day` or `month`.
    pub period: &'static str,
}

/// Which way.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct DirectionLabels {
    /// `sent` or `received`.
    pub direction: &'static str,
}

/// What carries the link.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct WayLabels {
    /// `udp` or `tcp`.
    pub way: &'static str,
}

/// How urgent topics are.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ClassLabels {
    /// `0` to `3`.
    pub class: &'static str,
}

/// Handles of all metrics; clones step the same ones.
#[derive(Debug, Clone)]
pub struct AgentMetrics {
    /// Records read.
    pub records_consumed: Counter,
    /// Records committed at the centre.
    pub records_acked: Counter,
    /// Payload read.
    pub payload_bytes: Counter,
    /// Frames built.
    pub frame_bytes: Counter,
    /// Frames given to QUIC.
    pub sent_frames: Family<ClassLabels, Counter>,
    /// Their bytes.
    pub sent_bytes: Family<ClassLabels, Counter>,
    /// See [`AgentMetric::HistorySaved`].
    pub history_saved: Counter,
    /// Bytes of frames that are not acknowledged.
    pub class_waiting: Family<ClassLabels, Gauge>,
    /// Bytes before compression.
    pub compression_raw: Family<TopicLabels, Counter>,
    /// The same bytes compressed.
    pub compression_encoded: Family<TopicLabels, Counter>,
    /// Processor time.
    pub compression_seconds: Family<TopicLabels, FloatCounter>,
    /// The level.
    pub compression_level: Family<TopicLabels, Gauge>,
    /// Bytes on the wire.
    pub wire_bytes: Family<DirectionLabels, Counter>,
    /// Lag in offsets.
    pub lag_records: Family<PartitionLabels, Gauge>,
    /// Lag in seconds.
    pub lag_seconds: Family<PartitionLabels, FloatGauge>,
    /// Frames not acknowledged.
    pub unacked_bytes: Gauge,
    /// Gaps.
    pub gaps: Family<ReasonLabels, Counter>,
    /// Too old to be sent.
    pub records_expired: Counter,
    /// Partitions that stand still.
    pub partitions_held: Gauge,
    /// Session open.
    pub link_up: Gauge,
    /// What carries it.
    pub link_way: Family<WayLabels, Gauge>,
    /// Sessions in place of lost ones.
    pub reconnects: Counter,
    /// See [`AgentMetric::LinkWaiting`].
    pub link_waiting: Gauge,
    /// See [`AgentMetric::Sessions`].
    pub sessions: Family<ReasonLabels, Counter>,
    /// Round-trip time.
    pub link_rtt: FloatGauge,
    /// The spill in use.
    pub spill_in_use: Gauge,
    /// Its size.
    pub spill_bytes: Gauge,
    /// Its bound.
    pub spill_max_bytes: Gauge,
    /// Its records.
    pub spill_records: Gauge,
    /// Its oldest frame.
    pub spill_oldest: FloatGauge,
    /// Time to full.
    pub spill_full: FloatGauge,
    /// Time to empty.
    pub spill_drain: FloatGauge,
    /// Takes nothing.
    pub spill_blocked: Gauge,
    /// Bytes written.
    pub spill_written: Counter,
    /// Records dropped.
    pub spill_dropped: Counter,
    /// Damage found.
    pub spill_damaged: Counter,
    /// Rate in force.
    pub rate_limit: FloatGauge,
    /// What set it.
    pub rate_reason: Family<ReasonLabels, Gauge>,
    /// Budget used.
    pub budget_used: Family<PeriodLabels, Gauge>,
    /// Budget left.
    pub budget_left: Family<PeriodLabels, FloatGauge>,
    /// When it runs out.
    pub budget_runs_out: FloatGauge,
    /// Settings given up.
    pub settings_rolled_back: Counter,
    /// Failed commits.
    pub commit_failures: Counter,
}

impl AgentMetrics {
    /// Registers all of them.
    pub fn register(metrics: &mut Metrics) -> Self {
        let registered = Self {
            records_consumed: metrics.counter(AgentMetric::RecordsConsumed),
            records_acked: metrics.counter(AgentMetric::RecordsAcked),
            payload_bytes: metrics.counter(AgentMetric::PayloadBytes),
            frame_bytes: metrics.counter(AgentMetric::FrameBytes),
            sent_frames: metrics.family(AgentMetric::SentFrames),
            sent_bytes: metrics.family(AgentMetric::SentBytes),
            history_saved: metrics.counter(AgentMetric::HistorySaved),
            class_waiting: metrics.family(AgentMetric::ClassWaiting),
            compression_raw: metrics.family(AgentMetric::CompressionRaw),
            compression_encoded: metrics.family(AgentMetric::CompressionEncoded),
            compression_seconds: metrics.family(AgentMetric::CompressionSeconds),
            compression_level: metrics.family(AgentMetric::CompressionLevel),
            wire_bytes: metrics.family(AgentMetric::WireBytes),
            lag_records: metrics.family(AgentMetric::LagRecords),
            lag_seconds: metrics.family(AgentMetric::LagSeconds),
            unacked_bytes: metrics.gauge(AgentMetric::UnackedBytes),
            gaps: metrics.family(AgentMetric::Gaps),
            records_expired: metrics.counter(AgentMetric::RecordsExpired),
            partitions_held: metrics.gauge(AgentMetric::PartitionsHeld),
            link_up: metrics.gauge(AgentMetric::LinkUp),
            link_way: metrics.family(AgentMetric::LinkWay),
            reconnects: metrics.counter(AgentMetric::Reconnects),
            link_waiting: metrics.gauge(AgentMetric::LinkWaiting),
            sessions: metrics.family(AgentMetric::Sessions),
            link_rtt: metrics.float_gauge(AgentMetric::LinkRtt),
            spill_in_use: metrics.gauge(AgentMetric::SpillInUse),
            spill_bytes: metrics.gauge(AgentMetric::SpillBytes),
            spill_max_bytes: metrics.gauge(AgentMetric::SpillMaxBytes),
            spill_records: metrics.gauge(AgentMetric::SpillRecords),
            spill_oldest: metrics.float_gauge(AgentMetric::SpillOldest),
            spill_full: metrics.float_gauge(AgentMetric::SpillFull),
            spill_drain: metrics.float_gauge(AgentMetric::SpillDrain),
            spill_blocked: metrics.gauge(AgentMetric::SpillBlocked),
            spill_written: metrics.counter(AgentMetric::SpillWritten),
            spill_dropped: metrics.counter(AgentMetric::SpillDropped),
            spill_damaged: metrics.counter(AgentMetric::SpillDamaged),
            rate_limit: metrics.float_gauge(AgentMetric::RateLimit),
            rate_reason: metrics.family(AgentMetric::RateReason),
            budget_used: metrics.family(AgentMetric::BudgetUsed),
            budget_left: metrics.family(AgentMetric::BudgetLeft),
            budget_runs_out: metrics.float_gauge(AgentMetric::BudgetRunsOut),
            settings_rolled_back: metrics.counter(AgentMetric::SettingsRolledBack),
            commit_failures: metrics.counter(AgentMetric::CommitFailures),
        };
        registered.begin_at_zero();
        registered
    }

    /// Creates all that is counted by a label of a fixed list. What is not there before its first event does not rise by it, and an alert on the rise would miss it.
    fn begin_at_zero(&self) {
        // What is deferred is not lost, and not counted.
        let lost = GapReason::NAMES.iter().filter(|name| **name != GapReason::Deferred.as_str());
        lost.for_each(|reason| drop(self.gaps.get_or_create(&ReasonLabels { reason })));
        Reason::ALL.iter().for_each(|reason| drop(self.sessions.get_or_create(&ReasonLabels { reason: reason.as_str() })));
        ["sent", "received"].iter().for_each(|direction| drop(self.wire_bytes.get_or_create(&DirectionLabels { direction })));
    }
}

impl AgentMetrics {
    /// A frame is given to QUIC.
    pub fn sent(&self, class: TopicClass, bytes: usize) {
        let labels = ClassLabels { class: class.as_str() };
        self.sent_frames.get_or_create(&labels).inc();
        self.sent_bytes.get_or_create(&labels).inc_by(bytes as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listed_metric_is_registered() {
        let mut metrics = Metrics::new("spillway-agent");
        AgentMetrics::register(&mut metrics);
        assert_eq!(metrics.missing::<AgentMetric>(), Vec::<&str>::new());
    }

    #[test]
    fn what_alerts_are_about_is_there_before_it_happens() {
        let mut metrics = Metrics::new("spillway-agent");
        AgentMetrics::register(&mut metrics);
        let text = metrics.encode();
        for series in [
            "spillway_gaps_total{reason=\"retention\"} 0",
            "spillway_sessions_total{reason=\"class_0\"} 0",
            "spillway_spill_damaged_total 0",
        ] {
            assert!(text.lines().any(|line| line == series), "no {series}");
        }
        assert!(!text.contains("deferred"), "no loss");
        let unseen = spillway_ops::metrics::unseen_alerts::<AgentMetric>(include_str!("../../docs/operations.md"), &text);
        assert_eq!(unseen, Vec::<String>::new());
    }
}
