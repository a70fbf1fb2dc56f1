//! The trait of a store, its errors, its figures.

use std::path::PathBuf;

use bytes::Bytes;
use spillway_proto::{NextOffset, TopicId, TopicPartition};

use crate::admission::Full;
use crate::entry::{Class, Entry, EntryId, Identity, Line};
use crate::plan::Released;
use crate::seal::{KeyError, KeyId};
use crate::summary::{Source, Span};

/// A durable store of frames. All methods block.
///
/// - A. What [`Self::sync`] has confirmed is read again after any crash or power cut, until it is released or dropped by policy.
/// - B. Entries are read in the order in which they were appended, all or those of a class.
/// - C. After an error of [`Self::append`] or [`Self::sync`] the entries above [`Self::durable`] are not in the store: append them again.
/// - D. Nothing is deleted but what is released or dropped by policy; and what is dropped is known afterwards.
pub trait SpillStore {
    /// Takes a frame. `now_ms` are milliseconds since 1970.
    ///
    /// # Errors
    /// When it cannot be written; see C. [`Error::EntryTooLarge`] leaves everything as it was.
    fn append(&mut self, entry: &Entry, now_ms: i64) -> Result<Appended, Error>;

    /// Makes everything appended durable. Answers the last entry.
    ///
    /// # Errors
    /// When that fails; see C.
    fn sync(&mut self) -> Result<EntryId, Error>;

    /// The last durable entry. Appending may move it too, when a generation is full.
    fn durable(&self) -> EntryId;

    /// The first durable entry after `after` that can be read, of a class if one is given. Damaged ones are passed over and reported.
    ///
    /// # Errors
    /// When the disk fails; ask again.
    fn read_of(&mut self, class: Option<Class>, after: EntryId) -> Result<Option<StoredEntry>, Error>;

    /// The first durable entry after `after` that can be read, of any class.
    ///
    /// # Errors
    /// As [`Self::read_of`].
    fn read(&mut self, after: EntryId) -> Result<Option<StoredEntry>, Error> {
        self.read_of(None, after)
    }

    /// Tells what is at the centre. Space is given back as soon as a whole generation is released.
    ///
    /// # Errors
    /// When the disk fails; what is released stays so, and deleting is tried again with the next call.
    fn release(&mut self, releases: &[Release]) -> Result<(), Error>;

    /// Notes durably what is released. Without it that is done when space is given back, and a stale note only causes a re-send.
    ///
    /// # Errors
    /// When the disk fails.
    fn persist(&mut self) -> Result<(), Error>;

    /// What is known of a partition's offsets, in the order of the entries, and what was dropped of it.
    fn spans(&self, partition: &TopicPartition) -> Vec<(Source, Span)>;

    /// How far a partition is at the centre, as far as the store was told.
    fn released(&self, partition: &TopicPartition) -> Option<Released>;

    /// What there is to tell since the last call, and how many reports more there would have been.
    fn take_reports(&mut self) -> (Vec<Report>, u64);

    /// The figures.
    fn usage(&self) -> Usage;

    /// Ends what is open. Dropping the store without it costs the next start some time, no data.
    ///
    /// # Errors
    /// When the disk fails.
    fn close(self) -> Result<(), Error>
    where
        Self: Sized;
}

/// A partition's progress at the centre: everything below `next` of `line` is there, and all lines before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// The partition.
    pub partition: TopicPartition,
    /// The topic's id.
    pub topic_id: TopicId,
    /// The line.
    pub line: Line,
    /// The next offset that the centre expects.
    pub next: NextOffset,
}

/// What became of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    /// It is in the store, durable after the next sync.
    Stored(EntryId),
    /// The store is full and its class drops what is new: it is noted as dropped.
    Dropped(Full),
    /// The store is full and its class waits: append it again later.
    Full(Full),
}

/// An entry that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEntry {
    /// Its number.
    pub id: EntryId,
    /// What it holds.
    pub identity: Identity,
    /// The frame, byte for byte as it was appended.
    pub frame: Bytes,
}

/// The figures of a store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of all files.
    pub disk_bytes: u64,
    /// Entries that are not deleted. Those of a generation are deleted together.
    pub entries: u64,
    /// Their records.
    pub records: u64,
    /// Bytes of their frames.
    pub frame_bytes: u64,
    /// When the oldest of them was built, milliseconds since 1970.
    pub oldest_ms: Option<i64>,
    /// Generations.
    pub generations: usize,
    /// Records dropped by policy, ever.
    pub dropped_records: u64,
    /// Bytes handed to the disk since the start, as far as the store knows.
    pub written_bytes: u64,
}

/// Something that the store has to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// A file is not as it was written. What that means for the data is told by further reports.
    Damaged {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// Offsets of a partition that were durable are lost here: read them again where the source still has them.
    Lost {
        /// The partition.
        source: Source,
        /// The line.
        line: Line,
        /// First offset.
        first: NextOffset,
        /// One past the last offset.
        next: NextOffset,
    },
    /// Offsets of a partition were dropped by policy.
    Dropped {
        /// The class.
        class: Class,
        /// The partition.
        source: Source,
        /// The line.
        line: Line,
        /// First offset.
        first: NextOffset,
        /// One past the last offset.
        next: NextOffset,
    },
    /// A damaged generation was put aside for `salvage`.
    Quarantined {
        /// Where it is now.
        path: PathBuf,
    },
}

/// Why the store cannot do what it should.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system refused.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// sled failed, or panicked.
    #[error("the database {} failed: {text}", path.display())]
    Database {
        /// Its directory.
        path: PathBuf,
        /// What it said.
        text: String,
    },
    /// Another process has the spill.
    #[error("{} is used by another process", path.display())]
    Locked {
        /// The spill's directory.
        path: PathBuf,
    },
    /// A later version wrote it; nothing was touched.
    #[error("{} has version {version} of the spill format, this program knows up to {known}; nothing was touched", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u64,
        /// Ours.
        known: u64,
    },
    /// It is encrypted with another key, or one is given and it is in clear; nothing was touched.
    #[error("{} was written with {}, but {} is set; nothing was touched", path.display(), key_name(found), key_name(given))]
    KeyWrong {
        /// The file.
        path: PathBuf,
        /// The key that it was written with.
        found: KeyId,
        /// The key that is set.
        given: KeyId,
    },
    /// The key cannot be used.
    #[error("the spill's key cannot be used")]
    Key(#[from] KeyError),
    /// A frame larger than any that the protocol allows.
    #[error("a frame of {bytes} bytes is too large for the spill")]
    EntryTooLarge {
        /// Its size, in bytes.
        bytes: usize,
    },
}

impl Error {
    /// True when the disk is full: it passes when space is there again.
    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::Io { source, .. } => {
                matches!(source.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
            }
            Self::Database { text, .. } => text.contains("os error 28") || text.contains("StorageFull"),
            _ => false,
        }
    }
}

fn key_name(id: &KeyId) -> String {
    if *id == crate::seal::NO_KEY {
        return "no key".to_owned();
    }
    let digits = id.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    format!("key {digits}")
}
