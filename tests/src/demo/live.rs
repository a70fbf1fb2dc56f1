//! The status line: redrawn in place on a terminal, a line every few seconds elsewhere.

use std::io::Write as _;
use std::time::{Duration, Instant};

use super::table::{bytes_text, count_text};

/// Pause between two lines where a line cannot be redrawn.
const LINE_EVERY: Duration = Duration::from_secs(3);

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
    pub fn show(&mut self, elapsed: Duration, link: &str, records_in: u64, records_out: u64, up_bytes: u64) {
        if !self.terminal && self.last_line.is_some_and(|last| last.elapsed() < LINE_EVERY) {
            return;
        }
        self.last_line = Some(Instant::now());
        let behind = records_in.saturating_sub(records_out);
        let text = format!(
            "{:>5.1} s  link {link:<3}  edge {:>9}  centre {:>9}  on the way {:>8}  sent {}",
            elapsed.as_secs_f64(),
            count_text(records_in),
            count_text(records_out),
            count_text(behind),
            bytes_text(up_bytes)
        );
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
