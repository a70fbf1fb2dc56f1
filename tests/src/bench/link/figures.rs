//! What is told of a run.

use std::fmt::Write as _;
use std::time::Duration;

use super::line::LineOptions;
use super::peer::packet_and_payload_bytes;
use crate::bench::peer::Peer;
use crate::bench::report;
use crate::wan::link::LinkCounters;

/// What was counted in a run.
#[derive(Debug, Clone)]
pub struct Sums {
    /// From the finished handshake on, or from the end of what is left out.
    pub time: Duration,
    /// Read by the application at the centre.
    pub payload_bytes: u64,
    /// At the IP level.
    pub counters: LinkCounters,
    /// The sender's smoothed round trip, at even intervals.
    pub round_trips: Vec<Duration>,
    /// Processor time of both ends and the line.
    pub cpu: Duration,
}

/// Figures of a run, or medians of some.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Figures {
    /// Payload, in Mbit/s.
    pub goodput_mbit: f64,
    /// The same as a share of the line's rate.
    pub share: f64,
    /// Bytes at the IP level to the centre that came through, were lost or overflowed, for each of the payload. What is still on the way is not
    /// among them, as its payload is not.
    pub wire_per_payload: f64,
    /// The same against what no sender can do without: the payload in full packets, and again what the line loses of them.
    pub wire_per_must: f64,
    /// Bytes at the IP level back to the edge, for each of the payload.
    pub back_per_payload: f64,
    /// Mean of the smoothed round trips, against that of the empty line; 0 where the sender's is not known.
    pub round_trip: f64,
    /// The longest of them.
    pub round_trip_max: f64,
    /// Packets to the centre that the queue dropped, as a share of those offered.
    pub overflowed: f64,
    /// Packets to the centre that the line lost, as a share of those on it.
    pub lost: f64,
    /// Processors that both ends and the line kept busy.
    pub cpu: f64,
}

/// Reads one figure.
type Pick = fn(&Figures) -> f64;

impl Figures {
    /// Takes a run apart.
    #[must_use]
    pub fn of(sums: &Sums, peer: Peer, line: &LineOptions) -> Self {
        let to_centre = &sums.counters.to_centre;
        let (payload, wire) = (sums.payload_bytes as f64, (to_centre.delivered + to_centre.dropped()).bytes as f64);
        let goodput = payload * 8.0 / sums.time.as_secs_f64();
        let (packet, in_packet) = packet_and_payload_bytes(peer);
        let must = payload * packet as f64 / in_packet as f64 / (1.0 - line.loss.mean());
        let against_base = |time: Duration| time.as_secs_f64() / line.round_trip.as_secs_f64();
        let count = sums.round_trips.len().max(1) as f64;
        Self {
            goodput_mbit: goodput / 1e6,
            share: goodput / line.rate as f64,
            wire_per_payload: wire / payload,
            wire_per_must: wire / must,
            back_per_payload: sums.counters.to_edge.carried().bytes as f64 / payload,
            round_trip: sums.round_trips.iter().copied().map(against_base).sum::<f64>() / count,
            round_trip_max: sums.round_trips.iter().copied().map(against_base).fold(0.0, f64::max),
            overflowed: to_centre.overflowed.packets as f64 / to_centre.offered.packets.max(1) as f64,
            lost: to_centre.lost.packets as f64 / to_centre.carried().packets.max(1) as f64,
            cpu: sums.cpu.as_secs_f64() / sums.time.as_secs_f64(),
        }
    }
}

/// The median of each figure on its own; `None` without runs.
#[must_use]
pub fn median(runs: &[Figures]) -> Option<Figures> {
    let one = |pick: Pick| report::median(runs.iter().map(pick).collect());
    Some(Figures {
        goodput_mbit: one(|run| run.goodput_mbit)?,
        share: one(|run| run.share)?,
        wire_per_payload: one(|run| run.wire_per_payload)?,
        wire_per_must: one(|run| run.wire_per_must)?,
        back_per_payload: one(|run| run.back_per_payload)?,
        round_trip: one(|run| run.round_trip)?,
        round_trip_max: one(|run| run.round_trip_max)?,
        overflowed: one(|run| run.overflowed)?,
        lost: one(|run| run.lost)?,
        cpu: one(|run| run.cpu)?,
    })
}

/// A row a peer.
#[must_use]
pub fn table(rows: &[(Peer, Figures)], line: &LineOptions) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _written = writeln!(
        text,
        "  {:<15} {:>8} {:>8} {:>9} {:>7} {:>6} {:>7} {:>7} {:>9} {:>6} {:>6}",
        "peer", "Mbit/s", "of line", "wire/load", "/must", "back", "RTT", "most", "overflow", "lost", "cpu"
    );
    for (peer, figures) in rows {
        let _written = writeln!(
            text,
            "  {peer:<15} {:>8.3} {:>6.1} % {:>9.3} {:>7.3} {:>6.3} {:>7} {:>7} {:>7.2} % {:>4.1} % {:>4.0} %",
            figures.goodput_mbit,
            figures.share * 100.0,
            figures.wire_per_payload,
            figures.wire_per_must,
            figures.back_per_payload,
            times(figures.round_trip),
            times(figures.round_trip_max),
            figures.overflowed * 100.0,
            figures.lost * 100.0,
            figures.cpu * 100.0,
        );
    }
    let base_ms = line.round_trip.as_millis();
    let _written = writeln!(
        text,
        "  wire: bytes at the IP level, to the payload and to what must cross; RTT: smoothed, to {base_ms} ms; cpu: of one core"
    );
    text
}

/// Every peer on every line: all that matters of a single one, the goodput of several.
#[must_use]
pub fn summary(peers: &[Peer], lines: &[(LineOptions, Vec<(Peer, Figures)>)]) -> String {
    let found = |rows: &[(Peer, Figures)], peer: Peer| rows.iter().find(|(other, _)| *other == peer).map(|(_, figures)| *figures);
    if let [peer] = peers {
        let row = |(line, rows): &(LineOptions, Vec<(Peer, Figures)>)| {
            let cells = found(rows, *peer).map_or_else(|| format!("{:>8}", "-"), |figures| cells(&figures));
            format!("  {:<28}{cells}\n", line.to_string())
        };
        let heads = format!("{:>8}  {:>8}  {:>6}  {:>6}  {:>8}", "of line", "RTT", "/must", "over", "cpu");
        return format!("{peer}\n  {:<28}{heads}\n{}", "line", lines.iter().map(row).collect::<String>());
    }
    let names: String = peers.iter().map(|peer| format!("{peer:>17}")).collect();
    let row = |(line, rows): &(LineOptions, Vec<(Peer, Figures)>)| {
        let share = |peer: &Peer| found(rows, *peer).map(|figures| figures.share * 100.0);
        let cell = |peer| share(peer).map_or_else(|| format!("{:>17}", "-"), |share| format!("{share:>15.1} %"));
        format!("  {:<28}{}\n", line.to_string(), peers.iter().map(cell).collect::<String>())
    };
    format!("Goodput in percent of the line\n  {:<28}{names}\n{}", "line", lines.iter().map(row).collect::<String>())
}

/// Of a round trip that is not known, nothing.
fn times(ratio: f64) -> String {
    if ratio > 0.0 { format!("{ratio:.2}x") } else { "-".to_owned() }
}

/// Share of the line, mean smoothed round trip, bytes on the wire to those that must be, what the queue dropped, processor time.
fn cells(figures: &Figures) -> String {
    let Figures { share, round_trip, wire_per_must, overflowed, cpu, .. } = figures;
    format!("{:>6.1} %  {round_trip:>7.2}x  {wire_per_must:>6.3}  {:>4.2} %  {:>6.0} %", share * 100.0, overflowed * 100.0, cpu * 100.0)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use spillway_wan::{Count, Counters};

    use super::*;
    use crate::bench::peer::Congestion;

    const TCP_BBR: Peer = Peer::Tcp(Congestion::Bbr);

    #[test]
    fn figures_are_of_the_payload_and_of_what_must_cross() {
        let line: LineOptions = "2Mbit,300ms,2%".parse().unwrap();
        let count = |packets| Count { packets, bytes: packets * 1500 };
        let to_centre =
            Counters { offered: count(1200), delivered: count(980), lost: count(20), overflowed: count(200), ..Counters::default() };
        let counters = LinkCounters { to_centre, ..LinkCounters::default() };
        let round_trips = vec![Duration::from_millis(300), Duration::from_millis(600)];
        let sums = Sums { time: Duration::from_secs(8), payload_bytes: 980 * 1448, counters, round_trips, cpu: Duration::from_secs(2) };
        let figures = Figures::of(&sums, TCP_BBR, &line);
        // All was in full packets, and sent again was only what the line lost, but for what overflowed.
        assert!((figures.wire_per_must - 1.2).abs() < 1e-9, "{figures:?}");
        assert!((figures.wire_per_payload - 1500.0 / 1448.0 / 0.98 * 1.2).abs() < 1e-9);
        assert!((figures.goodput_mbit - 1.41904).abs() < 1e-9 && (figures.share - 0.70952).abs() < 1e-9);
        assert!((figures.round_trip - 1.5).abs() < 1e-9 && (figures.round_trip_max - 2.0).abs() < 1e-9);
        assert!((figures.overflowed - 1.0 / 6.0).abs() < 1e-9 && (figures.lost - 0.02).abs() < 1e-9);
        assert!((figures.cpu - 0.25).abs() < 1e-9);
        let text = summary(&[TCP_BBR], &[(line, vec![(TCP_BBR, figures)]), (line, Vec::new())]);
        assert!(text.contains("2 % loss        71.0 %     1.50x   1.200  16.67 %      25 %") && text.ends_with("-\n"), "{text}");
        assert_eq!(median(&[figures]), Some(figures));
        assert_eq!(median(&[]), None);
    }
}
