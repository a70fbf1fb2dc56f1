//! A topic that was deleted and made anew, or truncated, while the spill holds what it was before.

use super::*;
use crate::ledger::Resumed;
use crate::start::Gap;

const OLD: TopicId = TopicId([1; 16]);
const NEW: TopicId = TopicId([2; 16]);

struct Play {
    ledger: Ledger,
    spool: Spools,
    now: Instant,
}

impl Play {
    fn new() -> Self {
        let now = Instant::now();
        let mut ledger = Ledger::new(now);
        ledger.session_opened(1 << 20);
        Self { ledger, spool: Spools::single(LIMITS, EntryId(9)), now }
    }

    fn open(&mut self, topic_id: TopicId, outlived_by: Option<TopicId>, point: ResumePoint) -> Lane {
        let lane = self.ledger.open(LaneSource { topic_id, outlived_by, ..source(0) }).unwrap().lane;
        assert!(matches!(self.ledger.resume(lane, point, self.now), Ok(Resumed::Begin(_))));
        lane
    }

    fn begin(&mut self, lane: Lane, point: ResumePoint, known: &Known) -> Begins {
        self.spool.begin(&mut self.ledger, lane, point, known)
    }

    fn opening(&mut self, section: Section) {
        let next = section.kind.next();
        self.ledger.push(site::opening(section), &[None], 0, self.now).unwrap();
        while self.ledger.next_frame().is_some() {}
        self.ledger.ack(section.lane, next, self.now).unwrap();
    }

    /// The next entry of the spill, sent and acknowledged if it is wanted.
    fn entry(&mut self, id: u64, topic_id: TopicId, line: u32, first: u64, end: u64) {
        let encoded = site::frame(&[(Lane(77), first, end)]);
        let LaneSource { partition, partition_count, .. } = source(0);
        let section = StoredSection { partition, topic_id, partition_count, line: Line(line), kind: encoded.sections[0].kind };
        assert!(self.spool.next_read(&self.ledger).is_some());
        let entry = ReadEntry {
            id: EntryId(id),
            created_ms: 0,
            sections: vec![section],
            frame: Frame::decode(encoded.bytes, 1 << 20).unwrap(),
            times: None,
        };
        self.spool.read(&mut self.ledger, Some(entry), usize::MAX, self.now).unwrap();
    }

    fn acknowledge(&mut self, lane: Lane, at: u64) {
        while self.ledger.next_frame().is_some() {}
        self.ledger.ack(lane, next(at), self.now).unwrap();
    }

    fn is_over(&mut self) -> bool {
        self.ledger.take_ended().into_iter().any(|ended| ended.then == crate::lane::AfterDrain::Reopen)
    }
}

fn known(spans: &[(TopicId, u32, u64, u64)], released: Option<(TopicId, u32, u64)>) -> Known {
    let LaneSource { partition, partition_count, .. } = source(0);
    let span = |(topic_id, line, first, end): &(TopicId, u32, u64, u64)| {
        let span = Span { line: Line(*line), what: What::Data, first: next(*first), next: next(*end) };
        (Source { partition: partition.clone(), topic_id: *topic_id, partition_count }, span)
    };
    let released = released.map(|(topic_id, line, at)| Released { topic_id, line: Line(line), next: next(at) });
    Known { spans: spans.iter().map(span).collect(), released }
}

fn gap(lane: Lane, first: u64, end: u64, reason: GapReason) -> Section {
    Section { lane, kind: SectionKind::Gap { first: next(first), next: next(end), reason } }
}

fn recreated(previous: TopicId, at: u64) -> ResumePoint {
    ResumePoint::Recreated { previous, next: next(at) }
}

#[test]
fn what_is_left_of_a_past_topic_is_sent_and_its_lane_is_over() {
    let mut play = Play::new();
    let point = ResumePoint::At(next(3));
    let lane = play.open(OLD, Some(NEW), point);
    assert_eq!(play.begin(lane, point, &known(&[(OLD, 0, 0, 8), (NEW, 1, 0, 4)], None)), Begins::Begun(None));
    play.entry(1, OLD, 0, 0, 8);
    play.entry(2, NEW, 1, 0, 4);
    assert_eq!(play.ledger.book(lane).unwrap().position, Some(next(8)), "nothing of the topic of today");
    assert!(!play.is_over());
    play.acknowledge(lane, 8);
    assert!(play.is_over());
    assert_eq!(play.ledger.take_attachments(), [], "the source has another topic");
    assert!(play.ledger.take_commits().is_empty(), "there, 8 means nothing");
    // The topic of today follows.
    let point = recreated(OLD, 8);
    let lane = play.open(NEW, None, point);
    let begins = play.begin(lane, point, &known(&[(OLD, 0, 0, 8), (NEW, 1, 0, 4)], Some((OLD, 0, 8))));
    assert_eq!(begins, Begins::Begun(Some(gap(lane, 8, 0, GapReason::TopicRecreated))));
    assert_eq!(play.ledger.take_attachments()[0].next, next(4), "from the end of its own part of the spill");
}

#[test]
fn what_is_missing_of_a_past_topic_is_gone() {
    let mut play = Play::new();
    let spans = known(&[(OLD, 0, 5, 8), (OLD, 0, 9, 10)], None);
    let point = ResumePoint::At(next(3));
    let lane = play.open(OLD, Some(TopicId::UNKNOWN), point);
    let hole = gap(lane, 3, 5, GapReason::Damaged);
    assert_eq!(play.begin(lane, point, &spans), Begins::Begun(Some(hole)));
    play.opening(hole);
    assert!(play.is_over(), "a lane has one opening");
    let lane = play.open(OLD, Some(TopicId::UNKNOWN), ResumePoint::At(next(5)));
    assert_eq!(play.begin(lane, ResumePoint::At(next(5)), &spans), Begins::Begun(None));
    play.entry(1, OLD, 0, 5, 8);
    play.acknowledge(lane, 8);
    assert!(play.is_over(), "another hole");
    let lane = play.open(OLD, Some(TopicId::UNKNOWN), ResumePoint::At(next(8)));
    let hole = gap(lane, 8, 9, GapReason::Damaged);
    assert_eq!(play.begin(lane, ResumePoint::At(next(8)), &spans), Begins::Begun(Some(hole)));
}

#[test]
fn a_past_topic_that_the_centre_has_or_is_beyond_is_over_at_once() {
    for point in [ResumePoint::At(next(8)), recreated(NEW, 2), recreated(TopicId([3; 16]), 2)] {
        let mut play = Play::new();
        let lane = play.open(OLD, Some(TopicId([3; 16])), point);
        assert_eq!(play.begin(lane, point, &known(&[(OLD, 0, 0, 8), (NEW, 1, 0, 4)], None)), Begins::Begun(None));
        assert!(play.is_over(), "{point:?}");
        assert_eq!(play.ledger.take_attachments(), []);
    }
    let mut play = Play::new();
    let before = recreated(TopicId([9; 16]), 7);
    let lane = play.open(OLD, Some(NEW), before);
    let begins = play.begin(lane, before, &known(&[(OLD, 0, 0, 8)], None));
    assert_eq!(begins, Begins::Begun(Some(gap(lane, 7, 0, GapReason::TopicRecreated))), "the centre has one before it");
}

#[test]
fn a_topic_made_anew_is_read_from_its_beginning_on_a_line_of_its_own() {
    let mut play = Play::new();
    play.ledger.session_closed();
    let lane = play.ledger.open(LaneSource { topic_id: NEW, ..source(0) }).unwrap().lane;
    let (spans, log) = (known(&[(OLD, 4, 0, 8)], None), LogRange { start: next(1), end: next(20) });
    // What the local group has is of the old topic.
    play.spool.read_on(&mut play.ledger, lane, &spans, Some(next(8)));
    assert_eq!(play.ledger.take_attachments(), []);
    play.spool.read_on_log(&mut play.ledger, lane, &spans, Some(next(8)), log, StartPolicy::Latest);
    assert_eq!(play.ledger.take_attachments()[0].next, next(1));
    play.spool.built(&mut play.ledger, site::frame(&[(lane, 1, 3)]), &[], 0, play.now).unwrap();
    assert_eq!(play.spool.take_appends()[0].sections[0].line, Line(5));
}

#[test]
fn a_truncated_log_is_another_line() {
    let mut play = Play::new();
    let point = ResumePoint::At(next(8));
    let lane = play.open(OLD, None, point);
    assert_eq!(play.begin(lane, point, &known(&[(OLD, 0, 0, 8)], None)), Begins::Source);
    let truncated = Gap { first: next(8), next: next(5), reason: GapReason::Truncated };
    let section = play.ledger.begin(lane, point, Beginning::Gap(truncated)).unwrap();
    assert_eq!(play.ledger.book(lane).unwrap().line, Line(1));
    play.opening(section);
    assert_eq!(play.ledger.take_attachments()[0].next, next(5));
    // After a crash: the gap was applied, and the spill has nothing of the new line.
    let mut play = Play::new();
    let point = ResumePoint::At(next(5));
    let lane = play.open(OLD, None, point);
    assert_eq!(play.begin(lane, point, &known(&[(OLD, 0, 0, 8)], Some((OLD, 0, 8)))), Begins::Source, "not 5 to 8 of the old line");
    assert_eq!(play.ledger.book(lane).unwrap().line, Line(1));
}

/// Found by the model: the local group of a topic made anew was committed at an offset of the one before, from which it would be read on.
#[test]
fn what_another_lane_takes_over_is_not_committed_any_more() {
    let mut play = Play::new();
    let point = ResumePoint::At(next(3));
    let lane = play.open(OLD, None, point);
    assert_eq!(play.ledger.begin(lane, point, Beginning::Resume { at: next(3) }), None);
    play.ledger.push(site::frame(&[(lane, 3, 5)]), &[None], 0, play.now).unwrap();
    play.ledger.drain(lane, crate::lane::AfterDrain::Reopen);
    assert!(play.ledger.take_commits().is_empty(), "what was not taken yet");
    play.acknowledge(lane, 5);
    assert!(play.ledger.take_commits().is_empty(), "what comes later");
}

/// Found by the model: made anew twice while there was no session, all that the spill held of the first was taken for sent.
#[test]
fn a_past_topic_outlives_another_one_that_comes_to_an_end() {
    let mut play = Play::new();
    let point = ResumePoint::At(next(3));
    let lane = play.open(OLD, Some(NEW), point);
    play.ledger.drain(lane, crate::lane::AfterDrain::Reopen);
    assert!(!play.is_over(), "nothing of it was sent");
    assert_eq!(play.begin(lane, point, &known(&[(OLD, 0, 3, 8)], None)), Begins::Begun(None));
    play.entry(1, OLD, 0, 3, 8);
    play.acknowledge(lane, 8);
    assert!(play.is_over());
}
