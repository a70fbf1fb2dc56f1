//! Who has the spill.
//!
//! A lock on a file ends when the last descriptor of it is closed. A process that this one has just forked holds them all until it becomes another
//! program: a lock may outlive its holder by a moment.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::time::{Duration, Instant};

use super::LOCK_FILE;
use super::disk::failed;
use crate::store::Error;

/// The directory is ours until this is dropped.
#[derive(Debug)]
pub(super) struct Lock(File);

impl Lock {
    /// # Errors
    /// [`Error::Locked`] when another process has it.
    pub(super) fn take(root: &Path) -> Result<Self, Error> {
        let path = root.join(LOCK_FILE);
        let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(failed("open", &path))?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(Error::Locked { path: root.to_owned() }),
            Err(TryLockError::Error(error)) => Err(failed("lock", &path)(error)),
        }
    }
}

impl Drop for Lock {
    /// To unlock is to end the lock whoever else holds the file; to close it is not.
    fn drop(&mut self) {
        drop(self.0.unlock());
    }
}

/// Waits until nobody holds a lock on a file: sled closes its file without unlocking it, and tries to lock it once only. Who has the spill's lock has
/// no rival for this one, so what holds it goes by itself; for `longest`, should it not.
pub(super) fn wait_until_free(path: &Path, longest: Duration) {
    let Ok(file) = File::open(path) else {
        return;
    };
    let start = Instant::now();
    while matches!(file.try_lock(), Err(TryLockError::WouldBlock)) && start.elapsed() < longest {
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(file.unlock());
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn it_is_given_back_while_a_forked_process_holds_the_file() {
        let root = tempfile::tempdir().unwrap();
        let lock = Lock::take(root.path()).unwrap();
        // A descriptor of the same open file: what a fork makes.
        let _forked = lock.0.try_clone().unwrap();
        assert!(matches!(Lock::take(root.path()), Err(Error::Locked { .. })));
        drop(lock);
        Lock::take(root.path()).unwrap();
    }
}
