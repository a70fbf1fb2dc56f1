//! One TCP connection of the kernel's.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rand::RngCore as _;
use rustix::net::sockopt::set_tcp_congestion;

use super::figures::Sums;
use super::{Course, watch};
use crate::bench::peer::Congestion;
use crate::wan::congestion::missing;
use crate::wan::{End, Wan};

const BUFFER_BYTES: usize = 64 * 1024;

/// Sends with the congestion control of that name.
///
/// # Errors
/// When the two do not connect, or the kernel lacks the congestion control.
pub fn run(course: &Course<'_>, congestion: Congestion) -> Result<Sums> {
    let received = Arc::new(AtomicU64::new(0));
    let (mut sending, mut receiving) = pair(course.wan, congestion)?;
    let (edge, centre) = (sending.try_clone()?, receiving.try_clone()?);

    let mut bytes = vec![0; BUFFER_BYTES];
    rand::rng().fill_bytes(&mut bytes);
    let count = Arc::clone(&received);
    let reader = std::thread::spawn(move || {
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            match receiving.read(&mut buffer) {
                Ok(0) => return,
                Ok(bytes) => _ = count.fetch_add(u64::try_from(bytes).unwrap_or(0), Ordering::Relaxed),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    });
    // Ends with the connection.
    let writer = std::thread::spawn(move || while sending.write_all(&bytes).is_ok() {});
    let sums = watch(course, || received.load(Ordering::Relaxed), || round_trip(course.wan));
    for stream in [&edge, &centre] {
        drop(stream.shutdown(Shutdown::Both));
    }
    drop((reader.join(), writer.join()));
    Ok(sums)
}

/// Both ends of a connection from the edge to the centre.
///
/// # Errors
/// When the two do not connect, or the kernel lacks the congestion control.
pub(crate) fn pair(wan: &Wan, congestion: Congestion) -> Result<(TcpStream, TcpStream)> {
    let congestion = congestion.name();
    let listener = wan.inside(End::Centre, || {
        let listener = TcpListener::bind((End::Centre.address(), 0))?;
        // An accepted connection has that of its listener. It matters for the sender only, but a test of the kernel costs nothing.
        set_tcp_congestion(&listener, congestion).with_context(|| missing(congestion))?;
        Ok(listener)
    })?;
    let to = listener.local_addr()?;
    let sending = wan.inside(End::Edge, || Ok(TcpStream::connect(to)?))?;
    set_tcp_congestion(&sending, congestion)?;
    sending.set_nodelay(true)?;
    let (receiving, _) = listener.accept()?;
    Ok((sending, receiving))
}

/// The kernel's smoothed round trip of the only connection at the edge.
fn round_trip(wan: &Wan) -> Option<Duration> {
    let output = wan.run(End::Edge, Command::new("ss").args(["-tinH", "state", "established"])).ok()?;
    smoothed(&String::from_utf8_lossy(&output.stdout))
}

/// `rtt:SMOOTHED/VARIATION` in milliseconds, as `ss -i` prints it.
fn smoothed(text: &str) -> Option<Duration> {
    let value = text.split_whitespace().find_map(|word| word.strip_prefix("rtt:"))?;
    let millis: f64 = value.split('/').next()?.parse().ok()?;
    Duration::try_from_secs_f64(millis / 1e3).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_round_trip_is_found_in_what_ss_prints() {
        let text = "0 181344 10.93.0.2:44208 10.93.0.1:38243\n\t cubic wscale:7,7 rto:504 rtt:303.128/1.5 mss:1448 minrtt:300.1\n";
        assert_eq!(smoothed(text), Some(Duration::from_micros(303_128)));
        assert_eq!(smoothed("minrtt:3"), None);
    }
}
