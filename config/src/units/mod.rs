//! Quantities as a person writes them: sizes, durations, rates. A bare number is refused, because nobody can see its unit.
//!
//! Every type prints what it parses: `parse(x.to_string()) == x`.

use std::num::NonZeroU64;

mod byte_size;
mod duration;
mod rate;

pub use byte_size::ByteSize;
pub use duration::{DurationText, parse_duration};
pub use rate::BitRate;

/// A rate that is known when the program is written, as text; 0 is allowed here.
pub(crate) fn rate_text(bits: u64) -> String {
    NonZeroU64::new(bits).map(BitRate::from_bits_per_second).map_or_else(|| "0bit".to_owned(), |rate| rate.to_string())
}

/// A rate, `off` or `unlimited`, as a timetable writes it.
pub fn rate_or_off(rate: spillway_plan::Rate) -> String {
    match rate {
        spillway_plan::Rate::Off => "off".to_owned(),
        spillway_plan::Rate::Limited(bits) => BitRate::from_bits_per_second(bits).to_string(),
        spillway_plan::Rate::Unlimited => BitRate::limit_text(None),
    }
}

/// Why a text is not a quantity. `Display` says what is wrong, [`Error::fix`] what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The text does not begin with a digit, or has a fraction, a sign or a space in it.
    #[error("not {}", kind.noun())]
    Malformed {
        /// What was to be parsed.
        kind: Kind,
    },
    /// A number without a unit.
    #[error("a number without a unit")]
    UnitMissing {
        /// What was to be parsed.
        kind: Kind,
        /// The digits as written, for the hint.
        number: u64,
    },
    /// A number with a unit that this kind of quantity does not have.
    #[error("unknown unit \"{unit}\"")]
    UnitUnknown {
        /// What was to be parsed.
        kind: Kind,
        /// The unit as written.
        unit: String,
    },
    /// More than 2^64 - 1 of the smallest unit.
    #[error("too large to count")]
    Overflow {
        /// What was to be parsed.
        kind: Kind,
    },
}

impl Error {
    /// What to write instead, as an instruction.
    pub fn fix(&self) -> String {
        match self {
            Self::Malformed { kind } => kind.advice().to_owned(),
            Self::UnitMissing { kind: Kind::Size, number } if *number >= MANY_BYTES => {
                format!("add a unit; so many bytes are \"{}\"", ByteSize::from_bytes(*number))
            }
            Self::UnitMissing { kind, number } => {
                let unit = kind.usual_unit();
                format!("add a unit, for example \"{number}{unit}\"; the units are {}", kind.unit_list())
            }
            Self::UnitUnknown { kind, .. } => format!("the units are {}; upper and lower case matter", kind.unit_list()),
            Self::Overflow { .. } => "write a smaller number".to_owned(),
        }
    }
}

/// The kinds of quantity, for messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Bytes.
    Size,
    /// Time.
    Duration,
    /// Bits per second.
    Rate,
}

impl Kind {
    fn noun(self) -> &'static str {
        match self {
            Self::Size => "a size",
            Self::Duration => "a duration",
            Self::Rate => "a rate",
        }
    }

    fn usual_unit(self) -> &'static str {
        match self {
            Self::Size => "MiB",
            Self::Duration => "s",
            Self::Rate => "kbit",
        }
    }

    fn unit_list(self) -> String {
        let names: Vec<&str> = self.units().iter().map(|(name, _)| *name).collect();
        names.join(", ")
    }

    /// What to write, as an instruction.
    pub(crate) fn advice(self) -> &'static str {
        match self {
            Self::Size => "write a whole number of bytes with a unit, for example \"64KiB\", \"8MiB\" or \"500MB\"",
            Self::Duration => "write a whole number with a unit, for example \"200ms\", \"30s\" or \"2h\"",
            Self::Rate => "write bits per second with a unit, for example \"2Mbit\" or \"512kbit\", or \"unlimited\"",
        }
    }

    /// The units, each with its worth in the smallest one, smallest first. Where two have the same worth the first is printed.
    fn units(self) -> &'static [(&'static str, u64)] {
        match self {
            Self::Size => &[
                ("B", 1),
                ("kB", 1_000),
                ("KiB", 1 << 10),
                ("MB", 1_000_000),
                ("MiB", 1 << 20),
                ("GB", 1_000_000_000),
                ("GiB", 1 << 30),
                ("TB", 1_000_000_000_000),
                ("TiB", 1 << 40),
            ],
            Self::Duration => &[("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)],
            Self::Rate => &[("bit", 1), ("kbit", 1_000), ("Mbit", 1_000_000), ("Gbit", 1_000_000_000)],
        }
    }
}

/// A size without a unit is taken for bytes from here on, for MiB below.
const MANY_BYTES: u64 = 1024;

/// Reads `<digits><unit>` and returns the count of the smallest unit.
fn parse(kind: Kind, text: &str) -> Result<u64, Error> {
    let unit_start = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(unit_start);
    if digits.is_empty() || !unit.chars().all(|c| c.is_ascii_alphabetic()) {
        return Err(Error::Malformed { kind });
    }
    let number: u64 = digits.parse().map_err(|_| Error::Overflow { kind })?;
    if unit.is_empty() {
        return Err(Error::UnitMissing { kind, number });
    }
    let Some((_, worth)) = kind.units().iter().find(|(name, _)| *name == unit) else {
        return Err(Error::UnitUnknown { kind, unit: unit.to_owned() });
    };
    number.checked_mul(*worth).ok_or(Error::Overflow { kind })
}

/// Writes the count in the largest unit that divides it, so that parsing gives the same count again.
fn format(kind: Kind, count: u64, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
    let units = kind.units();
    let divides = |worth: u64| worth == 1 || (count != 0 && count.is_multiple_of(worth));
    match units.iter().rev().find(|(_, worth)| divides(*worth)) {
        Some((name, worth)) => write!(f, "{}{name}", count / worth),
        None => write!(f, "{count}"),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_size_reads_what_it_prints(bytes in any::<u64>(), shift in 0..64_u32) {
            let size = ByteSize::from_bytes(bytes >> shift << (shift / 2));
            prop_assert_eq!(size.to_string().parse(), Ok(size));
        }

        #[test]
        fn a_duration_reads_what_it_prints(millis in any::<u64>(), shift in 0..64_u32) {
            let duration = Duration::from_millis(millis >> shift);
            prop_assert_eq!(parse_duration(&DurationText(duration).to_string()), Ok(duration));
        }

        #[test]
        fn a_rate_reads_what_it_prints(bits in 1..=u64::MAX, shift in 0..64_u32) {
            let limit = NonZeroU64::new(bits >> shift).map(BitRate::from_bits_per_second);
            prop_assert_eq!(BitRate::parse_limit(&BitRate::limit_text(limit)), Ok(limit));
        }

        #[test]
        fn no_text_makes_a_parser_panic(text in "\\PC*") {
            let answers = [text.parse::<ByteSize>().err(), parse_duration(&text).err(), BitRate::parse_limit(&text).err()];
            for error in answers.into_iter().flatten() {
                prop_assert!(!error.to_string().is_empty() && !error.fix().is_empty());
            }
        }
    }

    #[test]
    fn binary_and_decimal_units_differ() {
        for (text, bytes) in [
            ("0B", 0),
            ("7B", 7),
            ("64KiB", 65_536),
            ("64kB", 64_000),
            ("8MiB", 8_388_608),
            ("8MB", 8_000_000),
            ("1GiB", 1_073_741_824),
            ("1GB", 1_000_000_000),
            ("2TiB", 2_199_023_255_552),
            ("2TB", 2_000_000_000_000),
        ] {
            assert_eq!(text.parse::<ByteSize>().map(ByteSize::bytes), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn durations_have_five_units() {
        for (text, millis) in [("200ms", 200), ("30s", 30_000), ("5m", 300_000), ("2h", 7_200_000), ("7d", 604_800_000)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        assert_eq!(DurationText(Duration::from_micros(999)).to_string(), "0s");
    }

    #[test]
    fn rates_are_decimal_bits() {
        let rate: BitRate = "512kbit".parse().unwrap();
        assert_eq!((rate.bits_per_second(), rate.bytes_per_second()), (512_000, 64_000));
        assert_eq!("2Mbit".parse::<BitRate>().unwrap().bits_per_second(), 2_000_000);
        assert_eq!(BitRate::parse_limit("unlimited"), Ok(None));
    }

    #[test]
    fn what_is_wrong_is_told_apart() {
        let size = |text: &str| text.parse::<ByteSize>().unwrap_err();
        let kind = Kind::Size;
        assert_eq!(size("64"), Error::UnitMissing { kind, number: 64 });
        assert_eq!(size("64mib"), Error::UnitUnknown { kind, unit: "mib".to_owned() });
        for text in ["", "MiB", "-1MiB", "1.5MiB", "1 MiB", " 1MiB", "1MiB ", "1MiB2"] {
            assert_eq!(size(text), Error::Malformed { kind }, "{text:?}");
        }
        assert_eq!(size("18446744073709551616B"), Error::Overflow { kind });
        assert_eq!(size("16777216TiB"), Error::Overflow { kind });
        assert_eq!("18446744073709551615B".parse(), Ok(ByteSize::from_bytes(u64::MAX)));
        assert_eq!("0bit".parse::<BitRate>(), Err(Error::Malformed { kind: Kind::Rate }));
        assert_eq!(size("67108864").fix(), "add a unit; so many bytes are \"64MiB\"");
        assert_eq!(size("64").fix(), "add a unit, for example \"64MiB\"; the units are B, kB, KiB, MB, MiB, GB, GiB, TB, TiB");
    }
}
