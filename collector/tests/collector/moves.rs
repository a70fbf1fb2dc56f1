//! A site moves between collectors at any moment; collectors and the central Kafka come and go.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use spillway_collector::centre::MAX_OPENINGS;
use spillway_proto::frame::EncodedFrame;
use spillway_proto::message::{CollectorMessage, ResumePoint};
use spillway_proto::{CloseCode, Lane, progress};

use crate::support::agent::{data, frame, next, open_lane};
use crate::support::process::Process;
use crate::support::{Centre, Collector, Folder, PATIENCE, TestAgent, eventually, log};

/// Sends everything from the collector's position on, in frames of `step`, until `end` is acknowledged or the connection breaks.
async fn send_from(agent: &mut TestAgent, lane: u32, end: u64, step: u64) -> Result<(), CloseCode> {
    let resume = agent.open(open_lane(lane, "t", 0, 1)).await;
    let mut at = match resume {
        ResumePoint::Fresh => {
            agent.frame(&frame(|frame| frame.start(Lane(lane), next(0)))).await;
            0
        }
        ResumePoint::At(at) => at.value(),
        ResumePoint::Recreated { .. } => panic!("{resume:?}"),
    };
    // Frames as an agent keeps them: the same cut whatever the position.
    at -= at % step;
    while at < end {
        agent.frame(&data(lane, at, (at + step).min(end))).await;
        at += step;
    }
    while agent.acked.get(&Lane(lane)) != Some(&end) {
        match agent.message().await? {
            CollectorMessage::Ack(_) => {}
            other => panic!("{other:?}"),
        }
    }
    Ok(())
}

fn numbers(end: u64) -> Vec<String> {
    (0..end).map(|n| n.to_string()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_collectors_take_a_site_from_each_other_in_the_middle_of_transactions() {
    log();
    let (folder, centre) = (Folder::new(), Centre::embedded().await);
    let collectors = [Collector::start(&folder, &centre.bootstrap, "").await, Collector::start(&folder, &centre.bootstrap, "").await];
    let mut before: Option<TestAgent> = None;
    for turn in 1..=8u64 {
        let mut agent = TestAgent::connect(&folder, "a", collectors[turn as usize % 2].address).await;
        if turn < 8 {
            // Data is on its way and in a transaction when the site moves on.
            let resume = agent.open(open_lane(0, "t", 0, 1)).await;
            let at = if let ResumePoint::At(at) = resume { at.value() } else { 0 };
            if resume == ResumePoint::Fresh {
                agent.frame(&frame(|frame| frame.start(Lane(0), next(0)))).await;
            }
            agent.frame(&data(0, at, at + 1000 * turn)).await;
            agent.frame(&data(0, at + 1000 * turn, at + 1001 * turn)).await;
            tokio::time::sleep(Duration::from_millis(turn * 3)).await;
        } else {
            send_from(&mut agent, 0, 50_000, 500).await.unwrap();
        }
        if let Some(mut before) = before.replace(agent) {
            assert_eq!(before.closed().await, CloseCode::Superseded);
        }
    }
    assert_eq!(centre.values("a.t").await, numbers(50_000));
    drop(before);
    for collector in collectors {
        collector.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_collector_loses_and_doubles_nothing() {
    log();
    let (folder, centre) = (Folder::new(), Centre::embedded().await);
    let end = 60_000;
    for pause in [5, 60, 120, 300] {
        let mut process = Process::start(&folder, &centre.bootstrap, "");
        let mut agent = TestAgent::connect(&folder, "a", process.address).await;
        let killer = tokio::task::spawn_blocking(move || {
            std::thread::sleep(Duration::from_millis(pause));
            process.kill();
        });
        let resume = tokio::time::timeout(Duration::from_secs(2), agent.open(open_lane(0, "t", 0, 1)));
        if let Ok(resume) = resume.await {
            let at = if let ResumePoint::At(at) = resume { at.value() } else { 0 };
            if resume == ResumePoint::Fresh {
                agent.frame(&frame(|frame| frame.start(Lane(0), next(0)))).await;
            }
            let frames: Vec<EncodedFrame> = (0..20).map(|n| data(0, at + n * 100, at + n * 100 + 100)).collect();
            for frame in &frames {
                agent.frame(frame).await;
            }
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        killer.await.unwrap();
    }
    let process = Process::start(&folder, &centre.bootstrap, "");
    let mut agent = TestAgent::connect(&folder, "a", process.address).await;
    send_from(&mut agent, 1, end, 500).await.unwrap();
    assert_eq!(centre.values("a.t").await, numbers(end));
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_drains_and_ends_with_code_0() {
    let (folder, centre) = (Folder::new(), Centre::embedded().await);
    let mut process = Process::start(&folder, &centre.bootstrap, "");
    let mut agent = TestAgent::connect(&folder, "a", process.address).await;
    agent.open_fresh(0, "t").await;
    agent.acked(0, 0).await;
    agent.frame(&data(0, 0, 700)).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let killed = Command::new("kill").arg(process.child.id().to_string()).status().unwrap();
    assert!(killed.success());
    assert_eq!(agent.closed().await, CloseCode::ShuttingDown);
    assert_eq!(agent.acked.get(&Lane(0)), Some(&700));
    assert_eq!(process.child.wait().unwrap().code(), Some(0));
    assert_eq!(centre.values("a.t").await, numbers(700));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_central_kafka_that_goes_away_means_backpressure_and_nothing_else() {
    log();
    let (folder, centre) = (Folder::new(), Centre::embedded().await);
    let collector = Collector::start(&folder, &centre.bootstrap, "").await;
    let broker = centre.broker();
    let mut agent = TestAgent::connect(&folder, "a", collector.address).await;
    agent.open_fresh(0, "t").await;
    agent.frame(&data(0, 0, 1000)).await;
    agent.acked(0, 1000).await;
    broker.stop().await;
    agent.frame(&data(0, 1000, 3000)).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(agent.acked.get(&Lane(0)), Some(&1000), "nothing can be committed");
    broker.resume().await.unwrap();
    agent.acked(0, 3000).await;
    for n in 0..5u64 {
        agent.frame(&data(0, 3000 + n * 10, 3010 + n * 10)).await;
        broker.faults().cut_connections();
        agent.acked(0, 3010 + n * 10).await;
    }
    assert_eq!(centre.values("a.t").await, numbers(3050));
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unanswered_commit_is_asked_again() {
    use spillway_broker::{ApiKey, ResponseError};
    log();
    let (folder, centre) = (Folder::new(), Centre::embedded().await);
    let collector = Collector::start(&folder, &centre.bootstrap, "").await;
    let broker = centre.broker();
    let mut agent = TestAgent::connect(&folder, "a", collector.address).await;
    agent.open_fresh(0, "t").await;
    agent.acked(0, 0).await;
    let mut at = 0;
    let mut send = async |agent: &mut TestAgent| {
        agent.frame(&data(0, at, at + 100)).await;
        at += 100;
        agent.acked(0, at).await;
    };
    broker.faults().unanswer_next(ApiKey::EndTxn);
    send(&mut agent).await;
    broker.faults().unanswer_next(ApiKey::Produce);
    send(&mut agent).await;
    for (api, error) in [
        (ApiKey::EndTxn, ResponseError::CoordinatorNotAvailable),
        (ApiKey::EndTxn, ResponseError::NotCoordinator),
        (ApiKey::Produce, ResponseError::NotEnoughReplicas),
        (ApiKey::Produce, ResponseError::NotLeaderOrFollower),
        (ApiKey::AddPartitionsToTxn, ResponseError::ConcurrentTransactions),
    ] {
        broker.faults().fail_next(api, error).unwrap();
        send(&mut agent).await;
    }
    assert_eq!(centre.values("a.t").await, numbers(700));
    let restarts = eventually("the metric is there", async || Some(collector.metric("spillway_writers_open").await)).await;
    assert_eq!(restarts, 1.0);
    collector.stop().await;
}

/// A collector that died leaves transactions open, which hide other sites' markers until their own site is back. However many sites wait for
/// their markers, that one site must get its turn.
#[tokio::test(flavor = "multi_thread")]
async fn sites_that_wait_for_their_markers_let_others_be_opened() {
    log();
    let (folder, centre) = (Arc::new(Folder::new()), Centre::embedded().await);
    // One partition: the open transaction hides everybody's marker.
    let collector = Collector::start(&folder, &centre.bootstrap, "[topics]\nprogress_partitions = 1").await;
    let dead = hanging_writer(&centre.bootstrap, "spillway-dead");
    let mut waiting = tokio::task::JoinSet::new();
    let sites = 3 * MAX_OPENINGS;
    for number in 0..sites {
        let (folder, site, address) = (Arc::clone(&folder), format!("waits-{number}"), collector.address);
        folder.issue(&site);
        waiting.spawn(async move {
            let mut agent = TestAgent::connect(&folder, &site, address).await;
            agent.open(open_lane(0, "t", 0, 1)).await
        });
    }
    // Each commits its marker (with its transaction's own, two offsets), and none can be read.
    let written = || (end_of_progress(&centre.bootstrap, "read_uncommitted") == 1 + 2 * sites).then_some(());
    eventually("every site writes its marker", async || tokio::task::block_in_place(written)).await;
    let readable = tokio::task::block_in_place(|| end_of_progress(&centre.bootstrap, "read_committed"));
    assert_eq!((readable, waiting.try_join_next().is_none()), (0, true), "the open transaction hides them");
    // The dead collector's site comes back.
    let mut agent = TestAgent::connect(&folder, "dead", collector.address).await;
    assert_eq!(agent.open(open_lane(0, "t", 0, 1)).await, ResumePoint::Fresh);
    while let Some(resume) = waiting.join_next().await {
        assert_eq!(resume.unwrap(), ResumePoint::Fresh);
    }
    drop(dead);
    collector.stop().await;
}

/// A writer with an open transaction that has written into the progress topic.
fn hanging_writer(bootstrap: &str, id: &str) -> BaseProducer {
    let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", bootstrap).set("transactional.id", id).create().unwrap();
    producer.init_transactions(PATIENCE).unwrap();
    producer.begin_transaction().unwrap();
    producer.send(BaseRecord::to(progress::TOPIC).partition(0).key("\u{0}").payload("")).unwrap();
    while producer.in_flight_count() > 0 {
        producer.poll(Duration::from_millis(10));
    }
    producer
}

/// Where the progress topic's partition ends for a reader.
fn end_of_progress(bootstrap: &str, isolation: &str) -> usize {
    let consumer: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", bootstrap).set("isolation.level", isolation).create().unwrap();
    usize::try_from(consumer.fetch_watermarks(progress::TOPIC, 0, PATIENCE).unwrap().1).unwrap()
}
