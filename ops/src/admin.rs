//! The HTTP endpoint for machines: `/metrics`, `/healthz`, `/readyz`, `/status`.
//!
//! It runs on a thread and a runtime of its own, so that it answers while the data plane is stuck: that is when it is asked. It
//! changes nothing, so that reading it needs no authority; it binds to the loopback address by default all the same.

use std::{
    convert::Infallible,
    fmt, io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Semaphore;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::metrics::{self, Metrics};

/// Most connections at once; further ones wait in the listen queue. Prometheus, a prober and a person need three.
const MAX_CONNECTIONS: usize = 32;

/// How long a request's head may take. A prober sends it in one packet; who does not must not hold one of the few places.
const HEAD_TIMEOUT: Duration = Duration::from_secs(1);

/// Longest life of a connection, with the request's head and the answer, which a stalled peer may not read.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(5);

/// Most bytes of a request's head. hyper's least is 8 KiB.
const MAX_HEAD_BYTES: usize = 8 * 1024;

/// Most headers of a request.
const MAX_HEADERS: usize = 32;

/// Pause after a failed accept: the usual cause is that no file descriptor is left, which does not pass by asking again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Whether all is well, or why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// All is well.
    Good,
    /// The reason, for a person, in one line.
    Bad(String),
}

/// What the endpoint shows. Called from the endpoint's own thread; must answer at once, so it may only read what the data plane
/// has left for it (atomics, a short mutex), never ask the data plane.
pub trait AdminSource: Send + Sync + 'static {
    /// `/healthz`: bad means that a restart or a person is needed.
    fn health(&self) -> Health;

    /// `/readyz`: bad means not serving now, such as while starting or draining.
    fn ready(&self) -> Health;

    /// `/status`: what the `status` command prints, for machines.
    fn status(&self) -> serde_json::Value;
}

/// The running endpoint; dropping it stops it.
pub struct AdminServer {
    address: SocketAddr,
    stop: Option<DropGuard>,
    thread: Option<JoinHandle<()>>,
}

impl AdminServer {
    /// Binds `listen` (port 0: the system's choice) and serves until dropped.
    ///
    /// # Errors
    /// When the address cannot be bound, or the thread not be started: [`crate::Exit::CannotStart`].
    pub fn start(listen: SocketAddr, source: Arc<dyn AdminSource>, metrics: Arc<Metrics>) -> Result<Self, Error> {
        let listener = bind(listen).map_err(|source| Error::Bind { listen, source })?;
        let address = listener.local_addr().map_err(|source| Error::Bind { listen, source })?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Thread)?;
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let pages = Arc::new(Pages { source, metrics });
        let thread = thread::Builder::new()
            .name("admin".to_owned())
            .spawn(move || runtime.block_on(stopped.run_until_cancelled_owned(serve(listener, pages))).unwrap_or(()))
            .map_err(Error::Thread)?;
        Ok(Self { address, stop: Some(stop.drop_guard()), thread: Some(thread) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for AdminServer {
    fn drop(&mut self) {
        drop(self.stop.take());
        // A panic there was printed when it happened; it must not become a second one here.
        if let Some(Err(_panic)) = self.thread.take().map(JoinHandle::join) {
            tracing::error!("the admin endpoint had panicked");
        }
    }
}

impl fmt::Debug for AdminServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminServer").field("address", &self.address).finish_non_exhaustive()
    }
}

/// Why the endpoint did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is taken, is not ours, or needs privileges.
    #[error("cannot listen on tcp {listen} (admin.listen); another process may hold it: choose another port, or stop that process")]
    Bind {
        /// What was asked for.
        listen: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// No thread or runtime.
    #[error("cannot start the admin endpoint's thread")]
    Thread(#[source] io::Error),
}

fn bind(listen: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(listen)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

async fn serve(listener: TcpListener, pages: Arc<Pages>) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "the admin endpoint is gone"),
    };
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _peer)) => stream,
            Err(error) => {
                tracing::warn!(%error, "the admin endpoint cannot accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let pages = Arc::clone(&pages);
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let answer = pages.answer(&request);
                async move { Ok::<_, Infallible>(answer) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .max_headers(MAX_HEADERS)
                .max_buf_size(MAX_HEAD_BYTES)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service);
            match tokio::time::timeout(CONNECTION_TIMEOUT, connection).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "admin request failed"),
                Err(_elapsed) => tracing::debug!("admin connection took too long"),
            }
            drop(place);
        });
    }
}

struct Pages {
    source: Arc<dyn AdminSource>,
    metrics: Arc<Metrics>,
}

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

const INDEX: &str = "\
/metrics   OpenMetrics, for Prometheus
/healthz   200 while all is well, 503 with the reason
/readyz    200 while serving, 503 with the reason
/status    JSON, as printed by the status command
";

impl Pages {
    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut refused = page(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD\n".to_owned());
            refused.headers_mut().insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
            return refused;
        }
        match request.uri().path() {
            "/" => page(StatusCode::OK, TEXT, INDEX.to_owned()),
            "/metrics" => page(StatusCode::OK, metrics::CONTENT_TYPE, self.metrics.encode()),
            "/healthz" => verdict(self.source.health()),
            "/readyz" => verdict(self.source.ready()),
            "/status" => page(StatusCode::OK, JSON, format!("{:#}\n", self.source.status())),
            _ => page(StatusCode::NOT_FOUND, TEXT, INDEX.to_owned()),
        }
    }
}

fn verdict(health: Health) -> Response<Full<Bytes>> {
    match health {
        Health::Good => page(StatusCode::OK, TEXT, "ok\n".to_owned()),
        Health::Bad(reason) => page(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{reason}\n")),
    }
}

fn page(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, hyper::header::HeaderValue::from_static("no-store"));
    response
}
