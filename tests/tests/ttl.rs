//! Records that are too old to be sent, with the real binaries between embedded brokers: an outage that lasts longer than a topic's `ttl`, and old records that an agent finds
//! when it starts. What is to arrive whatever time the test takes has a timestamp in the future.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Duration;

use serde_json::Value;
use spillway_lab::build;
use spillway_lab::client::{Client, NewRecord};
use spillway_lab::cluster::EmbeddedCluster;
use spillway_lab::oracle::read::read_records;
use spillway_lab::spill_dir;
use spillway_lab::stage::{Stage, StageOptions};
use spillway_lab::telemetry::now_ms;
use spillway_lab::wait::wait_until;
use spillway_proto::naming::GAPS_TOPIC;

const FLOW_LIMIT: Duration = Duration::from_secs(60);
const PARTITIONS: i32 = 3;
const TTL_MS: i64 = 2_000;
const HOUR_MS: i64 = 3_600_000;

#[test]
fn what_is_older_than_its_ttl_is_told_as_a_gap_and_the_rest_arrives() {
    build::binaries().unwrap();
    let (edge, central) = (EmbeddedCluster::start("edge").unwrap(), EmbeddedCluster::start("centre").unwrap());
    let (source, centre) = (edge.client(), central.client());
    for topic in ["t", "keep"] {
        source.create_topic(topic, PARTITIONS, &[]).unwrap();
        centre.create_topic(&format!("plant-7.{topic}"), PARTITIONS, &[]).unwrap();
    }
    let mut stage =
        Stage::new(StageOptions { site: "plant-7".to_owned(), source, centre, include: vec![".*".to_owned()], collectors: 1 }).unwrap();
    stage.agent.config.set("spill.after", "1s");
    stage.agent.config.set("link.idle_timeout", "5s");
    stage.agent.config.set("link.keep_alive", "1s");
    stage.agent.config.append(&format!("[[topics.rule]]\nmatch = 't'\nttl = \"{TTL_MS}ms\"\n"));

    // Old records among young ones, from before the agent was there.
    write(&stage.source, "t", 0..300, |n| if n < 150 || n % 20 == 0 { now_ms() - HOUR_MS } else { now_ms() + HOUR_MS });
    write(&stage.source, "keep", 0..30, |_| now_ms() - HOUR_MS);
    stage.start().unwrap();
    stage.wait_drained(&["t", "keep"], FLOW_LIMIT).unwrap();

    // An outage in which what was young gets too old: what was given to a session in vain, and what was never sent.
    stage.relay.set_cut(true);
    write(&stage.source, "t", 300..600, |_| now_ms());
    wait_until("the session is over", FLOW_LIMIT, || Ok(stage.agent.metrics()?.sum("spillway_link_up", &[]) < 1.0)).unwrap();
    write(&stage.source, "t", 600..900, |_| now_ms());
    write(&stage.source, "keep", 30..60, |_| now_ms());
    let spill = stage.spill_dir();
    wait_until("frames are in the spill", FLOW_LIMIT, || Ok(spill_dir::has_frames(&spill))).unwrap();
    let written = now_ms();
    wait_until("they are too old", FLOW_LIMIT, || Ok(now_ms() > written + TTL_MS + 1)).unwrap();
    assert!(stage.relay.traffic().cut_packets > 0, "the link was not cut");
    write(&stage.source, "t", 900..1_000, |_| now_ms() + HOUR_MS);
    stage.relay.set_cut(false);
    stage.wait_drained(&["t", "keep"], FLOW_LIMIT).unwrap();

    let keep = stage.judge(&["keep"]).unwrap();
    assert!(keep.is_exact() && keep.source_records == 60, "{keep}");
    let told = told(&stage.centre);
    let (mut passed, mut arrived) = (0, 0);
    for (partition, (source, there)) in records(&stage.source, "t").into_iter().zip(records(&stage.centre, "plant-7.t")).enumerate() {
        let ranges = told.iter().filter(|gap| gap.partition == partition as u64).map(|gap| gap.range.clone()).collect::<Vec<_>>();
        let is_told = |offset: u64| ranges.iter().filter(|range| range.contains(&offset)).count();
        assert!((0..source.len() as u64).all(|offset| is_told(offset) <= 1), "twice: {ranges:?}");
        let (gone, kept): (Vec<_>, Vec<_>) = (0..).zip(&source).partition(|(offset, _)| is_told(*offset) == 1);
        assert_eq!(there, kept.iter().map(|(_, n)| **n).collect::<Vec<_>>(), "partition {partition}: {ranges:?}");
        let gone = gone.into_iter().map(|(_, n)| *n).collect::<BTreeSet<_>>();
        assert_eq!(gone, source.into_iter().filter(|n| is_old(*n)).collect::<BTreeSet<_>>(), "partition {partition}: {ranges:?}");
        (passed, arrived) = (passed + gone.len(), arrived + there.len());
    }
    assert_eq!(passed + arrived, 1_000);
    assert_eq!(told.iter().map(|gap| gap.count).sum::<u64>(), passed as u64);
    // What was read before the outage is a gap for each stretch of it; 600 records of the outage are a few more.
    assert!(told.len() < 100, "{} gaps", told.len());

    let metrics = stage.agent.metrics().unwrap();
    assert_eq!(metrics.sum("spillway_records_expired_total", &[]) as u64, passed as u64);
    assert_eq!(metrics.sum("spillway_gaps_total", &["reason=\"expired\""]) as usize, told.len());
    let collector = stage.collectors[0].metrics().unwrap();
    assert_eq!(collector.sum("spillway_gaps_total", &["reason=\"expired\""]) as usize, told.len());
    assert_eq!(collector.sum("spillway_records_committed_total", &[]) as usize, arrived + 60);
}

/// Whether the record of this number is to be passed over.
fn is_old(n: u64) -> bool {
    n < 150 || (n < 300 && n.is_multiple_of(20)) || (300..900).contains(&n)
}

/// Numbered records, to the partitions in turn.
fn write(source: &Client, topic: &str, numbers: Range<i32>, time_ms: impl Fn(i32) -> i64) {
    let producer = source.producer().unwrap();
    for n in numbers {
        let record = NewRecord { value: Some(n.to_string().into_bytes()), timestamp_ms: Some(time_ms(n)), ..NewRecord::default() };
        producer.send(topic, n % PARTITIONS, &record).unwrap();
    }
    producer.flush(FLOW_LIMIT).unwrap();
}

/// The numbers of a topic's records, by partition.
fn records(client: &Client, topic: &str) -> Vec<Vec<u64>> {
    let number = |(_, record): (i64, NewRecord)| String::from_utf8(record.value.unwrap()).unwrap().parse().unwrap();
    read_records(client, topic).unwrap().into_iter().map(|partition| partition.into_iter().map(number).collect()).collect()
}

struct Told {
    partition: u64,
    range: Range<u64>,
    count: u64,
}

/// The gap events: all because of the age of records of `t`.
fn told(centre: &Client) -> Vec<Told> {
    let event = |(_, record): (i64, NewRecord)| {
        let event: Value = serde_json::from_slice(&record.value.unwrap()).unwrap();
        assert_eq!((event["topic"].as_str(), event["reason"].as_str()), (Some("t"), Some("expired")), "{event}");
        let number = |name: &str| event[name].as_u64().unwrap();
        Told { partition: number("partition"), range: number("first")..number("next"), count: number("count") }
    };
    read_records(centre, GAPS_TOPIC).unwrap().concat().into_iter().map(event).collect()
}
