//! What others read: offset syncs with Kafka's own formatter, and the lag of the local group with Kafka's own tool.

use std::collections::BTreeSet;

use spillway_lab::java::run_tool;
use spillway_lab::oracle::syncs::{check_syncs, check_syncs_rise, read_syncs, syncs_topic};
use spillway_lab::shapes::seed;
use spillway_lab::wait::wait_until;

use crate::common::{FLOW_LIMIT, assert_exact, stage, write};

#[test]
#[ignore = "needs real Kafka: ./lab test"]
fn kafkas_own_formatter_prints_our_offset_syncs_and_they_are_true() {
    let seed = seed("syncs");
    let mut stage = stage("syncs");
    stage.source.create_topic("syncs-t", 3, &[]).unwrap();
    write(&stage.source, "syncs-t", 3, 0..5_000);
    stage.start().unwrap();
    stage.wait_drained(&["syncs-t"], FLOW_LIMIT).unwrap();
    // A second run: after a restart of both sides the central offsets differ from those at the source by the markers between.
    assert!(stage.agent.terminate().unwrap().success());
    assert!(stage.collector(0).unwrap().terminate().unwrap().success());
    write(&stage.source, "syncs-t", 3, 5_000..10_000);
    stage.start().unwrap();
    stage.wait_drained(&["syncs-t"], FLOW_LIMIT).unwrap();

    let syncs = read_syncs(&stage.centre, "syncs").unwrap();
    check_syncs_rise(&syncs).unwrap();
    for partition in 0..3 {
        let count = syncs.iter().filter(|sync| sync.source.partition.to_kafka() == partition).count();
        assert!(count >= 2, "{count} syncs of partition {partition}: at least one a session");
    }
    let compared = check_syncs(&stage.source, &stage.centre, "syncs", 100, seed).unwrap();
    assert!(compared >= 6, "only {compared} syncs compared");

    let printed = run_tool(
        "org.apache.kafka.tools.consumer.ConsoleConsumer",
        &[
            "--bootstrap-server",
            stage.centre.bootstrap(),
            "--topic",
            &syncs_topic("syncs"),
            "--from-beginning",
            "--timeout-ms",
            "8000",
            "--command-property",
            "isolation.level=read_committed",
            "--formatter",
            "org.apache.kafka.connect.mirror.formatters.OffsetSyncFormatter",
        ],
    )
    .unwrap();
    let lines: BTreeSet<&str> = printed.lines().filter(|line| line.starts_with("OffsetSync{")).collect();
    let expected: BTreeSet<String> = syncs
        .iter()
        .map(|sync| {
            let (topic, partition) = (&sync.source.topic, sync.source.partition.to_kafka());
            let (up, down) = (sync.upstream.to_kafka(), sync.downstream.to_kafka());
            format!("OffsetSync{{topicPartition={topic}-{partition}, upstreamOffset={up}, downstreamOffset={down}}}")
        })
        .collect();
    assert_eq!(lines, expected.iter().map(String::as_str).collect(), "{printed}");
    assert_exact(&stage, &["syncs-t"]);
}

#[test]
#[ignore = "needs real Kafka: ./lab test"]
fn kafka_consumer_groups_shows_the_true_lag() {
    let mut stage = stage("lag");
    stage.source.create_topic("lag-t", 2, &[]).unwrap();
    write(&stage.source, "lag-t", 2, 0..1_000);
    stage.start().unwrap();
    stage.wait_drained(&["lag-t"], FLOW_LIMIT).unwrap();
    assert_eq!(lag_column(stage.source.bootstrap()), 0);

    // The link is cut: what is written now is read by the agent but not at the centre, so it is lag.
    stage.relay.set_cut(true);
    write(&stage.source, "lag-t", 2, 1_000..1_500);
    std::thread::sleep(std::time::Duration::from_secs(3));
    assert_eq!(lag_column(stage.source.bootstrap()), 500);
    assert!(stage.relay.traffic().cut_packets > 0, "the link was not cut");
    let metrics = stage.agent.metrics().unwrap();
    assert_eq!(metrics.sum("spillway_lag_records", &[]).to_bits(), 500_f64.to_bits(), "spillway_lag_records");

    stage.relay.set_cut(false);
    stage.wait_drained(&["lag-t"], FLOW_LIMIT).unwrap();
    wait_until("the lag is 0 again", FLOW_LIMIT, || Ok(lag_column(stage.source.bootstrap()) == 0)).unwrap();
    assert_exact(&stage, &["lag-t"]);
}

/// The sum of the LAG column of `kafka-consumer-groups --describe`.
fn lag_column(bootstrap: &str) -> i64 {
    let args = ["--bootstrap-server", bootstrap, "--describe", "--group", "spillway-lag"];
    let text = run_tool("org.apache.kafka.tools.consumer.group.ConsumerGroupCommand", &args).unwrap();
    let header: Vec<&str> = text.lines().find(|line| line.starts_with("GROUP")).unwrap().split_whitespace().collect();
    let column = header.iter().position(|name| *name == "LAG").unwrap();
    let rows = text.lines().filter(|line| line.starts_with("spillway-lag"));
    rows.map(|line| line.split_whitespace().nth(column).unwrap().parse::<i64>().unwrap()).sum()
}
