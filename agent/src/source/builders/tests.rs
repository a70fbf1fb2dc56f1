#![expect(clippy::unwrap_used, reason = "tests")]

use spillway_agent_core::batcher::{Incoming, Pushed};
use spillway_agent_core::budget::Shares;
use spillway_proto::frame::SectionKind;
use spillway_proto::{NextOffset, Offset};

use super::*;
use crate::metrics::AgentMetrics;

const LIMITS: FrameLimits = FrameLimits { max_bytes: 1000, max_records: 100, linger: Duration::from_secs(9), largest_raw: 1 << 20 };
const SHARE: usize = LIMITS.max_bytes + FRAME_EDGE_BYTES;

fn builders(total: usize) -> Builders {
    let flow_of: FlowOf = Arc::new(|topic| match topic {
        "alarms" => Flow(2),
        "bulk" => Flow(1),
        _ => Flow(0),
    });
    let classes = vec![TopicClass::DEFAULT, TopicClass::BULK, TopicClass::URGENT];
    let budget = Budget::new(Shares::new(total, classes.iter().map(|class| class.is_urgent())));
    let metrics = AgentMetrics::register(&mut spillway_ops::Metrics::new("test"));
    let compression = Compression::new(Some(1), 2 << 20, metrics, Arc::default()).unwrap();
    let specs = classes.into_iter().map(|class| FlowSpec { class, ..FlowSpec::default() }).collect();
    Builders::new(LIMITS, Arc::new(budget), compression, flow_of, specs)
}

fn attach(builders: &mut Builders, topic: &str, lane: u32) -> Slot {
    let slot = builders.slot(topic);
    builders.batcher(slot).attach(Lane(lane), NextOffset::ZERO);
    slot
}

/// Takes what is there for the open frames. Answers whether all that are read have their share.
fn reserve(builders: &mut Builders) -> bool {
    builders.reserve();
    builders.list.iter().all(|builder| builder.is_ready() || builder.batcher.is_idle())
}

fn push(builders: &mut Builders, slot: Slot, lane: u32, offset: u64, value: &[u8]) {
    let headers = Vec::<(&str, Option<&[u8]>)>::new().into_iter();
    let record = Incoming { offset: Offset::new(offset).unwrap(), timestamp: 1, key: None, value: Some(value), headers };
    assert_eq!(builders.batcher(slot).push(Lane(lane), record, Instant::now()), Pushed::Added);
}

/// Everything that is told now: of each frame flow and sections, of each lane let go its number; and whether no closed frame waits.
fn told(builders: &mut Builders, finishing: bool) -> (Vec<String>, bool) {
    let mut told = Vec::new();
    loop {
        match builders.next(LIMITS.linger, finishing) {
            Some(Event::Frame(built)) => {
                let section = |section: &spillway_proto::frame::Section| match section.kind {
                    SectionKind::Data { first, next, .. } => format!(" {}:{first}-{next}", section.lane),
                    other => panic!("{other:?}"),
                };
                let sections = built.frame.sections.iter().map(section).collect::<String>();
                told.push(format!("flow {}{sections}", built.flow.0));
                // As the runner does when it is acknowledged.
                builders.budget.give(built.flow, built.budget);
            }
            Some(Event::Detached(lane)) => told.push(format!("detached {lane}")),
            Some(other) => panic!("{other:?}"),
            None => return (told, builders.list.iter().all(|builder| builder.closed.is_none())),
        }
    }
}

#[test]
fn a_frame_holds_topics_of_one_class() {
    let mut builders = builders(1 << 20);
    let (a, b, c) = (attach(&mut builders, "a", 1), attach(&mut builders, "bulk", 2), attach(&mut builders, "b", 3));
    assert_eq!((a, a != b), (c, true), "topics of a class share a frame");
    assert!(reserve(&mut builders));
    for offset in 0..3 {
        for (slot, lane) in [(a, 1), (b, 2), (c, 3)] {
            push(&mut builders, slot, lane, offset, b"x");
        }
    }
    assert_eq!(told(&mut builders, false), (vec![], true), "neither full nor due");
    assert_eq!(told(&mut builders, true).0, ["flow 0 1:0-3 3:0-3", "flow 1 2:0-3"]);
    assert_eq!(builders.budget.taken(), 0, "all was given back");
}

#[test]
fn a_full_frame_of_one_class_leaves_the_others_open() {
    let mut builders = builders(1 << 20);
    let (a, b) = (attach(&mut builders, "a", 1), attach(&mut builders, "bulk", 2));
    assert!(reserve(&mut builders));
    push(&mut builders, a, 1, 0, b"x");
    push(&mut builders, b, 2, 0, &[7; 1000]);
    assert!(builders.is_sealed());
    assert_eq!(told(&mut builders, false).0, ["flow 1 2:0-1"]);
    assert!(!builders.is_sealed() && builders.due(LIMITS.linger).is_some());
}

#[test]
fn a_lane_is_let_go_after_its_last_frame_and_others_frames_stay_open() {
    let mut builders = builders(1 << 20);
    let (a, b) = (attach(&mut builders, "a", 1), attach(&mut builders, "bulk", 2));
    assert!(reserve(&mut builders));
    push(&mut builders, a, 1, 0, b"x");
    push(&mut builders, b, 2, 0, b"y");
    builders.detach(b, Lane(2), true);
    assert_eq!(told(&mut builders, false).0, ["flow 1 2:0-1", "detached 2"]);
    builders.detach(a, Lane(1), false);
    assert_eq!(told(&mut builders, false).0, ["detached 1"]);
}

#[test]
fn one_class_costs_one_share_of_the_budget_and_one_without_lanes_nothing() {
    let mut builders = builders(1 << 20);
    let bulk = attach(&mut builders, "bulk", 1);
    assert!(reserve(&mut builders) && reserve(&mut builders));
    assert_eq!(builders.budget.taken(), SHARE);
    attach(&mut builders, "alarms", 2);
    assert!(reserve(&mut builders));
    assert_eq!(builders.budget.taken(), 2 * SHARE);
    builders.detach(bulk, Lane(1), false);
    assert_eq!(told(&mut builders, false).0, ["detached 1"]);
    assert!(reserve(&mut builders));
    assert_eq!(builders.budget.taken(), SHARE, "nothing is read of it any more");
}

#[test]
fn a_flow_without_its_share_is_not_read_while_others_are() {
    let mut builders = builders(100 * SHARE);
    let (a, bulk) = (attach(&mut builders, "a", 1), attach(&mut builders, "bulk", 2));
    let alarms = attach(&mut builders, "alarms", 3);
    while builders.budget.take(Flow(1), SHARE).is_some() {}
    assert!(!reserve(&mut builders) && !builders.is_ready(bulk) && !builders.may_go_on(bulk), "frames of bulk that are not acknowledged");
    assert!(builders.is_ready(a) && builders.is_ready(alarms) && builders.is_any_ready());
    builders.budget.give(Flow(1), 3 * SHARE);
    builders.reserve();
    assert!(builders.is_ready(bulk) && !builders.may_go_on(bulk), "a single frame is not worth while");
    builders.budget.give(Flow(1), 8 * SHARE);
    builders.reserve();
    assert!(builders.may_go_on(bulk));
    let mut full = self::builders(3 * SHARE);
    attach(&mut full, "a", 1);
    while full.budget.take(Flow(0), 1).is_some() {}
    full.reserve();
    assert!(!full.is_any_ready(), "nothing that is read has anything: wait");
}

/// Each frame needs the whole budget, and each flow holds a part of it.
#[test]
fn large_frames_of_two_flows_do_not_wait_for_each_other() {
    let mut builders = builders(4 * SHARE);
    let slots = [attach(&mut builders, "a", 1), attach(&mut builders, "bulk", 2), attach(&mut builders, "alarms", 3)];
    assert!(reserve(&mut builders));
    push(&mut builders, slots[0], 1, 0, &[1; 6 * SHARE]);
    push(&mut builders, slots[1], 2, 0, &[2; 6 * SHARE]);
    let (first, done) = told(&mut builders, false);
    assert!(!done && first.len() <= 1, "the alarms' share is in the way: {first:?}");
    builders.detach(slots[2], Lane(3), false);
    let mut all = first;
    for _ in 0..3 {
        all.extend(told(&mut builders, false).0);
        builders.reserve();
    }
    all.sort();
    assert_eq!(all, ["detached 3", "flow 0 1:0-1", "flow 1 2:0-1"]);
    assert!(builders.is_any_ready(), "and reading goes on");
}

#[test]
fn frames_follow_the_line_and_what_they_compress_to() {
    let mut builders = builders(1 << 20);
    let (a, alarms) = (attach(&mut builders, "a", 1), attach(&mut builders, "alarms", 2));
    builders.set_limits(FrameLimits { max_bytes: 1 << 20, ..LIMITS });
    assert_eq!(builders.batcher(a).limits().max_bytes, 1 << 20);
    builders.set_line(vec![10_000, 10_000, 5_000]);
    assert_eq!((builders.batcher(a).limits().max_bytes, builders.batcher(alarms).limits().max_bytes), (10_000, 5_000));
    builders.reserve();
    push(&mut builders, a, 1, 0, &[7; 9_000]);
    told(&mut builders, true);
    assert_eq!(builders.batcher(a).limits().max_bytes, 12_500, "that was nearly nothing");
    assert_eq!(builders.batcher(alarms).limits().linger, URGENT_LINGER);
}
