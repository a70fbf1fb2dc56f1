//! What the outside sees of the plan.

use std::fmt::Write as _;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use spillway_config::units::rate_or_off;
use spillway_plan::{Meter, Open, Rate};
use spillway_proto::message::revision;

use super::Plan;

/// What the site may send. Sizes in bytes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PlanStatus {
    /// The rate in force: `512kbit`, `off`, `unlimited`.
    pub rate: String,
    /// What set it: `unlimited`, `agent`, `site`, `timetable` or `budget`.
    pub why: String,
    /// Until when, if that is known (RFC 3339).
    pub until: Option<String>,
    /// Which data may be sent: `all`, `class 0` or `nothing`.
    pub data: String,
    /// Revision of the centre's settings in force, in hexadecimal digits.
    pub revision: String,
    /// Whether they are on trial.
    pub on_trial: bool,
    /// The settings on trial say off, and the centre is being asked, under those before, whether that stands.
    #[serde(default)]
    pub asking: bool,
    /// Until it is asked, while they say off.
    #[serde(default)]
    pub asks_in_seconds: Option<f64>,
    /// Revision of settings that were given up because contact was lost under them.
    pub given_up: Option<String>,
    /// What is used of the budget; absent without one.
    pub budget: Option<BudgetStatus>,
    /// What is wrong with the files of the plan.
    pub trouble: Option<String>,
}

/// What is used of the budget.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BudgetStatus {
    /// Of the day.
    pub day_used: u64,
    /// Bytes of a day; absent: unlimited.
    pub day_limit: Option<u64>,
    /// Of the month.
    pub month_used: u64,
    /// Bytes of a month; absent: unlimited.
    pub month_limit: Option<u64>,
    /// When it runs out at the pace so far, if before the period ends (RFC 3339).
    pub runs_out: Option<String>,
}

impl Plan {
    /// What to show.
    pub fn status(&self) -> PlanStatus {
        let decision = self.decision;
        let hex = |revision: u64| format!("{revision:016x}");
        PlanStatus {
            rate: rate_or_off(decision.rate),
            why: decision.why.as_str().to_owned(),
            until: decision.until.map(|until| until.to_string()),
            data: match decision.open {
                Open::All => "all",
                Open::Highest => "class 0",
                Open::Nothing => "nothing",
            }
            .to_owned(),
            revision: hex(revision(self.book.in_force())),
            on_trial: self.book.is_on_trial(),
            asking: self.book.is_looking(),
            asks_in_seconds: self.next_look().map(|after| after.as_secs_f64()),
            given_up: self.book.given_up().map(hex),
            budget: self.budget_status(),
            trouble: self.trouble.clone(),
        }
    }

    /// The rate in bits per second, `+Inf` where there is no limit.
    pub fn rate_bits(&self) -> f64 {
        match self.decision.rate {
            Rate::Off => 0.0,
            Rate::Limited(bits) => bits.get() as f64,
            Rate::Unlimited => f64::INFINITY,
        }
    }

    /// When the budget runs out, if it does.
    pub fn runs_out(&self) -> Option<Timestamp> {
        let (budget, meter) = self.limits.budget.as_ref().zip(self.meter.as_ref())?;
        budget.runs_out(meter.counter(), Timestamp::now())
    }

    /// What is used of the budget; `None` without one.
    pub fn budget_status(&self) -> Option<BudgetStatus> {
        let (budget, counter) = self.limits.budget.as_ref().zip(self.meter.as_ref().map(Meter::counter))?;
        Some(BudgetStatus {
            day_used: counter.day.bytes,
            day_limit: budget.daily,
            month_used: counter.month.bytes,
            month_limit: budget.monthly,
            runs_out: self.runs_out().map(|at| at.to_string()),
        })
    }
}

impl PlanStatus {
    /// One line for people.
    pub fn render(&self) -> String {
        let mut text = format!("{} ({})", self.rate, self.why);
        if let Some(until) = &self.until {
            _ = write!(text, " until {until}");
        }
        if self.data != "all" {
            _ = write!(text, ", data that may be sent: {}", self.data);
        }
        if self.on_trial {
            text.push_str(", the centre's settings are on trial");
        }
        if self.asking {
            text.push_str(": they say off, and the centre is asked whether that stands");
        } else if let Some(seconds) = self.asks_in_seconds {
            _ = write!(text, ": in {seconds:.0} s the centre is asked whether off stands");
        }
        if let Some(revision) = &self.given_up {
            _ = write!(text, ", the centre's settings {revision} were given up: contact was lost under them");
        }
        if let Some(trouble) = &self.trouble {
            _ = write!(text, ": {trouble}");
        }
        text
    }
}

impl BudgetStatus {
    /// One line for people.
    pub fn render(&self) -> String {
        let part = |used: u64, limit: Option<u64>, name: &str| {
            limit.map(|limit| format!("{used} of {limit} bytes of the {name}, {:.1} %", used as f64 * 100.0 / limit.max(1) as f64))
        };
        let parts = [part(self.day_used, self.day_limit, "day"), part(self.month_used, self.month_limit, "month")];
        let mut text = parts.into_iter().flatten().collect::<Vec<_>>().join("; ");
        if let Some(at) = &self.runs_out {
            _ = write!(text, "; runs out {at}");
        }
        text
    }
}
