//! One log line when trouble with the central Kafka begins, one when it ends: not one for each of a thousand attempts.

use std::time::{Duration, Instant};

use spillway_proto::SiteName;

/// Trouble that lasts is mentioned again so often.
const REMINDER: Duration = Duration::from_secs(60);

/// The trouble of one site's writer.
#[derive(Debug)]
pub struct Trouble {
    site: SiteName,
    since: Option<Instant>,
    told: Option<(String, Instant)>,
}

impl Trouble {
    /// None so far.
    pub fn new(site: SiteName) -> Self {
        Self { site, since: None, told: None }
    }

    /// Something failed that is tried again.
    pub fn begin(&mut self, action: &str, error: &str) {
        let now = Instant::now();
        let since = *self.since.get_or_insert(now);
        let known = self.told.as_ref().is_some_and(|(told, at)| told == error && now.saturating_duration_since(*at) < REMINDER);
        if !known {
            let for_s = now.saturating_duration_since(since).as_secs();
            tracing::warn!(event = "centre_trouble", site = %self.site, action, error, for_s, "the central Kafka refuses or does not answer; data is kept and tried again");
            self.told = Some((error.to_owned(), now));
        }
    }

    /// It worked.
    pub fn end(&mut self) {
        if let Some(since) = self.since.take() {
            let after_ms = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
            tracing::info!(event = "centre_recovered", site = %self.site, after_ms, "the central Kafka works again for this site");
            self.told = None;
        }
    }
}
