#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::Instant;

use super::*;
use crate::wait::wait_until;

fn echo_server(mark: u8) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 100];
        while let Ok((len, from)) = socket.recv_from(&mut buffer) {
            let mut answer = buffer[..len].to_vec();
            answer.push(mark);
            answer.extend(from.port().to_be_bytes());
            socket.send_to(&answer, from).unwrap();
        }
    });
    address
}

fn client(relay: &Relay) -> UdpSocket {
    let agent = UdpSocket::bind("127.0.0.1:0").unwrap();
    agent.connect(relay.address()).unwrap();
    agent
}

/// Until an answer that is expected, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// For an answer that is not: on loopback it takes a thousandth of this.
const SILENCE: Duration = Duration::from_millis(300);

/// What comes back, and the port from which the server was asked.
fn ask(socket: &UdpSocket, text: &[u8], patience: Duration) -> Option<(Vec<u8>, u16)> {
    let mut buffer = [0; 100];
    socket.set_read_timeout(Some(patience)).unwrap();
    socket.send(text).unwrap();
    let len = socket.recv(&mut buffer).ok()?;
    let (answer, port) = buffer[..len].split_last_chunk().unwrap();
    Some((answer.to_vec(), u16::from_be_bytes(*port)))
}

fn answer(socket: &UdpSocket, text: &[u8]) -> Vec<u8> {
    ask(socket, text, PATIENCE).unwrap().0
}

fn is_silent(socket: &UdpSocket, text: &[u8]) -> bool {
    ask(socket, text, SILENCE).is_none()
}

#[test]
fn packets_pass_stop_at_a_cut_wait_and_change_target() {
    let relay = Relay::start(echo_server(b'A')).unwrap();
    let agent = client(&relay);
    assert_eq!(answer(&agent, b"one"), b"oneA");
    assert_eq!(relay.traffic(), Traffic { up_bytes: 31, down_bytes: 34, ..Traffic::default() });

    relay.set_cut(true);
    assert!(is_silent(&agent, b"two"));
    assert_eq!(relay.traffic().cut_packets, 1);
    relay.set_cut(false);

    relay.set_delay(Duration::from_millis(40));
    let asked = Instant::now();
    assert_eq!(answer(&agent, b"three"), b"threeA");
    assert!(asked.elapsed() >= Duration::from_millis(80));

    relay.set_target(echo_server(b'B'));
    assert_eq!(answer(&agent, b"four"), b"fourB");
}

#[test]
fn each_direction_is_cut_alone() {
    let relay = Relay::start(echo_server(b'A')).unwrap();
    let agent = client(&relay);
    relay.cut_direction(Direction::Down, true);
    assert!(is_silent(&agent, b"one"));
    let seen = relay.traffic();
    assert_eq!((seen.up_bytes, seen.down_bytes, seen.cut_packets, seen.cut_up_bytes), (31, 0, 1, 0));
    relay.cut_direction(Direction::Down, false);
    relay.cut_direction(Direction::Up, true);
    assert!(is_silent(&agent, b"two"));
    let seen = relay.traffic();
    assert_eq!((seen.up_bytes, seen.down_bytes, seen.cut_packets, seen.cut_up_bytes), (31, 0, 2, 31));
}

#[test]
fn a_changed_source_is_another_port_to_the_same_target() {
    let relay = Relay::start(echo_server(b'A')).unwrap();
    let agent = client(&relay);
    let (_, before) = ask(&agent, b"one", PATIENCE).unwrap();
    relay.change_source();
    let (text, after) = ask(&agent, b"two", PATIENCE).unwrap();
    assert_eq!(text, b"twoA");
    assert_ne!(before, after);
}

#[test]
fn weather_loses_doubles_reorders_and_damages_packets() {
    let only = |weather| {
        let relay = Relay::start(echo_server(b'A')).unwrap();
        relay.shared.up.set_weather(weather, 1);
        let agent = client(&relay);
        let patience = if weather.lost == 0 { PATIENCE } else { SILENCE };
        let [first, second] = [b"one", b"two"].map(|text| ask(&agent, text, patience).map(|(answer, _)| answer));
        // The answer to a copy may be here before the relay has met the next packet.
        let met = |seen: &Traffic| seen.lost_packets + seen.doubled_packets + seen.reordered_packets + seen.corrupted_packets;
        wait_until("both packets are met", Duration::from_secs(30), || Ok(met(&relay.traffic()) >= 2)).unwrap();
        (first, second, relay.traffic())
    };
    let always = 1000;
    let (first, second, seen) = only(Weather { lost: always, ..Weather::default() });
    assert_eq!((first, second, seen.lost_packets), (None, None, 2));
    let (first, second, seen) = only(Weather { doubled: always, ..Weather::default() });
    assert_eq!((first, second, seen.doubled_packets), (Some(b"oneA".to_vec()), Some(b"oneA".to_vec()), 2), "the copy comes first");
    let (first, _, seen) = only(Weather { corrupted: always, ..Weather::default() });
    assert!(first.is_some_and(|text| text.len() == 4 && text != b"oneA") && seen.corrupted_packets == 2);
    let asked = Instant::now();
    let (first, second, seen) = only(Weather { reordered: always, ..Weather::default() });
    assert_eq!((first, second, seen.reordered_packets), (Some(b"oneA".to_vec()), Some(b"twoA".to_vec()), 2));
    assert!(asked.elapsed() >= 2 * weather::HOLD_BACK_MIN);
}
