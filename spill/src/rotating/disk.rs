//! Files and directories, each step with an error that says what was tried.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate, statvfs};

use crate::store::Error;

/// Names what was tried, on what.
pub(crate) fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { what, path, source }
}

/// Syncs a directory: what was made, renamed or removed in it.
pub(crate) fn sync_directory(path: &Path) -> Result<(), Error> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(failed("sync", path))
}

/// Syncs a file by a descriptor of our own.
pub(crate) fn sync_file(path: &Path) -> Result<(), Error> {
    File::open(path).and_then(|file| file.sync_all()).map_err(failed("sync", path))
}

/// Makes a directory that may exist.
pub(crate) fn make_directory(path: &Path) -> Result<(), Error> {
    fs::create_dir_all(path).map_err(failed("make", path))
}

/// Replaces a file as a whole, durably: it has the old content or the new one, whatever happens.
pub(crate) fn replace(directory: &Path, name: &str, bytes: &[u8]) -> Result<(), Error> {
    let (path, fresh) = (directory.join(name), directory.join(format!("{name}.new")));
    let write = || {
        let mut file = File::create(&fresh)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(failed("write", &fresh))?;
    fs::rename(&fresh, &path).map_err(failed("rename", &fresh))?;
    sync_directory(directory)
}

/// Opens a file to append to it.
pub(crate) fn append_to(path: &Path) -> Result<File, Error> {
    OpenOptions::new().append(true).create(true).open(path).map_err(failed("open", path))
}

/// Appends to a file all or nothing.
pub(crate) fn append(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let mut file = append_to(path)?;
    let length = file.metadata().map_err(failed("read", path))?.len();
    file.write_all(bytes).map_err(|error| {
        drop(file.set_len(length));
        failed("write", path)(error)
    })
}

/// Reads a file of at most `limit` bytes; `None` when there is none. A longer one is cut: it cannot be right. What the disk does not give is as
/// good as an empty file: damaged. Without the permission to read it is an error, since everything would look damaged.
pub(crate) fn read(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, Error> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    match File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes)) {
        Ok(_) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(failed("read", path)(error)),
        Err(error) => {
            tracing::warn!(%error, path = %path.display(), "a file of the spill cannot be read");
            Ok(Some(Vec::new()))
        }
    }
}

/// Bytes on disk of everything below a directory; what cannot be looked at counts nothing.
pub(crate) fn bytes_below(path: &Path) -> u64 {
    files_below(path).iter().filter_map(|path| fs::symlink_metadata(path).ok()).map(|data| data.blocks() * 512).sum()
}

/// All files below a directory.
pub(crate) fn files_below(path: &Path) -> Vec<PathBuf> {
    let (mut found, mut directories) = (Vec::new(), vec![path.to_owned()]);
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => directories.push(entry.path()),
                _ => found.push(entry.path()),
            }
        }
    }
    found.sort();
    found
}

/// Free bytes of the file system; as good as unlimited when it does not tell.
pub(crate) fn free_bytes(path: &Path) -> u64 {
    statvfs(path).map_or(u64::MAX, |stat| stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Takes disk for the first `bytes` of a file, so that writing there does not fail later. A file system that cannot do that is no error.
pub(crate) fn reserve(file: &File, path: &Path, bytes: u64) -> Result<(), Error> {
    match fallocate(file, FallocateFlags::KEEP_SIZE, 0, bytes) {
        Ok(()) => Ok(()),
        Err(error) if matches!(error, rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT) => Err(failed("reserve", path)(error.into())),
        Err(_) => Ok(()),
    }
}
