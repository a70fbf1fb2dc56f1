//! The client behind the `status` command: asks the admin endpoint of a running program.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, StatusCode, body::Bytes, client::conn::http1, header::HOST};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// How long the whole question may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Largest answer. 20,000 lanes at some 300 bytes each are 6 MB.
const MAX_STATUS_BYTES: usize = 16 * 1024 * 1024;

/// Asks the program whose `admin.listen` is `listen` for its status. Blocks; must not be called within a Tokio runtime.
///
/// # Errors
/// When nothing listens there, it does not answer in time, or what answers is not Spillway.
pub fn fetch(listen: SocketAddr) -> Result<serde_json::Value, Error> {
    let address = reachable(listen);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Runtime)?;
    let body = runtime.block_on(async { tokio::time::timeout(TIMEOUT, get(address)).await.unwrap_or(Err(Error::Timeout { address })) })?;
    serde_json::from_slice(&body).map_err(|source| Error::NotStatus { address, source })
}

/// Why there is no status.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No runtime for the client.
    #[error("cannot set up the client")]
    Runtime(#[source] io::Error),
    /// Nothing listens.
    #[error("nothing answers on {address} (admin.listen); is the program running, with this configuration, on this machine?")]
    Unreachable {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// It listens and does not answer.
    #[error("no answer from {address} within {TIMEOUT:?}; its log says more")]
    Timeout {
        /// Where.
        address: SocketAddr,
    },
    /// What answers does not speak HTTP.
    #[error("{address} is no admin endpoint")]
    Http {
        /// Where.
        address: SocketAddr,
        /// What hyper found.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It answers with an error.
    #[error("{address} answered {status}; is it the admin endpoint of another program?")]
    Status {
        /// Where.
        address: SocketAddr,
        /// The answer's code.
        status: StatusCode,
    },
    /// It answers with something else.
    #[error("the answer of {address} is no status; is it the admin endpoint of another program?")]
    NotStatus {
        /// Where.
        address: SocketAddr,
        /// What the parser found.
        source: serde_json::Error,
    },
}

/// A wildcard is where a server listens, not where a client dials.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

async fn get(address: SocketAddr) -> Result<Bytes, Error> {
    let http = |source: hyper::Error| Error::Http { address, source: source.into() };
    let stream = TcpStream::connect(address).await.map_err(|source| Error::Unreachable { address, source })?;
    let (mut sender, connection) = http1::handshake::<_, Empty<Bytes>>(TokioIo::new(stream)).await.map_err(http)?;
    let driver = tokio::spawn(connection);
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = hyper::Uri::from_static("/status");
    if let Ok(host) = address.to_string().parse() {
        request.headers_mut().insert(HOST, host);
    }
    let response = sender.send_request(request).await.map_err(http)?;
    let status = response.status();
    if status != StatusCode::OK {
        return Err(Error::Status { address, status });
    }
    let body = Limited::new(response.into_body(), MAX_STATUS_BYTES).collect().await.map_err(|source| Error::Http { address, source })?;
    driver.abort();
    Ok(body.to_bytes())
}
