//! The line goes down and comes back: how soon the first byte is through. Time is virtual, as in `wire.rs`.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use quinn::Connection;
use rand::{Rng, SeedableRng, rngs::StdRng};
use spillway_link::{LinkClient, LinkServer, LinkSettings, RateCap, Way, probe::PROBE_BYTES};
use tokio::{net::UdpSocket, time::Instant};

use crate::common::{Authority, Made};

/// One way.
const DELAY: Duration = Duration::from_millis(150);

/// The bound.
const FIRST_BYTE: Duration = Duration::from_millis(5_000 + 4 * 150);

/// What happens on the line.
#[derive(Default)]
struct State {
    cut: AtomicBool,
    dropped: AtomicU64,
    /// Of them, those to the collector.
    probes: AtomicU64,
}

/// A relay with a delay, that can be cut.
async fn relay(front: UdpSocket, to: SocketAddr, state: Arc<State>) {
    let (front, back) = (Arc::new(front), Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap()));
    let (mut up, mut down) = ([0; 2048], [0; 2048]);
    let mut agent = None;
    loop {
        let (socket, datagram, to) = tokio::select! {
            received = front.recv_from(&mut up) => {
                let (length, from) = received.unwrap();
                agent = Some(from);
                state.probes.fetch_add(u64::from(length == PROBE_BYTES), Relaxed);
                (&back, up[..length].to_vec(), to)
            }
            received = back.recv(&mut down) => (&front, down[..received.unwrap()].to_vec(), agent.unwrap()),
        };
        if state.cut.load(Relaxed) {
            state.dropped.fetch_add(1, Relaxed);
            continue;
        }
        let socket = Arc::clone(socket);
        tokio::spawn(async move {
            tokio::time::sleep(DELAY).await;
            socket.send_to(&datagram, to).await.unwrap();
        });
    }
}

struct Stage {
    client: LinkClient,
    relay: SocketAddr,
    state: Arc<State>,
    /// When the collector read something last, and how much in all.
    read: Arc<Mutex<(Instant, u64)>>,
}

impl Stage {
    async fn new() -> Self {
        let ca = Authority::new("ca");
        let server =
            LinkServer::bind("127.0.0.1:0".parse().unwrap(), &Made::collector().identity(&ca, &[]), &LinkSettings::collector()).unwrap();
        let to = server.local_addr().unwrap();
        let read = Arc::new(Mutex::new((Instant::now(), 0)));
        let reading = Arc::clone(&read);
        tokio::spawn(async move {
            loop {
                let (incoming, reading) = (server.accept().await.unwrap(), Arc::clone(&reading));
                tokio::spawn(async move {
                    let Ok(connection) = incoming.await else { return };
                    while let Ok(mut stream) = connection.accept_uni().await {
                        while let Ok(Some(chunk)) = stream.read_chunk(usize::MAX, true).await {
                            let mut reading = reading.lock().unwrap();
                            *reading = (Instant::now(), reading.1 + chunk.bytes.len() as u64);
                        }
                    }
                });
            }
        });
        let front = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let (at, state) = (front.local_addr().unwrap(), Arc::new(State::default()));
        tokio::spawn(relay(front, to, Arc::clone(&state)));
        let client = LinkClient::new(&Made::site().identity(&ca, &[]), &LinkSettings::agent(), RateCap::new(None)).unwrap();
        Self { client, relay: at, state, read }
    }

    /// Dials as the agent does, with its longest pauses, and never stops sending.
    async fn work(&self, connections: &AtomicU64) {
        loop {
            match self.client.dial_addresses(Way::Udp, vec![self.relay], "localhost").await {
                Ok(connection) => {
                    connections.fetch_add(1, Relaxed);
                    send(&connection).await;
                }
                Err(_) => _ = self.client.wait(Duration::from_secs(30), false).await,
            }
        }
    }

    /// Cuts the line for `outage`; how long it took until the collector read something after it.
    async fn outage(&self, outage: Duration) -> Duration {
        self.state.cut.store(true, Relaxed);
        tokio::time::sleep(outage).await;
        self.state.cut.store(false, Relaxed);
        let (back, before) = (Instant::now(), self.read.lock().unwrap().1);
        loop {
            let (at, bytes) = *self.read.lock().unwrap();
            if bytes > before {
                return at - back;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// 20 kB a second, in streams of a frame's size, until the connection ends.
async fn send(connection: &Connection) {
    for age in 0.. {
        let Ok(mut stream) = connection.open_uni().await else { return };
        // As the agent does: what is lost of an earlier frame is repeated before a later one goes on.
        stream.set_priority(-age).unwrap();
        if stream.write_all(&[7; 20_000]).await.is_err() {
            return;
        }
        drop(stream.finish());
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_byte_is_through_soon_after_any_outage() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let (stage, connections) = (Stage::new().await, AtomicU64::new(0));
    let outages = async {
        tokio::time::sleep(Duration::from_secs(20)).await;
        let of = |seconds: u64, rng: &mut StdRng| Duration::from_secs(seconds) + Duration::from_millis(rng.random_range(0..10_000));
        for (seconds, survives) in
            [(3, true), (10, true), (10, true), (25, true), (60, false), (60, false), (600, false), (600, false), (86_400, false)]
        {
            let (length, opened, dropped) = (of(seconds, &mut rng), connections.load(Relaxed), stage.state.dropped.load(Relaxed));
            let after = stage.outage(length).await;
            println!("{length:.1?}: first byte after {after:.2?}, {} connections", connections.load(Relaxed));
            assert!(stage.state.dropped.load(Relaxed) > dropped, "the line was not cut");
            assert!(after <= FIRST_BYTE, "{length:?}: the first byte {after:?} after the line came back, seed {seed}");
            assert_eq!(connections.load(Relaxed) == opened, survives, "{length:?}, seed {seed}");
            tokio::time::sleep(Duration::from_secs(20)).await;
        }
    };
    tokio::select! {
        () = stage.work(&connections) => {}
        () = outages => {}
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_not_probed() {
    let stage = Stage::new().await;
    let connection = stage.client.dial_addresses(Way::Udp, vec![stage.relay], "localhost").await.unwrap();
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(connection.close_reason().is_none());
    assert_eq!(stage.state.probes.load(Relaxed), 0);
    assert_eq!(stage.state.dropped.load(Relaxed), 0);
}
