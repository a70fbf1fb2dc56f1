//! The store: small sled databases in rotation.
//!
//! ```text
//! <directory>/
//!   lock                      held while a process has the spill
//!   format                    "spillway-spill 1" and its checksum
//!   slack                     given up when the disk is full, so that what is released can still be deleted
//!   state                     what is released and what was dropped ([`crate::state`])
//!   g000000000001/            a generation
//!     index                   the identities of its entries ([`crate::index`])
//!     sled/                   the payload: a sled database of chunks ([`crate::chunk`]), one tree for each nine of them
//!   trash-g000000000001/      a generation that is being deleted
//!   quarantine/               damaged generations, for `salvage`
//! ```
//! A generation is written until it holds about 8 MiB, then closed, read at most once, and deleted whole when all of it is released. So the disk is
//! given back, nothing is compacted, and what sled does not do (sync its file, shrink it, survive damage) is done around it:
//! - Values stay below a quarter of sled's segment, so that it never puts them into files of their own, which it does not sync.
//! - After sled's flush the file is synced by a descriptor of our own. A new generation's files and directories are synced before it is used.
//! - sled opens a file only if it is, by our checksums, what sled has left. Anything else is read by finding the chunks in the file.
//! - After any failure the open generation is given up: a sync that failed once says nothing when it succeeds the next time.
//!
//! Invariants: a generation's number is given once; entry numbers only go up; a generation has one class.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use spillway_proto::TopicPartition;

use crate::admission::{self, Limits, Policy, Verdict};
use crate::entry::{Class, Entry, EntryId, Identity, StoredSection};
use crate::plan::Released;
use crate::seal::Key;
use crate::state::State;
use crate::store::{Appended, Error, Release, Report, SpillStore, StoredEntry, Usage};
use crate::summary::{Source, Sources, Span, Summary};

mod append;
mod delete;
mod disk;
mod find;
mod generation;
mod guard;
mod lines;
mod lock;
mod open;
mod payload;
mod reader;
mod record;
mod room;
mod writer;

pub(crate) use generation::{Contents, examine};
pub use guard::deals_with_panics_here;
pub(crate) use open::damaged_files;
pub use open::generations;
pub(crate) use payload::{Found, sums};

use generation::Generation;
use lines::Tail;
use lock::Lock;
use reader::Reader;
use writer::Writer;

pub(crate) const INDEX_FILE: &str = "index";
pub(crate) const PAYLOAD_DIRECTORY: &str = "sled";
pub(crate) const STATE_FILE: &str = "state";
pub(crate) const FORMAT_FILE: &str = "format";
const LOCK_FILE: &str = "lock";
const SLACK_FILE: &str = "slack";
pub(crate) const QUARANTINE_DIRECTORY: &str = "quarantine";
const TRASH_PREFIX: &str = "trash-";

/// A generation is closed at so many bytes, unless the spill is small.
const GENERATION_BYTES: u64 = 8 * 1024 * 1024;

/// Most reports that wait to be taken; further ones are counted only.
const MAX_REPORTS: usize = 10_000;

/// How the store is used.
#[derive(Debug, Clone)]
pub struct Options {
    /// How much may be stored. [`Limits::max_bytes`] includes the open generations, which take their eighth of it, at most 8 MiB, at once.
    pub limits: Limits,
    /// What each class does when the spill is full; a class that is not named does what its number says.
    pub policies: BTreeMap<Class, Policy>,
    /// Encrypts what is stored; `None` stores it in clear.
    pub key: Option<Key>,
    /// Most bytes of damaged generations that are kept for `salvage`. Not part of `max_bytes`.
    pub quarantine_max_bytes: u64,
    /// Most bytes of a generation, unless `max_bytes` is less than eight of them. All of a generation that is written or read is in memory, which sled
    /// never gives back before it is closed. Default 8 MiB; smaller ones cost more syncs.
    pub generation_max_bytes: u64,
    /// Bytes at which a generation is closed, whatever `max_bytes` is. For tests.
    pub generation_bytes: Option<u64>,
}

impl Options {
    /// Blocks when `max_bytes` are reached, keeps 16 MiB of the disk free, keeps two damaged generations.
    pub fn new(max_bytes: u64) -> Self {
        let limits = Limits { max_bytes, min_free_disk: 16 * 1024 * 1024, max_age: None };
        let (policies, quarantine_max_bytes) = (BTreeMap::new(), 2 * GENERATION_BYTES);
        Self { limits, policies, key: None, quarantine_max_bytes, generation_max_bytes: GENERATION_BYTES, generation_bytes: None }
    }

    fn generation_bytes(&self) -> u64 {
        self.generation_bytes.unwrap_or_else(|| (self.limits.max_bytes / 8).min(self.generation_max_bytes))
    }

    fn policy(&self, class: Class) -> Policy {
        self.policies.get(&class).copied().unwrap_or_else(|| Policy::of(class))
    }
}

/// The store. See the module.
#[derive(Debug)]
pub struct RotatingStore {
    root: PathBuf,
    options: Options,
    generations: BTreeMap<u64, Generation>,
    writers: BTreeMap<Class, (u64, Writer)>,
    readers: BTreeMap<Class, Reader>,
    sources: Sources,
    tails: BTreeMap<TopicPartition, Tail>,
    state: State,
    /// Disk kept for the state file when the disk is full.
    slack: bool,
    /// Appended and not synced.
    pending: Vec<(EntryId, u64, Identity)>,
    durable: EntryId,
    next_entry: EntryId,
    next_generation: u64,
    reports: Vec<Report>,
    unreported: u64,
    written_bytes: u64,
    /// Held until the store is dropped.
    _lock: Lock,
}

impl SpillStore for RotatingStore {
    fn append(&mut self, entry: &Entry, now_ms: i64) -> Result<Appended, Error> {
        let bytes = entry.stored_bytes();
        loop {
            let (fill, victims) = (self.fill(entry.class, now_ms), self.victims(now_ms));
            let needed = self.needed(entry.class, bytes);
            match admission::decide(needed, self.options.policy(entry.class), entry.class, &self.options.limits, &fill, &victims) {
                Verdict::Admit => break,
                Verdict::DropOldest(class) => self.drop_oldest(class)?,
                Verdict::Block(full) => return Ok(Appended::Full(full)),
                Verdict::DropNewest(full) => {
                    self.drop_newest(entry)?;
                    return Ok(Appended::Dropped(full));
                }
            }
        }
        let outcome = self.write(entry);
        if outcome.as_ref().is_err_and(|error| !matches!(error, Error::EntryTooLarge { .. })) {
            self.abandon();
        }
        outcome.map(Appended::Stored)
    }

    fn sync(&mut self) -> Result<EntryId, Error> {
        let outcome = self.sync_writers();
        if outcome.is_err() {
            self.abandon();
        }
        outcome
    }

    fn durable(&self) -> EntryId {
        self.durable
    }

    fn read_of(&mut self, class: Option<Class>, after: EntryId) -> Result<Option<StoredEntry>, Error> {
        let (wanted, mut after) = (class, after);
        loop {
            let Some((id, class, number)) = self.find(wanted, after) else {
                return Ok(None);
            };
            if let Some((_, writer)) = self.writers.get(&class).filter(|(writing, _)| *writing == number) {
                if let Some(entry) = writer.read(id) {
                    return Ok(Some(entry));
                }
                // Whatever is wrong with it: nothing more is written there, and what is left is looked for in its file.
                self.sync()?;
                self.close_writer(class);
                continue;
            }
            if let Some(entry) = self.readers.get_mut(&class).and_then(|reader| reader.read(id)) {
                return Ok(Some(entry));
            }
            self.lose(id, class, number);
            after = id;
        }
    }

    fn release(&mut self, releases: &[Release]) -> Result<(), Error> {
        for release in releases {
            self.forward(release);
        }
        self.delete_released()
    }

    fn persist(&mut self) -> Result<(), Error> {
        self.write_state()
    }

    fn spans(&self, partition: &TopicPartition) -> Vec<(Source, Span)> {
        self.spans_of(|source| source.partition == *partition)
    }

    fn released(&self, partition: &TopicPartition) -> Option<Released> {
        self.state.released.get(partition).copied()
    }

    fn take_reports(&mut self) -> (Vec<Report>, u64) {
        (std::mem::take(&mut self.reports), std::mem::take(&mut self.unreported))
    }

    fn close(mut self) -> Result<(), Error> {
        let synced = self.sync().map(|_| ());
        for class in self.writers.keys().copied().collect::<Vec<_>>() {
            self.close_writer(class);
        }
        for reader in std::mem::take(&mut self.readers).into_values() {
            reader.close(true);
        }
        let written = self.write_state();
        synced.and(written)
    }

    fn usage(&self) -> Usage {
        let sum = |figure: fn(&Summary) -> u64| self.generations.values().map(|generation| figure(&generation.summary)).sum();
        Usage {
            disk_bytes: self.disk_bytes(),
            entries: sum(|summary| summary.entries),
            records: sum(|summary| summary.records),
            frame_bytes: sum(|summary| summary.frame_bytes),
            oldest_ms: self.generations.values().filter_map(|generation| generation.summary.oldest_ms).min(),
            generations: self.generations.len(),
            dropped_records: self.state.dropped_records,
            written_bytes: self.written_bytes,
        }
    }
}

impl RotatingStore {
    /// The partitions of which anything is known.
    pub fn partitions(&self) -> Vec<TopicPartition> {
        self.tails.keys().cloned().collect()
    }

    /// The classes of which anything is stored, and the partitions that each holds something of.
    pub fn classes(&self) -> BTreeMap<Class, Vec<TopicPartition>> {
        let mut classes: BTreeMap<Class, BTreeSet<TopicPartition>> = BTreeMap::new();
        for Generation { class, summary, .. } in self.generations.values().filter(|generation| !generation.summary.is_empty()) {
            let sources = summary.spans().filter_map(|(key, _)| self.sources.source(key));
            classes.entry(*class).or_default().extend(sources.map(|source| source.partition.clone()));
        }
        classes.into_iter().map(|(class, partitions)| (class, partitions.into_iter().collect())).collect()
    }
}

impl Drop for RotatingStore {
    fn drop(&mut self) {
        // sled may panic when it is dropped: not here.
        for (_, writer) in std::mem::take(&mut self.writers).into_values() {
            writer.leave();
        }
        for reader in std::mem::take(&mut self.readers).into_values() {
            reader.close(true);
        }
    }
}

/// The directory of a generation.
pub(crate) fn directory_of(root: &Path, number: u64) -> PathBuf {
    root.join(format!("g{number:012}"))
}

pub(crate) fn source_of(section: &StoredSection) -> Source {
    let StoredSection { partition, topic_id, partition_count, .. } = section;
    Source { partition: partition.clone(), topic_id: *topic_id, partition_count: *partition_count }
}
