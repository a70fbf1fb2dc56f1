//! The generation that is written.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use sled::{Db, Tree};

use super::disk::{self, failed};
use super::payload::{self, ChunkKey, DATABASE_FILE, chunk_key, from_trees};
use super::{INDEX_FILE, PAYLOAD_DIRECTORY, guard, record};
use crate::chunk;
use crate::entry::EntryId;
use crate::index::{self, Closed, Head};
use crate::seal::Sealer;
use crate::store::{Error, StoredEntry};

/// Chunks in a tree. sled writes a node anew with every tenth change, so that more would be written several times.
const TREE_CHUNKS: usize = 9;

/// Trees in a generation: sled writes the list of all trees anew with each one.
const MAX_TREES: usize = 256;

/// A generation that is written.
pub(crate) struct Writer {
    head: Head,
    directory: PathBuf,
    sealer: Sealer,
    db: Db,
    trees: BTreeMap<ChunkKey, Tree>,
    in_tree: usize,
    ids: BTreeSet<EntryId>,
    /// A descriptor of our own: sled does not sync its file.
    file: File,
    index: File,
    index_bytes: u64,
    bytes: u64,
    written: u64,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("head", &self.head).field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl Writer {
    /// Makes the generation; it is durable when this returns. After an error nothing of it is left.
    pub(crate) fn create(root: &Path, directory: &Path, head: Head, sealer: Sealer, generation_bytes: u64) -> Result<Self, Error> {
        let made = Self::make(root, directory, head, sealer, generation_bytes);
        if made.is_err() {
            // What cannot be removed now is found empty at the next start.
            drop(fs::remove_dir_all(directory));
        }
        made
    }

    fn make(root: &Path, directory: &Path, head: Head, sealer: Sealer, generation_bytes: u64) -> Result<Self, Error> {
        let (payload, index_path) = (directory.join(PAYLOAD_DIRECTORY), directory.join(INDEX_FILE));
        disk::make_directory(directory)?;
        let mut index = disk::append_to(&index_path)?;
        let begin = index::begin(&head);
        index.write_all(&begin).and_then(|()| index.sync_all()).map_err(failed("write", &index_path))?;
        let db = payload::make_database(&payload, generation_bytes)?;
        let path = payload.join(DATABASE_FILE);
        let file = File::open(&path).map_err(failed("open", &path))?;
        let writable = File::options().write(true).open(&path).map_err(failed("open", &path))?;
        disk::reserve(&writable, &path, generation_bytes)?;
        for file in disk::files_below(&payload) {
            disk::sync_file(&file)?;
        }
        for directory in [&payload, directory, root] {
            disk::sync_directory(directory)?;
        }
        let (directory, trees, index_bytes) = (directory.to_owned(), BTreeMap::new(), begin.len() as u64);
        let ids = BTreeSet::new();
        Ok(Self { head, directory, sealer, db, trees, in_tree: 0, ids, file, index, index_bytes, bytes: 0, written: index_bytes })
    }

    /// Appends an entry; it is durable after [`Self::sync`].
    pub(crate) fn append(&mut self, id: EntryId, identity: &[u8], frame: &[u8]) -> Result<(), Error> {
        let record = record::join(identity, frame);
        let too_large = || Error::EntryTooLarge { bytes: frame.len() };
        let chunks = chunk::split(self.head.generation, id, &record, &self.sealer).ok_or_else(too_large)?;
        for (index, chunk) in (0..).zip(chunks) {
            let key = chunk_key(id, index);
            if self.in_tree == 0 || self.in_tree == TREE_CHUNKS {
                let tree = guard::caught(|| self.db.open_tree(key)).map_err(|text| self.database(text))?;
                self.trees.insert(key, tree.map_err(|error| self.database(error.to_string()))?);
                self.in_tree = 0;
            }
            if let Some((_, tree)) = self.trees.last_key_value() {
                let length = chunk.len() as u64;
                let inserted = guard::caught(|| tree.insert(key, chunk)).map_err(|text| self.database(text))?;
                inserted.map_err(|error| self.database(error.to_string()))?;
                (self.bytes, self.written) = (self.bytes + length, self.written + length);
            }
            self.in_tree += 1;
        }
        let mut line = Vec::new();
        index::put_entry(&mut line, id, identity, &self.sealer).ok_or_else(too_large)?;
        self.ids.insert(id);
        self.note(&line)
    }

    /// Makes durable what was appended.
    pub(crate) fn sync(&mut self, last: EntryId) -> Result<(), Error> {
        let flushed = guard::caught(|| self.db.flush()).map_err(|text| self.database(text))?;
        flushed.map_err(|error| self.database(error.to_string()))?;
        let path = self.payload().join(DATABASE_FILE);
        self.file.sync_data().map_err(failed("sync", &path))?;
        let mut line = Vec::new();
        index::put_durable(&mut line, last);
        // The entries are durable already: without this note they are read all the same.
        drop(self.note(&line));
        Ok(())
    }

    /// True when an entry of so many bytes belongs into this generation; a first one always does.
    pub(crate) fn has_room(&self, bytes: u64, generation_bytes: u64) -> bool {
        self.bytes == 0 || (self.bytes + bytes <= generation_bytes && self.trees.len() < MAX_TREES)
    }

    /// Payload bytes so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes handed to the disk since the last call.
    pub(crate) fn take_written(&mut self) -> u64 {
        std::mem::take(&mut self.written)
    }

    /// The first entry after `after`, up to `last`.
    pub(crate) fn next_id(&self, after: EntryId, last: EntryId) -> Option<EntryId> {
        self.ids.range(after.next()..).next().copied().filter(|id| *id <= last)
    }

    /// Reads an entry; `None` when it is damaged.
    pub(crate) fn read(&self, id: EntryId) -> Option<StoredEntry> {
        record::assemble(self.head.generation, id, &self.sealer, |index| from_trees(&self.trees, id, index))
    }

    /// Completes the generation. False when sled failed: its file is as it was last synced, and is read without it.
    pub(crate) fn close(mut self) -> bool {
        let payload = self.payload();
        let trees = std::mem::take(&mut self.trees).into_values().collect();
        let (db, mut index) = (self.db, self.index);
        if let Err(text) = payload::close_database(db, trees) {
            tracing::warn!(text, directory = %payload.display(), "a generation of the spill was not closed properly; it is read without the database");
            return false;
        }
        // What was reserved and not used is given back.
        let path = payload.join(DATABASE_FILE);
        drop(File::options().write(true).open(&path).and_then(|file| file.set_len(file.metadata()?.len())));
        let Ok(files) = payload::sums(&payload) else {
            return false;
        };
        let mut line = Vec::new();
        index::put_closed(&mut line, &Closed { by_sled: true, files });
        index.write_all(&line).and_then(|()| index.sync_data()).is_ok()
    }

    /// Gives up what was appended and not synced.
    pub(crate) fn abandon(mut self, durable: EntryId) {
        let mut line = Vec::new();
        index::put_cut(&mut line, durable);
        drop(self.note(&line));
        self.leave();
    }

    /// Lets it go as it is.
    pub(crate) fn leave(mut self) {
        let trees = std::mem::take(&mut self.trees).into_values().collect();
        if let Err(text) = payload::close_database(self.db, trees) {
            tracing::debug!(text, "closing a database that failed");
        }
    }

    fn note(&mut self, line: &[u8]) -> Result<(), Error> {
        self.written += line.len() as u64;
        let path = self.directory.join(INDEX_FILE);
        if let Err(error) = self.index.write_all(line) {
            // What follows half a record would look like damage.
            drop(self.index.set_len(self.index_bytes));
            return Err(failed("write", &path)(error));
        }
        self.index_bytes += line.len() as u64;
        Ok(())
    }

    fn payload(&self) -> PathBuf {
        self.directory.join(PAYLOAD_DIRECTORY)
    }

    fn database(&self, text: String) -> Error {
        Error::Database { path: self.payload(), text }
    }
}
