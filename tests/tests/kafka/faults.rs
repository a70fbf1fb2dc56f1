//! The main promise: everything at the centre exactly once and in order, whatever is killed, moved or restarted meanwhile.

mod schedule;

use std::time::Duration;

use spillway_lab::chaos::load::{Load, MIXED, TWENTY};
use spillway_lab::client::Client;
use spillway_lab::kafka_cluster::{KafkaCluster, KafkaOptions};
use spillway_lab::oracle::check_group_not_past_centre;
use spillway_lab::oracle::syncs::{check_syncs, check_syncs_rise, read_syncs};
use spillway_lab::shapes::seed;
use spillway_lab::stage::{Stage, StageOptions};

use crate::common::assert_exact;
use schedule::{Fault, Player, schedule};

/// Committed records at the source, at least.
const RECORDS: u64 = 500_000;

/// Until the last record is at the centre once the last fault has passed.
const DRAIN_LIMIT: Duration = Duration::from_secs(300);

/// Kafka's own default would refuse the large records.
const MESSAGE_MAX: &str = "4000000";

#[test]
#[ignore = "needs real Kafka: ./lab test"]
fn half_a_million_records_of_all_shapes_arrive_exactly_once_through_seventeen_faults() {
    let seed = seed("faults");
    let options = |label| KafkaOptions::new(label).with("message.max.bytes", MESSAGE_MAX).with("replica.fetch.max.bytes", MESSAGE_MAX);
    let edge = KafkaCluster::start(options("edge")).unwrap();
    let mut central = KafkaCluster::start(options("centre")).unwrap();
    let (source, centre) = (Client::new(edge.bootstrap()), Client::new(central.bootstrap()));
    let topics = TWENTY.topics().into_iter().map(|(topic, _)| topic).collect::<Vec<_>>();
    let mut load = Load::prepare(&source, TWENTY, seed).unwrap();
    let mut stage = Stage::new(StageOptions {
        site: "plant-7".to_owned(),
        source: source.clone(),
        centre: centre.clone(),
        include: vec![".*".to_owned()],
        collectors: 2,
    })
    .unwrap();
    // A dead connection has to be noticed soon, or the test would wait most of its time.
    stage.agent.config.set("link.idle_timeout", "5s");
    stage.agent.config.set("link.keep_alive", "1s");
    stage.start().unwrap();

    load.start();
    let faults = schedule(seed);
    let mut player = Player::new(&mut stage, &mut central, seed);
    for fault in &faults {
        player.play(*fault).unwrap();
    }
    let happened = player.happened();
    let (written, aborted) = load.finish(RECORDS).unwrap();
    assert!(written >= RECORDS && aborted > 1000, "{written} records written, {aborted} aborted");
    stage.wait_drained(&topics, DRAIN_LIMIT).unwrap();

    // What was meant to happen has happened: without faults this test would prove nothing.
    for (fault, times) in [(Fault::KillAgent, 5), (Fault::KillCollector, 5), (Fault::Move, 5), (Fault::RestartCentre, 2)] {
        assert_eq!(happened.iter().filter(|seen| **seen == fault).count(), times, "{fault:?}");
    }
    assert_exact(&stage, &topics);
    check_syncs_rise(&read_syncs(&centre, &stage.site).unwrap()).unwrap();
    let compared = check_syncs(&source, &centre, &stage.site, 200, seed).unwrap();
    assert!(compared > 100, "{compared} syncs compared");
    assert!(check_group_not_past_centre(&source, &centre, &stage.site, MIXED).unwrap() > 0);
}
