//! What the site files say of the sites that are connected. They are looked at twice a second; sessions hear of changes.
//!
//! A file with a mistake in it changes nothing for a site of which a good one was read: it stays in force, also for sessions that begin later, until the
//! file is good again. The mistake is told in the log, in `status` and in a metric.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;
use spillway_config::{Problem, Problems, SiteFile};
use spillway_proto::message::{Settings, revision};
use spillway_proto::{CloseCode, SiteName};
use tokio::sync::watch;

use crate::session::Refused;

/// A change has to be with the agent within a second.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// The site files of a folder. Its memory is bounded by the sites that are connected, and those that were and whose file is bad since.
#[derive(Debug)]
pub struct Sites {
    /// `None`: every site is known, and is told nothing.
    dir: Option<PathBuf>,
    book: Mutex<BTreeMap<SiteName, Watched>>,
    refused: Gauge,
}

/// What a session follows.
pub type SiteWatch = watch::Receiver<Arc<SiteFile>>;

#[derive(Debug)]
struct Watched {
    stamps: Stamps,
    file: watch::Sender<Arc<SiteFile>>,
    /// Why what is in the folder is not what is in force.
    problem: Option<String>,
}

/// Tells whether a site's file and the default file are those that were read.
type Stamps = [Option<Stamp>; 2];

/// Number, size and times of a file. The time of its last change of any kind (ctime) cannot be set by a program, so a copy that keeps the time of its content
/// is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// What was found in the folder.
struct Found {
    stamps: Stamps,
    loaded: Result<Option<(SiteFile, Vec<Problem>)>, Problems>,
}

impl Sites {
    /// For the folder `dir`; `refused` counts connected sites whose file is bad.
    pub fn new(dir: Option<PathBuf>, refused: Gauge) -> Self {
        Self { dir, book: Mutex::default(), refused }
    }

    /// Looks whether a site may connect, and gives what it is told; `None` where there is no folder.
    ///
    /// # Errors
    /// When it may not: no file, a bad one and no good one from before, or one that says so.
    pub async fn admit(self: &Arc<Self>, site: &SiteName) -> Result<Option<SiteWatch>, Refused> {
        let Some(dir) = self.dir.clone() else {
            return Ok(None);
        };
        let (this, site) = (Arc::clone(self), site.clone());
        let admitted = tokio::task::spawn_blocking(move || this.admit_from(&dir, &site)).await;
        admitted.unwrap_or_else(|error| Err(Refused::new(CloseCode::Internal, format!("reading the site's file: {error}")))).map(Some)
    }

    /// Looks at the files of the sites in the book for ever.
    pub async fn watch(self: Arc<Self>) {
        let Some(dir) = self.dir.clone().map(Arc::new) else {
            return;
        };
        let mut ticks = tokio::time::interval(POLL_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let (this, dir) = (Arc::clone(&self), Arc::clone(&dir));
            if let Err(error) = tokio::task::spawn_blocking(move || this.look(&dir)).await {
                tracing::error!(%error, "the site files could not be looked at");
            }
        }
    }

    /// Sites whose file is bad, each with what is wrong.
    pub fn problems(&self) -> BTreeMap<String, String> {
        let book = self.book();
        let bad = book.iter().filter_map(|(site, watched)| Some((site.to_string(), watched.problem.clone()?)));
        bad.collect()
    }

    fn admit_from(&self, dir: &Path, site: &SiteName) -> Result<SiteWatch, Refused> {
        let found = find(dir, site);
        let mut book = self.book();
        let file = match (book.get_mut(site), found) {
            (Some(watched), found) => {
                tell(site, &watched.take(site, dir, found));
                watched.file.subscribe()
            }
            (None, Found { loaded: Ok(Some((file, _told_by_check))), stamps }) => {
                let (sender, file) = watch::channel(Arc::new(file));
                book.insert(site.clone(), Watched { stamps, file: sender, problem: None });
                file
            }
            (None, Found { loaded: Ok(None), .. }) => {
                return Err(Refused::new(CloseCode::SiteUnknown, format!("{} has neither {site}.toml nor default.toml", dir.display())));
            }
            (None, Found { loaded: Err(problems), .. }) => {
                return Err(Refused::new(CloseCode::SiteFileInvalid, problems.to_string()));
            }
        };
        self.count(&book);
        if file.borrow().enabled { Ok(file) } else { Err(disabled(site)) }
    }

    fn look(&self, dir: &Path) {
        let known: Vec<_> = self.book().iter().map(|(site, watched)| (site.clone(), watched.stamps)).collect();
        for (site, stamps) in known {
            if stamps_of(dir, &site) != stamps {
                // Read without the lock: a slow disk must not hold up `status`.
                let found = find(dir, &site);
                if let Some(watched) = self.book().get_mut(&site) {
                    tell(&site, &watched.take(&site, dir, found));
                }
            }
        }
        let mut book = self.book();
        book.retain(|_, watched| watched.file.receiver_count() > 0 || watched.problem.is_some());
        self.count(&book);
    }

    fn count(&self, book: &BTreeMap<SiteName, Watched>) {
        let bad = book.values().filter(|watched| watched.problem.is_some()).count();
        self.refused.set(i64::try_from(bad).unwrap_or(i64::MAX));
    }

    fn book(&self) -> MutexGuard<'_, BTreeMap<SiteName, Watched>> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watched {
    /// Answers what is odd about a file that has come into force.
    fn take(&mut self, site: &SiteName, dir: &Path, found: Found) -> Vec<Problem> {
        self.stamps = found.stamps;
        let mut odd = Vec::new();
        let problem = match found.loaded {
            Ok(Some((file, warnings))) => {
                let changed = self.file.send_if_modified(|current| {
                    let differs = **current != file;
                    if differs {
                        *current = Arc::new(file);
                    }
                    differs
                });
                if changed || self.problem.is_some() {
                    tracing::info!(event = "site_file_read", %site, "the site's file is in force");
                    odd = warnings;
                }
                None
            }
            Ok(None) => Some(format!("{} has neither {site}.toml nor default.toml any more", dir.display())),
            Err(problems) => Some(problems.to_string()),
        };
        if let Some(problem) = problem.as_ref().filter(|problem| self.problem.as_ref() != Some(problem)) {
            tracing::error!(event = "site_file_refused", %site, problem, "the site's file is refused; what was read before stays in force");
        }
        self.problem = problem;
        odd
    }
}

fn tell(site: &SiteName, odd: &[Problem]) {
    for warning in odd {
        tracing::warn!(event = "site_file_odd", %site, "{warning}");
    }
}

/// What a site is told that has this file.
pub fn settings(file: &SiteFile) -> Settings {
    let text = file.settings.to_text();
    Settings { revision: revision(&text), text }
}

/// The refusal of a site whose file says so.
pub fn disabled(site: &SiteName) -> Refused {
    Refused::new(CloseCode::SiteDisabled, format!("the file of site {site} says enabled = false"))
}

fn find(dir: &Path, site: &SiteName) -> Found {
    // The stamps first: what changes in between is seen at the next look.
    let stamps = stamps_of(dir, site);
    Found { stamps, loaded: SiteFile::load_for(dir, site) }
}

fn stamps_of(dir: &Path, site: &SiteName) -> Stamps {
    SiteFile::paths(dir, site).map(|path| {
        let of = std::fs::metadata(path).ok()?;
        let (modified, changed) = ((of.mtime(), of.mtime_nsec()), (of.ctime(), of.ctime_nsec()));
        Some(Stamp { inode: of.ino(), size: of.size(), modified, changed })
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::fs;

    use super::*;

    fn site() -> SiteName {
        SiteName::parse("plant-7").unwrap()
    }

    fn rate(file: &SiteWatch) -> String {
        file.borrow().settings.to_text()
    }

    #[test]
    fn a_bad_file_leaves_the_old_one_in_force_also_for_new_sessions() {
        let folder = tempfile::tempdir().unwrap();
        let (dir, own) = (folder.path(), folder.path().join("plant-7.toml"));
        let sites = Sites::new(Some(dir.to_owned()), Gauge::default());
        assert_eq!(sites.admit_from(dir, &site()).unwrap_err().code, CloseCode::SiteUnknown);
        fs::write(&own, "enabeld = true\n").unwrap();
        assert_eq!(sites.admit_from(dir, &site()).unwrap_err().code, CloseCode::SiteFileInvalid);
        fs::write(&own, "[link]\nrate_max = '64kbit'\n").unwrap();
        let mut file = sites.admit_from(dir, &site()).unwrap();
        let first = rate(&file);
        assert_eq!(first, "[link]\nrate_max = \"64kbit\"\n");

        // A mistake, told with its line, and nothing else.
        fs::write(&own, "[link]\nrate_max = '64kbits'\n").unwrap();
        sites.look(dir);
        assert!(!file.has_changed().unwrap());
        assert!(sites.problems()["plant-7"].contains("plant-7.toml:2:12: link.rate_max = \"64kbits\""), "{:?}", sites.problems());
        assert_eq!(sites.refused.get(), 1);
        assert_eq!(rate(&sites.admit_from(dir, &site()).unwrap()), first);
        fs::remove_file(&own).unwrap();
        sites.look(dir);
        assert!(sites.problems()["plant-7"].contains("any more"), "{:?}", sites.problems());
        assert_eq!(rate(&file), first);

        fs::write(&own, "[link]\nrate_max = '65kbit'\n").unwrap();
        sites.look(dir);
        assert!(file.has_changed().unwrap());
        assert_eq!(rate(&file), "[link]\nrate_max = \"65kbit\"\n");
        assert_eq!((sites.problems().len(), sites.refused.get()), (0, 0));
        file.mark_unchanged();
        // Written anew, with nothing new in it.
        fs::write(&own, "[link]\nrate_max = '65kbit' # as before\n").unwrap();
        sites.look(dir);
        assert!(!file.has_changed().unwrap());
        fs::write(&own, "enabled = false\n").unwrap();
        sites.look(dir);
        assert!(!file.borrow_and_update().enabled);
        assert_eq!(sites.admit_from(dir, &site()).unwrap_err().code, CloseCode::SiteDisabled);
    }

    #[test]
    fn what_is_odd_about_a_file_is_told_once_when_it_comes_into_force() {
        let folder = tempfile::tempdir().unwrap();
        let (dir, own) = (folder.path(), folder.path().join("plant-7.toml"));
        fs::write(&own, "").unwrap();
        let sites = Sites::new(Some(dir.to_owned()), Gauge::default());
        let _file = sites.admit_from(dir, &site()).unwrap();
        let take = || sites.book().get_mut(&site()).unwrap().take(&site(), dir, find(dir, &site()));
        for (text, expected) in [("[link]\nrate_max = '64kbit'\n", None), ("[budget]\nreserve = '10%'\n", Some("there is no budget"))] {
            fs::write(&own, text).unwrap();
            let odd = take();
            assert_eq!(odd.len(), usize::from(expected.is_some()), "{odd:?}");
            assert!(odd.iter().all(|odd| odd.to_string().contains(expected.unwrap())), "{odd:?}");
            assert!(take().is_empty(), "nothing has changed");
        }
    }

    #[test]
    fn sites_that_have_left_are_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path();
        fs::write(dir.join("default.toml"), "").unwrap();
        let sites = Sites::new(Some(dir.to_owned()), Gauge::default());
        let file = sites.admit_from(dir, &site()).unwrap();
        sites.look(dir);
        assert_eq!(sites.book().len(), 1);
        // A file of its own takes the place of the default.
        fs::write(dir.join("plant-7.toml"), "enabled = false").unwrap();
        sites.look(dir);
        assert!(!file.borrow().enabled);
        drop(file);
        sites.look(dir);
        assert_eq!(sites.book().len(), 0);
    }
}
