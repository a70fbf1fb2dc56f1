//! One agent or collector: the real binary with its configuration file, started and stopped as often as a test likes.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::config_file::ConfigFile;
use crate::bench::usage;
use crate::metrics::{Metrics, Response, get};
use crate::process::{Daemon, Signal, read_from};

/// From start to the log line `event=ready`. Binaries are ready in well under a second; the machine may be busy.
const READY_LIMIT: Duration = Duration::from_secs(60);

/// From SIGTERM to the end: the drain deadline of the stage's configuration and some seconds.
const STOP_LIMIT: Duration = Duration::from_secs(45);

/// The log field of the line that says a program serves.
const READY: &str = "event=\"ready\"";

/// An agent or a collector that may be running.
#[derive(Debug)]
pub struct Program {
    name: String,
    binary: PathBuf,
    runner: Vec<String>,
    /// Its configuration; written to disk at each start.
    pub config: ConfigFile,
    config_path: PathBuf,
    log: PathBuf,
    admin_port: u16,
    environment: Vec<(String, String)>,
    daemon: Option<Daemon>,
}

impl Program {
    /// A program called `name`, with configuration and log in `dir`. Nothing is started.
    ///
    /// # Errors
    /// When the binary was not built.
    pub fn new(name: &str, binary_name: &str, dir: &Path, admin_port: u16, config: ConfigFile) -> Result<Self> {
        Ok(Self {
            name: name.to_owned(),
            binary: binary(binary_name)?,
            runner: Vec::new(),
            config,
            config_path: dir.join(format!("{name}.toml")),
            log: dir.join(format!("{name}.log")),
            admin_port,
            environment: Vec::new(),
            daemon: None,
        })
    }

    /// Runs another binary from the next start on, with the words of `runner` before it: an emulator and its arguments, or nothing.
    pub fn replace_binary(&mut self, binary: &Path, runner: &[String]) {
        binary.clone_into(&mut self.binary);
        runner.clone_into(&mut self.runner);
    }

    /// Sets an environment variable for the next start.
    pub fn set_env(&mut self, key: &str, value: &str) {
        self.environment.push((key.to_owned(), value.to_owned()));
    }

    /// Runs the binary of the same name in `dir` from the next start on, in place of the one beside the lab.
    pub fn run_from(&mut self, dir: &Path) {
        if let Some(name) = self.binary.file_name() {
            self.binary = dir.join(name);
        }
    }

    /// The operating system's id of the process; with a runner, of the emulator.
    ///
    /// # Errors
    /// When it was not started.
    pub fn pid(&self) -> Result<u32> {
        Ok(self.daemon.as_ref().with_context(|| format!("{} is not running", self.name))?.pid())
    }

    /// Port of the admin endpoint on 127.0.0.1.
    #[must_use]
    pub fn admin_port(&self) -> u16 {
        self.admin_port
    }

    /// Where its configuration file is.
    #[must_use]
    pub fn config_path(&self) -> &Path {
        &self.config_path
    }

    /// Starts the program and waits until it says that it is ready.
    ///
    /// # Errors
    /// When it ends or is not ready in time; the message carries the end of its log.
    pub fn start(&mut self) -> Result<()> {
        self.spawn()?;
        self.running()?.wait_for_line(READY, READY_LIMIT)?;
        Ok(())
    }

    /// Starts the program without waiting for anything.
    ///
    /// # Errors
    /// When it runs already or cannot be started.
    pub fn spawn(&mut self) -> Result<()> {
        ensure!(!self.is_running(), "{} runs already", self.name);
        self.config.write(&self.config_path)?;
        let mut command = match self.runner.split_first() {
            Some((emulator, arguments)) => {
                let mut command = Command::new(emulator);
                command.args(arguments).arg(&self.binary);
                command
            }
            None => Command::new(&self.binary),
        };
        command.arg("run").arg("--config").arg(&self.config_path).env("NO_COLOR", "1").env("RUST_BACKTRACE", "1");
        // They are settings to the program, and meant for the lab.
        for (key, _) in std::env::vars_os().filter(|(key, _)| key.to_string_lossy().starts_with("SPILLWAY_")) {
            command.env_remove(key);
        }
        command.envs(self.environment.iter().map(|(key, value)| (key, value)));
        self.daemon = Some(Daemon::spawn(&self.name, &mut command, &self.log)?);
        Ok(())
    }

    /// Whether the process runs.
    pub fn is_running(&mut self) -> bool {
        self.daemon.as_mut().is_some_and(Daemon::is_running)
    }

    /// `kill -9`. Says whether it was running.
    pub fn kill(&mut self) -> bool {
        self.daemon.take().is_some_and(|mut daemon| daemon.kill())
    }

    /// SIGTERM, then waits for the end.
    ///
    /// # Errors
    /// When it is not running or does not end in time.
    pub fn terminate(&mut self) -> Result<ExitStatus> {
        let status = self.running()?.terminate(STOP_LIMIT)?;
        self.daemon = None;
        Ok(status)
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When it is not running.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        self.running()?.signal(signal)
    }

    /// Waits for the program to end by itself and returns its exit code.
    ///
    /// # Errors
    /// When it still runs after `limit`, or ended by a signal.
    pub fn wait_exit(&mut self, limit: Duration) -> Result<i32> {
        let status = self.running()?.wait_exit(limit)?;
        status.code().with_context(|| format!("{} was ended by a signal: {status}", self.name))
    }

    /// Waits for a line that contains `needle` in what was logged since the last start.
    ///
    /// # Errors
    /// As of [`Daemon::wait_for_line`].
    pub fn wait_for_line(&mut self, needle: &str, limit: Duration) -> Result<String> {
        self.running()?.wait_for_line(needle, limit)
    }

    /// Lines of the whole log, over all starts, that contain `needle`.
    #[must_use]
    pub fn log_lines(&self, needle: &str) -> Vec<String> {
        read_from(&self.log, 0).lines().filter(|line| line.contains(needle)).map(str::to_owned).collect()
    }

    /// Its metrics now.
    ///
    /// # Errors
    /// When the admin endpoint does not answer.
    pub fn metrics(&self) -> Result<Metrics> {
        Metrics::fetch(self.admin_port).with_context(|| format!("no metrics of {}", self.name))
    }

    /// `GET path` of the admin endpoint.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn get(&self, path: &str) -> Result<Response> {
        get(self.admin_port, path).with_context(|| format!("no {path} of {}", self.name))
    }

    /// The largest resident memory the process has had (`VmHWM`), in bytes.
    ///
    /// # Errors
    /// When it is not running, or the system is not Linux.
    pub fn peak_memory_bytes(&self) -> Result<u64> {
        usage::peak_memory_bytes(self.pid()?)
    }

    fn running(&mut self) -> Result<&mut Daemon> {
        let name = &self.name;
        self.daemon.as_mut().with_context(|| format!("{name} is not running"))
    }
}

/// One of the workspace's binaries: it lies beside the lab's own, or beside the directory of the test's.
///
/// # Errors
/// When it was not built.
pub fn binary(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let found = own.ancestors().skip(1).take(2).map(|dir| dir.join(name)).find(|path| path.is_file());
    found.with_context(|| format!("{name} is not built: start through ./lab, or run `cargo build --bins` first"))
}
