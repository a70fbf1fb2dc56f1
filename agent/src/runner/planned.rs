//! Sessions that come and go by plan: the profile `session`. When is decided by [`spillway_agent_core::sessions`].

use std::time::{Duration, Instant};

use spillway_agent_core::lane::Phase;
use spillway_agent_core::schedule::{Flow, Scope};
use spillway_agent_core::sessions::{Goal, Reason, Seen, Step, Terms};
use spillway_config::Profile;
use spillway_proto::close::CloseCode;
use spillway_proto::message::AgentMessage;

use super::{Error, Runner};
use crate::metrics::ReasonLabels;
use crate::service::link_profile;

/// So long after the beginning of a session its goal is set although some partition has not begun: its topic may not be to be had at the centre, or its leader here.
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);

impl Runner {
    /// The profile that holds: of the agent's own and the centre's the greater.
    pub(super) fn profile(&self) -> Profile {
        self.parts.config.link.profile.max(self.parts.plan.settings().profile)
    }

    pub(super) fn follow_profile(&mut self) {
        let (link, profile) = (&self.parts.config.link, self.profile());
        self.parts.link.set_profile(link_profile(profile));
        let bytes = link.session_bytes.as_usize();
        // Without a spill more may never come together, since each flow has a part of the memory only.
        let most = if self.spill.is_some() { bytes } else { bytes.min(self.parts.budget.total() / 4) };
        let terms = Terms { interval: link.session_interval, bytes: most as u64 };
        self.planned.set_terms((profile == Profile::Session).then_some(terms), Instant::now());
    }

    /// Begins and ends sessions when it is time.
    pub(super) fn keep_planned(&mut self) -> Result<(), Error> {
        if !self.planned.has_terms() && !self.planned.is_waiting() {
            return Ok(());
        }
        let now = Instant::now();
        self.set_goal();
        let seen = self.seen();
        match self.planned.look(now, seen, rand::random()) {
            Some(Step::Connect(reason)) => self.begin_session(now, reason)?,
            Some(Step::LastCall) => self.flushed = false,
            Some(Step::GoOn) => (self.goal, self.flushed) = (None, false),
            Some(Step::Close) => self.end_session(now)?,
            None => {}
        }
        if let Some(session) = &self.session
            && self.planned.is_last_call()
            && self.sending.is_empty()
            && !self.is_acked()
            && !self.flushed
        {
            self.flushed = session.say(AgentMessage::Flush);
        }
        Ok(())
    }

    fn begin_session(&mut self, now: Instant, reason: Reason) -> Result<(), Error> {
        tracing::info!(
            event = "session_due",
            reason = reason.as_str(),
            unacked_records = self.ledger.unacked_records(),
            "a session is due"
        );
        self.parts.metrics.sessions.get_or_create(&ReasonLabels { reason: reason.as_str() }).inc();
        self.away_since = now;
        let first = self.redial.first();
        self.dial(first);
        self.step_metrics();
        self.post();
        Ok(())
    }

    fn end_session(&mut self, now: Instant) -> Result<(), Error> {
        let Some(session) = self.session.take() else {
            return Ok(());
        };
        session.close(CloseCode::Done, "");
        let next_seconds = self.planned.next_in(now).map(|next| next.as_secs());
        let lasted_seconds = self.session_since.elapsed().as_secs_f64();
        tracing::info!(
            event = "session_closed",
            lasted_seconds,
            next_seconds,
            unacked_records = self.ledger.unacked_records(),
            "nothing more is to be sent for now: waiting for the next session"
        );
        self.session_gone();
        (self.link_trouble, self.silent) = (None, false);
        self.lanes_known = self.ledger.partitions().map(|(lane, _)| lane.0 + 1).max().unwrap_or(0);
        // It needs no line; but what is at the centre shall be committed here before the flash, or the power, is gone.
        (self.commit_due, self.away_since) = (now, now);
        self.commit(now);
        self.step_metrics();
        self.post();
        Ok(())
    }

    /// What the session has to bring to the centre, once that has said where the partitions go on.
    fn set_goal(&mut self) {
        if self.goal.is_some() || self.session.is_none() || !self.looked {
            return;
        }
        // Where a partition ends is known with the first answer of its leader.
        let mut live = self.ledger.partitions().filter(|(_, book)| book.phase == Phase::Live);
        let is_known = self.ledger.is_answered(Scope::All) && live.all(|(_, book)| book.position.is_some() && self.end_of(book).is_some());
        if is_known || self.session_since.elapsed() >= ANSWER_PATIENCE {
            let live = self.ledger.partitions().filter(|(_, book)| book.phase == Phase::Live);
            self.told_topics = true;
            self.goal = Some(Goal::new(live.filter_map(|(lane, book)| Some((lane, self.end_of(book)?)))));
        }
    }

    fn seen(&mut self) -> Seen {
        let spilled = self.spill.as_ref().filter(|spill| spill.spool.is_in_use()).map(|spill| spill.usage.frame_bytes);
        let ledger = &self.ledger;
        let acked = |lane| ledger.book(lane).filter(|book| book.phase == Phase::Live).and_then(|book| book.acked.or(book.base));
        let is_reached = self.goal.as_mut().is_some_and(|goal| goal.is_reached(acked));
        Seen {
            waiting_bytes: self.ledger.unacked_bytes() as u64 + spilled.unwrap_or(0),
            urgent_waits: self.urgent_waits(),
            may_send: self.parts.plan.is_open_for(u8::MAX),
            may_send_urgent: self.parts.plan.is_open_for(0),
            is_new: self.looked && !self.told_topics,
            is_ending: self.drain.is_some(),
            is_unsafe: !self.is_safe(),
            is_level: is_reached && spilled.is_none(),
            is_quiet: self.sending.is_empty()
                && self.is_acked()
                && self.openings.is_empty()
                && self.asking.is_none()
                && self.unseen_reports == 0
                && !self.parts.plan.is_on_trial(),
        }
    }

    /// Nothing that was sent in this session waits for its acknowledgement.
    fn is_acked(&self) -> bool {
        self.ledger.unsent_bytes() == self.ledger.unacked_bytes()
    }

    /// A frame of class 0 is not acknowledged; or a partition of that class is new, of which nothing can be read before the centre has said where it begins.
    fn urgent_waits(&self) -> bool {
        let is_urgent = |flow: Flow| self.parts.flows.specs.get(flow.0 as usize).is_some_and(|spec| spec.class.is_urgent());
        let flows = (0..).map(Flow).take(self.parts.flows.specs.len());
        let has_frames = flows.filter(|flow| is_urgent(*flow)).any(|flow| self.ledger.unacked_bytes_of(Scope::One(flow)) > 0);
        let is_new = |lane: u32| lane >= self.lanes_known;
        has_frames
            || (self.planned.is_waiting()
                && self.ledger.partitions().any(|(lane, book)| is_new(lane.0) && book.phase == Phase::Live && is_urgent(book.source.flow)))
    }
}
