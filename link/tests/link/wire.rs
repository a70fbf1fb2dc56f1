//! What passes the wire: counted to the byte by a relay in the middle, and never more than the cap allows.
//!
//! Time is virtual: the sockets are real ones of the loopback interface, which deliver at once, and the clock jumps to the next timer
//! when nothing is left to do. So a transfer over 64 kbit/s takes no time and its figures are exact.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use quinn::Connection;
use spillway_link::{BitRate, Counting, LinkClient, LinkServer, LinkSettings, MtuDiscovery, RateCap, Way};
use tokio::{net::UdpSocket, time::Instant};

use crate::common::{Authority, Made};

/// Headers of IPv4 and UDP.
const HEADERS: u64 = 28;

/// A datagram of the largest size: what may go out at once under any cap, beside 10 ms of line.
const BURST: u64 = 1500;

/// Every datagram that the agent sent or got: when, and its bytes on the wire.
#[derive(Default)]
struct Log {
    up: Vec<(Instant, u64)>,
    down: Vec<(Instant, u64)>,
}

impl Log {
    fn bytes(datagrams: &[(Instant, u64)]) -> u64 {
        datagrams.iter().map(|(_, bytes)| bytes).sum()
    }

    /// The most that was ever sent beyond `bits_per_second`, over all spans of time: the level of a leaking bucket.
    fn excess(&self, from: Instant, bits_per_second: f64) -> u64 {
        let (mut level, mut last) = (0.0_f64, from);
        let mut highest = 0.0_f64;
        for (at, bytes) in self.up.iter().filter(|(at, _)| *at >= from) {
            level = (level - (*at - last).as_secs_f64() * bits_per_second / 8.0).max(0.0) + *bytes as f64;
            highest = highest.max(level);
            last = *at;
        }
        highest.round() as u64
    }
}

/// How long the relay keeps a datagram: a line without any delay would have no round trip to speak of, and nothing to pace by.
const DELAY: Duration = Duration::from_millis(1);

/// Passes datagrams on, between one agent and the collector at `to`.
async fn relay(front: UdpSocket, to: SocketAddr, loss_percent: u64, log: Arc<Mutex<Log>>) {
    let (front, back) = (Arc::new(front), Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap()));
    let (mut up, mut down) = ([0; 2048], [0; 2048]);
    let mut agent = None;
    let mut seed = loss_percent;
    let mut lost = || {
        // A linear congruential generator is random enough to lose packets.
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % 100 < loss_percent
    };
    loop {
        tokio::select! {
            received = front.recv_from(&mut up) => {
                let (length, from) = received.unwrap();
                agent = Some(from);
                log.lock().unwrap().up.push((Instant::now(), length as u64 + HEADERS));
                if !lost() {
                    pass_on(&back, to, &up[..length]);
                }
            }
            received = back.recv(&mut down) => {
                let length = received.unwrap();
                // What does not arrive is not the agent's to count.
                if !lost() {
                    log.lock().unwrap().down.push((Instant::now(), length as u64 + HEADERS));
                    pass_on(&front, agent.unwrap(), &down[..length]);
                }
            }
        }
    }
}

fn pass_on(socket: &Arc<UdpSocket>, to: SocketAddr, datagram: &[u8]) {
    let (socket, datagram) = (Arc::clone(socket), datagram.to_vec());
    tokio::spawn(async move {
        tokio::time::sleep(DELAY).await;
        socket.send_to(&datagram, to).await.unwrap();
    });
}

/// An agent, the relay, and a collector that reads every stream to its end, and answers with its length where it can.
struct Line {
    client: LinkClient,
    connection: Connection,
    /// Streams that need no answer: when each was there as a whole, and its length.
    arrived: Arc<Mutex<Vec<(Instant, usize)>>>,
    log: Arc<Mutex<Log>>,
}

impl Line {
    async fn open(rate: Option<u64>) -> Self {
        Self::open_with(RateCap::new(rate.map(|bits| BitRate::new(bits).unwrap())), &LinkSettings::agent(), 0).await
    }

    async fn open_with(cap: RateCap, settings: &LinkSettings, loss_percent: u64) -> Self {
        let ca = Authority::new("ca");
        let collector = Made::collector().identity(&ca, &[]);
        let server = LinkServer::bind("127.0.0.1:0".parse().unwrap(), &collector, &slow(LinkSettings::collector())).unwrap();
        let to = server.local_addr().unwrap();
        let arrived = Arc::new(Mutex::new(Vec::new()));
        let arriving = Arc::clone(&arrived);
        tokio::spawn(async move {
            let connection = server.accept().await.unwrap().await.unwrap();
            let streams = connection.clone();
            tokio::spawn(async move {
                while let Ok(mut receive) = streams.accept_uni().await {
                    let arriving = Arc::clone(&arriving);
                    tokio::spawn(async move {
                        let length = receive.read_to_end(64 << 20).await.unwrap().len();
                        arriving.lock().unwrap().push((Instant::now(), length));
                    });
                }
            });
            while let Ok((mut send, mut receive)) = connection.accept_bi().await {
                let read = receive.read_to_end(64 << 20).await.unwrap();
                send.write_all(&read.len().to_le_bytes()).await.unwrap();
                send.finish().unwrap();
            }
        });
        let front = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let at = front.local_addr().unwrap();
        let log = Arc::new(Mutex::new(Log::default()));
        tokio::spawn(relay(front, to, loss_percent, Arc::clone(&log)));

        let client = LinkClient::new(&Made::site().identity(&ca, &[]), settings, cap).unwrap();
        let connection = client.dial_addresses(Way::Udp, vec![at], "localhost").await.unwrap();
        Self { client, connection, arrived, log }
    }

    /// Sends so many bytes and waits until the collector has read them; how long that took.
    async fn transfer(&self, bytes: usize) -> Duration {
        let began = Instant::now();
        let (mut send, mut receive) = self.connection.open_bi().await.unwrap();
        send.write_all(&vec![7; bytes]).await.unwrap();
        send.finish().unwrap();
        let answer = receive.read_to_end(8).await.unwrap();
        assert_eq!(answer, bytes.to_le_bytes());
        began.elapsed()
    }
}

#[tokio::test(start_paused = true)]
async fn the_cap_holds_over_every_span_of_time_and_the_line_is_full() {
    for (bits, bytes) in [(64_000, 300_000), (512_000, 1_000_000), (2_000_000, 2_000_000), (10_000_000, 4_000_000)] {
        let began = Instant::now();
        let line = Line::open(Some(bits)).await;
        line.transfer(bytes).await;
        let log = line.log.lock().unwrap();

        let burst = BURST + bits / 8 * 10 / 1000;
        let excess = log.excess(began, bits as f64);
        assert!(excess <= burst + burst / 100, "{bits} bit/s: {excess} bytes at once, {burst} allowed");
        let sent = Log::bytes(&log.up);
        let elapsed = began.elapsed().as_secs_f64();
        let allowed = bits as f64 / 8.0 * elapsed * 1.03 + burst as f64;
        assert!(sent as f64 <= allowed, "{bits} bit/s: {sent} bytes in {elapsed} s");

        // The other half of a cap: what it allows is used. Headers, handshake and acknowledgements are within the 15 %.
        let ideal = bytes as f64 * 8.0 / bits as f64;
        assert!(elapsed < ideal * 1.15 + 1.0, "{bits} bit/s: {elapsed} s for what takes {ideal} s");
        println!("{bits} bit/s: {sent} bytes in {elapsed:.3} s, ideal {ideal:.3} s, most at once {excess}");
    }
}

/// Timeouts for lines on which a handshake alone takes ten seconds.
fn slow(settings: LinkSettings) -> LinkSettings {
    let patience = Duration::from_secs(300);
    LinkSettings { handshake_timeout: patience, idle_timeout: patience, ..settings }
}

/// The most bytes in any 10 s, in whole datagrams.
fn most_in_ten_seconds(datagrams: &[(Instant, u64)]) -> u64 {
    let (mut sum, mut most, mut first) = (0, 0, datagrams.iter());
    for (at, bytes) in datagrams {
        sum += bytes;
        while let Some((early, bytes)) = first.as_slice().first().filter(|(early, _)| *early + Duration::from_secs(10) <= *at) {
            let _leaves = (early, first.next());
            sum -= bytes;
        }
        most = most.max(sum);
    }
    most
}

#[tokio::test(start_paused = true)]
async fn no_ten_seconds_are_more_than_two_percent_over_whatever_is_lost() {
    for bits in [8_000, 64_000, 1_000_000, 10_000_000] {
        for counting in [Counting::Sent, Counting::Both] {
            let began = Instant::now();
            let cap = RateCap::new(BitRate::new(bits));
            cap.set_counting(counting);
            let settings = LinkSettings {
                mtu_discovery: if bits > 256_000 { MtuDiscovery::Often } else { MtuDiscovery::Never },
                ..slow(LinkSettings::agent())
            };
            let line = Line::open_with(cap.clone(), &settings, 2).await;
            // Two minutes of line, half a minute of the fastest.
            line.transfer(bits as usize / 8 * if bits > 1_000_000 { 30 } else { 120 }).await;
            let elapsed = began.elapsed().as_secs_f64();
            // Until the last acknowledgements are through.
            tokio::time::sleep(Duration::from_secs(5)).await;
            let log = line.log.lock().unwrap();
            let mut counted = log.up.clone();
            if counting == Counting::Both {
                counted.extend(&log.down);
                counted.sort();
            }
            let (sum, most, allowed) = (Log::bytes(&counted), most_in_ten_seconds(&counted), bits as f64 / 8.0 * 10.0);
            let over = most as f64 / allowed - 1.0;
            let used = sum as f64 * 8.0 / bits as f64 / elapsed;
            println!("{bits} bit/s {counting:?}: at most {:+.2} % in 10 s, {:.1} % used in {elapsed:.0} s", over * 100.0, used * 100.0);
            assert!(over <= 0.02, "{bits} bit/s {counting:?}: {most} bytes in 10 s, {allowed} allowed");
            assert!(used > 0.8, "{bits} bit/s {counting:?}: {used} of the line used");
            assert_eq!(cap.spent(), sum);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn counters_agree_with_the_relay() {
    for rate in [Some(256_000), None] {
        let line = Line::open(rate).await;
        // In parts that the loopback's buffers hold: without a cap, and in no time, a window leaves at once.
        for _ in 0..4 {
            line.transfer(100_000).await;
        }
        // Until the last acknowledgements are through.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let counters = line.client.counters();
        let log = line.log.lock().unwrap();
        assert_eq!(counters.sent_bytes(), Log::bytes(&log.up), "{rate:?}");
        assert_eq!(counters.sent_datagrams(), log.up.len() as u64, "{rate:?}");
        assert_eq!(counters.received_bytes(), Log::bytes(&log.down), "{rate:?}");
        assert_eq!(counters.received_datagrams(), log.down.len() as u64, "{rate:?}");
        assert!(log.up.len() > 250 && log.down.len() > 10, "{} up, {} down", log.up.len(), log.down.len());
    }
}

#[tokio::test(start_paused = true)]
async fn a_cap_is_replaced_while_data_flows() {
    let line = Line::open(Some(64_000)).await;
    let cap = line.client.cap();
    let before = line.transfer(40_000).await;
    assert!((4..=7).contains(&before.as_secs()), "{before:?} at 64 kbit/s");

    // Raised in the middle of a wait: at 500 bit/s a datagram takes 24 s.
    cap.set_rate(BitRate::new(500));
    let raised = Instant::now() + Duration::from_secs(30);
    let raise = async {
        tokio::time::sleep_until(raised).await;
        cap.set_rate(BitRate::new(1_000_000));
    };
    let (_, ()) = tokio::join!(line.transfer(500_000), raise);
    let after = raised.elapsed();
    assert!((3..=5).contains(&after.as_secs()), "{after:?} at 1 Mbit/s");
    assert!(line.log.lock().unwrap().excess(raised, 1_000_000.0) <= BURST + 1_250);

    cap.set_rate(None);
    let free = line.transfer(500_000).await;
    assert!(free < Duration::from_secs(1), "{free:?} without a cap");
}

#[tokio::test(start_paused = true)]
async fn segmentation_offload_is_for_uncapped_links_only() {
    let line = Line::open(None).await;
    line.transfer(200_000).await;
    let cap = line.client.cap();
    cap.set_rate(BitRate::new(100_000));
    let capped = Instant::now();
    line.transfer(100_000).await;
    let log = line.log.lock().unwrap();
    let at_once = |at: Instant| log.up.iter().filter(|(sent, _)| *sent == at).count();
    let most = log.up.iter().filter(|(at, _)| *at > capped).map(|(at, _)| at_once(*at)).max().unwrap();
    assert!(most <= 2, "{most} datagrams at once under a cap");
}

/// Two streams of 50 KB take 12 s of this line; what is urgent overtakes them in the middle, and they are finished one after the other.
#[tokio::test(start_paused = true)]
async fn an_urgent_stream_overtakes_one_that_was_begun() {
    let line = Line::open(Some(64_000)).await;
    let send = async |priority: i32, bytes: usize| {
        let mut send = line.connection.open_uni().await.unwrap();
        send.set_priority(priority).unwrap();
        send.write_all(&vec![7; bytes]).await.unwrap();
        send.finish().unwrap();
    };
    send(-1, 50_000).await;
    send(-2, 50_001).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let began = Instant::now();
    send(1, 300).await;
    while line.arrived.lock().unwrap().len() < 3 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let arrived = line.arrived.lock().unwrap();
    assert_eq!(arrived.iter().map(|(_, length)| *length).collect::<Vec<_>>(), [300, 50_000, 50_001]);
    let [urgent, first, second] = [0, 1, 2].map(|place| arrived[place].0 - began);
    assert!(urgent < Duration::from_millis(700), "{urgent:?}: two datagrams are before it");
    assert!(second > first + Duration::from_secs(5), "{first:?} and {second:?}: side by side");
}
