//! Gaps are told in `spillway-gaps.internal`: exactly one event each, whatever is sent or written again, and at nobody else's cost.

use serde_json::Value;
use spillway_broker::{ApiKey, ResponseError};
use spillway_proto::frame::GapReason;
use spillway_proto::message::{HoldReason, ResumePoint};
use spillway_proto::naming::GAPS_TOPIC;
use spillway_proto::{Lane, TopicId, progress};

use crate::support::agent::{TOPIC_ID, data, frame, gap, next, open_lane, records};
use crate::support::{Centre, Collector, Folder, TestAgent, eventually, log};

/// One partition: whatever is open in it is in every site's way.
const ONE_PARTITION: &str = "[topics]\nprogress_partitions = 1";

async fn bench(more: &str) -> (Folder, Centre, Collector, TestAgent) {
    log();
    let (folder, centre) = (Folder::new(), Centre::embedded().await);
    let collector = Collector::start(&folder, &centre.bootstrap, more).await;
    let agent = TestAgent::connect(&folder, "a", collector.address).await;
    (folder, centre, collector, agent)
}

/// The events at the centre: key, and the value without its time, which must be the record's own.
async fn events(centre: &Centre) -> Vec<(String, String)> {
    let events = centre.read(GAPS_TOPIC, 0).await.into_iter().map(|record| {
        let value = String::from_utf8(record.value.unwrap()).unwrap();
        let time = serde_json::from_str::<Value>(&value).unwrap()["time"].as_str().unwrap().to_owned();
        assert_eq!(Some(time.parse::<jiff::Timestamp>().unwrap().as_millisecond()), record.timestamp);
        (String::from_utf8(record.key.unwrap()).unwrap(), value.replace(&format!(",\"time\":\"{time}\""), ""))
    });
    events.collect()
}

/// What is expected of one of site `a`.
fn event(topic: &str, reason: &str, (first, next): (u64, u64), count: Option<u64>) -> (String, String) {
    let count = count.map_or_else(|| "null".to_owned(), |count| count.to_string());
    let value = format!(
        "{{\"version\":1,\"site\":\"a\",\"topic\":\"{topic}\",\"partition\":0,\"reason\":\"{reason}\",\"first\":{first},\"next\":{next},\
         \"count\":{count},\"remote_topic\":\"a.{topic}\"}}"
    );
    (format!("a/{topic}/0"), value)
}

async fn aborted(collector: &Collector) -> f64 {
    collector.metric("spillway_transactions_total{outcome=\"aborted\"}").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_is_told_once_however_often_it_is_sent() {
    let (folder, centre, collector, mut agent) = bench("").await;
    assert!(centre.topics().await.contains(&(GAPS_TOPIC.to_owned(), 1)), "made at the start");
    assert_eq!(events(&centre).await, []);
    agent.open_fresh(0, "t").await;
    agent.frame(&data(0, 0, 2)).await;
    for _ in 0..2 {
        agent.frame(&gap(0, 2, 100, GapReason::Retention)).await;
        agent.acked(0, 100).await;
    }
    agent.frame(&data(0, 100, 102)).await;
    agent.acked(0, 102).await;
    drop(agent);
    let mut agent = TestAgent::connect(&folder, "a", collector.address).await;
    assert_eq!(agent.open(open_lane(9, "t", 0, 1)).await, ResumePoint::At(next(102)));
    agent.frame(&gap(9, 2, 100, GapReason::Retention)).await;
    agent.frame(&data(9, 100, 103)).await;
    agent.acked(9, 103).await;
    assert_eq!(events(&centre).await, [event("t", "retention", (2, 100), Some(98))]);
    assert_eq!(collector.metric("spillway_gaps_total{reason=\"retention\"}").await, 1.0);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_reason_has_its_event() {
    let (_folder, centre, collector, mut agent) = bench("").await;
    agent.open_fresh(0, "t").await;
    agent
        .frame(&frame(|frame| {
            frame.data(Lane(0), records(0, 10));
            frame.gap(Lane(0), next(10), next(20), GapReason::Dropped);
            frame.gap(Lane(0), next(20), next(21), GapReason::Damaged);
            frame.gap(Lane(0), next(21), next(22), GapReason::Other(77));
            frame.gap(Lane(0), next(22), next(5), GapReason::Truncated);
        }))
        .await;
    agent.acked(0, 5).await;
    let mut open = open_lane(1, "t", 0, 1);
    open.topic_id = TopicId([8; 16]);
    assert_eq!(agent.open(open).await, ResumePoint::Recreated { previous: TOPIC_ID, next: next(5) });
    agent.frame(&gap(1, 5, 0, GapReason::TopicRecreated)).await;
    agent.acked(1, 0).await;
    let expected = [
        event("t", "dropped", (10, 20), Some(10)),
        event("t", "damaged", (20, 21), Some(1)),
        event("t", "other_77", (21, 22), None),
        event("t", "truncated", (22, 5), None),
        event("t", "topic_recreated", (5, 0), None),
    ];
    assert_eq!(events(&centre).await, expected);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_was_aborted_after_its_event_tells_the_gap_once() {
    let (_folder, centre, collector, mut agent) = bench("").await;
    let faults = centre.broker().faults();
    agent.open_fresh(0, "t").await;
    agent.acked(0, 0).await;
    faults.fail_next(ApiKey::EndTxn, ResponseError::UnknownServerError).unwrap();
    agent.frame(&gap(0, 0, 7, GapReason::Retention)).await;
    agent.acked(0, 7).await;
    assert_eq!((faults.injected(), aborted(&collector).await), (1, 1.0));
    assert_eq!(events(&centre).await, [event("t", "retention", (0, 7), Some(7))]);
    let written = centre.broker().reach(GAPS_TOPIC, 0).unwrap().end;
    assert_eq!(written, 4, "two events and two markers: the first attempt had written it as well");
    // A commit whose answer is lost is not repeated as a second event either.
    faults.unanswer_next(ApiKey::EndTxn);
    agent.frame(&gap(0, 7, 9, GapReason::Retention)).await;
    agent.acked(0, 9).await;
    assert_eq!(faults.injected(), 2);
    assert_eq!(events(&centre).await[1..], [event("t", "retention", (7, 9), Some(2))]);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_cannot_be_written_stands_in_no_other_sites_way() {
    log();
    let (folder, centre) = (Folder::new(), Centre::embedded().await);
    centre.create(GAPS_TOPIC, 1, &[("max.message.bytes", "1")]).await;
    let collector = Collector::start(&folder, &centre.bootstrap, ONE_PARTITION).await;
    let mut agent = TestAgent::connect(&folder, "a", collector.address).await;
    agent.open_fresh(0, "t").await;
    agent.acked(0, 0).await;
    let progress_end = || centre.broker().reach(progress::TOPIC, 0).unwrap().end;
    let before = progress_end();
    agent.frame(&gap(0, 0, 7, GapReason::Retention)).await;
    eventually("some attempts fail", async || (aborted(&collector).await >= 3.0).then_some(())).await;
    assert_eq!(progress_end(), before, "nothing of the failed attempts was ever in the progress topic");
    let mut other = TestAgent::connect(&folder, "b", collector.address).await;
    other.open_fresh(0, "t").await;
    other.frame(&data(0, 0, 10)).await;
    other.acked(0, 10).await;
    assert_eq!((agent.acked.get(&Lane(0)), events(&centre).await), (Some(&0), vec![]));
    centre.alter(GAPS_TOPIC, "max.message.bytes", "1000000").await;
    agent.acked(0, 7).await;
    assert_eq!(events(&centre).await, [event("t", "retention", (0, 7), Some(7))]);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_topic_of_gaps_holds_partitions_with_a_gap_only() {
    log();
    let (folder, centre) = (Folder::new(), Centre::embedded().await);
    // Everything is there but the topic of gaps, which may not be created.
    for topic in [progress::TOPIC, "mm2-offset-syncs.a.internal", "a.t", "a.other"] {
        centre.create(topic, 1, &[]).await;
    }
    let faults = centre.broker().faults();
    for _ in 0..100 {
        faults.fail_next(ApiKey::CreateTopics, ResponseError::TopicAuthorizationFailed).unwrap();
    }
    let collector = Collector::start(&folder, &centre.bootstrap, "").await;
    let mut agent = TestAgent::connect(&folder, "a", collector.address).await;
    agent.open_fresh(0, "t").await;
    agent.open_fresh(1, "other").await;
    agent.acked(0, 0).await;
    agent
        .frame(&frame(|frame| {
            frame.gap(Lane(0), next(0), next(7), GapReason::Retention);
            frame.data(Lane(0), records(7, 8));
            frame.data(Lane(1), records(0, 10));
        }))
        .await;
    let hold = agent.held().await;
    assert_eq!((hold.lane, hold.next, hold.reason), (Lane(0), next(0), HoldReason::TopicRefused));
    assert!(hold.detail.contains(GAPS_TOPIC), "{}", hold.detail);
    agent.acked(1, 10).await;
    assert!(faults.injected() >= 2, "at the start, and for the gap");
    assert!(!centre.topics().await.iter().any(|(topic, _)| topic == GAPS_TOPIC), "writing has not made it");
    faults.forgive();
    assert_eq!(agent.open(open_lane(2, "t", 0, 1)).await, ResumePoint::At(next(0)));
    agent.frame(&gap(2, 0, 7, GapReason::Retention)).await;
    agent.acked(2, 7).await;
    assert_eq!(events(&centre).await, [event("t", "retention", (0, 7), Some(7))]);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_gaps_is_cut_into_transactions() {
    let (_folder, centre, collector, mut agent) = bench("[transactions]\nmax_bytes = \"64KiB\"").await;
    agent.open_fresh(0, "t").await;
    let gaps = 200;
    agent
        .frame(&frame(|frame| {
            for at in 0..gaps {
                frame.gap(Lane(0), next(at), next(at + 1), GapReason::Retention);
            }
        }))
        .await;
    agent.acked(0, gaps).await;
    assert_eq!(events(&centre).await.len() as u64, gaps);
    let committed = collector.metric("spillway_transactions_total{outcome=\"committed\"}").await;
    assert!(committed >= 4.0, "{committed} transactions");
    collector.stop().await;
}

/// A log that was truncated may have grown to its old end again, so that the position is what it was before: it must not be taken for the
/// proof that a transaction with an unknown end was committed.
#[tokio::test(flavor = "multi_thread")]
async fn a_position_that_comes_back_to_where_it_was_proves_no_commit() {
    let (_folder, centre, collector, mut agent) = bench("").await;
    agent.open_fresh(0, "t").await;
    agent.frame(&data(0, 0, 10)).await;
    agent.acked(0, 10).await;
    let faults = centre.broker().faults();
    let mut expected: Vec<_> = (0..10).map(|n: u64| n.to_string()).collect();
    // To the gap and back in one frame, then forth and to the gap.
    for (turn, records_first) in [(1, false), (2, true)] {
        // The producer takes this for its end, and does not know what became of the transaction; it was not committed.
        faults.fail_next(ApiKey::EndTxn, ResponseError::InvalidTxnState).unwrap();
        let (from, to) = if records_first { (10, 13) } else { (7, 10) };
        agent
            .frame(&frame(|frame| {
                if records_first {
                    frame.data(Lane(0), records(from, to));
                }
                frame.gap(
                    Lane(0),
                    next(if records_first { to } else { 10 }),
                    next(if records_first { 10 } else { from }),
                    GapReason::Truncated,
                );
                if !records_first {
                    frame.data(Lane(0), records(from, to));
                }
            }))
            .await;
        expected.extend((from..to).map(|n| n.to_string()));
        eventually("the fault happens", async || (faults.injected() == turn).then_some(())).await;
        // Acknowledged are positions on the way as well; the records say when all is done.
        eventually("all records are there", async || (centre.values("a.t").await == expected).then_some(())).await;
        assert_eq!(events(&centre).await.len() as u64, turn);
    }
    assert!(collector.metric("spillway_transactions_total{outcome=\"uncertain\"}").await >= 2.0);
    collector.stop().await;
}
