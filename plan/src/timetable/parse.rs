//! The text of a timetable.

use jiff::civil;

use super::{CHANGES_MAX, Change, TEXT_BYTES_MAX, TEXTS_MAX};
use crate::Rate;

/// What is wrong, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flaw {
    /// What is wrong, as a fragment.
    pub what: String,
    /// What to write, as an instruction.
    pub fix: String,
}

/// Why texts are no timetable. `Display` says what is wrong, [`Error::fix`] what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No text at all, or an empty one.
    #[error("no changes")]
    Empty {
        /// Number of the text.
        text: usize,
    },
    /// More texts, bytes or changes than allowed.
    #[error("too long: {count} {what}, at most {most} are allowed")]
    TooLong {
        /// Number of the text.
        text: usize,
        /// What is counted.
        what: &'static str,
        /// How many there are.
        count: usize,
        /// How many there may be.
        most: usize,
    },
    /// A change that is not days, time and rate.
    #[error("\"{change}\" is not days, a time and a rate")]
    Change {
        /// Number of the text.
        text: usize,
        /// The change as written.
        change: String,
    },
    /// The first change of a text has no days.
    #[error("\"{change}\" begins without days")]
    NoDays {
        /// Number of the text.
        text: usize,
        /// The change as written.
        change: String,
    },
    /// Days that there are not.
    #[error("no days: \"{days}\"")]
    Days {
        /// Number of the text.
        text: usize,
        /// As written.
        days: String,
    },
    /// A time that no clock shows.
    #[error("no time of day: \"{time}\"")]
    Time {
        /// Number of the text.
        text: usize,
        /// As written.
        time: String,
    },
    /// A rate that cannot be read.
    #[error("the rate of \"{change}\" is {what}", what = flaw.what)]
    Rate {
        /// Number of the text.
        text: usize,
        /// The change as written.
        change: String,
        /// What is wrong with its rate.
        flaw: Flaw,
    },
    /// Two changes at the same time of the same day.
    #[error("two changes on {day} at {time}")]
    Twice {
        /// Number of the text of the second one.
        text: usize,
        /// The day.
        day: &'static str,
        /// The time.
        time: civil::Time,
    },
}

impl Error {
    /// Number of the text with the mistake, from 0.
    pub fn text(&self) -> usize {
        match self {
            Self::Empty { text }
            | Self::TooLong { text, .. }
            | Self::Change { text, .. }
            | Self::NoDays { text, .. }
            | Self::Days { text, .. }
            | Self::Time { text, .. }
            | Self::Rate { text, .. }
            | Self::Twice { text, .. } => *text,
        }
    }

    /// What to write instead, as an instruction.
    pub fn fix(&self) -> String {
        match self {
            Self::Empty { .. } | Self::Change { .. } => "write for example \"Mon-Fri 08:00 512kbit, 18:00 10Mbit, 23:00 off\"".to_owned(),
            Self::TooLong { .. } => "join days that are alike: Mon-Fri, daily".to_owned(),
            Self::NoDays { change, .. } => format!("write the days before it, for example \"Mon-Fri {change}\" or \"daily {change}\""),
            Self::Days { .. } => "write Mon, Tue, Wed, Thu, Fri, Sat or Sun, two of them with a dash, or daily".to_owned(),
            Self::Time { .. } => "write hours and minutes, 00:00 to 23:59".to_owned(),
            Self::Rate { flaw, .. } => flaw.fix.clone(),
            Self::Twice { .. } => "keep one of them".to_owned(),
        }
    }
}

/// Three letters for each day.
const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

/// The changes of all texts in the order of the week.
pub(super) fn changes(texts: &[&str], rate: impl Fn(&str) -> Result<Rate, Flaw>) -> Result<Vec<Change>, Error> {
    if texts.len() > TEXTS_MAX {
        return Err(Error::TooLong { text: TEXTS_MAX, what: "texts", count: texts.len(), most: TEXTS_MAX });
    }
    let mut changes: Vec<Change> = Vec::new();
    for (number, text) in texts.iter().enumerate() {
        if text.len() > TEXT_BYTES_MAX {
            return Err(Error::TooLong { text: number, what: "bytes", count: text.len(), most: TEXT_BYTES_MAX });
        }
        if text.trim().is_empty() {
            return Err(Error::Empty { text: number });
        }
        let mut days = Vec::new();
        for written in text.split(',').map(str::trim) {
            let (time, rate) = change(number, written, &mut days, &rate)?;
            for day in days.iter().copied() {
                add(&mut changes, Change { day, time, rate }, number)?;
            }
        }
    }
    if changes.is_empty() {
        return Err(Error::Empty { text: 0 });
    }
    Ok(changes)
}

/// Reads one change; replaces `days` if it has its own.
fn change(text: usize, written: &str, days: &mut Vec<i8>, rate: impl Fn(&str) -> Result<Rate, Flaw>) -> Result<(civil::Time, Rate), Error> {
    let words: Vec<&str> = written.split_whitespace().collect();
    let (own, time, rate_text) = match words.as_slice() {
        [own, time, rate] => (Some(*own), *time, *rate),
        [time, rate] => (None, *time, *rate),
        _ => return Err(Error::Change { text, change: written.to_owned() }),
    };
    let time = time_of(time).ok_or_else(|| Error::Time { text, time: time.to_owned() })?;
    match own {
        Some(own) => *days = days_of(own).ok_or_else(|| Error::Days { text, days: own.to_owned() })?,
        None if days.is_empty() => return Err(Error::NoDays { text, change: written.to_owned() }),
        None => {}
    }
    let rate = rate(rate_text).map_err(|flaw| Error::Rate { text, change: written.to_owned(), flaw })?;
    Ok((time, rate))
}

fn add(changes: &mut Vec<Change>, change: Change, text: usize) -> Result<(), Error> {
    match changes.binary_search_by_key(&(change.day, change.time), |other| (other.day, other.time)) {
        Ok(_) => {
            let day = usize::try_from(change.day).ok().and_then(|day| DAYS.get(day)).copied().unwrap_or_default();
            Err(Error::Twice { text, day, time: change.time })
        }
        Err(_) if changes.len() >= CHANGES_MAX => {
            Err(Error::TooLong { text, what: "changes in a week", count: CHANGES_MAX + 1, most: CHANGES_MAX })
        }
        Err(place) => {
            changes.insert(place, change);
            Ok(())
        }
    }
}

/// `Mon`, `Mon-Fri`, `Sat-Mon`, `daily`; upper and lower case are alike.
fn days_of(text: &str) -> Option<Vec<i8>> {
    let day = |name: &str| DAYS.iter().position(|day| day.eq_ignore_ascii_case(name)).and_then(|day| i8::try_from(day).ok());
    if text.eq_ignore_ascii_case("daily") {
        return Some((0..7).collect());
    }
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (day(first)?, day(last)?),
        None => (day(text)?, day(text)?),
    };
    let count = (last - first).rem_euclid(7) + 1;
    Some((0..count).map(|days| (first + days) % 7).collect())
}

fn time_of(text: &str) -> Option<civil::Time> {
    let (hour, minute) = text.split_once(':')?;
    let number = |digits: &str| (digits.len() <= 2 && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok())?;
    if minute.len() != 2 {
        return None;
    }
    civil::Time::new(number(hour)?, number(minute)?, 0, 0).ok()
}
