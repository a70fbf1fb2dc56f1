//! What is done after every event: the books' wishes are passed on, and frames go out as far as they may.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use spillway_agent_core::batcher::{Gathering, caught_up_linger};
use spillway_agent_core::lane::AfterDrain;
use spillway_agent_core::schedule::Flow;
use spillway_plan::Why;
use spillway_proto::compress::Compressor;
use spillway_proto::frame::{FrameBuilder, Section, SectionKind};
use spillway_proto::limits;
use spillway_proto::message::AgentMessage;

use super::spill::now_ms;
use super::{Error, Runner};
use crate::source::Command;

/// Looks at the topics that were asked for are at least so far apart, so that a partition that cannot be read is not reopened in a loop.
const REFRESH_PAUSE: Duration = Duration::from_secs(1);

/// After this time in a session the agent counts as ready although some partition has not begun: its leader may be away for long. With a spill it
/// counts as ready after this time without a session as well.
const READY_PATIENCE: Duration = Duration::from_secs(15);

/// A change of the linger that is worth telling.
const LINGER_STEP: Duration = Duration::from_millis(1);

impl Runner {
    pub(super) fn keep_up(&mut self) -> Result<(), Error> {
        self.send_openings()?;
        self.keep_spill();
        self.open_late();
        for attachment in self.ledger.take_attachments() {
            self.parts.source.command(Command::Attach(attachment))?;
        }
        for detachment in self.ledger.take_detachments() {
            self.parts.source.command(Command::Detach(detachment))?;
        }
        self.follow_ended();
        self.ask_questions();
        self.send_frames();
        self.parts.metrics.records_acked.inc_by(self.ledger.take_acked_records());
        self.tell_passed();
        for (flow, released) in self.ledger.take_released() {
            self.parts.budget.give(flow, released);
        }
        self.flush();
        self.keep_planned()?;
        self.tell_gathering()?;
        self.announce_ready();
        Ok(())
    }

    pub(super) fn on_tick(&mut self) -> Result<(), Error> {
        let now = Instant::now();
        if self.drain.is_none() {
            self.commit(now);
        }
        self.ledger.expire(now, now_ms());
        self.tick_plan();
        self.tell_linger()?;
        self.tell_line()?;
        self.remembered.tick(self.line.frames(), self.parts.link.known_line(), now);
        self.ask_for_life(now);
        self.ask_for_udp(now);
        self.tick_spill(now);
        self.tell_waiting()?;
        self.step_metrics();
        self.post();
        Ok(())
    }

    /// Tells the source when the line's round trip has become another one.
    pub(super) fn tell_linger(&mut self) -> Result<(), Error> {
        let Some(session) = &self.session else {
            return Ok(());
        };
        let link = &self.parts.config.link;
        let is_limited = self.parts.plan.decision().why != Why::Nothing;
        let linger = caught_up_linger(link.frame_linger, session.rtt(), is_limited);
        if linger.abs_diff(self.linger) >= LINGER_STEP {
            self.parts.source.command(Command::CaughtUpLinger(linger))?;
            self.linger = linger;
        }
        Ok(())
    }

    /// Tells the source when frames cannot be sent for a time, or can be sent again.
    fn tell_gathering(&mut self) -> Result<(), Error> {
        let plan = &self.parts.plan;
        let is_away = self.session.is_none() && self.link_trouble.is_some();
        let gathering = Gathering::of(self.planned.is_waiting(), is_away, |class| plan.is_open_for(class));
        if gathering != self.gathering {
            self.parts.source.command(Command::Gather(gathering))?;
            self.gathering = gathering;
        }
        Ok(())
    }

    /// Puts starts and gaps into frames of their own, which go out before any data of their lanes.
    fn send_openings(&mut self) -> Result<(), Error> {
        if self.openings.is_empty() {
            return Ok(());
        }
        let mut openings = std::mem::take(&mut self.openings);
        // A lane may have ended while its opening waited for the spill.
        openings.retain(|section| self.ledger.book(section.lane).is_some_and(|book| !book.is_dead()));
        if openings.is_empty() {
            return Ok(());
        }
        let mut builder = FrameBuilder::new();
        let Ok(mut compressor) = Compressor::new(1) else {
            // Without memory for a moment: the lanes begin with the next event.
            self.openings = openings;
            return Ok(());
        };
        // Each with what follows it.
        let mut by_flow: BTreeMap<Flow, Vec<Section>> = BTreeMap::new();
        for section in openings {
            by_flow.entry(self.ledger.flow_of(std::slice::from_ref(&section))).or_default().push(section);
        }
        for sections in by_flow.values().flat_map(|sections| sections.chunks(limits::MAX_SECTIONS)) {
            for section in sections {
                match section.kind {
                    SectionKind::Start { next } => builder.start(section.lane, next),
                    SectionKind::Gap { first, next, reason } => builder.gap(section.lane, first, next, reason),
                    SectionKind::Data { .. } => {}
                }
            }
            let frame = builder.encode(&mut compressor);
            self.ledger.push(frame, &[], 0, Instant::now()).map_err(Error::Books)?;
        }
        Ok(())
    }

    /// Announces lanes for what was deferred.
    fn open_late(&mut self) {
        if self.drain.is_some() {
            return;
        }
        for open in self.ledger.open_late() {
            tracing::debug!(lane = %open.lane, partition = %open.source, until = ?open.until, "a lane for what was deferred");
            if let Some(session) = &self.session {
                session.say(AgentMessage::Open(open));
            }
        }
    }

    fn follow_ended(&mut self) {
        for ended in self.ledger.take_ended() {
            tracing::debug!(lane = %ended.lane, partition = %ended.partition, then = ?ended.then, "a lane is over");
            if let Some(session) = &self.session {
                session.say(AgentMessage::CloseLane(ended.lane));
            }
            if ended.is_late {
                continue;
            }
            self.end_past(ended.lane, &ended.partition);
            match ended.then {
                AfterDrain::Reopen => _ = self.reopen.insert(ended.partition),
                AfterDrain::Close => self.close_partition(&ended.partition),
                AfterDrain::Hold(_) => {}
            }
        }
        let due = self.refresh_asked.is_none_or(|asked| asked.elapsed() >= REFRESH_PAUSE);
        if !self.reopen.is_empty() && due && self.drain.is_none() {
            self.refresh_asked = Some(Instant::now());
            self.parts.survey.refresh();
        }
    }

    fn ask_questions(&mut self) {
        while let Some(question) = self.questions.pop_front() {
            if !self.parts.survey.ask(question.clone()) {
                self.questions.push_front(question);
                return;
            }
        }
    }

    /// When nothing more will come, the collector need not wait for a fuller transaction.
    fn flush(&mut self) {
        if let (Some(drain), Some(session)) = (&mut self.drain, &self.session)
            && drain.finished
            && !drain.flushed
            && self.sending.is_empty()
        {
            drain.flushed = session.say(AgentMessage::Flush);
        }
    }

    /// A flush costs nothing where there is nothing to commit, and whoever has no session of ours answers it with a reset.
    fn ask_for_life(&mut self, now: Instant) {
        if let Some(session) = &self.session
            // What is held by the plan is not waited for, and asking costs bytes.
            && self.parts.plan.is_open_for(u8::MAX)
            && self.silence.must_ask(now, !self.ledger.is_empty())
        {
            session.say(AgentMessage::Flush);
        }
    }

    fn announce_ready(&mut self) {
        if self.parts.on_ready.is_none() || !self.looked {
            return;
        }
        let is_ready = if self.session.is_some() {
            let waiting = self.ledger.partitions().any(|(_, book)| !book.is_dead() && book.position.is_none());
            !waiting || self.session_since.elapsed() >= READY_PATIENCE
        } else {
            // Between two sessions, and while the plan says off, all is well. An outage may last for weeks, and a service manager ends what does not get ready.
            let is_as_ordered = self.planned.is_waiting() || self.parts.plan.needs_no_session();
            is_as_ordered || (self.spill.is_some() && self.away_since.elapsed() >= READY_PATIENCE)
        };
        if is_ready {
            if let Some(on_ready) = self.parts.on_ready.take() {
                on_ready();
            }
            self.post();
        }
    }
}
