//! A trickle's frames leave with history, where the collector knows it, and without where it asks.

use std::time::Duration;

use spillway_proto::message;

use crate::centre::{Centre, State};
use crate::site::Site;

/// A few events at a time: each batch is a frame.
async fn trickle(centre: &Centre, site: &mut Site, batches: usize) {
    for _ in 0..batches {
        let records = centre.state().records();
        site.produce_events("jobs", 4);
        centre.wait("a few events", |state| state.records() == records + 4).await;
        // QUIC's acknowledgement may come after that of the centre.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn begin(version: u8) -> (Centre, Site) {
    let centre = Centre::start().await;
    centre.speak(version);
    let mut site = Site::start(&centre).await;
    site.create("jobs", 1).await;
    (centre, site)
}

fn assert_exact(state: &State, site: &Site) {
    assert!(state.failures.is_empty() && state.gaps.is_empty(), "{:?} {:?}", state.failures, state.gaps);
    assert!(state.values("jobs", 0) == site.values("jobs", 0), "other records than were produced");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_frames_have_history_and_begin_anew_with_each_session() {
    let (centre, mut site) = begin(message::HISTORY_SINCE).await;
    let agent = site.agent("");
    trickle(&centre, &mut site, 20).await;
    let first = centre.state().with_history;
    assert!(first > 10, "{first} of 20 frames");
    let sessions = centre.state().sessions;
    centre.cut();
    centre.wait("another session", |state| state.sessions > sessions).await;
    trickle(&centre, &mut site, 20).await;
    agent.stop().await.unwrap();
    let state = centre.state();
    assert!(state.with_history > first + 10, "{} of 20 frames in the second session", state.with_history - first);
    assert_exact(&state, &site);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_that_is_asked_for_comes_without_history_in_the_same_session() {
    let (centre, mut site) = begin(message::HISTORY_SINCE).await;
    let agent = site.agent("");
    trickle(&centre, &mut site, 10).await;
    let (before, sessions) = (centre.state().with_history, centre.state().sessions);
    centre.lose_history(3);
    trickle(&centre, &mut site, 10).await;
    agent.stop().await.unwrap();
    let state = centre.state();
    assert_eq!((state.asked_again, state.sessions), (3, sessions));
    assert!(state.with_history > before + 3, "history goes on");
    assert_exact(&state, &site);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_asks_for_what_never_left_gets_a_new_session() {
    let (centre, mut site) = begin(message::HISTORY_SINCE).await;
    let agent = site.agent("");
    trickle(&centre, &mut site, 5).await;
    let sessions = centre.state().sessions;
    let mut bytes = Vec::new();
    message::CollectorMessage::FrameAgain(spillway_proto::FrameSeq(99)).encode(&mut bytes);
    centre.say(&bytes, 1);
    centre.wait("another session", |state| state.sessions > sessions).await;
    trickle(&centre, &mut site, 5).await;
    agent.stop().await.unwrap();
    assert_exact(&centre.state(), &site);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_collector_gets_none() {
    let (centre, mut site) = begin(message::HISTORY_SINCE - 1).await;
    let agent = site.agent("");
    trickle(&centre, &mut site, 10).await;
    agent.stop().await.unwrap();
    let state = centre.state();
    assert_eq!(state.with_history, 0);
    assert_exact(&state, &site);
}
