//! Processor time and memory of processes, and disk of directories, as Linux counts them.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};

/// Clock ticks a second in `/proc`: fixed by the kernel's interface (`USER_HZ`), whatever the kernel's own clock.
const TICKS_PER_SECOND: u64 = 100;

/// A process that is watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watched {
    /// What the report calls it.
    pub name: String,
    /// Its id.
    pub pid: u32,
}

/// Processor time that a process has used so far, in user and system mode, with all its threads.
///
/// # Errors
/// When it is gone, or the system is not Linux.
pub fn cpu_time(pid: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("process {pid} is gone"))?;
    ticks(&stat).map(|ticks| Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND)).context("an unreadable /proc/PID/stat")
}

/// The largest resident memory that a process has had, in bytes.
///
/// # Errors
/// When it is gone, or the system is not Linux.
pub fn peak_memory_bytes(pid: u32) -> Result<u64> {
    status_bytes(pid, "VmHWM:")
}

/// The resident memory of a process, in bytes.
///
/// # Errors
/// When it is gone, or the system is not Linux.
pub fn memory_bytes(pid: u32) -> Result<u64> {
    status_bytes(pid, "VmRSS:")
}

/// Threads of a process.
///
/// # Errors
/// When it is gone, or the system is not Linux.
pub fn threads(pid: u32) -> Result<u64> {
    status_field(pid, "Threads:")
}

/// Bytes that the files below a directory take on the disk. What vanishes meanwhile takes none.
#[must_use]
pub fn disk_bytes(path: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(path) else { return 0 };
    let one = |path: PathBuf| match path.symlink_metadata() {
        Ok(metadata) if metadata.is_dir() => disk_bytes(&path),
        Ok(metadata) => metadata.blocks() * 512,
        Err(_) => 0,
    };
    entries.filter_map(Result::ok).map(|entry| one(entry.path())).sum()
}

fn status_bytes(pid: u32, field: &str) -> Result<u64> {
    status_field(pid, field).map(|kib| kib * 1024)
}

fn status_field(pid: u32, field: &str) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).with_context(|| format!("process {pid} is gone"))?;
    let value = status.lines().find_map(|line| line.strip_prefix(field)).with_context(|| format!("no {field} of process {pid}"))?;
    Ok(value.trim().trim_end_matches(" kB").parse()?)
}

/// Fields 14 and 15 (user and system time), counted behind the command's name, which may hold blanks and brackets.
fn ticks(stat: &str) -> Option<u64> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    let mut fields = behind_name.split_whitespace().skip(11);
    let (user, system) = (fields.next()?, fields.next()?);
    Some(user.parse::<u64>().ok()? + system.parse::<u64>().ok()?)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn user_and_system_time_are_summed_whatever_the_name() {
        let stat = "123 (a ) b) S 1 123 123 0 -1 4194560 1 2 3 4 250 50 7 8 20 0 9 0 1000 1 2";
        assert_eq!(ticks(stat), Some(300));
    }

    #[test]
    fn our_own_process_has_used_something() {
        let pid = std::process::id();
        // The kernel counts pages of each processor apart, so that its figures are some pages off: a block that is more than those is looked for.
        let block = vec![1_u8; 64 << 20];
        let resident = memory_bytes(pid).unwrap();
        assert!(resident >= block.len() as u64, "{resident}");
        drop(std::hint::black_box(block));
        let peak = peak_memory_bytes(pid).unwrap();
        assert!(peak >= 64 << 20, "{peak}");
        assert!(threads(pid).unwrap() >= 1);
        cpu_time(pid).unwrap();
    }

    #[test]
    fn files_of_all_directories_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("below")).unwrap();
        for file in ["one", "below/two"] {
            fs::write(dir.path().join(file), vec![1; 100_000]).unwrap();
        }
        let found = disk_bytes(dir.path());
        assert!((200_000..300_000).contains(&found), "{found}");
        assert_eq!(disk_bytes(&dir.path().join("none")), 0);
    }
}
