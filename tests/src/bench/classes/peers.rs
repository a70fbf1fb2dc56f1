//! What alarms beside bulk are worth to those who have no classes: one TCP connection for everything, and stock quinn with a stream for each, on the same line.
//!
//! They write records of the same size as fast as they are taken, and an alarm every few seconds. Each has a WAN of its own; all run at the same time, since such a
//! line costs no processor time to speak of.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail, ensure};
use quinn::{RecvStream, SendStream};
use rand::rngs::StdRng;
use rand::{Rng as _, RngCore as _, SeedableRng as _};

use super::row::Row;
use super::{ALARM_EVERY_MS, ClassesOptions, RECORD_BYTES, WARM_UP, shape};
use crate::bench::link::quic::{identities, pair};
use crate::bench::link::tcp;
use crate::bench::peer::{Congestion, Peer};
use crate::reaper::scratch_dir;
use crate::stage::pki::Pki;
use crate::wan::Wan;
use crate::wan::quic::{Pair, Side};

/// All of them, while they run.
#[derive(Debug)]
pub struct Peers {
    threads: Vec<(Peer, JoinHandle<Result<Row>>)>,
}

impl Peers {
    /// Starts them.
    #[must_use]
    pub fn start(peers: &[Peer], options: &ClassesOptions) -> Self {
        let start = |peer: Peer| {
            let options = options.clone();
            (peer, std::thread::spawn(move || run(peer, &options)))
        };
        Self { threads: peers.iter().copied().map(start).collect() }
    }

    /// Waits for them; a row each.
    #[must_use]
    pub fn table(self) -> String {
        let row = |(peer, thread): (Peer, JoinHandle<Result<Row>>)| {
            let row = thread.join().map_err(|_| anyhow!("it has panicked")).flatten();
            row.map_or_else(|error| format!("  {peer:<15} is left out: {error:#}\n"), |row| row.line(peer.name()))
        };
        self.threads.into_iter().map(row).collect()
    }
}

fn run(peer: Peer, options: &ClassesOptions) -> Result<Row> {
    let wan = Wan::start(7)?;
    shape(&wan, options)?;
    let clock = Clock::start();
    let _running = match peer {
        Peer::Tcp(congestion) => Running::Tcp(tcp(&wan, congestion, &clock)?),
        Peer::Quinn(congestion) => Running::Quinn(Box::new(quinn(&wan, congestion, &clock)?)),
        Peer::Spillway | Peer::MirrorMaker(_) => bail!("it is measured elsewhere"),
    };
    std::thread::sleep(WARM_UP);
    let (before, time) = (wan.counters().to_centre, Duration::from_secs(60) * options.minutes);
    clock.ages().clear();
    std::thread::sleep(time);
    let carried = wan.counters().to_centre.since(&before).carried().bytes as f64 * 8.0;
    let ages = clock.ages().clone();
    ensure!(!ages.is_empty(), "no alarm has arrived");
    Ok(Row::new(ages.len(), ages, carried / time.as_secs_f64() / options.line_bits as f64))
}

/// Kept for its end.
enum Running {
    Tcp(#[expect(dead_code, reason = "closed when it is dropped")] [TcpStream; 2]),
    Quinn(#[expect(dead_code, reason = "ended when it is dropped")] Box<Pair>),
}

/// Both ends are in this process, and have one clock. Its time stands in an alarm; bulk has none.
#[derive(Debug, Clone)]
struct Clock {
    started: Instant,
    ages: Arc<Mutex<Vec<Duration>>>,
}

impl Clock {
    fn start() -> Self {
        Self { started: Instant::now(), ages: Arc::default() }
    }

    fn ages(&self) -> std::sync::MutexGuard<'_, Vec<Duration>> {
        self.ages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An alarm that is of now, or a record of bulk.
    fn record(&self, alarm: Option<Instant>) -> [u8; RECORD_BYTES] {
        let mut bytes = [0; RECORD_BYTES];
        rand::rng().fill_bytes(&mut bytes);
        let written = alarm.map_or(u64::MAX, |at| u64::try_from((at - self.started).as_micros()).unwrap_or(u64::MAX));
        let (head, _) = bytes.split_at_mut(8);
        head.copy_from_slice(&written.to_be_bytes());
        bytes
    }

    /// Notes the age of an alarm.
    fn note(&self, record: &[u8; RECORD_BYTES]) {
        let micros = record.first_chunk().map_or(u64::MAX, |head| u64::from_be_bytes(*head));
        if micros != u64::MAX {
            self.ages().push(self.started.elapsed().saturating_sub(Duration::from_micros(micros)));
        }
    }
}

/// Moments of alarms, not in step with anything.
struct Moments {
    rng: StdRng,
    next: Instant,
}

impl Moments {
    fn new() -> Self {
        Self { rng: StdRng::seed_from_u64(8), next: Instant::now() }
    }

    fn advance(&mut self) {
        self.next += Duration::from_millis(self.rng.random_range(ALARM_EVERY_MS));
    }
}

/// One connection, everything in the order in which it was written.
fn tcp(wan: &Wan, congestion: Congestion, clock: &Clock) -> Result<[TcpStream; 2]> {
    let (mut sending, mut receiving) = tcp::pair(wan, congestion)?;
    let kept = [sending.try_clone()?, receiving.try_clone()?];
    let (writing, reading) = (clock.clone(), clock.clone());
    // Both end with the connection.
    std::thread::spawn(move || {
        let mut alarms = Moments::new();
        loop {
            let alarm = (Instant::now() >= alarms.next).then_some(alarms.next);
            if alarm.is_some() {
                alarms.advance();
            }
            if sending.write_all(&writing.record(alarm)).is_err() {
                return;
            }
        }
    });
    std::thread::spawn(move || {
        let mut record = [0; RECORD_BYTES];
        while receiving.read_exact(&mut record).is_ok() {
            reading.note(&record);
        }
    });
    Ok(kept)
}

/// A stream for bulk and one for alarms, with quinn's own settings.
fn quinn(wan: &Wan, congestion: Congestion, clock: &Clock) -> Result<Pair> {
    let pki = Pki::init(&scratch_dir("classes-quinn")?.join("pki"))?;
    let (client, server) = identities(&pki, &pki.issue("edge")?)?;
    let pair = pair(wan, client, server, congestion)?;
    let (reading, receiving) = (clock.clone(), pair.centre.connection.clone());
    pair.centre.runtime.spawn(async move {
        while let Ok(stream) = receiving.accept_uni().await {
            tokio::spawn(receive(stream, reading.clone()));
        }
    });
    let Side { runtime, connection, .. } = &pair.edge;
    let (bulk, alarms) = runtime.block_on(async { anyhow::Ok((connection.open_uni().await?, connection.open_uni().await?)) })?;
    runtime.spawn(send_bulk(bulk, clock.clone()));
    runtime.spawn(send_alarms(alarms, clock.clone()));
    Ok(pair)
}

async fn send_bulk(mut stream: SendStream, clock: Clock) {
    while stream.write_all(&clock.record(None)).await.is_ok() {}
}

async fn send_alarms(mut stream: SendStream, clock: Clock) {
    let mut alarms = Moments::new();
    loop {
        tokio::time::sleep_until(alarms.next.into()).await;
        if stream.write_all(&clock.record(Some(alarms.next))).await.is_err() {
            return;
        }
        alarms.advance();
    }
}

async fn receive(mut stream: RecvStream, clock: Clock) {
    let mut record = [0; RECORD_BYTES];
    while stream.read_exact(&mut record).await.is_ok() {
        clock.note(&record);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_age_of_an_alarm_is_noted_and_bulk_has_none() {
        let clock = Clock::start();
        let written = Instant::now();
        std::thread::sleep(Duration::from_millis(20));
        clock.note(&clock.record(None));
        assert!(clock.ages().is_empty());
        clock.note(&clock.record(Some(written)));
        let ages = clock.ages().clone();
        assert!(ages.len() == 1 && ages.iter().all(|age| (Duration::from_millis(20)..=written.elapsed()).contains(age)), "{ages:?}");
    }
}
