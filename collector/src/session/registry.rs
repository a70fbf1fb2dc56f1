//! The sessions that live now.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use spillway_proto::SiteName;
use tokio_util::sync::CancellationToken;

use crate::custody::Custody;

/// A live session, as others see it.
#[derive(Debug)]
pub struct Entry {
    /// The agent's address.
    pub address: SocketAddr,
    /// The agent's software version.
    pub software: String,
    /// Since when the session is open.
    pub since: Timestamp,
    /// Its frames.
    pub custody: Arc<Custody>,
    /// Cancelled when a newer session of the site takes over.
    pub superseded: CancellationToken,
    shown: Mutex<Shown>,
}

/// What the session shows of itself in `/status`.
#[derive(Debug, Default, Clone)]
pub struct Shown {
    /// Lanes.
    pub lanes: usize,
    /// When a transaction of the session was committed last.
    pub last_commit: Option<Timestamp>,
    /// Source partitions that stand still, each with why.
    pub held: BTreeMap<String, String>,
    /// What became of the settings that the site was sent.
    pub settings: Option<SettingsStatus>,
}

/// What a site was told, in `/status`.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct SettingsStatus {
    /// Revision of the settings, in hexadecimal digits.
    pub revision: String,
    /// `sent`, or what the site said of them: `trying`, `accepted`, `refused`, `rolled_back`.
    pub outcome: String,
    /// Why they were refused or given up; else empty.
    pub detail: String,
}

/// One site in `/status`.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct SiteStatus {
    /// Its name.
    pub site: String,
    /// The agent's address.
    pub address: String,
    /// The agent's version.
    pub agent: String,
    /// Since when it is connected (RFC 3339).
    pub connected_since: String,
    /// Lanes.
    pub lanes: usize,
    /// Milliseconds since the last commit of the session.
    pub last_commit_age_ms: Option<i64>,
    /// For how long data has waited without any commit, in milliseconds; `None` when none waits.
    pub stalled_ms: Option<i64>,
    /// Frame bytes received and not committed.
    pub held_bytes: usize,
    /// Source partitions that stand still, each with why.
    pub held: BTreeMap<String, String>,
    /// What the site was told, and what it did with it; `None` where sites have no files.
    #[serde(default)]
    pub settings: Option<SettingsStatus>,
}

/// All sessions, one a site.
#[derive(Debug, Default)]
pub struct Registry {
    sites: Mutex<HashMap<SiteName, Arc<Entry>>>,
}

impl Entry {
    /// A session just opened.
    pub fn new(address: SocketAddr, software: String, custody: Arc<Custody>) -> Arc<Self> {
        let shown = Mutex::default();
        Arc::new(Self { address, software, since: Timestamp::now(), custody, superseded: CancellationToken::new(), shown })
    }

    /// What it shows, to read or change.
    pub fn shown(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registry {
    /// Puts a session in; the older one of the site, if any, is told to end.
    pub fn enter(&self, site: &SiteName, entry: &Arc<Entry>) {
        if let Some(old) = self.lock().insert(site.clone(), Arc::clone(entry)) {
            old.superseded.cancel();
        }
    }

    /// Takes a session out, unless a newer one has its place.
    pub fn leave(&self, site: &SiteName, entry: &Arc<Entry>) {
        let mut sites = self.lock();
        if sites.get(site).is_some_and(|current| Arc::ptr_eq(current, entry)) {
            sites.remove(site);
        }
    }

    /// Number of sessions.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// True without sessions.
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// Every site, by name.
    pub fn status(&self, now: Timestamp) -> Vec<SiteStatus> {
        let sites: Vec<_> = self.lock().iter().map(|(site, entry)| (site.clone(), Arc::clone(entry))).collect();
        let mut out: Vec<_> = sites.iter().map(|(site, entry)| entry.status(site, now)).collect();
        out.sort_by(|a, b| a.site.cmp(&b.site));
        out
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SiteName, Arc<Entry>>> {
        self.sites.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn status(&self, site: &SiteName, now: Timestamp) -> SiteStatus {
        let shown = self.shown().clone();
        SiteStatus {
            site: site.to_string(),
            address: self.address.to_string(),
            agent: self.software.clone(),
            connected_since: self.since.to_string(),
            lanes: shown.lanes,
            last_commit_age_ms: shown.last_commit.map(|at| now.as_millisecond() - at.as_millisecond()),
            stalled_ms: self.custody.held_since_ms().map(|since| {
                let committed = shown.last_commit.map_or(since, Timestamp::as_millisecond);
                now.as_millisecond() - since.max(committed)
            }),
            held_bytes: self.custody.held(),
            held: shown.held,
            settings: shown.settings,
        }
    }
}
