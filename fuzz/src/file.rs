//! Inputs that are read from files, in memory where the system has such a place; of this process, so that several can run.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

static FOLDER: OnceLock<PathBuf> = OnceLock::new();

/// Writes a file and answers where.
pub(crate) fn write(name: &str, content: &[u8]) -> PathBuf {
    let path = FOLDER.get_or_init(make_folder).join(name);
    std::fs::write(&path, content).expect("a temporary file");
    path
}

fn make_folder() -> PathBuf {
    let memory = Path::new("/dev/shm");
    let base = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let folder = base.join(format!("spillway-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a temporary folder");
    folder
}
