//! Bytes for a day and a month, spread over the time left.

use jiff::{SignedDuration, Timestamp};

use crate::counter::{Counter, Used};
use crate::{Calendar, Period, Rate};

/// Part of a period's bytes that may be used before their time has come: an hour of a day, a day and a quarter of a month.
const BURST_PART: u64 = 24;

/// What is left of the burst, and what was not used in its time, may go out within about this time.
const CREDIT_TIME: SignedDuration = SignedDuration::from_secs(60);

/// Slowest rate that keeps a QUIC connection alive (1,200 bytes, its least datagram at the beginning, take 1.2 s). Where the pace is slower, data is
/// held and let go by turns.
pub const PACE_LEAST_BITS: u64 = 8_000;

/// Left for taking leave: a period counts as used up with so many bytes left, or a 400th part of it if that is less.
const LEAVE_BYTES: u64 = 8 * 1024;

/// Kept for each look: so a site that has used up its month is heard of, and hears of a larger budget, before the month is over. To open a session takes up to 6 KB
/// of both directions, settings some more.
const LOOK_BYTES: u64 = 12 * 1024;

/// Looks may take this part of a budget at the most.
const LOOKS_PART: u64 = 20;

/// The shortest time from which a pace is taken for the forecast.
const FORECAST_LEAST: SignedDuration = SignedDuration::from_hours(1);

/// Bytes on the wire for a day, for a month, or both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Budget {
    /// Where days and months begin.
    pub calendar: Calendar,
    /// Bytes of a day; `None`: as many as the month allows.
    pub daily: Option<u64>,
    /// Bytes of a month; `None`: as many as the days allow.
    pub monthly: Option<u64>,
    /// Part of both that is kept for class 0, in percent, at most 100.
    pub reserve_percent: u8,
}

/// Which data may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Open {
    /// None.
    Nothing,
    /// Class 0 only.
    Highest,
    /// All classes.
    All,
}

/// What a budget says at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// The rate.
    pub rate: Rate,
    /// For which data.
    pub open: Open,
    /// Until when this holds for sure, if nothing is sent.
    pub until: Option<Timestamp>,
}

impl Budget {
    /// What may be sent at `now`, the stricter of day and month. Both periods of `counter` are those of `now`, see [`Counter::roll`].
    pub fn pace(&self, counter: &Counter, now: Timestamp) -> Pace {
        let free = Pace { rate: Rate::Unlimited, open: Open::All, until: None };
        self.periods(counter).map(|(limit, used)| self.pace_of(limit, used, now)).fold(free, |a, b| Pace {
            rate: a.rate.min(b.rate),
            open: a.open.min(b.open),
            until: if (a.open, a.rate) < (b.open, b.rate) { a.until } else { b.until },
        })
    }

    /// Bytes that may still be sent in all, reserve included: no more than this may leave before the counter is looked at again.
    pub fn left(&self, counter: &Counter) -> u64 {
        self.periods(counter).map(|(limit, used)| limit.saturating_sub(used.bytes)).min().unwrap_or(u64::MAX)
    }

    /// When the bytes for all classes run out at the pace of the period so far, if that is before the period ends: of day and month the earlier.
    pub fn runs_out(&self, counter: &Counter, now: Timestamp) -> Option<Timestamp> {
        let of = |(limit, used): (u64, &Used)| {
            let left = self.usable(limit).saturating_sub(used.bytes);
            let counted = used.since.duration_until(now).max(FORECAST_LEAST);
            if left == 0 {
                return Some(now);
            }
            let seconds = left as f64 * counted.as_secs_f64() / used.bytes.max(1) as f64;
            let at = now.checked_add(SignedDuration::try_from_secs_f64(seconds).ok()?).ok()?;
            (at < used.period.end).then_some(at)
        };
        self.periods(counter).filter_map(of).min()
    }

    /// The step in which the durable counter runs ahead of use: what a power cut can waste. A 400th part (0.25 %) of the smaller budget.
    pub fn lease(&self) -> u64 {
        let least = self.daily.into_iter().chain(self.monthly).min().unwrap_or(u64::MAX);
        (least / 400).max(1)
    }

    fn periods<'a>(&self, counter: &'a Counter) -> impl Iterator<Item = (u64, &'a Used)> + use<'a> {
        let day = self.daily.map(|limit| (limit, &counter.day));
        day.into_iter().chain(self.monthly.map(|limit| (limit, &counter.month)))
    }

    /// Bytes for all classes.
    fn usable(&self, limit: u64) -> u64 {
        let kept = u128::from(limit) * u128::from(self.reserve_percent.min(100)) / 100;
        limit - u64::try_from(kept).unwrap_or(limit)
    }

    fn pace_of(&self, limit: u64, used: &Used, now: Timestamp) -> Pace {
        let end = used.period.end;
        if let Some(until) = used_up_until(limit, used, now) {
            return Pace { rate: Rate::Off, open: Open::Nothing, until: Some(until) };
        }
        let usable = self.usable(limit);
        let left = usable.saturating_sub(used.bytes);
        if left == 0 {
            return Pace { rate: Rate::Unlimited, open: Open::Highest, until: Some(end) };
        }
        // Of a clock that is before the period or behind it nothing is known: then it is as at the period's beginning.
        let time_left = now.max(used.period.start).duration_until(end).as_secs().max(1) as u64;
        let even = left * 8 / time_left;
        let due = share(usable, used.period, now).saturating_add(usable / BURST_PART);
        let credit = due.saturating_sub(used.bytes).min(left);
        let bits = even + credit * 8 / CREDIT_TIME.as_secs() as u64;
        if credit == 0 && bits < PACE_LEAST_BITS {
            return Pace { rate: Rate::bits(PACE_LEAST_BITS), open: Open::Highest, until: None };
        }
        Pace { rate: Rate::bits(bits.max(PACE_LEAST_BITS)), open: Open::All, until: None }
    }
}

/// Until when nothing may be sent, if what is left is for taking leave and for the looks to come.
///
/// Looks are a day apart, in a small budget some days, and counted from the period's end: at each the bytes that were kept for it come free. So a day has none.
fn used_up_until(limit: u64, used: &Used, now: Timestamp) -> Option<Timestamp> {
    let end = used.period.end;
    let left = limit.saturating_sub(used.bytes).checked_sub(LEAVE_BYTES.min(limit / 400)).filter(|left| *left > 0);
    let Some(left) = left else { return Some(end) };
    let most = used.period.length().as_hours().unsigned_abs() / 24 * LOOK_BYTES;
    let apart = SignedDuration::from_hours(24 * most.div_ceil((limit / LOOKS_PART).max(1)).clamp(1, 31) as i64);
    let to_come = (now.duration_until(end).as_secs() - 1).max(0) / apart.as_secs();
    let looks = i64::try_from(left.div_ceil(LOOK_BYTES)).unwrap_or(i64::MAX);
    // With less than all of them kept, one of them is under way.
    (looks <= to_come).then(|| end.checked_sub(apart * i32::try_from(looks).unwrap_or(i32::MAX)).unwrap_or(end))
}

/// The part of `bytes` whose time has come at `now`, if they are spread evenly over `period`.
pub(crate) fn share(bytes: u64, period: Period, now: Timestamp) -> u64 {
    let length = period.length().as_secs().max(1);
    let gone = period.start.duration_until(now).as_secs().clamp(0, length);
    u64::try_from(u128::from(bytes) * gone.unsigned_abs() as u128 / length.unsigned_abs() as u128).unwrap_or(bytes)
}
