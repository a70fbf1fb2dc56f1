//! What the agent remembers of its line over a restart.
//!
//! An agent that starts while the line is away builds frames for a line that it cannot see: they are sent as they are once it is back, and one that fits a fast line
//! would take minutes of a slow one. A file of some lines of text; without it, or with one that is damaged, the line is found out anew.

use std::time::Duration;

use crate::kept::{FileError, after_first_line};
use crate::transit::LineRate;

/// What is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KeptLine {
    /// Bytes a second that frames are made for.
    pub frames: Option<u64>,
    /// What congestion control has measured.
    pub line: Option<LineRate>,
    /// Largest UDP payload that the path carries, in bytes.
    pub mtu: Option<u16>,
}

/// First line of the file: what it is, and its version.
const MAGIC: &str = "spillway-line 1";

/// Before the sum over all that is before it.
const SUM: &str = "crc32c ";

/// A change by more than one in so many is worth a write.
const STEP: u64 = 4;

impl KeptLine {
    /// As it is kept on disk.
    pub fn to_file(&self) -> String {
        let number = |number: Option<u64>| number.map_or_else(|| "none".to_owned(), |number| number.to_string());
        let (rate, round_trip) = self.parts();
        let [frames, rate, round_trip, mtu] = [self.frames, rate, round_trip, self.mtu.map(u64::from)].map(number);
        let body = format!("{MAGIC}\nframes {frames}\nrate {rate}\nround_trip_us {round_trip}\nmtu {mtu}\n");
        format!("{body}{SUM}{:08x}\n", crc32c::crc32c(body.as_bytes()))
    }

    /// Reads what [`KeptLine::to_file`] wrote.
    ///
    /// # Errors
    /// When it is something else.
    pub fn from_file(text: &str) -> Result<Self, FileError> {
        after_first_line(text, MAGIC)?;
        let (body, sum) = text.rsplit_once(SUM).ok_or(FileError::Damaged)?;
        if sum != format!("{:08x}\n", crc32c::crc32c(body.as_bytes())) {
            return Err(FileError::Damaged);
        }
        let mut lines = body.lines().skip(1);
        let mut number = |name: &str| {
            let value = lines.next().and_then(|line| line.strip_prefix(name)?.strip_prefix(' ')).ok_or(FileError::Damaged)?;
            if value == "none" { Ok(None) } else { value.parse::<u64>().map(Some).map_err(|_| FileError::Damaged) }
        };
        let (frames, rate, round_trip, mtu) = (number("frames")?, number("rate")?, number("round_trip_us")?, number("mtu")?);
        let line = |(rate, micros)| LineRate { bytes_per_second: Some(rate), round_trip: Duration::from_micros(micros) };
        Ok(Self { frames, line: rate.zip(round_trip).map(line), mtu: mtu.and_then(|mtu| u16::try_from(mtu).ok()) })
    }

    /// Whether it is otherwise enough to be written in place of `kept`. What is not known any more is no reason to forget it.
    pub fn is_news_to(&self, kept: &Self) -> bool {
        let changed = |now: Option<u64>, before: Option<u64>| match (now, before) {
            (Some(now), Some(before)) => now.abs_diff(before).saturating_mul(STEP) > before,
            (now, _) => now.is_some(),
        };
        let ((rate, round_trip), (rate_before, round_trip_before)) = (self.parts(), kept.parts());
        changed(self.frames, kept.frames)
            || changed(rate, rate_before)
            || changed(round_trip, round_trip_before)
            || (self.mtu.is_some() && self.mtu != kept.mtu)
    }

    /// With what is not known taken from `kept`.
    #[must_use]
    pub fn or(self, kept: Self) -> Self {
        Self { frames: self.frames.or(kept.frames), line: self.line.or(kept.line), mtu: self.mtu.or(kept.mtu) }
    }

    /// Rate and round trip of the line, in bytes a second and microseconds.
    fn parts(&self) -> (Option<u64>, Option<u64>) {
        let micros = |line: LineRate| u64::try_from(line.round_trip.as_micros()).unwrap_or(u64::MAX);
        (self.line.and_then(|line| line.bytes_per_second), self.line.map(micros))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    /// The bytes of version 1.
    const V1: &str = "spillway-line 1\nframes 250000\nrate 240000\nround_trip_us 300000\nmtu none\ncrc32c 68438eac\n";

    fn kept() -> KeptLine {
        let line = LineRate { bytes_per_second: Some(240_000), round_trip: Duration::from_millis(300) };
        KeptLine { frames: Some(250_000), line: Some(line), mtu: None }
    }

    #[test]
    fn the_file_is_what_it_always_was() {
        assert_eq!(kept().to_file(), V1);
        assert_eq!(KeptLine::from_file(V1), Ok(kept()));
        for other in [KeptLine::default(), KeptLine { mtu: Some(1452), ..kept() }] {
            assert_eq!(KeptLine::from_file(&other.to_file()), Ok(other));
        }
    }

    #[test]
    fn another_version_is_not_taken_for_this_one() {
        let body = V1.rsplit_once(SUM).unwrap().0.replacen("line 1\n", "line 12\n", 1);
        let later = format!("{body}{SUM}{:08x}\n", crc32c::crc32c(body.as_bytes()));
        assert_eq!(KeptLine::from_file(&later), Err(FileError::Version { expected: MAGIC }));
    }

    #[test]
    fn a_damaged_file_is_told_from_a_sound_one() {
        for place in 0..V1.len() {
            let mut bytes = V1.as_bytes().to_vec();
            bytes[place] ^= 1;
            let text = String::from_utf8_lossy(&bytes).into_owned();
            assert!(KeptLine::from_file(&text).is_err(), "byte {place}: {text}");
            assert!(KeptLine::from_file(V1.get(..place).unwrap()).is_err(), "cut at {place}");
        }
    }

    #[test]
    fn small_changes_are_not_worth_a_write() {
        let before = kept();
        let with = |rate: u64, millis| KeptLine {
            line: Some(LineRate { bytes_per_second: Some(rate), round_trip: Duration::from_millis(millis) }),
            ..before
        };
        assert!(!before.is_news_to(&before) && !with(200_000, 300).is_news_to(&before) && !with(240_000, 330).is_news_to(&before));
        assert!(with(120_000, 300).is_news_to(&before) && with(240_000, 600).is_news_to(&before));
        assert!(KeptLine { mtu: Some(1400), ..before }.is_news_to(&before) && KeptLine { frames: Some(9), ..before }.is_news_to(&before));
        assert!(before.is_news_to(&KeptLine::default()));
        let less = KeptLine { line: None, ..before };
        assert!(!KeptLine::default().is_news_to(&before) && !less.is_news_to(&before));
        assert_eq!(less.or(before), before);
    }
}
