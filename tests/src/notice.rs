//! What the lab says to the person at its terminal, beside the results of a command.

use std::fmt::Display;
use std::io::Write as _;

/// Writes a line to stderr. A terminal that is closed, or a pipe that nobody reads any more, is no reason to end: what cleans up afterwards has to run.
pub fn tell(line: impl Display) {
    let _unread = writeln!(std::io::stderr(), "{line}");
}
