//! Deferred ranges: what is new goes first, what was deferred follows on late lanes, each record once.

use std::collections::HashMap;

use spillway_broker::{ApiKey, ResponseError};
use spillway_proto::message::{AgentMessage, Hello, HoldReason, OpenLane, ResumePoint};
use spillway_proto::mm2::OffsetSync;
use spillway_proto::naming::GAPS_TOPIC;
use spillway_proto::{CloseCode, Lane, frame::GapReason};

use crate::support::agent::{data, frame, gap, hello, next, open_lane, records};
use crate::support::{Centre, Collector, Folder, TestAgent, log};

fn newest() -> Hello {
    Hello { max_version: 3, ..hello() }
}

fn late_lane(lane: u32, until: u64) -> OpenLane {
    OpenLane { until: Some(next(until)), ..open_lane(lane, "t", 0, 1) }
}

async fn connect(folder: &Folder, collector: &Collector) -> TestAgent {
    TestAgent::try_connect(folder, "a", collector.address, newest()).await.unwrap()
}

async fn bench() -> (Folder, Centre, Collector, TestAgent) {
    log();
    let (folder, centre) = (Folder::new(), Centre::embedded().await);
    let collector = Collector::start(&folder, &centre.bootstrap, "").await;
    let agent = connect(&folder, &collector).await;
    (folder, centre, collector, agent)
}

/// Source offsets in the order of the centre.
async fn values(centre: &Centre) -> Vec<u64> {
    let records = centre.read("a.t", 0).await;
    records.into_iter().map(|record| String::from_utf8(record.value.unwrap()).unwrap().parse().unwrap()).collect()
}

/// 0 to 10 are there, 10 to 50 deferred, 50 to 60 there.
async fn defer(agent: &mut TestAgent) {
    agent.open_fresh(0, "t").await;
    agent.frame(&data(0, 0, 10)).await;
    agent.acked(0, 10).await;
    assert_eq!(agent.open(open_lane(1, "t", 0, 1)).await, ResumePoint::At(next(10)));
    agent.frame(&frame(|frame| frame.gap(Lane(1), next(10), next(50), GapReason::Deferred))).await;
    agent.frame(&data(1, 50, 60)).await;
    agent.acked(1, 60).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_deferred_comes_later_and_once() {
    let (folder, centre, collector, mut agent) = bench().await;
    defer(&mut agent).await;
    assert_eq!(agent.deferred, HashMap::new(), "nothing was when the lanes were opened");
    assert_eq!(agent.open(late_lane(2, 50)).await, ResumePoint::At(next(10)));
    agent.frame(&data(2, 10, 30)).await;
    agent.acked(2, 30).await;
    drop(agent);

    let mut agent = connect(&folder, &collector).await;
    assert_eq!(agent.open(open_lane(5, "t", 0, 1)).await, ResumePoint::At(next(60)));
    assert_eq!(agent.deferred, HashMap::from([(Lane(5), vec![(30, 50)])]));
    assert_eq!(agent.open(late_lane(6, 50)).await, ResumePoint::At(next(30)));
    // Sent again, and both lanes in one frame.
    agent.frame(&data(6, 10, 35)).await;
    agent
        .frame(&frame(|frame| {
            frame.data(Lane(5), records(60, 65));
            frame.data(Lane(6), records(35, 50));
        }))
        .await;
    agent.acked(6, 50).await;
    agent.acked(5, 65).await;
    drop(agent);

    let mut agent = connect(&folder, &collector).await;
    assert_eq!(agent.open(open_lane(7, "t", 0, 1)).await, ResumePoint::At(next(65)));
    assert_eq!(agent.deferred, HashMap::new());
    assert_eq!(agent.open(late_lane(8, 50)).await, ResumePoint::At(next(50)), "all of it is there");
    let mut values = values(&centre).await;
    assert_eq!(values[..40], [(0..10).collect::<Vec<u64>>(), (50..60).collect(), (10..30).collect()].concat());
    values.sort_unstable();
    assert_eq!(values, (0..65).collect::<Vec<_>>());
    assert_eq!(centre.read(GAPS_TOPIC, 0).await.len(), 0, "a deferral is no loss");
    let syncs = centre.read("mm2-offset-syncs.a.internal", 0).await;
    let upstream =
        syncs.iter().map(|sync| OffsetSync::decode(sync.key.as_ref().unwrap(), sync.value.as_ref().unwrap()).unwrap().upstream.value());
    let upstream: Vec<_> = upstream.collect();
    assert!(upstream.len() >= 2 && upstream.iter().all(|offset| !(10..50).contains(offset)), "{upstream:?}");
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_fails_or_is_not_answered_defers_once() {
    let (folder, centre, collector, mut agent) = bench().await;
    let faults = centre.broker().faults();
    agent.open_fresh(0, "t").await;
    agent.acked(0, 0).await;
    faults.fail_next(ApiKey::EndTxn, ResponseError::UnknownServerError).unwrap();
    agent.frame(&frame(|frame| frame.gap(Lane(0), next(0), next(20), GapReason::Deferred))).await;
    agent.acked(0, 20).await;
    faults.unanswer_next(ApiKey::EndTxn);
    assert_eq!(agent.open(late_lane(1, 20)).await, ResumePoint::At(next(0)));
    agent.frame(&data(1, 0, 15)).await;
    agent.acked(1, 15).await;
    assert_eq!(faults.injected(), 2);
    agent.frame(&gap(1, 15, 20, GapReason::Damaged)).await;
    agent.acked(1, 20).await;
    drop(agent);
    let mut agent = connect(&folder, &collector).await;
    assert_eq!(agent.open(open_lane(2, "t", 0, 1)).await, ResumePoint::At(next(20)));
    assert_eq!(agent.deferred, HashMap::new());
    assert_eq!(values(&centre).await, (0..15).collect::<Vec<_>>());
    let events = centre.read(GAPS_TOPIC, 0).await;
    assert_eq!(events.len(), 1);
    let event = String::from_utf8(events[0].value.clone().unwrap()).unwrap();
    assert!(event.contains("\"reason\":\"damaged\",\"first\":15,\"next\":20"), "{event}");
    collector.stop().await;
}

/// What it has of them in its spill it would drop.
#[tokio::test(flavor = "multi_thread")]
async fn an_older_agent_is_held_where_something_is_deferred() {
    let (folder, _centre, collector, mut agent) = bench().await;
    defer(&mut agent).await;
    drop(agent);
    let older = Hello { max_version: 2, ..hello() };
    let mut agent = TestAgent::try_connect(&folder, "a", collector.address, older).await.unwrap();
    agent.say(AgentMessage::Open(open_lane(0, "t", 0, 1))).await;
    let hold = agent.held().await;
    assert_eq!((hold.lane, hold.reason), (Lane(0), HoldReason::TopicRefused));
    assert!(hold.detail.ends_with("upgrade the agent"), "{}", hold.detail);
    agent.open_fresh(1, "other").await;
    agent.acked(1, 0).await;
    agent.say(AgentMessage::Open(late_lane(2, 50))).await;
    assert_eq!(agent.closed().await, CloseCode::ProtocolViolation);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_deferred_before_a_log_went_back_is_told_as_lost() {
    let (folder, centre, collector, mut agent) = bench().await;
    defer(&mut agent).await;
    assert_eq!(agent.open(late_lane(2, 50)).await, ResumePoint::At(next(10)));
    agent.frame(&data(2, 10, 20)).await;
    agent.acked(2, 20).await;
    agent.frame(&gap(1, 60, 40, GapReason::Truncated)).await;
    agent.acked(1, 40).await;
    // What comes now is neither there nor lost: it was told already.
    agent.frame(&data(2, 20, 30)).await;
    agent.acked(2, 30).await;
    agent.frame(&data(1, 40, 41)).await;
    agent.acked(1, 41).await;
    drop(agent);
    let events = centre.read(GAPS_TOPIC, 0).await;
    let told = |event: &[u8], range: &str| std::str::from_utf8(event).unwrap().contains(&format!("\"reason\":\"truncated\",{range}"));
    assert_eq!(events.len(), 2);
    assert!(told(events[0].value.as_ref().unwrap(), "\"first\":20,\"next\":50"), "{events:?}");
    assert!(told(events[1].value.as_ref().unwrap(), "\"first\":60,\"next\":40"), "{events:?}");
    let values = values(&centre).await;
    assert_eq!(values, [(0..10).collect::<Vec<u64>>(), (50..60).collect(), (10..20).collect(), vec![40]].concat());
    let mut agent = connect(&folder, &collector).await;
    assert_eq!(agent.open(open_lane(2, "t", 0, 1)).await, ResumePoint::At(next(41)));
    assert_eq!(agent.deferred, HashMap::new());
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_ranges_than_allowed_end_the_session() {
    let (folder, _centre, collector, mut agent) = bench().await;
    agent.open_fresh(0, "t").await;
    let most = spillway_proto::deferred::MAX_RANGES as u64;
    for n in 0..most {
        agent.frame(&frame(|frame| frame.gap(Lane(0), next(2 * n), next(2 * n + 1), GapReason::Deferred))).await;
        agent.frame(&data(0, 2 * n + 1, 2 * n + 2)).await;
    }
    agent.acked(0, 2 * most).await;
    agent.frame(&frame(|frame| frame.gap(Lane(0), next(2 * most), next(2 * most + 1), GapReason::Deferred))).await;
    assert_eq!(agent.closed().await, CloseCode::LimitExceeded);
    drop(agent);
    let mut agent = connect(&folder, &collector).await;
    assert_eq!(agent.open(open_lane(1, "t", 0, 1)).await, ResumePoint::At(next(2 * most)));
    assert_eq!(agent.deferred[&Lane(1)].len() as u64, most);
    collector.stop().await;
}
