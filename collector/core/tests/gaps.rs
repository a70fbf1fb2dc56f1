//! The records of `spillway-gaps.internal` against those that are kept in `fixtures/gaps-v1.txt`: for each a line with its key and one with
//! its value.
//!
//! A change of these bytes is a change for those who read the topic: it adds a fixture file, and says so in the changelog.
#![expect(clippy::unwrap_used, reason = "tests")]

use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::Value;
use spillway_collector_core::gaps::GapEvent;
use spillway_proto::frame::GapReason;
use spillway_proto::{NextOffset, Partition, SiteName, TopicName, TopicPartition};

const KEPT: &str = include_str!("fixtures/gaps-v1.txt");

/// Reason, first, next, milliseconds since 1970.
const EVENTS: [(GapReason, u64, u64, i64); 7] = [
    (GapReason::Retention, 2, 100, 1_770_091_506_789),
    (GapReason::Truncated, 102, 50, 1_770_091_506_000),
    (GapReason::TopicRecreated, 10, 0, 1_770_091_506_100),
    (GapReason::Dropped, 0, 1, 0),
    (GapReason::Damaged, 5, i64::MAX as u64, 253_402_207_199_999),
    (GapReason::Other(9), 1, 2, 1_770_091_506_789),
    (GapReason::Expired, 7, 9, 1_770_091_506_789),
];

fn record(site: &str, topic: &str, partition: u32, (reason, first, next, ms): (GapReason, u64, u64, i64)) -> (String, String) {
    let event = GapEvent {
        site: &SiteName::parse(site).unwrap(),
        source: &TopicPartition { topic: TopicName::parse(topic).unwrap(), partition: Partition::new(partition).unwrap() },
        remote_topic: &TopicName::parse(&format!("{site}.{topic}")).unwrap(),
        first: NextOffset::new(first).unwrap(),
        next: NextOffset::new(next).unwrap(),
        reason,
        time: Timestamp::from_millisecond(ms).unwrap(),
    };
    (event.key(), event.value())
}

#[test]
fn every_fixture_has_the_bytes_it_always_had() {
    let written = EVENTS.map(|event| record("plant-7", "sensors.v1", 3, event));
    let lines: Vec<&str> = written.iter().flat_map(|(key, value)| [key.as_str(), value]).collect();
    assert_eq!(lines, KEPT.lines().collect::<Vec<_>>());
}

#[test]
fn every_fixture_is_read_as_what_it_was() {
    let lines: Vec<&str> = KEPT.lines().collect();
    assert_eq!(lines.len(), 2 * EVENTS.len());
    let counts = [Some(98), None, None, Some(1), Some(i64::MAX as u64 - 5), None, Some(2)];
    for ((pair, (reason, first, next, ms)), count) in lines.chunks(2).zip(EVENTS).zip(counts) {
        let read: Value = serde_json::from_str(pair[1]).unwrap();
        assert_eq!((pair[0], &read["version"]), ("plant-7/sensors.v1/3", &Value::from(1)));
        assert_eq!((&read["first"], &read["next"], &read["count"]), (&first.into(), &next.into(), &count.into()), "{reason:?}");
        let time: Timestamp = read["time"].as_str().unwrap().parse().unwrap();
        assert_eq!(time.as_millisecond(), ms, "{reason:?}");
    }
}

proptest! {
    #[test]
    fn whatever_the_names_the_key_takes_apart_and_the_value_is_json(
        site in "[a-zA-Z0-9_-]{1,32}",
        topic in "[a-zA-Z0-9._-]{3,100}",
        partition in 0..=i32::MAX as u32,
        code in 1..=255u8,
        first in 0..=i64::MAX as u64,
        next in 0..=i64::MAX as u64,
    ) {
        prop_assume!(SiteName::parse(&site).is_ok());
        let (key, value) = record(&site, &topic, partition, (GapReason::from_code(code), first, next, 1));
        let parts: Vec<_> = key.split('/').collect();
        prop_assert_eq!(parts, [site.as_str(), &topic, &partition.to_string()]);
        let read: Value = serde_json::from_str(&value).unwrap();
        prop_assert_eq!((&read["site"], &read["topic"], &read["partition"]), (&Value::from(site), &Value::from(topic), &Value::from(partition)));
        prop_assert_eq!((&read["first"], &read["next"]), (&Value::from(first), &Value::from(next)));
        prop_assert!(!value.contains('\n'));
    }
}
