//! The payload of a generation: entries as chunks in a sled database, or what can be found in its file without sled.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sled::{Db, Mode, Tree};

use super::disk::{self, failed};
use super::{guard, lock, record};
use crate::chunk::{self, MAX_CHUNK_BYTES};
use crate::entry::EntryId;
use crate::index::{BLOCK_BYTES, FileSum};
use crate::seal::{FileSalt, Sealer};
use crate::store::{Error, StoredEntry};

/// sled's file of records and values.
pub(crate) const DATABASE_FILE: &str = "db";

/// sled's cache. It gives back so seldom that a generation stays in memory whole, whatever this is (see `Options::generation_max_bytes`).
const CACHE_BYTES: u64 = 8 * 1024 * 1024;

/// What sled was told when the database was made: its first line is "segment_size: " and the number.
const CONFIGURATION_FILE: &str = "conf";

/// From this size of a generation on sled's segments are large, below it small: a value stays below a quarter of a segment either way.
const LARGE_GENERATION_BYTES: u64 = 4 * 1024 * 1024;

const LARGE_SEGMENT_BYTES: usize = 1024 * 1024;
const SMALL_SEGMENT_BYTES: usize = 256 * 1024;

/// A forked process holds what it has got of us for some milliseconds. After that sled's own error tells who is in the way.
const LOCK_WAIT: Duration = Duration::from_secs(1);

/// Name of a tree: entry and index of its first chunk, big-endian, so that names sort as the chunks do.
pub(crate) type ChunkKey = [u8; 12];

/// The key of a chunk.
pub(crate) fn chunk_key(entry: EntryId, index: u32) -> ChunkKey {
    let mut key = [0; 12];
    for (place, byte) in key.iter_mut().zip(entry.0.to_be_bytes().into_iter().chain(index.to_be_bytes())) {
        *place = byte;
    }
    key
}

/// Makes a database for a generation of so many bytes.
pub(crate) fn make_database(directory: &Path, generation_bytes: u64) -> Result<Db, Error> {
    open(directory, if generation_bytes >= LARGE_GENERATION_BYTES { LARGE_SEGMENT_BYTES } else { SMALL_SEGMENT_BYTES })
}

/// Opens a database that was closed, with the segments that it has: the spill may have had another size then.
pub(crate) fn open_database(directory: &Path) -> Result<Db, Error> {
    let text = disk::read(&directory.join(CONFIGURATION_FILE), 1024)?.unwrap_or_default();
    let large = text.starts_with(format!("segment_size: {LARGE_SEGMENT_BYTES}\n").as_bytes());
    open(directory, if large { LARGE_SEGMENT_BYTES } else { SMALL_SEGMENT_BYTES })
}

/// On a thread of its own.
fn open(directory: &Path, segment: usize) -> Result<Db, Error> {
    let path = directory.to_owned();
    let open = move || {
        remove_unfinished_snapshots(&path);
        lock::wait_until_free(&path.join(DATABASE_FILE), LOCK_WAIT);
        let config = sled::Config::new().path(&path).mode(Mode::LowSpace).cache_capacity(CACHE_BYTES);
        config.segment_size(segment).use_compression(false).flush_every_ms(None).open()
    };
    let database = |text: String| Error::Database { path: directory.to_owned(), text };
    guard::apart(open).map_err(database)?.map_err(|error| database(error.to_string()))
}

/// sled fails on a snapshot that a crash has left half-written.
fn remove_unfinished_snapshots(directory: &Path) {
    for path in disk::files_below(directory) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            drop(fs::remove_file(path));
        }
    }
}

/// Closes a database, on a thread of its own: sled syncs and may panic there.
pub(crate) fn close_database(db: Db, trees: Vec<Tree>) -> Result<(), String> {
    guard::apart(move || {
        drop(trees);
        drop(db);
    })
}

/// How entries of a generation are read.
#[derive(Debug)]
pub(crate) enum Payload {
    /// By sled.
    Database { db: Db, trees: BTreeMap<ChunkKey, Tree> },
    /// From where chunks were found in the file.
    Found(Found),
}

/// Where chunks stand in a file.
#[derive(Debug)]
pub(crate) struct Found {
    file: File,
    places: BTreeMap<(EntryId, u32), (u64, u32)>,
    /// What the chunks say that they are sealed with.
    pub(crate) salt: Option<FileSalt>,
}

impl Payload {
    /// Opens a database that was closed.
    pub(crate) fn database(db: Db, directory: &Path) -> Result<Self, Error> {
        let failed = |text: String| Error::Database { path: directory.to_owned(), text };
        let trees = guard::caught(|| {
            let names = db.tree_names().into_iter().filter_map(|name| ChunkKey::try_from(name.as_ref()).ok());
            names.map(|name| Ok((name, db.open_tree(name)?))).collect::<Result<_, sled::Error>>()
        });
        let trees = trees.map_err(failed)?.map_err(|error| failed(error.to_string()))?;
        Ok(Self::Database { db, trees })
    }

    /// Reads an entry; `None` when it is damaged.
    pub(crate) fn read(&self, generation: u64, id: EntryId, sealer: &Sealer) -> Option<StoredEntry> {
        match self {
            Self::Database { trees, .. } => record::assemble(generation, id, sealer, |index| from_trees(trees, id, index)),
            Self::Found(found) => found.read(generation, id, sealer),
        }
    }
}

/// A chunk out of the tree whose name is the last one not above the chunk's key.
pub(crate) fn from_trees(trees: &BTreeMap<ChunkKey, Tree>, id: EntryId, index: u32) -> Option<Vec<u8>> {
    let key = chunk_key(id, index);
    let (_, tree) = trees.range(..=key).next_back()?;
    guard::caught(|| tree.get(key)).ok()?.ok()?.map(|value| value.to_vec())
}

impl Found {
    /// Looks for chunks in sled's file, without sled.
    pub(crate) fn scan(directory: &Path, generation: u64) -> Result<Self, Error> {
        let path = directory.join(DATABASE_FILE);
        let file = File::open(&path).map_err(failed("open", &path))?;
        let length = file.metadata().map_err(failed("read", &path))?.len();
        let (mut places, mut salt, mut from) = (BTreeMap::new(), None, 0);
        let mut window = vec![0; SCAN_BYTES + MAX_CHUNK_BYTES];
        while from < length {
            let size = usize::try_from(length - from).unwrap_or(usize::MAX).min(window.len());
            let bytes = window.get_mut(..size).unwrap_or_default();
            file.read_exact_at(bytes, from).map_err(failed("read", &path))?;
            let mut at = 0;
            while let Some(place) = chunk::find(bytes, at).filter(|place| *place < SCAN_BYTES) {
                at = place + 1;
                if let Some((head, covered)) = bytes.get(place..).and_then(chunk::parse)
                    && head.generation == generation
                {
                    places.insert((head.entry, head.index), (from + place as u64, (head.length + chunk::OVERHEAD_BYTES) as u32));
                    salt = salt.or(head.salt);
                    at = place + covered.len();
                }
            }
            from += SCAN_BYTES.max(at) as u64;
        }
        Ok(Self { file, places, salt })
    }

    /// The entries of which anything was found.
    pub(crate) fn entries(&self) -> BTreeSet<EntryId> {
        self.places.keys().map(|(entry, _)| *entry).collect()
    }

    /// Reads an entry; `None` when it is damaged.
    pub(crate) fn read(&self, generation: u64, id: EntryId, sealer: &Sealer) -> Option<StoredEntry> {
        record::assemble(generation, id, sealer, |index| {
            let (offset, length) = self.places.get(&(id, index))?;
            let mut bytes = vec![0; *length as usize];
            self.file.read_exact_at(&mut bytes, *offset).ok()?;
            Some(bytes)
        })
    }
}

/// Bytes looked through at once.
const SCAN_BYTES: usize = 1024 * 1024;

/// Checksums of all files of a payload as they are now.
pub(crate) fn sums(directory: &Path) -> Result<Vec<FileSum>, Error> {
    let sum = |path: PathBuf| {
        let mut file = File::open(&path).map_err(failed("open", &path))?;
        // Block by block: a generation is as large as all else that the store keeps in memory.
        let (mut block, mut length, mut blocks) = (Vec::with_capacity(BLOCK_BYTES), 0, Vec::new());
        loop {
            block.clear();
            file.by_ref().take(BLOCK_BYTES as u64).read_to_end(&mut block).map_err(failed("read", &path))?;
            if block.is_empty() {
                break;
            }
            length += block.len() as u64;
            blocks.push(crc32c::crc32c(&block));
        }
        let name = path.strip_prefix(directory).unwrap_or(&path).to_string_lossy().into_owned();
        Ok(FileSum { path: name, length, blocks })
    };
    disk::files_below(directory).into_iter().map(sum).collect()
}
