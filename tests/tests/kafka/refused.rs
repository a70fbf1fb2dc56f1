//! A record that the centre refuses stops its partition only, says why on both sides, and goes on when the topic's setting has
//! been changed.

use std::time::Duration;

use spillway_lab::client::NewRecord;
use spillway_lab::oracle::read::read_topic;
use spillway_lab::stage::Stage;
use spillway_lab::telemetry::now_ms;
use spillway_lab::wait::wait_until;

use crate::common::{FLOW_LIMIT, FLUSH_LIMIT, assert_exact, numbered, stage};

/// Until the changed setting of a topic has been seen and the partition flows.
const RETRY_LIMIT: Duration = Duration::from_secs(120);

/// Records of the partition that is going to stop: the refused one has this number.
const CULPRIT: usize = 50;
const RECORDS: usize = 100;

#[test]
#[ignore = "needs real Kafka: ./lab test"]
fn a_record_that_is_too_large_for_the_centre_stops_its_partition_only() {
    let mut stage = stage("large");
    // Random bytes: what the centre refuses must not fit because it was compressed.
    let mut value = vec![0; 1_500_000];
    rand::RngCore::fill_bytes(&mut rand::rng(), &mut value);
    let culprit = NewRecord { value: Some(value), ..NewRecord::default() };
    stage.source.create_topic("large-t", 2, &[("max.message.bytes", "3000000")]).unwrap();
    let setting = ("max.message.bytes", "3000000");
    stops_and_goes_on(&mut stage, "large-t", &culprit, "record_too_large", setting);
}

#[test]
#[ignore = "needs real Kafka: ./lab test"]
fn a_record_that_is_too_old_for_the_centre_stops_its_partition_only() {
    let mut stage = stage("old");
    stage.source.create_topic("old-t", 2, &[]).unwrap();
    stage.centre.create_topic("old.old-t", 2, &[("message.timestamp.before.max.ms", "3600000")]).unwrap();
    let culprit = NewRecord { value: Some(b"old".to_vec()), timestamp_ms: Some(now_ms() - 86_400_000), ..NewRecord::default() };
    let setting = ("message.timestamp.before.max.ms", "9223372036854775807");
    stops_and_goes_on(&mut stage, "old-t", &culprit, "timestamp_out_of_range", setting);
}

fn stops_and_goes_on(stage: &mut Stage, topic: &str, culprit: &NewRecord, reason: &str, setting: (&str, &str)) {
    stage.start().unwrap();
    let producer = stage.source.producer().unwrap();
    for n in 0..RECORDS {
        let record = numbered(n);
        producer.send(topic, 0, if n == CULPRIT { culprit } else { &record }).unwrap();
        producer.send(topic, 1, &record).unwrap();
    }
    producer.flush(FLUSH_LIMIT).unwrap();

    let remote = format!("{}.{topic}", stage.site);
    wait_until("all before the refused record, and the other partition, are at the centre", FLOW_LIMIT, || {
        let known = stage.centre.topics()?.contains_key(&remote);
        Ok(known && read_topic(&stage.centre, &remote)?.iter().map(Vec::len).eq([CULPRIT, RECORDS]))
    })
    .unwrap();
    // It stays so, and both sides say why.
    stage.agent.wait_for_line(reason, FLOW_LIMIT).unwrap();
    stage.collector(0).unwrap().wait_for_line(reason, FLOW_LIMIT).unwrap();
    std::thread::sleep(Duration::from_secs(3));
    let held: Vec<usize> = read_topic(&stage.centre, &remote).unwrap().iter().map(Vec::len).collect();
    assert_eq!(held, [CULPRIT, RECORDS]);
    let committed = stage.source.committed(&stage.group(), topic, 2).unwrap();
    assert_eq!(committed[0], Some(i64::try_from(CULPRIT).unwrap()), "the group waits at the refused record");

    stage.centre.alter_topic(&remote, &[setting]).unwrap();
    stage.wait_drained(&[topic], RETRY_LIMIT).unwrap();
    assert_exact(stage, &[topic]);
}
