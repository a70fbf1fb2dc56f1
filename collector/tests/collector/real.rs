//! What only a real Kafka does: refuse records for all its reasons, give up transactions for their age, compact, be fast.

use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use spillway_proto::deferred::Deferred;
use spillway_proto::frame::EncodedFrame;
use spillway_proto::message::{CollectorMessage, HoldReason, ResumePoint};
use spillway_proto::progress::{self, Position, ProgressKey};
use spillway_proto::record::RecordWriter;
use spillway_proto::{CloseCode, Lane, Offset, Partition, SiteName, TopicPartition};

use crate::support::agent::{TOPIC_ID, data, frame, next, open_lane, push, records};
use crate::support::{Centre, Collector, Folder, TestAgent, log, noise};

/// A site of its own for each run: a real Kafka keeps what earlier runs wrote.
fn site() -> String {
    format!("s{}", rand::random::<u32>())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs SPILLWAY_TEST_KAFKA"]
async fn every_kind_of_refusal_holds_its_lane_and_says_why() {
    log();
    let (folder, centre, site) = (Folder::new(), Centre::real(), site());
    centre.create(&format!("{site}.large"), 1, &[("max.message.bytes", "30000")]).await;
    centre.create(&format!("{site}.early"), 1, &[("message.timestamp.before.max.ms", "3600000")]).await;
    centre.create(&format!("{site}.compacted"), 1, &[("cleanup.policy", "compact")]).await;
    let collector = Collector::start(&folder, &centre.bootstrap, "").await;
    let mut agent = TestAgent::connect(&folder, &site, collector.address).await;
    for (lane, topic) in ["large", "early", "compacted", "good"].iter().enumerate() {
        agent.open_fresh(lane as u32, topic).await;
    }
    let now = jiff::Timestamp::now().as_millisecond();
    let recent = |count: u64| {
        let mut writer = RecordWriter::new(next(0));
        for offset in 0..count {
            assert!(writer.push(Offset::new(offset).unwrap(), now, Some(b"k"), Some(b"v"), std::iter::empty()));
        }
        writer
    };
    let mut large = recent(700);
    assert!(push(&mut large, 700, None, Some(&noise(40_000))));
    let mut early = recent(30);
    assert!(push(&mut early, 30, Some(b"k"), Some(b"of the year 2023")));
    let mut keyless = recent(7);
    assert!(keyless.push(Offset::new(7).unwrap(), now, None, Some(b"no key"), std::iter::empty()));
    assert!(keyless.push(Offset::new(8).unwrap(), now, Some(b"k"), Some(b"v"), std::iter::empty()));
    agent
        .frame(&frame(|frame| {
            frame.data(Lane(0), large);
            frame.data(Lane(1), early);
            frame.data(Lane(2), keyless);
            frame.data(Lane(3), records(0, 5000));
        }))
        .await;
    let mut holds = vec![agent.held().await, agent.held().await, agent.held().await];
    holds.sort_by_key(|hold| hold.lane);
    let found: Vec<_> = holds.iter().map(|hold| (hold.lane.0, hold.next.value(), hold.reason)).collect();
    let reasons = [HoldReason::RecordTooLarge, HoldReason::TimestampOutOfRange, HoldReason::RecordInvalid];
    assert_eq!(found, [(0, 700, reasons[0]), (1, 30, reasons[1]), (2, 7, reasons[2])], "{holds:?}");
    agent.acked(3, 5000).await;
    for (topic, count) in [("large", 700), ("early", 30), ("compacted", 7), ("good", 5000)] {
        assert_eq!(centre.read(&format!("{site}.{topic}"), 0).await.len(), count, "{topic}");
    }
    centre.alter(&format!("{site}.early"), "message.timestamp.before.max.ms", "9223372036854775807").await;
    assert_eq!(agent.message().await, Ok(CollectorMessage::Retry(Lane(1))));
    assert_eq!(agent.open(open_lane(9, "early", 0, 1)).await, ResumePoint::At(next(30)));
    agent.frame(&data(9, 30, 40)).await;
    agent.acked(9, 40).await;
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs SPILLWAY_TEST_KAFKA"]
async fn timestamps_are_kept_the_epoch_and_none_included() {
    let (folder, centre, site) = (Folder::new(), Centre::real(), site());
    let collector = Collector::start(&folder, &centre.bootstrap, "").await;
    let mut agent = TestAgent::connect(&folder, &site, collector.address).await;
    agent.open_fresh(0, "t").await;
    let mut writer = RecordWriter::new(next(0));
    let timestamps = [0, -1, 1, 1_700_000_000_000, 0];
    for (offset, timestamp) in (0..).zip(timestamps) {
        assert!(writer.push(Offset::new(offset).unwrap(), timestamp, None, Some(b"v"), std::iter::empty()));
    }
    agent.frame(&frame(|frame| frame.data(Lane(0), writer))).await;
    agent.acked(0, 5).await;
    let found: Vec<_> = centre.read(&format!("{site}.t"), 0).await.iter().map(|record| record.timestamp.unwrap_or(-1)).collect();
    assert_eq!(found, timestamps);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs SPILLWAY_TEST_KAFKA"]
async fn partitions_added_while_data_flows_are_written_at_once() {
    let (folder, centre, site) = (Folder::new(), Centre::real(), site());
    let collector = Collector::start(&folder, &centre.bootstrap, "").await;
    let mut agent = TestAgent::connect(&folder, &site, collector.address).await;
    agent.open_fresh(0, "t").await;
    agent.frame(&data(0, 0, 100)).await;
    agent.acked(0, 100).await;
    for partition in 1..5 {
        assert_eq!(agent.open(open_lane(partition, "t", partition, partition + 1)).await, ResumePoint::Fresh);
        agent
            .frame(&frame(|frame| {
                frame.start(Lane(partition), next(0));
                frame.data(Lane(partition), records(0, 10));
            }))
            .await;
        agent.acked(partition, 10).await;
    }
    assert_eq!(centre.read(&format!("{site}.t"), 4).await.len(), 10);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs SPILLWAY_TEST_KAFKA, and its process id in SPILLWAY_TEST_KAFKA_PID"]
async fn a_transaction_that_the_brokers_gave_up_for_its_age_is_written_again() {
    log();
    let (folder, centre, site) = (Folder::new(), Centre::real(), site());
    let pid = std::env::var("SPILLWAY_TEST_KAFKA_PID").expect("SPILLWAY_TEST_KAFKA_PID");
    let signal = |name: &str| assert!(std::process::Command::new("kill").args([name, &pid]).status().unwrap().success());
    let more = "[transactions]\ntimeout = \"10s\"\ninterval = \"2s\"";
    let collector = Collector::start(&folder, &centre.bootstrap, more).await;
    let mut agent = TestAgent::connect(&folder, &site, collector.address).await;
    agent.open_fresh(0, "t").await;
    agent.acked(0, 0).await;
    agent.frame(&data(0, 0, 5000)).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    signal("-STOP");
    agent.frame(&data(0, 5000, 6000)).await;
    tokio::time::sleep(Duration::from_secs(25)).await;
    signal("-CONT");
    // Whether the session survives depends on who is faster; the records do in any case.
    while agent.acked.get(&Lane(0)) != Some(&6000) {
        if let Err(code) = agent.message().await {
            assert_eq!(code, CloseCode::CentreUnavailable);
            agent = TestAgent::connect(&folder, &site, collector.address).await;
            let ResumePoint::At(at) = agent.open(open_lane(0, "t", 0, 1)).await else { panic!("progress was there") };
            assert!(at == next(0) || at == next(5000), "{at}");
            agent.frame(&data(0, 0, 5000)).await;
            agent.frame(&data(0, 5000, 6000)).await;
        }
    }
    let expected: Vec<_> = (0..6000).map(|n| n.to_string()).collect();
    assert_eq!(centre.values(&format!("{site}.t")).await, expected);
    collector.stop().await;
}

/// Prints how long a collector takes to know 1,000 sites with 200 partitions each, cold and warm.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs SPILLWAY_TEST_KAFKA; a measurement"]
async fn progress_of_a_thousand_sites_is_read_at_the_start() {
    log();
    let (folder, centre) = (Folder::new(), Centre::real());
    let collector = Collector::start(&folder, &centre.bootstrap, "").await;
    let prefix = site();
    let (bootstrap, sites) = (centre.bootstrap.clone(), prefix.clone());
    tokio::task::spawn_blocking(move || fill_progress(&bootstrap, &sites)).await.unwrap();
    collector.stop().await;
    let started = Instant::now();
    let collector = Collector::start(&folder, &centre.bootstrap, "").await;
    println!("ready after {:?}", started.elapsed());
    for turn in 0..3 {
        let name = format!("{prefix}-{turn}");
        let started = Instant::now();
        let mut agent = TestAgent::connect(&folder, &name, collector.address).await;
        let welcome = started.elapsed();
        assert_eq!(agent.open(open_lane(0, "topic-0", 0, 1)).await, ResumePoint::At(next(17)));
        println!("site {name}: welcome after {welcome:?}, resume point after {:?}", started.elapsed());
    }
    collector.stop().await;
}

fn fill_progress(bootstrap: &str, prefix: &str) {
    let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", bootstrap).set("linger.ms", "20").create().unwrap();
    for index in 0..1000 {
        let site = SiteName::parse(&format!("{prefix}-{index}")).unwrap();
        let partition = progress::partition_of(&site, 16).to_kafka();
        for source in 0..200u32 {
            let topic = format!("topic-{}", source / 20).parse().unwrap();
            let source = TopicPartition { topic, partition: Partition::new(source % 20).unwrap() };
            let key = ProgressKey::Position { site: site.clone(), source }.encode();
            let value = Position { topic_id: TOPIC_ID, next: next(17), deferred: Deferred::new() }.encode();
            while producer.send(BaseRecord::to(progress::TOPIC).partition(partition).key(&key).payload(&value)).is_err() {
                producer.poll(Duration::from_millis(10));
            }
        }
        producer.poll(Duration::ZERO);
    }
    producer.flush(Duration::from_secs(60)).unwrap();
}

/// Prints records per second through one session.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs SPILLWAY_TEST_KAFKA; a measurement"]
async fn throughput() {
    log();
    for (size, count) in [(1024, 300_000), (200, 1_000_000)] {
        let (folder, centre, site) = (Folder::new(), Centre::real(), site());
        let collector = Collector::start(&folder, &centre.bootstrap, "").await;
        let mut agent = TestAgent::connect(&folder, &site, collector.address).await;
        const LANES: u32 = 20;
        for lane in 0..LANES {
            let resume = agent.open(open_lane(lane, "t", lane, LANES)).await;
            assert_eq!(resume, ResumePoint::Fresh);
            agent.frame(&frame(|frame| frame.start(Lane(lane), next(0)))).await;
        }
        let each = 256 * 1024 / size as u64;
        let value: Vec<u8> = noise(size / 2).into_iter().chain(vec![b'x'; size / 2]).collect();
        let mut ends = [0u64; LANES as usize];
        let mut frames: Vec<EncodedFrame> = Vec::new();
        for n in 0..count / each {
            let lane = (n % u64::from(LANES)) as usize;
            let mut writer = RecordWriter::new(next(ends[lane]));
            for _ in 0..each {
                assert!(push(&mut writer, ends[lane], Some(b"key-1234"), Some(&value)));
                ends[lane] += 1;
            }
            frames.push(frame(|frame| frame.data(Lane(lane as u32), writer)));
        }
        let (started, cpu) = (Instant::now(), cpu_seconds());
        let (mut sent, mut acked) = (0, 0u64);
        let total: u64 = ends.iter().sum();
        while acked < total {
            // Like an agent with a window of 8 MiB of frames.
            while sent < frames.len() && sent as u64 * each < acked + (8 << 20) / (size as u64 / 2) {
                agent.frame(&frames[sent]).await;
                sent += 1;
            }
            agent.message().await.unwrap();
            acked = agent.acked.values().sum();
        }
        let seconds = started.elapsed().as_secs_f64();
        println!(
            "{size} B: {:.0} records/s, {:.1} MB/s, {:.1} us CPU a record (test agent included)",
            total as f64 / seconds,
            total as f64 * size as f64 / seconds / 1e6,
            (cpu_seconds() - cpu) * 1e6 / total as f64
        );
        collector.stop().await;
    }
}

/// User and system time of this process.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}
