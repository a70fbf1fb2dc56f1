//! The spool against a tiny source that forgets at once whatever was committed, a tiny spill, a tiny collector, a link that loses whatever was on
//! its way, and an agent that dies at any moment.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use proptest::prelude::*;
use spillway_proto::frame::{GapReason, SectionKind};
use spillway_proto::message::ResumePoint;
use spillway_proto::{Lane, NextOffset, Partition, TopicId, TopicName, TopicPartition};
use spillway_spill_core::entry::Line;
use spillway_spill_core::plan::Released;
use spillway_spill_core::summary::{Source, Span, What};

use self::world::{PARTITIONS, RULES, World};
use super::*;
use crate::lane::LaneSource;
use crate::start::{Beginning, LogRange, StartPolicy};

mod centre;
mod commits;
mod examples;
mod live;
mod past;
mod site;
mod world;

const LIMITS: SpoolLimits = SpoolLimits { after_bytes: 300, after: Duration::from_secs(5), drain_bytes: 250 };

fn next(value: u64) -> NextOffset {
    NextOffset::new(value).unwrap()
}

fn source(index: u32) -> LaneSource {
    let partition = TopicPartition { topic: TopicName::parse("t").unwrap(), partition: Partition::new(index).unwrap() };
    LaneSource { partition, topic_id: TopicId([1; 16]), partition_count: PARTITIONS, born: false, outlived_by: None, flow: Flow::default() }
}

#[derive(Debug, Clone)]
pub(super) enum Action {
    /// So many records are written to each partition.
    Write([u64; PARTITIONS as usize]),
    /// The source reads at most so many records of each partition into one frame.
    Read([u64; PARTITIONS as usize]),
    /// So many appends become durable.
    Sync(usize),
    /// So many entries are read from the spill.
    Drain(usize),
    /// All that may be sent is sent.
    Send,
    /// So many frames arrive and are committed.
    Arrive(usize),
    /// So many acks reach the agent.
    Acks(usize),
    /// What is released is deleted.
    Delete,
    /// The source forgets what was committed there.
    Forget,
    /// Time passes.
    Wait(u64),
    /// No session is wanted from now on.
    Rest,
    /// One is.
    Due,
    Connect,
    Disconnect,
    /// The agent dies; so many appends that were not confirmed are on the disk nevertheless. It is started again.
    Crash(usize),
    /// The centre refuses the partition's next record.
    Hold(u32),
    /// The centre takes it after all.
    Retry(u32),
    /// The so many-th entry of the spill is lost, which is told, or shows only when it is not there.
    Damage {
        place: usize,
        told: bool,
    },
    /// The so many oldest entries are dropped by policy.
    DropOldest(usize),
    /// The next so many appends are dropped by policy.
    DropNewest(usize),
    /// The spill takes nothing from now on, or takes what comes again.
    Block(bool),
    /// The collector takes no frame that was spilled from now on, for all are too large for it; or takes them again.
    Narrow(bool),
    /// The next agent has other rules, so that partitions are of other flows.
    Rules(usize),
    /// The next collector knows no deferred ranges, or does.
    Older(bool),
    /// The local group forgets the partition.
    LoseGroup(u32),
    /// Another agent of the site sent so many more records of the partition, while this one had no session.
    Elsewhere(u32, u64),
}

/// What may happen beside the ordinary.
#[derive(Debug, Clone, Copy, Default)]
struct Worlds {
    damage: bool,
    drops: bool,
    /// The source's log is looked at when there is no session; the local group forgets; another agent was there.
    strange: bool,
    /// The spill takes nothing at times.
    blocks: bool,
    /// The collector takes smaller frames than were spilled.
    narrows: bool,
}

fn action(worlds: Worlds) -> impl Strategy<Value = Action> {
    let Worlds { damage, drops, strange, blocks, narrows } = worlds;
    let only = |may: bool, action: Action| if may { action } else { Action::Forget };
    let counts = || [0u64..4, 0u64..4, 0u64..4];
    prop_oneof![
        4 => counts().prop_map(Action::Write),
        6 => counts().prop_map(Action::Read),
        4 => (0usize..5).prop_map(Action::Sync),
        4 => (0usize..5).prop_map(Action::Drain),
        4 => Just(Action::Send),
        3 => (0usize..5).prop_map(Action::Arrive),
        3 => (0usize..5).prop_map(Action::Acks),
        1 => Just(Action::Delete),
        2 => Just(Action::Forget),
        1 => prop_oneof![9 => 0u64..7, 1 => Just(300)].prop_map(Action::Wait),
        1 => prop_oneof![1 => Just(true), 3 => Just(false)].prop_map(Action::Older),
        1 => Just(Action::Rest),
        1 => Just(Action::Due),
        2 => Just(Action::Connect),
        1 => Just(Action::Disconnect),
        1 => (0usize..4).prop_map(Action::Crash),
        1 => (0..PARTITIONS).prop_map(Action::Hold),
        1 => (0..PARTITIONS).prop_map(Action::Retry),
        1 => (0usize..20, any::<bool>()).prop_map(move |(place, told)| only(damage, Action::Damage { place, told })),
        1 => (1usize..4).prop_map(move |count| only(drops, Action::DropOldest(count))),
        1 => (1usize..4).prop_map(move |count| only(drops, Action::DropNewest(count))),
        2 => any::<bool>().prop_map(move |blocked| only(blocks, Action::Block(blocked))),
        2 => any::<bool>().prop_map(move |narrow| only(narrows, Action::Narrow(narrow))),
        1 => (0..PARTITIONS).prop_map(move |index| only(strange, Action::LoseGroup(index))),
        1 => (0..PARTITIONS, 0u64..9).prop_map(move |(index, count)| only(strange, Action::Elsewhere(index, count))),
        1 => (0..RULES.len()).prop_map(Action::Rules),
    ]
}

fn cases() -> ProptestConfig {
    let cases = std::env::var("SPOOL_CASES").map_or(500, |text| text.parse().unwrap());
    ProptestConfig { max_shrink_iters: 20_000, ..ProptestConfig::with_cases(cases) }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn everything_arrives_once_in_order_whatever_ends(rules in 0..RULES.len(), actions in prop::collection::vec(action(Worlds::default()), 1..120)) {
        let mut world = World::of(rules);
        for action in actions {
            world.play(action);
        }
        world.finish();
        prop_assert_eq!(world.lost(), 0, "offsets lost");
    }

    /// The last word of the schedule is that the spill takes nothing, and yet all of it arrives.
    #[test]
    fn a_spill_that_takes_nothing_does_not_stop_the_line(
        rules in 0..RULES.len(), damage in any::<bool>(),
        actions in prop::collection::vec(action(Worlds { blocks: true, ..Worlds::default() }), 1..120),
        more in prop::collection::vec(action(Worlds { damage: true, ..Worlds::default() }), 0..40),
    ) {
        let mut world = World::of(rules);
        for action in actions.into_iter().chain(more.into_iter().filter(|_| damage)) {
            world.play(action);
        }
        world.play(Action::Block(true));
        world.finish();
        prop_assert!(damage || world.lost() == 0, "offsets lost");
    }

    #[test]
    fn what_the_spill_loses_is_read_again_or_told(rules in 0..RULES.len(), actions in prop::collection::vec(action(Worlds { damage: true, ..Worlds::default() }), 1..120)) {
        let mut world = World::of(rules);
        for action in actions {
            world.play(action);
        }
        world.finish();
    }

    #[test]
    fn what_is_dropped_is_told_as_dropped(rules in 0..RULES.len(), actions in prop::collection::vec(action(Worlds { drops: true, ..Worlds::default() }), 1..120)) {
        let mut world = World::of(rules);
        for action in actions {
            world.play(action);
        }
        world.finish();
    }

    #[test]
    fn what_is_too_large_for_the_collector_is_not_lost(
        rules in 0..RULES.len(), actions in prop::collection::vec(action(Worlds { narrows: true, ..Worlds::default() }), 1..120)
    ) {
        let mut world = World::of(rules);
        for action in actions {
            world.play(action);
        }
        world.finish();
        prop_assert_eq!(world.lost(), 0, "offsets lost");
    }

    #[test]
    fn a_partition_of_which_nothing_is_known_is_read_from_its_log(
        rules in 0..RULES.len(), actions in prop::collection::vec(action(Worlds { strange: true, ..Worlds::default() }), 1..120)
    ) {
        let mut world = World::alone(rules);
        for action in actions {
            world.play(action);
        }
        world.finish();
        prop_assert_eq!(world.told(), vec![], "offsets lost");
    }

    #[test]
    fn what_is_too_old_is_told_and_nothing_younger_is_lost(
        rules in 0..RULES.len(),
        actions in prop_oneof![
            prop::collection::vec(action(Worlds::default()), 1..120),
            prop::collection::vec(action(Worlds { damage: true, drops: true, blocks: true, ..Worlds::default() }), 1..120),
        ]
    ) {
        let mut world = World::mortal(rules);
        for action in actions {
            world.play(action);
        }
        world.finish();
    }

    #[test]
    fn all_of_it_together(rules in 0..RULES.len(), actions in prop::collection::vec(action(Worlds { damage: true, drops: true, strange: true, blocks: true, narrows: true }), 1..120)) {
        let mut world = World::alone(rules);
        for action in actions {
            world.play(action);
        }
        world.finish();
    }
}

/// The schedules above would prove little about age if nothing grew too old in them.
#[test]
fn schedules_have_records_that_are_too_old() {
    use proptest::strategy::{Strategy, ValueTree};
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let strategy = prop::collection::vec(action(Worlds::default()), 60..120);
    let passed = (0..50).map(|_| {
        let mut world = World::mortal(1);
        strategy.new_tree(&mut runner).unwrap().current().into_iter().for_each(|action| world.play(action));
        world.finish();
        world.passed()
    });
    let passed = passed.collect::<Vec<_>>();
    assert!(passed.iter().filter(|passed| **passed > 0).count() > 25, "{passed:?}");
}

#[test]
fn what_grows_too_old_in_the_spill_is_one_gap_of_each_partition() {
    let mut world = World::mortal(0);
    world.play(Action::Connect);
    world.play(Action::Write([1, 1, 1]));
    for action in [Action::Read([9; 3]), Action::Send, Action::Arrive(9), Action::Acks(99), Action::Disconnect] {
        world.play(action);
    }
    for _ in 0..20 {
        world.play(Action::Write([3, 2, 0]));
        world.play(Action::Read([9; 3]));
        world.play(Action::Wait(1));
        world.play(Action::Sync(9));
    }
    assert!(world.is_in_use() && world.appended() >= 20, "the spill has it");
    world.play(Action::Crash(0));
    world.play(Action::Wait(11));
    world.finish();
    let told = world.told();
    let expired = told.iter().filter(|(.., reason)| *reason == Some(GapReason::Expired)).count();
    // One in nine has no timestamp, and keeps what it travels with.
    assert!(expired > 50 && expired == told.len() && expired < 100, "{expired} of {}", told.len());
    assert!(world.passed() < 20, "{} gaps", world.passed());
}
