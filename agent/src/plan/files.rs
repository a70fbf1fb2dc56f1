//! Small files that survive a power cut: each is written anew beside the old one, made durable, and put in its place.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The centre's settings.
pub(crate) const SETTINGS_FILE: &str = "site-settings";

/// What is used up of the budget.
pub(crate) const BUDGET_FILE: &str = "budget";

/// What is known of the line.
pub(crate) const LINE_FILE: &str = "line";

/// What is longer is none of our files: settings have 16 KiB at most.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// What was found.
#[derive(Debug)]
pub(crate) enum Read {
    /// No such file, or no folder.
    Nothing,
    /// Its text.
    Text(String),
    /// There is something that cannot be read.
    Failed(io::Error),
}

pub(crate) fn read(dir: &Path, name: &str) -> Read {
    let mut text = String::new();
    match File::open(dir.join(name)).and_then(|file| file.take(FILE_BYTES_MAX).read_to_string(&mut text)) {
        Ok(_) => Read::Text(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Read::Nothing,
        Err(error) => Read::Failed(error),
    }
}

/// Makes `text` the content of the file, durably: after this it is there, before it and in a crash the old content is.
pub(crate) fn write(dir: &Path, name: &str, text: &str) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    let beside = dir.join(format!("{name}.new"));
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&beside, dir.join(name))?;
    File::open(dir)?.sync_all()
}

/// Whether the folder can be written.
pub(crate) fn probe(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    let probe = dir.join("probe.new");
    File::create(&probe)?.sync_all()?;
    fs::remove_file(probe)
}
