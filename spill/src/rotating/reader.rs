//! Reads a generation that is not written any more.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::generation::read_index;
use super::payload::{self, Found, Payload};
use super::{INDEX_FILE, PAYLOAD_DIRECTORY, disk};
use crate::entry::{EntryId, Identity};
use crate::index::{self, Closed, FileSum};
use crate::seal::{Key, Sealer};
use crate::store::{Error, Report, StoredEntry};

/// A generation that is read, with the numbers of its entries.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) generation: u64,
    directory: PathBuf,
    /// Entries that are not known to be damaged.
    ids: BTreeSet<EntryId>,
    sealer: Sealer,
    payload: Option<Payload>,
    by_sled: bool,
}

impl Reader {
    /// Opens a generation. Its files are compared with their checksums first: sled only ever sees what it has written itself.
    pub(crate) fn open(directory: &Path, number: u64, key: Option<&Key>) -> (Self, Vec<Report>) {
        let parsed = read_index(directory, key);
        let (path, mut reports) = (directory.join(PAYLOAD_DIRECTORY), Vec::new());
        let mut ids = parsed.entries.iter().map(|(id, _)| *id).collect::<BTreeSet<_>>();
        for id in &parsed.lost {
            ids.remove(id);
        }
        let closed = parsed.closed.filter(|closed| !closed.files.is_empty());
        let whole = closed.as_ref().is_some_and(|closed| {
            let now = payload::sums(&path).unwrap_or_default();
            reports.extend(closed.files.iter().filter_map(|then| difference(&path, then, &now)));
            now == closed.files
        });
        let by_sled = whole && closed.is_some_and(|closed| closed.by_sled);
        let mut payload = None;
        // sled writes when it opens: until it is closed again the checksums say nothing. On a full disk it is not opened.
        if by_sled && note(directory, &Closed { by_sled: false, files: Vec::new() }).is_ok() {
            match payload::open_database(&path).and_then(|database| Payload::database(database, &path)) {
                Ok(database) => payload = Some(database),
                // sled makes files when it opens: no damage.
                Err(error) if error.is_disk_full() => {}
                Err(error) => reports.push(Report::Damaged { path: path.clone(), what: error.to_string() }),
            }
        }
        let payload = match payload {
            Some(database) => Some(database),
            // Nothing there: everything turns out to be lost when it is read.
            None => Found::scan(&path, number).ok().map(Payload::Found),
        };
        let salt = parsed.head.map(|head| head.salt);
        let sealer = Sealer::new(key.filter(|_| salt.is_some()), &salt.unwrap_or_default());
        let by_sled = matches!(payload, Some(Payload::Database { .. }));
        (Self { generation: number, directory: directory.to_owned(), ids, sealer, payload, by_sled }, reports)
    }

    /// The first entry after `after`, up to `last`.
    pub(crate) fn next_id(&self, after: EntryId, last: EntryId) -> Option<EntryId> {
        self.ids.range(after.next()..).next().copied().filter(|id| *id <= last)
    }

    /// Reads an entry; `None` when it is damaged, by whatever way it is looked for.
    pub(crate) fn read(&mut self, id: EntryId) -> Option<StoredEntry> {
        let read = |payload: &Payload| payload.read(self.generation, id, &self.sealer);
        if let Some(entry) = self.payload.as_ref().and_then(read) {
            return Some(entry);
        }
        if !self.by_sled {
            return None;
        }
        let found = Found::scan(&self.directory.join(PAYLOAD_DIRECTORY), self.generation).ok()?;
        found.read(self.generation, id, &self.sealer)
    }

    /// An entry is damaged: notes it, and answers what it held where the index tells.
    pub(crate) fn lose(&mut self, id: EntryId, key: Option<&Key>) -> Option<Identity> {
        self.ids.remove(&id);
        let mut line = Vec::new();
        index::put_lost(&mut line, id);
        // If this cannot be written, it is found again at the next start.
        drop(disk::append(&self.directory.join(INDEX_FILE), &line));
        let parsed = read_index(&self.directory, key);
        parsed.entries.into_iter().collect::<BTreeMap<_, _>>().remove(&id)
    }

    /// Closes it; `keep` when its files stay.
    pub(crate) fn close(mut self, keep: bool) {
        let Some(Payload::Database { db, trees }) = self.payload.take() else {
            return;
        };
        let closed = payload::close_database(db, trees.into_values().collect());
        let path = self.directory.join(PAYLOAD_DIRECTORY);
        if keep
            && closed.is_ok()
            && let Ok(files) = payload::sums(&path)
        {
            // Without this note it is read without sled from the next start on.
            drop(note(&self.directory, &Closed { by_sled: true, files }));
        }
    }
}

fn note(directory: &Path, closed: &Closed) -> Result<(), Error> {
    let mut line = Vec::new();
    index::put_closed(&mut line, closed);
    disk::append(&directory.join(INDEX_FILE), &line)
}

fn difference(directory: &Path, then: &FileSum, now: &[FileSum]) -> Option<Report> {
    let path = directory.join(&then.path);
    let Some(now) = now.iter().find(|now| now.path == then.path) else {
        return Some(Report::Damaged { path, what: "missing".to_owned() });
    };
    if now.length != then.length {
        return Some(Report::Damaged { path, what: format!("{} bytes long instead of {}", now.length, then.length) });
    }
    let block = then.blocks.iter().zip(&now.blocks).position(|(then, now)| then != now)?;
    Some(Report::Damaged { path, what: format!("the checksum of block {block} ({} KiB each) is wrong", index::BLOCK_BYTES / 1024) })
}
