//! sled panics on damaged files and may panic when the disk fails. Here that becomes an error.
//!
//! This needs unwinding: a program built with `panic = "abort"` would end. One that ends at a panic by a hook has to ask
//! [`deals_with_panics_here`].

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// How long sled may take to open or close a generation, which it does in milliseconds. Then its thread is left alone and the generation is read
/// without it.
const PATIENCE: Duration = Duration::from_secs(4);

/// Names of the threads that sled starts begin so: what they have to do is asked for and waited for by callers that are guarded.
const SLED_THREADS: &str = "sled";

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// True where a panic of sled on this thread becomes an error of the store.
pub fn deals_with_panics_here() -> bool {
    GUARDED.get() || thread::current().name().is_some_and(|name| name.starts_with(SLED_THREADS))
}

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
    let before = GUARDED.replace(true);
    // What the work was about is given up after a panic, so that nothing half-done is seen.
    let outcome = catch_unwind(AssertUnwindSafe(work));
    GUARDED.set(before);
    outcome.map_err(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
        format!("panicked: {}", text.unwrap_or_default())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_guarded_may_panic() {
        assert!(!deals_with_panics_here());
        assert_eq!(caught(|| caught(deals_with_panics_here)), Ok(Ok(true)));
        let panicked: Result<(), _> = caught(|| panic!("sled"));
        assert_eq!(panicked, Err("panicked: sled".to_owned()));
        assert!(!deals_with_panics_here());
        assert_eq!(apart(deals_with_panics_here), Ok(true));
    }
}
