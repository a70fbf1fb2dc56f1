//! The same records over one stream of stock quinn, as they are: what is saved without records being compressed, or repeated for Kafka's protocol.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result};
use quinn::{Connection, RecvStream};

use super::records::Plant;
use super::{AFTERMATH, LOOK_EVERY, Outcome, Race};
use crate::bench::link::quic::{identities, pair};
use crate::bench::peer::Congestion;
use crate::reaper::scratch_dir;
use crate::stage::pki::Pki;

/// Sends the backlog, each record as two lengths, key and value.
pub(super) fn run(race: &Race<'_>, congestion: Congestion) -> Result<Outcome> {
    let pki = Pki::init(&scratch_dir("compress-quinn")?.join("pki"))?;
    let (client, server) = identities(&pki, &pki.issue("edge")?)?;
    let pair = pair(race.wan, client, server, congestion)?;
    let arrived = Arc::new(AtomicU64::new(0));
    let (receiving, count) = (pair.centre.connection.clone(), Arc::clone(&arrived));
    pair.centre.runtime.spawn(async move {
        if let Ok(stream) = receiving.accept_uni().await {
            // Ends with the connection.
            drop(receive(stream, &count).await);
        }
    });
    pair.edge.runtime.spawn(send(pair.edge.connection.clone(), race.records));
    let took = race.watch(|| {
        std::thread::sleep(LOOK_EVERY);
        Ok(arrived.load(Ordering::Relaxed))
    })?;
    std::thread::sleep(AFTERMATH);
    let outcome = Outcome { peer: race.peer, took, arrived: arrived.load(Ordering::Relaxed), copies: 0, counters: race.counters() };
    pair.end();
    Ok(outcome)
}

async fn send(connection: Connection, records: u64) -> Result<()> {
    let mut stream = connection.open_uni().await?;
    for (_, _, record) in Plant::new(0).take(usize::try_from(records)?) {
        for part in [record.key, record.value] {
            let part = part.unwrap_or_default();
            stream.write_all(&u32::try_from(part.len())?.to_be_bytes()).await?;
            stream.write_all(&part).await?;
        }
    }
    stream.finish()?;
    // What is on its way has to arrive: the connection ends with its last handle.
    stream.stopped().await.context("the stream was not read")?;
    Ok(())
}

async fn receive(mut stream: RecvStream, count: &AtomicU64) -> Result<()> {
    let mut part = Vec::new();
    loop {
        for _ in 0..2 {
            let mut length = [0; 4];
            stream.read_exact(&mut length).await?;
            part.resize(usize::try_from(u32::from_be_bytes(length))?, 0);
            stream.read_exact(&mut part).await?;
        }
        count.fetch_add(1, Ordering::Relaxed);
    }
}
