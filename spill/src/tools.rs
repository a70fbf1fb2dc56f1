//! What an operator does with a stopped or copied spill. Nothing here writes into it, and nothing needs sled: entries are found by their chunks.

use std::collections::BTreeSet;
use std::path::Path;

use crate::entry::{Class, EntryId};
use crate::rotating::{
    Contents, FORMAT_FILE, Found, PAYLOAD_DIRECTORY, QUARANTINE_DIRECTORY, STATE_FILE, damaged_files, directory_of, examine, generations,
    sums,
};
use crate::seal::{Key, Sealer};
use crate::store::{Error, Report, StoredEntry};
use crate::summary::{Source, Sources, Span};

/// Whether the directory is a spill, or what is left of one.
#[must_use]
pub fn is_spill(root: &Path) -> bool {
    let has = |name| root.join(name).exists();
    has(FORMAT_FILE) || has(STATE_FILE) || has(QUARANTINE_DIRECTORY) || !generations(root).is_empty()
}

/// A generation, as `inspect` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GenerationView {
    /// Its number.
    pub number: u64,
    /// Its class.
    pub class: Class,
    /// Its writer closed it; else a crash ended it.
    pub closed: bool,
    /// Entries that can be read.
    pub entries: u64,
    /// Their records.
    pub records: u64,
    /// Bytes of their frames.
    pub frame_bytes: u64,
    /// Numbers of the first and the last entry.
    pub range: Option<(EntryId, EntryId)>,
    /// When the oldest frame was built, milliseconds since 1970.
    pub oldest_ms: Option<i64>,
    /// What it holds, by partition.
    pub spans: Vec<(Source, Span)>,
}

/// Says what each generation holds.
///
/// # Errors
/// A later format, another key.
pub fn inspect(root: &Path, key: Option<&Key>) -> Result<Vec<GenerationView>, Error> {
    let mut sources = Sources::default();
    let mut views = Vec::new();
    for (number, contents) in all(root, key)? {
        let Some(contents) = contents else {
            continue;
        };
        let summary = contents.summary(&mut sources);
        views.push(GenerationView {
            number,
            class: contents.head.class,
            closed: contents.closed.as_ref().is_some_and(|closed| closed.by_sled),
            entries: summary.entries,
            records: summary.records,
            frame_bytes: summary.frame_bytes,
            range: summary.first.zip(summary.last),
            oldest_ms: summary.oldest_ms,
            spans: summary.spans().filter_map(|(key, span)| Some((sources.source(key)?.clone(), span))).collect(),
        });
    }
    Ok(views)
}

/// What `verify` found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verified {
    /// Entries that are whole.
    pub entries: u64,
    /// Their records.
    pub records: u64,
    /// What is wrong; empty when all is well.
    pub reports: Vec<Report>,
}

/// Reads everything and compares every checksum.
///
/// # Errors
/// A later format, another key.
pub fn verify(root: &Path, key: Option<&Key>) -> Result<Verified, Error> {
    let mut verified = Verified::default();
    verified.reports.extend(damaged_files(root, key)?);
    for (number, contents) in all(root, key)? {
        let directory = directory_of(root, number);
        let payload = directory.join(PAYLOAD_DIRECTORY);
        let Some(contents) = contents else {
            verified.reports.push(Report::Damaged { path: directory, what: "nothing in it can be read".to_owned() });
            continue;
        };
        let closed = contents.closed.iter().filter(|_| !contents.mend).flat_map(|closed| &closed.files);
        let now = sums(&payload).unwrap_or_default();
        let changed = closed.filter(|then| !now.contains(then)).map(|file| file.path.clone());
        verified.reports.extend(changed.map(|path| Report::Damaged { path: payload.join(path), what: "a checksum is wrong".to_owned() }));
        let mut whole = BTreeSet::new();
        each_found(&payload, number, &contents, key, |entry| {
            (verified.entries, verified.records) = (verified.entries + 1, verified.records + entry.identity.records());
            whole.insert(entry.id);
        });
        for (_, identity) in contents.entries.iter().filter(|(id, _)| !whole.contains(id)) {
            for section in &identity.sections {
                if let spillway_proto::frame::SectionKind::Data { first, next, .. } = section.kind {
                    let source = crate::rotating::source_of(section);
                    verified.reports.push(Report::Lost { source, line: section.line, first, next });
                }
            }
        }
        verified.reports.extend(contents.reports.into_iter().filter(|report| !matches!(report, Report::Lost { .. })));
    }
    Ok(verified)
}

/// Gives every entry that is whole to `take`, in order within each generation.
///
/// # Errors
/// A later format, another key.
pub fn export(root: &Path, key: Option<&Key>, mut take: impl FnMut(StoredEntry)) -> Result<(), Error> {
    for (number, contents) in all(root, key)? {
        if let Some(contents) = contents {
            each_found(&directory_of(root, number).join(PAYLOAD_DIRECTORY), number, &contents, key, &mut take);
        }
    }
    Ok(())
}

/// As [`export`], and whatever is left in the quarantine besides.
///
/// # Errors
/// A later format, another key.
pub fn salvage(root: &Path, key: Option<&Key>, mut take: impl FnMut(StoredEntry)) -> Result<(), Error> {
    let quarantine = root.join(QUARANTINE_DIRECTORY);
    if quarantine.is_dir() {
        export(&quarantine, key, &mut take)?;
    }
    export(root, key, take)
}

fn all(root: &Path, key: Option<&Key>) -> Result<Vec<(u64, Option<Contents>)>, Error> {
    damaged_files(root, key)?;
    Ok(generations(root).into_iter().map(|number| (number, examine(&directory_of(root, number), number, key))).collect())
}

fn each_found(payload: &Path, number: u64, contents: &Contents, key: Option<&Key>, mut take: impl FnMut(StoredEntry)) {
    let Ok(found) = Found::scan(payload, number) else {
        return;
    };
    let sealer = Sealer::new(key.filter(|_| contents.head.is_sealed()), &contents.head.salt);
    for (id, _) in &contents.entries {
        if let Some(entry) = found.read(number, *id, &sealer) {
            take(entry);
        }
    }
}
