//! Sessions of sites against a central Kafka: what is written, what is acknowledged, who may write what.

use std::time::Duration;

use crate::support::agent::{TOPIC_ID, data, frame, gap, next, open_lane, push, records};
use crate::support::{Centre, Collector, Folder, TestAgent, eventually};
use spillway_proto::frame::GapReason;
use spillway_proto::message::{AgentMessage, HoldReason, ResumePoint};
use spillway_proto::mm2::OffsetSync;
use spillway_proto::record::RecordWriter;
use spillway_proto::{CloseCode, Lane, NextOffset, Offset, TopicId};

fn numbers(range: std::ops::Range<u64>) -> Vec<String> {
    range.map(|n| n.to_string()).collect()
}

/// Folder, centre, collector and a session of site `a`.
async fn session(more: &str) -> (Folder, Centre, Collector, TestAgent) {
    crate::support::log();
    let (folder, centre) = (Folder::new(), Centre::embedded().await);
    let collector = Collector::start(&folder, &centre.bootstrap, more).await;
    let agent = TestAgent::connect(&folder, "a", collector.address).await;
    (folder, centre, collector, agent)
}

#[tokio::test(flavor = "multi_thread")]
async fn records_arrive_once_and_in_order_over_resends_and_sessions() {
    let (folder, centre, collector, mut agent) = session("").await;
    agent.open_fresh(0, "t").await;
    agent.frame(&data(0, 0, 10)).await;
    agent.acked(0, 10).await;
    // Sent again in the same session, and once more with a tail that is new.
    agent.frame(&data(0, 0, 10)).await;
    agent.frame(&data(0, 5, 15)).await;
    agent.acked(0, 15).await;
    drop(agent);
    let mut agent = TestAgent::connect(&folder, "a", collector.address).await;
    assert_eq!(agent.open(open_lane(9, "t", 0, 1)).await, ResumePoint::At(next(15)));
    agent.frame(&data(9, 10, 20)).await;
    agent.acked(9, 20).await;
    assert_eq!(centre.values("a.t").await, numbers(0..20));
    assert_eq!(collector.metric("spillway_records_committed_total").await, 20.0);
    assert_eq!(collector.metric("spillway_records_duplicate_total").await, 10.0, "whole sections only");
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_overtake_each_other_are_put_in_order() {
    let (_folder, centre, collector, mut agent) = session("").await;
    assert_eq!(agent.open(open_lane(0, "t", 0, 2)).await, ResumePoint::Fresh);
    assert_eq!(agent.open(open_lane(1, "t", 1, 2)).await, ResumePoint::Fresh);
    agent.frame_as(2, &data(0, 10, 20)).await;
    agent
        .frame_as(
            3,
            &frame(|frame| {
                frame.start(Lane(1), next(5));
                frame.data(Lane(1), records(5, 6));
            }),
        )
        .await;
    agent.acked(1, 6).await;
    assert_eq!(agent.acked.get(&Lane(0)), None, "lane 0 waits, lane 1 does not");
    agent.frame_as(1, &data(0, 0, 10)).await;
    agent.frame_as(0, &frame(|frame| frame.start(Lane(0), NextOffset::ZERO))).await;
    agent.acked(0, 20).await;
    assert_eq!(centre.values("a.t").await, numbers(0..20));
    assert_eq!(centre.read("a.t", 1).await.len(), 1);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_arrives_byte_for_byte() {
    let (_folder, centre, collector, mut agent) = session("").await;
    agent.open_fresh(0, "t").await;
    let mut writer = RecordWriter::new(NextOffset::ZERO);
    let headers: Vec<(&str, Option<&[u8]>)> =
        vec![("b", Some(b"1")), ("a", None), ("b", Some(b"")), ("", Some(&[0xff, 0, 7])), ("ü", Some(b"x"))];
    let offset = |offset| Offset::new(offset).unwrap();
    assert!(writer.push(offset(0), 1_700_000_000_000, None, Some(b""), headers.iter().copied()));
    assert!(writer.push(offset(1), -1, Some(b""), None, std::iter::empty()));
    assert!(writer.push(offset(2), 0, Some(&[0, 0xff]), Some(&vec![0xab; 300_000]), std::iter::empty()));
    assert!(writer.push(offset(3), 1, Some(b"k"), Some(b"v"), std::iter::empty()));
    agent.frame(&frame(|frame| frame.data(Lane(0), writer))).await;
    agent.acked(0, 4).await;
    let records = centre.read("a.t", 0).await;
    assert_eq!((records[0].key.as_deref(), records[0].value.as_deref()), (None, Some(&b""[..])));
    let found: Vec<_> = records[0].headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
    assert_eq!(found, headers);
    assert_eq!((records[1].key.as_deref(), records[1].value.as_deref()), (Some(&b""[..]), None));
    assert_eq!(records[2].value.as_ref().unwrap().len(), 300_000);
    let timestamps: Vec<_> = records.iter().map(|record| record.timestamp).collect();
    assert_eq!(timestamps, [Some(1_700_000_000_000), None, Some(0), Some(1)], "the epoch is a time, not 'now'");
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_writes_under_its_own_prefix_whatever_it_says() {
    let (folder, centre, collector, mut agent) = session("").await;
    let mut other = TestAgent::connect(&folder, "B", collector.address).await;
    for (lane, topic) in ["B.x", "a.b.x", "...", "mm2-offset-syncs.B.internal", "spillway-progress.internal", "-"].iter().enumerate() {
        agent.open_fresh(lane as u32, topic).await;
        agent.frame(&data(lane as u32, 0, 1)).await;
        agent.acked(lane as u32, 1).await;
    }
    let topics: Vec<_> = centre.topics().await.into_iter().map(|(name, _)| name).collect();
    assert_eq!(
        topics,
        [
            "a.-",
            "a....",
            "a.B.x",
            "a.a.b.x",
            "a.mm2-offset-syncs.B.internal",
            "a.spillway-progress.internal",
            "mm2-offset-syncs.a.internal",
            "spillway-gaps.internal",
            "spillway-progress.internal"
        ]
    );
    assert_eq!(other.open(open_lane(0, "x", 0, 1)).await, ResumePoint::Fresh, "B's own progress is untouched");
    // A name that Kafka does not have cannot even be said.
    let mut open = Vec::new();
    AgentMessage::Open(open_lane(70, "xxxxx", 0, 1)).encode(&mut open);
    let place = open.windows(5).position(|bytes| bytes == b"xxxxx").unwrap();
    open[place..place + 5].copy_from_slice(b"../B.");
    agent.send.write_all(&open).await.unwrap();
    assert_eq!(agent.closed().await, CloseCode::ProtocolViolation);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_made_anew_begins_with_its_gap() {
    let (folder, centre, collector, mut agent) = session("").await;
    agent.open_fresh(0, "t").await;
    agent.frame(&data(0, 0, 10)).await;
    agent.acked(0, 10).await;
    let mut open = open_lane(1, "t", 0, 1);
    open.topic_id = TopicId([8; 16]);
    assert_eq!(agent.open(open.clone()).await, ResumePoint::Recreated { previous: TOPIC_ID, next: next(10) });
    agent
        .frame(&frame(|frame| {
            frame.gap(Lane(1), next(10), next(0), GapReason::TopicRecreated);
            frame.data(Lane(1), records(0, 3));
        }))
        .await;
    agent.acked(1, 3).await;
    assert_eq!(centre.values("a.t").await, [numbers(0..10), numbers(0..3)].concat());
    assert_eq!(collector.metric("spillway_gaps_total{reason=\"topic_recreated\"}").await, 1.0);
    // Without the gap the lane must not go on.
    let mut agent = TestAgent::connect(&folder, "a", collector.address).await;
    assert_eq!(agent.open(open_lane(2, "t", 0, 1)).await, ResumePoint::Recreated { previous: TopicId([8; 16]), next: next(3) });
    agent.frame(&data(2, 3, 4)).await;
    assert_eq!(agent.closed().await, CloseCode::ProtocolViolation);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gaps_move_the_position_and_are_counted() {
    let (folder, centre, collector, mut agent) = session("").await;
    agent.open_fresh(0, "t").await;
    agent.frame(&data(0, 0, 2)).await;
    agent.frame(&gap(0, 2, 100, GapReason::Retention)).await;
    agent.frame(&data(0, 100, 102)).await;
    agent.acked(0, 102).await;
    agent.frame(&gap(0, 102, 50, GapReason::Truncated)).await;
    agent.acked(0, 50).await;
    agent.frame(&data(0, 50, 51)).await;
    agent.acked(0, 51).await;
    assert_eq!(centre.values("a.t").await, ["0", "1", "100", "101", "50"]);
    assert_eq!(collector.metric("spillway_gaps_total{reason=\"retention\"}").await, 1.0);
    assert_eq!(collector.metric("spillway_gaps_total{reason=\"truncated\"}").await, 1.0);
    let mut agent = TestAgent::connect(&folder, "a", collector.address).await;
    assert_eq!(agent.open(open_lane(0, "t", 0, 1)).await, ResumePoint::At(next(51)));
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn offset_syncs_point_from_source_records_to_central_ones() {
    let (_folder, centre, collector, mut agent) = session("").await;
    agent.open_fresh(0, "t").await;
    for n in 0..5u64 {
        agent.frame(&data(0, n * 300, n * 300 + 300)).await;
        agent.acked(0, n * 300 + 300).await;
    }
    agent.frame(&gap(0, 1500, 2000, GapReason::Retention)).await;
    agent.frame(&data(0, 2000, 2001)).await;
    agent.acked(0, 2001).await;
    let central = centre.read("a.t", 0).await;
    let syncs = centre.read("mm2-offset-syncs.a.internal", 0).await;
    assert!(syncs.len() >= 6, "{} syncs", syncs.len());
    for sync in &syncs {
        let sync = OffsetSync::decode(sync.key.as_ref().unwrap(), sync.value.as_ref().unwrap()).unwrap();
        let record = central.iter().find(|record| record.offset == sync.downstream.to_kafka()).expect("the record at the synced offset");
        assert_eq!(record.value.as_deref(), Some(sync.upstream.to_string().as_bytes()));
    }
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_are_added_before_the_first_record_of_a_new_one() {
    let (_folder, centre, collector, mut agent) = session("").await;
    agent.open_fresh(0, "t").await;
    agent.frame(&data(0, 0, 1)).await;
    agent.acked(0, 1).await;
    assert_eq!(agent.open(open_lane(1, "t", 6, 7)).await, ResumePoint::Fresh);
    agent
        .frame(&frame(|frame| {
            frame.start(Lane(1), next(0));
            frame.data(Lane(1), records(0, 2));
        }))
        .await;
    agent.acked(1, 2).await;
    assert_eq!(centre.read("a.t", 6).await.len(), 2);
    assert!(centre.topics().await.contains(&("a.t".to_owned(), 7)));
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_record_holds_its_partition_only_and_is_tried_again() {
    let (_folder, centre, collector, mut agent) = session("").await;
    centre.create("a.t", 1, &[("max.message.bytes", "20000")]).await;
    agent.open_fresh(0, "t").await;
    agent.open_fresh(1, "other").await;
    let mut writer = records(0, 40);
    assert!(push(&mut writer, 40, None, Some(&crate::support::noise(100_000))));
    for offset in 41..50 {
        assert!(push(&mut writer, offset, None, Some(b"after")));
    }
    agent
        .frame(&frame(|frame| {
            frame.data(Lane(0), writer);
            frame.data(Lane(1), records(0, 10));
        }))
        .await;
    let hold = agent.held().await;
    assert_eq!((hold.lane, hold.next, hold.reason), (Lane(0), next(40), HoldReason::RecordTooLarge));
    assert!(hold.detail.contains("offset 40 of t-0") && hold.detail.contains("max.message.bytes is 20000"), "{}", hold.detail);
    agent.acked(1, 10).await;
    assert_eq!(centre.values("a.t").await, numbers(0..40));
    assert_eq!(centre.values("a.other").await, numbers(0..10));
    assert_eq!(collector.metric("spillway_partitions_held").await, 1.0);
    assert!(collector.status().await["sites"][0]["held"]["t-0"].as_str().unwrap().contains("record_too_large"));
    // What still comes on the lane is nobody's.
    agent.frame(&data(0, 50, 60)).await;
    agent.frame(&data(1, 10, 11)).await;
    agent.acked(1, 11).await;
    centre.alter("a.t", "max.message.bytes", "1000000").await;
    assert_eq!(agent.message().await, Ok(spillway_proto::message::CollectorMessage::Retry(Lane(0))));
    assert_eq!(agent.open(open_lane(2, "t", 0, 1)).await, ResumePoint::At(next(40)));
    agent.frame(&data(2, 40, 45)).await;
    agent.acked(2, 45).await;
    assert_eq!(collector.metric("spillway_partitions_held").await, 0.0);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_producer_is_closed_and_comes_back() {
    let (_folder, centre, collector, mut agent) = session("[transactions]\nidle_close = \"10s\"").await;
    agent.open_fresh(0, "t").await;
    agent.frame(&data(0, 0, 1)).await;
    agent.acked(0, 1).await;
    eventually("the producer is closed", async || (collector.metric("spillway_writers_open").await == 0.0).then_some(())).await;
    agent.frame(&data(0, 1, 2)).await;
    agent.acked(0, 2).await;
    assert_eq!(collector.metric("spillway_writers_open").await, 1.0);
    assert_eq!(centre.values("a.t").await, numbers(0..2));
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_session_whose_site_moved_on_ends_instead_of_taking_it_back() {
    let (folder, centre, collector, mut agent) = session("[transactions]\nidle_close = \"10s\"").await;
    agent.open_fresh(0, "t").await;
    agent.frame(&data(0, 0, 1)).await;
    agent.acked(0, 1).await;
    eventually("the producer is closed", async || (collector.metric("spillway_writers_open").await == 0.0).then_some(())).await;
    let second = Collector::start(&folder, &centre.bootstrap, "").await;
    let mut moved = TestAgent::connect(&folder, "a", second.address).await;
    assert_eq!(moved.open(open_lane(0, "t", 0, 1)).await, ResumePoint::At(next(1)));
    moved.frame(&data(0, 1, 2)).await;
    moved.acked(0, 2).await;
    agent.frame(&data(0, 1, 3)).await;
    assert_eq!(agent.closed().await, CloseCode::Superseded);
    moved.frame(&data(0, 2, 3)).await;
    moved.acked(0, 3).await;
    assert_eq!(centre.values("a.t").await, numbers(0..3));
    collector.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_commits_and_acknowledges_what_has_arrived() {
    let (_folder, centre, collector, mut agent) = session("[transactions]\ninterval = \"10s\"").await;
    agent.open_fresh(0, "t").await;
    agent.acked(0, 0).await;
    agent.frame(&data(0, 0, 500)).await;
    eventually("the frame is there", async || (collector.metric("spillway_frames_total").await >= 2.0).then_some(())).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(agent.acked.get(&Lane(0)), Some(&0), "the transaction is still open");
    let closed = tokio::spawn(async move { (agent.closed().await, agent.acked) });
    collector.stop().await;
    let (code, acked) = closed.await.unwrap();
    assert_eq!((code, acked.get(&Lane(0))), (CloseCode::ShuttingDown, Some(&500)));
    assert_eq!(centre.values("a.t").await, numbers(0..500));
}

/// What the lab does for `kill -9` within its process. Nothing of the session may be left, or it would go on writing.
#[test]
fn a_runtime_that_is_dropped_takes_the_writers_of_its_sessions_with_it() {
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (outside, inside) = (runtime(), runtime());
    let (folder, centre) = (Folder::new(), outside.block_on(Centre::embedded()));
    let collector = inside.block_on(Collector::start(&folder, &centre.bootstrap, ""));
    let _agent = outside.block_on(async {
        let mut agent = TestAgent::connect(&folder, "orphan", collector.address).await;
        agent.open_fresh(0, "t").await;
        agent
    });
    let writers = || {
        let names = std::fs::read_dir("/proc/self/task").unwrap().map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")));
        names.filter(|name| name.as_ref().is_ok_and(|name| name.trim() == "site-orphan")).count()
    };
    assert_eq!(writers(), 1);
    inside.shutdown_background();
    outside.block_on(eventually("the writer has ended", async || (writers() == 0).then_some(())));
}
