//! The start: nothing that is found on disk may stop it, except that somebody else has the spill, or a later version or another key has written it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::disk;
use super::generation::{Generation, examine};
use super::lock::Lock;
use super::{FORMAT_FILE, INDEX_FILE, Options, QUARANTINE_DIRECTORY, RotatingStore, SLACK_FILE, STATE_FILE, TRASH_PREFIX, directory_of};
use crate::entry::EntryId;
use crate::index;
use crate::seal::{Key, NO_KEY, Sealer};
use crate::state::{self, State};
#[cfg(doc)]
use crate::store::SpillStore;
use crate::store::{Error, Report};
use crate::summary::Sources;

/// Version of the format of the whole directory.
const VERSION: u64 = 1;

impl RotatingStore {
    /// Opens the spill in a directory, which is made if it is not there. What was damaged is told by [`SpillStore::take_reports`].
    ///
    /// # Errors
    /// [`Error::Locked`], [`Error::Newer`], [`Error::KeyWrong`] and [`Error::Io`] when the directory cannot be used at all.
    pub fn open(root: &Path, options: Options) -> Result<Self, Error> {
        disk::make_directory(root)?;
        if let Some(parent) = root.parent().filter(|parent| parent.is_dir()) {
            disk::sync_directory(parent)?;
        }
        let lock = Lock::take(root)?;
        let damaged = damaged_files(root, options.key.as_ref())?;
        let (state, _) = read_state(root, options.key.as_ref())?;
        let mut store = Self {
            root: root.to_owned(),
            options,
            generations: BTreeMap::new(),
            writers: BTreeMap::new(),
            readers: BTreeMap::new(),
            sources: Sources::default(),
            tails: BTreeMap::new(),
            state,
            slack: root.join(SLACK_FILE).exists(),
            pending: Vec::new(),
            durable: EntryId::ZERO,
            next_entry: EntryId(1),
            next_generation: 1,
            reports: Vec::new(),
            unreported: 0,
            written_bytes: 0,
            _lock: lock,
        };
        store.report(damaged);
        let found = generations(root);
        if !check_format(root)? {
            // A full disk is no reason not to start.
            drop(disk::replace(root, FORMAT_FILE, format_text().as_bytes()));
        }
        store.clean_up();
        for number in &found {
            store.take_in(*number);
        }
        store.count_on(found.last().copied().unwrap_or(0));
        if !root.join(STATE_FILE).exists() {
            drop(store.write_state());
        }
        Ok(store)
    }

    /// Removes what a crash left half-done.
    fn clean_up(&mut self) {
        for entry in fs::read_dir(&self.root).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(TRASH_PREFIX) {
                drop(fs::remove_dir_all(entry.path()));
            } else if name.ends_with(".new") {
                drop(fs::remove_file(entry.path()));
            }
        }
    }

    fn take_in(&mut self, number: u64) {
        let directory = directory_of(&self.root, number);
        let Some(contents) = examine(&directory, number, self.options.key.as_ref()) else {
            let empty = disk::files_below(&directory).iter().all(|path| fs::metadata(path).is_ok_and(|data| data.len() == 0));
            if empty || !directory.join(super::PAYLOAD_DIRECTORY).exists() {
                // A crash while it was made: nothing had been confirmed yet.
                drop(fs::remove_dir_all(&directory));
                return;
            }
            self.report([Report::Damaged { path: directory, what: "nothing in it can be read".to_owned() }]);
            if let Err(error) = self.put_aside(number) {
                // It stays where it is, and is tried again at the next start.
                tracing::warn!(%error, generation = number, "a damaged generation of the spill cannot be put aside");
            }
            return;
        };
        let damaged = !contents.reports.is_empty() || !contents.lost.is_empty();
        if contents.mend {
            let sealer = Sealer::new(self.options.key.as_ref().filter(|_| contents.head.is_sealed()), &contents.head.salt);
            // Without it the next start looks into the payload again.
            drop(contents.write_index(&directory, &sealer));
        }
        let summary = contents.summary(&mut self.sources);
        let lost = contents.entries.iter().filter(|(id, _)| contents.lost.contains(id));
        for (_, identity) in lost {
            self.report_lost(identity);
        }
        if let Some(last) = summary.last {
            self.next_entry = self.next_entry.max(last.next());
        }
        self.report(contents.reports);
        let disk_bytes = disk::bytes_below(&directory);
        self.generations.insert(number, Generation { class: contents.head.class, directory, summary, disk_bytes, damaged });
    }

    /// Goes on counting where the last process ended. `newest` is the highest number of a generation on disk.
    fn count_on(&mut self, newest: u64) {
        self.next_entry = self.next_entry.max(EntryId(self.state.next_entry));
        self.durable = EntryId(self.next_entry.0 - 1);
        let aside = generations(&self.root.join(QUARANTINE_DIRECTORY)).last().copied().unwrap_or(0);
        self.next_generation = (newest.max(aside) + 1).max(self.state.next_generation);
        self.tails = self.tails_now();
        self.forget_empty();
        self.take_slack();
    }
}

/// The generations in a directory, ascending.
pub fn generations(root: &Path) -> Vec<u64> {
    let names = fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut numbers = names.filter_map(|name| name.strip_prefix('g')?.parse().ok()).collect::<Vec<u64>>();
    numbers.sort_unstable();
    numbers
}

/// Refuses what a later version or another key has written. Answers which of the files beside the generations are damaged or missing.
pub(crate) fn damaged_files(root: &Path, key: Option<&Key>) -> Result<Vec<Report>, Error> {
    check_heads(root, key)?;
    let mut damaged = Vec::new();
    let used = root.join(STATE_FILE).exists() || !generations(root).is_empty();
    if !check_format(root)? && used {
        damaged.push(Report::Damaged { path: root.join(FORMAT_FILE), what: "damaged or missing".to_owned() });
    }
    damaged.extend(read_state(root, key)?.1);
    Ok(damaged)
}

/// Checks the format file. False when it is damaged or missing.
fn check_format(root: &Path) -> Result<bool, Error> {
    let path = root.join(FORMAT_FILE);
    let text = disk::read(&path, 1024)?.unwrap_or_default();
    let Some((line, version)) = std::str::from_utf8(&text).ok().and_then(parse_format) else {
        return Ok(false);
    };
    if version > VERSION {
        return Err(Error::Newer { path, version, known: VERSION });
    }
    Ok(line == format_text())
}

/// The line, whatever the version: name, version, CRC-32C of both in hexadecimal.
fn parse_format(text: &str) -> Option<(&str, u64)> {
    let (front, crc) = text.strip_suffix('\n')?.rsplit_once(' ')?;
    let version = front.strip_prefix("spillway-spill ")?.parse().ok()?;
    (u32::from_str_radix(crc, 16).ok()? == crc32c::crc32c(front.as_bytes())).then_some((text, version))
}

fn format_text() -> String {
    let front = format!("spillway-spill {VERSION}");
    format!("{front} {:08x}\n", crc32c::crc32c(front.as_bytes()))
}

/// Nothing is touched that a later version or another key has written.
fn check_heads(root: &Path, key: Option<&Key>) -> Result<(), Error> {
    let given = key.map_or(NO_KEY, Key::id);
    for number in generations(root) {
        let path = directory_of(root, number).join(INDEX_FILE);
        let bytes = disk::read(&path, index::PEEK_BYTES)?.unwrap_or_default();
        match index::peek(&bytes) {
            Some((version, _)) if version > index::VERSION => {
                return Err(Error::Newer { path, version: version.into(), known: index::VERSION.into() });
            }
            Some((_, Some(head))) if head.key_id != given => return Err(Error::KeyWrong { path, found: head.key_id, given }),
            _ => {}
        }
    }
    Ok(())
}

fn read_state(root: &Path, key: Option<&Key>) -> Result<(State, Option<Report>), Error> {
    let path = root.join(STATE_FILE);
    let Some(bytes) = disk::read(&path, state::MAX_BYTES)? else {
        let missing = Report::Damaged { path, what: "missing".to_owned() };
        return Ok((State::default(), (!generations(root).is_empty()).then_some(missing)));
    };
    match State::decode(&bytes, key) {
        state::Read::State(state) => Ok((state, None)),
        state::Read::Newer(version) => Err(Error::Newer { path, version: version.into(), known: state::VERSION.into() }),
        // Without a generation there is nothing that the key could be wrong for.
        state::Read::ForeignKey(found) if !generations(root).is_empty() => {
            Err(Error::KeyWrong { path, found, given: key.map_or(NO_KEY, Key::id) })
        }
        state::Read::ForeignKey(_) => Ok((State::default(), None)),
        state::Read::Damaged => Ok((State::default(), Some(Report::Damaged { path, what: "the state is damaged".to_owned() }))),
    }
}
