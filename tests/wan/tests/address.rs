//! The edge's address is translated, and every sum is right afterwards.

use std::net::Ipv4Addr;

use rand::rngs::StdRng;
use rand::{Rng as _, RngCore as _, SeedableRng as _};
use spillway_wan::address::{Masquerade, PORTS};

const EDGE: Ipv4Addr = Ipv4Addr::new(10, 93, 0, 2);
const CENTRE: Ipv4Addr = Ipv4Addr::new(10, 93, 0, 1);
const OTHER: Ipv4Addr = Ipv4Addr::new(10, 93, 1, 2);
const TCP: u8 = 6;
const UDP: u8 = 17;

/// The sum of RFC 1071 over whole words; 0 where the words hold their own right sum.
fn sum(words: impl Iterator<Item = u8>) -> u16 {
    let bytes: Vec<u8> = words.collect();
    let mut total: u32 = bytes.chunks(2).map(|two| u32::from(two[0]) << 8 | two.get(1).map_or(0, |low| u32::from(*low))).sum();
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    !u16::try_from(total).unwrap_or(0)
}

fn pseudo(packet: &[u8]) -> Vec<u8> {
    let header_bytes = usize::from(packet[0] & 15) * 4;
    let body = &packet[header_bytes..];
    let mut all = packet[12..20].to_vec();
    all.extend([0, packet[9]]);
    all.extend(u16::try_from(body.len()).unwrap_or(0).to_be_bytes());
    all.extend(body);
    all
}

fn right(packet: &[u8]) -> bool {
    let header_bytes = usize::from(packet[0] & 15) * 4;
    sum(packet[..header_bytes].iter().copied()) == 0 && sum(pseudo(packet).into_iter()) == 0
}

fn packet(protocol: u8, from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), options: usize, body: &[u8]) -> Vec<u8> {
    let header_bytes = 20 + options * 4;
    let mut packet = vec![0; header_bytes];
    packet[0] = 0x40 | u8::try_from(header_bytes / 4).unwrap_or(5);
    packet[9] = protocol;
    packet[12..16].copy_from_slice(&from.0.octets());
    packet[16..20].copy_from_slice(&to.0.octets());
    let own = sum(packet.iter().copied()).to_be_bytes();
    packet[10..12].copy_from_slice(&own);
    packet.extend(from.1.to_be_bytes());
    packet.extend(to.1.to_be_bytes());
    packet.extend(if protocol == TCP { vec![0; 16] } else { vec![0; 4] });
    packet.extend(body);
    let at = header_bytes + if protocol == TCP { 16 } else { 6 };
    let own = match sum(pseudo(&packet).into_iter()) {
        0 if protocol == UDP => 0xffff,
        own => own,
    };
    packet[at..at + 2].copy_from_slice(&own.to_be_bytes());
    packet
}

fn port(packet: &[u8], at: usize) -> u16 {
    let header_bytes = usize::from(packet[0] & 15) * 4;
    u16::from_be_bytes([packet[header_bytes + at], packet[header_bytes + at + 1]])
}

#[test]
fn there_and_back_again_with_right_sums() {
    let seed = rand::rng().next_u64();
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut masquerade = Masquerade::none(EDGE);
    for round in 0..20_000_u16 {
        if round % 100 == 50 {
            masquerade.set_outside(Ipv4Addr::from(rng.next_u32()));
        }
        if round % 100 == 75 {
            masquerade.shift_ports();
        }
        let protocol = if rng.random() { TCP } else { UDP };
        let mut body = vec![0; rng.random_range(0..40)];
        rng.fill_bytes(&mut body);
        let own_port = rng.random();
        let before = packet(protocol, (EDGE, own_port), (CENTRE, 4433), rng.random_range(0..4), &body);
        assert!(right(&before));
        let mut out = before.clone();
        masquerade.to_centre(&mut out);
        assert!(right(&out), "round {round}: {before:02x?} became {out:02x?}");
        assert_eq!(out[12..16], masquerade.outside().octets());

        let answer = packet(protocol, (CENTRE, 4433), (masquerade.outside(), port(&out, 0)), 0, &body);
        let mut back = answer.clone();
        assert!(masquerade.to_edge(&mut back));
        assert!(right(&back));
        assert_eq!((&back[16..20], port(&back, 2)), (&EDGE.octets()[..], own_port));
    }
}

#[test]
fn ports_of_connections_move_and_those_of_servers_stay() {
    let mut masquerade = Masquerade::none(EDGE);
    let before = packet(UDP, (EDGE, 40_000), (CENTRE, 4433), 0, b"x");
    let mut same = before.clone();
    masquerade.to_centre(&mut same);
    assert_eq!(same, before);
    masquerade.shift_ports();
    let seen: std::collections::BTreeSet<u16> = PORTS
        .map(|own| {
            let mut out = packet(UDP, (EDGE, own), (CENTRE, 4433), 0, b"x");
            masquerade.to_centre(&mut out);
            assert_ne!(port(&out, 0), own);
            port(&out, 0)
        })
        .collect();
    assert!(seen.into_iter().eq(PORTS), "no two connections have the same port");
    let mut server = packet(TCP, (EDGE, 9092), (CENTRE, 45_000), 0, b"x");
    masquerade.to_centre(&mut server);
    assert_eq!((port(&server, 0), port(&server, 2)), (9092, 45_000));
}

#[test]
fn what_is_for_a_former_address_is_for_nobody() {
    let mut masquerade = Masquerade::none(EDGE);
    let mut answer = packet(UDP, (CENTRE, 4433), (EDGE, 40_000), 0, b"x");
    assert!(masquerade.to_edge(&mut answer));
    masquerade.set_outside(OTHER);
    assert!(!masquerade.to_edge(&mut answer));
}

#[test]
fn no_sum_stays_none_and_later_fragments_and_rubbish_keep_their_bytes() {
    let mut masquerade = Masquerade::none(EDGE);
    masquerade.set_outside(OTHER);
    masquerade.shift_ports();
    let mut without = packet(UDP, (EDGE, 40_000), (CENTRE, 1), 0, b"x");
    without[26..28].copy_from_slice(&[0, 0]);
    masquerade.to_centre(&mut without);
    assert_eq!((&without[26..28], &without[12..16]), (&[0, 0][..], &OTHER.octets()[..]));
    let mut later = packet(UDP, (EDGE, 40_000), (CENTRE, 1), 0, b"rest of a datagram");
    later[7] = 100;
    let body = later[20..].to_vec();
    masquerade.to_centre(&mut later);
    assert_eq!((&later[20..], &later[12..16]), (&body[..], &OTHER.octets()[..]));

    let seed = rand::rng().next_u64();
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    for _ in 0..20_000 {
        let mut rubbish = vec![0; rng.random_range(0..64)];
        rng.fill_bytes(&mut rubbish);
        if let Some(place) = rubbish.get_mut(12..16) {
            place.copy_from_slice(&EDGE.octets());
        }
        masquerade.to_centre(&mut rubbish);
        let _meant = masquerade.to_edge(&mut rubbish);
    }
}
