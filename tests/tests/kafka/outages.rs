//! The central Kafka is away: backpressure, no exit, nothing lost, nothing twice.

use std::time::Duration;

use spillway_lab::client::Client;
use spillway_lab::kafka_cluster::{KafkaCluster, KafkaOptions};
use spillway_lab::wait::wait_until;

use crate::common::{FLOW_LIMIT, FLUSH_LIMIT, assert_exact, numbered, shared, stage_between};

/// Longer than the transactions' interval and librdkafka's first retries.
const AWAY: Duration = Duration::from_secs(25);

/// After the cluster is back: producers reconnect, transactions are fenced, the backlog is carried.
const RECOVERY_LIMIT: Duration = Duration::from_secs(180);

#[test]
#[ignore = "needs real Kafka: ./lab test"]
fn a_central_kafka_that_is_down_means_backpressure_and_no_exit() {
    let mut central = KafkaCluster::start(KafkaOptions::new("away")).unwrap();
    outage("away", &mut central, |central| central.kill(), |central| central.resume().unwrap());
}

#[test]
#[ignore = "needs real Kafka: ./lab test"]
fn a_central_kafka_without_its_in_sync_replicas_means_backpressure_and_no_exit() {
    let mut options = KafkaOptions::new("isr");
    options.brokers = 3;
    // Two of three must hold a record; with one broker left, produce requests are refused or time out.
    let mut central = KafkaCluster::start(options).unwrap();
    let two_down = |central: &mut KafkaCluster| assert!(central.kill_broker(1) && central.kill_broker(2), "two brokers were running");
    outage("isr", &mut central, two_down, |central| central.resume().unwrap());
}

#[test]
#[ignore = "needs real Kafka: ./lab test"]
fn leaders_of_the_central_kafka_may_change_while_records_flow() {
    let mut options = KafkaOptions::new("leaders");
    options.brokers = 3;
    let mut central = KafkaCluster::start(options).unwrap();
    // One broker after the other: each leads some partitions and coordinates some transactions.
    let roll = |central: &mut KafkaCluster| {
        for broker in 0..3 {
            assert!(central.kill_broker(broker), "broker {broker} was running");
            central.resume().unwrap();
        }
    };
    outage("leaders", &mut central, roll, |_| ());
}

fn outage(site: &str, central: &mut KafkaCluster, begin: impl FnOnce(&mut KafkaCluster), end: impl FnOnce(&mut KafkaCluster)) {
    let (source, _) = shared();
    let mut stage = stage_between(site, (source, Client::new(central.bootstrap())));
    let topic = format!("{site}-t");
    stage.source.create_topic(&topic, 4, &[]).unwrap();
    stage.start().unwrap();
    let producer = stage.source.producer().unwrap();
    let send = |numbers: std::ops::Range<usize>| {
        for n in numbers {
            producer.send(&topic, i32::try_from(n % 4).unwrap(), &numbered(n)).unwrap();
            if n % 20 == 0 {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    };
    send(0..2_000);
    let remote = format!("{site}.{topic}");
    wait_until("records flow", FLOW_LIMIT, || {
        Ok(stage.centre.topics()?.contains_key(&remote) && stage.centre.watermarks(&remote, 0)?.1 > 0)
    })
    .unwrap();

    begin(central);
    send(2_000..20_000);
    std::thread::sleep(AWAY);
    assert!(stage.agent.is_running() && stage.collector(0).unwrap().is_running(), "nobody exits");
    let health = stage.agent.get("/healthz").unwrap();
    println!("{site}: healthz of the agent after {AWAY:?}: {} {}", health.status, health.body.trim());
    end(central);

    send(20_000..22_000);
    producer.flush(FLUSH_LIMIT).unwrap();
    stage.wait_drained(&[&topic], RECOVERY_LIMIT).unwrap();
    assert!(stage.agent.is_running() && stage.collector(0).unwrap().is_running(), "nobody exits");
    assert_exact(&stage, &[&topic]);
}
