//! A collector in a process of its own.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use super::Folder;

/// A collector to be killed, or whose memory is measured.
pub(crate) struct Process {
    pub(crate) child: Child,
    pub(crate) address: SocketAddr,
}

impl Process {
    /// `more` is appended to its configuration.
    pub(crate) fn start(folder: &Folder, bootstrap: &str, more: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_spillway-collector"))
            .args(["run", "--config"])
            .arg(folder.config(bootstrap, more))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let ready = lines.find_map(|line| line.ok().filter(|line| line.contains("event=\"ready\""))).expect("it becomes ready");
        let address = ready.split("listen=").nth(1).unwrap().split_whitespace().next().unwrap().parse().unwrap();
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, address }
    }

    /// Forgets how much memory it had at most.
    pub(crate) fn reset_peak(&self) {
        std::fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5").unwrap();
    }

    /// Resident memory in bytes: now (`VmRSS`), or at most since [`Self::reset_peak`] (`VmHWM`).
    pub(crate) fn memory(&self, what: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(what)).unwrap();
        1024 * line.trim_start_matches(':').trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}
