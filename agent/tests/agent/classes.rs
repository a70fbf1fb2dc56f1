//! Classes of topics: alarms pass bulk wherever it waits.

use std::time::Duration;

use super::centre::{Centre, State};
use super::site::Site;

const RULES: &str = "[[topics.rule]]\nmatch = 'alarms'\nclass = 0\n[[topics.rule]]\nmatch = 'bulk'\nclass = 3\n[[topics.rule]]\nmatch = 'logs'\nclass = 3\nweight = 2\n";

const OTHER_RULES: &str = "[[topics.rule]]\nmatch = 'alarms'\nclass = 3\n[[topics.rule]]\nmatch = 'logs'\nclass = 0\n";

fn assert_whole(site: &Site, state: &State, topics: &[&str]) {
    assert!(state.failures.is_empty() && state.gaps.is_empty(), "{:?} {:?}", state.failures, state.gaps);
    for topic in topics {
        assert_eq!(state.values(topic, 0), site.values(topic, 0), "{topic}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alarms_are_read_and_sent_while_bulk_waits_for_memory() {
    let centre = Centre::start().await;
    let mut site = Site::start(&centre).await;
    for topic in ["alarms", "bulk", "logs"] {
        site.create(topic, 1).await;
    }
    centre.withhold_acks(true);
    let agent = site.agent(&format!("memory_max = '32MiB'\nspill.max_bytes = 'off'\n{RULES}"));
    site.produce("bulk", 1500, 16_000);
    centre.wait("some of it", |state| state.records() > 100).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let read = centre.state().next("bulk", 0).unwrap();
    assert!(read < 1450, "the memory does not hold: {read} records were read");
    for count in 1..=5 {
        site.produce("alarms", 10, 100);
        centre.wait("alarms", |state| state.next("alarms", 0) == Some(10 * count)).await;
    }
    site.produce("logs", 20, 1_000);
    centre.wait("another flow", |state| state.next("logs", 0) == Some(20)).await;
    assert!(centre.state().next("bulk", 0).unwrap() < 1450, "bulk does not wait");
    // What was fetched and thrown away is read again, from where the open frame ends.
    for round in 0..4 {
        centre.withhold_acks(round % 2 == 1);
        centre.cut();
        site.produce("bulk", 200, 16_000);
        site.produce("alarms", 10, 100);
        tokio::time::sleep(Duration::from_millis(700)).await;
    }
    centre.withhold_acks(false);
    centre.cut();
    centre.wait("all of it", |state| state.next("bulk", 0) == Some(2300) && state.next("alarms", 0) == Some(90)).await;
    agent.stop().await.unwrap();
    assert_whole(&site, &centre.state(), &["alarms", "bulk", "logs"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alarms_are_drained_from_the_spill_before_bulk() {
    let centre = Centre::start().await;
    let mut site = Site::start(&centre).await;
    for topic in ["alarms", "bulk", "logs"] {
        site.create(topic, 1).await;
    }
    // Capped, so that bulk takes a dozen seconds.
    let agent = site.agent(&format!("spill.after = '100ms'\n{}", RULES.replace("'bulk'\n", "'bulk'\nrate_max = '2Mbit'\n")));
    site.produce("alarms", 1, 100);
    centre.wait("the first", |state| state.next("alarms", 0) == Some(1)).await;
    centre.away(true);
    site.produce("bulk", 400, 8_000);
    site.produce("logs", 10, 100);
    let durable = |site: &Site, topic: &str, count| site.committed(topic, 0) == Some(count);
    centre.wait("bulk in the spill", |_| durable(&site, "bulk", 400)).await;
    site.produce("alarms", 20, 100);
    centre.wait("alarms in the spill", |_| durable(&site, "alarms", 21)).await;
    centre.away(false);
    centre.wait("alarms", |state| state.next("alarms", 0) == Some(21)).await;
    let bulk = centre.state().next("bulk", 0).unwrap_or(0);
    assert!(bulk < 400, "bulk was there first");
    centre.wait("all of it", |state| state.next("bulk", 0) == Some(400) && state.next("logs", 0) == Some(10)).await;
    agent.stop().await.unwrap();
    assert_whole(&site, &centre.state(), &["alarms", "bulk", "logs"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_spilled_under_other_rules_arrives_in_order() {
    let centre = Centre::start().await;
    let mut site = Site::start(&centre).await;
    for topic in ["alarms", "bulk", "logs"] {
        site.create(topic, 1).await;
    }
    let short = "[shutdown]\ndeadline = '1s'\n[spill]\nafter = '100ms'\n";
    let first = site.agent(short);
    for topic in ["alarms", "bulk", "logs"] {
        site.produce(topic, 1, 100);
        centre.wait("the first", |state| state.next(topic, 0) == Some(1)).await;
    }
    centre.away(true);
    let mut count = 1;
    spill_more(&mut site, &centre, &mut count).await;
    first.stop().await.unwrap();
    for rules in [RULES, OTHER_RULES] {
        let agent = site.agent(&format!("{short}{rules}"));
        spill_more(&mut site, &centre, &mut count).await;
        agent.stop().await.unwrap();
    }
    centre.away(false);
    let agent = site.agent(&format!("{short}{RULES}"));
    site.produce("alarms", 5, 100);
    centre
        .wait("all of it", |state| {
            ["bulk", "logs"].iter().all(|topic| state.next(topic, 0) == Some(count)) && state.next("alarms", 0) == Some(count + 5)
        })
        .await;
    agent.stop().await.unwrap();
    assert_whole(&site, &centre.state(), &["alarms", "bulk", "logs"]);
}

/// Thirty records more of each topic, durable in the spill.
async fn spill_more(site: &mut Site, centre: &Centre, count: &mut u64) {
    *count += 30;
    for topic in ["alarms", "bulk", "logs"] {
        site.produce(topic, 30, 500);
    }
    centre.wait("the spill", |_| ["alarms", "bulk", "logs"].iter().all(|topic| site.committed(topic, 0) == Some(*count))).await;
}
