//! Spillway and MirrorMaker 2 with a WAN between their ends: the brokers are real or embedded, each in its namespace, and only the contestant crosses the line.
//!
//! MirrorMaker 2 stands at the edge. Its documentation wants it near the centre; on such a line it does best at the edge, since its producer can wait for a
//! batch and its consumer's fetches do not time out.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context as _, Result, anyhow, ensure};
use clap::Args;

use super::contestant::{MirrorMaker, as_shipped_agent};
use super::given;
use super::peer::Congestion;
use crate::client::Client;
use crate::cluster::Cluster;
use crate::java::Tuning;
use crate::kafka_cluster::{KafkaCluster, KafkaOptions};
use crate::ports::free_port;
use crate::process::Daemon;
use crate::reaper::scratch_dir;
use crate::stage;
use crate::stage::pki::Pki;
use crate::stage::program::Program;
use crate::wan::{End, Wan};
use crate::{build, shapes};

/// What every benchmark with both programs on a thin line can be told.
#[derive(Debug, Clone, Args)]
pub struct ThinOptions {
    /// Take agent and collector from this directory in place of building them: for comparing two builds
    #[arg(long, value_name = "DIR", value_parser = given::programs)]
    pub binaries: Option<PathBuf>,
    /// Heap of MirrorMaker 2 in MiB
    #[arg(long, default_value_t = HEAP_MIB, value_parser = clap::value_parser!(u32).range(128..))]
    pub mm2_heap: u32,
    /// What is left to chance is drawn from it; a new one if it is not given
    #[arg(long)]
    pub seed: Option<u64>,
}

/// Of MirrorMaker 2, unless told otherwise.
pub const HEAP_MIB: u32 = 512;

impl ThinOptions {
    /// Where agent and collector lie, built as they ship unless told otherwise.
    ///
    /// # Errors
    /// When they do not build.
    pub fn programs(&self) -> Result<PathBuf> {
        if let Some(dir) = &self.binaries {
            return Ok(dir.clone());
        }
        println!("Building agent and collector as they ship; the first time this takes some minutes.");
        build::release_binaries()
    }

    /// The one that was given, or a new one.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed.unwrap_or_else(shapes::fresh_seed)
    }
}

/// Brokers at both ends of a line. Dropping them ends them.
#[derive(Debug)]
pub struct Ends {
    /// Of the site.
    pub edge: Cluster,
    /// The central ones.
    pub central: Cluster,
    /// Whether the second listener has BBR, or why not.
    bbr: Result<(), String>,
}

/// What contestants are started with.
#[derive(Debug)]
pub struct Field<'a> {
    /// The line.
    pub wan: &'a Wan,
    /// Both ends.
    pub ends: &'a Ends,
    /// The edge's Kafka, as seen at the edge.
    pub source: Client,
    /// The central Kafka, as seen from whoever talks to it.
    pub centre: Client,
    /// A pattern of the topics that are carried.
    pub topics: &'a str,
    /// Where agent and collector lie.
    pub binaries: PathBuf,
    /// MirrorMaker 2's heap, in MiB.
    pub heap_mib: u32,
}

/// Agent and collector. Dropping them kills them.
#[derive(Debug)]
pub struct Spillway {
    /// At the edge.
    pub agent: Program,
    /// At the centre.
    pub collector: Program,
}

impl Ends {
    /// Starts Apache Kafka, or embedded brokers, at both ends. Only a MirrorMaker 2 crosses the line to a broker, and needs Apache Kafka; whoever else talks to one is at
    /// the same end.
    ///
    /// TCP has CUBIC on the whole line, but for a second listener of the central Kafka, which is for those who are to have BBR.
    ///
    /// # Errors
    /// When one does not come up.
    pub fn start(wan: &Wan, kafka: bool) -> Result<Self> {
        println!("Starting brokers at both ends ({}) …", if kafka { "Apache Kafka" } else { "embedded" });
        wan.set_tcp_congestion(Congestion::Cubic.name())?;
        let start = |end: End| {
            wan.inside(end, || {
                if !kafka {
                    return Cluster::start(end.name(), false);
                }
                let options = KafkaOptions { tuning: Tuning::Server, ..KafkaOptions::new(end.name()) };
                let options = if end == End::Centre { KafkaOptions { host: end.address(), second: true, ..options } } else { options };
                Ok(Cluster::Real(Box::new(KafkaCluster::start(options)?)))
            })
        };
        let (edge, central) = (start(End::Edge)?, start(End::Centre)?);
        let bbr = match &central {
            Cluster::Real(central) => wan.set_tcp_congestion_to(central.second_port()?, Congestion::Bbr.name()),
            Cluster::Embedded(_) => Ok(()),
        };
        Ok(Self { edge, central, bbr: bbr.map_err(|error| format!("{error:#}")) })
    }

    /// The central Kafka; with embedded brokers there is none.
    ///
    /// # Errors
    /// When it is embedded.
    pub fn kafka(&self) -> Result<&KafkaCluster> {
        match &self.central {
            Cluster::Real(central) => Ok(central),
            Cluster::Embedded(_) => Err(anyhow!("the brokers are embedded")),
        }
    }
}

impl<'a> Field<'a> {
    /// For contestants that carry `topics`.
    #[must_use]
    pub fn new(wan: &'a Wan, ends: &'a Ends, topics: &'a str, binaries: PathBuf, heap_mib: u32) -> Self {
        Self { wan, ends, source: ends.edge.client(), centre: ends.central.client(), topics, binaries, heap_mib }
    }

    /// Where a MirrorMaker 2 gets into the central Kafka over TCP with that congestion control, and which port that is.
    ///
    /// # Errors
    /// When the kernel lacks it, or the brokers are embedded.
    pub fn door(&self, congestion: Congestion) -> Result<(Client, u16)> {
        let central = self.ends.kafka()?;
        match congestion {
            Congestion::Cubic => Ok((self.centre.clone(), central.plain_port()?)),
            Congestion::Bbr => {
                self.ends.bbr.clone().map_err(|error| anyhow!(error))?;
                let port = central.second_port()?;
                Ok((Client::new(format!("{}:{port}", End::Centre.address())), port))
            }
        }
    }

    /// Starts agent and collector with the settings that they ship with, and waits until the collector is ready.
    ///
    /// # Errors
    /// When one does not come up.
    pub fn spillway(&self, site: &str) -> Result<Spillway> {
        let dir = scratch_dir(&format!("thin-{site}"))?;
        let pki = Pki::init_for(&dir.join("pki"), &[&End::Centre.address().to_string()])?;
        let identity = pki.issue(site)?;
        let (collector, address) = self.wan.inside(End::Centre, || {
            let address: SocketAddr = (End::Centre.address(), free_port()?).into();
            let mut collector = stage::collector(&dir, "collector", &pki, &self.centre, address)?;
            collector.run_from(&self.binaries);
            collector.start()?;
            Ok((collector, address))
        })?;
        let agent = self.wan.inside(End::Edge, || {
            let mut agent = stage::agent(&dir, "agent", site, &pki, &identity, &self.source)?;
            as_shipped_agent(&mut agent, &self.binaries);
            agent.config.set("topics.include", vec![self.topics.to_owned()]);
            agent.config.set("collector.address", address.to_string());
            agent.spawn()?;
            Ok(agent)
        })?;
        Ok(Spillway { agent, collector })
    }

    /// Starts a dedicated MirrorMaker 2 towards `centre` with its default settings and the lines of `tuning`, `SITE` in them being its cluster alias.
    ///
    /// # Errors
    /// When Java is missing.
    pub(super) fn mirror_maker(&self, site: &str, centre: &Client, tuning: &str) -> Result<Daemon> {
        let tuning = tuning.replace("SITE", site);
        let mirror_maker = MirrorMaker::with(&self.source, centre, self.topics, site, self.heap_mib, &tuning)?;
        self.wan.inside(End::Edge, || mirror_maker.spawn()).context("MirrorMaker 2 does not start")
    }
}

impl Spillway {
    /// Whether both still run.
    ///
    /// # Errors
    /// When one has ended, with the end of its log.
    pub fn check(&mut self) -> Result<()> {
        [&mut self.agent, &mut self.collector].into_iter().try_for_each(|program| {
            ensure!(program.is_running(), "it has ended: {}", program.log_lines("").into_iter().next_back().unwrap_or_default());
            Ok(())
        })
    }
}
