//! Who gets in, and that each refusal is told apart on both sides.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use crate::common::{Authority, DAY, Made, NoCertificate};
use quinn::{ConnectionError, crypto::rustls::QuicClientConfig};
use rcgen::ExtendedKeyUsagePurpose as Purpose;
use spillway_link::{Explanation, Identity, LinkClient, LinkServer, LinkSettings, RateCap, Side, Way, explain, site_name};
use spillway_proto::{CloseCode, close::Disposition};
use tokio::{sync::mpsc, time::timeout};

const LOOPBACK: &str = "127.0.0.1:0";
const PATIENCE: Duration = Duration::from_secs(20);

/// How one attempt ended, as each side saw it.
struct Seen {
    agent: ConnectionError,
    collector: ConnectionError,
}

impl Seen {
    fn explained(&self) -> (Explanation, Explanation) {
        (explain(&self.agent, Side::Agent), explain(&self.collector, Side::Collector))
    }
}

/// Lets `site` dial `collector` as `name`; the collector closes what it accepts with [`CloseCode::Done`].
async fn attempt(site: &Identity, collector: &Identity, name: &str) -> Seen {
    let server = LinkServer::bind(LOOPBACK.parse().unwrap(), collector, &LinkSettings::collector()).unwrap();
    let address = server.local_addr().unwrap();
    let accepted = tokio::spawn(async move {
        let outcome = match server.accept().await.unwrap().await {
            Ok(connection) => {
                site_name(&connection).unwrap();
                connection.close(CloseCode::Done.code().into(), b"");
                ConnectionError::LocallyClosed
            }
            Err(error) => error,
        };
        server.shutdown(CloseCode::Done, PATIENCE).await;
        outcome
    });
    let client = LinkClient::new(site, &LinkSettings::agent(), RateCap::new(None)).unwrap();
    let agent = match client.dial_addresses(Way::Udp, vec![address], name).await {
        // The client's handshake ends before the server has looked at its certificate.
        Ok(connection) => timeout(PATIENCE, connection.closed()).await.unwrap(),
        Err(spillway_link::client::DialError::Handshake { source, .. }) => source,
        Err(error) => panic!("{error}"),
    };
    Seen { agent, collector: timeout(PATIENCE, accepted).await.unwrap().unwrap() }
}

#[tokio::test]
async fn a_site_with_a_certificate_of_the_ca_gets_in() {
    let ca = Authority::new("ca");
    let seen = attempt(&Made::site().identity(&ca, &[]), &Made::collector().identity(&ca, &[]), "localhost").await;
    assert!(matches!(seen.collector, ConnectionError::LocallyClosed), "{:?}", seen.collector);
    let (agent, _) = seen.explained();
    assert_eq!((agent.reason, agent.retry), ("done", Disposition::Redial));
}

/// Asserts that both sides name the same cause and that both texts blame `at_fault`'s certificate.
#[track_caller]
fn assert_refused(seen: &Seen, reason: &str, at_fault: &str) -> Explanation {
    let (agent, collector) = seen.explained();
    assert_eq!((agent.reason, collector.reason), (reason, reason), "{:?} / {:?}", seen.agent, seen.collector);
    assert_eq!(agent.retry, Disposition::NeedsOperator);
    let blames = format!("the {at_fault}'s certificate");
    assert!(agent.what.starts_with(&blames) && collector.what.starts_with(&blames), "{agent} / {collector}");
    agent
}

#[tokio::test]
async fn a_site_of_another_ca_is_told_so() {
    for other_name in ["other", "ca"] {
        let (ca, other) = (Authority::new("ca"), Authority::new(other_name));
        let seen = attempt(&Made::site().identity(&other, &[&ca]), &Made::collector().identity(&ca, &[]), "localhost").await;
        assert_refused(&seen, "unknown_ca", "agent");
    }
}

#[tokio::test]
async fn an_expired_site_is_told_so() {
    let ca = Authority::new("ca");
    let now = SystemTime::now();
    let site = Made { valid_from: now - 9 * DAY, valid_to: now - 2 * DAY, ..Made::site() }.identity(&ca, &[]);
    let seen = attempt(&site, &Made::collector().identity(&ca, &[]), "localhost").await;
    let agent = assert_refused(&seen, "certificate_expired", "agent");
    assert!(agent.fix.contains("pki issue"), "{agent}");
}

#[tokio::test]
async fn a_site_before_its_time_is_told_so() {
    let ca = Authority::new("ca");
    let site = Made { valid_from: SystemTime::now() + 2 * DAY, ..Made::site() }.identity(&ca, &[]);
    let seen = attempt(&site, &Made::collector().identity(&ca, &[]), "localhost").await;
    let agent = assert_refused(&seen, "certificate_not_yet_valid", "agent");
    assert!(agent.fix.contains("clock of the collector"), "{agent}");
}

#[tokio::test]
async fn a_server_certificate_is_no_site() {
    let ca = Authority::new("ca");
    let site = Made { name: "plant-7", ..Made::collector() }.identity(&ca, &[]);
    let seen = attempt(&site, &Made::collector().identity(&ca, &[]), "localhost").await;
    assert_refused(&seen, "certificate_purpose", "agent");
}

#[tokio::test]
async fn a_site_certificate_is_no_server() {
    let ca = Authority::new("ca");
    let collector = Made { purposes: vec![Purpose::ClientAuth], ..Made::collector() }.identity(&ca, &[]);
    let seen = attempt(&Made::site().identity(&ca, &[]), &collector, "localhost").await;
    assert_refused(&seen, "certificate_purpose", "collector");
}

#[tokio::test]
async fn a_collector_of_another_ca_expired_or_early_is_told_so() {
    let (ca, other) = (Authority::new("ca"), Authority::new("other"));
    let site = Made::site().identity(&ca, &[]);
    let now = SystemTime::now();
    let seen = attempt(&site, &Made::collector().identity(&other, &[&ca]), "localhost").await;
    assert_refused(&seen, "unknown_ca", "collector");
    let expired = Made { valid_from: now - 9 * DAY, valid_to: now - 2 * DAY, ..Made::collector() }.identity(&ca, &[]);
    assert_refused(&attempt(&site, &expired, "localhost").await, "certificate_expired", "collector");
    let early = Made { valid_from: now + 2 * DAY, ..Made::collector() }.identity(&ca, &[]);
    assert_refused(&attempt(&site, &early, "localhost").await, "certificate_not_yet_valid", "collector");
    let elsewhere = Made { hosts: vec!["central.example.com".to_owned()], ..Made::collector() }.identity(&ca, &[]);
    assert_refused(&attempt(&site, &elsewhere, "localhost").await, "certificate_name", "collector");
}

#[tokio::test]
async fn an_address_can_be_dialled_that_the_certificate_carries() {
    let ca = Authority::new("ca");
    let collector = Made { hosts: vec!["127.0.0.1".to_owned()], ..Made::collector() }.identity(&ca, &[]);
    let site = Made::site().identity(&ca, &[]);
    let seen = attempt(&site, &collector, "127.0.0.1").await;
    assert!(matches!(seen.collector, ConnectionError::LocallyClosed), "{:?}", seen.collector);
    assert_refused(&attempt(&site, &collector, "localhost").await, "certificate_name", "collector");
}

/// A peer that is not ours: dials with `config`; how both sides see it.
async fn stranger(config: rustls::ClientConfig, collector: &Identity) -> Seen {
    let server = LinkServer::bind(LOOPBACK.parse().unwrap(), collector, &LinkSettings::collector()).unwrap();
    let address = server.local_addr().unwrap();
    let accepted = tokio::spawn(async move {
        let error = server.accept().await.unwrap().await.err().unwrap();
        server.shutdown(CloseCode::Done, PATIENCE).await;
        error
    });
    let endpoint = quinn::Endpoint::client(LOOPBACK.parse().unwrap()).unwrap();
    let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(config).unwrap()));
    let agent = match endpoint.connect_with(config, address, "localhost").unwrap().await {
        Ok(connection) => timeout(PATIENCE, connection.closed()).await.unwrap(),
        Err(error) => error,
    };
    Seen { agent, collector: timeout(PATIENCE, accepted).await.unwrap().unwrap() }
}

#[tokio::test]
async fn who_speaks_something_else_or_has_no_certificate_stays_out() {
    let ca = Authority::new("ca");
    let collector = Made::collector().identity(&ca, &[]);
    let mut config = Made::site().identity(&ca, &[]).client_config().unwrap();
    config.alpn_protocols = vec![b"h3".to_vec()];
    let (agent, seen_by_collector) = stranger(config, &collector).await.explained();
    assert_eq!((agent.reason, seen_by_collector.reason), ("alpn", "alpn"));

    let mut config = Made::site().identity(&ca, &[]).client_config().unwrap();
    config.client_auth_cert_resolver = Arc::new(NoCertificate);
    let (agent, seen_by_collector) = stranger(config, &collector).await.explained();
    assert_eq!((agent.reason, seen_by_collector.reason), ("certificate_missing", "certificate_missing"));
}

#[tokio::test]
async fn a_full_collector_says_so() {
    let ca = Authority::new("ca");
    let settings = LinkSettings::collector();
    let server = LinkServer::bind(LOOPBACK.parse().unwrap(), &Made::collector().identity(&ca, &[]), &settings).unwrap();
    let address = server.local_addr().unwrap();
    tokio::spawn(async move {
        let incoming = server.accept().await.unwrap();
        assert!(!incoming.remote_address_validated());
        incoming.retry().unwrap();
        let incoming = server.accept().await.unwrap();
        assert!(incoming.remote_address_validated(), "a retry proves the address");
        incoming.refuse();
        std::future::pending::<()>().await;
    });
    let client = LinkClient::new(&Made::site().identity(&ca, &[]), &LinkSettings::agent(), RateCap::new(None)).unwrap();
    let explained = client.dial_addresses(Way::Udp, vec![address], "localhost").await.unwrap_err().explain();
    assert_eq!((explained.reason, explained.retry), ("too_many_connections", Disposition::Redial));
    assert!(explained.what.contains(&address.to_string()), "{explained}");
}

#[tokio::test]
async fn nobody_at_the_address_is_a_timeout_with_advice() {
    let ca = Authority::new("ca");
    let silent = std::net::UdpSocket::bind(LOOPBACK).unwrap();
    let settings = LinkSettings { handshake_timeout: Duration::from_millis(200), ..LinkSettings::agent() };
    let client = LinkClient::new(&Made::site().identity(&ca, &[]), &settings, RateCap::new(None)).unwrap();
    let explained = client.dial(Way::Udp, "127.0.0.1", silent.local_addr().unwrap().port()).await.unwrap_err().explain();
    assert_eq!(explained.reason, "timed_out");
    assert!(explained.fix.contains("UDP"), "{explained}");
    let explained = client.dial(Way::Udp, "no-such-host.invalid", 4433).await.unwrap_err().explain();
    assert_eq!(explained.reason, "resolve");
    assert!(explained.what.contains("no-such-host.invalid"), "{explained}");
}

#[tokio::test]
async fn a_silent_or_wrong_address_does_not_hide_a_good_one() {
    let ca = Authority::new("ca");
    let settings = LinkSettings::collector();
    let server = LinkServer::bind(LOOPBACK.parse().unwrap(), &Made::collector().identity(&ca, &[]), &settings).unwrap();
    let good = server.local_addr().unwrap();
    tokio::spawn(async move {
        let connection = server.accept().await.unwrap().await.unwrap();
        connection.closed().await;
    });
    let silent = std::net::UdpSocket::bind(LOOPBACK).unwrap();
    let client = LinkClient::new(&Made::site().identity(&ca, &[]), &LinkSettings::agent(), RateCap::new(None)).unwrap();
    // Port 0 cannot be dialled at all.
    let addresses = vec!["127.0.0.1:0".parse().unwrap(), silent.local_addr().unwrap(), good];
    let began = std::time::Instant::now();
    let connection = client.dial_addresses(Way::Udp, addresses, "localhost").await.unwrap();
    assert_eq!(connection.remote_address().port(), good.port());
    assert!(began.elapsed() < LinkSettings::agent().handshake_timeout, "did not wait for the silent one");
}

/// A collector in a runtime of its own, which can be killed without a farewell; sends the address it listens on.
fn collector_to_kill(identity: Identity, at: SocketAddr) -> (tokio::runtime::Runtime, mpsc::UnboundedReceiver<SocketAddr>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (said, heard) = mpsc::unbounded_channel();
    runtime.spawn(async move {
        let server = LinkServer::bind(at, &identity, &LinkSettings::collector()).unwrap();
        said.send(server.local_addr().unwrap()).unwrap();
        let mut kept = Vec::new();
        while let Some(incoming) = server.accept().await {
            kept.push(incoming.await);
        }
    });
    (runtime, heard)
}

#[tokio::test]
async fn an_agent_learns_at_once_that_the_collector_was_restarted() {
    let ca = Authority::new("ca");
    let files = Made::collector().files(&ca, &[&ca]);
    let load = || files.load(spillway_link::Role::Collector).unwrap();
    let (runtime, mut heard) = collector_to_kill(load(), LOOPBACK.parse().unwrap());
    let address = heard.recv().await.unwrap();
    let client = LinkClient::new(&Made::site().identity(&ca, &[]), &LinkSettings::agent(), RateCap::new(None)).unwrap();
    let connection = client.dial_addresses(Way::Udp, vec![address], "localhost").await.unwrap();
    // Past the handshake on both sides.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(connection.close_reason(), None);

    tokio::task::spawn_blocking(move || runtime.shutdown_timeout(PATIENCE)).await.unwrap();
    let (runtime, mut heard) = collector_to_kill(load(), address);
    assert_eq!(timeout(PATIENCE, heard.recv()).await.unwrap(), Some(address));
    let idle = LinkSettings::agent().idle_timeout;
    let began = std::time::Instant::now();
    // No stream may be opened by a peer that is gone, but a write shows up at the new process.
    let (mut send, _receive) = timeout(PATIENCE, connection.open_bi()).await.unwrap().unwrap();
    send.write_all(b"still there?").await.unwrap();
    let error = timeout(PATIENCE, connection.closed()).await.unwrap();
    assert!(matches!(error, ConnectionError::Reset), "{error:?}");
    assert!(began.elapsed() < idle / 2);
    runtime.shutdown_background();
}
