#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::{Duration, Instant};

use spillway_proto::compress::Compressor;
use spillway_proto::frame::{EncodedFrame, FrameBuilder, GapReason, Timestamps};
use spillway_proto::message::ResumePoint;
use spillway_proto::record::RecordWriter;
use spillway_proto::{FrameSeq, Lane, NextOffset, Offset, Partition, TopicId, TopicName, TopicPartition};

use super::{AfterDrain, Error, Ledger, Resumed};
use crate::lane::{HeldBecause, LaneSource};
use crate::schedule::{Flow, FlowSpec, Scheduler, Scope, TopicClass};
use crate::start::{Beginning, Gap};

mod model;

pub(super) fn next(value: u64) -> NextOffset {
    NextOffset::new(value).unwrap()
}

pub(super) fn partition(index: u32) -> TopicPartition {
    TopicPartition { topic: TopicName::parse("t").unwrap(), partition: Partition::new(index).unwrap() }
}

pub(super) fn source(index: u32) -> LaneSource {
    LaneSource {
        partition: partition(index),
        topic_id: TopicId([1; 16]),
        partition_count: 8,
        born: false,
        outlived_by: None,
        flow: Flow::default(),
    }
}

/// A frame with one data section per entry: lane, first, next; every offset is a record.
pub(super) fn frame(sections: &[(Lane, u64, u64)]) -> EncodedFrame {
    let mut builder = FrameBuilder::new();
    for (lane, first, end) in sections {
        let mut records = RecordWriter::new(next(*first));
        for offset in *first..*end {
            assert!(records.push(Offset::new(offset).unwrap(), 1, None, Some(b"x"), std::iter::empty()));
        }
        builder.data(*lane, records);
    }
    builder.encode(&mut Compressor::new(1).unwrap())
}

pub(super) fn opening(ledger: &mut Ledger, lane: Lane, point: ResumePoint, beginning: Beginning, now: Instant) {
    let section = ledger.begin(lane, point, beginning).unwrap();
    let mut builder = FrameBuilder::new();
    match section.kind {
        spillway_proto::frame::SectionKind::Start { next } => builder.start(lane, next),
        spillway_proto::frame::SectionKind::Gap { first, next, reason } => builder.gap(lane, first, next, reason),
        other => panic!("{other:?}"),
    }
    ledger.push(builder.encode(&mut Compressor::new(1).unwrap()), &[None], 0, now).unwrap();
}

struct Fixture {
    ledger: Ledger,
    now: Instant,
}

impl Fixture {
    /// A session with `lanes` lanes, all at 0.
    fn new(lanes: u32) -> Self {
        let now = Instant::now();
        let mut ledger = Ledger::new(now);
        assert_eq!(ledger.session_opened(1 << 20), []);
        for index in 0..lanes {
            let lane = ledger.open(source(index)).unwrap().lane;
            assert!(matches!(ledger.resume(lane, ResumePoint::At(next(0)), now), Ok(Resumed::Begin(_))));
            assert_eq!(ledger.begin(lane, ResumePoint::At(next(0)), Beginning::Resume { at: next(0) }), None);
        }
        assert_eq!(ledger.take_attachments().len(), lanes as usize);
        Self { ledger, now }
    }

    fn push(&mut self, sections: &[(Lane, u64, u64)]) {
        self.ledger.push(frame(sections), &[], 100, self.now).unwrap();
    }

    fn sent(&mut self) -> Vec<u64> {
        std::iter::from_fn(|| self.ledger.next_frame()).map(|outgoing| outgoing.seq.0).collect()
    }

    fn released(&mut self) -> usize {
        self.ledger.take_released().into_values().sum()
    }

    fn ack(&mut self, lane: u32, to: u64) {
        self.ledger.ack(Lane(lane), next(to), self.now).unwrap();
    }
}

#[test]
fn a_frame_is_kept_until_all_its_sections_are_acknowledged() {
    let mut fixture = Fixture::new(2);
    fixture.push(&[(Lane(0), 0, 5), (Lane(1), 0, 3)]);
    assert_eq!(fixture.sent(), [0]);
    fixture.ack(0, 5);
    assert_eq!((fixture.released(), fixture.ledger.take_acked_records()), (0, 5));
    fixture.ack(1, 2);
    assert_eq!(fixture.released(), 0, "a part of a section");
    fixture.ack(1, 3);
    assert_eq!((fixture.released(), fixture.ledger.take_acked_records()), (100, 3));
    assert!(fixture.ledger.is_empty());
    let commits = fixture.ledger.take_commits();
    assert_eq!(commits.into_iter().collect::<Vec<_>>(), [(partition(0), next(5)), (partition(1), next(3))]);
}

#[test]
fn the_window_is_kept_but_a_single_frame_passes() {
    let mut fixture = Fixture::new(1);
    let length = frame(&[(Lane(0), 0, 5)]).bytes.len();
    fixture.ledger.session_opened(2 * length);
    fixture.ledger.resume(Lane(0), ResumePoint::At(next(0)), fixture.now).unwrap();
    for n in 0..4 {
        fixture.push(&[(Lane(0), n * 5, n * 5 + 5)]);
    }
    assert_eq!(fixture.sent(), [0, 1]);
    fixture.ack(0, 5);
    assert_eq!(fixture.sent(), [2]);
    fixture.ack(0, 20);
    fixture.push(&[(Lane(0), 20, 2000)]);
    assert_eq!(fixture.sent(), [3], "alone, a frame may be larger than the window");
}

#[test]
fn a_new_session_sends_what_the_centre_lacks_again_and_in_order() {
    let mut fixture = Fixture::new(2);
    fixture.push(&[(Lane(0), 0, 5)]);
    fixture.push(&[(Lane(0), 5, 9), (Lane(1), 0, 4)]);
    fixture.push(&[(Lane(1), 4, 6)]);
    assert_eq!(fixture.sent(), [0, 1, 2]);
    fixture.ledger.session_closed();
    assert!(fixture.ledger.next_frame().is_none());
    let announced = fixture.ledger.session_opened(1 << 20);
    assert_eq!(announced.iter().map(|open| open.lane.0).collect::<Vec<_>>(), [0, 1]);
    assert!(fixture.ledger.next_frame().is_none(), "no answer yet");
    assert_eq!(fixture.ledger.resume(Lane(0), ResumePoint::At(next(7)), fixture.now), Ok(Resumed::Continues));
    assert!(fixture.ledger.next_frame().is_none(), "the first frame is done, the second waits for lane 1");
    fixture.ledger.resume(Lane(1), ResumePoint::At(next(0)), fixture.now).unwrap();
    assert_eq!(fixture.sent(), [0, 1], "frames 1 and 2 of old");
    assert_eq!(fixture.ledger.take_attachments(), [], "reading goes on where it was");
}

#[test]
fn another_writers_progress_begins_a_new_lane() {
    let mut fixture = Fixture::new(1);
    fixture.push(&[(Lane(0), 0, 5)]);
    fixture.ledger.session_closed();
    fixture.ledger.session_opened(1 << 20);
    assert_eq!(fixture.ledger.resume(Lane(0), ResumePoint::At(next(6)), fixture.now), Ok(Resumed::Diverged));
    let ended = fixture.ledger.take_ended();
    assert_eq!((ended.len(), &ended[0].then), (1, &AfterDrain::Reopen));
    assert!(fixture.ledger.is_empty(), "what is retained of it is of no use");
    assert_eq!(fixture.ledger.take_detachments().len(), 1);
    fixture.ledger.open(source(0)).unwrap();
    // The source may still hand over a frame of the old lane; it goes nowhere and takes no budget.
    fixture.push(&[(Lane(0), 5, 6)]);
    assert_eq!(fixture.released(), 200);
    fixture.ledger.detached(Lane(0));
    assert!(fixture.ledger.book(Lane(0)).is_none());
}

#[test]
fn a_held_lane_frees_its_frames_and_the_others_go_on() {
    let mut fixture = Fixture::new(2);
    fixture.push(&[(Lane(0), 0, 5), (Lane(1), 0, 5)]);
    fixture.push(&[(Lane(0), 5, 6)]);
    assert_eq!(fixture.sent(), [0, 1]);
    let because = HeldBecause { reason: "record_too_large", detail: "raise max.message.bytes".to_owned() };
    assert_eq!(fixture.ledger.hold(Lane(0), next(3), because.clone(), fixture.now), Ok(Some(partition(0))));
    assert_eq!(fixture.released(), 100, "the frame with lane 0 alone");
    assert_eq!(fixture.ledger.take_commits()[&partition(0)], next(3));
    let detach = fixture.ledger.take_detachments();
    assert_eq!((detach.len(), detach[0].keep), (1, false));
    fixture.ack(1, 5);
    assert_eq!(fixture.released(), 100);
    assert_eq!(fixture.ledger.hold(Lane(0), next(3), because, fixture.now), Ok(None));
    assert_eq!(fixture.ledger.session_opened(1 << 20).len(), 1, "a held lane that no frame names is not announced");
}

#[test]
fn a_dead_lane_that_frames_still_name_is_not_announced() {
    let mut fixture = Fixture::new(2);
    fixture.push(&[(Lane(0), 0, 5), (Lane(1), 0, 5)]);
    let because = HeldBecause { reason: "other", detail: String::new() };
    fixture.ledger.hold(Lane(0), next(0), because, fixture.now).unwrap();
    let successor = fixture.ledger.open(source(0)).unwrap().lane;
    fixture.ledger.session_closed();
    let announced = fixture.ledger.session_opened(1 << 20);
    assert_eq!(announced.iter().map(|open| open.lane).collect::<Vec<_>>(), [Lane(1), successor]);
    assert_eq!(fixture.sent(), [0; 0]);
    fixture.ledger.resume(Lane(1), ResumePoint::At(next(0)), fixture.now).unwrap();
    assert_eq!(fixture.sent(), [0], "only the living lane's answer is waited for");
}

#[test]
fn a_drained_lane_ends_after_its_last_ack() {
    let mut fixture = Fixture::new(1);
    fixture.push(&[(Lane(0), 0, 5)]);
    fixture.ledger.drain(Lane(0), AfterDrain::Reopen);
    assert!(fixture.ledger.take_detachments()[0].keep);
    fixture.push(&[(Lane(0), 5, 8)]);
    fixture.ack(0, 8);
    assert_eq!(fixture.ledger.take_ended(), [], "the source may have more");
    fixture.ledger.detached(Lane(0));
    assert_eq!(fixture.ledger.take_ended()[0].then, AfterDrain::Reopen);
}

#[test]
fn a_topic_made_anew_is_read_at_once_although_its_offsets_are_lower() {
    let mut fixture = Fixture::new(0);
    let lane = fixture.ledger.open(source(0)).unwrap().lane;
    let point = ResumePoint::Recreated { previous: TopicId([9; 16]), next: next(100) };
    let gap = Gap { first: next(100), next: next(0), reason: GapReason::TopicRecreated };
    opening(&mut fixture.ledger, lane, point, Beginning::Gap(gap), fixture.now);
    assert_eq!(fixture.ledger.take_attachments()[0].next, next(0));
    fixture.ledger.resume(lane, point, fixture.now).unwrap();
    fixture.push(&[(lane, 0, 5)]);
    assert_eq!(fixture.sent(), [0, 1]);
    fixture.ack(lane.0, 5);
    assert!(fixture.ledger.is_empty());
    assert_eq!(fixture.ledger.take_attachments(), []);
}

#[test]
fn nothing_is_read_before_a_backward_gap_is_acknowledged() {
    let mut fixture = Fixture::new(0);
    let lane = fixture.ledger.open(source(0)).unwrap().lane;
    let point = ResumePoint::At(next(100));
    let gap = Gap { first: next(100), next: next(50), reason: GapReason::Truncated };
    opening(&mut fixture.ledger, lane, point, Beginning::Gap(gap), fixture.now);
    assert_eq!(fixture.ledger.take_attachments(), []);
    fixture.ledger.resume(lane, point, fixture.now).unwrap();
    assert_eq!(fixture.sent(), [0]);
    fixture.ack(lane.0, 50);
    assert_eq!(fixture.ledger.take_attachments()[0].next, next(50));
    assert!(fixture.ledger.is_empty());
}

#[test]
fn nonsense_from_the_collector_is_told_apart() {
    let mut fixture = Fixture::new(1);
    fixture.push(&[(Lane(0), 0, 5)]);
    let beyond = Error::AckBeyond { lane: Lane(0), next: next(6), position: Some(next(5)) };
    assert_eq!(fixture.ledger.ack(Lane(0), next(6), fixture.now), Err(beyond));
    assert_eq!(fixture.ledger.ack(Lane(7), next(1), fixture.now), Err(Error::LaneUnknown(Lane(7))));
    let hole = fixture.ledger.push(frame(&[(Lane(0), 6, 7)]), &[], 0, fixture.now);
    assert_eq!(hole, Err(Error::NotContiguous { lane: Lane(0), position: Some(next(5)), first: next(6) }));
}

#[test]
fn data_without_an_ack_stalls() {
    let mut fixture = Fixture::new(1);
    let later = |seconds| fixture.now + Duration::from_secs(seconds);
    let (at_100, at_150, at_170) = (later(100), later(150), later(170));
    assert_eq!(fixture.ledger.stalled_for(at_100), Duration::ZERO, "nothing waits");
    fixture.ledger.push(frame(&[(Lane(0), 0, 5)]), &[Some(Timestamps::of(77))], 0, at_100).unwrap();
    assert_eq!(fixture.ledger.stalled_for(at_170), Duration::from_secs(70));
    assert_eq!(fixture.ledger.oldest_unacked(Lane(0)), Some(77));
    fixture.ledger.ack(Lane(0), next(1), at_150).unwrap();
    assert_eq!(fixture.ledger.stalled_for(at_170), Duration::from_secs(20));
}

#[test]
fn a_commit_that_failed_is_offered_again_unless_a_newer_one_is_there() {
    let mut fixture = Fixture::new(2);
    fixture.push(&[(Lane(0), 0, 5), (Lane(1), 0, 5)]);
    fixture.ack(0, 2);
    fixture.ack(1, 2);
    let failed = fixture.ledger.take_commits();
    fixture.ack(0, 5);
    fixture.ledger.commit_failed(failed);
    assert_eq!(fixture.ledger.take_commits().into_values().collect::<Vec<_>>(), [next(5), next(2)]);
    assert_eq!(FrameSeq(0).next(), FrameSeq(1));
}

#[test]
fn a_lane_begins_once_however_often_the_collector_answers() {
    let now = Instant::now();
    let mut ledger = Ledger::new(now);
    ledger.session_opened(1 << 20);
    let lane = ledger.open(source(0)).unwrap().lane;
    assert!(matches!(ledger.resume(lane, ResumePoint::Fresh, now), Ok(Resumed::Begin(_))));
    assert_eq!(ledger.resume(lane, ResumePoint::Fresh, now), Err(Error::AnsweredTwice(lane)), "else questions would pile up");
    // The session ends over it. In the next one the lane is asked for again while its start still waits to be put into a frame.
    let begun = ledger.begin(lane, ResumePoint::Fresh, Beginning::Start { at: next(0) });
    assert!(begun.is_some());
    ledger.session_closed();
    ledger.session_opened(1 << 20);
    assert!(matches!(ledger.resume(lane, ResumePoint::Fresh, now), Ok(Resumed::Begin(_))));
    assert_eq!(ledger.begin(lane, ResumePoint::Fresh, Beginning::Start { at: next(0) }), None, "two starts would stop the agent");
}

/// Lanes 0, 1 and 2 are of classes 3, 0 and 3.
fn with_classes(max_in_flight_bytes: usize) -> Fixture {
    let now = Instant::now();
    let flows = [TopicClass::BULK, TopicClass::URGENT].map(|class| FlowSpec { class, ..FlowSpec::default() });
    let mut ledger = Ledger::with(Scheduler::new(flows.into()), now);
    ledger.session_opened(max_in_flight_bytes);
    for index in 0..3 {
        let lane = ledger.open(LaneSource { flow: Flow(index as u16 % 2), ..source(index) }).unwrap().lane;
        ledger.resume(lane, ResumePoint::At(next(0)), now).unwrap();
        ledger.begin(lane, ResumePoint::At(next(0)), Beginning::Resume { at: next(0) });
    }
    Fixture { ledger, now }
}

#[test]
fn an_alarm_overtakes_bulk_in_each_session() {
    let mut fixture = with_classes(1 << 20);
    fixture.push(&[(Lane(0), 0, 5)]);
    fixture.push(&[(Lane(0), 5, 7), (Lane(2), 0, 1)]);
    fixture.push(&[(Lane(1), 0, 1)]);
    let classes = |ledger: &mut Ledger| std::iter::from_fn(|| ledger.next_frame()).map(|frame| frame.class.number()).collect::<Vec<_>>();
    assert_eq!(classes(&mut fixture.ledger), [0, 3, 3]);
    fixture.ledger.session_closed();
    fixture.ledger.session_opened(1 << 20);
    assert_eq!(classes(&mut fixture.ledger), [0_u8; 0], "no answers yet");
    fixture.ledger.resume(Lane(1), ResumePoint::At(next(0)), fixture.now).unwrap();
    assert_eq!(classes(&mut fixture.ledger), [0], "an alarm does not wait for the answers of bulk");
    for lane in [0, 2] {
        fixture.ledger.resume(Lane(lane), ResumePoint::At(next(0)), fixture.now).unwrap();
    }
    assert_eq!(classes(&mut fixture.ledger), [3, 3]);
}

#[test]
fn a_part_of_the_window_is_for_class_0() {
    let length = frame(&[(Lane(0), 0, 1)]).bytes.len();
    let mut fixture = with_classes(8 * length);
    (0..9).for_each(|n| fixture.push(&[(Lane(0), n, n + 1)]));
    assert_eq!(fixture.sent().len(), 7);
    (0..3).for_each(|n| fixture.push(&[(Lane(1), n, n + 1)]));
    assert_eq!(fixture.sent(), [7], "what is left of it");
    fixture.ack(0, 3);
    assert_eq!(fixture.sent(), [8, 9], "and bulk stays out of it");
}

#[test]
fn the_next_frame_of_each_flow_is_adapted_and_counted_as_it_is_then() {
    let mut fixture = with_classes(1 << 20);
    fixture.push(&[(Lane(0), 0, 5)]);
    fixture.push(&[(Lane(0), 5, 7)]);
    fixture.push(&[(Lane(1), 0, 1)]);
    let ledger = &mut fixture.ledger;
    let (before, length) = (ledger.unacked_bytes(), frame(&[(Lane(1), 0, 1)]).bytes.len());
    let mut adapted = Vec::new();
    ledger.adapt_next(|bytes| {
        adapted.push(bytes.clone());
        Some([&bytes[..], &[7; 10]].concat().into())
    });
    assert_eq!(adapted, [frame(&[(Lane(0), 0, 5)]).bytes, frame(&[(Lane(1), 0, 1)]).bytes], "one of each");
    assert_eq!((ledger.unacked_bytes(), ledger.unacked_bytes_of(Scope::One(Flow(1)))), (before + 20, length + 10));
    let sent = std::iter::from_fn(|| ledger.next_frame()).map(|frame| frame.bytes.ends_with(&[7; 10])).collect::<Vec<_>>();
    assert_eq!(sent, [true, true, false]);
    assert_eq!(ledger.unsent_bytes(), 0);
    fixture.ack(0, 7);
    fixture.ack(1, 1);
    assert_eq!(fixture.ledger.unacked_bytes(), 0);
}
