//! sled panics on damaged files and may panic when the disk fails. Here that becomes an error.
//!
//! This needs unwinding: a program built with `panic = "abort"` would end.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// How long sled may take to open or close a generation, which it does in milliseconds. Then its thread is left alone and the generation is read
/// without it.
const PATIENCE: Duration = Duration::from_secs(4);

/// Does `work` on a thread of its own, where it may panic or hang.
pub(crate) fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    let (done, outcome) = mpsc::sync_channel(1);
    let run = move || {
        // Nobody waits any more when it took too long.
        drop(done.send(caught(work)));
    };
    thread::Builder::new().name("sled".to_owned()).spawn(run).map_err(|error| format!("no thread: {error}"))?;
    outcome.recv_timeout(PATIENCE).map_err(|_| format!("no answer within {PATIENCE:?}"))?
}

/// Does `work` here and turns a panic into its text.
pub(crate) fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    // What the work was about is given up after a panic, so that nothing half-done is seen.
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
        format!("panicked: {}", text.unwrap_or_default())
    })
}
