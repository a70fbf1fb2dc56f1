//! What is told of a contestant.

use std::fmt::Write as _;
use std::time::Duration;

use crate::bench::peer::Peer;
use crate::wan::link::LinkCounters;

/// What one has shown.
#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    /// Who.
    pub peer: Peer,
    /// From its start until the last record was at the centre, or until it was ended.
    pub took: Duration,
    /// Different records at the centre.
    pub arrived: u64,
    /// Records that were there before.
    pub copies: u64,
    /// Of the line, from its start to some seconds after the last record.
    pub counters: LinkCounters,
}

impl Outcome {
    /// Bytes at the IP level that both ends have sent, retransmissions, acknowledgements and handshakes among them.
    #[must_use]
    pub fn wire_bytes(&self) -> u64 {
        self.counters.offered_bytes()
    }

    /// One line, told as it ends.
    #[must_use]
    pub fn line(&self) -> String {
        let [wire, to_centre, to_edge] =
            [self.wire_bytes(), self.counters.to_centre.offered.bytes, self.counters.to_edge.offered.bytes].map(|bytes| bytes as f64 / 1e6);
        format!(
            "  {:.1} s, {} records, {} copies; {wire:.2} MB on the wire ({to_centre:.2} to the centre, {to_edge:.2} back)",
            self.took.as_secs_f64(),
            self.arrived,
            self.copies
        )
    }
}

/// All of them, with ratios to Spillway if it was among them.
#[must_use]
pub fn table(outcomes: &[Outcome], records: u64, payload_bytes: u64) -> String {
    let ours = outcomes.iter().find(|outcome| outcome.peer == Peer::Spillway);
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _written = writeln!(
        text,
        "  {:<15} {:>9} {:>10} {:>9} {:>8} {:>8} {:>9} {:>8}",
        "", "wire MB", "to centre", "to edge", "payload", "to ours", "seconds", "to ours"
    );
    for outcome in outcomes {
        let (wire, seconds) = (outcome.wire_bytes() as f64, outcome.took.as_secs_f64());
        let counters = &outcome.counters;
        let whole = outcome.arrived >= records;
        let to_ours = |theirs: f64, own: fn(&Outcome) -> f64| {
            // Of an unfinished race a ratio would flatter whoever did not finish.
            ours.filter(|ours| whole && ours.arrived >= records)
                .map_or_else(|| "-".to_owned(), |ours| format!("{:.2}x", theirs / own(ours)))
        };
        let _written = write!(
            text,
            "  {:<15} {:>9.2} {:>10.2} {:>9.2} {:>7.2}x {:>8} {:>9.1} {:>8}",
            outcome.peer.name(),
            wire / 1e6,
            counters.to_centre.offered.bytes as f64 / 1e6,
            counters.to_edge.offered.bytes as f64 / 1e6,
            wire / payload_bytes as f64,
            to_ours(wire, |ours| ours.wire_bytes() as f64),
            seconds,
            to_ours(seconds, |ours| ours.took.as_secs_f64()),
        );
        if !whole {
            let _written = write!(text, "  ended with {:.1} % of the records", outcome.arrived as f64 / records as f64 * 100.0);
        }
        text.push('\n');
    }
    let _written =
        write!(text, "  payload: wire bytes to {:.2} MB of keys and values; to ours: against Spillway", payload_bytes as f64 / 1e6);
    text
}

#[cfg(test)]
mod tests {
    use spillway_wan::{Count, Counters};

    use super::*;
    use crate::bench::mirror::Mirror;
    use crate::bench::peer::Congestion;

    fn outcome(peer: Peer, seconds: u64, megabytes: u64, arrived: u64) -> Outcome {
        let offered = Count { packets: 1, bytes: megabytes * 500_000 };
        let direction = Counters { offered, ..Counters::default() };
        let counters = LinkCounters { to_centre: direction, to_edge: direction, ..LinkCounters::default() };
        Outcome { peer, took: Duration::from_secs(seconds), arrived, copies: 0, counters }
    }

    #[test]
    fn ratios_are_theirs_to_ours_and_only_of_whole_races() {
        let ours = outcome(Peer::Spillway, 10, 4, 100);
        let mm2 = |tuned| Peer::MirrorMaker(Mirror { tuned, congestion: Congestion::Cubic });
        let text = table(&[ours, outcome(mm2(true), 35, 10, 100), outcome(mm2(false), 60, 99, 15)], 100, 20_000_000);
        let row = |name: &str| text.lines().find(|line| line.contains(name)).unwrap_or_default().to_owned();
        assert!(row("mm2-tuned").contains("0.50x    2.50x") && row("mm2-tuned").contains("3.50x"), "{text}");
        assert!(row("mm2-default").contains("ended with 15.0 %") && !row("mm2-default").contains("6.00x"), "{text}");
        assert!(row("spillway").contains("1.00x"), "{text}");
    }
}
