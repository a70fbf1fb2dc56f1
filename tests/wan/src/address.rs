//! The edge's address as the centre sees it: a NAT gateway that gives the site another address, or its connections other ports, while they last.
//!
//! IPv4 only. Sums are mended, not made anew (RFC 1624), so a packet that was damaged before stays so. What ICMP errors quote is not rewritten:
//! an error that answers a rewritten packet finds no socket at the edge.

use std::net::Ipv4Addr;

/// Ports whose mapping can move: those that Linux gives to outgoing connections (`ip_local_port_range`). Others are servers', and stay.
pub const PORTS: std::ops::RangeInclusive<u16> = 32_768..=60_999;

const TCP: u8 = 6;
const UDP: u8 = 17;

/// Where sums stand in the headers.
const IP_SUM: usize = 10;
const TCP_SUM: usize = 16;
const UDP_SUM: usize = 6;

/// How the edge's address and ports are translated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Masquerade {
    inside: Ipv4Addr,
    outside: Ipv4Addr,
    port_shift: u16,
}

impl Masquerade {
    /// Nothing is changed: the centre sees the edge as `address`.
    #[must_use]
    pub fn none(address: Ipv4Addr) -> Self {
        Self { inside: address, outside: address, port_shift: 0 }
    }

    /// From now on the centre sees `address`. What it sends to the former one is for nobody.
    pub fn set_outside(&mut self, address: Ipv4Addr) {
        self.outside = address;
    }

    /// From now on the centre sees other ports of every connection that the edge has made.
    pub fn shift_ports(&mut self) {
        // Odd, and not a divisor of their number: the first repetition is far away.
        self.port_shift = (self.port_shift + 1_009) % port_count();
    }

    /// How the centre sees the edge.
    #[must_use]
    pub fn outside(&self) -> Ipv4Addr {
        self.outside
    }

    /// Rewrites a packet of the edge's. What does not come from its address, or is no IPv4, stays as it is.
    pub fn to_centre(&self, packet: &mut [u8]) {
        if address(packet, SOURCE) == Some(self.inside) {
            self.rewrite(packet, SOURCE, self.outside, self.port_shift);
        }
    }

    /// Rewrites a packet to the edge. `false`: it is for an address that the edge does not have.
    #[must_use]
    pub fn to_edge(&self, packet: &mut [u8]) -> bool {
        let meant = address(packet, DESTINATION) == Some(self.outside);
        if meant {
            self.rewrite(packet, DESTINATION, self.inside, port_count() - self.port_shift);
        }
        meant
    }

    fn rewrite(&self, packet: &mut [u8], side: Side, to: Ipv4Addr, shift: u16) {
        if self.inside == self.outside && self.port_shift == 0 {
            return;
        }
        let Some((header_bytes, protocol, first)) = header(packet) else { return };
        let from = address(packet, side).unwrap_or(to);
        put(packet, side.address_at, &to.octets());
        let old_address = words(from);
        let new_address = words(to);
        mend(packet, IP_SUM, &old_address, &new_address);
        let sum_at = match protocol {
            TCP => TCP_SUM,
            UDP => UDP_SUM,
            _ => return,
        };
        if !first {
            // A later fragment: no ports, and the sum is in the first.
            return;
        }
        let Some(port) = word(packet, header_bytes + side.port_at) else { return };
        let shifted = shift_port(port, shift);
        put(packet, header_bytes + side.port_at, &shifted.to_be_bytes());
        let at = header_bytes + sum_at;
        let none = protocol == UDP && word(packet, at) == Some(0);
        if !none {
            mend(packet, at, &[old_address[0], old_address[1], port], &[new_address[0], new_address[1], shifted]);
            if protocol == UDP && word(packet, at) == Some(0) {
                put(packet, at, &[0xff, 0xff]);
            }
        }
    }
}

/// Where one side's address is in the IP header, and its port in TCP's and UDP's.
#[derive(Debug, Clone, Copy)]
struct Side {
    address_at: usize,
    port_at: usize,
}

const SOURCE: Side = Side { address_at: 12, port_at: 0 };
const DESTINATION: Side = Side { address_at: 16, port_at: 2 };

/// Bytes of the header, protocol, and whether what follows begins with the protocol's own header; `None` if it is no IPv4.
fn header(packet: &[u8]) -> Option<(usize, u8, bool)> {
    let first = *packet.first()?;
    let header_bytes = usize::from(first & 0x0f) * 4;
    let fragment_offset = word(packet, 6)? & 0x1fff;
    (first >> 4 == 4 && header_bytes >= 20 && packet.len() >= header_bytes).then_some((header_bytes, *packet.get(9)?, fragment_offset == 0))
}

fn address(packet: &[u8], side: Side) -> Option<Ipv4Addr> {
    header(packet)?;
    let octets: [u8; 4] = packet.get(side.address_at..side.address_at + 4)?.try_into().ok()?;
    Some(octets.into())
}

fn port_count() -> u16 {
    PORTS.end() - PORTS.start() + 1
}

fn shift_port(port: u16, shift: u16) -> u16 {
    if !PORTS.contains(&port) {
        return port;
    }
    let place = (u32::from(port - PORTS.start()) + u32::from(shift)) % u32::from(port_count());
    PORTS.start() + u16::try_from(place).unwrap_or(0)
}

fn words(address: Ipv4Addr) -> [u16; 2] {
    let [a, b, c, d] = address.octets();
    [u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])]
}

fn word(packet: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(packet.get(at..at + 2)?.try_into().ok()?))
}

fn put(packet: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = packet.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

/// RFC 1624, equation 3: `HC' = ~(~HC + ~m + m')` for each word `m` that became `m'`.
fn mend(packet: &mut [u8], at: usize, old: &[u16], new: &[u16]) {
    let Some(sum) = word(packet, at) else { return };
    let mut total = u32::from(!sum);
    for (old, new) in old.iter().zip(new) {
        total += u32::from(!old) + u32::from(*new);
    }
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    put(packet, at, &(!u16::try_from(total).unwrap_or(0)).to_be_bytes());
}
