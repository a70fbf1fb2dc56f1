//! Settings of the centre on trial.
//!
//! New settings are in force at once, and on trial until something is heard from the centre when they have been tried for 10 s. Contact that is lost
//! meanwhile and does not come back within 90 s brings the ones before back; those that failed are not tried again until the centre sends
//! others. Time in which the site may not send at all (a timetable that says `off`, a budget that is used up) is no time: silence is what was
//! asked for then.
//!
//! Or somebody mistyped, and could not take it back before the timetable says otherwise. So settings on trial that say `off` are asked about: after 90 s those
//! before are in force for a *look*, in which no data is sent. It ends when the centre has said what it wants, or after 90 s. If it wants the same, `off` holds
//! again, twice as long as before, a day at the most: a correction is heard after as long again as the site has been off. What was proven is not asked about.
//!
//! What was never proven is never kept on disk, so an agent that is started again in the middle of a trial begins with what is known to work, and is sent the
//! new ones when it connects.

use std::time::Duration;

use spillway_proto::message::{Settings, SettingsOutcome, SettingsReport};

mod kept;
mod leave;

pub use kept::Kept;
pub use leave::{LEAVE_TIME, Leave, REPORT_TIME};

/// How long a trial takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Settings under which something was heard so long after they came into force work. What is heard earlier may have been on its way before. As often the
    /// centre is told that they are on trial, and answers: so there is something to hear where no data flows. Default 10 s.
    pub proof_after: Duration,
    /// Longest silence. Default 90 s: with the proof and the second between two ticks the settings before are back within 101 s; the promise is 120 s. Also how
    /// long settings on trial may say `off` before the first look, and how long a look may take: at 8 kbit/s a handshake takes some seconds.
    pub silence_max: Duration,
}

/// The longest that settings on trial may say `off` until the next look. A look costs some 8 KB: in the first week, which is as long as a timetable may say `off`, there are
/// 16 of them.
pub const LOOKS_APART_MAX: Duration = Duration::from_secs(24 * 60 * 60);

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
    /// Likewise, for a look: a session is wanted, and no data is sent in it.
    Look(String),
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
    /// For how long they have said `off` since the last look.
    off: Duration,
    /// How long they may before the next one.
    look_after: Duration,
    /// How long the look has taken, during one.
    look: Option<Duration>,
}

impl Trial {
    fn new(settings: Settings, look_after: Duration) -> Self {
        let [tried, silent, untold, off] = [Duration::ZERO; 4];
        Self { settings, tried, silent, untold, off, look_after, look: None }
    }

    /// They are in force again, as if they had come anew.
    fn end_look(&mut self) -> Step {
        let look_after = self.look_after.saturating_mul(2).min(LOOKS_APART_MAX);
        *self = Self::new(self.settings.clone(), look_after);
        Step::Apply(self.settings.text.clone())
    }
}

impl SettingsBook {
    /// Begins with what was kept; it has to be brought into force.
    pub fn new(kept: Kept, patience: Patience) -> Self {
        Self { patience, kept, trial: None }
    }

    /// The text of the settings in force.
    pub fn in_force(&self) -> &str {
        self.trial.as_ref().filter(|trial| trial.look.is_none()).map_or(&self.kept.text, |trial| &trial.settings.text)
    }

    /// Whether there are settings on trial.
    pub fn is_on_trial(&self) -> bool {
        self.trial.is_some()
    }

    /// Whether those before are in force, for a look.
    pub fn is_looking(&self) -> bool {
        self.trial.as_ref().is_some_and(|trial| trial.look.is_some())
    }

    /// Until the next look, if those on trial say `off` for so long; `None`: there will be none, or one is under way.
    pub fn next_look(&self) -> Option<Duration> {
        self.trial.as_ref().filter(|trial| trial.look.is_none()).map(|trial| trial.look_after.saturating_sub(trial.off))
    }

    /// The revision that was given up, if the centre still wants it.
    pub fn given_up(&self) -> Option<u64> {
        self.kept.given_up
    }

    /// The centre has sent settings; `understood` tells why they are impossible here, if they are.
    pub fn offered(&mut self, settings: Settings, understood: Result<(), String>) -> Vec<Step> {
        let Settings { revision, .. } = settings;
        if let Some(trial) = self.trial.as_mut().filter(|trial| trial.settings == settings) {
            let apply = trial.look.is_some().then(|| trial.end_look());
            return apply.into_iter().chain([report(revision, SettingsOutcome::Trying, "")]).collect();
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
        self.trial = Some(Trial::new(settings, self.patience.silence_max));
        [apply].into_iter().chain(keep).chain([report(revision, SettingsOutcome::Trying, "")]).collect()
    }

    /// Something was heard from the centre.
    pub fn heard(&mut self) -> Vec<Step> {
        if self.is_looking() {
            // Contact under other settings is no proof.
            return Vec::new();
        }
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
        let Some(trial) = &mut self.trial else { return Vec::new() };
        if let Some(look) = &mut trial.look {
            *look = look.saturating_add(elapsed);
            let is_over = *look >= self.patience.silence_max;
            return is_over.then(|| trial.end_look()).into_iter().collect();
        }
        if !may_send {
            trial.off = trial.off.saturating_add(elapsed);
            let is_due = trial.off >= trial.look_after;
            trial.look = is_due.then_some(Duration::ZERO);
            return is_due.then(|| Step::Look(self.kept.text.clone())).into_iter().collect();
        }
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
