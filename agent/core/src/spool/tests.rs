//! The spool against a tiny source that forgets at once whatever was committed, a tiny spill, a tiny collector, a link that loses whatever was on
//! its way, and an agent that dies at any moment.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use proptest::prelude::*;
use spillway_proto::frame::{GapReason, SectionKind};
use spillway_proto::message::ResumePoint;
use spillway_proto::{NextOffset, Partition, TopicId, TopicName, TopicPartition};
use spillway_spill_core::entry::Line;
use spillway_spill_core::plan::Released;
use spillway_spill_core::summary::{Source, Span, What, span_of};

use self::world::{PARTITIONS, World};
use super::*;
use crate::lane::LaneSource;
use crate::start::{Beginning, LogRange, StartPolicy};

mod centre;
mod past;
mod site;
mod world;

const LIMITS: SpoolLimits = SpoolLimits { after_bytes: 300, after: Duration::from_secs(5), drain_bytes: 250 };

fn next(value: u64) -> NextOffset {
    NextOffset::new(value).unwrap()
}

fn source(index: u32) -> LaneSource {
    let partition = TopicPartition { topic: TopicName::parse("t").unwrap(), partition: Partition::new(index).unwrap() };
    LaneSource { partition, topic_id: TopicId([1; 16]), partition_count: PARTITIONS, born: false, outlived_by: None }
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
}

fn action(worlds: Worlds) -> impl Strategy<Value = Action> {
    let Worlds { damage, drops, strange, blocks } = worlds;
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
        1 => (0u64..7).prop_map(Action::Wait),
        2 => Just(Action::Connect),
        1 => Just(Action::Disconnect),
        1 => (0usize..4).prop_map(Action::Crash),
        1 => (0..PARTITIONS).prop_map(Action::Hold),
        1 => (0..PARTITIONS).prop_map(Action::Retry),
        1 => (0usize..20, any::<bool>()).prop_map(move |(place, told)| only(damage, Action::Damage { place, told })),
        1 => (1usize..4).prop_map(move |count| only(drops, Action::DropOldest(count))),
        1 => (1usize..4).prop_map(move |count| only(drops, Action::DropNewest(count))),
        2 => any::<bool>().prop_map(move |blocked| only(blocks, Action::Block(blocked))),
        1 => (0..PARTITIONS).prop_map(move |index| only(strange, Action::LoseGroup(index))),
        1 => (0..PARTITIONS, 0u64..9).prop_map(move |(index, count)| only(strange, Action::Elsewhere(index, count))),
    ]
}

fn cases() -> ProptestConfig {
    let cases = std::env::var("SPOOL_CASES").map_or(500, |text| text.parse().unwrap());
    ProptestConfig { max_shrink_iters: 20_000, ..ProptestConfig::with_cases(cases) }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn everything_arrives_once_in_order_whatever_ends(actions in prop::collection::vec(action(Worlds::default()), 1..120)) {
        let mut world = World::new();
        for action in actions {
            world.play(action);
        }
        world.finish();
        prop_assert_eq!(world.lost(), 0, "offsets lost");
    }

    /// The last word of the schedule is that the spill takes nothing, and yet all of it arrives.
    #[test]
    fn a_spill_that_takes_nothing_does_not_stop_the_line(
        damage in any::<bool>(),
        actions in prop::collection::vec(action(Worlds { blocks: true, ..Worlds::default() }), 1..120),
        more in prop::collection::vec(action(Worlds { damage: true, ..Worlds::default() }), 0..40),
    ) {
        let mut world = World::new();
        for action in actions.into_iter().chain(more.into_iter().filter(|_| damage)) {
            world.play(action);
        }
        world.play(Action::Block(true));
        world.finish();
        prop_assert!(damage || world.lost() == 0, "offsets lost");
    }

    #[test]
    fn what_the_spill_loses_is_read_again_or_told(actions in prop::collection::vec(action(Worlds { damage: true, ..Worlds::default() }), 1..120)) {
        let mut world = World::new();
        for action in actions {
            world.play(action);
        }
        world.finish();
    }

    #[test]
    fn what_is_dropped_is_told_as_dropped(actions in prop::collection::vec(action(Worlds { drops: true, ..Worlds::default() }), 1..120)) {
        let mut world = World::new();
        for action in actions {
            world.play(action);
        }
        world.finish();
    }

    #[test]
    fn a_partition_of_which_nothing_is_known_is_read_from_its_log(
        actions in prop::collection::vec(action(Worlds { strange: true, ..Worlds::default() }), 1..120)
    ) {
        let mut world = World::alone();
        for action in actions {
            world.play(action);
        }
        world.finish();
        prop_assert_eq!(world.told(), vec![], "offsets lost");
    }

    #[test]
    fn all_of_it_together(actions in prop::collection::vec(action(Worlds { damage: true, drops: true, strange: true, blocks: true }), 1..120)) {
        let mut world = World::alone();
        for action in actions {
            world.play(action);
        }
        world.finish();
    }
}

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
    let mut world = World::alone();
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
fn a_guess_where_to_read_is_not_committed_before_the_centre_answers() {
    for (point, begins) in [
        (ResumePoint::Fresh, Begins::Begun(Some(Section { lane: Lane(0), kind: SectionKind::Start { next: next(10) } }))),
        (ResumePoint::At(next(11)), Begins::Begun(None)),
        (ResumePoint::At(next(4)), Begins::Hole),
    ] {
        let now = Instant::now();
        let (mut ledger, mut spool) = (Ledger::new(now), Spool::new(LIMITS, EntryId::ZERO));
        let lane = ledger.open(source(0)).unwrap().lane;
        let log = LogRange { start: next(3), end: next(10) };
        spool.read_on_log(&mut ledger, lane, &Known::default(), None, log, StartPolicy::Latest);
        assert_eq!(ledger.take_attachments()[0].next, next(10));
        spool.built(&mut ledger, site::frame(&[(lane, 10, 12)]), &[], 0, now).unwrap();
        let sections = spool.take_appends().remove(0).sections;
        spool.stored(&mut ledger, 1, EntryId(1));
        assert!(ledger.take_commits().is_empty(), "nobody knows of what comes before");
        let StoredSection { partition, topic_id, partition_count, .. } = sections[0].clone();
        let spans = vec![(Source { partition, topic_id, partition_count }, span_of(&sections[0], false))];
        let known = Known { spans, released: None };
        ledger.session_opened(1 << 20);
        ledger.resume(lane, point, now).unwrap();
        assert_eq!(spool.begin(&mut ledger, lane, point, &known), begins);
        if begins == Begins::Hole {
            assert_eq!(spool.begin_hole(&mut ledger, lane, point, &known, log), Begins::Begun(None));
            assert_eq!(ledger.take_ended().len(), 1, "a new lane reads from 4 on");
        }
    }
}

#[test]
fn a_copy_that_becomes_durable_late_takes_no_commit_back() {
    let now = Instant::now();
    let mut ledger = Ledger::new(now);
    ledger.session_opened(1 << 20);
    let lane = ledger.open(source(0)).unwrap().lane;
    ledger.resume(lane, ResumePoint::At(next(0)), now).unwrap();
    ledger.begin(lane, ResumePoint::At(next(0)), Beginning::Resume { at: next(0) });
    for n in 0..2 {
        ledger.push(site::frame(&[(lane, n, n + 1)]), &[], 0, now).unwrap();
    }
    let copies = ledger.copies();
    while ledger.next_frame().is_some() {}
    ledger.ack(lane, next(2), now).unwrap();
    ledger.durable(&copies[0].raw_sections, Some(copies[0].index));
    assert_eq!(ledger.take_commits().into_values().collect::<Vec<_>>(), [next(2)]);
}

#[test]
fn what_stands_before_what_it_follows_is_found_in_another_pass() {
    let (now, point) = (Instant::now(), ResumePoint::At(next(1)));
    let (mut ledger, mut spool) = (Ledger::new(now), Spool::new(LIMITS, EntryId(7)));
    ledger.session_opened(1 << 20);
    let lane = ledger.open(source(0)).unwrap().lane;
    ledger.resume(lane, point, now).unwrap();
    let entry = |id, first, end| {
        let encoded = site::frame(&[(lane, first, end)]);
        let LaneSource { partition, topic_id, partition_count, .. } = source(0);
        let section = StoredSection { partition, topic_id, partition_count, line: Line(0), kind: encoded.sections[0].kind };
        ReadEntry { id: EntryId(id), created_ms: 0, sections: vec![section], frame: Frame::decode(encoded.bytes, 1 << 20).unwrap() }
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
        assert_eq!(spool.next_read(&ledger), Some(EntryId(after)));
        spool.read(&mut ledger, Some(entry.clone()), 0, now).unwrap();
        spool.settle(&mut ledger);
    }
    assert_eq!(ledger.book(lane).unwrap().position, Some(next(4)));
}
