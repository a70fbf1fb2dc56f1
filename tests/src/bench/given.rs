//! Options of benchmarks that clap does not know: a wrong one is refused before anything is built or started.

use std::ops::RangeInclusive;
use std::path::PathBuf;

use spillway_config::units::BitRate;

use crate::wan::order;

/// What the agent's `link.rate_max` may be, in bits a second.
const RATE_MAX_LEAST: u64 = 8_000;

/// The programs that a directory of them has.
const PROGRAMS: [&str; 2] = ["spillway-agent", "spillway-collector"];

/// Reads a rate with its unit, in bits a second.
pub fn bits(range: RangeInclusive<u64>) -> impl Fn(&str) -> Result<u64, String> + Clone + Send + Sync + 'static {
    move |text| {
        let bits = order::rate(text).map_err(|error| format!("{error:#}"))?.ok_or("there has to be a limit; write for example 64kbit")?;
        if range.contains(&bits) {
            return Ok(bits);
        }
        let bound = |bits: u64| {
            std::num::NonZeroU64::new(bits).map(BitRate::from_bits_per_second).map_or_else(String::new, |rate| rate.to_string())
        };
        Err(format!("write a rate from {} to {}", bound(*range.start()), bound(*range.end())))
    }
}

/// Reads a `link.rate_max`, as the agent's configuration has it.
///
/// # Errors
/// What to write instead.
pub fn rate_max(text: &str) -> Result<String, String> {
    match order::rate(text) {
        Ok(Some(bits)) if bits < RATE_MAX_LEAST => Err("an agent sends at least 8kbit".to_owned()),
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(format!("{error:#}")),
    }
}

/// Reads the name of a directory with agent and collector in it.
///
/// # Errors
/// Which of them is missing.
pub fn programs(text: &str) -> Result<PathBuf, String> {
    let dir = PathBuf::from(text);
    match PROGRAMS.iter().find(|name| !dir.join(name).is_file()) {
        Some(missing) => Err(format!("there is no {missing} in it")),
        None => Ok(dir),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use clap::Parser as _;

    use super::*;
    use crate::cli::Cli;

    fn refused(line: &str) -> String {
        Cli::try_parse_from(line.split(' ')).unwrap_err().to_string()
    }

    #[test]
    fn rates_have_units_and_bounds() {
        let parse = bits(8_000..=1_000_000_000);
        assert_eq!((parse("64kbit"), parse("8kbit"), parse("1Gbit")), (Ok(64_000), Ok(8_000), Ok(1_000_000_000)));
        for (text, told) in [
            ("64000", "write 64000bit, 64000kbit or 64000Mbit"),
            ("64 kb", "write bits per second with a unit"),
            ("7999bit", "write a rate from 8kbit to 1Gbit"),
            ("unlimited", "there has to be a limit"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(told), "{text}: {error}");
        }
        assert_eq!(rate_max("unlimited"), Ok("unlimited".to_owned()));
    }

    #[test]
    fn a_wrong_option_is_refused_before_anything_starts() {
        for (line, told) in [
            ("lab bench cap --rate 64", "write 64bit, 64kbit or 64Mbit"),
            ("lab bench classes --line-bits 50", "write 50bit, 50kbit or 50Mbit"),
            ("lab bench classes --rate-max 50", "write 50bit, 50kbit or 50Mbit"),
            ("lab bench classes --rate-max 5kbit", "at least 8kbit"),
            ("lab bench classes --binaries /nonexistent", "there is no spillway-agent in it"),
            ("lab bench compress --binaries /nonexistent", "there is no spillway-agent in it"),
            ("lab bench outage --binaries /nonexistent", "there is no spillway-agent in it"),
        ] {
            let error = refused(line);
            assert!(error.contains(told), "{line}: {error}");
        }
    }
}
