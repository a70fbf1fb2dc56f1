#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::HashMap;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use spillway_proto::frame::{GapReason, SectionKind, Timestamps};
use spillway_proto::{Lane, NextOffset, Offset, limits};

use super::{
    Batcher, ClosedFrame, FrameLimits, Gathering, Incoming, MIN_CAUGHT_UP_LINGER, OUTAGE_LINGER, PLANNED_LINGER, Pushed,
    URGENT_OUTAGE_LINGER, caught_up_linger,
};
use crate::ttl::TimeToLive;

const LIMITS: FrameLimits = FrameLimits { max_bytes: 1000, max_records: 10, linger: Duration::from_millis(50), largest_raw: 100_000 };

fn next(value: u64) -> NextOffset {
    NextOffset::new(value).unwrap()
}

fn push(batcher: &mut Batcher, lane: u32, offset: u64, value: &[u8], now: Instant) -> Pushed {
    let headers = std::iter::empty::<(&str, Option<&[u8]>)>();
    let record = Incoming {
        offset: Offset::new(offset).unwrap(),
        timestamp: 1_000,
        key: None,
        value: Some(value),
        headers: headers.collect::<Vec<_>>().into_iter(),
    };
    batcher.push(Lane(lane), record, now)
}

fn data(frame: &ClosedFrame) -> Vec<(u32, u64, u64, u32)> {
    let section = |section: &spillway_proto::frame::Section| match section.kind {
        SectionKind::Data { first, next, records, .. } => (section.lane.0, first.value(), next.value(), records),
        other => panic!("{other:?}"),
    };
    frame.builder.sections().iter().map(section).collect()
}

#[test]
fn records_of_many_partitions_join_until_the_linger_is_over() {
    let now = Instant::now();
    let mut batcher = Batcher::new(LIMITS);
    batcher.attach(Lane(1), next(5));
    batcher.attach(Lane(2), next(0));
    assert_eq!(batcher.due(LIMITS.linger), None);
    assert_eq!(push(&mut batcher, 1, 7, b"a", now), Pushed::Added);
    assert_eq!(push(&mut batcher, 2, 0, b"b", now + Duration::from_millis(20)), Pushed::Added);
    assert_eq!(push(&mut batcher, 1, 8, b"c", now), Pushed::Added);
    assert_eq!(batcher.due(LIMITS.linger), Some(now + LIMITS.linger), "counted from the first record");
    assert_eq!(batcher.due(LIMITS.linger / 5), Some(now + LIMITS.linger / 5), "caught up");
    assert_eq!(batcher.due(LIMITS.linger * 5), Some(now + LIMITS.linger), "never longer than configured");
    let frame = batcher.close().unwrap();
    assert_eq!(data(&frame), [(1, 5, 9, 2), (2, 0, 1, 1)]);
    assert_eq!(frame.timestamps, [Some(Timestamps::of(1_000)), Some(Timestamps::of(1_000))]);
    assert!(batcher.close().is_none());
}

/// Lane, first and next of each section, and whether it is a gap.
fn parts(frame: &ClosedFrame) -> Vec<(u32, u64, u64, bool)> {
    let part = |section: &spillway_proto::frame::Section| {
        let (first, next) = section.kind.range().unwrap();
        let is_gap = matches!(section.kind, SectionKind::Gap { reason: GapReason::Expired, .. });
        (section.lane.0, first.value(), next.value(), is_gap)
    };
    frame.builder.sections().iter().map(part).collect()
}

#[test]
fn what_is_too_old_is_a_gap_as_long_as_it_lasts() {
    let now = Instant::now();
    let mut batcher = Batcher::new(LIMITS);
    batcher.attach(Lane(1), next(5));
    batcher.attach(Lane(2), next(0));
    let expire = |batcher: &mut Batcher, lane, offset| batcher.expire(Lane(lane), Offset::new(offset).unwrap(), now);
    for offset in [5, 7, 8] {
        assert!(expire(&mut batcher, 1, offset));
    }
    assert!(!expire(&mut batcher, 1, 8), "it was there");
    assert!(!expire(&mut batcher, 9, 0), "a lane that is not read");
    batcher.cover(Lane(1), next(10), now);
    push(&mut batcher, 2, 0, b"b", now);
    assert_eq!(push(&mut batcher, 1, 11, b"a", now), Pushed::Added);
    assert!(expire(&mut batcher, 1, 12));
    assert_eq!(batcher.position(Lane(1)), Some(next(13)));
    let frame = batcher.close().unwrap();
    assert_eq!(parts(&frame), [(1, 5, 10, true), (2, 0, 1, false), (1, 10, 12, false), (1, 12, 13, true)]);
    assert_eq!(frame.timestamps, [None, Some(Timestamps::of(1_000)), Some(Timestamps::of(1_000)), None]);
}

#[test]
fn a_frame_without_records_waits_longer_for_more_gaps() {
    let (start, later) = (Instant::now(), Duration::from_millis(300));
    let mut batcher = Batcher::new(LIMITS);
    batcher.attach(Lane(1), next(0));
    assert!(batcher.expire(Lane(1), Offset::new(0).unwrap(), start));
    assert_eq!(batcher.due(LIMITS.linger), Some(start + Duration::from_secs(1)));
    push(&mut batcher, 1, 1, b"a", start + later);
    assert_eq!(batcher.due(LIMITS.linger), Some(start + later + LIMITS.linger), "records wait no longer than they do");
    batcher.detach(Lane(1), false);
    assert_eq!((batcher.due(LIMITS.linger), batcher.close().is_none()), (None, true));
}

#[test]
fn a_lane_let_go_takes_all_of_its_sections_along() {
    let now = Instant::now();
    let mut batcher = Batcher::new(LIMITS);
    batcher.attach(Lane(1), next(0));
    batcher.attach(Lane(2), next(0));
    push(&mut batcher, 1, 0, b"a", now);
    batcher.expire(Lane(1), Offset::new(1).unwrap(), now);
    push(&mut batcher, 2, 0, b"b", now);
    push(&mut batcher, 1, 2, b"c", now);
    batcher.detach(Lane(1), false);
    push(&mut batcher, 2, 1, b"d", now);
    assert_eq!(parts(&batcher.close().unwrap()), [(2, 0, 2, false)]);
}

#[test]
fn a_record_that_does_not_fit_waits_in_the_next_frame() {
    let now = Instant::now();
    let mut batcher = Batcher::new(LIMITS);
    batcher.attach(Lane(1), next(0));
    push(&mut batcher, 1, 0, &[0; 600], now);
    assert!(!batcher.is_sealed());
    push(&mut batcher, 1, 1, &[0; 600], now);
    assert_eq!(data(&batcher.take_sealed().unwrap()), [(1, 0, 1, 1)]);
    assert_eq!(data(&batcher.close().unwrap()), [(1, 1, 2, 1)]);
}

#[test]
fn a_large_record_is_alone() {
    let now = Instant::now();
    let mut batcher = Batcher::new(LIMITS);
    batcher.attach(Lane(1), next(0));
    push(&mut batcher, 1, 0, b"small", now);
    push(&mut batcher, 1, 1, &[0; 50_000], now);
    assert_eq!(data(&batcher.take_sealed().unwrap()), [(1, 0, 1, 1)]);
    assert_eq!(data(&batcher.take_sealed().unwrap()), [(1, 1, 2, 1)], "the large one filled its frame");
    push(&mut batcher, 1, 2, b"small", now);
    assert!(batcher.take_sealed().is_none());
}

#[test]
fn a_record_above_the_sessions_limit_is_refused_and_moves_nothing() {
    let now = Instant::now();
    let mut batcher = Batcher::new(LIMITS);
    batcher.attach(Lane(1), next(3));
    assert!(matches!(push(&mut batcher, 1, 3, &[0; 100_000], now), Pushed::TooLarge { bytes } if bytes > 100_000));
    assert_eq!(batcher.position(Lane(1)), Some(next(3)));
    assert!(batcher.close().is_none());
}

#[test]
fn a_hole_at_the_end_moves_the_position_without_a_record() {
    let now = Instant::now();
    let mut batcher = Batcher::new(LIMITS);
    batcher.attach(Lane(1), next(3));
    batcher.cover(Lane(1), next(3), now);
    assert!(batcher.close().is_none(), "nothing to cover");
    batcher.cover(Lane(1), next(8), now);
    let frame = batcher.close().unwrap();
    assert_eq!((data(&frame), frame.timestamps), (vec![(1, 3, 8, 0)], vec![None]));
    assert_eq!(push(&mut batcher, 1, 7, b"old", now), Pushed::Ignored);
}

#[test]
fn a_lane_that_is_thrown_away_leaves_the_others_in_place() {
    let now = Instant::now();
    let mut batcher = Batcher::new(LIMITS);
    for lane in 1..=3 {
        batcher.attach(Lane(lane), next(0));
        push(&mut batcher, lane, 0, b"x", now);
    }
    batcher.detach(Lane(1), false);
    batcher.detach(Lane(2), true);
    push(&mut batcher, 3, 1, b"y", now);
    assert_eq!(push(&mut batcher, 2, 1, b"late", now), Pushed::Ignored);
    assert_eq!(data(&batcher.close().unwrap()), [(2, 0, 1, 1), (3, 0, 2, 2)]);
}

#[test]
fn a_frame_has_no_more_sections_than_the_protocol_allows() {
    let now = Instant::now();
    let mut batcher = Batcher::new(FrameLimits { max_bytes: 1 << 30, max_records: 1 << 20, ..LIMITS });
    for lane in 0..=limits::MAX_SECTIONS as u32 {
        batcher.attach(Lane(lane), next(0));
        assert_eq!(push(&mut batcher, lane, 0, b"x", now), Pushed::Added);
    }
    assert_eq!(batcher.take_sealed().unwrap().builder.sections().len(), limits::MAX_SECTIONS);
    assert_eq!(batcher.close().unwrap().builder.sections().len(), 1);
}

proptest! {
    #[test]
    fn sections_join_and_frames_keep_their_limits(
        steps in proptest::collection::vec((0u32..4, 0u64..3, 0usize..1500, 0u8..10), 1..300),
    ) {
        let now = Instant::now();
        let mut batcher = Batcher::new(LIMITS);
        let mut reached: HashMap<u32, u64> = HashMap::new();
        let mut built: HashMap<u32, u64> = HashMap::new();
        let mut pushed = 0u32;
        let mut sent = 0u32;
        for lane in 0..4 {
            batcher.attach(Lane(lane), next(0));
        }
        let mut frames = Vec::new();
        for (lane, hole, length, action) in steps {
            let at = reached.entry(lane).or_default();
            *at += hole;
            match action {
                0 => batcher.cover(Lane(lane), next(*at), now),
                1 => frames.extend(batcher.close()),
                _ => {
                    prop_assert_eq!(push(&mut batcher, lane, *at, &vec![7; length], now), Pushed::Added);
                    *at += 1;
                    pushed += 1;
                }
            }
            frames.extend(std::iter::from_fn(|| batcher.take_sealed()));
        }
        frames.extend(batcher.close());
        for frame in frames {
            let records = data(&frame).iter().map(|section| section.3).sum::<u32>();
            prop_assert!(records <= LIMITS.max_records);
            prop_assert!(frame.builder.raw_length() <= LIMITS.max_bytes || records == 1);
            for (lane, first, next, records) in data(&frame) {
                let built = built.entry(lane).or_default();
                prop_assert_eq!(first, *built);
                *built = next;
                sent += records;
            }
        }
        prop_assert_eq!(sent, pushed);
    }
}

#[test]
fn only_a_short_line_without_cap_sends_smaller_frames() {
    let ms = Duration::from_millis;
    assert_eq!(caught_up_linger(ms(50), ms(0), false), MIN_CAUGHT_UP_LINGER);
    assert_eq!(caught_up_linger(ms(50), ms(20), false), ms(20));
    assert_eq!(caught_up_linger(ms(50), ms(600), false), ms(50));
    assert_eq!(caught_up_linger(ms(50), ms(0), true), ms(50));
    assert_eq!(caught_up_linger(ms(1), ms(0), false), ms(1));
}

#[test]
fn what_cannot_be_sent_is_gathered() {
    let open_to = |highest: Option<u8>| move |class| highest.is_some_and(|highest| class <= highest);
    let all = open_to(Some(u8::MAX));
    assert_eq!(Gathering::of(false, false, all), Gathering::No);
    assert_eq!(Gathering::of(false, false, open_to(Some(0))), Gathering::Reserved);
    // Off, or its last budget is gone: as good as no line, with or without a session.
    assert_eq!(Gathering::of(false, false, open_to(None)), Gathering::Outage);
    for highest in [None, Some(0), Some(u8::MAX)] {
        assert_eq!(Gathering::of(false, true, open_to(highest)), Gathering::Outage);
        // An alarm brings a session about, so it does not wait for five seconds.
        assert_eq!(Gathering::of(true, true, open_to(highest)), Gathering::Planned);
    }
}

#[test]
fn frames_gather_while_they_cannot_be_sent_a_tenth_of_their_time_to_live_at_most() {
    let (ms, ttl) = (Duration::from_millis, |seconds| Some(TimeToLive::new(Duration::from_secs(seconds))));
    assert_eq!(Gathering::No.linger(ms(50), false, ttl(600)), ms(50));
    for (gathering, urgent, others) in [
        (Gathering::Reserved, ms(50), OUTAGE_LINGER),
        (Gathering::Outage, URGENT_OUTAGE_LINGER, OUTAGE_LINGER),
        (Gathering::Planned, ms(50), PLANNED_LINGER),
    ] {
        assert_eq!([true, false].map(|is_urgent| gathering.linger(ms(50), is_urgent, None)), [urgent, others], "{gathering:?}");
        assert_eq!(gathering.linger(ms(50), false, ttl(20)), ms(2000), "{gathering:?}");
        assert_eq!(gathering.linger(ms(500), false, ttl(1)), ms(500), "no shorter than in a session: {gathering:?}");
    }
    assert!(PLANNED_LINGER > Duration::from_secs(7 * 86_400), "the longest interval");
    assert_eq!(Gathering::Planned.linger(ms(50), false, ttl(600)), Duration::from_secs(60));
}
