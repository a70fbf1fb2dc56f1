//! The resume point of a site is known within a second although the progress topic holds a thousand sites.

use std::time::Duration;

use spillway_lab::client::{Client, NewRecord};
use spillway_lab::kafka_cluster::{KafkaCluster, KafkaOptions};
use spillway_proto::deferred::Deferred;
use spillway_proto::progress::{self, Position, ProgressKey, partition_of};
use spillway_proto::{NextOffset, Partition, SiteName, TopicId, TopicName, TopicPartition};

use crate::common::{FLOW_LIMIT, FLUSH_LIMIT, assert_exact, shared, stage_between, write};

const SITES: u32 = 1_000;
const PARTITIONS: u32 = 200;
const PROGRESS_PARTITIONS: i32 = 16;

/// What is promised for the resume point.
const RESUME_LIMIT: Duration = Duration::from_secs(1);

/// How often the site comes back.
const ROUNDS: usize = 3;

#[test]
#[ignore = "needs real Kafka: ./lab test"]
fn a_resume_point_is_known_within_a_second_among_a_thousand_sites() {
    let (source, _) = shared();
    let central = KafkaCluster::start(KafkaOptions::new("progress")).unwrap();
    let centre = Client::new(central.bootstrap());
    fill(&centre);
    let mut stage = stage_between("resume", (source, centre));
    stage.source.create_topic("resume-t", 4, &[]).unwrap();
    write(&stage.source, "resume-t", 4, 0..1_000);
    stage.start().unwrap();
    stage.wait_drained(&["resume-t"], FLOW_LIMIT).unwrap();

    for round in 1..=ROUNDS {
        // A new collector, which knows nothing, and an agent that was away.
        assert!(stage.agent.kill() && stage.collector(0).unwrap().kill(), "both were running");
        write(&stage.source, "resume-t", 4, round * 1_000..round * 1_000 + 1_000);
        stage.start().unwrap();
        stage.wait_drained(&["resume-t"], FLOW_LIMIT).unwrap();
    }
    let lines = stage.collector(0).unwrap().log_lines("event=\"writer_opened\"");
    let resume_ms: Vec<u128> = lines.iter().map(|line| millis_field(line, "resume_ms")).collect();
    println!("progress: resume points known after {resume_ms:?} ms");
    assert_eq!(resume_ms.len(), ROUNDS + 1, "a new site that comes back: {lines:#?}");
    // The first opening is not one of them: the brand-new cluster first makes its topic for transactions.
    assert!(resume_ms.iter().skip(1).all(|ms| *ms <= RESUME_LIMIT.as_millis()), "{resume_ms:?} ms");
    assert_exact(&stage, &["resume-t"]);
}

/// Positions of 1,000 sites with 200 partitions each.
fn fill(centre: &Client) {
    centre.create_topic(progress::TOPIC, PROGRESS_PARTITIONS, &[("cleanup.policy", "compact")]).unwrap();
    let producer = centre.producer().unwrap();
    for site in 0..SITES {
        let site = SiteName::parse(&format!("site-{site}")).unwrap();
        let partition = partition_of(&site, u32::try_from(PROGRESS_PARTITIONS).unwrap()).to_kafka();
        for number in 0..PARTITIONS {
            let topic = TopicName::parse(&format!("telemetry-{}", number / 10)).unwrap();
            let source = TopicPartition { topic, partition: Partition::new(number % 10).unwrap() };
            let position = Position {
                topic_id: TopicId([7; 16]),
                next: NextOffset::new(u64::from(number) * 1_000).unwrap(),
                deferred: Deferred::new(),
            };
            let key = ProgressKey::Position { site: site.clone(), source };
            let record = NewRecord { key: Some(key.encode()), value: Some(position.encode()), ..NewRecord::default() };
            producer.send(progress::TOPIC, partition, &record).unwrap();
        }
    }
    producer.flush(FLUSH_LIMIT).unwrap();
}

/// The number behind `name=` in a log line.
fn millis_field(line: &str, name: &str) -> u128 {
    let rest = line.split(&format!("{name}=")).nth(1).unwrap_or_else(|| panic!("no {name} in {line}"));
    rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap()
}
