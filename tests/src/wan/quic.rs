//! A connection of stock quinn over the WAN, with both of its ends in this process.

use anyhow::{Context as _, Result};
use quinn::{ClientConfig, Connection, Endpoint, ServerConfig};
use tokio::runtime::Runtime;

use super::{End, Wan};

/// Both ends of it.
#[derive(Debug)]
pub struct Pair {
    /// Who has dialled.
    pub edge: Side,
    /// Who has accepted.
    pub centre: Side,
}

/// One end, with a runtime whose threads are in its namespace.
#[derive(Debug)]
pub struct Side {
    /// Of what happens at this end.
    pub runtime: Runtime,
    /// The socket.
    pub endpoint: Endpoint,
    /// The connection.
    pub connection: Connection,
}

impl Pair {
    /// Connects the edge to the centre, whose certificate is for `name`.
    ///
    /// # Errors
    /// When they do not connect.
    pub fn connect(wan: &Wan, client: ClientConfig, server: ServerConfig, name: &str) -> Result<Self> {
        let (centre, listening) = at(wan, End::Centre, |address| Endpoint::server(server, address))?;
        let to = listening.local_addr()?;
        let (edge, dialling) = at(wan, End::Edge, Endpoint::client)?;
        let own = listening.clone();
        let accepted = centre.spawn(async move { anyhow::Ok(own.accept().await.context("closed")?.await?) });
        let dialled = edge.block_on(async { anyhow::Ok(dialling.connect_with(client, to, name)?.await?) })?;
        let accepted = centre.block_on(accepted)??;
        let side = |runtime, endpoint, connection| Side { runtime, endpoint, connection };
        Ok(Self { edge: side(edge, dialling, dialled), centre: side(centre, listening, accepted) })
    }

    /// Ends it at once: the line is taken away next, and nobody waits for a goodbye.
    pub fn end(self) {
        self.edge.runtime.shutdown_background();
        self.centre.runtime.shutdown_background();
    }
}

/// A socket at `end`, and a runtime of one thread there.
///
/// # Errors
/// When there is no socket to be had.
pub fn at<T: Send>(wan: &Wan, end: End, open: impl FnOnce(std::net::SocketAddr) -> std::io::Result<T> + Send) -> Result<(Runtime, T)> {
    wan.inside(end, || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let opened = runtime.block_on(async { open((end.address(), 0).into()) })?;
        Ok((runtime, opened))
    })
}
