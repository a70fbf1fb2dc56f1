//! Each way in which the collector refuses or ends a session has its own close code.

use std::time::Duration;

use spillway_proto::frame::GapReason;
use spillway_proto::message::{self, AgentMessage, Hello, ResumePoint};
use spillway_proto::{CloseCode, Lane, codec, limits};

use crate::support::agent::{close_code, data, frame, gap, hello, next, open_lane, records};
use crate::support::{Centre, Collector, Folder, TestAgent, get, log, noise};

async fn bench(more: &str) -> (Folder, Centre, Collector) {
    log();
    let (folder, centre) = (Folder::new(), Centre::embedded().await);
    let collector = Collector::start(&folder, &centre.bootstrap, more).await;
    (folder, centre, collector)
}

async fn refused(folder: &Folder, site: &str, collector: &Collector) -> Option<CloseCode> {
    TestAgent::try_connect(folder, site, collector.address, hello()).await.err()
}

#[tokio::test(flavor = "multi_thread")]
async fn sites_come_in_by_their_files() {
    let folder = Folder::new();
    let sites = folder.path("sites.d");
    std::fs::create_dir(&sites).unwrap();
    std::fs::write(sites.join("on.toml"), "").unwrap();
    std::fs::write(sites.join("off.toml"), "enabled = false\n").unwrap();
    std::fs::write(sites.join("broken.toml"), "enabledd = true\n").unwrap();
    let centre = Centre::embedded().await;
    let collector = Collector::start(&folder, &centre.bootstrap, &format!("[sites]\ndir = \"{}\"", sites.display())).await;
    assert_eq!(refused(&folder, "on", &collector).await, None);
    assert_eq!(refused(&folder, "off", &collector).await, Some(CloseCode::SiteDisabled));
    assert_eq!(refused(&folder, "broken", &collector).await, Some(CloseCode::SiteFileInvalid));
    assert_eq!(refused(&folder, "nobody", &collector).await, Some(CloseCode::SiteUnknown));
    // A change needs no restart.
    std::fs::write(sites.join("default.toml"), "").unwrap();
    assert_eq!(refused(&folder, "nobody", &collector).await, None);
    assert_eq!(collector.metric("spillway_sessions_refused_total{reason=\"site_unknown\"}").await, 1.0);
    for name in ["mm2-offset-syncs", "spillway-progress", "spillway-gaps", "a.b", "ü"] {
        folder.issue_unchecked(name);
        let (_client, connection) = TestAgent::dial_files(&folder, name, collector.address).await;
        let code = close_code(&connection.unwrap().closed().await);
        assert_eq!(code, CloseCode::SiteNameInvalid, "{name}");
    }
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_session_of_a_site_wins() {
    let (folder, centre, collector) = bench("").await;
    let mut old = TestAgent::connect(&folder, "a", collector.address).await;
    old.open_fresh(0, "t").await;
    old.frame(&data(0, 0, 5)).await;
    let mut new = TestAgent::connect(&folder, "a", collector.address).await;
    assert_eq!(old.closed().await, CloseCode::Superseded);
    let resume = new.open(open_lane(0, "t", 0, 1)).await;
    let from = match resume {
        ResumePoint::Fresh => {
            new.frame(&frame(|frame| frame.start(Lane(0), next(0)))).await;
            0
        }
        ResumePoint::At(at) => at.value(),
        ResumePoint::Recreated { .. } => panic!("{resume:?}"),
    };
    new.frame(&data(0, from, 10)).await;
    new.acked(0, 10).await;
    assert_eq!(centre.values("a.t").await, (0..10).map(|n| n.to_string()).collect::<Vec<_>>());
    assert_eq!(collector.status().await["sites"].as_array().unwrap().len(), 1);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_connections_are_refused() {
    let (folder, _centre, collector) = bench("").await;
    drop(collector);
    let centre = Centre::embedded().await;
    let path = folder.config(&centre.bootstrap, "");
    let text = std::fs::read_to_string(&path).unwrap().replace("[listen]\n", "[listen]\nmax_connections = 2\n");
    std::fs::write(&path, text).unwrap();
    let collector = Collector::start_unready(&path).await;
    collector.ready().await;
    let _a = TestAgent::connect(&folder, "a", collector.address).await;
    let _b = TestAgent::connect(&folder, "b", collector.address).await;
    let (_client, connection) = TestAgent::dial(&folder, "c", collector.address).await;
    assert!(connection.is_err(), "refused before TLS");
    assert_eq!(collector.metric("spillway_sessions_refused_total{reason=\"too_many_connections\"}").await, 1.0);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_without_overlap_are_refused() {
    let (folder, _centre, collector) = bench("").await;
    let newer = Hello { min_version: message::VERSION + 1, max_version: 99, ..hello() };
    assert_eq!(TestAgent::try_connect(&folder, "a", collector.address, newer).await.err(), Some(CloseCode::VersionUnsupported));
    let wider = Hello { min_version: 1, max_version: 99, ..hello() };
    assert_eq!(TestAgent::try_connect(&folder, "a", collector.address, wider).await.unwrap().welcome.version, message::VERSION);
    assert_eq!(TestAgent::try_connect(&folder, "a", collector.address, hello()).await.unwrap().welcome.version, 1);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_instead_of_a_hello_times_out() {
    let (folder, _centre, collector) = bench("").await;
    let (_client, connection) = TestAgent::dial(&folder, "a", collector.address).await;
    let connection = connection.unwrap();
    let (mut send, _recv) = connection.open_bi().await.unwrap();
    send.write_all(&[0, 0]).await.unwrap();
    assert_eq!(close_code(&connection.closed().await), CloseCode::HandshakeTimeout);
    collector.stop().await;
}

/// What a test says on the control stream.
async fn ends_with(folder: &Folder, collector: &Collector, bytes: &[u8]) -> CloseCode {
    let mut agent = TestAgent::connect(folder, "a", collector.address).await;
    agent.send.write_all(bytes).await.unwrap();
    agent.closed().await
}

#[tokio::test(flavor = "multi_thread")]
async fn control_messages_that_are_none_end_the_session() {
    let (folder, _centre, collector) = bench("").await;
    assert_eq!(ends_with(&folder, &collector, &[0xff; 8]).await, CloseCode::LimitExceeded, "a length beyond the limit");
    assert_eq!(ends_with(&folder, &collector, &[0, 0, 0, 0]).await, CloseCode::LimitExceeded, "a length of nothing");
    assert_eq!(ends_with(&folder, &collector, &[0, 0, 0, 1, 0x3f]).await, CloseCode::ProtocolViolation, "an unknown type");
    assert_eq!(ends_with(&folder, &collector, &[0, 0, 0, 3, 2, 1, 9]).await, CloseCode::ProtocolViolation, "a truncated body");
    let mut twice = Vec::new();
    AgentMessage::Hello(hello()).encode(&mut twice);
    assert_eq!(ends_with(&folder, &collector, &twice).await, CloseCode::ProtocolViolation, "a second hello");
    let mut reused = Vec::new();
    AgentMessage::Open(open_lane(1, "t", 0, 1)).encode(&mut reused);
    AgentMessage::Open(open_lane(1, "u", 0, 1)).encode(&mut reused);
    assert_eq!(ends_with(&folder, &collector, &reused).await, CloseCode::ProtocolViolation, "a lane announced twice");
    // What a later version may say is skipped.
    let mut agent = TestAgent::connect(&folder, "a", collector.address).await;
    agent.send.write_all(&[0, 0, 0, 4, 0x7f, 1, 2, 3]).await.unwrap();
    agent.open_fresh(0, "t").await;
    agent.acked(0, 0).await;
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_are_none_end_the_session() {
    let (folder, centre, collector) = bench("[session]\nmax_frame_bytes = \"1MiB\"\nmax_inflight_bytes = \"1MiB\"").await;
    let good = data(0, 0, 3).bytes.to_vec();
    let prefixed = |kind: u64, frame: &[u8]| {
        let mut bytes = Vec::new();
        codec::put_varint(&mut bytes, kind);
        codec::put_varint(&mut bytes, 1);
        bytes.extend_from_slice(frame);
        bytes
    };
    let mut flipped = good.clone();
    flipped[10] ^= 1;
    // The header is good, the records in the body are not.
    let lying = frame(|frame| frame.data(Lane(0), records(0, 3))).bytes.to_vec();
    let lying = with_record_count(&lying, 2);
    let cases: Vec<(&str, Vec<u8>, CloseCode)> = vec![
        ("nothing", vec![], CloseCode::FrameInvalid),
        ("noise", prefixed(0, &noise(300)), CloseCode::FrameInvalid),
        ("a flipped bit", prefixed(0, &flipped), CloseCode::FrameInvalid),
        ("a truncated frame", prefixed(0, &good[..good.len() - 1]), CloseCode::FrameInvalid),
        ("a wrong record count", prefixed(0, &lying), CloseCode::FrameInvalid),
        ("an unknown stream", prefixed(7, &good), CloseCode::ProtocolViolation),
        ("too large on the wire", prefixed(0, &noise(2 << 20)), CloseCode::LimitExceeded),
        ("too large when opened", prefixed(0, &bomb()), CloseCode::LimitExceeded),
        ("a hole", prefixed(0, &data(0, 5, 6).bytes), CloseCode::OffsetHole),
        ("a gap that goes back", prefixed(0, &gap(0, 9, 3, GapReason::Retention).bytes), CloseCode::ProtocolViolation),
    ];
    for (what, bytes, code) in cases {
        let mut agent = TestAgent::connect(&folder, "a", collector.address).await;
        agent.open_fresh(0, &format!("t{}", rand::random::<u32>())).await;
        agent.stream(&bytes).await;
        assert_eq!(agent.closed().await, code, "{what}");
    }
    for (topic, _) in centre.topics().await.iter().filter(|(topic, _)| topic.starts_with("a.t")) {
        assert!(centre.read(topic, 0).await.is_empty(), "{topic}: nothing of it was written");
    }
    let mut agent = TestAgent::connect(&folder, "a", collector.address).await;
    agent.open_fresh(0, "u").await;
    agent.say(AgentMessage::Open(open_lane(1, "u", 1, 2))).await;
    agent.frame(&data(1, 0, 1)).await;
    let code = agent.closed().await;
    assert_eq!(code, CloseCode::ProtocolViolation, "a section before its lane's resume");
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_the_agreed_bytes_in_flight_end_the_session() {
    let (folder, _centre, collector) = bench("[session]\nmax_frame_bytes = \"1MiB\"\nmax_inflight_bytes = \"1MiB\"").await;
    let mut agent = TestAgent::connect(&folder, "a", collector.address).await;
    agent.open_fresh(0, "t").await;
    agent.acked(0, 0).await;
    // Frame 1 never comes, so all of these must be kept.
    for (offset, seq) in (1..7).zip(2..) {
        let frame = frame(|frame| {
            let mut writer = spillway_proto::record::RecordWriter::new(next(offset));
            assert!(crate::support::agent::push(&mut writer, offset, None, Some(&noise(500_000))));
            frame.data(Lane(0), writer);
        });
        agent.frame_as(seq, &frame).await;
    }
    assert_eq!(agent.closed().await, CloseCode::LimitExceeded);
    let held = async || collector.metric("spillway_held_frame_bytes").await;
    crate::support::eventually("the bytes are given back", async || (held().await == 0.0).then_some(())).await;
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_central_kafka_the_collector_waits_and_says_so() {
    log();
    let folder = Folder::new();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let bootstrap = format!("127.0.0.1:{port}");
    let collector = Collector::start_unready(&folder.config(&bootstrap, "")).await;
    assert_eq!(refused(&folder, "a", &collector).await, Some(CloseCode::CentreUnavailable));
    assert!(get(collector.admin, "/readyz").await.starts_with("HTTP/1.1 503"));
    assert!(get(collector.admin, "/healthz").await.starts_with("HTTP/1.1 200"), "a restart would not help");
    let options = spillway_broker::BrokerOptions { port, ..Default::default() };
    let _broker = spillway_broker::Broker::start(options).await.unwrap();
    collector.ready().await;
    assert_eq!(refused(&folder, "a", &collector).await, None);
    tokio::time::timeout(Duration::from_secs(20), collector.stop()).await.unwrap();
}

/// A small frame that says it becomes large.
fn bomb() -> Vec<u8> {
    frame(|frame| {
        let mut writer = records(0, 0);
        assert!(crate::support::agent::push(&mut writer, 0, None, Some(&vec![0; 4 << 20])));
        frame.data(Lane(0), writer);
    })
    .bytes
    .to_vec()
}

/// The same frame with another record count in its only section, and a checksum to match.
fn with_record_count(frame: &[u8], count: u8) -> Vec<u8> {
    // format, codec, section count, lane, kind, first, span, records
    let mut frame = frame[..frame.len() - 4].to_vec();
    frame[7] = count;
    let crc = crc32c::crc32c(&frame);
    frame.extend_from_slice(&crc.to_le_bytes());
    assert!(frame.len() < limits::MAX_FRAME_RAW_BYTES);
    frame
}
