//! Stock quinn: its own settings at both ends, a client that sends a message every now and then, and dials again when its connection has ended.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use quinn::{ClientConfig, Endpoint, Incoming};
use tokio::runtime::Runtime;

use super::trickle::{EVERY, Watch, message};
use crate::bench::link::quic::{NAME, identities, stock};
use crate::bench::peer::Congestion;
use crate::reaper::scratch_dir;
use crate::stage::pki::Pki;
use crate::wan::quic::at;
use crate::wan::{End, Wan};

/// Between two attempts, as almost everybody has it.
const REDIAL: Duration = Duration::from_secs(1);

/// Client and server. Dropping it ends both.
#[derive(Debug)]
pub struct Stock {
    runtimes: Vec<Runtime>,
}

impl Stock {
    /// Starts both, with messages of that size; what arrives is noted.
    ///
    /// # Errors
    /// When no socket can be had.
    pub fn start(wan: &Wan, congestion: Congestion, bytes: usize, watch: Arc<Watch>) -> Result<Self> {
        let pki = Pki::init(&scratch_dir("outage-quinn")?.join("pki"))?;
        let (client, server) = identities(&pki, &pki.issue("edge")?)?;
        let (client, server) = stock(client, server, congestion)?;
        let (centre, listening) = at(wan, End::Centre, |address| Endpoint::server(server, address))?;
        let to = listening.local_addr()?;
        centre.spawn(async move {
            while let Some(incoming) = listening.accept().await {
                tokio::spawn(receive(incoming, Arc::clone(&watch)));
            }
        });
        let (edge, dialling) = at(wan, End::Edge, Endpoint::client)?;
        edge.spawn(async move {
            loop {
                // Ends with the connection, or with the attempt to have one.
                if send(&dialling, &client, to, bytes).await.is_err() {
                    tokio::time::sleep(REDIAL).await;
                }
            }
        });
        Ok(Self { runtimes: vec![edge, centre] })
    }
}

impl Drop for Stock {
    fn drop(&mut self) {
        // The line may be down: nobody waits for a goodbye.
        self.runtimes.drain(..).for_each(Runtime::shutdown_background);
    }
}

async fn send(endpoint: &Endpoint, config: &ClientConfig, to: SocketAddr, bytes: usize) -> Result<()> {
    let connection = endpoint.connect_with(config.clone(), to, NAME)?.await?;
    let mut stream = connection.open_uni().await?;
    loop {
        stream.write_all(&message(bytes)).await?;
        tokio::time::sleep(EVERY).await;
    }
}

async fn receive(incoming: Incoming, watch: Arc<Watch>) {
    let Ok(connection) = incoming.await else { return };
    while let Ok(mut stream) = connection.accept_uni().await {
        // Of each connection one: see `send`. As it arrives: what waits for an earlier packet has crossed.
        while let Ok(Some(_)) = stream.read_chunk(usize::MAX, false).await {
            watch.note();
        }
    }
}
