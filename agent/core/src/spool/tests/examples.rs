//! Schedules that go where random runs may not, and those that once failed.

use std::time::Instant;

use spillway_proto::frame::{Frame, GapReason};
use spillway_proto::message::ResumePoint;
use spillway_spill_core::entry::{EntryId, Line, StoredSection};
use spillway_spill_core::summary::{Source, span_of};

use super::world::World;
use super::{Action, LIMITS, next, site, source};
use crate::lane::LaneSource;
use crate::ledger::Ledger;
use crate::spool::{Begins, Known, ReadEntry, Spools};
/// The model goes where it should: random runs alone might never fill the spill.
#[test]
fn an_outage_goes_through_the_spill_and_back() {
    let mut world = World::new();
    world.play(Action::Connect);
    let round = |world: &mut World| {
        for action in [
            Action::Write([3, 3, 3]),
            Action::Read([3, 3, 3]),
            Action::Sync(9),
            Action::Drain(9),
            Action::Send,
            Action::Arrive(9),
            Action::Acks(9),
        ] {
            world.play(action);
        }
        world.play(Action::Forget);
    };
    (0..5).for_each(|_| round(&mut world));
    assert!(!world.is_in_use() && world.appended() == 0, "while the link keeps up nothing is written to the disk");
    world.play(Action::Disconnect);
    (0..50).for_each(|_| round(&mut world));
    assert!(world.is_in_use() && world.appended() > 40, "{} entries", world.appended());
    assert_eq!(world.committed(), [3 * 55; 3], "what is durable is committed: the source may forget it");
    world.play(Action::Crash(0));
    (0..3).for_each(|_| round(&mut world));
    world.play(Action::Connect);
    (0..30).for_each(|_| round(&mut world));
    world.finish();
    assert_eq!(world.lost(), 0);
    assert!(!world.is_in_use());
}

#[test]
fn without_a_session_by_plan_what_waits_grows_old_when_one_is_due() {
    let mut world = World::new();
    let little = || [Action::Write([1, 0, 0]), Action::Read([1, 0, 0]), Action::Wait(9)];
    for action in [Action::Connect, Action::Send, Action::Arrive(9), Action::Acks(9), Action::Disconnect, Action::Rest] {
        world.play(action);
    }
    little().into_iter().chain([Action::Wait(1000), Action::Due, Action::Wait(4)]).for_each(|action| world.play(action));
    assert_eq!((world.is_in_use(), world.appended()), (false, 0), "the disk is spared");
    world.play(Action::Wait(1));
    assert!(world.is_in_use() && world.appended() > 0, "a session that is due and does not come is an outage");
    world.play(Action::Connect);
    world.finish();
    assert_eq!(world.lost(), 0);
    // Much goes to the disk all the same.
    let mut world = World::new();
    [Action::Connect, Action::Send, Action::Arrive(9), Action::Acks(9), Action::Disconnect, Action::Rest]
        .into_iter()
        .for_each(|action| world.play(action));
    (0..40).flat_map(|_| little()).for_each(|action| world.play(action));
    assert!(world.is_in_use() && world.appended() > 0);
    world.finish();
    assert_eq!(world.lost(), 0);
}

#[test]
fn what_waits_for_a_spill_that_takes_nothing_goes_to_the_line() {
    let mut world = World::new();
    for action in
        [Action::Connect, Action::Send, Action::Arrive(9), Action::Acks(9), Action::Disconnect, Action::Wait(9), Action::Block(true)]
    {
        world.play(action);
    }
    for _ in 0..9 {
        world.play(Action::Write([3, 3, 3]));
        world.play(Action::Read([3, 3, 3]));
        world.play(Action::Wait(9));
    }
    assert!(world.is_in_use() && world.returned() == 0, "without a line all of it waits");
    world.finish();
    assert!(world.returned() > 0 && !world.is_in_use(), "{} frames were taken back", world.returned());
    assert_eq!(world.lost(), 0);
}

#[test]
fn a_loss_that_is_told_does_not_wait_for_the_end_of_the_spill() {
    for told in [true, false] {
        let mut world = World::new();
        world.play(Action::Connect);
        for action in [Action::Send, Action::Arrive(9), Action::Acks(9), Action::Disconnect, Action::Wait(9)] {
            world.play(action);
        }
        for _ in 0..40 {
            for action in [Action::Write([1, 0, 0]), Action::Read([1, 0, 0]), Action::Wait(9), Action::Sync(9)] {
                world.play(action);
            }
        }
        assert!(world.is_in_use());
        world.play(Action::Connect);
        let before = world.lane(0);
        world.play(Action::Damage { place: 10, told });
        for _ in 0..4 {
            for action in [Action::Drain(4), Action::Send, Action::Arrive(9), Action::Acks(9)] {
                world.play(action);
            }
        }
        assert_eq!(world.lane(0) != before, told, "another lane has the partition");
        assert!(world.is_in_use(), "the end was not reached");
        world.finish();
        assert_eq!(world.lost(), 0, "the source had it still");
    }
}

#[test]
fn what_was_dropped_is_a_gap_and_nothing_else() {
    for fresh in [false, true] {
        let mut world = World::new();
        world.play(Action::Connect);
        if !fresh {
            [Action::Write([1, 0, 0]), Action::Read([1, 0, 0])].into_iter().for_each(|action| world.play(action));
            [Action::Send, Action::Arrive(9), Action::Acks(9)].into_iter().for_each(|action| world.play(action));
        }
        world.play(Action::Disconnect);
        for _ in 0..20 {
            for action in [Action::Write([1, 0, 0]), Action::Read([1, 0, 0]), Action::Wait(9), Action::Sync(9)] {
                world.play(action);
            }
        }
        [Action::Write([1, 0, 0]), Action::Read([1, 0, 0])].into_iter().for_each(|action| world.play(action));
        world.play(Action::DropOldest(3));
        world.play(Action::DropNewest(1));
        world.play(Action::Forget);
        let dropped = world.dropped();
        assert_eq!(dropped.len(), 4);
        // Each gap is a lane of its own; more comes in all the time, so that the end of the spill is never reached.
        for _ in 0..60 {
            world.play(Action::Connect);
            for action in [Action::Write([1, 0, 0]), Action::Read([1, 0, 0]), Action::Drain(1)] {
                world.play(action);
            }
            for action in [Action::Send, Action::Arrive(9), Action::Acks(9)] {
                world.play(action);
            }
        }
        assert!(world.is_in_use());
        let told = world.told().into_iter().map(|(index, offset, reason)| ((index, offset), reason)).collect::<Vec<_>>();
        let expected = dropped.into_iter().map(|at| (at, Some(GapReason::Dropped))).collect::<Vec<_>>();
        assert_eq!(told, expected, "fresh: {fresh}");
        world.finish();
    }
}

/// Found by the model: the collector was said to acknowledge more than was sent.
#[test]
fn what_straddles_a_lanes_beginning_takes_it_no_further_back() {
    let mut world = World::alone(0);
    for action in [
        Action::Write([0, 0, 3]),
        Action::Read([0, 0, 3]),
        Action::Connect,
        Action::Send,
        Action::Arrive(9),
        Action::Read([0, 0, 1]),
        // The lane that read before there was a session has given way to another: both have read 0.
        Action::DropNewest(1),
        Action::Write([0, 0, 1]),
        Action::Read([0, 0, 3]),
        // Behind a gap from 0 to 3 the spill has 1 to 4.
        Action::Acks(9),
        Action::Sync(2),
        Action::Drain(2),
        Action::Disconnect,
        Action::Connect,
        Action::Send,
        Action::Arrive(9),
        Action::Acks(9),
    ] {
        world.play(action);
    }
    world.finish();
}

#[test]
fn what_stands_before_what_it_follows_is_found_in_another_pass() {
    let (now, point) = (Instant::now(), ResumePoint::At(next(1)));
    let (mut ledger, mut spool) = (Ledger::new(now), Spools::single(LIMITS, EntryId(7)));
    ledger.session_opened(1 << 20);
    let lane = ledger.open(source(0)).unwrap().lane;
    ledger.resume(lane, point, now).unwrap();
    let entry = |id, first, end| {
        let encoded = site::frame(&[(lane, first, end)]);
        let LaneSource { partition, topic_id, partition_count, .. } = source(0);
        let section = StoredSection { partition, topic_id, partition_count, line: Line(0), kind: encoded.sections[0].kind };
        ReadEntry {
            id: EntryId(id),
            created_ms: 0,
            sections: vec![section],
            frame: Frame::decode(encoded.bytes, 1 << 20).unwrap(),
            times: None,
        }
    };
    // Read again from 1 on, and interrupted before it reached what was there.
    let entries = [entry(5, 2, 4), entry(7, 1, 3)];
    let named = entries.iter().flat_map(|entry| &entry.sections).map(|section| {
        let StoredSection { partition, topic_id, partition_count, .. } = section.clone();
        (Source { partition, topic_id, partition_count }, span_of(section, false))
    });
    let known = Known { spans: named.collect(), released: None };
    assert_eq!(spool.begin(&mut ledger, lane, point, &known), Begins::Begun(None));
    // More comes in all the time: the end is never reached.
    spool.built(&mut ledger, site::frame(&[(lane, 4, 5)]), &[], 0, now).unwrap();
    for (after, entry) in [(0, &entries[0]), (5, &entries[1]), (0, &entries[0])] {
        assert_eq!(spool.next_read(&ledger), Some((None, EntryId(after))));
        spool.read(&mut ledger, Some(entry.clone()), usize::MAX, now).unwrap();
        spool.settle(&mut ledger, false);
    }
    assert_eq!(ledger.book(lane).unwrap().position, Some(next(4)));
}

/// What a collector does not take is neither released nor committed, and is sent once it takes it.
#[test]
fn a_spilled_frame_that_is_too_large_stays_in_the_spill() {
    let mut world = World::new();
    for action in [Action::Connect, Action::Send, Action::Arrive(9), Action::Acks(9), Action::Disconnect, Action::Wait(9)] {
        world.play(action);
    }
    for action in [Action::Write([3, 3, 0]), Action::Read([3, 3, 0]), Action::Wait(9), Action::Sync(9), Action::Forget] {
        world.play(action);
    }
    for action in [Action::Narrow(true), Action::Connect] {
        world.play(action);
    }
    for action in [Action::Drain(9), Action::Send, Action::Arrive(9), Action::Acks(9), Action::Delete] {
        world.play(action);
    }
    assert_eq!(world.stood_still(), 2, "both partitions of the frame");
    world.finish();
    assert_eq!(world.lost(), 0);
}

/// Found by the model: a collector that does not know that a lane is held got what follows a hole.
#[test]
fn what_is_taken_back_of_a_lane_that_stands_still_is_no_lanes() {
    let mut world = World::alone(0);
    for action in [Action::Connect, Action::Send, Action::Arrive(1), Action::Crash(0), Action::Write([1, 3, 0]), Action::Read([0, 1, 0])] {
        world.play(action);
    }
    for action in [Action::Narrow(true), Action::Crash(1), Action::Read([1, 1, 0]), Action::Block(true), Action::Connect] {
        world.play(action);
    }
    for action in [Action::Drain(1), Action::Send, Action::Arrive(9), Action::Acks(9), Action::Send, Action::Arrive(9)] {
        world.play(action);
    }
    assert!(world.stood_still() == 1 && world.returned() > 0);
    world.finish();
    assert_eq!(world.lost(), 0);
}

/// A line that is dead and has not timed out takes what is sent, and acknowledges nothing.
#[test]
fn a_line_that_acknowledges_nothing_does_not_end_the_use_of_the_spill() {
    let mut world = World::new();
    for action in [Action::Connect, Action::Send, Action::Arrive(9), Action::Acks(9), Action::Write([3, 3, 3]), Action::Read([3, 3, 3])] {
        world.play(action);
    }
    for _ in 0..9 {
        for action in [Action::Send, Action::Arrive(9), Action::Wait(9), Action::Sync(9), Action::Drain(9), Action::Write([1, 0, 0])] {
            world.play(action);
        }
        assert!(world.is_in_use(), "nothing has come back");
        world.play(Action::Read([1, 0, 0]));
    }
    world.finish();
    assert_eq!(world.lost(), 0);
}

/// Found by the model: the lane's beginning was dropped, and data that followed it was sent.
#[test]
fn a_lane_that_stands_still_sends_what_comes_before() {
    let mut world = World::alone(0);
    for action in [Action::Write([0, 2, 1]), Action::Read([0, 1, 1]), Action::Crash(1), Action::Read([0, 1, 0]), Action::Connect] {
        world.play(action);
    }
    for action in [Action::Write([0, 1, 0]), Action::Read([0, 1, 0]), Action::Sync(2), Action::Drain(1), Action::Narrow(true)] {
        world.play(action);
    }
    for action in [Action::Drain(1), Action::Send, Action::Arrive(3)] {
        world.play(action);
    }
    assert_eq!(world.stood_still(), 1);
    world.finish();
    assert_eq!(world.lost(), 0);
}

/// It is drained when the centre has it, not when it is on its way.
#[test]
fn the_spill_is_used_until_the_backlog_is_acknowledged() {
    let mut world = World::new();
    for action in [Action::Connect, Action::Send, Action::Arrive(9), Action::Acks(9), Action::Disconnect] {
        world.play(action);
    }
    for action in [Action::Write([3, 3, 3]), Action::Read([3, 3, 3]), Action::Wait(9), Action::Sync(9), Action::Connect] {
        world.play(action);
    }
    for action in [Action::Drain(9), Action::Send, Action::Write([1, 1, 1]), Action::Read([1, 1, 1]), Action::Sync(9), Action::Drain(9)] {
        world.play(action);
        assert!(world.is_in_use());
    }
    // The first of the two frames is the backlog; the other one came when the end had been reached.
    world.play(Action::Arrive(1));
    world.play(Action::Acks(9));
    assert!(!world.is_in_use(), "the backlog is at the centre");
    world.finish();
    assert_eq!(world.lost(), 0);
}

/// A lane that was read on into the spill is over when the centre says where it goes on, and is forgotten with its last frame.
#[test]
fn memory_of_a_lane_that_is_over_is_free_for_its_own_flow() {
    let mut world = World::of(5);
    for action in [Action::Connect, Action::Send, Action::Arrive(9), Action::Acks(9), Action::Crash(0)] {
        world.play(action);
    }
    world.play(Action::Write([0, 0, 1]));
    world.play(Action::Read([0, 0, 1]));
    world.finish();
}
