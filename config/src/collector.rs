use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::kafka::Side;
use crate::layer::Item;
use crate::load::{self, Reference};
use crate::parse::{self, Flaw};
use crate::reader::{Reported, Table};
use crate::units::{ByteSize, DurationText};
use crate::{AdminConfig, KafkaClient, LogConfig, Problem, Problems, ShutdownConfig, SiteFile, TlsFiles, common};

/// The commented reference file of the collector: what `spillway-collector config` prints, and the bottom layer of every configuration.
pub const COLLECTOR_REFERENCE: &str = include_str!("../reference/collector.toml");

pub(crate) const REFERENCE: Reference = Reference { name: "collector.toml", text: COLLECTOR_REFERENCE };

/// Everything the collector can be told. Fields have the names of the file's keys.
#[derive(Debug, Clone)]
pub struct CollectorConfig {
    /// Where agents connect.
    pub listen: ListenConfig,
    /// Who we are, and whom we trust.
    pub tls: TlsFiles,
    /// How the central Kafka is reached.
    pub kafka: KafkaClient,
    /// Remote topics and our own.
    pub topics: RemoteTopicsConfig,
    /// Which sites are known.
    pub sites: SitesConfig,
    /// Transactions at the central Kafka.
    pub transactions: TransactionsConfig,
    /// Limits of one site's session.
    pub session: SessionConfig,
    /// The end.
    pub shutdown: ShutdownConfig,
    /// Metrics, health and status.
    pub admin: AdminConfig,
    /// The log.
    pub log: LogConfig,
    /// What is allowed but odd (a key file that others can read, a key of a site file without effect). Log each at `warn` and go on.
    pub warnings: Vec<Problem>,
    /// What is wrong in site files. It concerns those sites alone: log each at `warn` and go on.
    pub site_problems: Vec<Problem>,
}

/// `[listen]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenConfig {
    /// Address for agents. Default `[::]:4433` (IPv4 and IPv6).
    pub address: SocketAddr,
    /// Serve TCP as well, for agents whose UDP is blocked. Default true.
    pub tcp: bool,
    /// Most connections at a time; more are refused. Default 2,000, 1 to 100,000.
    pub max_connections: u32,
}

/// `[topics]` of the collector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteTopicsConfig {
    /// Replication factor of remote topics when they are created. Default -1: the cluster's own default.
    pub replication_factor: i32,
    /// Between site and topic in the name of a remote topic. Default `.`; 1 to 16 characters that topic names may have, one of them a
    /// dot (site names have none, so that no two sites can share a remote topic).
    pub separator: String,
    /// Replication factor of `spillway-progress.internal`, `spillway-gaps.internal` and MirrorMaker's internal topics. Default -1: the
    /// cluster's own default.
    pub internal_replication_factor: i32,
    /// Partitions of `spillway-progress.internal` when it is created. Default 16, 1 to 1,000; has no effect later.
    pub progress_partitions: i32,
}

/// `[sites]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SitesConfig {
    /// Folder of the site files (see [`crate::SiteFile`]). Default `None`: every site with a valid certificate is known and enabled.
    pub dir: Option<PathBuf>,
}

/// `[transactions]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionsConfig {
    /// A site's transaction is committed when it holds so many record bytes. Default 8 MiB, 64 KiB to 256 MiB.
    pub max_bytes: ByteSize,
    /// … or so long after its first record. Default 250 ms, 10 ms to 10 s.
    pub interval: Duration,
    /// `transaction.timeout.ms`: the brokers abort a transaction of a dead collector after so long. Default 60 s, 10 s to 15 min.
    pub timeout: Duration,
    /// The producer of a site that sends nothing is closed after so long. Default 5 min, 10 s to 1 day.
    pub idle_close: Duration,
}

/// `[session]`: what one site may cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionConfig {
    /// Most uncompressed bytes of a frame. Default 16 MiB, 1 MiB to 256 MiB.
    pub max_frame_bytes: ByteSize,
    /// Most frame bytes on the wire that a site may have unacknowledged. Default 16 MiB, 1 MiB to 256 MiB, at least `max_frame_bytes`
    /// (a frame that does not compress must fit).
    pub max_inflight_bytes: ByteSize,
}

/// Kafka counts replicas in 16 bits.
const REPLICATION_FACTOR_MOST: i32 = i16::MAX as i32;

/// Names of topics have 249 characters, a site's name up to 32.
const SEPARATOR_MAX_CHARS: usize = 16;

/// What makes the collector's files.
const ISSUE: &str = "spillway-collector pki init --dir DIR --host NAME";

impl CollectorConfig {
    /// Loads a configuration: the reference file, then the file at `path`, then the variables `SPILLWAY_…` of `environment`
    /// (`std::env::vars_os()`, or what a test wants). Files it names are looked at, nothing is changed and nothing is connected to. What is
    /// wrong in site files is no error: it is among `site_problems`, and concerns that site alone.
    ///
    /// # Errors
    /// [`Problems`] has all of them, not just the first.
    pub fn load<K, V>(path: &Path, environment: impl IntoIterator<Item = (K, V)>) -> Result<Self, Problems>
    where
        K: Into<OsString>,
        V: Into<OsString>,
    {
        let (config, mut warnings) = load::load(&REFERENCE, path, environment, Self::read)?;
        let sites = config.sites.dir.as_deref().map(SiteFile::check_all).unwrap_or_default();
        warnings.extend(sites.warnings);
        Ok(Self { warnings, site_problems: sites.problems, ..config })
    }

    pub(crate) fn read(table: &Table<'_>) -> Result<Self, Reported> {
        let listen = table.table("listen", ListenConfig::read);
        let tls = table.table("tls", |table| TlsFiles::read(table, ISSUE));
        let kafka = table.table("kafka", |table| KafkaClient::read(table, Side::Collector));
        let topics = table.table("topics", RemoteTopicsConfig::read);
        let sites = table.table("sites", |table| Ok(SitesConfig { dir: table.optional_folder("dir")? }));
        let transactions = table.table("transactions", TransactionsConfig::read);
        let session = table.table("session", SessionConfig::read);
        let shutdown = table.table("shutdown", ShutdownConfig::read);
        let admin = table.table("admin", AdminConfig::read);
        let log = table.table("log", LogConfig::read);
        Ok(Self {
            listen: listen?,
            tls: tls?,
            kafka: kafka?,
            topics: topics?,
            sites: sites?,
            transactions: transactions?,
            session: session?,
            shutdown: shutdown?,
            admin: admin?,
            log: log?,
            warnings: Vec::new(),
            site_problems: Vec::new(),
        })
    }
}

impl ListenConfig {
    fn read(table: &Table<'_>) -> Result<Self, Reported> {
        let address = table.required("address", common::listen_address);
        let max_connections = table.required("max_connections", parse::integer(1..=100_000));
        let tcp = table.required("tcp", parse::boolean);
        Ok(Self { address: address?, tcp: tcp?, max_connections: max_connections? })
    }
}

impl RemoteTopicsConfig {
    fn read(table: &Table<'_>) -> Result<Self, Reported> {
        let of_remote_topics = table.required("replication_factor", replication_factor);
        let separator = table.required("separator", separator);
        let of_internal_topics = table.required("internal_replication_factor", replication_factor);
        let progress_partitions = table.required("progress_partitions", parse::integer(1..=1_000));
        Ok(Self {
            replication_factor: of_remote_topics?,
            separator: separator?,
            internal_replication_factor: of_internal_topics?,
            progress_partitions: progress_partitions?,
        })
    }
}

impl TransactionsConfig {
    fn read(table: &Table<'_>) -> Result<Self, Reported> {
        let bytes = ByteSize::from_kib(64)..=ByteSize::from_mib(256);
        let max_bytes = table.required("max_bytes", parse::size(bytes));
        let interval = table.required("interval", parse::duration(Duration::from_millis(10)..=seconds(10)));
        let timeout = table.required("timeout", parse::duration(seconds(10)..=seconds(15 * 60)));
        let idle_close = table.required("idle_close", parse::duration(seconds(10)..=seconds(24 * 60 * 60)));
        let transactions = Self { max_bytes: max_bytes?, interval: interval?, timeout: timeout?, idle_close: idle_close? };
        if transactions.interval > transactions.timeout / 4 {
            let timeout = DurationText(transactions.timeout);
            let what = format!("more than a quarter of timeout = \"{timeout}\": the brokers would abort what is still being filled");
            return Err(table.contradiction("interval", Flaw::new(what, "lower interval or raise timeout")));
        }
        Ok(transactions)
    }
}

impl SessionConfig {
    fn read(table: &Table<'_>) -> Result<Self, Reported> {
        let bytes = ByteSize::from_mib(1)..=ByteSize::from_mib(256);
        let max_frame_bytes = table.required("max_frame_bytes", parse::size(bytes.clone()));
        let max_inflight_bytes = table.required("max_inflight_bytes", parse::size(bytes));
        let session = Self { max_frame_bytes: max_frame_bytes?, max_inflight_bytes: max_inflight_bytes? };
        if session.max_inflight_bytes < session.max_frame_bytes {
            let Self { max_frame_bytes, max_inflight_bytes } = session;
            let consequence = "a frame that does not compress could never be sent";
            let fix = "raise max_inflight_bytes or lower max_frame_bytes";
            return Err(match table.stronger("max_inflight_bytes", "max_frame_bytes") {
                "max_inflight_bytes" => {
                    let what = format!("less than max_frame_bytes = \"{max_frame_bytes}\": {consequence}");
                    table.contradiction("max_inflight_bytes", Flaw::new(what, fix))
                }
                _ => {
                    let what = format!("more than max_inflight_bytes = \"{max_inflight_bytes}\": {consequence}");
                    table.contradiction("max_frame_bytes", Flaw::new(what, fix))
                }
            });
        }
        Ok(session)
    }
}

fn replication_factor(item: &Item) -> Result<i32, Flaw> {
    let fix = format!("write a whole number from 1 to {REPLICATION_FACTOR_MOST}, or -1 for the cluster's own default, without quotes");
    let number = parse::integer(-1..=REPLICATION_FACTOR_MOST)(item).map_err(|flaw| Flaw { fix: fix.clone(), ..flaw })?;
    if number == 0 { Err(Flaw::new("out of bounds", fix)) } else { Ok(number) }
}

fn separator(item: &Item) -> Result<String, Flaw> {
    let text = parse::text(item)?;
    let fix = format!("write 1 to {SEPARATOR_MAX_CHARS} of the characters a-z A-Z 0-9 . _ -, one of them a dot");
    if text.len() > SEPARATOR_MAX_CHARS {
        return Err(Flaw::new("too long", fix));
    }
    if !text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')) {
        return Err(Flaw::new("has a character that names of topics cannot have", fix));
    }
    if !text.contains('.') {
        return Err(Flaw::new("has no dot: two sites could share a remote topic (a-b + c, a + b-c)", fix));
    }
    Ok(text)
}

const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}
