//! Ctrl-C: whatever the lab is doing ends, and nothing stays behind.

use anyhow::{Context as _, Result};
use tokio::signal::unix::{SignalKind, signal};

use crate::reaper;

/// The exit code of a program ended by SIGINT, as shells have it.
const EXIT_INTERRUPTED: i32 = 130;

/// From now on SIGINT, SIGTERM and SIGHUP kill what the lab has started, remove its temporary files and end it.
///
/// # Errors
/// When no thread or signal handler can be had.
pub fn install() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start a runtime")?;
    std::thread::Builder::new().name("interrupt".to_owned()).spawn(move || {
        if runtime.block_on(any_signal()).is_ok() {
            eprintln!("\nlab: interrupted, cleaning up");
            reaper::finish();
            std::process::exit(EXIT_INTERRUPTED);
        }
    })?;
    Ok(())
}

async fn any_signal() -> std::io::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hang_up.recv() => {}
    }
    Ok(())
}
