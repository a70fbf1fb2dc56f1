//! The one answer to "which rate holds at this moment, and until when".

use jiff::Timestamp;

use crate::{Budget, Counter, Open, Rate, Timetable};

/// Everything that limits what a site sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// `link.rate_max` of the agent's own configuration.
    pub own: Rate,
    /// `link.rate_max` of the site file at the centre.
    pub site: Rate,
    /// The site file's timetable.
    pub timetable: Option<Timetable>,
    /// The site file's budget.
    pub budget: Option<Budget>,
}

/// What holds at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// The rate of the line.
    pub rate: Rate,
    /// What set it.
    pub why: Why,
    /// Which data may be sent.
    pub open: Open,
    /// Until when this holds, if nothing is sent and no setting changes; `None`: for good. With a budget look again every second.
    pub until: Option<Timestamp>,
}

/// What set the rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Nothing: it is unlimited.
    Nothing,
    /// The agent's own `link.rate_max`.
    Own,
    /// The site file's `link.rate_max`.
    Site,
    /// The timetable.
    Timetable,
    /// The budget.
    Budget,
}

impl Limits {
    /// What holds at `now`: the strictest of all. `counter` is what the budget has used.
    pub fn now(&self, now: Timestamp, counter: Option<&Counter>) -> Decision {
        let timetable = self.timetable.as_ref().map(|table| (table.rate_at(now), table.next_change(now)));
        let pace = self.budget.as_ref().zip(counter).map(|(budget, counter)| budget.pace(counter, now));
        let candidates = [
            Some((self.own, Why::Own)),
            Some((self.site, Why::Site)),
            timetable.map(|(rate, _)| (rate, Why::Timetable)),
            pace.map(|pace| (pace.rate, Why::Budget)),
        ];
        let strictest = candidates.into_iter().flatten().min_by_key(|(rate, _)| *rate);
        let (rate, why) = strictest.filter(|(rate, _)| *rate != Rate::Unlimited).unwrap_or((Rate::Unlimited, Why::Nothing));
        let open = if rate == Rate::Off { Open::Nothing } else { pace.map_or(Open::All, |pace| pace.open) };
        let until = [timetable.and_then(|(_, next)| next), pace.and_then(|pace| pace.until)].into_iter().flatten().min();
        Decision { rate, why, open, until }
    }

    /// Whether the timetable says that nothing is sent at `now`: silence is no sign of trouble then.
    pub fn is_off(&self, now: Timestamp) -> bool {
        self.timetable.as_ref().is_some_and(|table| table.rate_at(now) == Rate::Off)
    }
}

impl Why {
    /// One word, for status and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nothing => "unlimited",
            Self::Own => "agent",
            Self::Site => "site",
            Self::Timetable => "timetable",
            Self::Budget => "budget",
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use jiff::tz::TimeZone;

    use super::*;
    use crate::{Calendar, timetable::Flaw};

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn rate(text: &str) -> Result<Rate, Flaw> {
        Ok(Rate::bits(text.parse().unwrap()))
    }

    fn limits() -> Limits {
        let timetable = Timetable::parse(TimeZone::UTC, &["daily 08:00 500000, 20:00 0"], rate).unwrap();
        let calendar = Calendar::new(TimeZone::UTC, 1);
        let budget = Budget { calendar, daily: Some(100_000_000), monthly: None, reserve_percent: 0 };
        Limits { own: Rate::bits(800_000), site: Rate::Unlimited, timetable: Some(timetable), budget: Some(budget) }
    }

    #[test]
    fn the_strictest_holds_and_says_why_and_until_when() {
        let (limits, noon) = (limits(), at("2026-03-02T12:00:00Z"));
        let mut counter = Counter::new(&limits.budget.as_ref().unwrap().calendar, noon);
        let decision = limits.now(noon, Some(&counter));
        let until = Some(at("2026-03-02T20:00:00Z"));
        assert_eq!(decision, Decision { rate: Rate::bits(500_000), why: Why::Timetable, open: Open::All, until });
        let slow = Limits { site: Rate::bits(9_000), ..limits.clone() };
        assert_eq!((slow.now(noon, None).rate, slow.now(noon, None).why), (Rate::bits(9_000), Why::Site));
        let own = Limits { timetable: None, budget: None, ..limits.clone() };
        assert_eq!(own.now(noon, None), Decision { rate: Rate::bits(800_000), why: Why::Own, open: Open::All, until: None });

        // What is due by noon and the burst are used: 44 MB are left for twelve hours.
        counter.add(56_000_000);
        let decision = limits.now(noon, Some(&counter));
        assert_eq!((decision.why, decision.open), (Why::Budget, Open::All));
        assert_eq!(decision.rate, Rate::bits(44_000_000 * 8 / (12 * 3600)));
    }

    #[test]
    fn off_is_off_until_the_next_change() {
        let (limits, night) = (limits(), at("2026-03-02T22:00:00Z"));
        let until = Some(at("2026-03-03T08:00:00Z"));
        assert_eq!(limits.now(night, None), Decision { rate: Rate::Off, why: Why::Timetable, open: Open::Nothing, until });
        assert!(limits.is_off(night) && !limits.is_off(at("2026-03-02T12:00:00Z")));
    }

    #[test]
    fn without_limits_there_is_none() {
        let limits = Limits { own: Rate::Unlimited, site: Rate::Unlimited, timetable: None, budget: None };
        let free = Decision { rate: Rate::Unlimited, why: Why::Nothing, open: Open::All, until: None };
        assert_eq!(limits.now(at("2026-03-02T22:00:00Z"), None), free);
    }
}
