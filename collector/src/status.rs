//! What the admin endpoint shows, and what `spillway-collector status` prints of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use spillway_ops::{AdminSource, Health, Table};

use crate::session::registry::SiteStatus;
use crate::session::run::Shared;

/// Data that waits so long without any commit is not well.
const STALLED_MS: i64 = 60_000;

/// Answers the admin endpoint from what the data plane has left for it.
#[derive(Debug)]
pub struct Status {
    shared: Arc<Shared>,
    ready: Arc<AtomicBool>,
    since: Timestamp,
}

/// `/status`.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct CollectorStatus {
    /// Version of the program.
    pub version: String,
    /// Since when it runs (RFC 3339).
    pub since: String,
    /// Whether it serves.
    pub ready: bool,
    /// Whether the central Kafka answers.
    pub centre_up: bool,
    /// Connected sites, by name.
    pub sites: Vec<SiteStatus>,
    /// Sites whose file has a mistake in it, each with what is wrong; what was read before is in force.
    #[serde(default)]
    pub site_files_refused: BTreeMap<String, String>,
}

impl Status {
    /// Shows the sessions of `shared`.
    pub fn new(shared: Arc<Shared>, ready: Arc<AtomicBool>) -> Self {
        Self { shared, ready, since: Timestamp::now() }
    }

    fn now(&self) -> CollectorStatus {
        CollectorStatus {
            version: spillway_ops::cli::VERSION.to_owned(),
            since: self.since.to_string(),
            ready: self.ready.load(Ordering::Relaxed),
            centre_up: self.shared.centre.is_up(),
            sites: self.shared.registry.status(Timestamp::now()),
            site_files_refused: self.shared.sites.problems(),
        }
    }
}

impl AdminSource for Status {
    fn health(&self) -> Health {
        let status = self.now();
        let stalled: Vec<_> = status.sites.iter().filter(|site| site.is_stalled()).map(|site| site.site.as_str()).collect();
        if stalled.is_empty() {
            return Health::Good;
        }
        let cause = if status.centre_up { "look at the log" } else { "the central Kafka does not answer" };
        Health::Bad(format!("data waits and nothing was committed for 60 s: {}; {cause}", stalled.join(", ")))
    }

    fn ready(&self) -> Health {
        if !self.ready.load(Ordering::Relaxed) {
            return Health::Bad("starting or stopping: the central Kafka was not reached, or its progress topic not read yet".to_owned());
        }
        if !self.shared.centre.is_up() {
            return Health::Bad("the central Kafka does not answer".to_owned());
        }
        Health::Good
    }

    fn status(&self) -> serde_json::Value {
        serde_json::to_value(self.now()).unwrap_or_default()
    }
}

impl SiteStatus {
    fn is_stalled(&self) -> bool {
        self.stalled_ms.is_some_and(|stalled| stalled > STALLED_MS)
    }
}

/// The status as a person reads it.
pub fn print(status: &CollectorStatus) -> String {
    let mut out = format!(
        "spillway-collector {version}, running since {since}\ncentral Kafka: {centre}, sites connected: {count}\n",
        version = status.version,
        since = status.since,
        centre = if status.centre_up { "up" } else { "DOWN" },
        count = status.sites.len(),
    );
    for (site, problem) in &status.site_files_refused {
        out.push_str(&["\nthe file of ", site, " is refused, what was read before is in force:\n", problem, "\n"].concat());
    }
    if status.sites.is_empty() {
        return out;
    }
    let mut table =
        Table::new(["site", "address", "agent", "connected since", "lanes", "last commit", "waiting bytes", "held", "settings"]);
    for site in &status.sites {
        let age = site.last_commit_age_ms.map_or_else(|| "-".to_owned(), |ms| format!("{:.1} s ago", ms as f64 / 1000.0));
        table.row([
            site.site.clone(),
            site.address.clone(),
            site.agent.clone(),
            site.connected_since.clone(),
            site.lanes.to_string(),
            age,
            site.held_bytes.to_string(),
            site.held.len().to_string(),
            site.settings.as_ref().map_or_else(|| "-".to_owned(), |settings| settings.outcome.clone()),
        ]);
    }
    out.push('\n');
    out.push_str(&table.to_string());
    for site in &status.sites {
        for (partition, why) in &site.held {
            out.push_str(&["\nheld: ", &site.site, " ", partition, ": ", why].concat());
        }
        if let Some(settings) = site.settings.as_ref().filter(|settings| !settings.detail.is_empty()) {
            out.push_str(&["\nsettings: ", &site.site, " ", &settings.outcome, ": ", &settings.detail].concat());
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::registry::SettingsStatus;

    #[test]
    fn a_held_partition_is_told_with_its_reason() {
        let site = SiteStatus {
            site: "plant-7".into(),
            address: "192.0.2.1:5".into(),
            agent: "0.1.0".into(),
            connected_since: "2026-01-01T00:00:00Z".into(),
            lanes: 3,
            last_commit_age_ms: Some(1250),
            stalled_ms: Some(3),
            held_bytes: 17,
            held: BTreeMap::from([("t-0".into(), "record_too_large: …".into())]),
            settings: Some(SettingsStatus { revision: "7".into(), outcome: "rolled_back".into(), detail: "no contact".into() }),
        };
        let site_files_refused = BTreeMap::from([("plant-8".into(), "plant-8.toml:2:1: …".into())]);
        let status = CollectorStatus {
            version: "0.1.0".into(),
            since: "now".into(),
            ready: true,
            centre_up: false,
            sites: vec![site],
            site_files_refused,
        };
        let text = print(&status);
        for part in [
            "central Kafka: DOWN",
            "plant-7",
            "1.2 s ago",
            "held: plant-7 t-0: record_too_large: …",
            "settings: plant-7 rolled_back: no contact",
            "plant-8.toml:2:1: …",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
    }
}
