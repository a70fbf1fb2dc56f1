//! The days and months that budgets are for.

use jiff::{SignedDuration, Timestamp, civil::Date, tz::TimeZone};

use crate::timetable::moment;

/// Latest day on which a budget's month may begin: the last one that every month has.
pub const MONTH_BEGINS_MAX: i8 = 28;

/// Where days and months begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Calendar {
    zone: TimeZone,
    month_begins: i8,
}

/// A span of time, the start included, the end not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Period {
    /// Its first moment.
    pub start: Timestamp,
    /// The first moment after it.
    pub end: Timestamp,
}

impl Calendar {
    /// Days from midnight to midnight in `zone`; months from midnight of day `month_begins` on, which is brought into 1 to [`MONTH_BEGINS_MAX`].
    pub fn new(zone: TimeZone, month_begins: i8) -> Self {
        Self { zone, month_begins: month_begins.clamp(1, MONTH_BEGINS_MAX) }
    }

    /// The day of `at`: 23 to 25 hours as a rule.
    pub fn day(&self, at: Timestamp) -> Period {
        self.find(
            at,
            at.to_zoned(self.zone.clone()).date(),
            |date, days| {
                if days < 0 { date.yesterday().ok() } else { date.tomorrow().ok() }
            },
        )
    }

    /// The month of `at`.
    pub fn month(&self, at: Timestamp) -> Period {
        let date = at.to_zoned(self.zone.clone()).date();
        let begun = Date::new(date.year(), date.month(), self.month_begins).unwrap_or(date);
        self.find(at, begun, months)
    }

    /// The period around `at`; `date` is where one begins that is not far off, `step` goes one period on (1) or back (-1).
    fn find(&self, at: Timestamp, date: Date, step: impl Fn(Date, i32) -> Option<Date>) -> Period {
        let begin = |date: Date| moment(&self.zone, date.at(0, 0, 0, 0));
        let mut first = Some(date);
        // A step back for a month that has not begun yet, one on for clocks that were put back over midnight, one more for a day that was skipped.
        for _ in 0..4 {
            let Some((date, next)) = first.and_then(|date| Some((date, step(date, 1)?))) else { break };
            match (begin(date), begin(next)) {
                (Some(start), Some(end)) if start <= at && at < end => return Period { start, end },
                (Some(start), _) if at < start => first = step(date, -1),
                (Some(_), Some(_)) => first = Some(next),
                _ => break,
            }
        }
        // The ends of time.
        Period { start: Timestamp::MIN, end: Timestamp::MAX }
    }
}

impl Period {
    /// How long it is.
    pub fn length(&self) -> SignedDuration {
        self.start.duration_until(self.end)
    }
}

fn months(date: Date, months: i32) -> Option<Date> {
    let (year, month) = (i32::from(date.year()), i32::from(date.month()) - 1 + months);
    let year = i16::try_from(year + month.div_euclid(12)).ok()?;
    Date::new(year, i8::try_from(month.rem_euclid(12) + 1).ok()?, date.day()).ok()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn calendar(zone: &str, begins: i8) -> Calendar {
        Calendar::new(TimeZone::get(zone).unwrap(), begins)
    }

    fn period(start: &str, end: &str) -> Period {
        Period { start: at(start), end: at(end) }
    }

    #[test]
    fn days_are_as_long_as_the_clock_makes_them() {
        let berlin = calendar("Europe/Berlin", 1);
        assert_eq!(berlin.day(at("2026-03-29T12:00:00Z")), period("2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z"));
        assert_eq!(berlin.day(at("2026-10-25T12:00:00Z")).length(), SignedDuration::from_hours(25));
        // Santiago puts its clock forward at midnight: the day begins at one.
        let santiago = calendar("America/Santiago", 1);
        assert_eq!(santiago.day(at("2026-09-06T12:00:00Z")).start, at("2026-09-06T04:00:00Z"));
        // The day that Samoa skipped.
        let samoa = calendar("Pacific/Apia", 1);
        assert_eq!(samoa.day(at("2011-12-30T09:00:00Z")).end, at("2011-12-30T10:00:00Z"));
        assert_eq!(samoa.day(at("2011-12-30T10:00:00Z")), period("2011-12-30T10:00:00Z", "2011-12-31T10:00:00Z"));
    }

    #[test]
    fn months_begin_on_their_day() {
        let utc = calendar("UTC", 15);
        assert_eq!(utc.month(at("2026-01-14T23:59:59Z")), period("2025-12-15T00:00:00Z", "2026-01-15T00:00:00Z"));
        assert_eq!(utc.month(at("2026-01-15T00:00:00Z")), period("2026-01-15T00:00:00Z", "2026-02-15T00:00:00Z"));
        assert_eq!(calendar("UTC", 31).month(at("2026-02-28T00:00:00Z")).start, at("2026-02-28T00:00:00Z"));
    }

    #[test]
    fn every_moment_is_in_one_day_and_one_month() {
        for zone in ["Europe/Berlin", "America/Havana", "America/Santiago", "Pacific/Apia", "Australia/Lord_Howe", "Asia/Kathmandu", "UTC"]
        {
            let calendar = calendar(zone, 7);
            for first in ["2011-12-01T00:07:00Z", "2026-01-01T00:00:00Z"] {
                let (mut day, mut month) = (calendar.day(at(first)), calendar.month(at(first)));
                for step in 1..366 * 48 {
                    let now = at(first) + SignedDuration::from_mins(step * 30);
                    for (period, last) in [(calendar.day(now), &mut day), (calendar.month(now), &mut month)] {
                        assert!(period.start <= now && now < period.end, "{zone} {now}: {period:?}");
                        assert!(period == *last || period.start == last.end, "{zone} {now}: {last:?} then {period:?}");
                        *last = period;
                    }
                }
            }
        }
    }
}
