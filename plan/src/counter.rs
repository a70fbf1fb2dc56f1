//! What is used up of a day's and a month's bytes.
//!
//! On disk it is a text of a few lines, the last one a checksum of those before:
//! ```text
//! spillway-budget 1
//! day 2026-03-02T00:00:00Z 2026-03-03T00:00:00Z 2026-03-02T07:12:00Z 1048576 0
//! month 2026-03-01T00:00:00Z 2026-04-01T00:00:00Z 2026-03-01T00:00:00Z 73400320 0
//! crc32c 0123abcd
//! ```
//! Each period: start, end, when counting began in it, bytes, and for how many seconds the clock has been before its start.

use std::fmt::Write;
use std::str::FromStr;
use std::time::Duration;

use jiff::Timestamp;

use crate::{Calendar, Period};

/// Bytes used up in the day and the month that are under way.
///
/// Each new period begins with nothing used, and it begins only when the clock has passed the end of the one before. A clock that is put back begins
/// nothing: the period that was begun goes on until its end comes again, or until the clock has been before its start for as long as it would have
/// lasted (it was begun by a clock that was wrong). So however a clock steps, no period's bytes are used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counter {
    /// The day.
    pub day: Used,
    /// The month.
    pub month: Used,
}

/// Bytes used up in one period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Used {
    /// When.
    pub period: Period,
    /// When counting began in it.
    pub since: Timestamp,
    /// How many.
    pub bytes: u64,
    /// For how long, without a pause, the clock has been before the period.
    behind: Duration,
}

/// Why a text is no counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Another version has written it.
    #[error("not a budget counter of version 1")]
    Version,
    /// Not what was written.
    #[error("damaged")]
    Damaged,
}

impl Counter {
    /// Nothing used at `now`.
    pub fn new(calendar: &Calendar, now: Timestamp) -> Self {
        Self { day: Used::new(calendar.day(now), now), month: Used::new(calendar.month(now), now) }
    }

    /// What to believe when the counter on disk is damaged: that the day's bytes are used up, and of the month's as much as an even pace takes.
    pub fn pessimistic(calendar: &Calendar, now: Timestamp, daily: u64, monthly: u64) -> Self {
        let mut counter = Self::new(calendar, now);
        counter.day.bytes = daily;
        counter.month.bytes = crate::budget::share(monthly, counter.month.period, now);
        counter.month.since = counter.month.period.start;
        counter
    }

    /// Looks at the clock; `elapsed` is the time since the last look by a clock that does not step. Answers whether a period has begun.
    pub fn roll(&mut self, calendar: &Calendar, now: Timestamp, elapsed: Duration) -> bool {
        let day = self.day.roll(now, elapsed, |at| calendar.day(at));
        let month = self.month.roll(now, elapsed, |at| calendar.month(at));
        day || month
    }

    /// So many bytes more.
    pub fn add(&mut self, bytes: u64) {
        for used in [&mut self.day, &mut self.month] {
            used.bytes = used.bytes.saturating_add(bytes);
        }
    }

    /// As it is kept on disk.
    pub fn to_text(&self) -> String {
        let mut text = format!("{MAGIC}\n");
        for (name, used) in [("day", &self.day), ("month", &self.month)] {
            let Used { period: Period { start, end }, since, bytes, behind } = used;
            // Writing to a text cannot fail.
            let _infallible = writeln!(text, "{name} {start} {end} {since} {bytes} {}", behind.as_secs());
        }
        let sum = crc32c::crc32c(text.as_bytes());
        let _infallible = writeln!(text, "crc32c {sum:08x}");
        text
    }

    /// Reads what [`Counter::to_text`] wrote.
    ///
    /// # Errors
    /// When it is something else.
    pub fn from_text(text: &str) -> Result<Self, Error> {
        if text.lines().next() != Some(MAGIC) {
            return Err(Error::Version);
        }
        let (body, sum) = text.rsplit_once("crc32c ").ok_or(Error::Damaged)?;
        let sum = sum.strip_suffix('\n').ok_or(Error::Damaged)?;
        if sum != format!("{:08x}", crc32c::crc32c(body.as_bytes())) {
            return Err(Error::Damaged);
        }
        let mut lines = body.lines().skip(1);
        let mut next = |name| lines.next().and_then(|line| Used::from_line(name, line)).ok_or(Error::Damaged);
        Ok(Self { day: next("day")?, month: next("month")? })
    }
}

/// First line of the file: what it is, and its version.
const MAGIC: &str = "spillway-budget 1";

impl Used {
    fn new(period: Period, now: Timestamp) -> Self {
        Self { period, since: now, bytes: 0, behind: Duration::ZERO }
    }

    fn roll(&mut self, now: Timestamp, elapsed: Duration, period: impl Fn(Timestamp) -> Period) -> bool {
        if now >= self.period.start {
            self.behind = Duration::ZERO;
            if now < self.period.end {
                return false;
            }
        } else {
            self.behind = self.behind.saturating_add(elapsed);
            if self.behind < self.period.length().unsigned_abs() {
                return false;
            }
        }
        *self = Self::new(period(now), now);
        true
    }

    fn from_line(name: &str, line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        if words.next() != Some(name) {
            return None;
        }
        let used = Self {
            period: Period { start: parse(words.next())?, end: parse(words.next())? },
            since: parse(words.next())?,
            bytes: parse(words.next())?,
            behind: Duration::from_secs(parse(words.next())?),
        };
        (words.next().is_none() && used.period.start < used.period.end).then_some(used)
    }
}

fn parse<T: FromStr>(word: Option<&str>) -> Option<T> {
    word?.parse().ok()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use jiff::{SignedDuration, tz::TimeZone};

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn utc() -> Calendar {
        Calendar::new(TimeZone::UTC, 1)
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    /// The bytes of version 1; a change of them needs a new version that still reads these.
    const V1: &str = "spillway-budget 1\n\
        day 2026-03-02T00:00:00Z 2026-03-03T00:00:00Z 2026-03-02T07:12:00Z 1048576 0\n\
        month 2026-03-01T00:00:00Z 2026-04-01T00:00:00Z 2026-03-02T07:12:00Z 1048576 0\n\
        crc32c 2c2575a4\n";

    #[test]
    fn the_file_is_what_it_always_was() {
        let mut counter = Counter::new(&utc(), at("2026-03-02T07:12:00Z"));
        counter.add(1 << 20);
        assert_eq!(counter.to_text(), V1);
        assert_eq!(Counter::from_text(V1), Ok(counter));
    }

    #[test]
    fn another_version_is_not_taken_for_this_one() {
        let body = V1.rsplit_once("crc32c ").unwrap().0.replacen("budget 1\n", "budget 12\n", 1);
        let later = format!("{body}crc32c {:08x}\n", crc32c::crc32c(body.as_bytes()));
        assert_eq!(Counter::from_text(&later), Err(Error::Version));
    }

    #[test]
    fn a_damaged_file_is_told_from_a_sound_one() {
        for place in 0..V1.len() {
            let mut bytes = V1.as_bytes().to_vec();
            bytes[place] ^= 1;
            let text = String::from_utf8_lossy(&bytes).into_owned();
            assert!(Counter::from_text(&text).is_err(), "byte {place}: {text}");
            assert!(Counter::from_text(V1.get(..place).unwrap()).is_err(), "cut at {place}");
        }
    }

    #[test]
    fn a_period_begins_when_the_one_before_has_ended() {
        let mut counter = Counter::new(&utc(), at("2026-03-31T23:00:00Z"));
        counter.add(5);
        assert!(!counter.roll(&utc(), at("2026-03-31T23:59:59Z"), HOUR));
        assert!(counter.roll(&utc(), at("2026-04-01T00:00:00Z"), HOUR));
        assert_eq!((counter.day.bytes, counter.month.bytes), (0, 0));
        counter.add(7);
        assert!(counter.roll(&utc(), at("2026-04-03T00:00:00Z"), HOUR));
        assert_eq!((counter.day.bytes, counter.month.bytes), (0, 7));
    }

    #[test]
    fn a_clock_that_goes_back_gives_no_second_day() {
        // A gateway without a battery for its clock: 1970 until the network tells the time.
        let mut counter = Counter::new(&utc(), at("2026-03-02T07:00:00Z"));
        counter.add(5);
        for _ in 0..3 {
            assert!(!counter.roll(&utc(), at("1970-01-01T00:00:10Z"), HOUR));
            assert!(!counter.roll(&utc(), at("2026-03-02T08:00:00Z"), HOUR));
        }
        assert_eq!(counter.day.bytes, 5);
        // Over midnight and back again: the new day goes on.
        assert!(counter.roll(&utc(), at("2026-03-03T00:01:00Z"), HOUR));
        counter.add(6);
        assert!(!counter.roll(&utc(), at("2026-03-02T23:59:00Z"), HOUR));
        assert!(!counter.roll(&utc(), at("2026-03-03T00:01:00Z"), HOUR));
        assert_eq!(counter.day.bytes, 6);
    }

    #[test]
    fn a_day_of_a_clock_that_was_wrong_does_not_last_for_years() {
        let mut counter = Counter::new(&utc(), at("2036-03-02T07:00:00Z"));
        counter.add(5);
        let mut now = at("2026-03-02T07:00:00Z");
        for _ in 0..23 {
            assert!(!counter.roll(&utc(), now, HOUR), "{now}");
            now += SignedDuration::from_hours(1);
        }
        assert!(counter.roll(&utc(), now, HOUR));
        assert_eq!((counter.day.bytes, counter.month.bytes), (0, 5));
        assert_eq!(counter.day.period, utc().day(now));
    }

    #[test]
    fn a_change_of_the_calendar_waits_for_the_end_of_the_period() {
        let mut counter = Counter::new(&utc(), at("2026-03-02T07:00:00Z"));
        counter.add(5);
        let other = Calendar::new(TimeZone::get("Asia/Tokyo").unwrap(), 3);
        assert!(!counter.roll(&other, at("2026-03-02T23:00:00Z"), HOUR));
        assert!(counter.roll(&other, at("2026-03-03T00:00:00Z"), HOUR));
        assert_eq!((counter.day.bytes, counter.month.bytes), (0, 5));
        assert_eq!(counter.day.period.end, at("2026-03-03T15:00:00Z"));
    }
}
