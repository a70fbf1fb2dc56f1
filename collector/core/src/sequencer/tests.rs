//! Permutations, duplicates, resends over sessions, and peers that mean harm.
#![expect(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;
use spillway_proto::compress::Compressor;
use spillway_proto::frame::{FrameBuilder, GapReason, SectionKind};
use spillway_proto::record::RecordWriter;
use spillway_proto::{CloseCode, Offset, TopicId};

use super::*;

#[derive(Debug)]
struct TestFrame(Frame);

impl AsRef<Frame> for TestFrame {
    fn as_ref(&self) -> &Frame {
        &self.0
    }
}

const PLENTY: usize = 1 << 30;
const LANE: Lane = Lane(1);

fn at(next: u64) -> NextOffset {
    NextOffset::new(next).unwrap()
}

fn run(first: u64, next: u64) -> RecordWriter {
    let mut writer = RecordWriter::new(at(first));
    for offset in first..next {
        assert!(writer.push(Offset::new(offset).unwrap(), 0, None, None, std::iter::empty()));
    }
    writer
}

fn frame(build: impl FnOnce(&mut FrameBuilder)) -> Arc<TestFrame> {
    let mut builder = FrameBuilder::new();
    build(&mut builder);
    let encoded = builder.encode(&mut Compressor::new(1).unwrap());
    Arc::new(TestFrame(Frame::decode(encoded.bytes, PLENTY).unwrap()))
}

fn data(first: u64, next: u64) -> Arc<TestFrame> {
    frame(|frame| frame.data(LANE, run(first, next)))
}

fn sequencer(resume: ResumePoint) -> Sequencer<TestFrame> {
    let mut sequencer = Sequencer::new(PLENTY);
    sequencer.announce(LANE).unwrap();
    sequencer.resume(LANE, resume);
    sequencer
}

/// Offsets that come out, in order; a gap or start shows as the offset that it leads to, in brackets.
fn arrive(sequencer: &mut Sequencer<TestFrame>, seq: u64, frame: &Arc<TestFrame>) -> Result<Vec<String>, Violation> {
    let mut ready = Vec::new();
    sequencer.arrive(FrameSeq(seq), frame, &mut ready)?;
    Ok(ready.iter().flat_map(shown).collect())
}

fn shown(ready: &Ready<TestFrame>) -> Vec<String> {
    match ready.frame.0.sections()[ready.section].kind {
        SectionKind::Data { .. } => (ready.from.value()..ready.to.value()).map(|offset| offset.to_string()).collect(),
        SectionKind::Gap { .. } | SectionKind::Start { .. } => vec![format!("[{}]", ready.to)],
    }
}

#[test]
fn a_section_waits_for_an_earlier_frame_and_no_longer() {
    let mut sequencer = sequencer(ResumePoint::At(at(0)));
    assert_eq!(arrive(&mut sequencer, 1, &data(2, 4)).unwrap(), Vec::<String>::new());
    assert!(sequencer.parked_bytes() > 0);
    assert_eq!(arrive(&mut sequencer, 0, &data(0, 2)).unwrap(), ["0", "1", "2", "3"]);
    assert_eq!(sequencer.parked_bytes(), 0);
    let hole = Violation::Hole { lane: LANE, expected: Some(at(4)), first: at(5) };
    assert_eq!(arrive(&mut sequencer, 2, &data(5, 6)), Err(hole));
    assert_eq!(hole.close_code(), CloseCode::OffsetHole);
}

#[test]
fn what_is_there_is_dropped_and_a_straddling_section_gives_its_tail() {
    let mut sequencer = sequencer(ResumePoint::At(at(5)));
    let mut ready = Vec::new();
    assert_eq!(sequencer.arrive(FrameSeq(0), &data(0, 5), &mut ready), Ok(5));
    assert!(ready.is_empty());
    assert_eq!(arrive(&mut sequencer, 1, &data(3, 7)).unwrap(), ["5", "6"]);
    assert_eq!(arrive(&mut sequencer, 2, &frame(|frame| frame.gap(LANE, at(6), at(9), GapReason::Retention))).unwrap(), ["[9]"]);
    assert_eq!(
        arrive(&mut sequencer, 3, &frame(|frame| frame.gap(LANE, at(6), at(9), GapReason::Retention))).unwrap(),
        Vec::<String>::new()
    );
}

#[test]
fn a_fresh_lane_begins_with_its_start() {
    let mut fresh = sequencer(ResumePoint::Fresh);
    assert_eq!(arrive(&mut fresh, 1, &data(7, 8)).unwrap(), Vec::<String>::new(), "a frame that overtook the start is not the beginning");
    assert_eq!(arrive(&mut fresh, 0, &frame(|frame| frame.start(LANE, at(7)))).unwrap(), ["[7]", "7"]);
    assert_eq!(arrive(&mut fresh, 2, &frame(|frame| frame.start(LANE, at(3)))).unwrap(), Vec::<String>::new(), "sent again");
    let mut fresh = sequencer(ResumePoint::Fresh);
    assert_eq!(arrive(&mut fresh, 0, &data(7, 8)), Err(Violation::Hole { lane: LANE, expected: None, first: at(7) }));
}

#[test]
fn a_recreated_lane_begins_with_its_gap() {
    let resume = ResumePoint::Recreated { previous: TopicId([1; 16]), next: at(40) };
    let told = frame(|frame| frame.gap(LANE, at(40), at(0), GapReason::TopicRecreated));
    let mut lane = sequencer(resume);
    assert_eq!(arrive(&mut lane, 1, &data(0, 1)).unwrap(), Vec::<String>::new());
    assert_eq!(arrive(&mut lane, 0, &told).unwrap(), ["[0]", "0"]);
    assert_eq!(arrive(&mut lane, 2, &told).unwrap(), Vec::<String>::new(), "sent again");
    assert_eq!(arrive(&mut sequencer(resume), 0, &data(40, 41)), Err(Violation::RecreationUntold(LANE)));
    let other = frame(|frame| frame.gap(LANE, at(39), at(0), GapReason::TopicRecreated));
    assert_eq!(arrive(&mut sequencer(resume), 0, &other), Err(Violation::RecreationUntold(LANE)));
}

#[test]
fn only_a_truncated_log_goes_back() {
    let back = |reason| frame(|frame| frame.gap(LANE, at(10), at(4), reason));
    let mut lane = sequencer(ResumePoint::At(at(10)));
    assert_eq!(arrive(&mut lane, 0, &back(GapReason::Truncated)).unwrap(), ["[4]"]);
    assert_eq!(arrive(&mut lane, 1, &data(4, 6)).unwrap(), ["4", "5"]);
    for reason in [GapReason::Retention, GapReason::Other(9)] {
        let violation = Violation::GapBackwards { lane: LANE, first: at(10), next: at(4) };
        assert_eq!(arrive(&mut sequencer(ResumePoint::At(at(10))), 0, &back(reason)), Err(violation));
    }
}

#[test]
fn lanes_must_be_announced_and_resumed_and_retired_ones_vanish() {
    let mut session = Sequencer::new(PLENTY);
    assert_eq!(arrive(&mut session, 0, &data(0, 1)).unwrap(), Vec::<String>::new(), "of an earlier session");
    session.announce(LANE).unwrap();
    assert_eq!(session.announce(LANE), Err(Violation::LaneReused(LANE)));
    assert_eq!(arrive(&mut session, 1, &data(0, 1)), Err(Violation::LaneNotResumed(LANE)));
    session.resume(LANE, ResumePoint::At(at(0)));
    assert_eq!(arrive(&mut session, 3, &data(5, 6)).unwrap(), Vec::<String>::new());
    session.retire(LANE).unwrap();
    assert_eq!(session.parked_bytes(), 0, "what was parked is gone");
    assert_eq!(arrive(&mut session, 4, &data(9, 10)).unwrap(), Vec::<String>::new(), "no hole on a dead lane");
    assert_eq!(session.announce(LANE), Err(Violation::LaneReused(LANE)));
    assert_eq!(arrive(&mut session, 4, &data(9, 10)), Err(Violation::FrameRepeated(FrameSeq(4))));
}

#[test]
fn limits_hold() {
    let mut session = sequencer(ResumePoint::At(at(0)));
    let far = Violation::FrameTooFarAhead { seq: FrameSeq(MAX_FRAMES_AHEAD + 1), missing: FrameSeq(0) };
    assert_eq!(arrive(&mut session, MAX_FRAMES_AHEAD + 1, &data(1, 2)), Err(far));
    let mut small = Sequencer::new(1000);
    small.announce(LANE).unwrap();
    small.resume(LANE, ResumePoint::At(at(0)));
    let parked = (1..).map(|n| arrive(&mut small, n, &data(n, n + 1))).find_map(Result::err).unwrap();
    assert!(matches!(parked, Violation::BytesTooMany { limit: 1000, .. }), "{parked}");
    assert_eq!(parked.close_code(), CloseCode::LimitExceeded);
    assert!(small.parked_bytes() <= 1000);
}

/// One agent's life: several lanes' frames cut at random, sent over several sessions; each session resends what was not taken, the frames of
/// a session arrive in random order, and only a part of them at all.
#[derive(Debug, Clone)]
struct Life {
    lanes: u32,
    /// Frames: which lanes have a section in it, and how many records.
    frames: Vec<Vec<(u32, u8)>>,
    /// Sessions: how many frames arrive, and a seed for their order.
    sessions: Vec<(u8, u64)>,
}

fn life() -> impl Strategy<Value = Life> {
    (1u32..5).prop_flat_map(|lanes| {
        let section = (0..lanes, 0u8..6);
        let frames = prop::collection::vec(prop::collection::vec(section, 1..5), 1..30);
        let sessions = prop::collection::vec((any::<u8>(), any::<u64>()), 1..6);
        (frames, sessions).prop_map(move |(frames, sessions)| Life { lanes, frames, sessions })
    })
}

proptest! {
    #[test]
    fn every_offset_comes_once_and_in_order_whatever_the_order_of_arrival(life in life()) {
        // The frames are built once, each lane beginning at 3 with its start.
        let mut ends = vec![None::<u64>; life.lanes as usize];
        let frames: Vec<_> = life.frames.iter().map(|sections| frame(|frame| {
            for (lane, count) in sections {
                let end = &mut ends[*lane as usize];
                if end.is_none() {
                    frame.start(Lane(*lane), at(3));
                    *end = Some(3);
                }
                let first = end.unwrap();
                let next = first + u64::from(*count);
                frame.data(Lane(*lane), run(first, next));
                *end = Some(next);
            }
        })).collect();
        let mut centre = vec![None::<u64>; life.lanes as usize];
        let last = (u8::MAX, 7u64);
        for (arriving, seed) in life.sessions.iter().chain([&last]) {
            let mut session = Sequencer::new(PLENTY);
            for lane in 0..life.lanes {
                session.announce(Lane(lane)).unwrap();
                session.resume(Lane(lane), centre[lane as usize].map_or(ResumePoint::Fresh, |next| ResumePoint::At(at(next))));
            }
            let mut order: Vec<usize> = (0..frames.len()).collect();
            shuffle(&mut order, *seed);
            if *arriving < u8::MAX {
                order.truncate(usize::from(*arriving) * (frames.len() + 1) / 256);
            }
            for index in order {
                let mut ready = Vec::new();
                session.arrive(FrameSeq(index as u64), &frames[index], &mut ready).unwrap();
                for ready in ready {
                    let position = &mut centre[ready.lane.0 as usize];
                    let kind = ready.frame.0.sections()[ready.section].kind;
                    prop_assert!(ready.from >= kind.first(), "nothing that the section does not have");
                    match kind {
                        SectionKind::Start { next } => prop_assert_eq!(position.replace(next.value()), None, "a start once"),
                        _ => prop_assert_eq!(position.replace(kind.next().value()), Some(ready.from.value()), "without hole or overlap"),
                    }
                }
            }
            prop_assert!(*arriving < u8::MAX || session.parked_bytes() == 0);
        }
        prop_assert_eq!(centre, ends, "everything has come");
    }

    #[test]
    fn a_peer_that_means_harm_ends_in_a_violation_and_within_the_bound(
        steps in prop::collection::vec((0u64..40, 0u32..4, 0u8..3, 0u64..60, 0u64..60, 0u8..6, any::<bool>()), 1..120),
        limit in 200usize..4000,
    ) {
        let mut session = Sequencer::new(limit);
        for lane in 0..3 {
            session.announce(Lane(lane)).unwrap();
        }
        session.resume(Lane(0), ResumePoint::Fresh);
        session.resume(Lane(1), ResumePoint::At(at(10)));
        session.resume(Lane(2), ResumePoint::Recreated { previous: TopicId([1; 16]), next: at(20) });
        for (seq, lane, kind, a, b, reason, retire) in steps {
            let frame = frame(|frame| match kind {
                0 => frame.data(Lane(lane), run(a.min(b), a.max(b))),
                1 => frame.gap(Lane(lane), at(a), at(b), GapReason::from_code(reason)),
                _ => frame.start(Lane(lane), at(a)),
            });
            let _violation = arrive(&mut session, seq, &frame);
            prop_assert!(session.parked_bytes() <= limit);
            if retire && lane > 0 {
                session.retire(Lane(lane)).unwrap();
            }
        }
    }
}

fn shuffle(order: &mut [usize], seed: u64) {
    let mut state = seed | 1;
    for index in (1..order.len()).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        order.swap(index, (state >> 33) as usize % (index + 1));
    }
}

fn late(at_: u64, until: u64) -> Sequencer<TestFrame> {
    let mut sequencer = Sequencer::new(PLENTY);
    sequencer.announce(LANE).unwrap();
    sequencer.resume_late(LANE, at(at_), at(until));
    sequencer
}

#[test]
fn a_lane_goes_over_what_is_deferred_and_a_late_lane_brings_it() {
    let deferral = frame(|frame| frame.gap(LANE, at(5), at(9), GapReason::Deferred));
    let mut own = sequencer(ResumePoint::At(at(5)));
    assert_eq!(arrive(&mut own, 1, &data(9, 11)).unwrap(), Vec::<String>::new());
    assert_eq!(arrive(&mut own, 0, &deferral).unwrap(), ["[9]", "9", "10"]);
    assert_eq!(arrive(&mut own, 2, &deferral).unwrap(), Vec::<String>::new(), "sent again");
    let back = frame(|frame| frame.gap(LANE, at(11), at(9), GapReason::Deferred));
    assert!(matches!(arrive(&mut own, 3, &back), Err(Violation::GapBackwards { .. })));

    let mut late = late(5, 9);
    assert_eq!(arrive(&mut late, 2, &frame(|frame| frame.gap(LANE, at(7), at(9), GapReason::Damaged))).unwrap(), Vec::<String>::new());
    assert_eq!(arrive(&mut late, 0, &data(4, 6)).unwrap(), ["5"], "what is there is dropped");
    assert_eq!(arrive(&mut late, 1, &data(6, 7)).unwrap(), ["6", "[9]"]);
    assert_eq!(arrive(&mut late, 3, &data(8, 9)).unwrap(), Vec::<String>::new(), "below the range's beginning");
}

#[test]
fn a_late_lane_stays_within_its_range_and_has_no_hole() {
    let hole = Violation::Hole { lane: LANE, expected: Some(at(5)), first: at(6) };
    assert_eq!(arrive(&mut late(5, 9), 0, &data(6, 7)), Err(hole));
    let mut beyond = late(5, 9);
    assert_eq!(arrive(&mut beyond, 0, &data(5, 12)).unwrap(), ["5", "6", "7", "8"], "what is beyond is there");
    assert_eq!(arrive(&mut beyond, 1, &data(8, 12)).unwrap(), Vec::<String>::new());
    assert_eq!(arrive(&mut late(9, 9), 0, &data(5, 10)).unwrap(), Vec::<String>::new(), "all of it is there");
    assert_eq!(Violation::LateBegins(LANE).close_code(), CloseCode::ProtocolViolation);
    for wrong in [
        frame(|frame| frame.start(LANE, at(5))),
        frame(|frame| frame.gap(LANE, at(5), at(7), GapReason::Deferred)),
        frame(|frame| frame.gap(LANE, at(5), at(0), GapReason::TopicRecreated)),
        frame(|frame| frame.gap(LANE, at(5), at(4), GapReason::Truncated)),
    ] {
        assert_eq!(arrive(&mut late(5, 9), 0, &wrong), Err(Violation::LateBegins(LANE)));
    }
}

proptest! {
    /// Live records and deferred ones on their own lanes, frames in any order, sessions that end: each lane's offsets come once, in order.
    #[test]
    fn two_lanes_of_a_partition_do_not_mix(
        cuts in prop::collection::vec(1u64..5, 1..12), order in prop::collection::vec(any::<prop::sample::Index>(), 24), ends in 0usize..12,
    ) {
        let (own_lane, late_lane) = (Lane(1), Lane(2));
        let until = 40;
        let mut frames = vec![frame(|frame| frame.gap(own_lane, at(0), at(until), GapReason::Deferred))];
        let (mut own_end, mut late_end) = (until, 0);
        for cut in &cuts {
            let late_next = (late_end + cut).min(until);
            frames.push(frame(|frame| {
                frame.data(own_lane, run(own_end, own_end + cut));
                frame.data(late_lane, run(late_end, late_next));
            }));
            (own_end, late_end) = (own_end + cut, late_next);
        }
        let (mut own, mut late) = (Vec::new(), Vec::new());
        let (mut own_at, mut late_at) = (0, 0);
        for (session, most) in [(0, ends), (1, usize::MAX)] {
            let mut sequencer = Sequencer::new(PLENTY);
            sequencer.announce(own_lane).unwrap();
            sequencer.announce(late_lane).unwrap();
            sequencer.resume(own_lane, ResumePoint::At(at(own_at)));
            sequencer.resume_late(late_lane, at(late_at), at(until));
            let mut left: Vec<_> = frames.iter().cloned().enumerate().collect();
            for index in order.iter().cycle().take(frames.len().min(most)) {
                let (seq, frame) = left.swap_remove(index.index(left.len()));
                let mut ready = Vec::new();
                sequencer.arrive(FrameSeq(seq as u64), &frame, &mut ready).unwrap();
                for ready in ready {
                    let (offsets, at) = if ready.lane == own_lane { (&mut own, &mut own_at) } else { (&mut late, &mut late_at) };
                    let kind = ready.frame.0.sections()[ready.section].kind;
                    prop_assert_eq!(ready.from.value(), *at, "session {}", session);
                    if matches!(kind, SectionKind::Data { .. }) {
                        offsets.extend(ready.from.value()..kind.next().value());
                    }
                    *at = kind.next().value();
                }
            }
        }
        prop_assert_eq!(own, (until..own_end).collect::<Vec<_>>());
        prop_assert_eq!(late, (0..late_end).collect::<Vec<_>>());
    }
}
