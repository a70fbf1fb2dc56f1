use std::fmt;
use std::time::Duration;

use super::{Error, Kind};

/// Reads a duration: a whole number with `ms`, `s`, `m`, `h` or `d` (24 hours).
///
/// # Errors
/// [`Error`] says what is wrong with the text and what to write instead.
pub fn parse_duration(text: &str) -> Result<Duration, Error> {
    super::parse(Kind::Duration, text).map(Duration::from_millis)
}

/// Prints a duration as [`parse_duration`] reads it. What is finer than a millisecond is cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct DurationText(pub Duration);

impl fmt::Display for DurationText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        if millis == 0 {
            return f.write_str("0s");
        }
        super::format(Kind::Duration, millis, f)
    }
}
