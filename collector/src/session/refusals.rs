//! The log line of a refusal: at once, then at most one a minute for each peer and cause. A refused agent comes back every few seconds, and
//! a fleet of them would drown everything else.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use spillway_link::explain;
use spillway_proto::SiteName;

use crate::metrics::Meters;

/// Time between two lines about the same peer and cause.
const REMINDER: Duration = Duration::from_secs(60);

/// Most peers and causes that are remembered; beyond that, all are forgotten, and told once more.
const MAX_REMEMBERED: usize = 4096;

/// What was told, and when.
#[derive(Debug, Default)]
pub struct Refusals {
    told: Mutex<HashMap<Cause, Told>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Cause {
    site: Option<SiteName>,
    address: IpAddr,
    reason: &'static str,
}

#[derive(Debug)]
struct Told {
    at: Instant,
    kept_quiet: u64,
}

impl Refusals {
    /// Counts a refusal and says so in the log, unless the same was said within the minute. `reason` is its stable name, `remedy` what to do.
    pub fn tell(&self, meters: &Meters, site: Option<&SiteName>, address: SocketAddr, reason: &'static str, remedy: &str, what: &str) {
        meters.session_refused(reason);
        let cause = Cause { site: site.cloned(), address: address.ip(), reason };
        let site = site.map_or("unknown", SiteName::as_str);
        match self.due(cause, Instant::now()) {
            // No fault of anybody's: after an outage an agent does not wait for the answer to what the outage has swallowed.
            Some(before) if reason == explain::GIVEN_UP => {
                tracing::info!(event = "session_refused", site, %address, reason, remedy, before, "{what}");
            }
            Some(before) => tracing::warn!(event = "session_refused", site, %address, reason, remedy, before, "{what}"),
            None => tracing::debug!(event = "session_refused", site, %address, reason, "{what}"),
        }
    }

    /// How many the line stands for beside this one; `None` when it is too soon for another line.
    fn due(&self, cause: Cause, now: Instant) -> Option<u64> {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() >= MAX_REMEMBERED {
            told.clear();
        }
        match told.entry(cause) {
            Entry::Vacant(entry) => {
                entry.insert(Told { at: now, kept_quiet: 0 });
                Some(0)
            }
            Entry::Occupied(mut entry) if now.saturating_duration_since(entry.get().at) >= REMINDER => {
                Some(entry.insert(Told { at: now, kept_quiet: 0 }).kept_quiet)
            }
            Entry::Occupied(mut entry) => {
                entry.get_mut().kept_quiet += 1;
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn cause(last: u8, reason: &'static str) -> Cause {
        Cause { site: None, address: Ipv4Addr::new(192, 0, 2, last).into(), reason }
    }

    #[test]
    fn the_same_refusal_is_told_once_a_minute() {
        let (refusals, now) = (Refusals::default(), Instant::now());
        assert_eq!(refusals.due(cause(1, "site_unknown"), now), Some(0));
        assert_eq!(refusals.due(cause(1, "site_unknown"), now + REMINDER / 2), None);
        assert_eq!(refusals.due(cause(1, "site_disabled"), now), Some(0), "another cause");
        assert_eq!(refusals.due(cause(2, "site_unknown"), now), Some(0), "another peer");
        assert_eq!(refusals.due(cause(1, "site_unknown"), now + REMINDER), Some(1), "with those kept quiet");
        assert_eq!(refusals.due(cause(1, "site_unknown"), now + REMINDER), None);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (refusals, now) = (Refusals::default(), Instant::now());
        for n in 0..3 * MAX_REMEMBERED as u32 {
            refusals.due(Cause { site: None, address: Ipv4Addr::from(n).into(), reason: "site_unknown" }, now);
        }
        assert!(refusals.told.lock().is_ok_and(|told| told.len() <= MAX_REMEMBERED));
    }
}
