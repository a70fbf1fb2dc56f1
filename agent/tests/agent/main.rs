//! The whole agent in this process, between an embedded broker and a collector that this test plays, over real QUIC on loopback.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod centre;
mod classes;
mod command_line;
mod history;
mod hostile;
mod plan;
mod site;
mod spill;

use std::time::Duration;

use centre::Centre;
use site::Site;
use spillway_agent::service::{Error, StartError};
use spillway_agent::{check, runner};
use spillway_proto::frame::GapReason;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_arrives_once_and_in_order_although_the_link_is_cut() {
    let centre = Centre::start().await;
    let mut site = Site::start(&centre).await;
    centre.cut_after_frames(7);
    site.create("alarms", 1).await;
    site.create("telemetry", 3).await;
    let agent = site.agent("");
    for round in 0..30 {
        site.produce("telemetry", 100, 200);
        site.produce("alarms", 10, 50);
        if round % 10 == 9 {
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }
    centre.wait("all records", |state| state.records() == 3300).await;
    // What the last session did not acknowledge is settled by the next one's positions.
    centre.cut_after_frames(usize::MAX);
    centre.cut();
    agent.stop().await.unwrap();
    let state = centre.state();
    assert!(state.failures.is_empty(), "{:?}", state.failures);
    assert!(state.sessions >= 3, "only {} sessions: the link was not cut", state.sessions);
    for (topic, partitions) in [("alarms", 1), ("telemetry", 3)] {
        for partition in 0..partitions {
            assert_eq!(state.values(topic, partition), site.values(topic, partition), "{topic}-{partition}");
            let committed = site.committed(topic, partition).unwrap_or(0);
            assert_eq!(committed, state.next(topic, partition).unwrap_or(0), "the local group of {topic}-{partition}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_tells_about_the_spill_and_leaves_it_alone() {
    let centre = Centre::start().await;
    let site = Site::start(&centre).await;
    let told = |more: &str, name: &str| {
        let text = site.check(more).unwrap();
        text.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned()
    };
    let dir = site.path("spill");
    assert_eq!(told("", "spill "), format!("{}, 1GiB at most, block when full", dir.display()));
    assert_eq!(told("[spill]\nmax_bytes = 'off'\n", "spill "), "off: nothing is written to disk");
    let rule = "[[topics.rule]]\nmatch = 'a'\non_gap = 'halt'\nwhen_full = 'drop_oldest'\nttl = '10m'\n";
    assert_eq!(told(rule, "  rule"), "a: not sent when older than 600s, halt with exit code 5, drop_oldest when the spill is full");

    let sealed = "[spill]\nkey_file = 'spill.key'\nwhen_full = 'drop_newest'\n";
    std::fs::write(site.path("spill.key"), [0xff; 32]).unwrap();
    assert_eq!(told(sealed, "spill "), format!("{}, 1GiB at most, encrypted, drop_newest when full", dir.display()));
    std::fs::write(site.path("spill.key"), [0xff; 31]).unwrap();
    assert!(matches!(site.check(sealed), Err(check::Error::Start(StartError::Spill(_)))));
    assert!(!dir.exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_tells_how_the_link_is_used() {
    let centre = Centre::start().await;
    let site = Site::start(&centre).await;
    let told = |more: &str| {
        let text = site.check(more).unwrap();
        let of = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
        ["state ", "profile ", "keep-alive ", "congestion ", "compression "].map(of)
    };
    let [state, profile, keep_alive, congestion, compression] = told("[link]\nkeep_alive = '5s'\nidle_timeout = '10s'\n");
    assert_eq!(state, site.path("state").display().to_string());
    assert_eq!([profile, keep_alive, congestion], ["normal", "every 5s, given up after 10s of silence", "spillway"]);
    assert!(compression.starts_with("level auto, "), "{compression}");

    let metered = "[link]\nkeep_alive = '5s'\nprofile = 'metered'\ncongestion = 'bbr'\ncompression_level = 3\n";
    let [_, profile, keep_alive, congestion, compression] = told(metered);
    let expected = "every 4m (configured: 5s), given up after 12m (configured: 1m) of silence";
    assert_eq!([profile.as_str(), &keep_alive, &congestion], ["metered", expected, "bbr"]);
    assert!(compression.starts_with("level 3, "), "{compression}");

    // Where it would be made is a file: true for root as well.
    std::fs::write(site.path("state"), "").unwrap();
    let [state, profile, ..] = told("[link]\nprofile = 'session'\nsession_interval = '90s'\n");
    assert!(state.contains("is no folder): a site file with a budget would be refused"), "{state}");
    assert_eq!(profile, "session: connects every 90s, or when 1MiB wait, or for class 0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_ends_in_transaction_markers_is_read_to_its_end() {
    let centre = Centre::start().await;
    let mut site = Site::start(&centre).await;
    site.create("orders", 1).await;
    let agent = site.agent("");
    site.transaction("orders", 5, true);
    site.transaction("orders", 4, false);
    // Five records and a marker, four aborted records and a marker.
    centre.wait("the position after the last marker", |state| state.next("orders", 0) == Some(11)).await;
    assert_eq!(centre.state().records(), 5);
    agent.stop().await.unwrap();
    assert_eq!(site.committed("orders", 0), Some(11), "kafka-consumer-groups would show a lag for ever");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_held_partition_stands_still_until_the_retry_and_the_others_go_on() {
    let centre = Centre::start().await;
    let mut site = Site::start(&centre).await;
    site.create("a", 1).await;
    site.create("b", 1).await;
    centre.refuse("a", 0, Some(3));
    let agent = site.agent("");
    site.produce("a", 10, 20);
    site.produce("b", 10, 20);
    centre.wait("the other partition", |state| state.next("b", 0) == Some(10)).await;
    centre.wait("the hold", |state| state.holds == 1).await;
    assert_eq!(centre.state().next("a", 0), Some(3));
    site.produce("a", 5, 20);
    centre.refuse("a", 0, None);
    centre.retry();
    centre.wait("the rest", |state| state.next("a", 0) == Some(15)).await;
    agent.stop().await.unwrap();
    assert_eq!(centre.state().values("a", 0), site.values("a", 0));
    assert!(centre.state().failures.is_empty(), "{:?}", centre.state().failures);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_does_not_fit_the_session_holds_its_partition_only() {
    let centre = Centre::start().await;
    let mut site = Site::start(&centre).await;
    site.create("a", 1).await;
    site.create("b", 1).await;
    centre.allow_raw_bytes(50_000);
    let agent = site.agent("");
    site.produce("a", 2, 20);
    site.produce("a", 1, 60_000);
    site.produce("a", 2, 20);
    site.produce("b", 10, 20);
    centre
        .wait("the other partition, and what comes before the large record", |state| {
            state.next("b", 0) == Some(10) && state.next("a", 0) == Some(2)
        })
        .await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(centre.state().next("a", 0), Some(2), "nothing after the large record");
    centre.allow_raw_bytes(100_000);
    centre.cut();
    centre.wait("the rest, in a session that allows more", |state| state.next("a", 0) == Some(5)).await;
    agent.stop().await.unwrap();
    assert_eq!(centre.state().values("a", 0), site.values("a", 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn vanished_offsets_are_a_gap_with_their_range() {
    let centre = Centre::start().await;
    let mut site = Site::start(&centre).await;
    site.create("a", 1).await;
    let agent = site.agent("");
    site.produce("a", 10, 20);
    centre.wait("the first records", |state| state.next("a", 0) == Some(10)).await;
    agent.stop().await.unwrap();
    site.produce("a", 10, 20);
    site.delete_records("a", 0, 15).await;

    let halted = site.agent("[[topics.rule]]\nmatch = 'a'\non_gap = 'halt'\n").ended().await.unwrap_err();
    let Error::Run(runner::Error::GapHalt { partition, first, next, .. }) = halted else { panic!("{halted}") };
    assert_eq!((partition.to_string().as_str(), first.value(), next.value()), ("a-0", 10, 15));
    assert_eq!(centre.state().next("a", 0), Some(10), "nothing of the gap was sent");

    let agent = site.agent("");
    centre.wait("what is left", |state| state.next("a", 0) == Some(20)).await;
    agent.stop().await.unwrap();
    let state = centre.state();
    assert_eq!(state.gaps, [("a".to_owned(), 0, 10, 15, GapReason::Retention)]);
    assert_eq!(state.values("a", 0).len(), 15);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offsets_that_vanish_while_reading_stands_still_are_a_gap_too() {
    let centre = Centre::start().await;
    let mut site = Site::start(&centre).await;
    site.create("a", 1).await;
    centre.withhold_acks(true);
    // Less than what is produced: reading stops at the budget, far before the end.
    let agent = site.agent("memory_max = '32MiB'\nspill.max_bytes = 'off'\n");
    site.produce("a", 1500, 16_000);
    centre.wait("some records", |state| state.records() > 100).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let read = centre.state().next("a", 0).unwrap();
    assert!(read < 1450, "the budget does not hold: {read} records were read");
    site.delete_records("a", 0, 1490).await;
    centre.withhold_acks(false);
    centre.cut();
    centre.wait("the last record", |state| state.next("a", 0) == Some(1500)).await;
    agent.stop().await.unwrap();
    let state = centre.state();
    assert!(state.failures.is_empty(), "{:?}", state.failures);
    let lost = state.gaps.iter().map(|(_, _, first, next, _)| next - first).sum::<u64>();
    assert_eq!(state.values("a", 0).len() as u64 + lost, 1500, "gaps {:?}", state.gaps);
    assert_eq!((state.gaps.len(), state.gaps[0].3), (1, 1490));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_topics_new_partitions_and_topics_made_anew_are_found() {
    let centre = Centre::start().await;
    let mut site = Site::start(&centre).await;
    let agent = site.agent("[kafka]\nstart = 'latest'\n");
    tokio::time::sleep(Duration::from_millis(500)).await;
    site.create("a", 1).await;
    site.produce("a", 10, 20);
    centre.wait("a topic that was born under our eyes, from its beginning", |state| state.next("a", 0) == Some(10)).await;
    site.grow("a", 2).await;
    site.produce_to("a", 1, 7, 20);
    centre.wait("a new partition", |state| state.next("a", 1) == Some(7)).await;
    site.delete("a").await;
    site.create("a", 1).await;
    site.produce("a", 3, 20);
    centre.wait("the topic made anew", |state| state.next("a", 0) == Some(3)).await;
    agent.stop().await.unwrap();
    let state = centre.state();
    assert_eq!(state.gaps, [("a".to_owned(), 0, 10, 0, GapReason::TopicRecreated)]);
    assert!(state.failures.is_empty(), "{:?}", state.failures);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_down_at_the_start_and_later_is_waited_for() {
    let centre = Centre::start().await;
    let mut site = Site::start(&centre).await;
    site.create("a", 1).await;
    site.produce("a", 5, 20);
    site.broker.stop().await;
    let agent = site.agent("");
    tokio::time::sleep(Duration::from_secs(1)).await;
    site.broker.resume().await.unwrap();
    centre.wait("the first records", |state| state.next("a", 0) == Some(5)).await;
    site.broker.stop().await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    site.broker.resume().await.unwrap();
    site.produce("a", 5, 20);
    centre.wait("the rest", |state| state.next("a", 0) == Some(10)).await;
    agent.stop().await.unwrap();
    assert_eq!(centre.state().values("a", 0), site.values("a", 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_without_acks_ends_at_its_deadline_and_says_what_is_left() {
    let centre = Centre::start().await;
    let mut site = Site::start(&centre).await;
    site.create("a", 1).await;
    centre.withhold_acks(true);
    let agent = site.agent("[shutdown]\ndeadline = '1s'\n");
    site.produce("a", 20, 20);
    centre.wait("the records", |state| state.records() == 20).await;
    let ended = agent.stop().await.unwrap();
    assert_eq!(ended.unacked_records, 20);
    assert_eq!(site.committed("a", 0), None, "not one was acknowledged");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_commit_does_not_wait_for_its_interval() {
    let centre = Centre::start().await;
    let mut site = Site::start(&centre).await;
    site.create("a", 1).await;
    site.commit_interval = "5m";
    let agent = site.agent("");
    site.produce("a", 20, 20);
    centre.wait("the commit", |_| site.committed("a", 0).is_some()).await;
    agent.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_waits_for_acks_asks_whether_somebody_is_there() {
    let centre = Centre::start().await;
    let mut site = Site::start(&centre).await;
    site.create("a", 1).await;
    let agent = site.agent("[shutdown]\ndeadline = '1s'\n");
    site.produce("a", 20, 20);
    // What is committed was acknowledged.
    centre.wait("the commit", |_| site.committed("a", 0) == Some(20)).await;
    let before = centre.state().flushes;
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(centre.state().flushes, before, "nothing is waited for: a quiet line stays quiet");
    centre.withhold_acks(true);
    site.produce("a", 20, 20);
    // QUIC has nothing to repeat: all of it has arrived.
    centre.wait("questions", |state| state.flushes >= before + 2).await;
    agent.stop().await.unwrap();
}
