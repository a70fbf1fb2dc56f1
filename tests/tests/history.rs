//! A trickle of events with the real binaries between embedded brokers, on a line that loses, through the death of a collector: small frames leave with history, none is asked for again, and
//! each record arrives once.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use spillway_lab::build;
use spillway_lab::client::{Client, NewRecord};
use spillway_lab::cluster::EmbeddedCluster;
use spillway_lab::relay::weather::Weather;
use spillway_lab::shapes::seed;
use spillway_lab::stage::{Stage, StageOptions};

const FLOW_LIMIT: Duration = Duration::from_secs(60);
const PARTITIONS: i32 = 3;
const BATCHES: u64 = 150;

#[test]
fn a_trickle_takes_fewer_bytes_because_of_what_was_sent_before() {
    build::binaries().unwrap();
    let (edge, central) = (EmbeddedCluster::start("edge").unwrap(), EmbeddedCluster::start("centre").unwrap());
    let (source, centre) = (edge.client(), central.client());
    source.create_topic("jobs", PARTITIONS, &[]).unwrap();
    let include = vec!["jobs".to_owned()];
    let mut stage = Stage::new(StageOptions { site: "plant-7".to_owned(), source, centre, include, collectors: 1 }).unwrap();
    stage.start().unwrap();
    stage.wait_drained(&["jobs"], FLOW_LIMIT).unwrap();
    let weather = Weather { lost: 30, reordered: 100, ..Weather::default() };
    stage.relay.set_weather(weather, seed("history"));

    trickle(&stage.source, 0);
    stage.wait_drained(&["jobs"], FLOW_LIMIT).unwrap();
    let first = saved(&stage);
    assert_eq!(stage.collectors[0].metrics().unwrap().sum("spillway_frames_again_total", &[]), 0.0);
    assert!(stage.collector(0).unwrap().kill(), "the collector was running");
    stage.collector(0).unwrap().start().unwrap();
    trickle(&stage.source, BATCHES);
    stage.wait_drained(&["jobs"], FLOW_LIMIT).unwrap();

    let (both, built) = (saved(&stage), stage.agent.metrics().unwrap().sum("spillway_frame_bytes_total", &[]));
    println!("{first} bytes saved with the first collector, {} with the second, of {built} in all", both - first);
    assert!(first > 0.0 && both > first && both > built / 5.0, "{first} and {both} saved of {built}");
    let traffic = stage.relay.traffic();
    assert!(traffic.lost_packets > 0 && traffic.reordered_packets > 0, "{traffic:?}");
    assert_eq!(stage.collectors[0].metrics().unwrap().sum("spillway_frames_again_total", &[]), 0.0);
    let report = stage.judge(&["jobs"]).unwrap();
    assert!(report.is_exact() && report.source_records == 2 * 4 * BATCHES, "{report}");
}

fn saved(stage: &Stage) -> f64 {
    stage.agent.metrics().unwrap().sum("spillway_history_saved_bytes_total", &[])
}

/// Four events at a time, each of one of a few jobs whose names are in no dictionary.
fn trickle(source: &Client, first: u64) {
    let producer = source.producer().unwrap();
    for batch in first..first + BATCHES {
        for n in 0..4 {
            let job = (batch / 10).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let value = format!("{{\"job\":\"{job:016x}-{:08x}\",\"step\":{},\"state\":\"running\"}}", job >> 7, 4 * batch + n);
            let record = NewRecord { value: Some(value.into_bytes()), ..NewRecord::default() };
            producer.send("jobs", n as i32 % PARTITIONS, &record).unwrap();
        }
        producer.flush(FLOW_LIMIT).unwrap();
        std::thread::sleep(Duration::from_millis(30));
    }
}
