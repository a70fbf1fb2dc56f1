//! When there is a session.
//!
//! With the profiles `normal` and `metered` always, as far as the line allows: [`Sessions`] without [`Terms`]. With the profile `session` when there is reason:
//!
//! - A. Between two sessions nothing crosses the line. The next one is due when the time has come, when enough waits, at once when something of class 0 waits, and when the agent
//!   ends with something in memory only. What may not be sent is no reason.
//! - B. A session that is due is tried for until it has been there, and one that is lost is tried for again.
//! - C. It ends when all that the site had is at the centre ([`Goal`]), nothing is waited for and little has come meanwhile. Before its end comes the last call: nothing more is sent
//!   but class 0, so that nothing is sent in vain.
//! - D. While the plan lets nothing go for long it ends as well, with what waits.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use spillway_proto::{Lane, NextOffset};

/// What the collector has to say after its welcome, such as settings, is there after so long.
const LEAST_OPEN: Duration = Duration::from_secs(1);

/// A session in which the plan holds data for so long ends: longer than the turns of a budget that is slower than the slowest rate take.
const HELD_PATIENCE: Duration = Duration::from_secs(30);

/// A site from which nothing comes for so long has no more, whatever its log's ends say: a partition may have no leader.
const NOTHING_COMES: Duration = Duration::from_secs(5);

/// This part of the amount, and it is not worth to disconnect: one in so many.
const MUCH: u64 = 2;

/// This part of the interval is given away, so that sites that were back at the same time do not stay in step: one in so many.
const JITTER: u32 = 10;

/// What makes a session due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// So much time since the last one, or a tenth less.
    pub interval: Duration,
    /// So many encoded bytes that wait.
    pub bytes: u64,
}

/// Why there is a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// The agent has started, or the site's Kafka has been there for the first time since.
    Start,
    /// [`Terms::interval`].
    Interval,
    /// [`Terms::bytes`].
    Amount,
    /// Something of class 0.
    Urgent,
    /// The agent ends.
    Shutdown,
    /// The profile is another one.
    Profile,
}

impl Reason {
    /// Every one.
    pub const ALL: [Self; 6] = [Self::Start, Self::Interval, Self::Amount, Self::Urgent, Self::Shutdown, Self::Profile];

    /// As labels and the log have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Interval => "interval",
            Self::Amount => "amount",
            Self::Urgent => "class_0",
            Self::Shutdown => "shutdown",
            Self::Profile => "profile",
        }
    }
}

/// How things are.
#[derive(Debug, Clone, Copy, Default)]
pub struct Seen {
    /// Encoded bytes that wait for the centre, in memory and in the spill.
    pub waiting_bytes: u64,
    /// Something of class 0 waits.
    pub urgent_waits: bool,
    /// The plan lets data of all classes go.
    pub may_send: bool,
    /// It lets class 0 go.
    pub may_send_urgent: bool,
    /// The site's Kafka has told its topics, and no session has seen them yet.
    pub is_new: bool,
    /// The agent ends.
    pub is_ending: bool,
    /// Something that was read is neither at the centre nor durable.
    pub is_unsafe: bool,
    /// All that the site had when it was looked at in this session is at the centre.
    pub is_level: bool,
    /// Nothing is waited for in this session: acknowledgements, the proof of settings, answers.
    pub is_quiet: bool,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Dial.
    Connect(Reason),
    /// Send nothing more but class 0, and ask for what was sent to be committed.
    LastCall,
    /// Send on: what has come meanwhile is much. Look anew at what the site has.
    GoOn,
    /// Take leave.
    Close,
}

/// See the module. [`Sessions::look`] after every event.
#[derive(Debug, Clone)]
pub struct Sessions {
    terms: Option<Terms>,
    phase: Phase,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    /// For the next one.
    Waiting { since: Instant, until: Instant },
    /// One is due, or there.
    Due { since: Instant, was_open: bool, open: Option<Open> },
}

#[derive(Debug, Clone, Copy)]
struct Open {
    since: Instant,
    is_last_call: bool,
    held_since: Option<Instant>,
    nothing_since: Option<Instant>,
}

impl Sessions {
    /// The agent starts: a session is due. `None`: there is always to be one.
    pub fn new(terms: Option<Terms>, now: Instant) -> Self {
        Self { terms, phase: due(now) }
    }

    /// Other terms, from now on.
    pub fn set_terms(&mut self, terms: Option<Terms>, now: Instant) {
        self.terms = terms;
        match (&mut self.phase, terms) {
            (Phase::Waiting { since, until }, Some(terms)) => *until = (*until).min((*since + terms.interval).max(now)),
            (Phase::Due { open: Some(open), .. }, None) => open.is_last_call = false,
            _ => {}
        }
    }

    /// True when sessions come and go by plan.
    pub fn has_terms(&self) -> bool {
        self.terms.is_some()
    }

    /// True between two sessions: there is none, and none is wanted.
    pub fn is_waiting(&self) -> bool {
        matches!(self.phase, Phase::Waiting { .. })
    }

    /// Until the next session, if nothing else makes one due; `None`: one is due, or open.
    pub fn next_in(&self, now: Instant) -> Option<Duration> {
        match self.phase {
            Phase::Waiting { until, .. } => Some(until.saturating_duration_since(now)),
            Phase::Due { .. } => None,
        }
    }

    /// Since when a session is wanted; `None` between two. What waits has no age before that.
    pub fn due_since(&self) -> Option<Instant> {
        match self.phase {
            Phase::Waiting { .. } => None,
            Phase::Due { since, .. } => Some(since),
        }
    }

    /// True when nothing more is to be sent but class 0.
    pub fn is_last_call(&self) -> bool {
        matches!(self.phase, Phase::Due { open: Some(Open { is_last_call: true, .. }), .. })
    }

    /// A session is open. Answers true when there was one before that was lost.
    pub fn opened(&mut self, now: Instant) -> bool {
        let (since, was_open) = match self.phase {
            Phase::Due { since, was_open, .. } => (since, was_open),
            Phase::Waiting { .. } => (now, false),
        };
        let open = Open { since: now, is_last_call: false, held_since: None, nothing_since: None };
        self.phase = Phase::Due { since, was_open: true, open: Some(open) };
        was_open
    }

    /// The session is over, and not by [`Step::Close`].
    pub fn lost(&mut self) {
        if let Phase::Due { open, .. } = &mut self.phase {
            *open = None;
        }
    }

    /// What is to be done now. `random` is uniform in [0, 1).
    pub fn look(&mut self, now: Instant, seen: Seen, random: f64) -> Option<Step> {
        match self.phase {
            Phase::Waiting { until, .. } => {
                let reason = self.reason(now >= until, seen)?;
                self.phase = due(now);
                Some(Step::Connect(reason))
            }
            Phase::Due { since, open: Some(open), .. } => {
                let terms = self.terms?;
                let mut open = open;
                let step = open.look(now, terms, seen);
                self.phase = match step {
                    Some(Step::Close) => {
                        let share = 1.0 - random.clamp(0.0, 1.0) / f64::from(JITTER);
                        Phase::Waiting { since: now, until: now + terms.interval.mul_f64(share) }
                    }
                    _ => Phase::Due { since, was_open: true, open: Some(open) },
                };
                step
            }
            Phase::Due { open: None, .. } => None,
        }
    }

    /// Why a session is due.
    fn reason(&self, is_time: bool, seen: Seen) -> Option<Reason> {
        let Some(terms) = self.terms else { return Some(Reason::Profile) };
        let reasons = [
            (seen.is_ending && seen.is_unsafe, Reason::Shutdown),
            (seen.urgent_waits && seen.may_send_urgent, Reason::Urgent),
            (seen.is_new && seen.may_send, Reason::Start),
            (seen.waiting_bytes >= terms.bytes && seen.may_send, Reason::Amount),
            (is_time && seen.may_send, Reason::Interval),
        ];
        reasons.into_iter().find_map(|(holds, reason)| holds.then_some(reason))
    }
}

impl Open {
    fn look(&mut self, now: Instant, terms: Terms, seen: Seen) -> Option<Step> {
        lasts(&mut self.held_since, !seen.may_send, now);
        lasts(&mut self.nothing_since, seen.waiting_bytes == 0, now);
        if seen.is_ending {
            // The end comes by itself, and sends all there is.
            return std::mem::take(&mut self.is_last_call).then_some(Step::GoOn);
        }
        let has_lasted = |since: Option<Instant>, time| since.is_some_and(|since| now.saturating_duration_since(since) >= time);
        if !self.is_last_call {
            let is_held = has_lasted(self.held_since, HELD_PATIENCE);
            self.is_last_call = is_held || seen.is_level || has_lasted(self.nothing_since, NOTHING_COMES);
            return self.is_last_call.then_some(Step::LastCall);
        }
        let is_young = now.saturating_duration_since(self.since) < LEAST_OPEN;
        if is_young || !seen.is_quiet || (seen.urgent_waits && seen.may_send_urgent) {
            return None;
        }
        if seen.may_send && seen.waiting_bytes >= terms.bytes / MUCH {
            self.is_last_call = false;
            return Some(Step::GoOn);
        }
        Some(Step::Close)
    }
}

fn due(now: Instant) -> Phase {
    Phase::Due { since: now, was_open: false, open: None }
}

/// Keeps since when something holds.
fn lasts(since: &mut Option<Instant>, holds: bool, now: Instant) {
    *since = holds.then(|| since.unwrap_or(now));
}

/// What a session has to bring to the centre: where the site's partitions ended when the centre had said where they go on. What is written later is left for the next one, or
/// a site that writes without a pause would stay connected.
#[derive(Debug, Clone, Default)]
pub struct Goal(BTreeMap<Lane, NextOffset>);

impl Goal {
    /// Lanes that are to be brought so far.
    pub fn new(ends: impl IntoIterator<Item = (Lane, NextOffset)>) -> Self {
        Self(ends.into_iter().collect())
    }

    /// True when all of them are. `acked` answers how far a lane is, `None` for one that goes no further: dead, or held. A lane that was there is not asked for again.
    pub fn is_reached(&mut self, acked: impl Fn(Lane) -> Option<NextOffset>) -> bool {
        self.0.retain(|lane, end| acked(*lane).is_some_and(|acked| acked < *end));
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests;
