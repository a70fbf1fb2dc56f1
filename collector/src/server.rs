//! The running collector: listener, central Kafka, sessions, admin endpoint, and their end.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rdkafka::error::KafkaError;
use spillway_config::CollectorConfig;
use spillway_link::server::{Admission, AdmissionLimits, admit};
use spillway_link::{Identity, LinkServer, LinkSettings};
use spillway_ops::{AdminServer, Metrics, notify};
use spillway_proto::CloseCode;
use spillway_proto::history::Decoder;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::centre::Centre;
use crate::centre::topics::{self, Topics};
use crate::metrics::Meters;
use crate::session::dictionaries::Dictionaries;
use crate::session::end;
use crate::session::handshake::{self, Rejected};
use crate::session::refusals::Refusals;
use crate::session::registry::Registry;
use crate::session::run::{self, Shared};
use crate::session::{Refused, limits};
use crate::sites::Sites;
use crate::status::Status;

/// Handshakes at once from which on peers must prove their address first.
const RETRY_FROM_HANDSHAKES: usize = 64;

/// How often the central Kafka is asked whether it is there.
const CENTRE_CHECK: Duration = Duration::from_secs(10);

/// How often tunnels are counted.
const TUNNELS_LOOK: Duration = Duration::from_secs(1);

/// Pause between two attempts to reach the central Kafka at the start.
const START_PAUSE: Duration = Duration::from_secs(1);

/// How long the peers may take to hear of the close, at the end.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Why the collector cannot start. All of these are [`spillway_ops::Exit::CannotStart`].
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The UDP port cannot be had, or TLS refuses the identity.
    #[error("the link cannot be opened")]
    Link(#[from] spillway_link::server::Error),
    /// The admin endpoint's port cannot be had.
    #[error("the admin endpoint cannot be opened")]
    Admin(#[from] spillway_ops::admin::Error),
    /// librdkafka refuses the settings.
    #[error("the settings of [kafka] are refused by librdkafka")]
    Kafka(#[from] KafkaError),
    /// The system does not say where we listen.
    #[error("the listening address is unknown")]
    Address(#[source] std::io::Error),
    /// No memory for zstd.
    #[error("decompression cannot be set up: is there memory?")]
    Decoder(#[source] std::io::Error),
}

/// A collector that listens.
#[derive(Debug)]
pub struct Server {
    link: LinkServer,
    admin: Option<AdminServer>,
    shared: Arc<Shared>,
    ready: Arc<AtomicBool>,
    handshakes: Arc<AtomicUsize>,
    max_connections: usize,
    handshake_timeout: Duration,
}

impl Server {
    /// Opens the ports. The central Kafka is not asked yet. Must run in a Tokio runtime.
    ///
    /// # Errors
    /// When a port cannot be had, or librdkafka refuses the settings.
    pub fn bind(config: &CollectorConfig, identity: &Identity) -> Result<Self, Error> {
        let mut metrics = Metrics::new("spillway-collector");
        let meters = Meters::new(&mut metrics);
        let topics = Topics::new(&config.kafka, config.topics.clone())?;
        let settings = link_settings(config);
        let (address, max_connections) = (config.listen.address, config.listen.max_connections as usize);
        let link = if config.listen.tcp {
            LinkServer::bind_both(address, identity, &settings, max_connections)?
        } else {
            LinkServer::bind(address, identity, &settings)?
        };
        let runtime = tokio::runtime::Handle::current();
        let sites = Arc::new(Sites::new(config.sites.dir.clone(), meters.site_files_refused.clone()));
        let centre = Arc::new(Centre::new(config, topics, meters, collector_name(), runtime));
        let shared = Arc::new(Shared {
            centre,
            registry: Registry::default(),
            sites,
            refusals: Refusals::default(),
            max_frame_bytes: config.session.max_frame_bytes.as_usize(),
            max_inflight_bytes: config.session.max_inflight_bytes.as_usize(),
            shutdown_deadline: config.shutdown.deadline,
            dictionaries: Dictionaries::default(),
            decoder: Mutex::new(Decoder::new().map_err(Error::Decoder)?),
            shutdown: CancellationToken::new(),
        });
        let ready = Arc::new(AtomicBool::new(false));
        let status = Arc::new(Status::new(Arc::clone(&shared), Arc::clone(&ready)));
        let admin = config.admin.listen.map(|listen| AdminServer::start(listen, status, Arc::new(metrics))).transpose()?;
        Ok(Self { link, admin, shared, ready, handshakes: Arc::default(), max_connections, handshake_timeout: settings.handshake_timeout })
    }

    /// Where agents connect.
    ///
    /// # Errors
    /// What the system says when it cannot tell.
    pub fn address(&self) -> Result<SocketAddr, Error> {
        self.link.local_addr().map_err(Error::Address)
    }

    /// Where the admin endpoint is.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(AdminServer::address)
    }

    /// Serves until `stop`, then drains: what has arrived is committed and acknowledged, the connections are closed.
    pub async fn run(self, config: &CollectorConfig, stop: CancellationToken) {
        let tail_stop = CancellationToken::new();
        // However this ends, also when it is dropped half-way, the reading thread must end.
        let _tail_ends = tail_stop.clone().drop_guard();
        let mut background = JoinSet::new();
        background.spawn(start_centre(
            Arc::clone(&self.shared.centre),
            config.clone(),
            tail_stop.clone(),
            Ready { ready: Arc::clone(&self.ready), admin: self.admin_address(), listen: self.link.local_addr().ok() },
        ));
        background.spawn(Arc::clone(&self.shared.sites).watch());
        if let Some(interval) = notify::watchdog_interval() {
            background.spawn(async move {
                let mut ticks = tokio::time::interval(interval / 2);
                loop {
                    ticks.tick().await;
                    notify::watchdog();
                }
            });
        }
        let mut sessions = JoinSet::new();
        let mut looks = tokio::time::interval(TUNNELS_LOOK);
        loop {
            let incoming = tokio::select! {
                () = stop.cancelled() => break,
                _ = looks.tick() => {
                    self.shared.centre.meters.tunnels_open.set(i64::try_from(self.link.tunnels()).unwrap_or(i64::MAX));
                    continue;
                }
                incoming = self.link.accept() => incoming,
            };
            let Some(incoming) = incoming else {
                break;
            };
            while sessions.try_join_next().is_some() {}
            self.admit(incoming, &mut sessions);
        }
        self.drain(sessions).await;
        tail_stop.cancel();
    }

    fn admit(&self, incoming: quinn::Incoming, sessions: &mut JoinSet<()>) {
        let limits = AdmissionLimits { max_connections: self.max_connections, retry_from_handshakes: RETRY_FROM_HANDSHAKES };
        let handshakes = self.handshakes.load(Ordering::Relaxed);
        let address = incoming.remote_address();
        let open = self.link.open_connections();
        match admit(open, handshakes, incoming.remote_address_validated(), limits) {
            Admission::Accept => {
                let (shared, timeout) = (Arc::clone(&self.shared), self.handshake_timeout);
                let (handshakes, ready) = (Arc::clone(&self.handshakes), Arc::clone(&self.ready));
                sessions.spawn(async move { serve(shared, incoming, timeout, &handshakes, &ready).await });
            }
            Admission::Retry => {
                if incoming.retry().is_err() {
                    tracing::debug!(%address, "a peer that has proved its address was asked to prove it");
                }
            }
            Admission::Refuse => {
                let code = CloseCode::TooManyConnections;
                let meters = &self.shared.centre.meters;
                self.shared.refusals.tell(meters, None, address, code.as_str(), code.remedy(), "no room for another connection");
                incoming.refuse();
            }
        }
    }

    async fn drain(&self, mut sessions: JoinSet<()>) {
        notify::stopping();
        self.ready.store(false, Ordering::Relaxed);
        self.link.stop_accepting();
        let deadline = Instant::now() + self.shared.shutdown_deadline;
        tracing::info!(event = "stopping", sessions = self.shared.registry.len(), "stopping: committing what has arrived");
        self.shared.shutdown.cancel();
        let all = async { while sessions.join_next().await.is_some() {} };
        if tokio::time::timeout_at(deadline.into(), all).await.is_err() {
            tracing::warn!(sessions = self.shared.registry.len(), "the deadline has passed; what is not committed will be sent again");
        }
        self.link.shutdown(CloseCode::ShuttingDown, CLOSE_TIMEOUT).await;
    }
}

/// One connection from the first packet to its end.
async fn serve(shared: Arc<Shared>, incoming: quinn::Incoming, timeout: Duration, handshakes: &AtomicUsize, ready: &AtomicBool) {
    let address = incoming.remote_address();
    handshakes.fetch_add(1, Ordering::Relaxed);
    let greeted = handshake::greet(incoming, &shared.sites, timeout).await;
    handshakes.fetch_sub(1, Ordering::Relaxed);
    match greeted {
        Ok(greeted) if !ready.load(Ordering::Relaxed) => {
            let reason = "the collector has not reached its central Kafka yet, or is shutting down";
            end::close(&shared, &greeted.connection, Some(&greeted.site), &Refused::new(CloseCode::CentreUnavailable, reason));
        }
        Ok(greeted) => run::run(shared, greeted).await,
        Err(Rejected::Refused { connection, site, refused }) => end::close(&shared, &connection, site.as_ref(), &refused),
        Err(Rejected::NoConnection { what, fix, reason }) => {
            shared.refusals.tell(&shared.centre.meters, None, address, reason, &fix, &what);
        }
    }
}

struct Ready {
    ready: Arc<AtomicBool>,
    admin: Option<SocketAddr>,
    listen: Option<SocketAddr>,
}

/// Waits for the central Kafka, reads all progress, tells the world; then watches whether the central Kafka is there.
async fn start_centre(centre: Arc<Centre>, config: CollectorConfig, stop: CancellationToken, ready: Ready) {
    let mut told = String::new();
    let partitions = loop {
        match centre.topics.ensure_progress().await {
            Ok(partitions) => break partitions,
            Err(error) => tell_once(&mut told, &error),
        }
        tokio::time::sleep(START_PAUSE).await;
    };
    centre.set_up(true);
    ensure_gaps(&centre, &mut told).await;
    while let Err(error) = centre.tail.start(&config.kafka, partitions, stop.clone()) {
        tracing::error!(error = spillway_ops::exit::chain(&error), "progress cannot be read; trying again");
        tokio::time::sleep(START_PAUSE).await;
    }
    while !centre.tail.is_caught_up() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    ready.ready.store(true, Ordering::Relaxed);
    notify::ready("spillway-collector", ready.admin, ready.listen);
    let mut ticks = tokio::time::interval(CENTRE_CHECK);
    loop {
        ticks.tick().await;
        centre.set_up(centre.topics.reachable().await);
        ensure_gaps(&centre, &mut told).await;
    }
}

/// Only sites that have a gap need the topic of gaps, and their writers see to it themselves: the others do not wait for it. But who has to
/// grant a right shall hear of it now, and not with the first gap.
async fn ensure_gaps(centre: &Centre, told: &mut String) {
    let error = match centre.topics.ensure_gaps().await {
        Ok(()) => String::new(),
        Err(error) => error.to_string(),
    };
    if *told != error {
        *told = error;
        if !told.is_empty() {
            tracing::warn!(event = "centre_trouble", error = told, "gaps cannot be told at the centre; partitions with one stand still");
        }
    }
}

fn tell_once(told: &mut String, error: &topics::Error) {
    let text = error.to_string();
    if *told != text {
        tracing::warn!(event = "centre_trouble", error = text, "the central Kafka cannot be used yet; trying again every second");
        *told = text;
    }
}

fn link_settings(config: &CollectorConfig) -> LinkSettings {
    let window = u32::try_from(config.session.max_inflight_bytes.bytes()).unwrap_or(u32::MAX);
    LinkSettings {
        idle_timeout: limits::IDLE_TIMEOUT,
        receive_window: window.min(MAX_RECEIVE_WINDOW),
        peer_uni_streams: limits::MAX_FRAME_STREAMS,
        ..LinkSettings::collector()
    }
}

/// What a connection may pin in QUIC beside the frames in custody; a gigabit line of 60 ms needs no more.
const MAX_RECEIVE_WINDOW: u32 = 8 * 1024 * 1024;

/// The machine's name, for people who look into session markers.
fn collector_name() -> String {
    std::fs::read_to_string("/etc/hostname").map_or_else(|_| "unknown".to_owned(), |name| name.trim().to_owned())
}
