//! The lab's own tools: clusters come up, survive a restart, and Kafka's tools can be run against them.

use std::time::Duration;

use rdkafka::producer::Producer as _;
use spillway_lab::client::{Client, NewRecord, base_record};
use spillway_lab::kafka_cluster::{KafkaCluster, KafkaOptions};
use spillway_lab::oracle::judge;
use spillway_lab::oracle::read::{read_one, read_records};

#[test]
#[ignore = "needs real Kafka: ./lab test"]
fn records_survive_the_restart_of_a_three_broker_cluster() {
    let mut options = KafkaOptions::new("three");
    options.brokers = 3;
    let mut cluster = KafkaCluster::start(options).unwrap();
    let client = Client::new(cluster.bootstrap());
    client.create_topic("t", 2, &[]).unwrap();
    let producer = client.producer().unwrap();
    for n in 0..100_u32 {
        let record = NewRecord { value: Some(n.to_be_bytes().to_vec()), ..NewRecord::default() };
        producer.send("t", i32::try_from(n % 2).unwrap(), &record).unwrap();
    }
    producer.flush(Duration::from_secs(10)).unwrap();
    cluster.restart().unwrap();
    assert_eq!(client.watermarks("t", 0).unwrap(), (0, 50));
    let described = cluster.run_tool("org.apache.kafka.tools.TopicCommand", &["--describe", "--topic", "t"]).unwrap();
    assert!(described.contains("ReplicationFactor: 3"), "{described}");
    let pids = cluster.pids();
    drop(cluster);
    for pid in pids {
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "broker {pid} still runs");
    }
}

#[test]
#[ignore = "needs real Kafka: ./lab test"]
fn the_oracle_sees_every_fault_in_a_copy() {
    let cluster = KafkaCluster::start(KafkaOptions::new("oracle")).unwrap();
    let client = Client::new(cluster.bootstrap());
    for topic in ["t", "exact.t", "faulty.t"] {
        client.create_topic(topic, 1, &[]).unwrap();
    }
    let records: Vec<NewRecord> = (0..50_u8)
        .map(|n| NewRecord {
            // Nulls, empties, repeated header names and old times have to tell apart what is told apart.
            key: (n % 3 > 0).then(|| vec![n; usize::from(n % 3 - 1)]),
            value: (n % 4 > 0).then(|| vec![n; usize::from(n % 4 - 1)]),
            headers: (0..n % 3).map(|h| ("h".to_owned(), (h > 0).then(|| vec![n]))).collect(),
            timestamp_ms: Some(1_000 + i64::from(n)),
        })
        .collect();
    let producer = client.producer().unwrap();
    let write = |topic: &str, records: &[NewRecord]| records.iter().for_each(|record| producer.send(topic, 0, record).unwrap());
    write("t", &records);
    write("exact.t", &records);
    let mut faulty = records;
    faulty.remove(3);
    faulty.push(faulty[7].clone());
    faulty.swap(10, 11);
    faulty[20].headers.reverse();
    faulty[20].timestamp_ms = Some(0);
    write("faulty.t", &faulty);
    producer.flush(Duration::from_secs(10)).unwrap();

    let exact = judge(&client, &client, "exact", &["t"]).unwrap();
    assert!(exact.is_exact() && exact.source_records == 50, "{exact}");
    let faulty = judge(&client, &client, "faulty", &["t"]).unwrap();
    assert!(!faulty.is_exact());
    assert_eq!((faulty.lost, faulty.duplicated, faulty.out_of_order, faulty.altered), (2, 1, 1, 1), "{faulty}");
}

#[test]
#[ignore = "needs real Kafka: ./lab test"]
fn the_oracle_does_not_see_aborted_records() {
    let cluster = KafkaCluster::start(KafkaOptions::new("aborted")).unwrap();
    let client = Client::new(cluster.bootstrap());
    client.create_topic("t", 1, &[]).unwrap();
    let producer = client.transactional_producer("lab").unwrap();
    for round in 0..10_u8 {
        producer.begin_transaction().unwrap();
        let record = NewRecord { value: Some(vec![round]), ..NewRecord::default() };
        producer.send(base_record("t", 0, &record)).unwrap();
        if round % 2 == 0 {
            producer.commit_transaction(Duration::from_secs(10)).unwrap();
        } else {
            producer.flush(Duration::from_secs(10)).unwrap();
            producer.abort_transaction(Duration::from_secs(10)).unwrap();
        }
    }
    let records = read_records(&client, "t").unwrap().concat();
    let values: Vec<_> = records.iter().map(|(offset, record)| (*offset, record.value.clone().unwrap()[0])).collect();
    assert_eq!(values, [(0, 0), (4, 2), (8, 4), (12, 6), (16, 8)]);
    assert_eq!(read_one(&client, "t", 0, 2).unwrap(), None, "an aborted record");
    assert!(read_one(&client, "t", 0, 4).unwrap().is_some());
}
