//! What the suites share.

use std::sync::{Mutex, Once, OnceLock};
use std::time::Duration;

use serde_json::Value;
use spillway_lab::build;
use spillway_lab::client::{Client, NewRecord};
use spillway_lab::kafka_cluster::{KafkaCluster, KafkaOptions};
use spillway_lab::oracle::read::read_records;
use spillway_lab::stage::{Stage, StageOptions};
use spillway_lab::telemetry::now_ms;
use spillway_proto::naming::GAPS_TOPIC;

/// Until a few thousand records are at the centre, on a busy machine.
pub(crate) const FLOW_LIMIT: Duration = Duration::from_secs(60);

/// Until what was produced is delivered to the local Kafka.
pub(crate) const FLUSH_LIMIT: Duration = Duration::from_secs(60);

/// Two clusters that all tests share which do not disturb them; sites and topics have names of their own.
///
/// They end with the process.
pub(crate) fn shared() -> (Client, Client) {
    static CLUSTERS: OnceLock<(Mutex<KafkaCluster>, Mutex<KafkaCluster>)> = OnceLock::new();
    let (edge, centre) = CLUSTERS.get_or_init(|| {
        let start = |label| Mutex::new(KafkaCluster::start(KafkaOptions::new(label)).unwrap());
        (start("edge"), start("centre"))
    });
    (Client::new(edge.lock().unwrap().bootstrap()), Client::new(centre.lock().unwrap().bootstrap()))
}

/// A stage of `site` with one collector between the shared clusters; it mirrors the topics that begin with the site's name.
pub(crate) fn stage(site: &str) -> Stage {
    stage_between(site, shared())
}

/// A stage with one collector between two clusters; it mirrors the topics that begin with the site's name.
pub(crate) fn stage_between(site: &str, (source, centre): (Client, Client)) -> Stage {
    static BUILT: Once = Once::new();
    BUILT.call_once(|| build::binaries().unwrap());
    Stage::new(StageOptions { site: site.to_owned(), source, centre, include: vec![format!("{site}-.*")], collectors: 1 }).unwrap()
}

/// A record with the number `n` as its value.
pub(crate) fn numbered(n: usize) -> NewRecord {
    NewRecord { key: Some(format!("k{}", n % 7).into_bytes()), value: Some(format!("record {n}").into_bytes()), ..NewRecord::default() }
}

/// Writes numbered records to the partitions of a topic in turn, and waits for their delivery.
pub(crate) fn write(client: &Client, topic: &str, partitions: i32, numbers: std::ops::Range<usize>) {
    let producer = client.producer().unwrap();
    for n in numbers {
        let partition = i32::try_from(n).unwrap() % partitions;
        producer.send(topic, partition, &numbered(n)).unwrap();
    }
    producer.flush(FLUSH_LIMIT).unwrap();
}

/// Judges, and fails with the report unless the centre holds exactly what the source holds.
pub(crate) fn assert_exact(stage: &Stage, topics: &[&str]) {
    let report = stage.judge(topics).unwrap();
    assert!(report.is_exact(), "{report}");
    println!("{}: {report}", stage.site);
}

/// What `spillway-gaps.internal` tells of a site, read as `read_committed` consumers do: `topic/partition reason first-next count`, each once a
/// record. The remote topic must be the site's, and the time the record's own.
pub(crate) fn told_gaps(stage: &Stage) -> Vec<String> {
    let events = read_records(&stage.centre, GAPS_TOPIC).unwrap().concat();
    let told = events.into_iter().filter_map(|(_, record)| {
        let key = String::from_utf8(record.key.unwrap()).unwrap();
        let source = key.strip_prefix(&format!("{}/", stage.site))?;
        let event: Value = serde_json::from_slice(&record.value.unwrap()).unwrap();
        let text = |name: &str| event[name].as_str().unwrap().to_owned();
        assert_eq!((event["version"].as_u64(), text("site")), (Some(1), stage.site.clone()));
        assert_eq!(format!("{}/{}", text("topic"), event["partition"]), source);
        assert_eq!(text("remote_topic"), format!("{}.{}", stage.site, text("topic")));
        let written = record.timestamp_ms.unwrap();
        assert!(written <= now_ms() && text("time").contains('T') && text("time").ends_with(&format!("{:03}Z", written % 1000)));
        Some(format!("{source} {} {}-{} {}", text("reason"), event["first"], event["next"], event["count"]))
    });
    told.collect()
}
