//! Who carries the backlog.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context as _, Error, Result, bail, ensure};

use super::records::PATTERN;
use crate::bench::contestant::{MirrorMaker, as_shipped_agent};
use crate::client::Client;
use crate::ports::free_port;
use crate::process::Daemon;
use crate::reaper::scratch_dir;
use crate::stage;
use crate::stage::pki::Pki;
use crate::stage::program::Program;
use crate::wan::{End, Wan};

/// How MirrorMaker 2 is tuned for a thin line: large batches that wait for their fill, zstd, large fetches, and time for them.
const TUNING: &str = "\
centre.producer.compression.type=zstd
centre.producer.linger.ms=500
centre.producer.batch.size=1048576
centre.producer.buffer.memory=67108864
centre.producer.max.request.size=2097152
centre.producer.request.timeout.ms=120000
centre.producer.delivery.timeout.ms=300000
SITE.consumer.max.poll.records=5000
SITE.consumer.fetch.min.bytes=1048576
SITE.consumer.fetch.max.wait.ms=500
SITE.consumer.fetch.max.bytes=52428800
SITE.consumer.max.partition.fetch.bytes=8388608
";

/// MirrorMaker 2 logs what its producer works with, in this form; only a tuned one's has it.
const TUNED: &str = "compression.type = zstd";

/// One contestant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    /// Agent and collector as they ship.
    Spillway,
    /// A dedicated MirrorMaker 2 with its default settings.
    Default,
    /// The same, tuned for a thin line.
    Tuned,
}

/// What all are started with.
#[derive(Debug)]
pub struct Field<'a> {
    /// The line.
    pub wan: &'a Wan,
    /// The edge's Kafka, as seen at the edge.
    pub source: Client,
    /// The central Kafka, as seen from both ends.
    pub centre: Client,
    /// Where agent and collector lie.
    pub binaries: PathBuf,
    /// MirrorMaker 2's heap, in MiB.
    pub heap_mib: u32,
}

/// A contestant that runs. Dropping it kills it.
#[derive(Debug)]
pub enum Running {
    /// Both programs.
    Spillway(Box<[Program; 2]>),
    /// The process, and whether it was tuned.
    MirrorMaker(Box<Daemon>, bool),
}

impl Carrier {
    /// In the order of the table.
    pub const ALL: [Self; 3] = [Self::Spillway, Self::Default, Self::Tuned];

    /// What it is called on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Spillway => "spillway",
            Self::Default => "mm2-default",
            Self::Tuned => "mm2-tuned",
        }
    }

    /// Its site, or cluster alias; each has its own, and so its own remote topics.
    #[must_use]
    pub fn site(self) -> &'static str {
        match self {
            Self::Spillway => "plant-7",
            Self::Default => "plant-8",
            Self::Tuned => "plant-9",
        }
    }

    /// Starts it; what it has to be connected to for that is its own affair.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start(self, field: &Field<'_>) -> Result<Running> {
        match self {
            Self::Spillway => start_spillway(field, self.site()),
            Self::Default => start_mirror_maker(field, self.site(), ""),
            Self::Tuned => start_mirror_maker(field, self.site(), &TUNING.replace("SITE", self.site())),
        }
    }
}

impl fmt::Display for Carrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Carrier {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match Self::ALL.into_iter().find(|carrier| carrier.name() == text) {
            Some(carrier) => Ok(carrier),
            None => bail!("no contestant {text:?}; there are {}", Self::ALL.map(Self::name).join(", ")),
        }
    }
}

impl Running {
    /// Whether it still runs.
    ///
    /// # Errors
    /// When a process has ended, with the end of its log.
    pub fn check(&mut self) -> Result<()> {
        match self {
            Self::Spillway(programs) => programs.iter_mut().try_for_each(|program| {
                ensure!(program.is_running(), "it has ended: {}", program.log_lines("").into_iter().next_back().unwrap_or_default());
                Ok(())
            }),
            Self::MirrorMaker(daemon, _) => {
                ensure!(daemon.is_running(), "it has ended\n{}", daemon.log_tail());
                Ok(())
            }
        }
    }

    /// Whether MirrorMaker 2 has worked with the settings that it was meant to have.
    ///
    /// # Errors
    /// When it has not.
    pub fn was_as_meant(&self) -> Result<()> {
        let Self::MirrorMaker(daemon, tuned) = self else { return Ok(()) };
        let seen = !daemon.log_lines(TUNED).is_empty();
        ensure!(seen == *tuned, "its log {} {TUNED:?}", if seen { "has" } else { "has no" });
        Ok(())
    }
}

fn start_spillway(field: &Field<'_>, site: &str) -> Result<Running> {
    let dir = scratch_dir(&format!("compress-{site}"))?;
    let pki = Pki::init_for(&dir.join("pki"), &[&End::Centre.address().to_string()])?;
    let identity = pki.issue(site)?;
    let (collector, address) = field.wan.inside(End::Centre, || {
        let address: SocketAddr = (End::Centre.address(), free_port()?).into();
        let mut collector = stage::collector(&dir, "collector", &pki, &field.centre, address)?;
        collector.run_from(&field.binaries);
        collector.start()?;
        Ok((collector, address))
    })?;
    let agent = field.wan.inside(End::Edge, || {
        let mut agent = stage::agent(&dir, "agent", site, &pki, &identity, &field.source)?;
        as_shipped_agent(&mut agent, &field.binaries);
        agent.config.set("topics.include", vec![PATTERN.to_owned()]);
        agent.config.set("collector.address", address.to_string());
        agent.spawn()?;
        Ok(agent)
    })?;
    Ok(Running::Spillway(Box::new([agent, collector])))
}

fn start_mirror_maker(field: &Field<'_>, site: &str, tuning: &str) -> Result<Running> {
    let mirror_maker = MirrorMaker::with(&field.source, &field.centre, PATTERN, site, field.heap_mib, tuning)?;
    let daemon = field.wan.inside(End::Edge, || mirror_maker.spawn()).context("MirrorMaker 2 does not start")?;
    Ok(Running::MirrorMaker(Box::new(daemon), !tuning.is_empty()))
}
