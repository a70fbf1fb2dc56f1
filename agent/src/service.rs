//! Puts the agent's parts together from its configuration.

use std::sync::Arc;
use std::time::SystemTime;

use rdkafka::error::KafkaError;
use spillway_agent_core::batcher::FrameLimits;
use spillway_agent_core::budget;
use spillway_agent_core::settings::Patience;
use spillway_config::{self as config, AgentConfig};
use spillway_link::{BitRate, Congestion, Identity, IdentityFiles, LinkClient, LinkSettings, Profile, RateCap, Role};
use spillway_ops::{AdminServer, Metrics, admin, notify};
use spillway_proto::SiteName;
use tokio_util::sync::CancellationToken;

use crate::dictionaries::Dictionaries;
use crate::flows::Flows;
use crate::memory::Shares;
use crate::metrics::AgentMetrics;
use crate::plan::Plan;
use crate::runner::{self, Ended, Parts};
use crate::source::{self, Budget, Settings, Source};
use crate::spill;
use crate::status::Board;
use crate::survey::Survey;

/// Bytes that may be on their way in QUIC for each byte of a frame: enough for the next frame to follow without a pause.
const SEND_WINDOW_FRAMES: usize = 4;

/// Least bytes that may be on their way: 2 Mbit/s through 300 ms, with room.
const MIN_SEND_WINDOW_BYTES: usize = 512 * 1024;

/// Why the agent did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A certificate or key is not what it has to be.
    #[error(transparent)]
    Identity(#[from] spillway_link::identity::Error),
    /// The certificate is for another site.
    #[error(
        "the configuration says site = \"{configured}\", but {file} is for \"{certified}\": correct site, or issue a certificate for it"
    )]
    SiteMismatch {
        /// What the configuration says.
        configured: SiteName,
        /// What the certificate says.
        certified: SiteName,
        /// The certificate's file.
        file: String,
    },
    /// No endpoint.
    #[error(transparent)]
    Link(#[from] spillway_link::client::Error),
    /// librdkafka refuses a setting.
    #[error("the Kafka client cannot be made: check [kafka] and [kafka.librdkafka]")]
    Kafka(#[source] KafkaError),
    /// The reading thread did not start.
    #[error(transparent)]
    Source(#[from] source::Error),
    /// The spill cannot be used.
    #[error(transparent)]
    Spill(#[from] spill::Error),
    /// The asking thread did not start.
    #[error("cannot start a thread")]
    Thread(#[source] std::io::Error),
    /// The admin endpoint did not start.
    #[error(transparent)]
    Admin(#[from] admin::Error),
}

/// Why the service ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// It stopped.
    #[error(transparent)]
    Run(#[from] runner::Error),
}

/// Loads certificates and key, and compares the site's name with the certificate's.
///
/// # Errors
/// What is wrong with the files, and what to do.
pub fn identity(config: &AgentConfig) -> Result<(Identity, SiteName), StartError> {
    let files = IdentityFiles { ca: config.tls.ca.clone(), cert: config.tls.cert.clone(), key: config.tls.key.clone() };
    let identity = Identity::load(&files, Role::Site, SystemTime::now())?;
    let certified = identity.site_name()?;
    if certified != config.site {
        let file = config.tls.cert.display().to_string();
        return Err(StartError::SiteMismatch { configured: config.site.clone(), certified, file });
    }
    Ok((identity, certified))
}

/// How the agent's end of the link behaves.
pub fn link_settings(config: &AgentConfig, frame_bytes: usize) -> LinkSettings {
    let window = (SEND_WINDOW_FRAMES * frame_bytes).max(MIN_SEND_WINDOW_BYTES);
    LinkSettings {
        keep_alive: Some(config.link.keep_alive),
        idle_timeout: config.link.idle_timeout,
        send_window: window as u64,
        congestion: match config.link.congestion {
            config::Congestion::Spillway => Congestion::Spillway,
            config::Congestion::Cubic => Congestion::Cubic,
            config::Congestion::Bbr => Congestion::Bbr,
        },
        ..LinkSettings::agent()
    }
}

/// The endpoint that dials collectors. Must be called within a Tokio runtime.
///
/// # Errors
/// When no UDP port can be bound.
pub fn link(config: &AgentConfig, identity: &Identity, frame_bytes: usize, cap: RateCap) -> Result<LinkClient, StartError> {
    let link = LinkClient::new(identity, &link_settings(config, frame_bytes), cap)?;
    link.set_profile(link_profile(config.link.profile));
    Ok(link)
}

/// What connections are made for.
pub(crate) fn link_profile(profile: config::Profile) -> Profile {
    match profile {
        config::Profile::Normal => Profile::Normal,
        config::Profile::Metered => Profile::Metered,
        config::Profile::Session => Profile::Session,
    }
}

/// The cap of the agent's own `link.rate_max`.
pub fn cap(config: &AgentConfig) -> RateCap {
    RateCap::new(config.link.rate_max.and_then(|rate| BitRate::new(rate.bits_per_second())))
}

/// Every buffer's bound.
pub fn shares(config: &AgentConfig) -> Shares {
    let (link, has_spill) = (&config.link, config.spill.max_bytes.is_some());
    let compression = (link.compression_level.most(), link.compression_memory.as_usize());
    Shares::of(config.memory_max.as_usize(), link.frame_max_bytes.as_usize(), compression, config.flows().len(), has_spill)
}

/// Runs the agent until `stop` is cancelled and the drain is over.
///
/// # Errors
/// When it cannot start, or when going on would lose or duplicate data.
pub async fn run(config: AgentConfig, stop: CancellationToken) -> Result<Ended, Error> {
    Box::pin(run_with(config, Patience::default(), stop)).await
}

/// As [`run`], with another patience with new settings of the centre.
///
/// # Errors
/// As [`run`].
pub async fn run_with(config: AgentConfig, patience: Patience, stop: CancellationToken) -> Result<Ended, Error> {
    let (identity, site) = identity(&config)?;
    let shares = shares(&config);
    tracing::debug!(?shares, "memory");
    let cap = cap(&config);
    let plan = Plan::open(config.state_dir.clone(), config.link.rate_max, cap.clone(), patience);
    let link = Arc::new(link(&config, &identity, shares.frame_bytes, cap)?);
    let flows = Flows::new(&config);
    let spill = spill::open(&config, &shares, &flows).map_err(StartError::Spill)?;
    let consumer = Arc::new(source::consumer(&config.kafka.client, &site, &shares).map_err(StartError::Kafka)?);
    let mut registry = Metrics::new("spillway-agent");
    let metrics = AgentMetrics::register(&mut registry);
    let board = Arc::new(Board::new());
    let admin = match config.admin.listen {
        Some(listen) => Some(AdminServer::start(listen, Arc::clone(&board) as Arc<_>, Arc::new(registry)).map_err(StartError::Admin)?),
        None => None,
    };
    let urgent = flows.specs.iter().map(|spec| spec.class.is_urgent());
    let budget = Arc::new(Budget::new(budget::Shares::new(shares.in_flight_bytes, urgent)));
    let limits = FrameLimits {
        max_bytes: shares.frame_bytes,
        max_records: config.link.frame_max_records,
        linger: config.link.frame_linger,
        // Until a session says otherwise. What is spilled before may be larger than the collector takes: see `Spool::read`.
        largest_raw: spillway_proto::limits::MAX_FRAME_RAW_BYTES,
    };
    let dictionaries = Arc::new(Dictionaries::default());
    let settings = Settings {
        limits,
        compression_level: config.link.compression_level.fixed(),
        compression_memory: shares.compressor_bytes,
        dictionaries: Arc::clone(&dictionaries),
        budget: Arc::clone(&budget),
        metrics: metrics.clone(),
        flow_of: Arc::clone(&flows.of),
        specs: flows.specs.clone(),
    };
    let source = Source::start(Arc::clone(&consumer), settings).map_err(StartError::Source)?;
    let inquirer = source::inquirer(&config.kafka.client, &site).map_err(StartError::Kafka)?;
    let survey = Survey::start(inquirer, config.topics.clone()).map_err(StartError::Thread)?;
    let listening = admin.as_ref().map(AdminServer::address);
    let on_ready: Box<dyn FnOnce() + Send> = Box::new(move || notify::ready("spillway-agent", listening, None));
    let on_ready = Some(on_ready);
    let parts = Parts { config, flows, link, consumer, source, survey, budget, dictionaries, spill, plan, metrics, board, on_ready };
    Ok(Box::pin(runner::run(parts, stop)).await?)
}
