//! A small helper process that outlives the lab by a moment and cleans up after it.
//!
//! However the lab ends (return, panic, Ctrl-C, kill -9), the kernel closes the pipe between the two. The reaper then kills
//! the processes that are still on its list, unmounts what is mounted in the scratch directory and removes it. It is plain `sh`, so nothing has to be built for
//! it, and it ignores the signals of the terminal.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

use anyhow::{Context as _, Result};

/// Reads `+PID` and `-PID` lines until its input ends; `$1` is the scratch directory. If that holds a file `keep-logs`, logs
/// and configuration files stay for the reader.
const SCRIPT: &str = r#"
trap '' INT TERM HUP
pids=
while read -r line; do
  case $line in
    +*) pids="$pids ${line#+}" ;;
    -*) left=; for p in $pids; do [ "$p" = "${line#-}" ] || left="$left $p"; done; pids=$left ;;
  esac
done
for p in $pids; do kill -9 "$p" 2>/dev/null; done
while read -r _ at _; do
  case $at in "$1"/*) umount -l "$at" 2>/dev/null ;; esac
done </proc/mounts
if [ -e "$1/remove-at-end" ]; then
  while read -r path; do rm -f "$path"; done <"$1/remove-at-end"
fi
if [ -e "$1/keep-logs" ]; then
  find "$1" -type f ! -name '*.log' ! -name '*.toml' -exec rm -f {} + 2>/dev/null
  find "$1" -depth -type d -exec rmdir {} \; 2>/dev/null
else
  for try in 1 2 3 4 5; do rm -rf "$1" 2>/dev/null && break; sleep 0.2; done
fi
"#;

static REAPER: OnceLock<Reaper> = OnceLock::new();

/// The one reaper of this process and the scratch directory it will remove.
#[derive(Debug)]
pub struct Reaper {
    scratch: PathBuf,
    link: Mutex<Option<(Child, ChildStdin)>>,
}

impl Reaper {
    /// The reaper of this process, started at the first call.
    ///
    /// # Errors
    /// When the scratch directory or the helper process cannot be made.
    pub fn global() -> Result<&'static Self> {
        if let Some(reaper) = REAPER.get() {
            return Ok(reaper);
        }
        // Two threads may get here at once; the loser's helper sees its pipe close and removes its empty directory.
        let started = Self::start()?;
        Ok(REAPER.get_or_init(|| started))
    }

    /// The directory under which everything temporary of this process lives.
    #[must_use]
    pub fn scratch(&self) -> &Path {
        &self.scratch
    }

    /// Puts a process on the list of those to be killed when the lab ends.
    pub fn watch(&self, pid: u32) {
        self.tell(&format!("+{pid}\n"));
    }

    /// Takes a process off the list: it has ended and was waited for.
    pub fn forget(&self, pid: u32) {
        self.tell(&format!("-{pid}\n"));
    }

    /// Keeps the log and configuration files of this run, for a person to read after a failure.
    ///
    /// Returns the directory that stays.
    pub fn keep_logs(&self) -> &Path {
        // Not being able to write the mark only means that the logs go.
        drop(std::fs::write(self.scratch.join("keep-logs"), b""));
        &self.scratch
    }

    /// Removes a file outside the scratch directory when the lab ends.
    ///
    /// # Errors
    /// When that cannot be noted.
    pub fn remove_at_end(&self, file: &Path) -> Result<()> {
        let list = self.scratch.join("remove-at-end");
        let mut list = std::fs::OpenOptions::new().create(true).append(true).open(&list).context("cannot note a file to remove")?;
        writeln!(list, "{}", file.display()).context("cannot note a file to remove")
    }

    /// Cleans up now and waits until it is done: the last thing before the lab exits.
    pub fn finish(&self) {
        let link = self.link.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((mut child, stdin)) = link {
            drop(stdin);
            drop(child.wait());
        }
    }

    fn start() -> Result<Self> {
        let scratch = tempfile::Builder::new().prefix("spillway-lab-").tempdir().context("cannot make a temporary directory")?.keep();
        let mut child = Command::new("/bin/sh")
            .args(["-c", SCRIPT, "lab-reaper"])
            .arg(&scratch)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("cannot start /bin/sh")?;
        let stdin = child.stdin.take().context("the reaper has no input")?;
        Ok(Self { scratch, link: Mutex::new(Some((child, stdin))) })
    }

    fn tell(&self, line: &str) {
        let mut link = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, stdin)) = link.as_mut() {
            // A dead reaper must not stop a test; guards on drop still clean up.
            drop(stdin.write_all(line.as_bytes()));
        }
    }
}

/// Cleans up if anything was started; does nothing otherwise.
pub fn finish() {
    if let Some(reaper) = REAPER.get() {
        reaper.finish();
    }
}

/// Makes a new directory for one cluster or deployment, inside this process' scratch directory.
///
/// # Errors
/// When the directory cannot be made.
pub fn scratch_dir(label: &str) -> Result<PathBuf> {
    let dir = tempfile::Builder::new()
        .prefix(&format!("{label}-"))
        .tempdir_in(Reaper::global()?.scratch())
        .context("cannot make a temporary directory")?;
    Ok(dir.keep())
}
