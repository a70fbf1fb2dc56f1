//! What `check` tells: the configuration in effect, and with `--connect` whether the other ends answer.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rustix::fs::Access;
use spillway_config::units::DurationText as Text;
use spillway_config::{AgentConfig, LinkConfig, OnGap, Profile, SpillConfig, StartFrom, TopicRule};
use spillway_link::{Explanation, LinkClient, LinkSettings, Way};
use spillway_proto::close::CloseCode;

use crate::memory::Shares;
use crate::service::{self, StartError};
use crate::{source, spill};

/// How long the site's Kafka and each collector may take to answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Most topics that are listed by name.
const MAX_TOPICS_SHOWN: usize = 50;

/// What does not fit.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The agent would not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The site's Kafka does not answer.
    #[error("the site's Kafka at {servers} does not answer: check that it runs, kafka.bootstrap_servers and security_protocol")]
    Kafka {
        /// Where.
        servers: String,
        /// What librdkafka says.
        #[source]
        source: KafkaError,
    },
    /// No collector answers.
    #[error("no collector answers: {0}")]
    Collector(String),
}

/// Loads what `run` would load, and says what it would do. Must be called within a Tokio runtime.
///
/// # Errors
/// What is wrong with certificates, the spill's key and client settings.
pub fn describe(config: &AgentConfig) -> Result<String, Error> {
    let (identity, site) = service::identity(config)?;
    let shares = service::shares(config);
    service::link(config, &identity, shares.frame_bytes, service::cap(config))?;
    source::consumer(&config.kafka.client, &site, &shares).map_err(StartError::Kafka)?;
    let mut out = String::new();
    let mut line = |name: &str, value: String| _ = writeln!(out, "{name:<14}{value}");
    line("site", format!("{site} (certificate {})", config.tls.cert.display()));
    line("kafka", format!("{} ({})", config.kafka.client.bootstrap_servers, config.kafka.client.security_protocol.as_str()));
    line("local group", format!("spillway-{site}, committed every {:?}", config.kafka.commit_interval));
    let patterns = |list: &[spillway_config::Pattern]| list.iter().map(ToString::to_string).collect::<Vec<_>>().join("  ");
    line("topics", format!("{} without {}", patterns(&config.topics.include), patterns(&config.topics.exclude)));
    line("start", format!("{}, where the centre has nothing yet", start(config.kafka.start)));
    line("on a gap", on_gap(config.kafka.on_gap).to_owned());
    for rule in &config.topics.rules {
        line("  rule", format!("{}: {}", rule.pattern, what_differs(rule)));
    }
    line("state", state(&config.state_dir));
    let addresses = config.collector.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    line("collector", addresses);
    line("rate", config.link.rate_max.map_or_else(|| "unlimited".to_owned(), |rate| format!("{} bit/s at most", rate.bits_per_second())));
    line("profile", profile(&config.link));
    let link = service::link_settings(config, shares.frame_bytes).of_profile(service::link_profile(config.link.profile));
    line("keep-alive", keep_alive(&link, &config.link));
    line("congestion", config.link.congestion.as_str().to_owned());
    line("compression", compression(&config.link, &shares));
    line("spill", spilled(&config.spill)?);
    line(
        "memory",
        format!(
            "{} of {}: frames in flight {}, read ahead {}, frame {}",
            mib(shares.total_bytes()),
            config.memory_max,
            mib(shares.in_flight_bytes),
            mib(shares.prefetch_bytes),
            mib(shares.frame_bytes)
        ),
    );
    Ok(out)
}

/// Asks the site's Kafka for its topics and dials every collector. Opens no session.
///
/// # Errors
/// Who does not answer, and what to do.
pub async fn connect(config: &AgentConfig) -> Result<String, Error> {
    let (identity, site) = service::identity(config)?;
    let shares = service::shares(config);
    let consumer = source::inquirer(&config.kafka.client, &site).map_err(StartError::Kafka)?;
    let servers = config.kafka.client.bootstrap_servers.clone();
    let topics = config.topics.clone();
    let ask = move || consumer.fetch_metadata(None, CONNECT_TIMEOUT).map(|metadata| mirrored(&metadata, &topics));
    let listed = tokio::task::spawn_blocking(ask).await.unwrap_or(Err(KafkaError::Canceled));
    let mut out = listed.map_err(|source| Error::Kafka { servers, source })?;
    let link = service::link(config, &identity, shares.frame_bytes, service::cap(config))?;
    let mut answered = false;
    let mut failures = Vec::new();
    for address in &config.collector.addresses {
        let over_udp = dial(&link, config, address, Way::Udp).await;
        // What `run` does after three of them.
        let over_tcp = match &over_udp {
            Err((_, true)) => dial(&link, config, address, Way::Tcp).await.ok(),
            _ => None,
        };
        match (over_udp, over_tcp) {
            (Ok(rtt), _) => {
                answered = true;
                _ = writeln!(out, "collector     {address} answers, round trip {:.0} ms", rtt.as_secs_f64() * 1000.0);
            }
            (Err((why, _)), Some(rtt)) => {
                answered = true;
                let rtt = rtt.as_secs_f64() * 1000.0;
                _ = writeln!(out, "collector     {address} answers over TCP only, round trip {rtt:.0} ms; over UDP: {why}");
            }
            (Err((why, _)), None) => {
                _ = writeln!(out, "collector     {address} does not: {why}");
                failures.push(format!("{address}: {why}"));
            }
        }
    }
    link.shutdown(CloseCode::Done, Duration::from_secs(1)).await;
    if answered { Ok(out) } else { Err(Error::Collector(failures.join("; "))) }
}

/// The round trip; or why there is none, and whether nobody answered.
async fn dial(link: &LinkClient, config: &AgentConfig, address: &spillway_config::HostPort, way: Way) -> Result<Duration, (String, bool)> {
    let told = |why: &Explanation| (why.to_string(), why.is_timeout());
    let connection = crate::session::dial(link, &config.collector, address, way).await.map_err(|error| told(&error.explain()))?;
    // The client finishes the handshake first: a refusal of our certificate comes within a round trip.
    let patience = connection.rtt() * 2 + Duration::from_millis(200);
    match tokio::time::timeout(patience, connection.closed()).await {
        Ok(error) => Err(told(&spillway_link::explain(&error, spillway_link::Side::Agent))),
        Err(_elapsed) => Ok(connection.rtt()),
    }
}

fn mirrored(metadata: &rdkafka::metadata::Metadata, topics: &spillway_config::TopicsConfig) -> String {
    let mut selected = metadata.topics().iter().filter(|topic| topics.selects(topic.name())).collect::<Vec<_>>();
    selected.sort_by_key(|topic| topic.name());
    let partitions = selected.iter().map(|topic| topic.partitions().len()).sum::<usize>();
    let mut out = format!("kafka         answers: {} topics with {partitions} partitions are selected\n", selected.len());
    for topic in selected.iter().take(MAX_TOPICS_SHOWN) {
        _ = writeln!(out, "  topic       {} ({} partitions)", topic.name(), topic.partitions().len());
    }
    if selected.len() > MAX_TOPICS_SHOWN {
        _ = writeln!(out, "  …           and {} more", selected.len() - MAX_TOPICS_SHOWN);
    }
    out
}

fn what_differs(rule: &TopicRule) -> String {
    let start = rule.start.map(|from| format!("start {}", start(from)));
    let on_gap = rule.on_gap.map(|gap| on_gap(gap).to_owned());
    let when_full = rule.when_full.map(|policy| format!("{} when the spill is full", policy.as_str()));
    let class = rule.class.map(|class| format!("class {class}"));
    let weight = rule.weight.map(|weight| format!("weight {weight}"));
    let rate_max = rule.rate_max.map(|rate| format!("{rate} at most"));
    let ttl = rule.ttl.map(|ttl| format!("not sent when older than {ttl:?}"));
    let order = rule.order.map(|order| order.as_str().to_owned());
    [class, weight, rate_max, ttl, order, start, on_gap, when_full].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn mib(bytes: usize) -> String {
    format!("{:.1} MiB", bytes as f64 / 1_048_576.0)
}

/// What the line is paid by, and what follows from it. A site file at the centre may ask for one further on.
fn profile(link: &LinkConfig) -> String {
    let name = link.profile.as_str();
    match link.profile {
        Profile::Normal | Profile::Metered => name.to_owned(),
        Profile::Session => {
            format!("{name}: connects every {}, or when {} wait, or for class 0", Text(link.session_interval), link.session_bytes)
        }
    }
}

/// What connections are made with, and what was asked for where that differs.
fn keep_alive(made: &LinkSettings, asked: &LinkConfig) -> String {
    let differs = |made: Duration, asked: Duration| if made == asked { String::new() } else { format!(" (configured: {})", Text(asked)) };
    let keep_alive = made.keep_alive.unwrap_or(asked.keep_alive);
    format!(
        "every {}{}, given up after {}{} of silence",
        Text(keep_alive),
        differs(keep_alive, asked.keep_alive),
        Text(made.idle_timeout),
        differs(made.idle_timeout, asked.idle_timeout)
    )
}

/// The level, and the memory that zstd has within `memory_max`.
fn compression(link: &LinkConfig, shares: &Shares) -> String {
    let level = link.compression_level.fixed().map_or_else(|| "auto".to_owned(), |level| level.to_string());
    format!("level {level}, {} for tables", mib(shares.compressor_bytes))
}

/// Where it is, and whether this user may write there. Writes nothing.
fn state(dir: &Path) -> String {
    let shown = dir.display();
    // It is made if it is not there.
    let nearest = dir.ancestors().find(|dir| dir.exists()).unwrap_or_else(|| Path::new("."));
    let why = if nearest.is_dir() {
        rustix::fs::access(nearest, Access::WRITE_OK | Access::EXEC_OK).err().map(|error| format!("{}: {error}", nearest.display()))
    } else {
        Some(format!("{} is no folder", nearest.display()))
    };
    why.map_or_else(
        || shown.to_string(),
        |why| format!("{shown}, which this user cannot write ({why}): a site file with a budget would be refused"),
    )
}

/// Where it is, how large at most, and what happens then. Reads the key, if there is one, and writes nothing.
fn spilled(config: &SpillConfig) -> Result<String, Error> {
    let Some(max_bytes) = config.max_bytes else { return Ok("off: nothing is written to disk".to_owned()) };
    let sealed = spill::key(config).map_err(StartError::Spill)?.map_or("", |_| ", encrypted");
    let (dir, policy) = (config.dir.display(), config.when_full.as_str());
    Ok(format!("{dir}, {max_bytes} at most{sealed}, {policy} when full"))
}

fn start(start: StartFrom) -> String {
    match start {
        StartFrom::Earliest => "earliest".to_owned(),
        StartFrom::Latest => "latest".to_owned(),
        StartFrom::Time(time) => time.to_string(),
    }
}

fn on_gap(on_gap: OnGap) -> &'static str {
    match on_gap {
        OnGap::Continue => "continue, and announce it",
        OnGap::Halt => "halt with exit code 5",
    }
}
