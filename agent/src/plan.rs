//! What the site may send: the centre's settings, what is used up of the budget, and the cap at the socket that follows from them.
//!
//! Decisions are made in [`spillway_plan`] and [`spillway_agent_core::settings`]; here the clock is read, files are kept, the cap is set.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use spillway_agent_core::settings::{Kept, Leave, Patience, SettingsBook, Step};
use spillway_config::units::{BitRate, rate_or_off};
use spillway_config::{Count, SiteSettings};
use spillway_link::{Counting, RateCap};
use spillway_plan::{Counter, Decision, Limits, Meter, Open, Rate, Why};
use spillway_proto::message::{Settings, SettingsOutcome, SettingsReport};
use tokio::task::JoinHandle;

pub(crate) mod files;
mod status;

use files::{BUDGET_FILE, Read, SETTINGS_FILE};
pub use status::{BudgetStatus, PlanStatus};

/// See the module. Look at the clock by [`Plan::tick`] once a second.
#[derive(Debug)]
pub struct Plan {
    cap: RateCap,
    own: Option<BitRate>,
    dir: PathBuf,
    book: SettingsBook,
    settings: SiteSettings,
    limits: Limits,
    /// Since a budget came into force for the first time.
    meter: Option<Meter>,
    /// A lease on its way to the disk.
    writing: Option<JoinHandle<std::io::Result<()>>>,
    decision: Decision,
    leave: Leave,
    looked: Instant,
    rolled_back: u64,
    trouble: Option<String>,
}

impl Plan {
    /// Goes on with what is kept in `dir`; `own` is the agent's own `link.rate_max`. What cannot be read is told in the log: then the centre's settings are in
    /// force when it has sent them again, and a budget counts as used as far as is safe.
    pub fn open(dir: PathBuf, own: Option<BitRate>, cap: RateCap, patience: Patience) -> Self {
        let (kept, trouble) = kept_settings(&dir);
        let (settings, trouble) = match SiteSettings::parse(&kept.text) {
            Ok(settings) => (settings, trouble),
            Err(problems) => {
                let trouble = format!("the settings of the centre, kept in {}: {problems}", dir.join(SETTINGS_FILE).display());
                (SiteSettings::default(), Some(trouble))
            }
        };
        if let Some(trouble) = &trouble {
            tracing::error!(event = "settings_unreadable", trouble, "without the centre's settings until it sends them again");
        }
        let free = Decision { rate: Rate::Unlimited, why: Why::Nothing, open: Open::All, until: None };
        let limits = SiteSettings::default().limits(own);
        let (book, looked) = (SettingsBook::new(kept, patience), Instant::now());
        let (meter, writing) = (None, None);
        let mut plan = Self {
            cap,
            own,
            dir,
            book,
            settings: SiteSettings::default(),
            limits,
            meter,
            writing,
            decision: free,
            leave: Leave::TAKEN,
            looked,
            rolled_back: 0,
            trouble,
        };
        plan.apply(settings);
        plan
    }

    /// What holds.
    pub fn decision(&self) -> Decision {
        self.decision
    }

    /// Whether nothing may be sent, not even to keep a connection.
    pub fn is_off(&self) -> bool {
        self.decision.rate == Rate::Off
    }

    /// Whether the session is to be closed since nothing may be sent; `has_reports`: the centre has not answered all reports.
    pub fn must_close(&self, has_reports: bool) -> bool {
        self.leave.must_close(has_reports)
    }

    /// Whether all is as ordered without a session: the plan says off, or the agent asks whether it shall.
    pub fn needs_no_session(&self) -> bool {
        self.is_off() || self.book.is_looking()
    }

    /// Whether data of class `class` may be sent.
    pub fn is_open_for(&self, class: u8) -> bool {
        match self.decision.open {
            Open::Nothing => false,
            Open::Highest => class == 0,
            Open::All => true,
        }
    }

    /// Whether the settings in force are on trial.
    pub fn is_on_trial(&self) -> bool {
        self.book.is_on_trial()
    }

    /// Settings in force.
    pub fn settings(&self) -> &SiteSettings {
        &self.settings
    }

    /// How often settings were given up.
    pub fn rolled_back(&self) -> u64 {
        self.rolled_back
    }

    /// The centre has sent settings. Answers what to tell it.
    pub fn offered(&mut self, settings: Settings) -> Vec<SettingsReport> {
        let understood =
            SiteSettings::parse(&settings.text).map_err(|problems| problems.to_string()).and_then(|parsed| self.possible(&parsed));
        if let Err(why) = &understood {
            tracing::error!(event = "settings_refused", why, "the centre's settings are refused; those from before stay in force");
        }
        let steps = self.book.offered(settings, understood);
        let mut reports = self.follow(steps);
        if let Some(after) = self.next_look() {
            for report in reports.iter_mut().filter(|report| report.outcome == SettingsOutcome::Trying) {
                let Decision { why, until, .. } = self.decision;
                let until = until.map_or_else(String::new, |until| format!(" until {until}"));
                let (why, after) = (why.as_str(), after.as_secs());
                report.detail = format!("off by the {why}{until}: nothing is sent; the site asks in {after} s whether that stands");
            }
        }
        reports
    }

    /// Until the agent asks the centre whether settings on trial stand although they say off; `None`: it will not.
    fn next_look(&self) -> Option<Duration> {
        self.book.next_look().filter(|_| self.is_off())
    }

    /// Something was heard from the centre. Answers what to tell it.
    pub fn heard(&mut self) -> Vec<SettingsReport> {
        let steps = self.book.heard();
        self.follow(steps)
    }

    /// Looks at the clock and at what was sent. Answers what to tell the centre.
    pub fn tick(&mut self) -> Vec<SettingsReport> {
        let elapsed = std::mem::replace(&mut self.looked, Instant::now()).elapsed();
        let (was_off, given_up) = (self.is_off(), self.book.given_up());
        let steps = self.book.tick(elapsed, !was_off);
        if self.book.given_up() != given_up {
            self.rolled_back += 1;
            tracing::error!(
                event = "settings_rolled_back",
                "nothing was heard from the centre for 90 s under its new settings: back to those from before"
            );
        }
        let reports = self.follow(steps);
        self.look(elapsed);
        reports
    }

    /// Takes leave of the disk: what was used is kept as it is. Nothing may be sent any more.
    pub async fn settle(mut self) {
        self.cap.set_stopped(true);
        if let Some(writing) = self.writing.take() {
            drop(writing.await);
        }
        if let (Some(meter), Some(budget)) = (&mut self.meter, &self.limits.budget) {
            meter.observe(budget, self.cap.spent(), Timestamp::now(), self.looked.elapsed());
            let (dir, text) = (self.dir, meter.settle());
            let written = tokio::task::spawn_blocking(move || files::write(&dir, BUDGET_FILE, &text)).await;
            if let Ok(Err(error)) = written {
                tracing::warn!(%error, "what was used of the budget could not be written at the end; it counts as a little more after the next start");
            }
        }
    }

    fn follow(&mut self, steps: Vec<Step>) -> Vec<SettingsReport> {
        let mut reports = Vec::new();
        for step in steps {
            match step {
                // What the book holds was understood when it came.
                Step::Apply(text) => self.apply(SiteSettings::parse(&text).unwrap_or_default()),
                Step::Look(text) => {
                    tracing::info!(
                        event = "settings_asked",
                        "the centre's new settings say off: it is asked whether that stands, under those from before"
                    );
                    self.apply(SiteSettings::parse(&text).unwrap_or_default());
                }
                Step::Keep(kept) => {
                    if let Err(error) = files::write(&self.dir, SETTINGS_FILE, &kept.to_file()) {
                        let trouble = format!("{} cannot be written: {error}", self.dir.join(SETTINGS_FILE).display());
                        tracing::error!(
                            event = "settings_unkept",
                            trouble,
                            "the centre's settings are in force, but not after the next start"
                        );
                        self.trouble = Some(trouble);
                    } else {
                        self.trouble = None;
                    }
                }
                Step::Report(report) => reports.push(report),
            }
        }
        reports
    }

    /// A budget needs a disk: without a durable counter nothing could be sent.
    fn possible(&self, settings: &SiteSettings) -> Result<(), String> {
        if settings.limits(self.own).budget.is_none() {
            return Ok(());
        }
        let error =
            |error| format!("a budget needs a durable counter, and state_dir = \"{}\" cannot be written: {error}", self.dir.display());
        files::probe(&self.dir).map_err(error)
    }

    /// Brings settings into force.
    fn apply(&mut self, settings: SiteSettings) {
        self.limits = settings.limits(self.own);
        self.cap.set_counting(match settings.count {
            Count::Sent => Counting::Sent,
            Count::Both => Counting::Both,
        });
        self.settings = settings;
        if let Some(budget) = &self.limits.budget
            && self.meter.is_none()
        {
            let now = Timestamp::now();
            let counter = match files::read(&self.dir, BUDGET_FILE) {
                Read::Nothing => Counter::new(&budget.calendar, now),
                Read::Text(text) => Counter::from_text(&text).unwrap_or_else(|error| self.pessimistic(&error)),
                Read::Failed(error) => self.pessimistic(&error),
            };
            self.meter = Some(Meter::new(counter, self.cap.spent()));
            // Before the first datagram, and not in the background: nothing can be sent before it is there.
            self.lease_now();
        }
        self.look(Duration::ZERO);
    }

    fn pessimistic(&self, error: &dyn std::fmt::Display) -> Counter {
        let now = Timestamp::now();
        tracing::error!(
            event = "budget_unreadable", %error, file = %self.dir.join(BUDGET_FILE).display(),
            "what is used of the budget is not known: the day counts as used up, the month as used evenly"
        );
        let zero = Counter::new(&spillway_plan::Calendar::new(jiff::tz::TimeZone::UTC, 1), now);
        self.limits
            .budget
            .as_ref()
            .map_or(zero, |budget| Counter::pessimistic(&budget.calendar, now, budget.daily.unwrap_or(0), budget.monthly.unwrap_or(0)))
    }

    fn lease_now(&mut self) {
        let (Some(meter), Some(budget)) = (&mut self.meter, &self.limits.budget) else { return };
        meter.observe(budget, self.cap.spent(), Timestamp::now(), Duration::ZERO);
        if let Some(text) = meter.lease(budget) {
            let written = files::write(&self.dir, BUDGET_FILE, &text);
            meter.written(written.is_ok());
            if let Err(error) = written {
                tracing::error!(event = "budget_unkept", %error, "what is used of the budget cannot be written: nothing is sent until it can");
            }
        }
    }

    /// Counts, decides, sets the cap.
    fn look(&mut self, elapsed: Duration) {
        let now = Timestamp::now();
        if self.writing.as_ref().is_some_and(JoinHandle::is_finished)
            && let Some(writing) = self.writing.take()
        {
            self.lease_written(writing);
        }
        if let (Some(meter), Some(budget)) = (&mut self.meter, &self.limits.budget) {
            meter.observe(budget, self.cap.spent(), now, elapsed);
            if self.writing.is_none()
                && let Some(text) = meter.lease(budget)
            {
                let dir = self.dir.clone();
                self.writing = Some(tokio::task::spawn_blocking(move || files::write(&dir, BUDGET_FILE, &text)));
            }
            self.cap.set_fuse(Some(meter.fuse(budget)));
        } else {
            self.cap.set_fuse(None);
        }
        let counter = self.meter.as_ref().map(Meter::counter);
        let mut decision = self.limits.now(now, counter);
        if self.book.is_looking() {
            decision.open = Open::Nothing;
        }
        let before = std::mem::replace(&mut self.decision, decision);
        let Decision { rate, why, open, until } = self.decision;
        // A budget that is slower than the slowest rate lets data go and holds it by turns, and changes its rate all the time.
        let is_told = before.why != why
            || (before.rate != rate && why != Why::Budget)
            || (before.open != open && Open::Nothing == open.min(before.open));
        if is_told {
            let until = until.map(|until| until.to_string());
            tracing::info!(event = "rate", rate = rate_or_off(rate), why = why.as_str(), ?open, until, "another rate holds");
        }
        self.leave.look(rate == Rate::Off, elapsed);
        self.cap.set_stopped(self.leave.is_taken());
        match rate {
            // Leave is taken at the rate before.
            Rate::Off => {}
            Rate::Limited(bits) => self.cap.set_rate(spillway_link::BitRate::new(bits.get())),
            Rate::Unlimited => self.cap.set_rate(None),
        }
    }

    fn lease_written(&mut self, writing: JoinHandle<std::io::Result<()>>) {
        use std::future::Future;
        use std::task::{Context, Poll, Waker};
        // It is finished: one look is enough.
        let written = match std::pin::pin!(writing).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(written)) => written,
            Poll::Ready(Err(panicked)) => Err(std::io::Error::other(panicked)),
            Poll::Pending => Err(std::io::Error::other("not finished")),
        };
        if let Err(error) = &written {
            tracing::error!(event = "budget_unkept", %error, "what is used of the budget cannot be written: nothing is sent until it can");
            self.trouble = Some(format!("{} cannot be written: {error}", self.dir.join(BUDGET_FILE).display()));
        }
        if let Some(meter) = &mut self.meter {
            meter.written(written.is_ok());
        }
    }
}

/// What was kept; where that cannot be read, nothing, and why.
fn kept_settings(dir: &std::path::Path) -> (Kept, Option<String>) {
    let unreadable = |error: &dyn std::fmt::Display| (Kept::default(), Some(format!("{}: {error}", dir.join(SETTINGS_FILE).display())));
    match files::read(dir, SETTINGS_FILE) {
        Read::Nothing => (Kept::default(), None),
        Read::Text(text) => Kept::from_file(&text).map_or_else(|error| unreadable(&error), |kept| (kept, None)),
        Read::Failed(error) => unreadable(&error),
    }
}

#[cfg(test)]
mod tests;
