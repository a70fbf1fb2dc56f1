//! Telling the world that we serve: the `ready` line, and systemd's protocol for services of `Type=notify`.
//!
//! The protocol is one datagram of `KEY=value` lines to the socket named by `NOTIFY_SOCKET` (sd_notify(3)). Without that variable
//! nothing is sent.

use std::{env, io, net::SocketAddr, os::unix::net::UnixDatagram, path::Path, time::Duration};

/// Logs the one `ready` line (log field `event="ready"`) and tells systemd. Call when serving, once.
///
/// `program` is the command's name, `admin` the address of the admin endpoint, `listen` that of the data plane, if it listens.
pub fn ready(program: &'static str, admin: Option<SocketAddr>, listen: Option<SocketAddr>) {
    let address = |address: Option<SocketAddr>| address.map(tracing::field::display);
    tracing::info!(event = "ready", program, admin = address(admin), listen = address(listen), "ready");
    send("READY=1");
}

/// Tells systemd that the drain has begun.
pub fn stopping() {
    send("STOPPING=1");
}

/// Tells systemd that we are alive; to be called at half of [`watchdog_interval`], and only while data moves or nothing is to move.
pub fn watchdog() {
    send("WATCHDOG=1");
}

/// The time after which systemd takes our silence for a hang (`WatchdogSec=`); `None`: it does not watch this process.
pub fn watchdog_interval() -> Option<Duration> {
    interval(env::var("WATCHDOG_USEC").ok().as_deref(), env::var("WATCHDOG_PID").ok().as_deref(), std::process::id())
}

fn interval(microseconds: Option<&str>, pid: Option<&str>, own: u32) -> Option<Duration> {
    if pid.is_some_and(|pid| pid.parse() != Ok(own)) {
        return None;
    }
    microseconds?.parse().ok().filter(|microseconds| *microseconds > 0).map(Duration::from_micros)
}

/// A service manager that does not listen is its own problem: it will say that the service is not ready.
fn send(state: &str) {
    let Some(socket) = env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(error) = send_to(Path::new(&socket), state) {
        tracing::warn!(?socket, state, %error, "cannot notify the service manager");
    }
}

fn send_to(socket: &Path, state: &str) -> io::Result<()> {
    let datagram = UnixDatagram::unbound()?;
    match socket.as_os_str().as_encoded_bytes().strip_prefix(b"@") {
        #[cfg(target_os = "linux")]
        Some(name) => {
            use std::os::{linux::net::SocketAddrExt, unix::net::SocketAddr};
            datagram.send_to_addr(state.as_bytes(), &SocketAddr::from_abstract_name(name)?)?;
        }
        _ => {
            datagram.send_to(state.as_bytes(), socket)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn received(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 64];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    #[test]
    fn systemd_hears_us_on_a_path_and_on_an_abstract_name() {
        let dir = env::temp_dir().join(format!("spillway-notify-{}", std::process::id()));
        let listener = UnixDatagram::bind(&dir).unwrap();
        send_to(&dir, "READY=1").unwrap();
        assert_eq!(received(&listener), "READY=1");
        std::fs::remove_file(&dir).unwrap();

        use std::os::{linux::net::SocketAddrExt, unix::net::SocketAddr};
        let name = format!("spillway-notify-{}", std::process::id());
        let listener = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        send_to(Path::new(&format!("@{name}")), "WATCHDOG=1").unwrap();
        assert_eq!(received(&listener), "WATCHDOG=1");
    }

    #[test]
    fn the_watchdog_is_for_us_only() {
        assert_eq!(interval(Some("30000000"), Some("7"), 7), Some(Duration::from_secs(30)));
        assert_eq!(interval(Some("30000000"), None, 7), Some(Duration::from_secs(30)));
        assert_eq!(interval(Some("30000000"), Some("8"), 7), None);
        assert_eq!(interval(Some("0"), None, 7), None);
        assert_eq!(interval(Some("soon"), None, 7), None);
        assert_eq!(interval(None, None, 7), None);
    }
}
