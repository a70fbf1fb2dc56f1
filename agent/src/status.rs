//! What the admin endpoint shows: written by the runner each second, read by the endpoint's own thread.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use spillway_ops::{AdminSource, Health, Table};

use crate::plan::PlanStatus;

/// The agent at one moment. Times are in seconds, sizes in bytes.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Status {
    /// The site.
    pub site: String,
    /// The agent's version.
    pub version: String,
    /// True between a signal and the end.
    pub draining: bool,
    /// The link to the collector.
    pub link: LinkStatus,
    /// The site's Kafka.
    pub kafka: KafkaStatus,
    /// Bytes of frames that are not acknowledged.
    pub unacked_bytes: usize,
    /// Records in them.
    pub unacked_records: u64,
    /// Most bytes of frames that may be unacknowledged; reading stops there.
    pub budget_bytes: usize,
    /// The bytes of frames that are not acknowledged, by class of topics, `0` to `3`.
    #[serde(default)]
    pub unacked_bytes_by_class: BTreeMap<String, usize>,
    /// The spill.
    #[serde(default)]
    pub spill: SpillStatus,
    /// What the site may send.
    #[serde(default)]
    pub plan: PlanStatus,
    /// Seconds since the last acknowledgement; none so far: absent.
    pub last_ack_seconds: Option<f64>,
    /// Partitions in order of topic and number.
    pub partitions: Vec<PartitionStatus>,
    /// The newest gaps, oldest first.
    pub gaps: Vec<GapStatus>,
    /// Why `/healthz` is red; absent: it is green.
    pub unhealthy: Option<String>,
    /// Why `/readyz` is red; absent: it is green.
    pub not_ready: Option<String>,
}

/// The link to the collector.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct LinkStatus {
    /// `open`, `dialling`, `waiting` or `off`: by the plan.
    pub state: String,
    /// The collector's address, as dialled.
    pub address: Option<String>,
    /// `udp`, or `tcp` where UDP is blocked: of the session, or of the next attempt.
    #[serde(default)]
    pub way: String,
    /// `normal`, `metered` or `session`: of the agent's own profile and the centre's the greater. A session that is open keeps the one that it began with.
    #[serde(default)]
    pub profile: String,
    /// The collector's version.
    pub collector_version: Option<String>,
    /// Round-trip time.
    pub rtt_seconds: Option<f64>,
    /// Why the last session or attempt ended, and what to do.
    pub last_error: Option<String>,
    /// Sessions opened so far.
    pub sessions: u64,
    /// While waiting: until the next session, if nothing makes it due before.
    #[serde(default)]
    pub next_session_seconds: Option<f64>,
    /// While off: until when, if that is known (RFC 3339).
    #[serde(default)]
    pub off_until: Option<String>,
}

/// The site's Kafka.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct KafkaStatus {
    /// `up`, `away` or `unknown`.
    pub state: String,
    /// What is wrong.
    pub error: Option<String>,
    /// Topics that are mirrored.
    pub topics: usize,
}

/// The spill. Sizes in bytes, times in seconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SpillStatus {
    /// `off`, `idle`, `spilling` (no session, or more comes than goes), `draining`, `full` or `trouble`.
    pub state: String,
    /// Of all its files.
    pub bytes: u64,
    /// Most that it may take.
    pub max_bytes: u64,
    /// Records that its files hold; those of a file are given back together.
    pub records: u64,
    /// Frames that its files hold.
    pub entries: u64,
    /// Age of the oldest frame.
    pub oldest_seconds: Option<f64>,
    /// Until it is full, if it goes on growing as in the last minute.
    pub full_in_seconds: Option<f64>,
    /// Until it is drained, if it goes on shrinking as in the last minute.
    pub drain_in_seconds: Option<f64>,
    /// Handed to the disk since the start of the agent.
    pub written_bytes: u64,
    /// Dropped ever, because it was full.
    pub dropped_records: u64,
    /// Why it cannot be written, or takes nothing.
    pub trouble: Option<String>,
}

/// One partition.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct PartitionStatus {
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: u32,
    /// How urgent its topic is, 0 (alarms) to 3 (bulk).
    #[serde(default)]
    pub class: Option<u8>,
    /// Number of its lane.
    pub lane: u32,
    /// `opening`, `sending`, `draining`, `held` or `closed`.
    pub state: String,
    /// Next offset to be read into a frame.
    pub next: Option<u64>,
    /// Next offset that the centre expects.
    pub acked: Option<u64>,
    /// End of the source's log, as last heard.
    pub end: Option<u64>,
    /// Offsets from `acked` to `end`.
    pub lag: Option<u64>,
    /// Why it stands still.
    pub held: Option<String>,
}

/// One gap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GapStatus {
    /// When, RFC 3339.
    pub time: String,
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: u32,
    /// First offset that was expected.
    pub first: u64,
    /// Where reading went on.
    pub next: u64,
    /// Offsets lost; 0 where the number is not known.
    pub count: u64,
    /// Why.
    pub reason: String,
}

/// Where the runner leaves the status.
#[derive(Debug, Default)]
pub struct Board(Mutex<Status>);

impl Board {
    /// A board that says "starting".
    pub fn new() -> Self {
        let starting = Status { not_ready: Some("starting".to_owned()), ..Status::default() };
        Self(Mutex::new(starting))
    }

    /// Replaces the status.
    pub fn post(&self, status: Status) {
        *self.lock() = status;
    }

    fn lock(&self) -> MutexGuard<'_, Status> {
        // Nothing that can panic runs under the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AdminSource for Board {
    fn health(&self) -> Health {
        self.lock().unhealthy.clone().map_or(Health::Good, Health::Bad)
    }

    fn ready(&self) -> Health {
        self.lock().not_ready.clone().map_or(Health::Good, Health::Bad)
    }

    fn status(&self) -> serde_json::Value {
        let status = self.lock().clone();
        serde_json::to_value(status).unwrap_or_default()
    }
}

impl Status {
    /// For people: a few lines and a table of partitions.
    pub fn render(&self) -> String {
        let mut out = String::new();
        let mut line = |name: &str, value: String| _ = writeln!(out, "{name:<12}{value}");
        line("site", format!("{} (agent {})", self.site, self.version));
        line("link", self.link.render());
        line("kafka", self.kafka.render());
        let age = self.last_ack_seconds.map_or_else(|| "none yet".to_owned(), |seconds| format!("last ack {seconds:.0} s ago"));
        line("unacked", format!("{} records, {} of {} bytes, {age}", self.unacked_records, self.unacked_bytes, self.budget_bytes));
        if self.unacked_bytes_by_class.len() > 1 {
            let by_class = self.unacked_bytes_by_class.iter().map(|(class, bytes)| format!("class {class} {bytes} bytes"));
            line("", by_class.collect::<Vec<_>>().join(", "));
        }
        line("spill", self.spill.render());
        line("rate", self.plan.render());
        if let Some(budget) = &self.plan.budget {
            line("budget", budget.render());
        }
        if let Some(reason) = &self.unhealthy {
            line("unhealthy", reason.clone());
        }
        if let Some(reason) = &self.not_ready {
            line("not ready", reason.clone());
        }
        for gap in &self.gaps {
            let GapStatus { time, topic, partition, first, next, count, reason } = gap;
            line("gap", format!("{time} {topic}-{partition} {first} to {next}, {count} lost, {reason}"));
        }
        let mut table = Table::new(["topic", "partition", "class", "state", "next", "acked", "end", "lag", "held"]);
        let number = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
        for row in &self.partitions {
            table.row([
                row.topic.clone(),
                row.partition.to_string(),
                number(row.class.map(u64::from)),
                row.state.clone(),
                number(row.next),
                number(row.acked),
                number(row.end),
                number(row.lag),
                row.held.clone().unwrap_or_default(),
            ]);
        }
        format!("{out}\n{table}")
    }
}

impl LinkStatus {
    fn render(&self) -> String {
        if self.state == "off" {
            let until = self.off_until.as_ref().map_or_else(String::new, |until| format!(" until {until}"));
            return format!("off by the plan{until}");
        }
        if let Some(seconds) = self.next_session_seconds {
            // Only one profile waits.
            return format!("waiting for the next session (in {seconds:.0} s)");
        }
        let mut text = self.state.clone();
        if let Some(address) = &self.address {
            _ = write!(text, " {address}");
        }
        if self.way == "tcp" {
            text.push_str(if self.state == "open" { " over TCP: UDP is blocked" } else { " over TCP" });
        }
        if let Some(rtt) = self.rtt_seconds {
            _ = write!(text, ", rtt {:.0} ms", rtt * 1000.0);
        }
        if !["", "normal"].contains(&self.profile.as_str()) {
            _ = write!(text, ", profile {}", self.profile);
        }
        match &self.last_error {
            Some(error) if self.state != "open" => _ = write!(text, ": {error}"),
            _ => {}
        }
        text
    }
}

impl SpillStatus {
    fn render(&self) -> String {
        let mut text = self.state.clone();
        if self.bytes > 0 {
            let mib = |bytes: u64| bytes as f64 / 1_048_576.0;
            _ = write!(text, ", {:.1} of {:.0} MiB, {} records", mib(self.bytes), mib(self.max_bytes), self.records);
        }
        for (name, seconds) in [("oldest", self.oldest_seconds), ("full in", self.full_in_seconds), ("drained in", self.drain_in_seconds)] {
            if let Some(seconds) = seconds {
                _ = write!(text, ", {name} {seconds:.0} s");
            }
        }
        if self.dropped_records > 0 {
            _ = write!(text, ", {} records dropped", self.dropped_records);
        }
        if let Some(trouble) = &self.trouble {
            _ = write!(text, ": {trouble}");
        }
        text
    }
}

impl KafkaStatus {
    fn render(&self) -> String {
        let error = self.error.as_ref().map_or_else(String::new, |error| format!(": {error}"));
        format!("{}{error}, {} topics", self.state, self.topics)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_board_says_why_it_is_red() {
        let board = Board::new();
        assert!(matches!(board.ready(), Health::Bad(reason) if reason == "starting"));
        assert!(matches!(board.health(), Health::Good));
        board.post(Status { unhealthy: Some("stalled".to_owned()), ..Status::default() });
        assert!(matches!(board.ready(), Health::Good));
        assert!(matches!(board.health(), Health::Bad(reason) if reason == "stalled"));
    }

    #[test]
    fn a_link_over_tcp_says_so() {
        let mut link =
            LinkStatus { state: "open".to_owned(), way: "udp".to_owned(), address: Some("c:4433".to_owned()), ..LinkStatus::default() };
        assert_eq!(link.render(), "open c:4433");
        link.way = "tcp".to_owned();
        assert_eq!(link.render(), "open c:4433 over TCP: UDP is blocked");
        link.profile = "metered".to_owned();
        assert_eq!(link.render(), "open c:4433 over TCP: UDP is blocked, profile metered");
        link.profile = "normal".to_owned();
        link.state = "dialling".to_owned();
        assert_eq!(link.render(), "dialling c:4433 over TCP");
    }

    #[test]
    fn a_link_between_two_sessions_says_when_the_next_is() {
        let waiting = LinkStatus { state: "waiting".to_owned(), next_session_seconds: Some(719.6), ..LinkStatus::default() };
        assert_eq!(waiting.render(), "waiting for the next session (in 720 s)");
    }

    #[test]
    fn a_link_that_is_off_by_the_plan_says_until_when() {
        let until = Some("2026-03-02T08:00:00Z".to_owned());
        let off = LinkStatus { state: "off".to_owned(), address: Some("c:4433".to_owned()), off_until: until, ..LinkStatus::default() };
        assert_eq!(off.render(), "off by the plan until 2026-03-02T08:00:00Z");
    }

    #[test]
    fn the_table_shows_what_is_unknown_as_a_dash() {
        let row = PartitionStatus { topic: "alarms".to_owned(), state: "opening".to_owned(), acked: Some(7), ..Default::default() };
        let status = Status { site: "plant-7".to_owned(), partitions: vec![row], ..Status::default() };
        let text = status.render();
        assert!(text.contains("plant-7"), "{text}");
        let row = text.lines().last().unwrap_or_default().split_whitespace().collect::<Vec<_>>();
        assert_eq!(row, ["alarms", "0", "-", "opening", "-", "7", "-", "-"]);
    }
}
