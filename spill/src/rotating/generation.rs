//! A generation on disk that is not written any more: what it holds, and what of it is left after damage.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::disk;
use super::payload::{self, DATABASE_FILE, Found};
use super::{INDEX_FILE, PAYLOAD_DIRECTORY};
use crate::entry::{Class, EntryId, Identity};
use crate::index::{self, Closed, FileSum, Head, Parsed};
use crate::seal::{Key, NO_KEY, Sealer};
use crate::store::{Error, Report};
use crate::summary::{Sources, Summary};

/// Largest index that is read.
const MAX_INDEX_BYTES: u64 = 256 * 1024 * 1024;

/// A generation in the store's memory.
#[derive(Debug)]
pub(crate) struct Generation {
    pub(crate) class: Class,
    pub(crate) directory: PathBuf,
    pub(crate) summary: Summary,
    pub(crate) disk_bytes: u64,
    /// Something in it is damaged: it is kept for `salvage` when it is released.
    pub(crate) damaged: bool,
}

/// What the files of a generation tell.
#[derive(Debug)]
pub(crate) struct Contents {
    pub(crate) head: Head,
    /// All entries that were synced, as far as they are known, ascending.
    pub(crate) entries: Vec<(EntryId, Identity)>,
    /// Those whose frames are damaged.
    pub(crate) lost: BTreeSet<EntryId>,
    /// How it was closed.
    pub(crate) closed: Option<Closed>,
    /// What is wrong.
    pub(crate) reports: Vec<Report>,
    /// The files do not say what they should: write the index anew.
    pub(crate) mend: bool,
}

/// The index of a generation. One that the disk does not give is as good as a damaged one.
pub(crate) fn read_index(directory: &Path, key: Option<&Key>) -> Parsed {
    let bytes = Bytes::from(disk::read(&directory.join(INDEX_FILE), MAX_INDEX_BYTES).ok().flatten().unwrap_or_default());
    let id = key.map_or(NO_KEY, Key::id);
    index::parse(&bytes, |head| (head.key_id == id).then(|| Sealer::new(key, &head.salt)))
}

/// Reads what a generation holds: from its index alone when that is whole and the files are as long as they were, else chunk by chunk.
pub(crate) fn examine(directory: &Path, number: u64, key: Option<&Key>) -> Option<Contents> {
    let parsed = read_index(directory, key);
    let head = parsed.head.filter(|head| head.generation == number);
    let payload = directory.join(PAYLOAD_DIRECTORY);
    let mut reports = Vec::new();
    let damaged = |what: &str, path: PathBuf| Report::Damaged { path, what: what.to_owned() };
    if !parsed.sound || head.is_none() {
        reports.push(damaged("the index is damaged or missing", directory.join(INDEX_FILE)));
    }
    if let Some(closed) = &parsed.closed {
        let changed = closed.files.iter().filter(|file| !has_length(&payload, file));
        reports.extend(changed.map(|file| damaged("missing, or not as long as it was", payload.join(&file.path))));
        let hollow = closed.files.is_empty() && parsed.entries.len() > parsed.lost.len() && !payload.join(DATABASE_FILE).exists();
        reports.extend(hollow.then(|| damaged("missing", payload.join(DATABASE_FILE))));
    }
    match (head, parsed.closed.is_some() && reports.is_empty()) {
        (Some(head), true) => {
            let (entries, lost) = (parsed.entries, parsed.lost.into_iter().collect());
            Some(Contents { head, entries, lost, closed: parsed.closed, reports, mend: false })
        }
        (head, _) => salvage(&payload, number, head, parsed, key, reports),
    }
}

/// Joins what the index says with what is found in the payload. `None` when neither says anything.
fn salvage(
    payload: &Path,
    number: u64,
    head: Option<Head>,
    parsed: Parsed,
    key: Option<&Key>,
    mut reports: Vec<Report>,
) -> Option<Contents> {
    let found = Found::scan(payload, number).ok();
    let salt = head.map(|head| head.salt).or_else(|| found.as_ref()?.salt);
    let sealer = Sealer::new(key.filter(|_| salt.is_some()), &salt.unwrap_or_default());
    let durable = if parsed.closed.is_some() { EntryId(u64::MAX) } else { parsed.durable };
    let mut lost: BTreeSet<EntryId> = parsed.lost.into_iter().collect();
    let known = parsed.entries.iter().map(|(id, _)| *id).collect::<BTreeSet<_>>();
    let mut entries = parsed.entries;
    let mut readable = BTreeSet::new();
    for id in found.iter().flat_map(Found::entries).filter(|id| parsed.cut.is_none_or(|cut| *id <= cut)) {
        let entry = found.as_ref().and_then(|found| found.read(number, id, &sealer));
        if let Some(entry) = entry {
            readable.insert(id);
            if !known.contains(&id) {
                entries.push((id, entry.identity));
            }
        }
    }
    // What was never confirmed to be durable is not lost: the source was told nothing of it.
    entries.retain(|(id, _)| readable.contains(id) || *id <= durable);
    entries.sort_by_key(|(id, _)| *id);
    let before = lost.len();
    lost.extend(entries.iter().map(|(id, _)| *id).filter(|id| !readable.contains(id)));
    if lost.len() > before && reports.is_empty() {
        let (path, count) = (payload.to_owned(), lost.len() - before);
        reports.push(Report::Damaged { path, what: format!("{count} frames are damaged") });
    }
    let class = head.map(|head| head.class).or_else(|| entries.first().map(|(_, identity)| identity.class))?;
    let made = || Head { generation: number, class, key_id: key.map_or(NO_KEY, Key::id), salt: salt.unwrap_or_default() };
    let closed = payload::sums(payload).ok().map(|files| Closed { by_sled: false, files });
    Some(Contents { head: head.unwrap_or_else(made), entries, lost, closed, reports, mend: true })
}

impl Contents {
    /// The summary of what is there.
    pub(crate) fn summary(&self, sources: &mut Sources) -> Summary {
        let mut summary = Summary::default();
        for (id, identity) in &self.entries {
            summary.add(*id, identity, self.lost.contains(id), sources);
        }
        summary.close();
        summary
    }

    /// Writes the index anew, so that the next start need not look into the payload.
    pub(crate) fn write_index(&self, directory: &Path, sealer: &Sealer) -> Result<(), Error> {
        let mut out = index::begin(&self.head);
        for (id, identity) in &self.entries {
            let mut bytes = Vec::new();
            identity.encode(&mut bytes);
            // Cannot fail: it was sealed or opened with the same keys before.
            _ = index::put_entry(&mut out, *id, &bytes, sealer);
        }
        if let Some((last, _)) = self.entries.last() {
            index::put_durable(&mut out, *last);
        }
        for id in &self.lost {
            index::put_lost(&mut out, *id);
        }
        if let Some(closed) = &self.closed {
            index::put_closed(&mut out, closed);
        }
        disk::replace(directory, INDEX_FILE, &out)
    }
}

fn has_length(payload: &Path, file: &FileSum) -> bool {
    fs::metadata(payload.join(&file.path)).is_ok_and(|data| data.len() == file.length)
}
