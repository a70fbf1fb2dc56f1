//! Settings of the centre on trial.
//!
//! New settings are in force at once, and on trial until something is heard from the centre when they have been tried for 10 s. Contact that is lost
//! meanwhile and does not come back within 90 s brings the ones before back; those that failed are not tried again until the centre sends
//! others. Time in which the site may not send at all (a timetable that says `off`, a budget that is used up) is no time: silence is what was
//! asked for then.
//!
//! What was never proven is never kept on disk, so an agent that is started again in the middle of a trial begins with what is known to work, and is sent the
//! new ones when it connects.

use std::time::Duration;

use spillway_proto::message::{Settings, SettingsOutcome, SettingsReport};

mod kept;

pub use kept::{Kept, KeptError};

/// How long a trial takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Settings under which something was heard so long after they came into force work. What is heard earlier may have been on its way before. As often the
    /// centre is told that they are on trial, and answers: so there is something to hear where no data flows. Default 10 s.
    pub proof_after: Duration,
    /// Longest silence. Default 90 s: with the proof and the second between two looks the settings before are back within 101 s; the promise is 120 s.
    pub silence_max: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { proof_after: Duration::from_secs(10), silence_max: Duration::from_secs(90) }
    }
}

/// What to do, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Bring the settings of this text into force.
    Apply(String),
    /// Make this durable.
    Keep(Kept),
    /// Tell the centre, if there is a session.
    Report(SettingsReport),
}

/// Which settings are in force.
#[derive(Debug, Clone)]
pub struct SettingsBook {
    patience: Patience,
    kept: Kept,
    trial: Option<Trial>,
}

#[derive(Debug, Clone)]
struct Trial {
    settings: Settings,
    /// For how long they have been in force.
    tried: Duration,
    /// Since when nothing was heard; at most since they are in force.
    silent: Duration,
    /// Since when the centre was not told.
    untold: Duration,
}

impl SettingsBook {
    /// Begins with what was kept; it has to be brought into force.
    pub fn new(kept: Kept, patience: Patience) -> Self {
        Self { patience, kept, trial: None }
    }

    /// The text of the settings in force.
    pub fn in_force(&self) -> &str {
        self.trial.as_ref().map_or(&self.kept.text, |trial| &trial.settings.text)
    }

    /// Whether those in force are on trial.
    pub fn is_on_trial(&self) -> bool {
        self.trial.is_some()
    }

    /// The revision that was given up, if the centre still wants it.
    pub fn given_up(&self) -> Option<u64> {
        self.kept.given_up
    }

    /// The centre has sent settings; `understood` tells why they are impossible here, if they are.
    pub fn offered(&mut self, settings: Settings, understood: Result<(), String>) -> Vec<Step> {
        let Settings { revision, .. } = settings;
        if self.trial.as_ref().is_some_and(|trial| trial.settings == settings) {
            return vec![report(revision, SettingsOutcome::Trying, "")];
        }
        if self.kept.given_up == Some(revision) {
            return vec![report(revision, SettingsOutcome::RolledBack, GIVEN_UP)];
        }
        if let Err(why) = understood {
            return vec![report(revision, SettingsOutcome::Refused, &why)];
        }
        let was_given_up = self.kept.given_up.take().is_some();
        if settings.text == self.kept.text {
            // Also where other ones are on trial: the centre has taken them back.
            let apply = self.trial.take().map(|_| Step::Apply(settings.text));
            let keep = was_given_up.then(|| Step::Keep(self.kept.clone()));
            let accepted = report(revision, SettingsOutcome::Accepted, "");
            return apply.into_iter().chain(keep).chain([accepted]).collect();
        }
        let apply = Step::Apply(settings.text.clone());
        let keep = was_given_up.then(|| Step::Keep(self.kept.clone()));
        self.trial = Some(Trial { settings, tried: Duration::ZERO, silent: Duration::ZERO, untold: Duration::ZERO });
        [apply].into_iter().chain(keep).chain([report(revision, SettingsOutcome::Trying, "")]).collect()
    }

    /// Something was heard from the centre.
    pub fn heard(&mut self) -> Vec<Step> {
        if let Some(trial) = &mut self.trial {
            trial.silent = Duration::ZERO;
        }
        let proof_after = self.patience.proof_after;
        let Some(trial) = self.trial.take_if(|trial| trial.tried >= proof_after) else { return Vec::new() };
        let Settings { revision, text } = trial.settings;
        self.kept = Kept { text, given_up: None };
        vec![Step::Keep(self.kept.clone()), report(revision, SettingsOutcome::Accepted, "")]
    }

    /// Time has passed; `may_send` tells whether the site was allowed to send in it.
    pub fn tick(&mut self, elapsed: Duration, may_send: bool) -> Vec<Step> {
        let Some(trial) = self.trial.as_mut().filter(|_| may_send) else { return Vec::new() };
        for time in [&mut trial.tried, &mut trial.silent, &mut trial.untold] {
            *time = time.saturating_add(elapsed);
        }
        let revision = trial.settings.revision;
        if trial.silent >= self.patience.silence_max {
            self.trial = None;
            self.kept.given_up = Some(revision);
            return vec![Step::Apply(self.kept.text.clone()), Step::Keep(self.kept.clone())];
        }
        if trial.untold >= self.patience.proof_after {
            trial.untold = Duration::ZERO;
            return vec![report(revision, SettingsOutcome::Trying, "")];
        }
        Vec::new()
    }
}

/// Why settings were given up, for people.
const GIVEN_UP: &str = "contact was lost under these settings and did not come back within 90 s; they are tried again when they change";

fn report(revision: u64, outcome: SettingsOutcome, detail: &str) -> Step {
    Step::Report(SettingsReport { revision, outcome, detail: detail.to_owned() })
}

#[cfg(test)]
mod tests;
