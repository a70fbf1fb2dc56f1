//! Writing keys and certificates: whole or not at all, never over anything, keys readable by their owner only.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use super::Error;

/// For keys.
pub(super) const SECRET: u32 = 0o600;

/// For certificates, which everybody may read.
pub(super) const PUBLIC: u32 = 0o644;

/// Makes the folder, for its owner only, with those above it; one that exists keeps its mode.
pub(super) fn make_dir(dir: &Path) -> Result<(), Error> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|source| Error::Write { path: dir.to_owned(), source })
}

/// Writes a new file of `mode`. It appears whole and on the disk, or not at all.
pub(super) fn write_new(file: &Path, contents: &str, mode: u32) -> Result<(), Error> {
    let write = |source| Error::Write { path: file.to_owned(), source };
    let temporary = temporary(file);
    let mut handle = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary).map_err(write)?;
    let written = handle.write_all(contents.as_bytes()).and_then(|()| handle.sync_all());
    // A hard link, unlike a rename, refuses to replace what is there.
    let linked = written.and_then(|()| fs::hard_link(&temporary, file));
    let removed = fs::remove_file(&temporary);
    match linked {
        Err(source) if source.kind() == io::ErrorKind::AlreadyExists => Err(Error::Exists { file: file.to_owned() }),
        linked => linked.and(removed).and_then(|()| sync_parent(file)).map_err(write),
    }
}

/// Fails if one of the files exists, before anything is made for them.
pub(super) fn none_exists<const N: usize>(files: [&Path; N]) -> Result<(), Error> {
    match files.into_iter().find(|file| file.symlink_metadata().is_ok()) {
        Some(file) => Err(Error::Exists { file: file.to_owned() }),
        None => Ok(()),
    }
}

/// The text of a file.
pub(super) fn read(file: &Path) -> Result<String, Error> {
    fs::read_to_string(file).map_err(|source| Error::Read { path: file.to_owned(), source })
}

/// A name beside `file` that nobody else uses: `create_new` sees to the rest.
fn temporary(file: &Path) -> PathBuf {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    file.with_file_name(name)
}

/// So that the new name survives a power cut.
fn sync_parent(file: &Path) -> io::Result<()> {
    let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    File::open(parent)?.sync_all()
}
