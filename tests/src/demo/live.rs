//! The status line: redrawn in place on a terminal, a line every few seconds elsewhere.

use std::io::Write as _;
use std::time::{Duration, Instant};

use super::table::{bytes_text, count_text};
use crate::spill_status::{SpillState, SpillStatus};

/// Pause between two lines where a line cannot be redrawn.
const LINE_EVERY: Duration = Duration::from_secs(3);

/// What the status line tells.
#[derive(Debug, Clone)]
pub struct Look {
    /// Whether the link is up.
    pub link: &'static str,
    /// Records written at the edge.
    pub records_in: u64,
    /// Records that can be read at the centre.
    pub records_out: u64,
    /// Bytes that have passed the link from the agent.
    pub up_bytes: u64,
    /// The spill, if the agent tells.
    pub spill: Option<SpillStatus>,
}

/// Draws the status line.
#[derive(Debug)]
pub struct StatusLine {
    terminal: bool,
    last_line: Option<Instant>,
}

impl StatusLine {
    /// `terminal`: whether stdout is one.
    #[must_use]
    pub fn new(terminal: bool) -> Self {
        Self { terminal, last_line: None }
    }

    /// Draws the line, or skips it when it is too early for another one.
    pub fn show(&mut self, elapsed: Duration, look: &Look) {
        let Look { link, records_in, records_out, up_bytes, spill } = look;
        if !self.terminal && self.last_line.is_some_and(|last| last.elapsed() < LINE_EVERY) {
            return;
        }
        self.last_line = Some(Instant::now());
        let behind = records_in.saturating_sub(*records_out);
        let text = format!(
            "{:>5.1} s  link {link:<3}  edge {:>8}  centre {:>8}  on the way {:>7}  sent {:>8}  {}",
            elapsed.as_secs_f64(),
            count_text(*records_in),
            count_text(*records_out),
            count_text(behind),
            bytes_text(*up_bytes),
            spill.as_ref().map_or_else(String::new, spill_text)
        );
        let text = text.trim_end();
        if self.terminal {
            // To the start of the line, and clear it.
            print!("\r\x1b[2K  {text}");
            drop(std::io::stdout().flush());
        } else {
            println!("  {text}");
        }
    }

    /// Leaves the line as it is and goes on below it.
    pub fn end(&self) {
        if self.terminal {
            println!();
        }
    }
}

/// What the spill holds, and how long it will take to drain.
fn spill_text(spill: &SpillStatus) -> String {
    match spill.state {
        SpillState::Off | SpillState::Idle => String::new(),
        state => {
            let eta = spill.drain_in_seconds.map_or_else(String::new, |seconds| format!(", empty in {seconds:.0} s"));
            format!("spill {}: {} records, {}{eta}", state.as_str(), count_text(spill.records), bytes_text(spill.bytes))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spill_is_told_while_it_is_in_use() {
        let spill = |state, drain_in_seconds| SpillStatus {
            state,
            bytes: 2_097_152,
            records: 12_345,
            oldest_seconds: 7.0,
            full_in_seconds: None,
            drain_in_seconds,
            written_bytes: 1,
            dropped_records: 0,
        };
        assert_eq!(spill_text(&spill(SpillState::Idle, None)), "");
        assert_eq!(spill_text(&spill(SpillState::Spilling, None)), "spill spilling: 12,345 records, 2.0 MB");
        assert_eq!(spill_text(&spill(SpillState::Draining, Some(4.2))), "spill draining: 12,345 records, 2.0 MB, empty in 4 s");
    }
}
