//! Orders over a Unix socket: one a line, each answered by lines and an empty one. An answer to what went wrong begins with `error: `.

use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Error, Result, anyhow, bail};

use super::End;
use super::order::Order;
use super::pump::Shared;
use crate::reaper::Reaper;

/// Bytes of an order, at most.
const ORDER_BYTES_MAX: u64 = 4096;

/// How long a client may think about its next order before others have their turn.
const CLIENT_LIMIT: Duration = Duration::from_secs(5);

/// Asks for the process that holds a namespace; for `./lab wan exec`.
const PID: &str = "pid";

/// Begins an answer to what went wrong.
const ERROR: &str = "error: ";

/// The socket of a running WAN. Dropping it removes it; the thread that listens ends with the process.
#[derive(Debug)]
pub struct Control {
    path: PathBuf,
}

impl Control {
    pub(super) fn start(path: &Path, shared: Arc<Shared>, pids: [u32; 2]) -> Result<Self> {
        if UnixStream::connect(path).is_ok() {
            bail!("a WAN is up already, its socket is {}", path.display());
        }
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", path.display()));
            }
            _ => {}
        }
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir)?;
        }
        let listener = UnixListener::bind(path).with_context(|| format!("cannot listen at {}", path.display()))?;
        Reaper::global()?.remove_at_end(path)?;
        std::thread::Builder::new().name("wan-control".to_owned()).spawn(move || {
            for client in listener.incoming().flatten() {
                // A client that goes away in the middle has what it wants.
                let _served = serve(&client, &shared, pids);
            }
        })?;
        Ok(Self { path: path.to_owned() })
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.path));
    }
}

/// Sends one order to the WAN whose socket is at `path`, and answers its answer.
///
/// # Errors
/// When no WAN is up, or it refuses the order.
pub fn ask(path: &Path, order: &str) -> Result<String> {
    let mut stream = UnixStream::connect(path).map_err(|error| away(path, &error))?;
    writeln!(stream, "{}", order.replace('\n', " "))?;
    let mut answer = String::new();
    for line in BufReader::new(stream).lines() {
        let line = line.context("the WAN is gone")?;
        if line.is_empty() {
            break;
        }
        answer.push_str(&line);
        answer.push('\n');
    }
    match answer.strip_prefix(ERROR) {
        Some(error) => bail!("{}", error.trim_end()),
        None => Ok(answer.trim_end().to_owned()),
    }
}

/// Why no WAN answers at `path`.
fn away(path: &Path, error: &std::io::Error) -> Error {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
            anyhow!("no WAN is up: nothing listens at {}; `./lab wan up` starts one", path.display())
        }
        ErrorKind::PermissionDenied => {
            anyhow!("a WAN may be up, but {} is for root, as the WAN is: try again with sudo", path.display())
        }
        _ => anyhow!("the WAN at {} does not answer: {error}", path.display()),
    }
}

/// The process that holds the namespace of `end`.
///
/// # Errors
/// As of [`ask`].
pub fn pid(path: &Path, end: End) -> Result<u32> {
    ask(path, &format!("{PID} {}", end.name()))?.parse().context("the WAN answers something else")
}

fn serve(client: &UnixStream, shared: &Shared, pids: [u32; 2]) -> Result<()> {
    client.set_read_timeout(Some(CLIENT_LIMIT))?;
    let mut reader = BufReader::new(client);
    loop {
        let mut line = String::new();
        if reader.by_ref().take(ORDER_BYTES_MAX).read_line(&mut line)? == 0 {
            return Ok(());
        }
        let answer = match answer(line.trim(), shared, pids) {
            Ok(answer) => answer,
            Err(error) => format!("{ERROR}{error:#}"),
        };
        writeln!(&mut &*client, "{}\n", answer.trim_end())?;
    }
}

fn answer(line: &str, shared: &Shared, [edge, centre]: [u32; 2]) -> Result<String> {
    match line.strip_prefix(PID).map(str::trim) {
        Some("edge") => Ok(edge.to_string()),
        Some("centre") => Ok(centre.to_string()),
        _ => {
            let order: Order = line.parse()?;
            shared.with(|link, now| link.order(now, &order))
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn without_a_wan_it_is_told_how_to_get_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wan.sock");
        let none = format!("no WAN is up: nothing listens at {}; `./lab wan up` starts one", path.display());
        assert_eq!(format!("{:#}", ask(&path, "counters").unwrap_err()), none);
        // Left over by a WAN that was killed.
        drop(UnixListener::bind(&path).unwrap());
        assert_eq!(format!("{:#}", ask(&path, "counters").unwrap_err()), none);
        let denied = away(&path, &ErrorKind::PermissionDenied.into()).to_string();
        assert!(denied.contains("is for root") && denied.ends_with("with sudo"), "{denied}");
    }
}
