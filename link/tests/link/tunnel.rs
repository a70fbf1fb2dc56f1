//! QUIC in a TLS stream over TCP: both ends, and a relay between them that counts, cuts and freezes.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use quinn::Connection;
use rustls_pki_types::ServerName;
use spillway_link::{Identity, LinkClient, LinkServer, LinkSettings, RateCap, Side, Way, explain, site_name, tunnel::TUNNEL_ALPN};
use spillway_proto::CloseCode;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::JoinSet,
    time::{Instant, timeout},
};
use tokio_rustls::TlsConnector;

use crate::common::{Authority, Made, NoCertificate};

const PATIENCE: Duration = Duration::from_secs(60);

/// Bytes that passed each way, and how to end everything that is open, or to let it stand still.
#[derive(Default)]
struct Line {
    up: AtomicU64,
    down: AtomicU64,
    cut: Notify,
    /// Connections of an earlier one carry nothing any more, and stay.
    era: AtomicU64,
    /// Bytes that were not carried for that.
    held: AtomicU64,
    close: Notify,
    open: Notify,
}

impl Line {
    /// An outage: nobody listens, and what is open stands still for good.
    fn freeze(&self) {
        self.era.fetch_add(1, Relaxed);
        self.close.notify_one();
    }

    /// Its end, for those who come anew.
    fn thaw(&self) {
        self.open.notify_one();
    }
}

/// A relay before `to`; its address.
async fn relay(to: SocketAddr, line: Arc<Line>) -> SocketAddr {
    let mut front = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = front.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let client = tokio::select! {
                accepted = front.accept() => accepted.unwrap().0,
                () = line.close.notified() => {
                    drop(front);
                    line.open.notified().await;
                    front = TcpListener::bind(at).await.unwrap();
                    continue;
                }
            };
            let line = Arc::clone(&line);
            tokio::spawn(async move {
                let Ok(server) = TcpStream::connect(to).await else { return };
                let era = line.era.load(Relaxed);
                let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
                tokio::select! {
                    () = carry(from_client, to_server, &line, era, &line.up) => {}
                    () = carry(from_server, to_client, &line, era, &line.down) => {}
                    () = line.cut.notified() => {}
                }
            });
        }
    });
    at
}

async fn carry(mut from: impl AsyncReadExt + Unpin, mut to: impl AsyncWriteExt + Unpin, line: &Line, era: u64, count: &AtomicU64) {
    let mut piece = vec![0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut piece).await {
        if line.era.load(Relaxed) != era {
            line.held.fetch_add(length as u64, Relaxed);
            std::future::pending::<()>().await;
        }
        if to.write_all(&piece[..length]).await.is_err() {
            return;
        }
        count.fetch_add(length as u64, Relaxed);
    }
}

/// A collector that sends back what comes on a stream, doubled, and takes tunnels.
struct Centre {
    server: Arc<LinkServer>,
    tcp: SocketAddr,
}

impl Centre {
    fn new(identity: &Identity, settings: &LinkSettings) -> Self {
        let server = Arc::new(LinkServer::bind_both("127.0.0.1:0".parse().unwrap(), identity, settings, 100).unwrap());
        let accepting = Arc::clone(&server);
        tokio::spawn(async move {
            while let Some(incoming) = accepting.accept().await {
                tokio::spawn(async move {
                    let Ok(connection) = incoming.await else { return };
                    assert_eq!(site_name(&connection).unwrap().as_str(), "plant-7");
                    while let Ok((mut send, mut receive)) = connection.accept_bi().await {
                        tokio::spawn(async move {
                            while let Ok(Some(chunk)) = receive.read_chunk(usize::MAX, true).await {
                                send.write_all(&chunk.bytes).await.unwrap();
                                send.write_all(&chunk.bytes).await.unwrap();
                            }
                            send.finish().unwrap();
                        });
                    }
                });
            }
        });
        Self { tcp: server.local_addr().unwrap(), server }
    }
}

fn client(ca: &Authority) -> LinkClient {
    LinkClient::new(&Made::site().identity(ca, &[]), &LinkSettings::agent(), RateCap::new(None)).unwrap()
}

async fn dial(client: &LinkClient, at: SocketAddr) -> Connection {
    timeout(PATIENCE, client.dial_addresses(Way::Tcp, vec![at], "localhost")).await.unwrap().unwrap()
}

/// Sends so many bytes and takes twice as many back.
async fn transfer(connection: &Connection, bytes: usize) {
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    let sent: Vec<u8> = (0..bytes).map(|index| (index / 251) as u8 ^ index as u8).collect();
    let (back, ()) = tokio::join!(
        async {
            let mut got = 0;
            while let Some(chunk) = receive.read_chunk(usize::MAX, true).await.unwrap() {
                got += chunk.bytes.len();
            }
            got
        },
        async {
            send.write_all(&sent).await.unwrap();
            send.finish().unwrap();
        }
    );
    assert_eq!(back, 2 * bytes);
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn streams_go_both_ways_through_a_tunnel_and_are_counted() {
    let ca = Authority::new("ca");
    let (centre, line) = (Centre::new(&Made::collector().identity(&ca, &[]), &LinkSettings::collector()), Arc::new(Line::default()));
    let at = relay(centre.tcp, Arc::clone(&line)).await;
    let client = client(&ca);
    let connection = dial(&client, at).await;
    let opened = (line.up.load(Relaxed), line.down.load(Relaxed));
    println!("payload of TCP after both handshakes: {opened:?}");
    let mut transfers = JoinSet::new();
    for bytes in [1, 1_000, 100_000, 3_000_000, 3_000_000] {
        let connection = connection.clone();
        transfers.spawn(async move { transfer(&connection, bytes).await });
    }
    timeout(2 * PATIENCE, transfers.join_all()).await.unwrap();
    assert_eq!(centre.server.tunnels(), 1);

    // No UDP at all, and the estimate covers what TCP carried, with its headers, and not much more.
    let counters = client.counters();
    let header = |bytes: u64| bytes + bytes.div_ceil(1448) * 52;
    for (name, counted, carried) in [
        ("sent", counters.sent_bytes(), header(line.up.load(Relaxed))),
        ("received", counters.received_bytes(), header(line.down.load(Relaxed))),
    ] {
        println!("{name}: {counted} counted, {carried} carried");
        assert!(counted >= carried && counted < carried + carried / 5, "{name}: {counted} counted, {carried} carried");
    }

    connection.close(CloseCode::Done.code().into(), b"");
    until("the tunnel ends with its connection", || centre.server.tunnels() == 0).await;
}

#[tokio::test]
async fn a_stream_that_ends_is_a_lost_connection_and_a_new_one_works() {
    let ca = Authority::new("ca");
    let (centre, line) = (Centre::new(&Made::collector().identity(&ca, &[]), &LinkSettings::collector()), Arc::new(Line::default()));
    let at = relay(centre.tcp, Arc::clone(&line)).await;
    let client = client(&ca);
    for _ in 0..3 {
        let connection = dial(&client, at).await;
        transfer(&connection, 10_000).await;
        let before = Instant::now();
        line.cut.notify_waiters();
        let ended = timeout(PATIENCE, connection.closed()).await.unwrap();
        // Far below any timeout of QUIC's.
        assert!(before.elapsed() < Duration::from_secs(10), "{:?}", before.elapsed());
        let explained = explain(&ended, Side::Agent);
        assert_eq!(explained.reason, "tcp_ended", "{ended:?}");
        assert!(explained.what.contains("TCP"), "{explained}");
        until("the collector has given the tunnel up", || centre.server.tunnels() == 0).await;
    }
    // UDP is served beside it.
    let connection = client.dial_addresses(Way::Udp, vec![centre.server.local_addr().unwrap()], "localhost").await.unwrap();
    transfer(&connection, 10_000).await;
    assert_eq!(centre.server.tunnels(), 0);
}

/// The idle time-out is far away here: it is TCP that tells.
#[tokio::test]
async fn a_stream_that_stands_is_given_up_when_tcp_is_through_again_and_not_before() {
    let ca = Authority::new("ca");
    let patient = |settings: LinkSettings| LinkSettings { idle_timeout: 100 * PATIENCE, ..settings };
    let centre = Centre::new(&Made::collector().identity(&ca, &[]), &patient(LinkSettings::collector()));
    let line = Arc::new(Line::default());
    let at = relay(centre.tcp, Arc::clone(&line)).await;
    let client = LinkClient::new(&Made::site().identity(&ca, &[]), &patient(LinkSettings::agent()), RateCap::new(None)).unwrap();
    let connection = dial(&client, at).await;
    transfer(&connection, 10_000).await;
    let (mut send, _receive) = connection.open_bi().await.unwrap();
    line.freeze();
    send.write_all(b"is anybody there?").await.unwrap();
    let before = Instant::now();
    // Twice the time after which the silence is noticed.
    timeout(Duration::from_secs(8), connection.closed()).await.unwrap_err();
    assert!(line.held.load(Relaxed) > 0, "nothing was sent into the outage");
    let waiting = client.wait(PATIENCE, true);
    tokio::pin!(waiting);
    timeout(Duration::from_secs(1), &mut waiting).await.unwrap_err();
    line.thaw();
    assert_eq!(waiting.await, Some(Way::Tcp));
    let ended = timeout(PATIENCE, connection.closed()).await.unwrap();
    println!("given up after {:?}", before.elapsed());
    assert_eq!(explain(&ended, Side::Agent).reason, "tcp_ended", "{ended:?}");
    transfer(&dial(&client, at).await, 10_000).await;
}

#[tokio::test]
async fn both_ends_shut_down_with_a_word() {
    let ca = Authority::new("ca");
    let centre = Centre::new(&Made::collector().identity(&ca, &[]), &LinkSettings::collector());
    let client = client(&ca);
    let connection = dial(&client, centre.tcp).await;
    transfer(&connection, 1000).await;
    centre.server.shutdown(CloseCode::ShuttingDown, PATIENCE).await;
    let ended = timeout(PATIENCE, connection.closed()).await.unwrap();
    assert_eq!(explain(&ended, Side::Agent).reason, CloseCode::ShuttingDown.as_str(), "{ended:?}");
}

#[tokio::test]
async fn a_refusal_is_told_as_over_udp() {
    let (ca, other) = (Authority::new("ca"), Authority::new("other"));
    let centre = Centre::new(&Made::collector().identity(&ca, &[]), &LinkSettings::collector());
    let refused = |identity: Identity| async move {
        let client = LinkClient::new(&identity, &LinkSettings::agent(), RateCap::new(None)).unwrap();
        timeout(PATIENCE, client.dial_addresses(Way::Tcp, vec![centre.tcp], "localhost")).await.unwrap().unwrap_err().explain()
    };
    let explained = refused(Made::site().identity(&other, &[&ca])).await;
    assert_eq!(explained.reason, "unknown_ca", "{explained}");
    assert!(explained.what.contains("the agent's certificate") && explained.what.contains("over TCP"), "{explained}");
}

#[tokio::test]
async fn a_collector_that_cannot_be_believed_or_is_not_there_is_explained() {
    let (ca, other) = (Authority::new("ca"), Authority::new("other"));
    let centre = Centre::new(&Made::collector().identity(&other, &[&ca]), &LinkSettings::collector());
    let client = client(&ca);
    let explained = client.dial_addresses(Way::Tcp, vec![centre.tcp], "localhost").await.unwrap_err().explain();
    assert_eq!(explained.reason, "unknown_ca", "{explained}");
    assert!(explained.what.contains("the collector's certificate"), "{explained}");

    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let explained = client.dial_addresses(Way::Tcp, vec![nobody], "localhost").await.unwrap_err().explain();
    assert!(explained.is_silence() && explained.fix.contains("listen.tcp"), "{explained}");
}

/// TLS without a certificate gets no tunnel, and a tunnel without a connection does not stay.
#[tokio::test]
async fn who_has_no_certificate_gets_no_tunnel_and_who_says_nothing_loses_it() {
    let ca = Authority::new("ca");
    let settings = LinkSettings { handshake_timeout: Duration::from_secs(2), ..LinkSettings::collector() };
    let centre = Centre::new(&Made::collector().identity(&ca, &[]), &settings);
    let mut with = Made::site().identity(&ca, &[]).client_config().unwrap();
    with.alpn_protocols = vec![TUNNEL_ALPN.to_vec()];
    let mut without = with.clone();
    without.client_auth_cert_resolver = Arc::new(NoCertificate);
    let mut other_protocol = with.clone();
    other_protocol.alpn_protocols = vec![b"h2".to_vec()];
    for (config, gets_in) in [(without, false), (other_protocol, false), (with, true)] {
        let tcp = TcpStream::connect(centre.tcp).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let stream = TlsConnector::from(Arc::new(config)).connect(name, tcp).await;
        if gets_in {
            until("it is a tunnel", || centre.server.tunnels() == 1).await;
        }
        if let Ok(mut stream) = stream {
            // The end of the stream, politely or not.
            let outcome = timeout(PATIENCE, stream.read(&mut [0; 10])).await.unwrap();
            assert!(matches!(outcome, Ok(0) | Err(_)), "{outcome:?}");
        }
        assert_eq!(centre.server.tunnels(), 0);
    }
}

#[tokio::test]
async fn who_opens_tcp_and_says_nothing_pins_little_and_is_dropped() {
    let ca = Authority::new("ca");
    let settings = LinkSettings { handshake_timeout: Duration::from_secs(3), ..LinkSettings::collector() };
    let centre = Centre::new(&Made::collector().identity(&ca, &[]), &settings);
    let mut silent = Vec::new();
    for _ in 0..40 {
        silent.push(TcpStream::connect(centre.tcp).await.unwrap());
    }
    // Beyond 16 of one address they are turned away at once, the others when their time is over.
    let mut ended = 0;
    let mut ends = JoinSet::new();
    let began = Instant::now();
    for mut stream in silent {
        ends.spawn(async move {
            drop(timeout(PATIENCE, stream.read(&mut [0; 1])).await.unwrap());
            began.elapsed()
        });
    }
    let mut late = 0;
    while let Some(after) = ends.join_next().await {
        ended += 1;
        late += usize::from(after.unwrap() > Duration::from_secs(2));
    }
    assert_eq!(ended, 40);
    assert!((1..=16).contains(&late), "{late} were given time");
    // And nobody is kept out for good.
    transfer(&dial(&client(&ca), centre.tcp).await, 1000).await;
}
