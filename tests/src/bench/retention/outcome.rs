//! What came of a run, and what makes it a good one. Pure.

use std::fmt::Write as _;

use super::field::Tops;
use super::ledger::Verdict;
use super::plan::KILLS;
use crate::demo::table::{bytes_text, count_text};

/// What may be left on the disk of a drained spill: one generation and what is written beside it.
pub const LEFT_MAX_BYTES: u64 = 9 * 1024 * 1024;

/// Kills of the agent that found it running.
#[derive(Debug, Clone, Copy, Default)]
pub struct Kills {
    /// While the link was down.
    pub link_down: u32,
    /// While the agent drained.
    pub draining: u32,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Of Spillway.
    pub spillway: Verdict,
    /// Of MirrorMaker 2.
    pub mirror_maker: Verdict,
    /// How often MirrorMaker 2 has ended by itself.
    pub mirror_maker_ended: u32,
    /// The largest of what was seen.
    pub tops: Tops,
    /// Kills of the agent.
    pub kills: Kills,
    /// What the drained spill has left on the disk.
    pub left_bytes: u64,
}

impl Outcome {
    /// What is wrong, in words; nothing when all is as it should be.
    #[must_use]
    pub fn faults(&self) -> Vec<&'static str> {
        let kills = self.kills.link_down + self.kills.draining;
        [
            (!self.spillway.is_exact(), "Spillway has not carried each record once and in order"),
            (self.mirror_maker.lost == 0, "MirrorMaker 2 has lost nothing: retention did not bite, this run proves nothing"),
            (kills != KILLS, "the agent was not killed as often as it should have been"),
            (self.tops.spill_disk_bytes <= LEFT_MAX_BYTES, "the spill was hardly used"),
            (self.left_bytes > LEFT_MAX_BYTES, "the disk was not given back"),
        ]
        .into_iter()
        .filter_map(|(wrong, text)| wrong.then_some(text))
        .collect()
    }

    /// Whether everything is as it should be, and the run proves something.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.faults().is_empty()
    }

    /// What became of the records, and the verdict.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = format!("  {:<34}{:>14}{:>16}\n", "", "Spillway", "MirrorMaker 2");
        let mut row = |name: &str, ours: String, theirs: String| {
            text.push_str(format!("  {name:<34}{ours:>14}{theirs:>16}").trim_end());
            text.push('\n');
        };
        let (ours, theirs) = (&self.spillway, &self.mirror_maker);
        for (name, pick) in [
            ("records written", (|verdict| verdict.produced) as fn(&Verdict) -> u64),
            ("records arrived", |verdict| verdict.arrived),
            ("lost", |verdict| verdict.lost),
            ("duplicated", |verdict| verdict.duplicated),
            ("out of order", |verdict| verdict.out_of_order),
            ("altered", |verdict| verdict.altered),
        ] {
            row(name, count_text(pick(ours)), count_text(pick(theirs)));
        }
        row("most resident memory (agent)", bytes_text(self.tops.agent_bytes), bytes_text(self.tops.mirror_maker_bytes));
        row("killed with -9, link down", self.kills.link_down.to_string(), String::new());
        row("killed with -9, draining", self.kills.draining.to_string(), String::new());
        row("ended by itself", String::new(), self.mirror_maker_ended.to_string());
        row("most on the spill's disk", bytes_text(self.tops.spill_disk_bytes), String::new());
        row("left on it at the end", bytes_text(self.left_bytes), String::new());
        for (name, verdict) in [("Spillway", ours), ("MirrorMaker 2", theirs)] {
            for (partition, first, next) in &verdict.holes {
                // Writing to a string cannot fail.
                let _written = writeln!(text, "  {name}: partition {partition} has not records {first} to {}", next - 1);
            }
        }
        text.push('\n');
        let faults = self.faults();
        if faults.is_empty() {
            text.push_str("  Spillway has carried every record once and in order; MirrorMaker 2 has lost what retention took");
        } else {
            text.push_str("  ");
            text.push_str(&faults.join("\n  "));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome() -> Outcome {
        let exact = Verdict { produced: 9, arrived: 9, lost: 0, duplicated: 0, out_of_order: 0, altered: 0, holes: Vec::new() };
        Outcome {
            mirror_maker: Verdict { lost: 4, arrived: 5, holes: vec![(1, 2, 6)], ..exact.clone() },
            spillway: exact,
            mirror_maker_ended: 0,
            tops: Tops { spill_disk_bytes: 100 << 20, ..Tops::default() },
            kills: Kills { link_down: 8, draining: 2 },
            left_bytes: 300_000,
        }
    }

    #[test]
    fn a_run_is_good_only_when_it_proves_something() {
        assert!(outcome().is_good(), "{:?}", outcome().faults());
        assert!(outcome().table().contains("MirrorMaker 2: partition 1 has not records 2 to 5"));
        let bad = |change: fn(&mut Outcome)| {
            let mut outcome = outcome();
            change(&mut outcome);
            outcome.faults().len()
        };
        assert_eq!(bad(|outcome| outcome.spillway.duplicated = 1), 1);
        assert_eq!(bad(|outcome| outcome.mirror_maker.lost = 0), 1);
        assert_eq!(bad(|outcome| outcome.kills.draining = 1), 1);
        assert_eq!(bad(|outcome| outcome.tops.spill_disk_bytes = 0), 1);
        assert_eq!(bad(|outcome| outcome.left_bytes = 20 << 20), 1);
    }
}
