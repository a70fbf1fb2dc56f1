//! A rate, nothing at all, or no limit.

use std::num::NonZeroU64;

/// How much may be sent, in bits per second on the wire. Ordered: [`Rate::Off`] is the least, [`Rate::Unlimited`] the most, so that the
/// strictest of several is their minimum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rate {
    /// Nothing may be sent, not even to keep a connection.
    Off,
    /// So many bits a second.
    Limited(NonZeroU64),
    /// As much as the line takes.
    Unlimited,
}

impl Rate {
    /// So many bits a second; 0 is [`Rate::Off`].
    pub fn bits(bits_per_second: u64) -> Self {
        NonZeroU64::new(bits_per_second).map_or(Self::Off, Self::Limited)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_strictest_is_the_least() {
        assert_eq!(Rate::Unlimited.min(Rate::bits(5)).min(Rate::bits(7)), Rate::bits(5));
        assert_eq!(Rate::bits(1).min(Rate::Off), Rate::Off);
        assert_eq!(Rate::bits(0), Rate::Off);
    }
}
