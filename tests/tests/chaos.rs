//! Schedules of faults on embedded brokers, as `./lab chaos --in-process` plays them, in the number that every test run can afford.
#![expect(clippy::unwrap_used, reason = "tests")]

use spillway_lab::chaos::fleet::{FleetOptions, play};
use spillway_lab::chaos::schedule::{EMBEDDED_FAULTS, Kind, Moment};
use spillway_lab::shapes::seed;

/// Each has 20 faults or more.
const SCHEDULES: u64 = 24;

#[test]
fn every_record_arrives_exactly_once_through_random_schedules_of_faults() {
    let options = FleetOptions { seed: seed("chaos"), schedules: SCHEDULES, jobs: 12 };
    let report = play(options, |line| println!("{line}")).unwrap();
    println!("{}", report.tally.table());
    assert!(report.bad.is_empty(), "{:#?}", report.bad);
    assert_eq!(report.good, SCHEDULES);
    assert!(report.tally.total() >= usize::try_from(SCHEDULES).unwrap() * EMBEDDED_FAULTS);
    for moment in Moment::OF_TRANSACTION {
        for kind in [Kind::KillAgent, Kind::KillCollector, Kind::Cut] {
            assert!(report.tally.at(kind, moment) > 0, "no fault of this kind hit its moment: {kind} {moment}");
        }
    }
}
