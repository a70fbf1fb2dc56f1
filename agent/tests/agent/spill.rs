//! Outages that last: what the site's Kafka forgets meanwhile comes out of the spill.

use std::time::Duration;

use spillway_agent_core::line::KeptLine;
use spillway_agent_core::transit::LineRate;
use spillway_proto::compress::Codec;
use spillway_proto::frame::GapReason;

use crate::centre::Centre;
use crate::site::Site;

/// A spill that begins soon.
const SOON: &str = "[spill]\nafter = '200ms'\n";

async fn begin(topics: &[(&str, i32)]) -> (Centre, Site) {
    let centre = Centre::start().await;
    let mut site = Site::start(&centre).await;
    for (topic, partitions) in topics {
        site.create(topic, *partitions).await;
    }
    (centre, site)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_source_forgets_in_an_outage_comes_out_of_the_spill_also_after_a_restart() {
    let (centre, mut site) = begin(&[("telemetry", 3), ("alarms", 1)]).await;
    let agent = site.agent(SOON);
    site.produce("telemetry", 300, 200);
    centre.wait("the records before the outage", |state| state.records() == 300).await;
    assert!(site.spilled_bytes() < 1 << 20, "while the link keeps up nothing is written");

    centre.away(true);
    site.produce("telemetry", 3000, 200);
    site.produce("alarms", 20, 50);
    site.wait_committed("what came in the outage is durable, and so committed").await;
    assert!(centre.state().records() == 300 && site.spilled_bytes() > 0);
    site.forget_committed().await;
    agent.stop().await.unwrap();

    // Another process, still without a line: it goes on where the spill ends.
    let agent = site.agent(SOON);
    site.produce("telemetry", 3000, 200);
    site.wait_committed("what came after the restart").await;
    site.forget_committed().await;
    assert!(centre.state().refusals > 0 && centre.state().records() == 300);

    centre.away(false);
    site.produce("telemetry", 300, 200);
    centre.wait("all records", |state| state.records() == 6620).await;
    site.wait_emptied("the disk is given back").await;
    let written = site.spilled_bytes();
    site.produce("telemetry", 300, 200);
    centre.wait("the last records", |state| state.records() == 6920).await;
    assert!(site.spilled_bytes() <= written, "they went straight to the line again");
    agent.stop().await.unwrap();

    let state = centre.state();
    assert!(state.failures.is_empty() && state.gaps.is_empty(), "{:?} {:?}", state.failures, state.gaps);
    for (topic, partitions) in [("telemetry", 3), ("alarms", 1)] {
        for partition in 0..partitions {
            assert!(state.values(topic, partition) == site.values(topic, partition), "{topic}-{partition} differs");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_starts_without_a_line_reads_on_all_the_same() {
    let (centre, mut site) = begin(&[("a", 1)]).await;
    let agent = site.agent(SOON);
    site.produce("a", 10, 50);
    centre.wait("the first records", |state| state.next("a", 0) == Some(10)).await;
    agent.stop().await.unwrap();

    centre.away(true);
    let agent = site.agent(SOON);
    site.produce("a", 100, 50);
    site.create("born", 1).await;
    site.produce("born", 7, 50);
    site.wait_spilled("born").await;
    site.wait_committed_of("a", "a partition that was mirrored before").await;
    // Of one that never was, nobody knows what the centre has: it is in the spill, and not committed.
    site.forget_committed().await;
    agent.stop().await.unwrap();
    assert_eq!(site.committed("born", 0), None);
    site.delete_records("born", 0, 7).await;

    centre.away(false);
    let agent = site.agent(SOON);
    centre.wait("all records", |state| state.records() == 117).await;
    agent.stop().await.unwrap();
    let state = centre.state();
    assert!(state.failures.is_empty() && state.gaps.is_empty(), "{:?} {:?}", state.failures, state.gaps);
    assert_eq!(state.values("a", 0), site.values("a", 0));
    assert_eq!(state.values("born", 0), site.values("born", 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retention_that_passed_a_stopped_agent_is_a_gap_also_when_the_line_is_down_at_its_start() {
    let (centre, mut site) = begin(&[("a", 1)]).await;
    let agent = site.agent(SOON);
    site.produce("a", 10, 50);
    centre.wait("the first records", |state| state.next("a", 0) == Some(10)).await;
    agent.stop().await.unwrap();

    site.produce("a", 20, 50);
    site.delete_records("a", 0, 15).await;
    centre.away(true);
    let agent = site.agent(SOON);
    site.wait_spilled("a").await;
    site.delete_records("a", 0, 30).await;
    centre.away(false);
    centre.wait("what is left", |state| state.next("a", 0) == Some(30)).await;
    agent.stop().await.unwrap();
    let state = centre.state();
    assert_eq!(state.gaps, [("a".to_owned(), 0, 10, 15, GapReason::Retention)]);
    assert!(state.failures.is_empty(), "{:?}", state.failures);
    assert_eq!(state.values("a", 0).len(), 25);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trickle_shares_frames_while_the_line_is_away() {
    let (centre, mut site) = begin(&[("telemetry", 1), ("alarms", 1)]).await;
    let agent = site.agent("[[topics.rule]]\nmatch = 'alarms'\nclass = 0\n[spill]\nafter = '200ms'\n");
    site.produce("telemetry", 1, 20);
    site.produce("alarms", 1, 20);
    centre.wait("the records before the outage", |state| state.records() == 2).await;
    centre.away(true);
    centre.wait("the agent to know of it", |state| state.refusals > 0).await;
    let frames = |centre: &Centre| centre.state().codecs.values().map(Vec::len).sum::<usize>();
    let before = frames(&centre);
    for _ in 0..60 {
        site.produce("telemetry", 1, 20);
        site.produce("alarms", 1, 20);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    centre.away(false);
    centre.wait("all records", |state| state.records() == 122).await;
    let frames = frames(&centre) - before;
    assert!(frames <= 30, "{frames} frames of 120 records: each was on its way alone");
    agent.stop().await.unwrap();
    let state = centre.state();
    assert!(state.failures.is_empty() && state.gaps.is_empty(), "{:?} {:?}", state.failures, state.gaps);
    for topic in ["telemetry", "alarms"] {
        assert_eq!(state.values(topic, 0), site.values(topic, 0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_spill_drops_what_it_may_and_tells_the_centre() {
    let (centre, mut site) = begin(&[("bulk", 1), ("precious", 1)]).await;
    let rules = "[[topics.rule]]\nmatch = 'bulk'\nwhen_full = 'drop_oldest'\n[spill]\nafter = '200ms'\nmax_bytes = '8MiB'\n";
    let agent = site.agent(rules);
    site.produce("bulk", 10, 50);
    site.produce("precious", 10, 50);
    centre.wait("the first records", |state| state.records() == 20).await;
    centre.away(true);
    for _ in 0..6 {
        site.produce("bulk", 200, 16_000);
        site.produce("precious", 20, 16_000);
    }
    site.wait_committed("all is in the spill, or dropped").await;
    site.forget_committed().await;
    centre.away(false);
    centre.wait("the newest", |state| state.next("bulk", 0) == Some(1210) && state.next("precious", 0) == Some(130)).await;
    agent.stop().await.unwrap();
    let state = centre.state();
    assert!(state.failures.is_empty(), "{:?}", state.failures);
    assert_eq!(state.values("precious", 0), site.values("precious", 0));
    let lost = state.gaps.iter().map(|(.., first, next, _)| next - first).sum::<u64>();
    assert!(lost > 100, "only {lost} were dropped: it was not full");
    assert_eq!(state.values("bulk", 0).len() as u64 + lost, 1210, "{:?}", state.gaps);
    assert!(state.gaps.iter().all(|(topic, .., reason)| topic == "bulk" && *reason == GapReason::Dropped), "{:?}", state.gaps);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_spill_that_blocks_loses_nothing() {
    let (centre, mut site) = begin(&[("a", 2)]).await;
    let agent = site.agent("[spill]\nafter = '200ms'\nmax_bytes = '8MiB'\n");
    site.produce("a", 10, 50);
    centre.wait("the first records", |state| state.records() == 10).await;
    centre.away(true);
    site.produce("a", 3000, 16_000);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(site.committed("a", 0) < Some(1000), "the spill was not full: {:?}", site.committed("a", 0));
    site.forget_committed().await;
    centre.away(false);
    centre.wait("all records", |state| state.records() == 3010).await;
    agent.stop().await.unwrap();
    let state = centre.state();
    assert!(state.failures.is_empty() && state.gaps.is_empty(), "{:?} {:?}", state.failures, state.gaps);
    for partition in 0..2 {
        assert!(state.values("a", partition) == site.values("a", partition), "a-{partition} differs");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_made_anew_in_an_outage_follows_what_the_spill_has_of_the_old_one() {
    let (centre, mut site) = begin(&[("a", 1)]).await;
    let agent = site.agent(SOON);
    site.produce("a", 10, 50);
    centre.wait("the first records", |state| state.next("a", 0) == Some(10)).await;
    centre.away(true);
    site.produce("a", 20, 50);
    site.wait_committed("the old topic").await;
    agent.stop().await.unwrap();
    site.delete("a").await;
    site.create("a", 1).await;
    site.produce("a", 5, 50);
    let agent = site.agent(SOON);
    tokio::time::sleep(Duration::from_secs(1)).await;
    centre.away(false);
    centre.wait("the new topic", |state| state.next("a", 0) == Some(5)).await;
    agent.stop().await.unwrap();
    let state = centre.state();
    assert_eq!(state.gaps, [("a".to_owned(), 0, 30, 0, GapReason::TopicRecreated)]);
    assert!(state.failures.is_empty(), "{:?}", state.failures);
    assert_eq!(state.values("a", 0), site.values("a", 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spilled_frame_that_the_collector_does_not_take_stays_in_the_spill() {
    let (centre, mut site) = begin(&[("a", 1), ("b", 1)]).await;
    let agent = site.agent(SOON);
    site.produce("a", 10, 50);
    site.produce("b", 10, 50);
    centre.wait("the first records", |state| state.records() == 20).await;
    centre.away(true);
    site.produce("a", 1, 60_000);
    site.wait_committed("the large record is in the spill").await;
    site.produce("b", 10, 50);
    site.wait_committed("what comes after it").await;
    site.forget_committed().await;

    centre.allow_raw_bytes(50_000);
    centre.away(false);
    centre.wait("the other partition", |state| state.next("b", 0) == Some(20)).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(centre.state().next("a", 0), Some(10), "what does not fit was sent");
    agent.stop().await.unwrap();

    centre.allow_raw_bytes(100_000);
    let agent = site.agent(SOON);
    centre.wait("the large record, in a session that allows more", |state| state.next("a", 0) == Some(11)).await;
    agent.stop().await.unwrap();
    let state = centre.state();
    assert!(state.failures.is_empty() && state.gaps.is_empty(), "{:?} {:?}", state.failures, state.gaps);
    assert_eq!(state.values("a", 0), site.values("a", 0));
    assert_eq!(state.values("b", 0), site.values("b", 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_collector_gets_what_was_spilled_for_a_newer_one_as_it_knows_it() {
    let (centre, mut site) = begin(&[("telemetry", 3)]).await;
    let agent = site.agent(SOON);
    site.produce_json("telemetry", 3000);
    centre.wait("the records of the newer one", |state| state.records() == 3000).await;
    centre.away(true);
    site.produce_json("telemetry", 3000);
    site.wait_committed("what came in the outage is durable").await;
    agent.stop().await.unwrap();

    // What is in the spill was built by a process that knew of a collector of version 2; what follows is built before the first word of any.
    let agent = site.agent(SOON);
    site.produce_json("telemetry", 3000);
    site.wait_committed("what came after the restart").await;
    centre.speak(1);
    centre.away(false);
    centre.wait("all records", |state| state.records() == 9000).await;
    site.produce_json("telemetry", 3000);
    centre.wait("records built for the older one", |state| state.records() == 12_000).await;
    let (before, sessions) = (centre.state().codecs[&2].len(), centre.state().sessions);
    centre.speak(2);
    centre.cut();
    centre.wait("the newer one's session", |state| state.sessions > sessions).await;
    site.produce_json("telemetry", 10);
    centre.wait("its welcome", |state| state.records() == 12_010).await;
    site.produce_json("telemetry", 3000);
    centre.wait("records for the newer one", |state| state.records() == 15_010).await;
    agent.stop().await.unwrap();

    let state = centre.state();
    assert!(state.failures.is_empty() && state.gaps.is_empty(), "{:?} {:?}", state.failures, state.gaps);
    assert!(state.codecs[&1].contains(&Codec::Zstd) && state.codecs[&2].contains(&Codec::Columns));
    assert!(state.codecs[&2][before..].contains(&Codec::Columns), "it goes back to columns");
    for partition in 0..3 {
        assert!(state.values("telemetry", partition) == site.values("telemetry", partition), "telemetry-{partition} differs");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dictionaries_are_asked_for_and_nothing_in_the_spill_needs_one() {
    let (centre, mut site) = begin(&[("telemetry", 3)]).await;
    let agent = site.agent(SOON);
    let mut records = 0;
    let with = |centre: &Centre| {
        let codecs = &centre.state().codecs;
        codecs.get(&2).map_or(0, |codecs| codecs.iter().filter(|codec| **codec == Codec::ColumnsWithDictionary).count())
    };
    // Until one is trained: from small frames only, so a few at a time.
    while with(&centre) < 20 {
        assert!(records < 100_000, "no dictionary from {records} records");
        for _ in 0..20 {
            site.produce_json("telemetry", 30);
            records += 30;
        }
        centre.wait("the records so far", |state| state.records() == records).await;
    }
    let asked = centre.state().dictionaries_asked;
    assert!(asked > 0);
    // Another collector, or the same one after a restart, asks anew; frames under way wait for it.
    let sessions = centre.state().sessions;
    centre.forget_dictionaries();
    centre.cut();
    centre.wait("another session", |state| state.sessions > sessions).await;
    while centre.state().dictionaries_asked == asked {
        assert!(records < 200_000, "the dictionary was not asked for again");
        site.produce_json("telemetry", 30);
        records += 30;
        centre.wait("the records after the restart", |state| state.records() == records).await;
    }
    // What goes to the spill outlives the process, and so the dictionaries.
    let before = centre.state().dictionaries_asked;
    centre.away(true);
    for _ in 0..50 {
        site.produce_json("telemetry", 30);
        records += 30;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    site.wait_committed("what came in the outage is durable").await;
    agent.stop().await.unwrap();
    centre.forget_dictionaries();
    centre.away(false);
    let agent = site.agent(SOON);
    centre.wait("all records", |state| state.records() == records).await;
    agent.stop().await.unwrap();
    let state = centre.state();
    assert!(state.failures.is_empty() && state.gaps.is_empty(), "{:?} {:?}", state.failures, state.gaps);
    assert_eq!(state.dictionaries_asked, before, "nothing that was spilled named one");
    for partition in 0..3 {
        assert!(state.values("telemetry", partition) == site.values("telemetry", partition), "telemetry-{partition} differs");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_starts_without_a_line_makes_frames_for_the_line_that_it_had() {
    let config = "[link]\nredial_max = '1s'\n[spill]\nafter = '200ms'\n";
    let (centre, mut site) = begin(&[("a", 1)]).await;
    let frames = || centre.state().codecs.values().map(Vec::len).sum::<usize>();
    let agent = site.agent(config);
    site.produce("a", 100, 1000);
    centre.wait("the first records", |state| state.records() == 100).await;
    agent.stop().await.unwrap();
    let file = site.path("state").join("line");
    let kept = KeptLine::from_file(&std::fs::read_to_string(&file).unwrap()).unwrap();
    assert!(kept.frames.is_some_and(|rate| rate > 0), "{kept:?}");

    // 3,000 bytes a second; then a file that is cut, as nothing of ours cuts it; then none.
    let line = LineRate { bytes_per_second: Some(3000), round_trip: Duration::from_millis(300) };
    let thin = KeptLine { frames: Some(3000), line: Some(line), mtu: kept.mtu }.to_file();
    let cut = thin.chars().take(40).collect::<String>();
    for (place, (text, most_bytes)) in [(Some(&thin), 6000), (Some(&cut), 12_288), (None, 12_288)].into_iter().enumerate() {
        match text {
            Some(text) => std::fs::write(&file, text).unwrap(),
            None => std::fs::remove_file(&file).unwrap(),
        }
        centre.away(true);
        let before = frames();
        let agent = site.agent(config);
        site.produce("a", 400, 1000);
        site.wait_committed("what came without a line").await;
        centre.away(false);
        let all = 100 + 400 * (place + 1);
        centre.wait("all records", |state| state.records() == all).await;
        agent.stop().await.unwrap();
        let frames = frames() - before;
        // Frames of the default size are 256 KiB. Noise of letters and digits takes six bits of a byte's eight.
        let least = 400 * 1000 * 6 / 8 / most_bytes;
        assert!(frames >= least, "{frames} frames of 400 kB, at least {least} were to be: {text:?}");
    }
    let state = centre.state();
    assert!(state.failures.is_empty() && state.gaps.is_empty(), "{:?} {:?}", state.failures, state.gaps);
    assert_eq!(state.values("a", 0), site.values("a", 0));
}
