//! What the collector counts.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use spillway_ops::{Metrics, metric_names};
use spillway_proto::CloseCode;
use spillway_proto::frame::GapReason;
use spillway_proto::message::{HoldReason, SettingsOutcome};

metric_names! {
    /// Metrics of the collector.
    pub enum CollectorMetric {
        SitesConnected = "sites_connected", "Sites with an open session";
        TunnelsOpen = "tunnels_open", "Connections over TCP, of sites whose UDP is blocked";
        RecordsCommitted = "records_committed_total", "Records committed at the central Kafka";
        FramesAgain = "frames_again_total", "Frames that a site was asked for once more, since what was sent before is not what they were compressed after";
        RecordsDuplicate = "records_duplicate_total", "Records that a site sent again and that were there already";
        RecordBytesCommitted = "record_bytes_committed_total", "Uncompressed record bytes committed at the central Kafka";
        Frames = "frames_total", "Frames received whole";
        FrameBytes = "frame_bytes_total", "Bytes of the frames received";
        HeldBytes = "held_frame_bytes", "Bytes of frames received and not yet committed";
        Transactions = "transactions_total", "Transactions at the central Kafka by outcome";
        OffsetSyncs = "offset_syncs_total", "Offset syncs committed";
        ReplicationLatency = "replication_latency_seconds", "From a record's timestamp at the source to its commit, one record a lane and transaction";
        CommitDuration = "commit_duration_seconds", "From the decision to commit to the commit";
        ResumeDuration = "resume_duration_seconds", "From the opening of a site's writer to its known position";
        SessionsRefused = "sessions_refused_total", "Sessions refused or ended for a reason other than a normal end";
        Gaps = "gaps_total", "Gaps in the source's offsets that sites have told";
        PartitionsHeld = "partitions_held", "Source partitions that stand still because the central Kafka refuses a record";
        Holds = "holds_total", "Records or topics that the central Kafka has refused";
        WritersOpen = "writers_open", "Sites with a producer at the central Kafka";
        SiteFilesRefused = "site_files_refused", "Connected sites whose file has a mistake in it; what was read before is in force";
        SettingsReports = "settings_reports_total", "What sites did with the settings they were sent, by outcome";
        CentreUp = "centre_up", "1 while the central Kafka answers";
    }
}

/// Label `outcome`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OutcomeLabel {
    /// `committed`, `aborted` or `uncertain`; of settings `trying`, `accepted`, `refused`, `rolled_back` or `other`.
    pub outcome: &'static str,
}

/// Label `reason`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReasonLabel {
    /// Name of a close code, gap reason or hold reason: a short, fixed list each.
    pub reason: &'static str,
}

/// The collector's metrics. Clones share their values.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the names of CollectorMetric, which have their help")]
pub struct Meters {
    pub sites_connected: Gauge,
    pub tunnels_open: Gauge,
    pub records_committed: Counter,
    pub frames_again: Counter,
    pub records_duplicate: Counter,
    pub record_bytes_committed: Counter,
    pub frames: Counter,
    pub frame_bytes: Counter,
    pub held_bytes: Gauge,
    pub transactions: Family<OutcomeLabel, Counter>,
    pub offset_syncs: Counter,
    pub replication_latency: Histogram,
    pub commit_duration: Histogram,
    pub resume_duration: Histogram,
    pub sessions_refused: Family<ReasonLabel, Counter>,
    pub gaps: Family<ReasonLabel, Counter>,
    pub partitions_held: Gauge,
    pub holds: Family<ReasonLabel, Counter>,
    pub writers_open: Gauge,
    pub site_files_refused: Gauge,
    pub settings_reports: Family<OutcomeLabel, Counter>,
    pub centre_up: Gauge,
}

impl Meters {
    /// Registers all of them.
    pub fn new(metrics: &mut Metrics) -> Self {
        use CollectorMetric as Name;
        let meters = Self {
            sites_connected: metrics.gauge(Name::SitesConnected),
            tunnels_open: metrics.gauge(Name::TunnelsOpen),
            records_committed: metrics.counter(Name::RecordsCommitted),
            frames_again: metrics.counter(Name::FramesAgain),
            records_duplicate: metrics.counter(Name::RecordsDuplicate),
            record_bytes_committed: metrics.counter(Name::RecordBytesCommitted),
            frames: metrics.counter(Name::Frames),
            frame_bytes: metrics.counter(Name::FrameBytes),
            held_bytes: metrics.gauge(Name::HeldBytes),
            transactions: metrics.family(Name::Transactions),
            offset_syncs: metrics.counter(Name::OffsetSyncs),
            replication_latency: metrics.histogram(Name::ReplicationLatency, LATENCY_SECONDS),
            commit_duration: metrics.histogram(Name::CommitDuration, CALL_SECONDS),
            resume_duration: metrics.histogram(Name::ResumeDuration, CALL_SECONDS),
            sessions_refused: metrics.family(Name::SessionsRefused),
            gaps: metrics.family(Name::Gaps),
            partitions_held: metrics.gauge(Name::PartitionsHeld),
            holds: metrics.family(Name::Holds),
            writers_open: metrics.gauge(Name::WritersOpen),
            site_files_refused: metrics.gauge(Name::SiteFilesRefused),
            settings_reports: metrics.family(Name::SettingsReports),
            centre_up: metrics.gauge(Name::CentreUp),
        };
        meters.begin_at_zero();
        meters
    }

    /// Creates all that is counted by a label of a fixed list. What is not there before its first event does not rise by it, and an alert on the rise would miss it.
    fn begin_at_zero(&self) {
        let outcomes = |family: &Family<OutcomeLabel, Counter>, names: &[&'static str]| {
            names.iter().for_each(|outcome| drop(family.get_or_create(&OutcomeLabel { outcome })));
        };
        outcomes(&self.transactions, &["committed", "aborted", "uncertain"]);
        outcomes(&self.settings_reports, SettingsOutcome::NAMES);
        let reasons = |family: &Family<ReasonLabel, Counter>, names: &[&'static str]| {
            names.iter().for_each(|reason| drop(family.get_or_create(&ReasonLabel { reason })));
        };
        let codes: Vec<_> = CloseCode::ALL.iter().map(|code| code.as_str()).collect();
        reasons(&self.sessions_refused, &codes);
        reasons(&self.sessions_refused, spillway_link::explain::REASONS);
        // What is deferred is not lost, and not counted.
        let lost: Vec<_> = GapReason::NAMES.iter().copied().filter(|name| *name != GapReason::Deferred.as_str()).collect();
        reasons(&self.gaps, &lost);
        reasons(&self.holds, HoldReason::NAMES);
    }

    /// Counts a transaction.
    pub fn transaction(&self, outcome: &'static str) {
        self.transactions.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    /// Counts a session that was refused or ended.
    pub fn session_refused(&self, reason: &'static str) {
        self.sessions_refused.get_or_create(&ReasonLabel { reason }).inc();
    }
}

/// From a fast line to a site that was away for a week.
const LATENCY_SECONDS: &[f64] = &[0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0, 86_400.0, 604_800.0];

const CALL_SECONDS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listed_metric_is_there() {
        let mut metrics = Metrics::new("test");
        let _meters = Meters::new(&mut metrics);
        assert_eq!(metrics.missing::<CollectorMetric>(), Vec::<&str>::new());
    }

    #[test]
    fn what_alerts_are_about_is_there_before_it_happens() {
        let mut metrics = Metrics::new("test");
        let _meters = Meters::new(&mut metrics);
        let text = metrics.encode();
        for series in [
            "spillway_gaps_total{reason=\"retention\"} 0",
            "spillway_settings_reports_total{outcome=\"rolled_back\"} 0",
            "spillway_sessions_refused_total{reason=\"superseded\"} 0",
            "spillway_sessions_refused_total{reason=\"certificate_expired\"} 0",
            "spillway_holds_total{reason=\"record_too_large\"} 0",
            "spillway_transactions_total{outcome=\"uncertain\"} 0",
        ] {
            assert!(text.lines().any(|line| line == series), "no {series}");
        }
        assert!(!text.contains("deferred"), "no loss");
        let unseen = spillway_ops::metrics::unseen_alerts::<CollectorMetric>(include_str!("../../docs/operations.md"), &text);
        assert_eq!(unseen, Vec::<String>::new());
    }
}
