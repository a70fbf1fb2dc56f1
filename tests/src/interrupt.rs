//! Ctrl-C: whatever the lab is doing ends, and nothing stays behind.

use anyhow::{Context as _, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{notice, reaper};

/// The exit code of a program ended by SIGINT, as shells have it.
const EXIT_INTERRUPTED: i32 = 130;

/// From now on SIGINT, SIGTERM and SIGHUP kill what the lab has started, remove its temporary files and end it.
///
/// # Errors
/// When no thread or signal handler can be had.
pub fn install() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start a runtime")?;
    let signals = {
        let _context = runtime.enter();
        Signals::new().context("cannot handle signals")?
    };
    std::thread::Builder::new().name("interrupt".to_owned()).spawn(move || {
        runtime.block_on(signals.any());
        notice::tell("\nlab: interrupted, cleaning up");
        reaper::finish();
        std::process::exit(EXIT_INTERRUPTED);
    })?;
    Ok(())
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    async fn any(mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hang_up.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::io::{BufRead as _, BufReader};
    use std::process::{Command, Stdio};
    use std::time::Duration;

    use rustix::process::{Pid, Signal as Sent, kill_process};

    use super::*;
    use crate::wait::poll_until;

    /// Far more than a process needs to end on a busy machine.
    const LIMIT: Duration = Duration::from_secs(120);

    /// Said by the program below when it can be interrupted.
    const INSTALLED: &str = "installed";

    /// The program that the test interrupts, a process of its own.
    #[test]
    #[ignore = "waits until it is interrupted; another test runs it"]
    fn waits_to_be_interrupted() {
        install().unwrap();
        println!("{INSTALLED}");
        loop {
            std::thread::park();
        }
    }

    #[test]
    fn the_lab_ends_when_nobody_reads_what_it_says() {
        for signal in [Sent::HUP, Sent::TERM] {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.args(["interrupt::tests::waits_to_be_interrupted", "--exact", "--ignored", "--nocapture"]);
            let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            // As of a terminal that is closed, or of `| head`.
            drop(child.stderr.take());
            let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
            assert!(lines.any(|line| line.unwrap() == INSTALLED));
            drop(lines);
            kill_process(Pid::from_child(&child), signal).unwrap();
            let ended = poll_until(LIMIT, || Ok(child.try_wait()?)).unwrap();
            if ended.is_none() {
                child.kill().unwrap();
                child.wait().unwrap();
            }
            assert_eq!(ended.map(|status| status.code()), Some(Some(EXIT_INTERRUPTED)), "{signal:?}");
        }
    }
}
