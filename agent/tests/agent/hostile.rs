//! A collector whose certificate is valid and whose behaviour is not. Whatever it says, the agent ends the session with a named code, dials again,
//! and neither loses a record nor commits what is not at the centre.

use spillway_proto::message::{CollectorMessage, ResumePoint};
use spillway_proto::{CloseCode, Lane, NextOffset, limits};

use crate::centre::Centre;
use crate::site::Site;

/// A message of no known type, which ends the session.
const UNKNOWN: [u8; 5] = [0, 0, 0, 1, 0xbf];

fn next(value: u64) -> NextOffset {
    NextOffset::new(value).unwrap()
}

fn message(message: &CollectorMessage) -> Vec<u8> {
    let mut bytes = Vec::new();
    message.encode(&mut bytes);
    bytes
}

/// The collector does `attack` in the middle of a session, twice, and is honest before and after.
async fn survives(what: &str, attack: impl Fn(&Centre)) {
    let centre = Centre::start().await;
    let mut site = Site::start(&centre).await;
    site.create("a", 2).await;
    let agent = site.agent("");
    for round in 1..=2 {
        site.produce("a", 100, 50);
        centre.wait("records before the attack", |state| state.records() == round * 200 - 100).await;
        centre.withhold_acks(true);
        site.produce("a", 100, 50);
        centre.wait("records that are not acknowledged", |state| state.records() == round * 200).await;
        attack(&centre);
        centre.wait("the end of the session", |state| state.closes.len() == round).await;
        centre.withhold_acks(false);
        centre.wait("the next session", |state| state.sessions > round).await;
        assert_eq!(centre.state().closes[round - 1], CloseCode::ProtocolViolation, "{what}");
    }
    site.produce("a", 100, 50);
    centre.wait("records after the attacks", |state| state.records() == 500).await;
    agent.stop().await.unwrap();
    let state = centre.state();
    assert!(state.failures.is_empty(), "{what}: {:?}", state.failures);
    for partition in 0..2 {
        assert_eq!(state.values("a", partition), site.values("a", partition), "{what}");
        assert_eq!(site.committed("a", partition), state.next("a", partition), "{what}: the local group");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_are_none_end_the_session() {
    survives("an oversized message", |centre| centre.say(&[0xff; 8], 1)).await;
    survives("an unknown message", |centre| centre.say(&UNKNOWN, 1)).await;
    survives("a truncated message", |centre| centre.say(&[0, 0, 0, 2, 0x82, 0], 1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acks_of_what_was_never_sent_end_the_session() {
    survives("an ack beyond the end", |centre| centre.say(&message(&CollectorMessage::Ack(vec![(Lane(0), next(1 << 40))])), 1)).await;
    survives("an ack of no lane", |centre| centre.say(&message(&CollectorMessage::Ack(vec![(Lane(7000), next(0))])), 1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_nobody_asked_for_end_the_session() {
    // Lanes are opened anew with each attack's session, but keep their numbers.
    let again = message(&CollectorMessage::Resume { lane: Lane(0), resume: ResumePoint::Fresh });
    survives("a second resume", |centre| centre.say(&again, 1)).await;
    let unknown = message(&CollectorMessage::Resume { lane: Lane(7000), resume: ResumePoint::Fresh });
    survives("a resume of no lane", |centre| centre.say(&unknown, 1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_control_stream_that_ends_ends_the_session() {
    survives("the end of the control stream", Centre::end_control).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_messages_does_not_keep_the_agent_from_its_end() {
    let empty = message(&CollectorMessage::Ack(Vec::new()));
    let skipped = [0, 0, 0, 1, 0xff];
    let flood = [empty.as_slice(), &skipped].concat().repeat(1000);
    survives("a flood", |centre| {
        centre.say(&flood, 200);
        centre.say(&UNKNOWN, 1);
    })
    .await;
}

/// What acks that nobody needs may cost the agent: the share of the link in its memory, and what the allocator keeps of it.
const FLOOD_MEMORY_MAX_BYTES: u64 = 8 * 1024 * 1024;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_large_acks_does_not_fill_the_agents_memory() {
    let centre = Centre::start().await;
    let mut site = Site::start(&centre).await;
    site.create("a", 1).await;
    let agent = site.process();
    site.produce("a", 100, 50);
    centre.wait("records", |state| state.records() == 100).await;
    let before = agent.reset_peak();
    // Each takes two bytes an entry on the wire and sixteen in memory.
    let acks = message(&CollectorMessage::Ack(vec![(Lane(0), next(0)); limits::MAX_ACKS]));
    centre.say(&acks, 5000);
    centre.say(&UNKNOWN, 1);
    centre.wait("the end of the session", |state| state.closes.len() == 1).await;
    assert_eq!(centre.state().closes, [CloseCode::ProtocolViolation]);
    let more = agent.peak() - before;
    site.produce("a", 100, 50);
    centre.wait("records after the flood", |state| state.records() == 200).await;
    println!("5,000 acks of 4,096 lanes: at most {:.1} MiB more", more as f64 / 1_048_576.0);
    assert!(more <= FLOOD_MEMORY_MAX_BYTES, "{more} bytes");
}
