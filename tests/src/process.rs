//! Child processes of the lab: real binaries and brokers, each with a log file, none of which outlives the lab.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, kill_process};

pub use rustix::process::Signal;

use crate::reaper::Reaper;
use crate::wait::{POLL, poll_until};

/// How much of a log is shown when a process did not do what was expected.
const TAIL_LINES: usize = 25;

/// A running (or ended) child process. Dropping it kills it with SIGKILL.
#[derive(Debug)]
pub struct Daemon {
    name: String,
    child: Child,
    exited: Option<ExitStatus>,
    left: bool,
    log: PathBuf,
    log_start: u64,
}

impl Daemon {
    /// Starts `command` in a process group of its own, so that Ctrl-C in the terminal reaches the lab only, with its output
    /// appended to `log`.
    ///
    /// # Errors
    /// When the log cannot be opened or the program cannot be started.
    pub fn spawn(name: &str, command: &mut Command, log: &Path) -> Result<Self> {
        let out = OpenOptions::new().create(true).append(true).open(log).with_context(|| format!("cannot write {}", log.display()))?;
        let log_start = out.metadata()?.len();
        let reaper = Reaper::global()?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {name} ({})", command.get_program().to_string_lossy()))?;
        reaper.watch(child.id());
        Ok(Self { name: name.to_owned(), child, exited: None, left: false, log: log.to_owned(), log_start })
    }

    /// What this process is called in messages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The operating system's id of the process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether the process has not ended yet.
    pub fn is_running(&mut self) -> bool {
        self.try_exit().is_none()
    }

    /// Waits for the process to end by itself.
    ///
    /// # Errors
    /// When it still runs after `limit`.
    pub fn wait_exit(&mut self, limit: Duration) -> Result<ExitStatus> {
        match poll_until(limit, || Ok(self.try_exit()))? {
            Some(status) => Ok(status),
            None => bail!("{} still runs after {limit:?}\n{}", self.name, self.log_tail()),
        }
    }

    /// Sends a signal. A process that has ended already is left alone.
    ///
    /// # Errors
    /// When the signal cannot be sent.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if !self.is_running() {
            return Ok(());
        }
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw).context("process id out of range")?;
        kill_process(pid, signal).with_context(|| format!("cannot signal {}", self.name))
    }

    /// `kill -9`, and waits for the end.
    ///
    /// Returns whether the process was running until then: a fault test must know that its fault happened.
    pub fn kill(&mut self) -> bool {
        if !self.is_running() {
            return false;
        }
        let killed = self.child.kill().is_ok();
        if let Ok(status) = self.child.wait() {
            self.note_exit(status);
        }
        killed
    }

    /// SIGTERM, then waits for the end.
    ///
    /// # Errors
    /// When the process still runs after `limit`.
    pub fn terminate(&mut self, limit: Duration) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.wait_exit(limit)
    }

    /// Gives the process up: it goes on when the lab is gone. Returns its id.
    #[must_use]
    pub fn leave_running(mut self) -> u32 {
        let pid = self.pid();
        if let Ok(reaper) = Reaper::global() {
            reaper.forget(pid);
        }
        self.left = true;
        pid
    }

    /// Everything this process has logged since it was started.
    #[must_use]
    pub fn log_text(&self) -> String {
        read_from(&self.log, self.log_start)
    }

    /// The lines logged since the start that contain `needle`.
    #[must_use]
    pub fn log_lines(&self, needle: &str) -> Vec<String> {
        self.log_text().lines().filter(|line| line.contains(needle)).map(str::to_owned).collect()
    }

    /// Waits for a log line that contains `needle` and returns it.
    ///
    /// # Errors
    /// When the process ends, or `limit` passes, without one; the message carries the end of the log.
    pub fn wait_for_line(&mut self, needle: &str, limit: Duration) -> Result<String> {
        let deadline = Instant::now() + limit;
        loop {
            // Ask before reading: what was logged just before the end must still be seen.
            let running = self.is_running();
            if let Some(line) = self.log_lines(needle).into_iter().next() {
                return Ok(line);
            }
            if !running {
                bail!("{} ended ({}) before it logged {needle:?}\n{}", self.name, self.exit_text(), self.log_tail());
            }
            if Instant::now() >= deadline {
                bail!("{} did not log {needle:?} within {limit:?}\n{}", self.name, self.log_tail());
            }
            std::thread::sleep(POLL);
        }
    }

    /// The last lines of the log, indented, with the file's name.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let text = self.log_text();
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines.iter().skip(lines.len().saturating_sub(TAIL_LINES)).map(|line| format!("    {line}\n"));
        format!("  log of {} ({}):\n{}", self.name, self.log.display(), tail.collect::<String>())
    }

    fn try_exit(&mut self) -> Option<ExitStatus> {
        if self.exited.is_none()
            && let Ok(Some(status)) = self.child.try_wait()
        {
            self.note_exit(status);
        }
        self.exited
    }

    fn note_exit(&mut self, status: ExitStatus) {
        self.exited = Some(status);
        if let Ok(reaper) = Reaper::global() {
            reaper.forget(self.child.id());
        }
    }

    fn exit_text(&self) -> String {
        self.exited.map_or_else(|| "running".to_owned(), |status| status.to_string())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if !self.left {
            self.kill();
        }
    }
}

/// Runs a command to its end, which comes early if the lab ends: nothing outlives it.
///
/// # Errors
/// When the command cannot be started. How it ended is in the output's status.
pub fn run(command: &mut Command) -> Result<Output> {
    let name = command.get_program().to_string_lossy().into_owned();
    let reaper = Reaper::global()?;
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).spawn();
    let child = child.with_context(|| format!("cannot start {name}"))?;
    let pid = child.id();
    reaper.watch(pid);
    let output = child.wait_with_output();
    reaper.forget(pid);
    output.with_context(|| format!("cannot wait for {name}"))
}

/// The text of `path` from byte `start` on; empty when it cannot be read, replacement characters where it is not UTF-8.
#[must_use]
pub fn read_from(path: &Path, start: u64) -> String {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|mut file| {
        file.seek(SeekFrom::Start(start))?;
        file.read_to_end(&mut bytes)
    });
    match read {
        Ok(_) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(_) => String::new(),
    }
}
