//! A whole deployment: certificates, one agent, one or more collectors of one centre, and the link between them.
//!
//! | module | what it is for |
//! |---|---|
//! | [`config_file`] | `agent.toml` and `collector.toml` from keys and values |
//! | [`pki`] | certificates, made by the real command |
//! | [`program`] | one real binary: start, stop, kill, logs, metrics |

pub mod config_file;
pub mod pki;
pub mod program;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::client::Client;
use crate::notice;
use crate::oracle::{Report, judge, wait_drained};
use crate::ports::free_port;
use crate::reaper::{Reaper, scratch_dir};
use crate::relay::Relay;
use crate::spill_dir;
use crate::wait::wait_until;
use config_file::ConfigFile;
use pki::{Identity, Pki};
use program::Program;

/// What a deployment shall be like.
#[derive(Debug, Clone)]
pub struct StageOptions {
    /// The site's name; tests that share a cluster need different ones.
    pub site: String,
    /// The site's Kafka.
    pub source: Client,
    /// The central Kafka.
    pub centre: Client,
    /// `topics.include` of the agent.
    pub include: Vec<String>,
    /// How many collectors there are.
    pub collectors: usize,
}

/// A deployment. Nothing runs until [`Stage::start`]; dropping it kills what runs, and keeps the logs if a test is failing.
#[derive(Debug)]
pub struct Stage {
    /// The site's name.
    pub site: String,
    /// The site's Kafka.
    pub source: Client,
    /// The central Kafka.
    pub centre: Client,
    /// Certificates.
    pub pki: Pki,
    /// The agent.
    pub agent: Program,
    /// The collectors; the link leads to the first.
    pub collectors: Vec<Program>,
    /// Where the collectors listen.
    pub listen: Vec<SocketAddr>,
    /// The link.
    pub relay: Relay,
    dir: PathBuf,
}

impl Stage {
    /// Makes certificates, configuration and the link.
    ///
    /// # Errors
    /// When binaries are missing, or `pki` fails.
    pub fn new(options: StageOptions) -> Result<Self> {
        ensure!(options.collectors > 0, "a stage needs a collector");
        let dir = scratch_dir(&format!("stage-{}", options.site))?;
        let pki = Pki::init(&dir.join("pki"))?;
        let identity = pki.issue(&options.site)?;
        let mut listen = Vec::new();
        let mut collectors = Vec::new();
        for number in 1..=options.collectors {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
            collectors.push(collector(&dir, &format!("collector-{number}"), &pki, &options.centre, address)?);
            listen.push(address);
        }
        let relay = Relay::start(*listen.first().context("no collector")?)?;
        let mut agent = agent(&dir, "agent", &options.site, &pki, &identity, &options.source)?;
        agent.config.set("topics.include", options.include);
        agent.config.set("collector.address", relay.address().to_string());
        Ok(Self { site: options.site, source: options.source, centre: options.centre, pki, agent, collectors, listen, relay, dir })
    }

    /// Starts all collectors, then the agent, and waits until each is ready.
    ///
    /// # Errors
    /// When one does not get ready.
    pub fn start(&mut self) -> Result<()> {
        self.start_collectors()?;
        self.agent.start()
    }

    /// Starts all collectors and waits until each is ready.
    ///
    /// # Errors
    /// When one does not get ready.
    pub fn start_collectors(&mut self) -> Result<()> {
        self.collectors.iter_mut().try_for_each(Program::start)
    }

    /// The collector at `index`.
    ///
    /// # Errors
    /// When there are not so many.
    pub fn collector(&mut self, index: usize) -> Result<&mut Program> {
        self.collectors.get_mut(index).with_context(|| format!("there is no collector {index}"))
    }

    /// Leads the link to the collector at `index`.
    ///
    /// # Errors
    /// When there are not so many.
    pub fn move_to(&self, index: usize) -> Result<()> {
        self.relay.set_target(*self.listen.get(index).with_context(|| format!("there is no collector {index}"))?);
        Ok(())
    }

    /// Files of this deployment.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where the agent's spill is.
    #[must_use]
    pub fn spill_dir(&self) -> PathBuf {
        self.dir.join("agent-spill")
    }

    /// Waits until the local group has committed the end of every partition of `topics` and the spill is empty: everything is at the centre and
    /// acknowledged.
    ///
    /// # Errors
    /// When it is not so within `limit`; the message says how far it is.
    pub fn wait_drained(&mut self, topics: &[&str], limit: Duration) -> Result<()> {
        wait_drained(&self.source, &self.site, topics, limit)?;
        // The group is past what is durable here.
        let spill = self.spill_dir();
        wait_until("the spill is drained", limit, || Ok(spill_dir::is_empty(&spill)))
    }

    /// Compares source and centre.
    ///
    /// # Errors
    /// As of [`judge`].
    pub fn judge(&self, topics: &[&str]) -> Result<Report> {
        judge(&self.source, &self.centre, &self.site, topics)
    }

    /// The name of the local group.
    #[must_use]
    pub fn group(&self) -> String {
        format!("spillway-{}", self.site)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Ok(reaper) = Reaper::global()
        {
            reaper.keep_logs();
            notice::tell(format_args!("logs and configuration files stay in {}", self.dir.display()));
        }
    }
}

/// A collector that listens at `address`, not started.
///
/// # Errors
/// When the binary was not built.
pub fn collector(dir: &Path, name: &str, pki: &Pki, centre: &Client, address: SocketAddr) -> Result<Program> {
    let admin = free_port()?;
    let mut config = ConfigFile::default();
    config.set("listen.address", address.to_string());
    let server = pki.server();
    set_tls(&mut config, pki, &server);
    config.set("kafka.bootstrap_servers", centre.bootstrap());
    config.set("admin.listen", format!("127.0.0.1:{admin}"));
    Program::new(name, "spillway-collector", dir, admin, config)
}

/// An agent without topics and collector address, not started.
///
/// # Errors
/// When the binary was not built.
pub fn agent(dir: &Path, name: &str, site: &str, pki: &Pki, identity: &Identity, source: &Client) -> Result<Program> {
    let admin = free_port()?;
    let mut config = ConfigFile::default();
    config.set("site", site);
    set_tls(&mut config, pki, identity);
    config.set("kafka.bootstrap_servers", source.bootstrap());
    config.set("admin.listen", format!("127.0.0.1:{admin}"));
    // Tests look at the group's offsets, at new topics and at the end of a cut; people have minutes.
    config.set("kafka.commit_interval", "1s");
    config.set("topics.refresh_interval", "1s");
    config.set("link.redial_max", "1s");
    // Beside its file.
    config.set("state_dir", format!("{name}-state"));
    config.set("spill.dir", format!("{name}-spill"));
    Program::new(name, "spillway-agent", dir, admin, config)
}

fn set_tls(config: &mut ConfigFile, pki: &Pki, identity: &Identity) {
    config.set("tls.ca", pki.ca().display().to_string());
    config.set("tls.cert", identity.cert.display().to_string());
    config.set("tls.key", identity.key.display().to_string());
}
