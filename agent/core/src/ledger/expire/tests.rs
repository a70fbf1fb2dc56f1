#![expect(clippy::unwrap_used, reason = "tests")]

use spillway_proto::compress::Compressor;
use spillway_proto::frame::{EncodedFrame, Frame, FrameBuilder, GapReason};
use spillway_proto::message::ResumePoint;
use spillway_proto::record::RecordWriter;
use spillway_proto::{Lane, Offset};

use super::super::Wanted;
use super::super::tests::{next, partition, source};
use super::*;
use crate::lane::NO_LANE;
use crate::schedule::{Scheduler, Scope};
use crate::start::Beginning;
use crate::ttl::TimeToLive;

const TTL: Duration = Duration::from_secs(10);

/// The time of day at the beginning, milliseconds since 1970.
const BEGAN_MS: i64 = 1_000_000;

struct Fixture {
    ledger: Ledger,
    start: Instant,
    seconds: u64,
}

impl Fixture {
    fn new(lanes: u32) -> Self {
        let start = Instant::now();
        let spec = FlowSpec { ttl: Some(TimeToLive::new(TTL)), ..FlowSpec::default() };
        let mut ledger = Ledger::with(Scheduler::new(vec![spec]), start);
        ledger.session_opened(1 << 20);
        for index in 0..lanes {
            let lane = ledger.open(source(index)).unwrap().lane;
            ledger.resume(lane, ResumePoint::At(next(0)), start).unwrap();
            ledger.begin(lane, ResumePoint::At(next(0)), Beginning::Resume { at: next(0) });
        }
        Self { ledger, start, seconds: 0 }
    }

    fn now(&self) -> Instant {
        self.start + Duration::from_secs(self.seconds)
    }

    /// Records that are written now, lane, first and next.
    fn push(&mut self, sections: &[(u32, u64, u64)]) {
        let ms = BEGAN_MS + self.seconds as i64 * 1_000;
        let (frame, timestamps) = frame(sections, ms);
        self.ledger.push(frame, &timestamps, 100, self.now()).unwrap();
    }

    fn pass(&mut self, seconds: u64) {
        self.seconds += seconds;
        self.ledger.expire(self.now(), BEGAN_MS + self.seconds as i64 * 1_000);
    }

    /// Lane, first and next of each section that is sent, and whether it is a gap; frame by frame.
    fn sent(&mut self) -> Vec<Vec<(u32, u64, u64, bool)>> {
        let part = |section: &Section| {
            let (first, next) = section.kind.range().unwrap();
            (section.lane.0, first.value(), next.value(), matches!(section.kind, SectionKind::Gap { reason: GapReason::Expired, .. }))
        };
        let frames = std::iter::from_fn(|| self.ledger.next_frame());
        frames.map(|frame| Frame::decode(frame.bytes, 1 << 20).unwrap().sections().iter().map(part).collect()).collect()
    }

    fn ack(&mut self, lane: u32, to: u64) {
        let now = self.now();
        self.ledger.ack(Lane(lane), next(to), now).unwrap();
    }

    fn passed(&mut self) -> Vec<(u32, u64, u64)> {
        let passed = self.ledger.take_passed().into_iter();
        passed.map(|passed| (passed.partition.partition.index(), passed.first.value(), passed.next.value())).collect()
    }

    fn released(&mut self) -> usize {
        self.ledger.take_released().into_values().sum()
    }
}

fn frame(sections: &[(u32, u64, u64)], ms: i64) -> (EncodedFrame, Vec<Option<Timestamps>>) {
    let (mut builder, mut timestamps) = (FrameBuilder::new(), Vec::new());
    for (lane, first, end) in sections {
        let mut records = RecordWriter::new(next(*first));
        for offset in *first..*end {
            assert!(records.push(Offset::new(offset).unwrap(), ms, None, Some(b"a record"), std::iter::empty()));
        }
        builder.data(Lane(*lane), records);
        timestamps.push(Some(Timestamps::of(ms)));
    }
    (builder.encode(&mut Compressor::new(1).unwrap()), timestamps)
}

#[test]
fn what_waited_too_long_is_one_gap_and_the_rest_follows() {
    let mut fixture = Fixture::new(2);
    fixture.push(&[(0, 0, 5), (1, 0, 2)]);
    fixture.push(&[(0, 5, 9)]);
    fixture.push(&[(1, 2, 4)]);
    fixture.pass(5);
    fixture.push(&[(0, 9, 12)]);
    fixture.pass(6);
    assert_eq!(fixture.released(), 300, "memory is free at once");
    assert_eq!(fixture.sent(), [vec![(0, 0, 9, true), (1, 0, 4, true)], vec![(0, 9, 12, false)]]);
    assert_eq!(fixture.ledger.unacked_records(), 3);
    fixture.ack(0, 12);
    fixture.ack(1, 4);
    assert_eq!(fixture.passed(), [(0, 0, 9), (1, 0, 4)]);
    assert_eq!((fixture.ledger.take_acked_records(), fixture.released(), fixture.ledger.is_empty()), (3, 100, true));
    assert_eq!(fixture.ledger.take_commits()[&partition(0)], next(12));
    assert_eq!(fixture.ledger.unacked_bytes_of(Scope::All), 0);
}

#[test]
fn a_frame_goes_as_long_as_one_of_its_records_lives() {
    let mut fixture = Fixture::new(2);
    let (frame, _) = frame(&[(0, 0, 5), (1, 0, 2)], 1);
    let young = Timestamps::of(BEGAN_MS);
    fixture.ledger.push(frame, &[Some(Timestamps::of(1)), Some(young)], 100, fixture.start).unwrap();
    fixture.pass(10);
    assert_eq!(fixture.sent(), [[(0, 0, 5, false), (1, 0, 2, false)]]);
}

#[test]
fn what_is_under_way_stays_as_it_is_until_the_next_session() {
    let mut fixture = Fixture::new(1);
    fixture.push(&[(0, 0, 5)]);
    fixture.push(&[(0, 5, 9)]);
    assert_eq!(fixture.sent().len(), 2);
    fixture.pass(99);
    assert_eq!(fixture.sent().len(), 0);
    fixture.ledger.session_closed();
    fixture.pass(1);
    fixture.ledger.session_opened(1 << 20);
    // The centre had committed a part of it.
    let now = fixture.now();
    fixture.ledger.resume(Lane(0), ResumePoint::At(next(3)), now).unwrap();
    fixture.pass(0);
    assert_eq!(fixture.sent(), [[(0, 0, 9, true)]]);
    fixture.ack(0, 9);
    assert_eq!(fixture.passed(), [(0, 3, 9)], "what the centre has of it is not told to be lost");
}

#[test]
fn gaps_that_come_one_after_the_other_go_as_one() {
    let mut fixture = Fixture::new(1);
    for n in 0..3 {
        let gap = |first| Section {
            lane: Lane(0),
            kind: SectionKind::Gap { first: next(first), next: next(first + 1), reason: GapReason::Expired },
        };
        let now = fixture.now();
        fixture.ledger.push(EncodedFrame::bare(vec![gap(n)]), &[None], 0, now).unwrap();
        fixture.pass(0);
        assert_eq!(fixture.sent().len(), 0, "more may come");
    }
    fixture.pass(1);
    assert_eq!(fixture.sent(), [[(0, 0, 3, true)]]);
    // Something behind it: no need to wait.
    let gap = Section { lane: Lane(0), kind: SectionKind::Gap { first: next(3), next: next(4), reason: GapReason::Expired } };
    let now = fixture.now();
    fixture.ledger.push(EncodedFrame::bare(vec![gap]), &[None], 0, now).unwrap();
    fixture.push(&[(0, 4, 5)]);
    fixture.pass(0);
    assert_eq!(fixture.sent().len(), 2);
    fixture.ack(0, 5);
    assert_eq!(fixture.passed(), [(0, 0, 3), (0, 3, 4)]);
}

#[test]
fn holes_between_what_is_too_old_belong_to_it_and_others_stay_holes() {
    let mut fixture = Fixture::new(2);
    fixture.push(&[(0, 0, 2)]);
    let mut hole = FrameBuilder::new();
    for (lane, first) in [(0, 2), (1, 0)] {
        let mut records = RecordWriter::new(next(first));
        records.cover(next(first + 1));
        hole.data(Lane(lane), records);
    }
    let (own, times) = frame(&[(0, 3, 4)], BEGAN_MS);
    let hole = hole.encode(&mut Compressor::new(1).unwrap());
    let start = fixture.start;
    fixture.ledger.push(hole, &[None, None], 0, start).unwrap();
    fixture.ledger.push(own, &times, 0, start).unwrap();
    fixture.pass(11);
    // A frame of holes alone says nothing of any age, and goes as it is.
    assert_eq!(fixture.sent(), [vec![(0, 0, 2, true)], vec![(0, 2, 3, false), (1, 0, 1, false)], vec![(0, 3, 4, false)]]);
}

#[test]
fn lanes_whose_gaps_join_a_frame_keep_their_order() {
    let lanes = 20;
    let mut fixture = Fixture::new(lanes);
    fixture.push(&[(0, 0, 1)]);
    fixture.push(&(0..lanes).rev().map(|lane| (lane, u64::from(lane == 0), 2)).collect::<Vec<_>>());
    fixture.pass(11);
    let expected = std::iter::once(0).chain((1..lanes).rev()).map(|lane| (lane, 0, 2, true));
    assert_eq!(fixture.sent(), [expected.collect::<Vec<_>>()]);
}

#[test]
fn a_held_lane_leaves_nothing_of_its_gaps() {
    let mut fixture = Fixture::new(2);
    fixture.push(&[(0, 0, 5), (1, 0, 2)]);
    fixture.push(&[(0, 5, 6), (1, 2, 3)]);
    let because = crate::lane::HeldBecause { reason: "other", detail: String::new() };
    let now = fixture.now();
    fixture.ledger.hold(Lane(0), next(0), because, now).unwrap();
    fixture.pass(11);
    assert_eq!(fixture.sent(), [[(1, 0, 3, true)]]);
    fixture.ack(1, 3);
    assert_eq!((fixture.passed(), fixture.ledger.is_empty()), (vec![(1, 0, 3)], true));
    fixture.ledger.detached(Lane(0));
    fixture.ledger.open(source(0)).unwrap();
    assert!(fixture.ledger.book(Lane(0)).is_none(), "no frame names it any more");
}

#[test]
fn what_was_spilled_together_and_is_of_several_flows_goes_as_it_is() {
    let start = Instant::now();
    let mortal = FlowSpec { ttl: Some(TimeToLive::new(TTL)), ..FlowSpec::default() };
    let mut ledger = Ledger::with(Scheduler::new(vec![mortal, FlowSpec::default()]), start);
    ledger.session_opened(1 << 20);
    for index in 0..2 {
        let flow = Flow(index as u16);
        let lane = ledger.open(crate::lane::LaneSource { flow, ..source(index) }).unwrap().lane;
        ledger.resume(lane, ResumePoint::At(next(0)), start).unwrap();
        ledger.begin(lane, ResumePoint::At(next(0)), Beginning::Resume { at: next(0) });
    }
    let (frame, _) = frame(&[(0, 0, 5), (1, 0, 2)], 1);
    let wanted = [Wanted::Now(Lane(0)), Wanted::Now(Lane(1))];
    ledger.push_stored(frame, &wanted, 1, Some(Timestamps::of(1)), start).unwrap();
    ledger.expire(start, BEGAN_MS);
    let mut fixture = Fixture { ledger, start, seconds: 0 };
    assert_eq!(fixture.sent(), [[(0, 0, 5, false), (1, 0, 2, false)]], "one of the flows keeps its records for ever");
}

#[test]
fn records_that_nobody_wants_do_not_go_beside_gaps_of_the_spill() {
    let mut fixture = Fixture::new(2);
    let mut builder = FrameBuilder::new();
    builder.gap(Lane(0), next(0), next(5), GapReason::Expired);
    let mut records = RecordWriter::new(next(0));
    assert!(records.push(Offset::new(0).unwrap(), BEGAN_MS, None, Some(b"a record"), std::iter::empty()));
    builder.data(NO_LANE, records);
    let frame = builder.encode(&mut Compressor::new(1).unwrap());
    let (start, times) = (fixture.start, Some(Timestamps::of(BEGAN_MS)));
    fixture.ledger.push_stored(frame, &[Wanted::Now(Lane(0)), Wanted::Not], BEGAN_MS, times, start).unwrap();
    let before = fixture.ledger.spilled_bytes_of(Scope::All);
    fixture.pass(1);
    assert_eq!(fixture.sent(), [[(0, 0, 5, true)]]);
    assert_eq!((fixture.ledger.unacked_bytes(), fixture.ledger.spilled_bytes_of(Scope::All)), (before, before));
    fixture.ack(0, 5);
    assert_eq!(fixture.ledger.spilled_bytes_of(Scope::All), 0);
}
