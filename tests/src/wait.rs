//! Waiting for something to become true, with a limit.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Pause between two looks. Short enough not to be seen in a test's duration, long enough to cost no CPU.
pub const POLL: Duration = Duration::from_millis(50);

/// Looks until `probe` returns a value, at most for `limit`. `Ok(None)` means that the limit passed.
///
/// # Errors
/// The first error of `probe`.
pub fn poll_until<T>(limit: Duration, mut probe: impl FnMut() -> Result<Option<T>>) -> Result<Option<T>> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = probe()? {
            return Ok(Some(value));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        std::thread::sleep(POLL);
    }
}

/// Waits until `probe` says true.
///
/// # Errors
/// The first error of `probe`, or that `what` was not so within `limit`.
pub fn wait_until(what: &str, limit: Duration, mut probe: impl FnMut() -> Result<bool>) -> Result<()> {
    match poll_until(limit, || Ok(probe()?.then_some(())))? {
        Some(()) => Ok(()),
        None => bail!("not so within {limit:?}: {what}"),
    }
}
