//! The WAN on this machine: TCP and UDP pass, the line is as ordered, outages and changes of address happen. Needs root, so these tests are run by
//! `./lab test`, as a step of its own, or with `cargo test -p spillway-lab --test wan -- --ignored --test-threads=1`.
//!
//! What is asserted about time holds on any machine, however slow: nothing comes earlier, or faster, than the line allows.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod quic;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Result;
use spillway_lab::wait::wait_until;
use spillway_lab::wan::order::Direction;
use spillway_lab::wan::{End, Wan, control};

/// Far more than anything here takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

fn wan() -> Wan {
    let seed = rand::random();
    println!("seed {seed}");
    Wan::start(seed).expect("a WAN")
}

/// A UDP socket at each end, the edge's connected to the centre's.
fn sockets(wan: &Wan) -> (UdpSocket, UdpSocket) {
    let centre = wan.inside(End::Centre, || Ok(UdpSocket::bind((End::Centre.address(), 0))?)).unwrap();
    let to = centre.local_addr().unwrap();
    let edge = wan.inside(End::Edge, || Ok(UdpSocket::bind((End::Edge.address(), 0))?)).unwrap();
    edge.connect(to).unwrap();
    for socket in [&edge, &centre] {
        socket.set_read_timeout(Some(LIMIT)).unwrap();
    }
    (edge, centre)
}

/// One datagram there and one back; answers how the centre saw the edge.
fn round_trip(edge: &UdpSocket, centre: &UdpSocket) -> SocketAddr {
    let mut buffer = [0; 100];
    edge.send(b"there").unwrap();
    let (bytes, from) = centre.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..bytes], b"there");
    centre.send_to(b"and back", from).unwrap();
    let bytes = edge.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..bytes], b"and back");
    from
}

/// Sends `bytes` from the edge to the centre over one TCP connection, and waits until all are there.
fn transfer(wan: &Wan, bytes: usize) -> Result<()> {
    let listener = wan.inside(End::Centre, || Ok(TcpListener::bind((End::Centre.address(), 0))?))?;
    let to = listener.local_addr()?;
    let reader = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        stream.write_all(b"!").unwrap();
        all
    });
    let sent: Vec<u8> = (0..bytes).map(|place| u8::try_from(place % 251).unwrap()).collect();
    wan.inside(End::Edge, || {
        let mut stream = TcpStream::connect(to)?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.write_all(&sent)?;
        stream.shutdown(std::net::Shutdown::Write)?;
        stream.read_exact(&mut [0])?;
        Ok(())
    })?;
    assert_eq!(reader.join().unwrap(), sent);
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn tcp_and_udp_pass_and_are_counted() {
    let wan = wan();
    let (edge, centre) = sockets(&wan);
    assert_eq!(round_trip(&edge, &centre), edge.local_addr().unwrap());
    let counters = wan.counters();
    // 20 bytes of IPv4 and 8 of UDP before each.
    assert_eq!((counters.to_centre.delivered.bytes, counters.to_edge.delivered.bytes), (28 + 5, 28 + 8));
    transfer(&wan, 1_000_000).unwrap();
    let counters = wan.counters();
    assert!((1_000_000..1_200_000).contains(&counters.to_centre.delivered.bytes), "{counters:?}");
    assert_eq!(counters.to_centre.dropped().packets, 0);
    // Not on the link: each end has a loopback, and ports, of its own.
    let inside = |end| wan.inside(end, || Ok(TcpListener::bind("127.0.0.1:29092")?)).unwrap();
    let _both = (inside(End::Edge), inside(End::Centre));
}

#[test]
#[ignore = "needs root"]
fn tcp_has_the_congestion_control_that_was_ordered_at_both_ends() {
    let wan = wan();
    for name in ["reno", "cubic"] {
        wan.set_tcp_congestion(name).unwrap();
        let listener = wan.inside(End::Centre, || Ok(TcpListener::bind((End::Centre.address(), 0))?)).unwrap();
        let to = listener.local_addr().unwrap();
        let _edge = wan.inside(End::Edge, || Ok(TcpStream::connect(to)?)).unwrap();
        let _centre = listener.accept().unwrap();
        for end in [End::Edge, End::Centre] {
            assert_eq!(congestions(&wan, end, to.port()), [name], "{end:?}");
        }
    }
    let error = format!("{:#}", wan.set_tcp_congestion("none-such").unwrap_err());
    assert!(error.starts_with("this kernel has no TCP congestion control \"none-such\" (modprobe tcp_none-such)"), "{error}");
}

fn congestions(wan: &Wan, end: End, port: u16) -> Vec<String> {
    wan.tcp_congestions(end, port).unwrap().into_iter().collect()
}

#[test]
#[ignore = "needs root"]
fn one_port_has_a_congestion_control_of_its_own() {
    let wan = wan();
    wan.set_tcp_congestion("cubic").unwrap();
    let listeners = [0, 1].map(|_| wan.inside(End::Centre, || Ok(TcpListener::bind((End::Centre.address(), 0))?)).unwrap());
    let [common, own] = listeners.each_ref().map(|listener| listener.local_addr().unwrap());
    wan.set_tcp_congestion_to(own.port(), "reno").unwrap();
    let _edge = [common, own].map(|to| wan.inside(End::Edge, || Ok(TcpStream::connect(to)?)).unwrap());
    let _centre = listeners.each_ref().map(|listener| listener.accept().unwrap());
    for end in [End::Edge, End::Centre] {
        assert_eq!([congestions(&wan, end, common.port()), congestions(&wan, end, own.port())], [["cubic"], ["reno"]], "{end:?}");
    }
}

#[test]
#[ignore = "needs root"]
fn blocked_udp_does_not_pass_and_tcp_does() {
    let wan = wan();
    let (edge, centre) = sockets(&wan);
    wan.tell("udp off").unwrap();
    edge.send(b"in vain").unwrap();
    wait_until("it is counted", LIMIT, || Ok(wan.counters().blocked.packets == 1)).unwrap();
    transfer(&wan, 100_000).unwrap();
    wan.tell("udp on").unwrap();
    round_trip(&edge, &centre);
}

#[test]
#[ignore = "needs root"]
fn the_rate_is_never_passed_and_the_queue_drops_its_tail() {
    let wan = wan();
    wan.tell("to-centre rate 1Mbit queue 20kB").unwrap();
    let (edge, _centre) = sockets(&wan);
    let started = Instant::now();
    for _ in 0..2000 {
        edge.send(&[0; 1000]).unwrap();
    }
    wait_until("all packets are counted", LIMIT, || Ok(wan.counters().to_centre.offered.packets == 2000)).unwrap();
    let (counters, most_ms) = (wan.counters().to_centre, u64::try_from(started.elapsed().as_millis()).unwrap());
    // 125 bytes a millisecond, what waits, and a packet being sent.
    assert!(counters.carried().bytes <= most_ms * 125 + 20_000 + 1_100, "{counters:?} in {most_ms} ms");
    assert!(counters.overflowed.packets > 0, "{counters:?}");
    assert!(counters.carried().packets >= 19, "{counters:?}");

    wan.tell("to-centre queue 1MB").unwrap();
    let started = Instant::now();
    transfer(&wan, 100_000).unwrap();
    assert!(started.elapsed() >= Duration::from_millis(800), "{:?}", started.elapsed());
}

#[test]
#[ignore = "needs root"]
fn a_packet_is_not_there_before_its_delay() {
    let wan = wan();
    let (edge, centre) = sockets(&wan);
    wan.tell("to-centre delay 100ms").unwrap();
    wan.tell("to-edge delay 200ms jitter 50ms").unwrap();
    let started = Instant::now();
    for _ in 0..3 {
        round_trip(&edge, &centre);
    }
    assert!(started.elapsed() >= Duration::from_millis(900), "{:?}", started.elapsed());
    assert_eq!(wan.shape(Direction::ToEdge).jitter, Duration::from_millis(50));
}

#[test]
#[ignore = "needs root"]
fn as_much_is_lost_as_ordered_and_tcp_arrives_all_the_same() {
    let wan = wan();
    let (edge, _centre) = sockets(&wan);
    for loss in ["10%", "10%/3"] {
        wan.tell(&format!("to-centre loss {loss}")).unwrap();
        let before = wan.counters().to_centre;
        for _ in 0..4000 {
            edge.send(&[0; 100]).unwrap();
        }
        wait_until("all packets are counted", LIMIT, || Ok(wan.counters().to_centre.since(&before).offered.packets == 4000)).unwrap();
        let lost = wan.counters().to_centre.since(&before).lost.packets;
        // 400 expected; in bursts the standard deviation is 42.
        assert!((150..650).contains(&lost), "{lost} of 4000 at {loss}");
    }
    wan.tell("loss 5%").unwrap();
    transfer(&wan, 200_000).unwrap();
}

#[test]
#[ignore = "needs root"]
fn nothing_passes_in_an_outage_and_everything_after_it() {
    let wan = wan();
    let (edge, centre) = sockets(&wan);
    round_trip(&edge, &centre);
    wan.tell("down").unwrap();
    edge.send(b"in vain").unwrap();
    wait_until("it is counted", LIMIT, || Ok(wan.counters().to_centre.down.packets == 1)).unwrap();
    wan.tell("up").unwrap();
    round_trip(&edge, &centre);

    wan.play("0s outage 1s\n1d down".parse().unwrap()).unwrap();
    wait_until("the link is down", LIMIT, || Ok(!wan.shape(Direction::ToEdge).up || wan.counters().to_centre.down.packets > 1)).unwrap();
    wait_until("the link is up again", LIMIT, || Ok(wan.shape(Direction::ToEdge).up)).unwrap();
    round_trip(&edge, &centre);
}

#[test]
#[ignore = "needs root"]
fn another_address_is_seen_and_the_former_one_is_for_nobody() {
    let wan = wan();
    let (edge, centre) = sockets(&wan);
    let before = round_trip(&edge, &centre);
    wan.tell("address next").unwrap();
    let after = round_trip(&edge, &centre);
    assert_eq!((before.ip(), after.ip(), before.port()), (End::Edge.address().into(), "10.93.1.2".parse().unwrap(), after.port()));
    wan.tell("ports next").unwrap();
    assert_ne!(round_trip(&edge, &centre).port(), before.port());
    centre.send_to(b"for nobody", before).unwrap();
    wait_until("it is counted", LIMIT, || Ok(wan.counters().stray.packets == 1)).unwrap();
    // TCP's sums are right as well.
    transfer(&wan, 100_000).unwrap();
}

#[test]
#[ignore = "needs root"]
fn a_quic_connection_goes_on_under_another_address() {
    let wan = wan();
    wan.tell("delay 20ms").unwrap();
    let mut pair = quic::Pair::connect(&wan).unwrap();
    assert_eq!(pair.exchange(b"before").unwrap().ip(), End::Edge.address());
    wan.tell("address next").unwrap();
    assert_eq!(pair.exchange(b"after").unwrap().ip().to_string(), "10.93.1.2");
    wan.tell("ports next").unwrap();
    assert_eq!(pair.exchange(b"other ports").unwrap().ip().to_string(), "10.93.1.2");
}

#[test]
#[ignore = "needs root"]
fn orders_come_over_the_socket_and_programs_run_inside() {
    let wan = wan();
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("wan.sock");
    let refused = |error: &anyhow::Error, told: &str| assert!(format!("{error:#}").contains(told), "{error:#}");
    refused(&control::ask(&socket, "counters").unwrap_err(), "no WAN is up");
    let listening = wan.listen(&socket).unwrap();
    refused(&wan.listen(&socket).unwrap_err(), "is up already");
    control::ask(&socket, "to-edge loss 3%").unwrap();
    assert!((wan.shape(Direction::ToEdge).loss.mean() - 0.03).abs() < 1e-9);
    assert!((wan.shape(Direction::ToCentre).loss.mean()).abs() < 1e-9);
    refused(&control::ask(&socket, "to-edge lose 3%").unwrap_err(), "there are rate, delay");
    let counters = control::ask(&socket, "counters").unwrap();
    // Two lines of headings, one of each direction, and what each is like.
    assert_eq!(counters.lines().count(), 6, "{counters}");
    assert!(counters.contains("loss 3%"), "{counters}");
    assert_eq!(control::pid(&socket, End::Centre).unwrap(), wan.pid(End::Centre));
    drop(listening);
    assert!(!socket.exists());

    for end in [End::Edge, End::Centre] {
        let output = wan.run(end, Command::new("ip").args(["-brief", "-4", "address"])).unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains(&format!("{}/16", end.address())), "{text}");
    }
}
