use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use spillway_proto::SiteName;

use crate::kafka::Side;
use crate::layer::{Item, Value};
use crate::load::{self, Reference};
use crate::parse::{self, Flaw};
use crate::reader::{Reported, Table};
use crate::settings::{PROFILES, RATE_LEAST_BITS};
use crate::units::{BitRate, ByteSize, DurationText};
use crate::{
    AdminConfig, HostPort, KafkaClient, LogConfig, OnGap, Problem, Problems, Profile, ShutdownConfig, SpillConfig, StartFrom, TlsFiles,
    TopicsConfig, WhenFull, address, flows, site,
};

/// The commented reference file of the agent: what `spillway-agent config` prints, and the bottom layer of every configuration.
pub const AGENT_REFERENCE: &str = include_str!("../reference/agent.toml");

pub(crate) const REFERENCE: Reference = Reference { name: "agent.toml", text: AGENT_REFERENCE };

/// Everything the agent can be told. Fields have the names of the file's keys.
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// Name of this site, `[a-zA-Z0-9_-]{1,32}`; must be the name in the certificate. Required.
    pub site: SiteName,
    /// Bound of the memory of the whole process. Default 64 MiB, at least 32 MiB, with a spill [`MEMORY_LEAST_WITH_SPILL`].
    pub memory_max: ByteSize,
    /// Folder of what the agent remembers beside the spill: the centre's settings for the site, what is used up of its budget. Made if it is not there; for this
    /// agent alone. Default `/var/lib/spillway`.
    pub state_dir: PathBuf,
    /// The site's Kafka.
    pub kafka: AgentKafka,
    /// What is mirrored.
    pub topics: TopicsConfig,
    /// Where the collectors are.
    pub collector: CollectorAddress,
    /// Who we are, and whom we trust.
    pub tls: TlsFiles,
    /// The connection to the collector.
    pub link: LinkConfig,
    /// What waits on disk.
    pub spill: SpillConfig,
    /// The end.
    pub shutdown: ShutdownConfig,
    /// Metrics, health and status.
    pub admin: AdminConfig,
    /// The log.
    pub log: LogConfig,
    /// What is allowed but odd (a key file that others can read). Log each at `warn` and go on.
    pub warnings: Vec<Problem>,
}

/// `[kafka]` of the agent.
#[derive(Debug, Clone)]
pub struct AgentKafka {
    /// How the cluster is reached.
    pub client: KafkaClient,
    /// Where a partition starts for which the centre holds no progress. Default earliest. A topic rule may differ: see
    /// [`AgentConfig::start_of`].
    pub start: StartFrom,
    /// What to do when offsets have vanished at the source. Default continue. A topic rule may differ: see [`AgentConfig::on_gap_of`].
    pub on_gap: OnGap,
    /// How often acknowledged offsets are committed to the local group. Default 5 s, 1 s to 5 min.
    pub commit_interval: Duration,
}

/// `[collector]` of the agent.
#[derive(Debug, Clone)]
pub struct CollectorAddress {
    /// Tried in order, each attempt begins with the first. At least 1, at most 16. Required.
    pub addresses: Vec<HostPort>,
    /// Name expected in the collector's certificate, where it differs from the host of the address. Default: the host.
    pub server_name: Option<String>,
}

/// `[link]`.
#[derive(Debug, Clone)]
pub struct LinkConfig {
    /// Most bits a second on the wire, UDP and IP headers included. Default `None`: unlimited. At least 8 kbit.
    pub rate_max: Option<BitRate>,
    /// A frame is closed when it holds so many uncompressed bytes; a larger record travels in a frame of its own.
    /// Default 256 KiB, 4 KiB to 8 MiB, at most 1/16 of `memory_max`.
    pub frame_max_bytes: ByteSize,
    /// A frame is closed when it holds so many records. Default 10,000, 1 to 1,000,000.
    pub frame_max_records: u32,
    /// A frame is closed so long after its first record. Default 50 ms, 1 ms to 10 s.
    pub frame_linger: Duration,
    /// zstd level. Default auto.
    pub compression_level: CompressionLevel,
    /// Most bytes of zstd's tables. Default 16 MiB, 2 MiB to 64 MiB; cut to what `memory_max` has room for.
    pub compression_memory: ByteSize,
    /// What decides how much may be on its way. Default ours.
    pub congestion: Congestion,
    /// What the line is paid by. Default normal.
    pub profile: Profile,
    /// With the profile `session`: the next session begins so long after the last one at the latest. Default 15 min, 10 s to 7 days.
    pub session_interval: Duration,
    /// … or when so many encoded bytes wait. Default 1 MiB, 16 KiB to 1 GiB.
    pub session_bytes: ByteSize,
    /// A quiet connection sends a packet so often, to keep NAT bindings. Default 25 s, 1 s to 10 min, at most half of `idle_timeout`.
    pub keep_alive: Duration,
    /// A connection on which nothing is heard for so long is given up. Default 60 s, 5 s to 30 min.
    pub idle_timeout: Duration,
    /// Longest pause between two attempts to connect, jitter included. Default 30 s, 1 s to 30 s.
    pub redial_max: Duration,
    /// While the link goes over TCP because UDP is blocked, UDP is asked for so often. Default a day, 10 s to 30 days.
    pub udp_retry: Duration,
}

/// `link.congestion`: which algorithm decides how much may be on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Congestion {
    /// Spillway's own: a model of the line, for thin, long and lossy ones.
    Spillway,
    /// CUBIC, as most of the internet: takes loss for congestion.
    Cubic,
    /// BBR, version 1.
    Bbr,
}

impl Congestion {
    /// As it is written in the file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Spillway => "spillway",
            Self::Cubic => "cubic",
            Self::Bbr => "bbr",
        }
    }

    fn parse(item: &Item) -> Result<Self, Flaw> {
        const WORDS: &[(&str, Congestion)] = &[
            (Congestion::Spillway.as_str(), Congestion::Spillway),
            (Congestion::Cubic.as_str(), Congestion::Cubic),
            (Congestion::Bbr.as_str(), Congestion::Bbr),
        ];
        parse::word(WORDS)(item)
    }
}

/// `link.compression_level`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompressionLevel {
    /// By what is scarce, the line or the processor.
    Auto,
    /// Always this one.
    Fixed(i32),
}

impl CompressionLevel {
    /// Level 12 is the last whose memory a gateway has.
    const MOST: i32 = 12;

    /// The level that is fixed, if one is.
    pub fn fixed(self) -> Option<i32> {
        match self {
            Self::Auto => None,
            Self::Fixed(level) => Some(level),
        }
    }

    /// The highest level that may be used.
    pub fn most(self) -> i32 {
        self.fixed().unwrap_or(Self::MOST)
    }

    fn parse(item: &Item) -> Result<Self, Flaw> {
        if matches!(&item.value, Value::Text(text) | Value::Untyped(text) if text == "auto") {
            return Ok(Self::Auto);
        }
        let advice = || format!("write \"auto\", or a whole number from 1 to {}, without quotes", Self::MOST);
        parse::integer(1..=Self::MOST)(item).map(Self::Fixed).map_err(|flaw| Flaw::new(flaw.what, advice()))
    }
}

/// librdkafka, zstd, TLS and the program itself take about 20 MiB before the first record.
const MEMORY_LEAST: ByteSize = ByteSize::from_mib(32);

/// What is written to the spill, and read from it, passes through memory in blocks.
pub const MEMORY_LEAST_WITH_SPILL: ByteSize = ByteSize::from_mib(48);

/// A gateway has a few GiB; more than this is a slip of the pen.
const MEMORY_MOST: ByteSize = ByteSize::from_mib(64 << 10);

/// Frames of the largest size that must fit into `memory_max`: a quarter of it is for frames in flight, and fewer than four of them
/// would let the link idle while it waits for an ack.
const FRAMES_PER_MEMORY: u64 = 16;

/// Most addresses of collectors: a round of attempts should not take for ever.
const ADDRESSES_MAX: usize = 16;

/// The port of the collector's reference file.
const COLLECTOR_PORT: u16 = 4433;

/// What makes the agent's files, where the authority is kept.
const ISSUE: &str = "spillway-collector pki issue SITE --dir DIR --out DIR";

impl AgentConfig {
    /// Loads a configuration: the reference file, then the file at `path`, then the variables `SPILLWAY_…` of `environment`
    /// (`std::env::vars_os()`, or what a test wants). Files it names are looked at, nothing is changed and nothing is connected to.
    ///
    /// # Errors
    /// [`Problems`] has all of them, not just the first.
    pub fn load<K, V>(path: &Path, environment: impl IntoIterator<Item = (K, V)>) -> Result<Self, Problems>
    where
        K: Into<OsString>,
        V: Into<OsString>,
    {
        let (config, warnings) = load::load(&REFERENCE, path, environment, Self::read)?;
        Ok(Self { warnings, ..config })
    }

    /// Where partitions of a topic start for which the centre holds no progress.
    pub fn start_of(&self, topic: &str) -> StartFrom {
        self.topics.rule_for(topic).and_then(|rule| rule.start).unwrap_or(self.kafka.start)
    }

    /// What to do when offsets of a topic have vanished.
    pub fn on_gap_of(&self, topic: &str) -> OnGap {
        self.topics.rule_for(topic).and_then(|rule| rule.on_gap).unwrap_or(self.kafka.on_gap)
    }

    /// What happens to the records of a topic when the spill is full.
    pub fn when_full_of(&self, topic: &str) -> WhenFull {
        self.topics.rule_for(topic).and_then(|rule| rule.when_full).unwrap_or(self.spill.when_full)
    }

    pub(crate) fn read(table: &Table<'_>) -> Result<Self, Reported> {
        let site = table.required("site", |item| site::name(&parse::text(item)?));
        let memory_max = table.required("memory_max", parse::size(MEMORY_LEAST..=MEMORY_MOST));
        let state_dir = table.required_path("state_dir");
        let kafka = table.table("kafka", AgentKafka::read);
        let topics = table.table("topics", TopicsConfig::read);
        let collector = table.table("collector", CollectorAddress::read);
        let tls = table.table("tls", |table| TlsFiles::read(table, ISSUE));
        let memory = memory_max.as_ref().ok().copied();
        let link = table.table("link", |table| LinkConfig::read(table, memory));
        let spill = table.table("spill", SpillConfig::read);
        let shutdown = table.table("shutdown", ShutdownConfig::read);
        let admin = table.table("admin", AdminConfig::read);
        let log = table.table("log", LogConfig::read);
        if let (Some(memory_max), Ok(topics), Ok(spill)) = (memory, &topics, &spill) {
            flows::check_memory(table, memory_max, topics, spill)?;
        }
        Ok(Self {
            site: site?,
            memory_max: memory_max?,
            state_dir: state_dir?,
            kafka: kafka?,
            topics: topics?,
            collector: collector?,
            tls: tls?,
            link: link?,
            spill: spill?,
            shutdown: shutdown?,
            admin: admin?,
            log: log?,
            warnings: Vec::new(),
        })
    }
}

impl AgentKafka {
    fn read(table: &Table<'_>) -> Result<Self, Reported> {
        let client = KafkaClient::read(table, Side::Agent);
        let start = table.required("start", StartFrom::parse);
        let on_gap = table.required("on_gap", OnGap::parse);
        let commit_interval = table.required("commit_interval", parse::duration(seconds(1)..=seconds(5 * 60)));
        Ok(Self { client: client?, start: start?, on_gap: on_gap?, commit_interval: commit_interval? })
    }
}

impl CollectorAddress {
    fn read(table: &Table<'_>) -> Result<Self, Reported> {
        let addresses = table.required("address", |item| address::list(item, ADDRESSES_MAX, COLLECTOR_PORT));
        let server_name = table.optional("server_name", parse::text);
        Ok(Self { addresses: addresses?, server_name: server_name? })
    }
}

impl LinkConfig {
    fn read(table: &Table<'_>, memory_max: Option<ByteSize>) -> Result<Self, Reported> {
        let rate_max = table.required("rate_max", parse::rate_limit(RATE_LEAST_BITS));
        let frame_bytes = ByteSize::from_kib(4)..=ByteSize::from_mib(8);
        let frame_max_bytes = table.required("frame_max_bytes", parse::size(frame_bytes));
        let frame_max_records = table.required("frame_max_records", parse::integer(1..=1_000_000));
        let frame_linger = table.required("frame_linger", parse::duration(Duration::from_millis(1)..=seconds(10)));
        let compression_level = table.required("compression_level", CompressionLevel::parse);
        let memory_bounds = ByteSize::from_mib(2)..=ByteSize::from_mib(64);
        let compression_memory = table.required("compression_memory", parse::size(memory_bounds));
        let congestion = table.required("congestion", Congestion::parse);
        let profile = table.required("profile", parse::word(PROFILES));
        let session_interval = table.required("session_interval", parse::duration(seconds(10)..=seconds(7 * 86_400)));
        let session_bytes = table.required("session_bytes", parse::size(ByteSize::from_kib(16)..=ByteSize::from_mib(1024)));
        let keep_alive = table.required("keep_alive", parse::duration(seconds(1)..=seconds(10 * 60)));
        let idle_timeout = table.required("idle_timeout", parse::duration(seconds(5)..=seconds(30 * 60)));
        let redial_max = table.required("redial_max", parse::duration(seconds(1)..=seconds(30)));
        let udp_retry = table.required("udp_retry", parse::duration(seconds(10)..=seconds(30 * 86_400)));
        let link = Self {
            rate_max: rate_max?,
            frame_max_bytes: frame_max_bytes?,
            frame_max_records: frame_max_records?,
            frame_linger: frame_linger?,
            compression_level: compression_level?,
            compression_memory: compression_memory?,
            congestion: congestion?,
            profile: profile?,
            session_interval: session_interval?,
            session_bytes: session_bytes?,
            keep_alive: keep_alive?,
            idle_timeout: idle_timeout?,
            redial_max: redial_max?,
            udp_retry: udp_retry?,
        };
        let checks = [link.check_frame(table, memory_max), link.check_keep_alive(table)];
        checks.into_iter().collect::<Result<(), _>>()?;
        Ok(link)
    }

    fn check_frame(&self, table: &Table<'_>, memory_max: Option<ByteSize>) -> Result<(), Reported> {
        let Some(memory_max) = memory_max else { return Ok(()) };
        let most = ByteSize::from_bytes(memory_max.bytes() / FRAMES_PER_MEMORY);
        if self.frame_max_bytes <= most {
            return Ok(());
        }
        let what = format!("more than 1/{FRAMES_PER_MEMORY} of memory_max = \"{memory_max}\"");
        let fix = format!("write \"{most}\" or less, or raise memory_max");
        Err(table.contradiction("frame_max_bytes", Flaw::new(what, fix)))
    }

    fn check_keep_alive(&self, table: &Table<'_>) -> Result<(), Reported> {
        if self.keep_alive <= self.idle_timeout / 2 {
            return Ok(());
        }
        let (keep_alive, idle_timeout) = (DurationText(self.keep_alive), DurationText(self.idle_timeout));
        let consequence = "one lost packet would end a quiet connection";
        let fix = "lower keep_alive or raise idle_timeout";
        Err(match table.stronger("keep_alive", "idle_timeout") {
            "keep_alive" => {
                let what = format!("more than half of idle_timeout = \"{idle_timeout}\": {consequence}");
                table.contradiction("keep_alive", Flaw::new(what, fix))
            }
            _ => {
                let what = format!("less than twice keep_alive = \"{keep_alive}\": {consequence}");
                table.contradiction("idle_timeout", Flaw::new(what, fix))
            }
        })
    }
}

const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}
