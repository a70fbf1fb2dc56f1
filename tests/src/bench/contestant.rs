//! Spillway and MirrorMaker 2 as something that can be started and measured.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;

use super::usage::Watched;
use crate::client::Client;
use crate::java::{self, Tuning};
use crate::oracle::remote_topic;
use crate::process::Daemon;
use crate::reaper::scratch_dir;
use crate::stage::program::Program;
use crate::stage::{Stage, StageOptions};

/// MirrorMaker 2's file.
const PROPERTIES: &str = "mm2.properties";

/// Who runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contestant {
    /// Agent and collector.
    Spillway,
    /// One dedicated MirrorMaker 2.
    MirrorMaker,
}

/// What both are started with.
#[derive(Debug, Clone)]
pub struct Field {
    /// The site's Kafka.
    pub source: Client,
    /// The central Kafka.
    pub centre: Client,
    /// Where the release build of agent and collector lies.
    pub binaries: PathBuf,
    /// MirrorMaker 2's heap, in MiB.
    pub heap_mib: u32,
    /// MirrorMaker 2's `tasks.max`.
    pub tasks: u32,
}

/// A contestant that runs. Dropping it kills it.
#[derive(Debug)]
pub struct Running {
    /// When it was started.
    pub started: Instant,
    /// Its processes.
    pub watched: Vec<Watched>,
    /// Kept for its processes.
    _held: Held,
}

#[derive(Debug)]
enum Held {
    Spillway { _stage: Box<Stage> },
    MirrorMaker { _daemon: Daemon },
}

impl Contestant {
    /// What the report calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Spillway => "Spillway",
            Self::MirrorMaker => "MirrorMaker 2",
        }
    }

    /// The site, or cluster alias, of a run; each run has its own, so that nothing is left of an earlier one.
    #[must_use]
    pub fn site(self, run: u32) -> String {
        match self {
            Self::Spillway => format!("gateway-{run}"),
            Self::MirrorMaker => format!("mirror-{run}"),
        }
    }

    /// Starts it on `topic`, whose remote topic exists.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start(self, field: &Field, topic: &str, run: u32) -> Result<Running> {
        match self {
            Self::Spillway => start_spillway(field, topic, &self.site(run)),
            Self::MirrorMaker => start_mirror_maker(field, topic, &self.site(run)),
        }
    }
}

/// The topic at the centre; both name it alike.
#[must_use]
pub fn remote(contestant: Contestant, topic: &str, run: u32) -> String {
    remote_topic(&contestant.site(run), topic)
}

/// Settings as shipped: what the stage changes for tests is set back.
///
/// # Errors
/// When the stage has no collector.
pub fn as_shipped(stage: &mut Stage, binaries: &Path) -> Result<()> {
    as_shipped_agent(&mut stage.agent, binaries);
    stage.collector(0)?.run_from(binaries);
    Ok(())
}

/// The same for an agent alone; the stage changes nothing of a collector.
pub fn as_shipped_agent(agent: &mut Program, binaries: &Path) {
    for (key, value) in [("kafka.commit_interval", "5s"), ("topics.refresh_interval", "30s"), ("link.redial_max", "30s")] {
        agent.config.set(key, value);
    }
    agent.run_from(binaries);
}

fn start_spillway(field: &Field, topic: &str, site: &str) -> Result<Running> {
    let mut stage = Stage::new(StageOptions {
        site: site.to_owned(),
        source: field.source.clone(),
        centre: field.centre.clone(),
        include: vec![topic.to_owned()],
        collectors: 1,
    })?;
    // No relay: it would be a third process of the link.
    let address = stage.listen.first().map(ToString::to_string).unwrap_or_default();
    stage.agent.config.set("collector.address", address);
    as_shipped(&mut stage, &field.binaries)?;
    let started = Instant::now();
    stage.start()?;
    let watched = vec![
        Watched { name: "agent".to_owned(), pid: stage.agent.pid()? },
        Watched { name: "collector".to_owned(), pid: stage.collector(0)?.pid()? },
    ];
    Ok(Running { started, watched, _held: Held::Spillway { _stage: Box::new(stage) } })
}

fn start_mirror_maker(field: &Field, topic: &str, alias: &str) -> Result<Running> {
    let dir = scratch_dir(alias)?;
    let file = dir.join(PROPERTIES);
    std::fs::write(&file, properties(field, topic, alias)?)?;
    let daemon = spawn(field.heap_mib, &file, &dir)?;
    let watched = vec![Watched { name: "MirrorMaker 2".to_owned(), pid: daemon.pid() }];
    Ok(Running { started: Instant::now(), watched, _held: Held::MirrorMaker { _daemon: daemon } })
}

/// A dedicated MirrorMaker 2 for a long run, which can be started again.
#[derive(Debug)]
pub struct MirrorMaker {
    dir: PathBuf,
    heap_mib: u32,
}

impl MirrorMaker {
    /// From `source` to `centre`, under `alias`. Nothing is started.
    ///
    /// The settings of the topic are not copied: with its retention the centre would forget what has been brought.
    ///
    /// # Errors
    /// When its file cannot be written.
    pub fn new(source: &Client, centre: &Client, topic: &str, alias: &str, heap_mib: u32) -> Result<Self> {
        Self::with(source, centre, topic, alias, heap_mib, "sync.topic.configs.enabled=false\n")
    }

    /// The same with the lines of `further` at the end of its file, and nothing else changed. `topics` is a pattern.
    ///
    /// # Errors
    /// When its file cannot be written.
    pub fn with(source: &Client, centre: &Client, topics: &str, alias: &str, heap_mib: u32, further: &str) -> Result<Self> {
        let dir = scratch_dir(alias)?;
        let field = Field { source: source.clone(), centre: centre.clone(), binaries: PathBuf::new(), heap_mib, tasks: 1 };
        let text = properties(&field, topics, alias)? + further;
        std::fs::write(dir.join(PROPERTIES), text)?;
        Ok(Self { dir, heap_mib })
    }

    /// Starts it.
    ///
    /// # Errors
    /// When Java is missing.
    pub fn spawn(&self) -> Result<Daemon> {
        spawn(self.heap_mib, &self.dir.join(PROPERTIES), &self.dir)
    }
}

fn spawn(heap_mib: u32, file: &Path, dir: &Path) -> Result<Daemon> {
    let mut command = java::java_tuned("org.apache.kafka.connect.mirror.MirrorMaker", heap_mib, Tuning::Server, "INFO", dir)?;
    Daemon::spawn("MirrorMaker 2", command.arg(file), &dir.join("mm2.log"))
}

/// MirrorMaker 2's defaults, one flow, and what clusters of one broker need. The reverse flow, which would only carry heartbeats, is left
/// out in its favour.
fn properties(field: &Field, topic: &str, alias: &str) -> Result<String> {
    let mut text = String::new();
    writeln!(text, "clusters={alias},centre")?;
    writeln!(text, "{alias}.bootstrap.servers={}", field.source.bootstrap())?;
    writeln!(text, "centre.bootstrap.servers={}", field.centre.bootstrap())?;
    writeln!(text, "{alias}->centre.enabled=true\n{alias}->centre.topics={topic}\nemit.heartbeats.enabled=false")?;
    writeln!(text, "tasks.max={}", field.tasks)?;
    for name in ["replication", "offset-syncs.topic.replication", "checkpoints.topic.replication", "heartbeats.topic.replication"] {
        writeln!(text, "{name}.factor=1")?;
    }
    for name in ["offset", "status", "config"] {
        writeln!(text, "{name}.storage.replication.factor=1")?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn one_flow_and_no_other_setting_that_matters_for_speed() {
        let field =
            Field { source: Client::new("edge:1"), centre: Client::new("centre:2"), binaries: PathBuf::new(), heap_mib: 512, tasks: 1 };
        let text = properties(&field, "t", "mm2-3").unwrap();
        assert!(text.starts_with("clusters=mm2-3,centre\nmm2-3.bootstrap.servers=edge:1\ncentre.bootstrap.servers=centre:2\n"));
        let tuning: Vec<_> = text.lines().filter(|line| line.contains("consumer.") || line.contains("producer.")).collect();
        assert!(tuning.is_empty(), "{tuning:?}");
    }
}
