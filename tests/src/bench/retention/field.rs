//! Clusters, links and contestants of the race.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::flow::{PARTITIONS, Reader};
use crate::bench::contestant::{self, MirrorMaker};
use crate::bench::usage::{disk_bytes, memory_bytes, peak_memory_bytes};
use crate::client::Client;
use crate::demo::table::{bytes_text, count_text};
use crate::java::Tuning;
use crate::kafka_cluster::{KafkaCluster, KafkaOptions};
use crate::oracle::remote_topic;
use crate::process::Daemon;
use crate::spill_status::{SpillState, SpillStatus};
use crate::stage::{Stage, StageOptions};
use crate::tcp_relay::TcpRelay;
use crate::wait::wait_until;

/// What is written.
pub const TOPIC: &str = "readings";

/// Spillway's site and MirrorMaker 2's alias of the source.
const SITE: &str = "plant-7";
const ALIAS: &str = "mirror-7";

/// Parts of the retention time after which a segment is closed: only closed ones are deleted.
const SEGMENT_PART: u64 = 10;
const SEGMENT_BYTES: &str = "4194304";

/// The largest of what was seen now and then.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tops {
    /// Resident memory of the agent.
    pub agent_bytes: u64,
    /// Resident memory of MirrorMaker 2.
    pub mirror_maker_bytes: u64,
    /// Disk below the spill's directory.
    pub spill_disk_bytes: u64,
}

/// Everything that runs.
#[derive(Debug)]
pub struct Field {
    /// The site's Kafka.
    pub source: Client,
    /// Agent, collector and their link.
    pub stage: Stage,
    /// What Spillway has brought.
    pub spillway: Reader,
    /// What MirrorMaker 2 has brought.
    pub mirror_maker: Reader,
    /// How often MirrorMaker 2 has ended by itself. It is started again.
    pub mirror_maker_ended: u32,
    mirror: MirrorMaker,
    mirror_daemon: Daemon,
    relay: TcpRelay,
    spill: PathBuf,
    // Last: the others are ended first.
    _clusters: [KafkaCluster; 2],
}

impl Field {
    /// Starts everything; the topics exist, nothing is written yet.
    ///
    /// # Errors
    /// When something does not come up.
    pub fn start(binaries: &Path, mm2_heap_mib: u32, retention: Duration, spill_max_bytes: u64) -> Result<Self> {
        println!("starting Apache Kafka as edge and centre, agent, collector and MirrorMaker 2 …");
        let relay = TcpRelay::start()?;
        let options = |label| KafkaOptions { tuning: Tuning::Server, ..KafkaOptions::new(label) };
        let edge = options("edge").with("log.retention.check.interval.ms", "2000").with("log.segment.delete.delay.ms", "1000");
        let centre = KafkaOptions { relayed: Some(relay.address().port()), ..options("centre") };
        let clusters = [KafkaCluster::start(edge)?, KafkaCluster::start(centre)?];
        let [edge, central] = &clusters;
        relay.set_target(central.relayed_address()?);
        let (source, centre) = (Client::new(edge.bootstrap()), Client::new(central.bootstrap()));

        let segment_ms = (retention.as_secs() * 1000 / SEGMENT_PART).to_string();
        let kept_ms = retention.as_millis().to_string();
        let settings = [("retention.ms", kept_ms.as_str()), ("segment.ms", &segment_ms), ("segment.bytes", SEGMENT_BYTES)];
        source.create_topic(TOPIC, PARTITIONS, &settings)?;
        let remotes = [SITE, ALIAS].map(|site| remote_topic(site, TOPIC));
        for remote in &remotes {
            centre.create_topic(remote, PARTITIONS, &[("retention.ms", "-1")])?;
        }
        let [ours, theirs] = &remotes;
        let (spillway, mirror_maker) = (Reader::start(&centre, ours)?, Reader::start(&centre, theirs)?);

        let mirror = MirrorMaker::new(&source, &Client::new(relay.address().to_string()), TOPIC, ALIAS, mm2_heap_mib)?;
        let mirror_daemon = mirror.spawn()?;
        let (stage, spill) = start_spillway(binaries, &source, &centre, spill_max_bytes)?;
        Ok(Self { source, stage, spillway, mirror_maker, mirror_maker_ended: 0, mirror, mirror_daemon, relay, spill, _clusters: clusters })
    }

    /// Waits until both have brought a record.
    ///
    /// # Errors
    /// When one has not in time.
    pub fn wait_for_both(&mut self, limit: Duration) -> Result<()> {
        wait_until("Spillway and MirrorMaker 2 have brought a record", limit, || {
            Ok(self.spillway.ledger().distinct() > 0 && self.mirror_maker.ledger().distinct() > 0)
        })
        .with_context(|| self.mirror_daemon.log_tail())
    }

    /// Cuts or restores the links of both.
    pub fn set_cut(&self, cut: bool) {
        self.stage.relay.set_cut(cut);
        self.relay.set_cut(cut);
    }

    /// Sees to it that everything runs; MirrorMaker 2 is started again if it has ended.
    ///
    /// # Errors
    /// When agent or collector have ended.
    pub fn check(&mut self) -> Result<()> {
        ensure!(self.stage.agent.is_running(), "the agent has ended by itself");
        ensure!(self.stage.collector(0)?.is_running(), "the collector has ended by itself");
        if !self.mirror_daemon.is_running() {
            self.mirror_maker_ended += 1;
            self.mirror_daemon = self.mirror.spawn()?;
        }
        Ok(())
    }

    /// Whether the agent says that it drains.
    pub fn drains(&self) -> bool {
        SpillStatus::of(&self.stage.agent).is_ok_and(|spill| spill.state == SpillState::Draining && spill.records > 0)
    }

    /// Notes the memory of both.
    pub fn note_memory(&self, tops: &mut Tops) {
        // A process that was just started, or has just ended, has none that counts.
        if let Ok(bytes) = self.stage.agent.pid().and_then(peak_memory_bytes) {
            tops.agent_bytes = tops.agent_bytes.max(bytes);
        }
        if let Ok(bytes) = peak_memory_bytes(self.mirror_daemon.pid()) {
            tops.mirror_maker_bytes = tops.mirror_maker_bytes.max(bytes);
        }
    }

    /// Disk below the spill's directory, in bytes.
    #[must_use]
    pub fn spill_disk_bytes(&self) -> u64 {
        disk_bytes(&self.spill)
    }

    /// How it stands, for the time line.
    ///
    /// # Errors
    /// When the source does not answer.
    pub fn line(&self, written: u64, tops: &mut Tops) -> Result<String> {
        self.note_memory(tops);
        let disk = self.spill_disk_bytes();
        tops.spill_disk_bytes = tops.spill_disk_bytes.max(disk);
        let mut kept = 0;
        for partition in 0..PARTITIONS {
            let (low, high) = self.source.watermarks(TOPIC, partition)?;
            kept += u64::try_from(high - low)?;
        }
        let spill = match SpillStatus::of(&self.stage.agent) {
            Ok(spill) => {
                let eta = spill.drain_in_seconds.map_or_else(String::new, |seconds| format!(", drained in {seconds:.0} s"));
                format!("{:<8} oldest {:>4.0} s{eta}", spill.state.as_str(), spill.oldest_seconds)
            }
            Err(_) => "(agent starts)".to_owned(),
        };
        let agent = self.stage.agent.pid().and_then(memory_bytes).unwrap_or(0);
        let behind = |reader: &Reader| count_text(written.saturating_sub(reader.ledger().distinct()));
        Ok(format!(
            "written {:>9}  source keeps {:>9}  spill {:>9} {spill}  agent {}  not arrived: {} (MirrorMaker 2: {})",
            count_text(written),
            count_text(kept),
            bytes_text(disk),
            bytes_text(agent),
            behind(&self.spillway),
            behind(&self.mirror_maker)
        ))
    }
}

/// Settings as shipped but for the size of the spill: what the stage changes for tests is set back.
fn start_spillway(binaries: &Path, source: &Client, centre: &Client, spill_max_bytes: u64) -> Result<(Stage, PathBuf)> {
    let (source, centre) = (source.clone(), centre.clone());
    let mut stage = Stage::new(StageOptions { site: SITE.to_owned(), source, centre, include: vec![TOPIC.to_owned()], collectors: 1 })?;
    contestant::as_shipped(&mut stage, binaries)?;
    let spill = stage.spill_dir();
    stage.agent.config.set("spill.max_bytes", format!("{}KiB", spill_max_bytes / 1024));
    stage.start()?;
    Ok((stage, spill))
}
