//! Receiving a packet, and when the kernel had it: a thread that gets no processor for a while takes a packet late, but does not find it late.

use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use nix::sys::socket::sockopt::ReceiveTimestampns;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt};
use nix::sys::time::TimeSpec;

/// A packet that was received.
#[derive(Debug, Clone, Copy)]
pub(super) struct Received {
    pub(super) len: usize,
    pub(super) from: SocketAddr,
    /// By the system's clock, since 1970.
    pub(super) at: Duration,
}

/// Lets the kernel tell when packets arrive at `socket`.
pub(super) fn stamp(socket: &UdpSocket) -> io::Result<()> {
    Ok(setsockopt(socket, ReceiveTimestampns, &true)?)
}

/// Receives from a socket that was given to [`stamp`].
pub(super) fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<Received> {
    let mut control = nix::cmsg_space!(TimeSpec);
    let mut buffers = [IoSliceMut::new(buffer)];
    let message = recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut buffers, Some(&mut control), MsgFlags::empty())?;
    let stamp = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::ScmTimestampns(time) => Some(Duration::from(time)),
        _ => None,
    });
    let from = message.address.as_ref().and_then(|from| from.as_sockaddr_in()).map(|from| SocketAddr::V4((*from).into()));
    let (Some(at), Some(from)) = (stamp, from) else {
        return Err(io::Error::other("a packet without its time, or from nowhere"));
    };
    Ok(Received { len: message.bytes, from, at })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::time::SystemTime;

    use super::*;
    use crate::wait::wait_until;

    fn now() -> Duration {
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap()
    }

    #[test]
    fn a_packet_that_is_taken_late_has_the_time_at_which_it_was_sent() {
        let (there, here) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        stamp(&here).unwrap();
        // The kernel begins with its stamps a little after it was asked for them.
        wait_until("a packet has the time of its sending", Duration::from_secs(30), || {
            let before = now();
            there.send_to(b"late", here.local_addr()?)?;
            let after = now();
            std::thread::sleep(Duration::from_millis(20));
            let mut buffer = [0; 10];
            let Received { len, from, at } = receive(&here, &mut buffer)?;
            assert_eq!((&buffer[..len], from), (&b"late"[..], there.local_addr()?));
            Ok((before..=after).contains(&at))
        })
        .unwrap();
    }
}
