//! Rates by the hours of the week.
//!
//! A text is a list of changes, with commas between them: `Mon-Fri 08:00 512kbit, 12:00 10Mbit, 23:00 off`. A change is days, a local time, and
//! the rate that holds from then on. Days are `Mon`, `Mon-Fri` (which may go over the end of the week: `Sat-Mon`) or `daily`; a change without days
//! is for those of the change before it in the same text. It works like a thermostat: a change holds until the next one comes, also over days that
//! have none of their own, and the last one of the week holds until the first one of the next.
//!
//! Times are those of a clock on the wall. Where the clock is put forward, a change at a time that is skipped comes when the clock is put forward; where
//! it is put back, a change at a time that comes twice comes the first time.

use jiff::{Timestamp, ToSpan, civil, tz::TimeZone};

use crate::Rate;

mod parse;

pub use parse::{Error, Flaw};

/// Most texts of a timetable.
pub const TEXTS_MAX: usize = 64;

/// Most bytes of a text.
pub const TEXT_BYTES_MAX: usize = 1000;

/// Most changes of a week: one every quarter of an hour.
pub const CHANGES_MAX: usize = 7 * 24 * 4;

/// Days to look back for the change that holds: the week, the day that is under way, and one that a time zone may skip when it crosses the date line.
const DAYS_BACK: i64 = 9;

/// Rates by the hours of the week, in a time zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timetable {
    zone: TimeZone,
    /// In the order of the week; no two at the same time. Never empty.
    changes: Vec<Change>,
}

/// From a minute of the week on, a rate holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Change {
    /// 0 is Monday.
    day: i8,
    time: civil::Time,
    rate: Rate,
}

impl Timetable {
    /// Reads the texts of a timetable; `rate` reads one rate, and its error says what is wrong and what to write.
    ///
    /// # Errors
    /// The first mistake, with the number of its text (from 0).
    pub fn parse(zone: TimeZone, texts: &[&str], rate: impl Fn(&str) -> Result<Rate, Flaw>) -> Result<Self, Error> {
        Ok(Self { zone, changes: parse::changes(texts, rate)? })
    }

    /// Whether nothing may ever be sent.
    pub fn is_always_off(&self) -> bool {
        self.changes.iter().all(|change| change.rate == Rate::Off)
    }

    /// The rate that holds at `at`.
    pub fn rate_at(&self, at: Timestamp) -> Rate {
        let today = at.to_zoned(self.zone.clone()).date();
        let back = (-1..DAYS_BACK).filter_map(|days| today.checked_sub(days.days()).ok());
        let moments = back.flat_map(|date| self.moments_of(date).rev());
        let holds = moments.into_iter().find(|(moment, _)| *moment <= at);
        // Only at the very beginning of time is there nothing before; then the last change of the week holds.
        holds.map(|(_, rate)| rate).or_else(|| self.changes.last().map(|change| change.rate)).unwrap_or(Rate::Unlimited)
    }

    /// When after `after` another rate holds than at `after`; `None`: never.
    pub fn next_change(&self, after: Timestamp) -> Option<Timestamp> {
        let holds = self.rate_at(after);
        let today = after.to_zoned(self.zone.clone()).date();
        let dates = (-1..DAYS_BACK).filter_map(|days| today.checked_add(days.days()).ok());
        let moments = dates.flat_map(|date| self.moments_of(date)).filter(|(moment, _)| *moment > after);
        // Of changes that come at the same moment, because a gap of the clock has swallowed their times, the last one holds.
        let mut found: Option<(Timestamp, Rate)> = None;
        for (moment, rate) in moments {
            match found {
                Some((first, other)) if moment > first && other != holds => return Some(first),
                _ => found = Some((moment, rate)),
            }
        }
        found.filter(|(_, rate)| *rate != holds).map(|(moment, _)| moment)
    }

    /// The changes of a date and when they come, in the order of the wall clock, which is never against that of time.
    fn moments_of(&self, date: civil::Date) -> impl DoubleEndedIterator<Item = (Timestamp, Rate)> + '_ {
        let day = date.weekday().to_monday_zero_offset();
        let of_day = self.changes.iter().filter(move |change| change.day == day);
        of_day.filter_map(move |change| Some((moment(&self.zone, date.to_datetime(change.time))?, change.rate)))
    }
}

/// When a wall clock shows `local` first; if it never does, when it jumps over it. `None` at the ends of time.
pub(crate) fn moment(zone: &TimeZone, local: civil::DateTime) -> Option<Timestamp> {
    use jiff::tz::AmbiguousOffset;
    match zone.to_ambiguous_timestamp(local).offset() {
        AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(local).ok(),
        AmbiguousOffset::Fold { before, .. } => before.to_timestamp(local).ok(),
        AmbiguousOffset::Gap { after, .. } => {
            // By the offset after the jump the time would lie before the jump.
            let earlier = after.to_timestamp(local).ok()?;
            zone.following(earlier).next().map(|jump| jump.timestamp())
        }
    }
}

#[cfg(test)]
mod tests;
