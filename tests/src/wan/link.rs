//! Both directions of the link, its agenda and the edge's address. Pure: time comes in, packets come out.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Error, Result, ensure};
use spillway_wan::address::Masquerade;
use spillway_wan::{Count, Counters, Fate, Line, Shape};

use super::order::{Change, DIRECTIONS, Direction, Order, Scenario, condition};

/// The centre's address.
pub const CENTRE: Ipv4Addr = Ipv4Addr::new(10, 93, 0, 1);

/// The edge's own address, under which the centre sees it until told otherwise.
pub const EDGE: Ipv4Addr = Ipv4Addr::new(10, 93, 0, 2);

/// Bits of the network that both are in; all of it is routed over the link.
pub const PREFIX_BITS: u8 = 16;

/// That network.
pub const NETWORK: &str = "10.93.0.0/16";

/// UDP, in the tenth byte of an IPv4 header.
const UDP: Option<&u8> = Some(&17);

/// Orders that wait for their time, at most.
const AGENDA_MAX: usize = 20_000;

/// Orders carried out at their time that are kept for whoever asks, at most.
const DONE_MAX: usize = 1_000;

/// Both directions.
#[derive(Debug)]
pub struct Link {
    lines: [Line<Vec<u8>>; 2],
    masquerade: Masquerade,
    /// Addresses that were given with `address next`.
    moves: u8,
    /// Sent to an address that the edge does not have.
    stray: Count,
    udp_blocked: bool,
    blocked: Count,
    /// By time.
    agenda: VecDeque<Timed>,
    /// What was on it and is done, until asked for.
    done: VecDeque<Done>,
}

/// An order that was carried out at its time.
#[derive(Debug, Clone, PartialEq)]
pub struct Done {
    /// Since the link's time began.
    pub at: Duration,
    /// The order; and why not, if it could not be done.
    pub what: String,
}

#[derive(Debug)]
struct Timed {
    at: Duration,
    every: Option<Duration>,
    order: Order,
}

/// What is counted, in bytes at the IP level.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LinkCounters {
    /// From the edge to the centre.
    pub to_centre: Counters,
    /// From the centre to the edge.
    pub to_edge: Counters,
    /// Of the centre's packets, those to an address that the edge has left; they are not among `to_edge`.
    pub stray: Count,
    /// Of both ends' packets, those of UDP while it was blocked; they are not among the others.
    pub blocked: Count,
}

impl LinkCounters {
    /// Bytes that used the line in both directions: what a provider would bill.
    #[must_use]
    pub fn wire_bytes(&self) -> u64 {
        self.to_centre.carried().bytes + self.to_edge.carried().bytes
    }

    /// Bytes that both ends have sent, whether they came onto the line or not.
    #[must_use]
    pub fn offered_bytes(&self) -> u64 {
        self.to_centre.offered.bytes + self.to_edge.offered.bytes
    }

    /// What was counted since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            to_centre: self.to_centre.since(&earlier.to_centre),
            to_edge: self.to_edge.since(&earlier.to_edge),
            stray: self.stray - earlier.stray,
            blocked: self.blocked - earlier.blocked,
        }
    }

    /// One line a direction, as `key=packets/bytes`.
    #[must_use]
    pub fn text(&self) -> String {
        let line = |direction: Direction, counters: &Counters| {
            let part = |name: &str, count: Count| format!(" {name}={}/{}", count.packets, count.bytes);
            let parts = [
                part("offered", counters.offered),
                part("carried", counters.carried()),
                part("delivered", counters.delivered),
                part("lost", counters.lost),
                part("overflowed", counters.overflowed),
                part("down", counters.down),
            ];
            format!("{direction:<9}{}\n", parts.concat())
        };
        let neither = |name: &str, count: Count| format!("{name:<9} packets={} bytes={}", count.packets, count.bytes);
        let neither = format!("{}\n{}", neither("stray", self.stray), neither("blocked", self.blocked));
        line(Direction::ToCentre, &self.to_centre) + &line(Direction::ToEdge, &self.to_edge) + &neither
    }
}

impl Link {
    /// A perfect link. What is left to chance is drawn from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            lines: [Line::new(Shape::default(), seed), Line::new(Shape::default(), seed.wrapping_add(1))],
            masquerade: Masquerade::none(EDGE),
            moves: 0,
            stray: Count::default(),
            udp_blocked: false,
            blocked: Count::default(),
            agenda: VecDeque::new(),
            done: VecDeque::new(),
        }
    }

    /// Puts a scenario, whose times count from `now`, on the agenda.
    ///
    /// # Errors
    /// When the agenda is full.
    pub fn play(&mut self, now: Duration, scenario: Scenario) -> Result<()> {
        scenario
            .steps
            .into_iter()
            .try_for_each(|step| self.plan(Timed { at: now.saturating_add(step.at), every: step.every, order: step.order }))
    }

    /// Does what is ordered; answers in words.
    ///
    /// # Errors
    /// When it cannot be done.
    pub fn order(&mut self, now: Duration, order: &Order) -> Result<String> {
        match order {
            Order::Shape(only, changes) => {
                self.change(now, *only, |shape| changes.iter().fold(shape, |shape, change: &Change| change.of(shape)));
            }
            Order::SetUp(only, up) => self.change(now, *only, |shape| shape.with_up(*up)),
            Order::Outage(only, time) => {
                self.plan(Timed { at: now.saturating_add(*time), every: None, order: Order::SetUp(*only, true) })?;
                self.change(now, *only, |shape| shape.with_up(false));
            }
            Order::Address(address) => return self.set_address(*address),
            Order::Ports => self.masquerade.shift_ports(),
            Order::Udp(passes) => self.udp_blocked = !passes,
            Order::Counters => {
                let lines = DIRECTIONS.map(|direction| condition(direction, &self.shape(direction)));
                return Ok(format!("{}\n{}", self.counters().text(), lines.join("\n")));
            }
        }
        Ok("done".to_owned())
    }

    /// Hands in a packet.
    pub fn push(&mut self, now: Duration, direction: Direction, mut packet: Vec<u8>) -> Option<Fate> {
        self.keep_agenda(now);
        let bytes = u64::try_from(packet.len()).unwrap_or(u64::MAX);
        if self.udp_blocked && packet.get(9) == UDP {
            self.blocked += Count { packets: 1, bytes };
            return None;
        }
        match direction {
            Direction::ToCentre => self.masquerade.to_centre(&mut packet),
            Direction::ToEdge => {
                if !self.masquerade.to_edge(&mut packet) {
                    self.stray += Count { packets: 1, bytes };
                    return None;
                }
            }
        }
        Some(self.line(direction).push(now, packet.len(), packet))
    }

    /// A packet that has arrived.
    pub fn pop(&mut self, now: Duration) -> Option<(Direction, Vec<u8>)> {
        self.keep_agenda(now);
        DIRECTIONS.into_iter().find_map(|direction| self.line(direction).pop(now).map(|packet| (direction, packet)))
    }

    /// When to call [`Self::pop`] next, unless something comes in before.
    #[must_use]
    pub fn next_due(&self) -> Option<Duration> {
        let agenda = self.agenda.front().map(|first| first.at);
        self.lines.iter().map(Line::next_due).chain([agenda]).flatten().min()
    }

    /// What was counted so far.
    #[must_use]
    pub fn counters(&self) -> LinkCounters {
        let [to_centre, to_edge] = &self.lines;
        LinkCounters { to_centre: to_centre.counters(), to_edge: to_edge.counters(), stray: self.stray, blocked: self.blocked }
    }

    /// Orders that were carried out at their time since this was asked last, the newest thousand.
    pub fn done(&mut self) -> Vec<Done> {
        self.done.drain(..).collect()
    }

    /// What a direction is like.
    #[must_use]
    pub fn shape(&self, direction: Direction) -> Shape {
        let [to_centre, to_edge] = &self.lines;
        match direction {
            Direction::ToCentre => *to_centre.shape(),
            Direction::ToEdge => *to_edge.shape(),
        }
    }

    /// How the centre sees the edge.
    #[must_use]
    pub fn edge_address(&self) -> Ipv4Addr {
        self.masquerade.outside()
    }

    fn change(&mut self, now: Duration, only: Option<Direction>, change: impl Fn(Shape) -> Shape) {
        for direction in DIRECTIONS.into_iter().filter(|direction| Order::is_about(only, *direction)) {
            let line = self.line(direction);
            line.set_shape(now, change(*line.shape()));
        }
    }

    fn set_address(&mut self, address: Option<Ipv4Addr>) -> Result<String> {
        let address = address.unwrap_or_else(|| {
            self.moves = self.moves % 250 + 1;
            Ipv4Addr::new(10, 93, self.moves, 2)
        });
        let [own, network] = [address, CENTRE].map(|address| u32::from(address) >> (32 - PREFIX_BITS));
        ensure!(
            own == network && address != CENTRE,
            "{address} is not an address for the edge: any of 10.93.0.0/16 but the centre's {CENTRE}"
        );
        self.masquerade.set_outside(address);
        Ok(format!("the centre sees the edge as {address}"))
    }

    fn line(&mut self, direction: Direction) -> &mut Line<Vec<u8>> {
        let [to_centre, to_edge] = &mut self.lines;
        match direction {
            Direction::ToCentre => to_centre,
            Direction::ToEdge => to_edge,
        }
    }

    fn plan(&mut self, timed: Timed) -> Result<()> {
        ensure!(self.agenda.len() < AGENDA_MAX, "more than {AGENDA_MAX} orders wait for their time");
        // Behind those of the same time.
        let place = self.agenda.partition_point(|other| other.at <= timed.at);
        self.agenda.insert(place, timed);
        Ok(())
    }

    /// Does what is due, each at its own time even if that has passed a while ago.
    fn keep_agenda(&mut self, now: Duration) {
        while self.agenda.front().is_some_and(|first| first.at <= now) {
            let Some(Timed { at, every, order }) = self.agenda.pop_front() else { return };
            let failed = self.order(at, &order).err();
            self.note(at, &order, failed.as_ref());
            if let Some(every) = every {
                let next = Timed { at: at.saturating_add(every), every: Some(every), order: order.clone() };
                if let Err(error) = self.plan(next) {
                    self.note(at, &order, Some(&error));
                }
            }
        }
    }

    fn note(&mut self, at: Duration, order: &Order, error: Option<&Error>) {
        if self.done.len() == DONE_MAX {
            self.done.pop_front();
        }
        let what = error.map_or_else(|| order.to_string(), |error| format!("{order}: {error:#}"));
        self.done.push_back(Done { at, what });
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn packet(from: Ipv4Addr, to: Ipv4Addr) -> Vec<u8> {
        let mut packet = vec![0; 40];
        packet[0] = 0x45;
        packet[12..16].copy_from_slice(&from.octets());
        packet[16..20].copy_from_slice(&to.octets());
        packet
    }

    #[test]
    fn a_scenario_changes_each_direction_at_its_time() {
        let mut link = Link::new(1);
        link.play(S, "1s to-centre rate 320bit\n1s to-edge delay 5s\n10s outage 10s\nevery 30s address next".parse().unwrap()).unwrap();
        // 40 bytes at 320 bits a second.
        assert_eq!(link.push(S * 3, Direction::ToCentre, packet(EDGE, CENTRE)), Some(Fate::Queued));
        assert_eq!(link.push(S * 3, Direction::ToEdge, packet(CENTRE, EDGE)), Some(Fate::Queued));
        assert_eq!(link.next_due(), Some(S * 4));
        assert_eq!(link.pop(S * 4).unwrap().0, Direction::ToCentre);
        assert_eq!(link.next_due(), Some(S * 8));
        assert_eq!(link.pop(S * 8).unwrap().0, Direction::ToEdge);
        // The outage begins at 11 s and ends at 21 s.
        assert_eq!(link.push(S * 11, Direction::ToCentre, packet(EDGE, CENTRE)), Some(Fate::Down));
        assert_eq!(link.push(S * 20, Direction::ToEdge, packet(CENTRE, EDGE)), Some(Fate::Down));
        assert_eq!(link.push(S * 21, Direction::ToCentre, packet(EDGE, CENTRE)), Some(Fate::Queued));
        assert_eq!(link.counters().to_centre.down.packets, 1);
        let done = link.done().into_iter().map(|done| (done.at, done.what)).collect::<Vec<_>>();
        let expected = [(2, "to-centre rate 320bit"), (2, "to-edge delay 5s"), (11, "outage 10s"), (21, "up")];
        assert_eq!(done, expected.map(|(at, what)| (S * at, what.to_owned())));
        // Moved at 31 s and at 61 s.
        assert_eq!(link.pop(S * 30).unwrap().1[12..16], EDGE.octets());
        assert_eq!(link.edge_address(), EDGE);
        assert_eq!(link.push(S * 62, Direction::ToCentre, packet(EDGE, CENTRE)), Some(Fate::Queued));
        assert_eq!(link.pop(S * 63).unwrap().1[12..16], [10, 93, 2, 2]);
        assert_eq!(link.push(S * 63, Direction::ToEdge, packet(CENTRE, EDGE)), None);
        assert_eq!((link.counters().stray.bytes, link.counters().to_edge.offered.packets), (40, 2));
    }

    #[test]
    fn blocked_udp_is_counted_and_nothing_else_is_held_up() {
        let mut link = Link::new(1);
        let of = |protocol: u8| {
            let mut packet = packet(EDGE, CENTRE);
            packet[9] = protocol;
            packet
        };
        link.order(S, &"udp off".parse().unwrap()).unwrap();
        assert_eq!(link.push(S, Direction::ToCentre, of(17)), None);
        assert_eq!(link.push(S, Direction::ToCentre, of(6)), Some(Fate::Queued));
        link.order(S, &"udp on".parse().unwrap()).unwrap();
        assert_eq!(link.push(S, Direction::ToCentre, of(17)), Some(Fate::Queued));
        let counters = link.counters();
        assert_eq!((counters.blocked.packets, counters.blocked.bytes, counters.to_centre.offered.packets), (1, 40, 2));
        assert!(counters.text().ends_with("\nblocked   packets=1 bytes=40"), "{}", counters.text());
    }

    #[test]
    fn an_order_for_one_direction_leaves_the_other_and_counters_are_told() {
        let mut link = Link::new(1);
        link.order(S, &"to-edge loss 100% queue 1kB".parse().unwrap()).unwrap();
        assert_eq!(link.shape(Direction::ToCentre), Shape::default());
        assert_eq!(link.push(S, Direction::ToEdge, packet(CENTRE, EDGE)), Some(Fate::Lost));
        let text = link.order(S, &Order::Counters).unwrap();
        assert!(text.contains("to-edge   offered=1/40 carried=1/40 delivered=0/0 lost=1/40 overflowed=0/0 down=0/0"), "{text}");
        assert!(text.ends_with("\nto-edge   is up: rate unlimited delay 0s jitter 0s reorder off loss 100% queue 1kB"), "{text}");
        link.order(S, &"to-centre down".parse().unwrap()).unwrap();
        assert!(link.order(S, &Order::Counters).unwrap().contains("\nto-centre is down: rate unlimited"));
        assert_eq!(link.counters().wire_bytes(), 40);
        link.order(S, &"address 192.0.2.1".parse().unwrap()).unwrap_err();
        link.order(S, &"address 10.93.0.1".parse().unwrap()).unwrap_err();
    }
}
