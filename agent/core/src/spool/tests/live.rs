//! Live first: what is new goes around what the spill holds.

use super::Action;
use super::world::{LIVE_FIRST, World};
use crate::spool::tests::LIMITS;

/// So many records of the first partition, read.
fn write(world: &mut World, count: u64) {
    for action in [Action::Write([count, 0, 0]), Action::Read([count, 0, 0])] {
        world.play(action);
    }
}

/// What is in memory goes to the centre and is acknowledged.
fn exchange(world: &mut World) {
    for action in [Action::Send, Action::Arrive(99), Action::Acks(99)] {
        world.play(action);
    }
}

/// 0 to 10 are at the centre, 10 to 40 durable in the spill; the link is back.
fn after_an_outage(rules: usize) -> World {
    let mut world = World::of(rules);
    world.play(Action::Connect);
    exchange(&mut world);
    write(&mut world, 10);
    exchange(&mut world);
    world.play(Action::Disconnect);
    (0..10).for_each(|_| write(&mut world, 3));
    world.play(Action::Wait(LIMITS.after.as_secs()));
    (0..9).for_each(|_| world.play(Action::Sync(9)));
    world
}

#[test]
fn what_is_new_goes_before_what_the_spill_holds() {
    let mut world = after_an_outage(LIVE_FIRST);
    world.play(Action::Connect);
    write(&mut world, 5);
    exchange(&mut world);
    write(&mut world, 5);
    exchange(&mut world);
    assert_eq!(world.deferrals(), 1);
    assert_eq!(world.received(0), [(0..10).collect::<Vec<_>>(), (40..50).collect()].concat(), "nothing of the spill was read so far");
    assert!(world.is_in_use());
    // What the centre has above the range does not release what is in it.
    world.play(Action::Delete);
    world.play(Action::Forget);
    // The agent dies with the backlog in its spill, and another one goes on with both.
    world.play(Action::Crash(0));
    world.play(Action::Connect);
    write(&mut world, 5);
    exchange(&mut world);
    assert_eq!(world.received(0)[20..], (50..55).collect::<Vec<_>>());
    world.finish();
    assert_eq!(world.received(0)[25..], (10..40).collect::<Vec<_>>(), "in order, once");
    assert_eq!((world.lost(), world.deferrals()), (0, 1));
}

#[test]
fn in_order_where_the_rules_or_the_collector_want_it() {
    for (rules, older) in [(0, false), (LIVE_FIRST, true)] {
        let mut world = after_an_outage(rules);
        world.play(Action::Older(older));
        world.play(Action::Connect);
        write(&mut world, 5);
        world.finish();
        assert_eq!(world.received(0), (0..45).collect::<Vec<_>>());
        assert_eq!((world.lost(), world.deferrals()), (0, 0));
    }
}

/// A line that does not keep up with what is new defers again after a while, and each of the ranges comes in order.
#[test]
fn what_is_new_may_become_a_backlog_again() {
    let mut world = after_an_outage(LIVE_FIRST);
    world.play(Action::Connect);
    exchange(&mut world);
    (0..3).for_each(|_| write(&mut world, 3));
    world.play(Action::Wait(LIMITS.after.as_secs()));
    (0..9).for_each(|_| world.play(Action::Sync(9)));
    write(&mut world, 3);
    exchange(&mut world);
    assert_eq!(world.deferrals(), 1, "not so soon after the first time");
    (0..9).for_each(|_| world.play(Action::Sync(9)));
    world.play(Action::Wait(300));
    exchange(&mut world);
    write(&mut world, 3);
    exchange(&mut world);
    assert_eq!(world.deferrals(), 2);
    world.finish();
    let received = world.received(0);
    let of = |first: u64, end: u64| received.iter().copied().filter(|offset| (first..end).contains(offset)).collect::<Vec<_>>();
    assert_eq!(of(10, 40), (10..40).collect::<Vec<_>>());
    let place = |offset| received.iter().position(|other| *other == offset);
    assert!(place(52) < place(10), "the newest before the oldest: {received:?}");
    assert_eq!(world.lost(), 0);
}
