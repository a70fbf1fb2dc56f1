//! Frames of 64 KiB, each on a stream of its own, as the agent sends them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use quinn::congestion::{BbrConfig, ControllerFactory, CubicConfig};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, Connection, ServerConfig, TransportConfig};
use rand::RngCore as _;
use spillway_link::identity::{IdentityFiles, Role};
use spillway_link::{Identity, LinkClient, LinkServer, LinkSettings, RateCap};
use tokio::runtime::Runtime;

use super::figures::Sums;
use super::{Course, watch};
use crate::bench::peer::Congestion;
use crate::stage::pki::{self, Pki};
use crate::wan::quic::{Pair, at};
use crate::wan::{End, Wan};

/// Payload of a stream.
const FRAME_BYTES: usize = 64 * 1024;

/// The name in the collector's certificate; the address is another.
pub const NAME: &str = "localhost";

/// `spillway-link` as agent and collector use it.
///
/// # Errors
/// When the two do not connect.
pub fn spillway(course: &Course<'_>) -> Result<Sums> {
    let (client, server) = identities(course.pki, course.identity)?;
    let bind = |address| LinkServer::bind(address, &server, &LinkSettings::collector()).map_err(std::io::Error::other);
    let (centre, server) = at(course.wan, End::Centre, bind)?;
    let to = server.local_addr()?;
    let received = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&received);
    centre.spawn(async move {
        let connection = server.accept().await.context("closed")?.await?;
        receive(connection, count).await
    });
    let dialler = |_| LinkClient::new(&client, &LinkSettings::agent(), RateCap::new(None)).map_err(std::io::Error::other);
    let (edge, link) = at(course.wan, End::Edge, dialler)?;
    let connection = edge.block_on(link.dial_addresses(spillway_link::Way::Udp, vec![to], NAME))?;
    let sums = transfer(course, &edge, &connection, &received);
    // The line is taken away next; nobody waits for a goodbye.
    edge.shutdown_background();
    centre.shutdown_background();
    Ok(sums)
}

/// quinn as it is but for its congestion control.
///
/// # Errors
/// When the two do not connect.
pub fn quinn(course: &Course<'_>, congestion: Congestion) -> Result<Sums> {
    let (client, server) = identities(course.pki, course.identity)?;
    let pair = pair(course.wan, client, server, congestion)?;
    let received = Arc::new(AtomicU64::new(0));
    pair.centre.runtime.spawn(receive(pair.centre.connection.clone(), Arc::clone(&received)));
    let sums = transfer(course, &pair.edge.runtime, &pair.edge.connection, &received);
    pair.end();
    Ok(sums)
}

/// A connection of stock quinn from the edge to the centre.
///
/// # Errors
/// When they do not connect.
pub(crate) fn pair(wan: &Wan, client: Identity, server: Identity, congestion: Congestion) -> Result<Pair> {
    let (client, server) = stock(client, server, congestion)?;
    Pair::connect(wan, client, server, NAME)
}

fn transfer(course: &Course<'_>, edge: &Runtime, connection: &Connection, received: &Arc<AtomicU64>) -> Sums {
    edge.spawn(send(connection.clone()));
    watch(course, || received.load(Ordering::Relaxed), || Some(connection.rtt()))
}

/// Sends until the runtime ends.
async fn send(connection: Connection) -> Result<()> {
    let mut frame = vec![0; FRAME_BYTES];
    rand::rng().fill_bytes(&mut frame);
    let frame = Bytes::from(frame);
    loop {
        let mut stream = connection.open_uni().await?;
        stream.write_chunk(frame.clone()).await?;
        stream.finish()?;
    }
}

/// Counts the payload of all streams.
pub(crate) async fn receive(connection: Connection, count: Arc<AtomicU64>) -> Result<()> {
    loop {
        let mut stream = connection.accept_uni().await?;
        let count = Arc::clone(&count);
        tokio::spawn(async move {
            // As it arrives: what waits for an earlier packet has crossed.
            while let Ok(Some(chunk)) = stream.read_chunk(FRAME_BYTES, false).await {
                count.fetch_add(u64::try_from(chunk.bytes.len()).unwrap_or(0), Ordering::Relaxed);
            }
        });
    }
}

/// quinn's own settings for both ends, but for their congestion control.
///
/// # Errors
/// When the certificates do not fit.
pub fn stock(client: Identity, server: Identity, congestion: Congestion) -> Result<(ClientConfig, ServerConfig)> {
    let factory: Arc<dyn ControllerFactory + Send + Sync> = match congestion {
        Congestion::Cubic => Arc::new(CubicConfig::default()),
        Congestion::Bbr => Arc::new(BbrConfig::default()),
    };
    let mut transport = TransportConfig::default();
    transport.congestion_controller_factory(factory);
    let transport = Arc::new(transport);
    let mut server = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(server.server_config()?)?));
    server.transport_config(Arc::clone(&transport));
    let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(client.client_config()?)?));
    config.transport_config(transport);
    Ok((config, server))
}

/// The site's and the collector's: all peers use the same certificates, and so the same handshake.
///
/// # Errors
/// When they cannot be read.
pub fn identities(pki: &Pki, site: &pki::Identity) -> Result<(Identity, Identity)> {
    let load = |files: &pki::Identity, role| {
        let files = IdentityFiles { ca: pki.ca(), cert: files.cert.clone(), key: files.key.clone() };
        Identity::load(&files, role, SystemTime::now())
    };
    Ok((load(site, Role::Site)?, load(&pki.server(), Role::Collector)?))
}
