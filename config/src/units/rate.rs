use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;

use super::{Error, Kind};

/// The word for "no limit" in place of a rate.
const UNLIMITED: &str = "unlimited";

/// A rate in bits per second, decimal: `512kbit` is 512,000 bits, 64,000 bytes a second. Never zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BitRate(NonZeroU64);

impl BitRate {
    /// A rate of so many bits a second.
    pub const fn from_bits_per_second(bits: NonZeroU64) -> Self {
        Self(bits)
    }

    /// Bits a second, at least 1.
    pub const fn bits_per_second(self) -> u64 {
        self.0.get()
    }

    /// Whole bytes a second, rounded down; 0 for a rate below 8 bits a second.
    pub const fn bytes_per_second(self) -> u64 {
        self.0.get() / 8
    }

    /// Reads a rate or the word `unlimited`, which is `None`.
    ///
    /// # Errors
    /// As [`BitRate::from_str`].
    pub fn parse_limit(text: &str) -> Result<Option<Self>, Error> {
        if text == UNLIMITED { Ok(None) } else { text.parse().map(Some) }
    }

    /// Prints what [`BitRate::parse_limit`] reads.
    pub fn limit_text(limit: Option<Self>) -> String {
        limit.map_or_else(|| UNLIMITED.to_owned(), |rate| rate.to_string())
    }
}

impl FromStr for BitRate {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bits = super::parse(Kind::Rate, text)?;
        NonZeroU64::new(bits).map(Self).ok_or(Error::Malformed { kind: Kind::Rate })
    }
}

impl fmt::Display for BitRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        super::format(Kind::Rate, self.0.get(), f)
    }
}

impl fmt::Debug for BitRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
