//! Listener, connections, framing and timer.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::dispatch::{self, Answer};
use crate::faults::Faults;
use crate::state::{Now, State};
use crate::{BrokerOptions, Error};

/// `socket.request.max.bytes`.
const REQUEST_LEN_MAX: usize = 104_857_600;
/// How often sessions, rebalances and transactions are looked through.
const TICK: Duration = Duration::from_millis(20);
/// Connections that the system holds until they are accepted.
const BACKLOG: u32 = 1024;

/// What connections share.
#[derive(Debug)]
pub(crate) struct Server {
    options: BrokerOptions,
    port: AtomicU16,
    state: Mutex<State>,
    /// Told whenever a log may have got more to read.
    grown: Notify,
    faults: Faults,
    running: Mutex<Option<Running>>,
}

/// The tasks between a start and a stop.
#[derive(Debug)]
struct Running {
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Server {
    pub(crate) async fn start(options: BrokerOptions) -> Result<Arc<Self>, Error> {
        let server = Arc::new(Self {
            port: AtomicU16::new(options.port),
            options,
            state: Mutex::new(State::new()),
            grown: Notify::new(),
            faults: Faults::default(),
            running: Mutex::new(None),
        });
        server.resume().await?;
        Ok(server)
    }

    pub(crate) async fn resume(self: &Arc<Self>) -> Result<(), Error> {
        if self.running().is_some() {
            return Ok(());
        }
        let port = self.port();
        let listener = listen(port).await.map_err(|source| Error::Listen { port, source })?;
        let address = listener.local_addr().map_err(|source| Error::Listen { port, source })?;
        self.port.store(address.port(), Ordering::Relaxed);
        self.with(|state| {
            let now = Now::read();
            state.groups.values_mut().for_each(|group| group.forgive(now.instant));
        });
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        tasks.spawn(Arc::clone(self).accept(listener, stop.clone(), tasks.clone()));
        tasks.spawn(Arc::clone(self).tick(stop.clone()));
        tracing::info!(name = self.options.name, port = address.port(), "embedded broker listens");
        *self.running() = Some(Running { stop, tasks });
        Ok(())
    }

    pub(crate) async fn stop(&self) {
        let running = self.running().take();
        if let Some(Running { stop, tasks }) = running {
            stop.cancel();
            tasks.close();
            tasks.wait().await;
            tracing::info!(name = self.options.name, port = self.port(), "embedded broker stopped");
        }
    }

    /// Lets the tasks end without waiting for them.
    pub(crate) fn abandon(&self) {
        if let Some(Running { stop, .. }) = self.running().take() {
            stop.cancel();
        }
    }

    pub(crate) fn options(&self) -> &BrokerOptions {
        &self.options
    }

    pub(crate) fn port(&self) -> u16 {
        self.port.load(Ordering::Relaxed)
    }

    pub(crate) fn faults(&self) -> &Faults {
        &self.faults
    }

    pub(crate) fn enforce_retention(&self) {
        self.with(|state| state.retain(Now::read()));
    }

    /// Works on the state.
    pub(crate) fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Wakes the fetches that wait for records.
    pub(crate) fn wake(&self) {
        self.grown.notify_waiters();
    }

    pub(crate) fn grown(&self) -> &Notify {
        &self.grown
    }

    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn accept(self: Arc<Self>, listener: TcpListener, stop: CancellationToken, tasks: TaskTracker) {
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) if !self.faults.refuses() => {
                    let (server, stop, cut, port) = (Arc::clone(&self), stop.clone(), self.faults.connection(), self.port());
                    tasks.spawn(async move {
                        tokio::select! {
                            () = stop.cancelled() => {}
                            () = cut.cancelled() => {}
                            ended = server.serve(stream, port) => log_end(&ended),
                        }
                    });
                }
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "the embedded broker could not accept a connection"),
            }
        }
    }

    /// Another port of the same broker (0: any), until `closed`. Clients that come through it are sent to no other.
    pub(crate) async fn open_door(self: &Arc<Self>, port: u16, closed: CancellationToken) -> Result<u16, Error> {
        let refused = |source| Error::Listen { port, source };
        let listener = listen(port).await.map_err(refused)?;
        let port = listener.local_addr().map_err(refused)?.port();
        tokio::spawn(Arc::clone(self).guard(listener, port, closed));
        Ok(port)
    }

    /// Lets connections in through a door while the broker runs.
    async fn guard(self: Arc<Self>, listener: TcpListener, port: u16, closed: CancellationToken) {
        loop {
            let accepted = tokio::select! {
                () = closed.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            let running = self.running().as_ref().map(|running| (running.stop.clone(), running.tasks.clone()));
            let (Ok((stream, _)), Some((stop, tasks)), false) = (accepted, running, self.faults.refuses()) else {
                continue;
            };
            let (server, closed, cut) = (Arc::clone(&self), closed.clone(), self.faults.connection());
            tasks.spawn(async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = cut.cancelled() => {}
                    () = closed.cancelled() => {}
                    ended = server.serve(stream, port) => log_end(&ended),
                }
            });
        }
    }

    /// Answers the requests of one connection, one after the other as Kafka does. `port` is where it came in.
    async fn serve(self: Arc<Self>, mut stream: TcpStream, port: u16) -> io::Result<()> {
        stream.set_nodelay(true)?;
        while let Some(request) = read_request(&mut stream).await? {
            match dispatch::answer(&self, port, request).await {
                Ok(Answer::Send(response)) => {
                    let delay = self.faults.delay_now();
                    if !delay.is_zero() {
                        tokio::time::sleep(delay).await;
                    }
                    stream.write_all(&response).await?;
                }
                Ok(Answer::Nothing) => {}
                Ok(Answer::Cut) => return Ok(()),
                // A client that never gets its answer waits for ever; one that loses the connection says so.
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        Ok(())
    }

    async fn tick(self: Arc<Self>, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut retained = Now::read();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let now = Now::read();
            let ended = self.with(|state| state.expire(now));
            if now.instant.saturating_duration_since(retained.instant) >= self.options.retention_check {
                retained = now;
                self.enforce_retention();
            }
            if ended {
                self.wake();
            }
        }
    }
}

async fn listen(port: u16) -> io::Result<TcpListener> {
    // A broker that restarts takes its port back although old connections linger.
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
    socket.listen(BACKLOG)
}

/// Reads one request without its length; `None` at the end of the connection.
async fn read_request(stream: &mut TcpStream) -> io::Result<Option<Bytes>> {
    let mut length = [0; 4];
    match stream.read_exact(&mut length).await {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let length = u32::from_be_bytes(length) as usize;
    if length > REQUEST_LEN_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a request of {length} bytes")));
    }
    let mut request = BytesMut::zeroed(length);
    stream.read_exact(&mut request).await?;
    Ok(Some(request.freeze()))
}

fn log_end(ended: &io::Result<()>) {
    match ended {
        Ok(()) => {}
        // Clients that are killed leave like this.
        Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => {}
        Err(error) => tracing::warn!(%error, "a connection to the embedded broker ended"),
    }
}
