//! Network namespaces: who is in one has its own interfaces, routes, ports and loopback. Each lives as long as a process that holds it, which the
//! reaper ends with the lab; so nothing stays behind, however the lab ends.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::process::{Daemon, run};
use crate::reaper::scratch_dir;
use crate::wait::wait_until;

/// Programs that the WAN calls: iproute2 and util-linux.
const TOOLS: [&str; 2] = ["ip", "unshare"];

/// Until a process that was started has its namespace.
const START_LIMIT: Duration = Duration::from_secs(30);

/// What keeps this machine from having a WAN; `None` when nothing does.
#[must_use]
pub fn problem() -> Option<String> {
    let mut missing = Vec::new();
    if !rustix::process::geteuid().is_root() {
        missing.push("root (namespaces and devices are made)".to_owned());
    }
    if !Path::new("/dev/net/tun").exists() {
        missing.push("/dev/net/tun (modprobe tun, or give the device to the container)".to_owned());
    }
    missing.extend(TOOLS.iter().filter(|tool| !is_there(tool)).map(|tool| format!("`{tool}` (Debian: iproute2, util-linux)")));
    if missing.is_empty()
        && let Err(error) = Namespace::new("probe")
    {
        missing.push(format!("{error:#}"));
    }
    (!missing.is_empty()).then(|| missing.join("; "))
}

/// A namespace. Dropping it ends the process that holds it.
#[derive(Debug)]
pub struct Namespace {
    holder: Daemon,
}

impl Namespace {
    /// A new one, with its loopback up. `name` is for messages.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn new(name: &str) -> Result<Self> {
        let log = scratch_dir(&format!("wan-{name}"))?.join("namespace.log");
        let mut command = Command::new("unshare");
        let mut holder = Daemon::spawn(&format!("namespace {name}"), command.args(["--net", "--", "sleep", "infinity"]), &log)?;
        let own = std::fs::read_link("/proc/self/ns/net").context("cannot read /proc/self/ns/net")?;
        let path = path_of(holder.pid());
        wait_until(&format!("namespace {name} is there"), START_LIMIT, || {
            ensure!(holder.is_running(), "unshare cannot make a network namespace\n{}", holder.log_tail());
            Ok(std::fs::read_link(&path).is_ok_and(|there| there != own))
        })?;
        let namespace = Self { holder };
        namespace.inside(|| succeed(Command::new("ip").args(["link", "set", "lo", "up"])))?;
        Ok(namespace)
    }

    /// The process that holds it: `nsenter --net --target PID`.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.holder.pid()
    }

    /// As [`inside_of`] the process that holds it.
    ///
    /// # Errors
    /// Those of `work`, or when the namespace is gone.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        inside_of(self.pid(), work)
    }
}

/// Runs `work` in a thread of its own in the namespace that process `pid` is in; threads and programs that it starts are there as well.
///
/// # Errors
/// Those of `work`, or when there is no such process.
pub fn inside_of<T: Send>(pid: u32, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let result = std::thread::scope(|scope| {
        scope
            .spawn(move || {
                enter_of(pid)?;
                work()
            })
            .join()
    });
    result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Moves the calling thread into the namespace that process `pid` is in.
///
/// # Errors
/// When there is no such process, or without root.
pub fn enter_of(pid: u32) -> Result<()> {
    enter(&path_of(pid))
}

fn enter(path: &Path) -> Result<()> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).context("cannot enter the network namespace")
}

fn path_of(pid: u32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/ns/net"))
}

/// Runs a program that has to exit with 0.
///
/// # Errors
/// With what it printed, when it does not.
pub fn succeed(command: &mut Command) -> Result<()> {
    let output = run(command)?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        bail!(anyhow!("{command:?} failed ({}): {}", output.status, text.trim()));
    }
    Ok(())
}

fn is_there(tool: &str) -> bool {
    // Not every one of them knows a harmless option; that it can be started is enough.
    let started = Command::new(tool).arg("--help").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    started.is_ok()
}
