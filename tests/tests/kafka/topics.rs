//! Topics that change while the agent runs: created, given more partitions, deleted and made anew.

use spillway_lab::oracle::read::read_records;
use spillway_lab::wait::wait_until;

use crate::common::{FLOW_LIMIT, assert_exact, stage, told_gaps, write};

#[test]
#[ignore = "needs real Kafka: ./lab test"]
fn new_topics_and_new_partitions_are_mirrored_while_running() {
    let mut stage = stage("grow");
    stage.source.create_topic("grow-old", 1, &[]).unwrap();
    stage.start().unwrap();
    write(&stage.source, "grow-old", 1, 0..100);
    stage.wait_drained(&["grow-old"], FLOW_LIMIT).unwrap();

    stage.source.create_topic("grow-new", 2, &[]).unwrap();
    write(&stage.source, "grow-new", 2, 0..500);
    wait_until("the new topic is at the centre", FLOW_LIMIT, || Ok(stage.centre.topics()?.get("grow.grow-new") == Some(&2))).unwrap();

    stage.source.set_partitions("grow-new", 5).unwrap();
    write(&stage.source, "grow-new", 5, 500..1_500);
    wait_until("the new partitions are at the centre", FLOW_LIMIT, || Ok(stage.centre.topics()?.get("grow.grow-new") == Some(&5))).unwrap();
    write(&stage.source, "grow-old", 1, 100..200);
    stage.wait_drained(&["grow-old", "grow-new"], FLOW_LIMIT).unwrap();
    assert_exact(&stage, &["grow-old", "grow-new"]);
}

#[test]
#[ignore = "needs real Kafka: ./lab test"]
fn a_topic_made_anew_is_mirrored_behind_the_old_one_and_a_gap_says_so() {
    let mut stage = stage("anew");
    stage.source.create_topic("anew-t", 2, &[]).unwrap();
    stage.source.create_topic("anew-other", 1, &[]).unwrap();
    write(&stage.source, "anew-t", 2, 0..1_000);
    stage.start().unwrap();
    stage.wait_drained(&["anew-t"], FLOW_LIMIT).unwrap();
    let old = read_records(&stage.centre, "anew.anew-t").unwrap();

    stage.source.delete_topic("anew-t").unwrap();
    stage.source.create_topic("anew-t", 2, &[]).unwrap();
    // Fewer records than before: every new offset lies below the old position.
    write(&stage.source, "anew-t", 2, 5_000..5_100);
    write(&stage.source, "anew-other", 1, 0..100);
    wait_until("the new records are at the centre", FLOW_LIMIT, || {
        Ok(read_records(&stage.centre, "anew.anew-t")?.iter().map(Vec::len).sum::<usize>() >= 1_100)
    })
    .unwrap();

    let new = read_records(&stage.source, "anew-t").unwrap();
    let central = read_records(&stage.centre, "anew.anew-t").unwrap();
    for partition in 0..2 {
        let values = |log: &[(i64, spillway_lab::client::NewRecord)]| log.iter().map(|(_, record)| record.clone()).collect::<Vec<_>>();
        let expected = [values(&old[partition]), values(&new[partition])].concat();
        assert_eq!(values(&central[partition]), expected, "partition {partition}");
    }
    let gaps = stage.agent.metrics().unwrap().sum("spillway_gaps_total", &["recreated"]);
    assert_eq!(gaps.to_bits(), 2_f64.to_bits(), "one gap a partition");
    assert!(!stage.agent.log_lines("recreated").is_empty(), "the log says so");
    let mut told = told_gaps(&stage);
    told.sort();
    assert_eq!(told, ["anew-t/0 topic_recreated 500-0 null", "anew-t/1 topic_recreated 500-0 null"], "the events at the centre");
    stage.wait_drained(&["anew-t", "anew-other"], FLOW_LIMIT).unwrap();
    assert_exact(&stage, &["anew-other"]);
}
