//! What was done to files, as [`system`] notes it.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

mod system;

/// A change, by the number that the system has for a file or directory.
#[derive(Debug, Clone)]
pub(crate) enum Call {
    /// A file or directory is made.
    Make { parent: u64, name: String, object: u64, directory: bool },
    /// A name is removed.
    Remove { parent: u64, name: String },
    /// A name is moved.
    Rename { from: (u64, String), to: (u64, String) },
    /// Bytes are written.
    Write { object: u64, offset: u64, bytes: Vec<u8> },
    /// A file is made shorter or longer.
    SetLength { object: u64, length: u64 },
    /// A file or directory is synced.
    Sync { object: u64 },
    /// The test says that it got so far.
    Mark(usize),
}

/// What is recorded.
#[derive(Debug)]
pub(crate) struct Recording {
    root: PathBuf,
    pub(crate) calls: Vec<Call>,
    /// Writes that are still allowed, then so many that are refused, then all are allowed again.
    pub(crate) full: Option<(u64, u64)>,
    /// Writes that were refused.
    pub(crate) refused: u64,
}

/// There is one recording at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// Waits until no other test records.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

static RECORDING: Mutex<Option<Recording>> = Mutex::new(None);

fn recording() -> MutexGuard<'static, Option<Recording>> {
    RECORDING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Begins to record what happens below a directory.
pub(crate) fn begin(root: &Path, full: Option<(u64, u64)>) {
    *recording() = Some(Recording { root: root.to_owned(), calls: Vec::new(), full, refused: 0 });
}

/// Ends the recording.
pub(crate) fn end() -> Recording {
    recording().take().unwrap()
}

/// Notes how far the test got.
pub(crate) fn mark(at: usize) {
    if let Some(recording) = recording().as_mut() {
        recording.calls.push(Call::Mark(at));
    }
}

/// The number of a path's file or directory.
pub(crate) fn object_at(path: &Path) -> Option<u64> {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::symlink_metadata(path).ok().map(|data| data.ino())
}

impl Recording {
    fn has(&self, path: &Path) -> bool {
        path.starts_with(&self.root)
    }

    fn named(&self, path: &Path) -> Option<(u64, String)> {
        self.has(path).then_some(())?;
        Some((object_at(path.parent()?)?, path.file_name()?.to_str()?.to_owned()))
    }

    fn refuses(&mut self) -> bool {
        let Some((allowed, refused)) = &mut self.full else {
            return false;
        };
        if *allowed > 0 {
            *allowed -= 1;
            return false;
        }
        let refuse = *refused > 0;
        *refused = refused.saturating_sub(1);
        self.refused += u64::from(refuse);
        refuse
    }
}
