//! Spillway and MirrorMaker 2 with a WAN between their ends: the brokers are real or embedded, each in its namespace, and only the contestant crosses the line.
//!
//! MirrorMaker 2 stands at the edge. Its documentation wants it near the centre; on such a line it does best at the edge, since its producer can wait for a
//! batch and its consumer's fetches do not time out.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use super::contestant::{MirrorMaker, as_shipped_agent};
use crate::client::Client;
use crate::ports::free_port;
use crate::process::Daemon;
use crate::reaper::scratch_dir;
use crate::stage;
use crate::stage::pki::Pki;
use crate::stage::program::Program;
use crate::wan::{End, Wan};

/// What contestants are started with.
#[derive(Debug)]
pub struct Field<'a> {
    /// The line.
    pub wan: &'a Wan,
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

impl Field<'_> {
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

    /// Starts a dedicated MirrorMaker 2 with its default settings and the lines of `tuning`, `SITE` in them being its cluster alias.
    ///
    /// # Errors
    /// When Java is missing.
    pub fn mirror_maker(&self, site: &str, tuning: &str) -> Result<Daemon> {
        let tuning = tuning.replace("SITE", site);
        let mirror_maker = MirrorMaker::with(&self.source, &self.centre, self.topics, site, self.heap_mib, &tuning)?;
        self.wan.inside(End::Edge, || mirror_maker.spawn()).context("MirrorMaker 2 does not start")
    }
}
