#![expect(clippy::unwrap_used, reason = "tests")]

use spillway_agent_core::batcher::{Incoming, Pushed};
use spillway_proto::frame::SectionKind;
use spillway_proto::{NextOffset, Offset};

use super::*;

const LIMITS: FrameLimits = FrameLimits { max_bytes: 1000, max_records: 100, linger: Duration::from_secs(9), largest_raw: 1 << 20 };
const SHARE: usize = LIMITS.max_bytes + FRAME_EDGE_BYTES;

fn builders(total: usize) -> Builders {
    let classify: Classify = Arc::new(|topic| match topic {
        "alarms" => Class::DROP_NEWEST,
        "bulk" => Class::DROP_OLDEST,
        _ => Class::BLOCK,
    });
    Builders::new(LIMITS, Arc::new(Budget::new(total)), Compressor::new(1).unwrap(), classify)
}

fn attach(builders: &mut Builders, topic: &str, lane: u32) -> Slot {
    let slot = builders.slot(topic);
    builders.batcher(slot).attach(Lane(lane), NextOffset::ZERO);
    slot
}

fn push(builders: &mut Builders, slot: Slot, lane: u32, offset: u64, value: &[u8]) {
    let headers = Vec::<(&str, Option<&[u8]>)>::new().into_iter();
    let record = Incoming { offset: Offset::new(offset).unwrap(), timestamp: 1, key: None, value: Some(value), headers };
    assert_eq!(builders.batcher(slot).push(Lane(lane), record, Instant::now()), Pushed::Added);
}

/// Everything that is told now: of each frame class and sections, of each lane let go its number.
fn told(builders: &mut Builders, finishing: bool) -> (Vec<String>, bool) {
    let mut told = Vec::new();
    loop {
        match builders.next(LIMITS.linger, finishing) {
            Next::Event(Event::Frame(built)) => {
                let section = |section: &spillway_proto::frame::Section| match section.kind {
                    SectionKind::Data { first, next, .. } => format!(" {}:{first}-{next}", section.lane),
                    other => panic!("{other:?}"),
                };
                let sections = built.frame.sections.iter().map(section).collect::<String>();
                told.push(format!("class {}{sections}", built.class.number()));
                // As the runner does when it is acknowledged.
                builders.budget.give(built.budget);
            }
            Next::Event(Event::Detached(lane)) => told.push(format!("detached {lane}")),
            Next::Event(other) => panic!("{other:?}"),
            Next::Waits => return (told, false),
            Next::Nothing => return (told, true),
        }
    }
}

#[test]
fn a_frame_holds_topics_of_one_class() {
    let mut builders = builders(1 << 20);
    let (a, b, c) = (attach(&mut builders, "a", 1), attach(&mut builders, "bulk", 2), attach(&mut builders, "b", 3));
    assert_eq!((a, a != b), (c, true), "topics of a class share a frame");
    assert!(builders.reserve());
    for offset in 0..3 {
        for (slot, lane) in [(a, 1), (b, 2), (c, 3)] {
            push(&mut builders, slot, lane, offset, b"x");
        }
    }
    assert_eq!(told(&mut builders, false), (vec![], true), "neither full nor due");
    assert_eq!(told(&mut builders, true).0, ["class 0 1:0-3 3:0-3", "class 1 2:0-3"]);
    assert_eq!(builders.budget.taken(), 0, "all was given back");
}

#[test]
fn a_full_frame_of_one_class_leaves_the_others_open() {
    let mut builders = builders(1 << 20);
    let (a, b) = (attach(&mut builders, "a", 1), attach(&mut builders, "bulk", 2));
    assert!(builders.reserve());
    push(&mut builders, a, 1, 0, b"x");
    push(&mut builders, b, 2, 0, &[7; 1000]);
    assert!(builders.is_sealed());
    assert_eq!(told(&mut builders, false).0, ["class 1 2:0-1"]);
    assert!(!builders.is_sealed() && builders.due(LIMITS.linger).is_some());
}

#[test]
fn a_lane_is_let_go_after_its_last_frame_and_others_frames_stay_open() {
    let mut builders = builders(1 << 20);
    let (a, b) = (attach(&mut builders, "a", 1), attach(&mut builders, "bulk", 2));
    assert!(builders.reserve());
    push(&mut builders, a, 1, 0, b"x");
    push(&mut builders, b, 2, 0, b"y");
    builders.detach(b, Lane(2), true);
    assert_eq!(told(&mut builders, false).0, ["class 1 2:0-1", "detached 2"]);
    builders.detach(a, Lane(1), false);
    assert_eq!(told(&mut builders, false).0, ["detached 1"]);
}

#[test]
fn one_class_costs_one_share_of_the_budget_and_one_without_lanes_nothing() {
    let mut builders = builders(1 << 20);
    let bulk = attach(&mut builders, "bulk", 1);
    assert!(builders.reserve() && builders.reserve());
    assert_eq!(builders.budget.taken(), SHARE);
    attach(&mut builders, "alarms", 2);
    assert!(builders.reserve());
    assert_eq!(builders.budget.taken(), 2 * SHARE);
    builders.detach(bulk, Lane(1), false);
    assert_eq!(told(&mut builders, false).0, ["detached 1"]);
    assert!(builders.reserve());
    assert_eq!(builders.budget.taken(), SHARE, "nothing is read of it any more");
}

#[test]
fn nothing_is_read_without_every_class_having_its_share() {
    let mut builders = builders(3 * SHARE);
    attach(&mut builders, "a", 1);
    attach(&mut builders, "bulk", 2);
    assert_eq!(builders.budget.take(2 * SHARE, Duration::ZERO), Some(2 * SHARE), "frames that are not acknowledged");
    assert!(!builders.reserve());
    builders.budget.give(2 * SHARE);
    assert!(builders.reserve());
}

/// Each frame needs the whole budget, and each class holds a part of it.
#[test]
fn large_frames_of_two_classes_do_not_wait_for_each_other() {
    let mut builders = builders(2 * SHARE);
    let slots = [attach(&mut builders, "a", 1), attach(&mut builders, "bulk", 2), attach(&mut builders, "alarms", 3)];
    assert!(builders.reserve());
    push(&mut builders, slots[0], 1, 0, &[1; 3 * SHARE]);
    push(&mut builders, slots[1], 2, 0, &[2; 3 * SHARE]);
    assert_eq!(told(&mut builders, false), (vec!["class 0 1:0-1".to_owned(), "class 1 2:0-1".to_owned()], true));
    assert!(builders.reserve(), "and reading goes on");
}
