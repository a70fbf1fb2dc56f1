//! The result of the demo as a table.

use std::fmt;

use super::cuts::Cut;
use super::tail::Percentiles;
use crate::oracle::Report;
use crate::relay::Traffic;

/// What the demo found.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The oracle's judgement.
    pub report: Report,
    /// Bytes of keys, values and headers written.
    pub raw_bytes: u64,
    /// What passed the link.
    pub traffic: Traffic,
    /// When the link was cut.
    pub cuts: Vec<Cut>,
    /// The most records that the spill was seen to hold.
    pub spilled_records: u64,
    /// Bytes written to the spill.
    pub spill_written_bytes: u64,
    /// What the drained spill has left on the disk.
    pub spill_left_bytes: u64,
    /// Latency of all records.
    pub all: Percentiles,
    /// Latency of the records written while the link was up and no backlog was left.
    pub link_up: Percentiles,
}

impl Outcome {
    /// Nothing lost, duplicated, out of order or altered, and the link really was cut, and the spill used.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.report.is_exact() && self.report.source_records > 0 && self.traffic.cut_packets > 0 && self.spilled_records > 0
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let report = &self.report;
        let wire = self.traffic.up_bytes + self.traffic.down_bytes;
        let mut row = |name: &str, value: &str, note: &str| writeln!(f, "{}", format!("  {name:<22}{value:>16}  {note}").trim_end());
        row("records in", &count_text(report.source_records), "committed at the edge")?;
        row("records out", &count_text(report.centre_records), "committed at the centre")?;
        row("lost", &count_text(report.lost), "")?;
        row("duplicated", &count_text(report.duplicated), "")?;
        row("out of order", &count_text(report.out_of_order), "")?;
        row("altered", &count_text(report.altered), "keys, values, headers, CreateTime")?;
        row("raw bytes", &bytes_text(self.raw_bytes), "keys, values and headers")?;
        row(
            "wire bytes",
            &bytes_text(wire),
            &format!("both directions, with UDP and IP headers: 1/{} of raw", ratio_text(self.raw_bytes, wire)),
        )?;
        for cut in &self.cuts {
            let length = format!("{:.1} s", cut.length().as_secs_f64());
            row("link was cut for", &length, &format!("caught up {:.1} s later", cut.catch_up().as_secs_f64()))?;
        }
        let note = format!(
            "records at most; {} written, {} left on the disk",
            bytes_text(self.spill_written_bytes),
            bytes_text(self.spill_left_bytes)
        );
        row("in the spill", &count_text(self.spilled_records), &note)?;
        row("latency, link up", &latency_text(self.link_up), "p50 / p99, CreateTime to readable at the centre")?;
        row("latency, all", &latency_text(self.all), "p50 / p99, with what waited for the link")?;
        for example in &report.examples {
            writeln!(f, "  {example}")?;
        }
        let verdict = if self.is_good() {
            "every record arrived exactly once, in order"
        } else if self.report.is_exact() {
            "every record arrived, but the link was not cut, or the spill not used: this run proves nothing"
        } else {
            "the centre does not hold what the edge holds"
        };
        write!(f, "\n  {verdict}")
    }
}

/// `1234567` as `1,234,567`.
#[must_use]
pub fn count_text(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes with a unit, decimal: `1.2 MB`.
#[must_use]
pub fn bytes_text(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{}.{} kB", bytes / 1_000, bytes % 1_000 / 100),
        1_000_000..1_000_000_000 => format!("{}.{} MB", bytes / 1_000_000, bytes % 1_000_000 / 100_000),
        _ => format!("{}.{} GB", bytes / 1_000_000_000, bytes % 1_000_000_000 / 100_000_000),
    }
}

fn ratio_text(raw: u64, wire: u64) -> String {
    let tenths = raw.saturating_mul(10) / wire.max(1);
    format!("{}.{}", tenths / 10, tenths % 10)
}

fn latency_text(latency: Percentiles) -> String {
    format!("{} / {} ms", latency.p50.as_millis(), latency.p99.as_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_readable() {
        assert_eq!(count_text(7), "7");
        assert_eq!(count_text(1_234_567), "1,234,567");
        assert_eq!(count_text(123_456), "123,456");
        assert_eq!(bytes_text(1_234_567), "1.2 MB");
        assert_eq!(ratio_text(66, 10), "6.6");
    }
}
