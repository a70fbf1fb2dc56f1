//! How lanes are opened and begun when the spill may know something of their partitions.

use std::time::Instant;

use spillway_agent_core::lane::{LaneBook, LaneSource, Phase};
use spillway_agent_core::schedule::Flow;
use spillway_agent_core::spool::{Begins, Known, begin_without_spill};
use spillway_agent_core::start::{Gap, LogRange, StartPolicy};
use spillway_agent_core::topics::TopicState;
use spillway_config::OnGap;
use spillway_proto::frame::{GapReason, Section, SectionKind};
use spillway_proto::message::ResumePoint;
use spillway_proto::{Lane, NextOffset, TopicId, TopicPartition};
use spillway_spill::keeper::Command;
use spillway_spill::plan::{Released, announce};
use spillway_spill::store::Release;
use spillway_spill::summary::{Source, Span};

use super::super::{Error, Runner};
use super::Purpose;
use crate::survey::{Asked, Question};

impl Runner {
    /// Opens a lane for what the source has now, or first for an older incarnation of the topic that the spill still has something of.
    pub(in super::super) fn open(&mut self, source: LaneSource) {
        // What was acknowledged on the lane before counts for what is found.
        self.release(&source.partition);
        let Some(spill) = self.spill.as_mut().filter(|spill| spill.known.contains(&source.partition)) else {
            return self.open_lane(source);
        };
        let partition = source.partition.clone();
        if spill.opening.insert(partition.clone(), source).is_none() {
            spill.tell(partition, Purpose::Open);
        }
    }

    /// The partition is not mirrored any more: only what the spill has of it is still sent.
    pub(in super::super) fn close_partition(&mut self, partition: &TopicPartition) {
        self.release(partition);
        if let Some(spill) = self.spill.as_mut().filter(|spill| spill.known.contains(partition)) {
            spill.opening.remove(partition);
            spill.tell(partition.clone(), Purpose::Open);
        }
        self.let_go(partition);
    }

    /// A partition is not to be opened after all. Answers whether it was to be.
    pub(in super::super) fn forget_opening(&mut self, partition: &TopicPartition) -> bool {
        self.spill.as_mut().is_some_and(|spill| spill.opening.remove(partition).is_some())
    }

    /// Partitions that the spill has something of, and that are not mirrored any more.
    pub(in super::super) fn open_found(&mut self) {
        let found = self.spill.as_mut().map(|spill| std::mem::take(&mut spill.found)).unwrap_or_default();
        for partition in found {
            let waits = self.spill.as_ref().is_some_and(|spill| spill.opening.contains_key(&partition));
            if !waits && self.ledger.lane_of(&partition).is_none() {
                self.close_partition(&partition);
            }
        }
    }

    /// The centre has said where a lane goes on that has not begun.
    pub(in super::super) fn begin(&mut self, lane: Lane, source: LaneSource, point: ResumePoint) {
        let question = self.question(lane, source, Asked::Begin(point));
        self.release(&question.source.partition);
        let is_late = self.ledger.book(lane).is_some_and(|book| book.until.is_some());
        if is_late && self.spill.is_none() {
            if let Some(section) = begin_without_spill(&mut self.ledger, lane, point) {
                self.tell_lost(&question.source.partition, section);
                self.openings.push(section);
            }
            return;
        }
        match self.spill.as_mut().filter(|spill| is_late || spill.known.contains(&question.source.partition)) {
            Some(spill) => spill.tell(question.source.partition.clone(), Purpose::Begin(Box::new(question))),
            None => self.questions.push_back(question),
        }
    }

    pub(in super::super) fn on_hole(&mut self, question: Box<Question>, log: LogRange) {
        if let Some(spill) = &mut self.spill {
            spill.tell(question.source.partition.clone(), Purpose::Hole(question, log));
        }
    }

    pub(in super::super) fn on_ahead(
        &mut self,
        lane: Lane,
        partition: TopicPartition,
        committed: Option<NextOffset>,
        log: LogRange,
        first: NextOffset,
    ) {
        if let Some(spill) = &mut self.spill {
            spill.ahead.remove(&lane);
            spill.tell(partition, Purpose::Ahead { lane, committed, log, first });
        }
    }

    /// Without a session for long, partitions are read on although the centre has not said where: what the spill has, or the local group has
    /// committed, says it as well.
    pub(super) fn look_ahead(&mut self, now: Instant) {
        let Some(spill) = &mut self.spill else {
            return;
        };
        // A partition that appears between two sessions waits for the next one.
        if self.session.is_some()
            || self.planned.is_waiting()
            || self.drain.is_some()
            || now.duration_since(self.away_since) < spill.limits.after
        {
            return;
        }
        let unread = |lane: &Lane, book: &LaneBook| {
            book.phase == Phase::Live
                && book.read.is_none()
                && book.position.is_none()
                && book.source.outlived_by.is_none()
                && !spill.ahead.contains(lane)
        };
        let unread = self.ledger.partitions().filter(|(lane, book)| unread(lane, book));
        for (lane, source) in unread.map(|(lane, book)| (lane, book.source.clone())).collect::<Vec<_>>() {
            if let Some(spill) = &mut self.spill {
                spill.ahead.insert(lane);
            }
            let question = self.question(lane, source, Asked::Ahead);
            self.questions.push_back(question);
        }
    }

    /// Questions of the last session are of no use any more.
    pub(in super::super) fn forget_questions(&mut self) {
        self.questions.clear();
        if let Some(spill) = &mut self.spill {
            spill.ahead.clear();
        }
    }

    /// The store has told what it knows of a partition.
    pub(super) fn on_known(
        &mut self,
        partition: &TopicPartition,
        spans: Vec<(Source, Span)>,
        released: Option<Released>,
    ) -> Result<(), Error> {
        let Some(purpose) = self.spill.as_mut().and_then(|spill| spill.asked.pop_front()) else {
            return Ok(());
        };
        let known = Known { spans, released };
        match purpose {
            Purpose::Open => self.open_known(partition, &known),
            Purpose::Send(section) => self.openings.push(section),
            Purpose::Begin(question) => self.begin_known(*question, &known, None)?,
            Purpose::Hole(question, log) => self.begin_known(*question, &known, Some(log))?,
            Purpose::Ahead { lane, committed, log, first } => {
                if let Some(spill) = self.spill.as_mut().filter(|_| self.session.is_none() && self.drain.is_none()) {
                    let policy = StartPolicy::Found(Some(first));
                    spill.spool.read_on_log(&mut self.ledger, lane, &known, committed, log, policy);
                }
            }
        }
        Ok(())
    }

    fn open_known(&mut self, partition: &TopicPartition, known: &Known) {
        let current = self.spill.as_mut().and_then(|spill| spill.opening.remove(partition));
        if self.ledger.lane_of(partition).and_then(|lane| self.ledger.book(lane)).is_some_and(|book| !book.is_dead()) {
            // Asked twice; the first answer has opened it.
            return;
        }
        let oldest = announce(&known.spans, known.released);
        let past = oldest.filter(|oldest| current.as_ref().is_none_or(|current| current.topic_id.is_other_incarnation(oldest.topic_id)));
        match (past, current) {
            (Some(source), current) => self.open_past(source, current.map_or(TopicId::UNKNOWN, |current| current.topic_id), known),
            (None, Some(current)) => self.open_lane(current),
            (None, None) => {}
        }
    }

    /// Sends first what the spill has of a topic that the source does not have any more.
    fn open_past(&mut self, source: Source, outlived_by: TopicId, known: &Known) {
        let Source { partition, topic_id, partition_count } = source;
        tracing::info!(%partition, %topic_id, "the spill has records of a topic that the source does not have any more: they are sent first");
        let own = known.spans.iter().filter(|(source, _)| source.topic_id == topic_id);
        if let (Some((line, next)), Some(spill)) = (own.map(|(_, span)| (span.line, span.next)).max(), &mut self.spill) {
            spill.past.insert(partition.clone(), Release { partition: partition.clone(), topic_id, line, next });
        }
        self.open_lane(LaneSource {
            partition,
            topic_id,
            partition_count,
            born: false,
            outlived_by: Some(outlived_by),
            flow: Flow::default(),
        });
    }

    /// A topic that was taken for one of the past is there after all, as a first look that the brokers answered in part only made believe.
    pub(in super::super) fn revive(&mut self, partition: &TopicPartition, state: TopicState) {
        let Some(lane) = self.ledger.lane_of(partition) else {
            return;
        };
        let past = |book: &LaneBook| {
            let outlived = book.source.outlived_by.is_some() && book.base.is_none() && !book.is_dead();
            outlived && !book.source.topic_id.is_other_incarnation(state.id)
        };
        if self.ledger.book(lane).is_some_and(past) {
            if let Some(spill) = &mut self.spill {
                spill.past.remove(partition);
            }
            self.ledger.abandon(lane);
        }
    }

    /// A lane is over. One for a topic of the past that did not even begin has nothing left to send: the centre is beyond it.
    pub(in super::super) fn end_past(&mut self, lane: Lane, partition: &TopicPartition) {
        let past = self.ledger.book(lane).filter(|book| book.source.outlived_by.is_some());
        if let (Some(book), Some(spill)) = (past, &mut self.spill)
            && let Some(release) = spill.past.remove(partition)
            && book.base.is_none()
        {
            spill.give(Command::Release(vec![release]));
        }
    }

    /// An opening is sent. Before one that goes back in the offsets, the store notes durably what the centre has: what is older must not be taken for
    /// what follows.
    pub(in super::super) fn send_opening(&mut self, partition: &TopicPartition, section: Section) {
        let goes_back =
            matches!(section.kind, SectionKind::Gap { first, next, reason } if next < first || reason == GapReason::TopicRecreated);
        self.release(partition);
        match self.spill.as_mut().filter(|spill| goes_back && spill.known.contains(partition)) {
            Some(spill) => {
                spill.give(Command::Persist);
                spill.tell(partition.clone(), Purpose::Send(section));
            }
            None => self.openings.push(section),
        }
    }

    fn begin_known(&mut self, question: Question, known: &Known, log: Option<LogRange>) -> Result<(), Error> {
        let (Asked::Begin(point) | Asked::Hole(point)) = question.asked else {
            return Ok(());
        };
        if question.session != self.sessions || self.session.is_none() || self.drain.is_some() {
            return Ok(());
        }
        let Some(spill) = &mut self.spill else {
            return Ok(());
        };
        let lane = question.lane;
        let begins = match log {
            Some(log) => spill.spool.begin_hole(&mut self.ledger, lane, point, known, log),
            None => spill.spool.begin(&mut self.ledger, lane, point, known),
        };
        match begins {
            Begins::Begun(section) => return self.begun(&question.source.partition, section),
            Begins::Source => self.questions.push_back(Question { asked: Asked::Begin(point), ..question }),
            Begins::Hole => self.questions.push_back(Question { asked: Asked::Hole(point), ..question }),
        }
        Ok(())
    }

    /// Deferred records that an agent without a spill cannot have any more.
    fn tell_lost(&mut self, partition: &TopicPartition, section: Section) {
        if let SectionKind::Gap { first, next, reason } = section.kind {
            self.record_gap(partition, Gap { first, next, reason });
        }
    }

    fn begun(&mut self, partition: &TopicPartition, section: Option<Section>) -> Result<(), Error> {
        let Some(section) = section else {
            return Ok(());
        };
        if let SectionKind::Gap { first, next, reason } = section.kind {
            if reason == GapReason::Deferred {
                tracing::info!(
                    event = "deferred", topic = %partition.topic, partition = partition.partition.index(), first = first.value(), next = next.value(),
                    "what is new goes first; these offsets follow out of the spill"
                );
                self.send_opening(partition, section);
                return Ok(());
            }
            // What the spill lost or dropped is no reason to halt: on_gap is about the source.
            let at_source = !matches!(reason, GapReason::Dropped | GapReason::Damaged);
            if at_source && self.parts.config.on_gap_of(partition.topic.as_str()) == OnGap::Halt {
                let (partition, reason) = (partition.clone(), reason.as_str());
                return self.begin_drain(Some(Error::GapHalt { partition, first, next, reason }));
            }
            self.record_gap(partition, Gap { first, next, reason });
        }
        self.send_opening(partition, section);
        Ok(())
    }
}
