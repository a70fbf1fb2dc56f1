//! `lab bench fleet`: many sites at one collector, most of them quiet.
//!
//! The collector is the real one, in a process of its own, with a real Kafka behind it. The sites are sessions of a load generator ([`site`]) in the
//! lab's process: a thousand agents as processes would measure the machine. The generator speaks the real protocol over real QUIC connections,
//! each site with its own socket and certificate, and redials as an agent does.

pub mod site;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result};
use clap::Args;
use spillway_link::{Identity, IdentityFiles, Role};
use spillway_proto::deferred::Deferred;
use spillway_proto::progress::{self, Position, ProgressKey, partition_of};
use spillway_proto::{NextOffset, Partition, SiteName, TopicName, TopicPartition};

use self::site::{Board, TOPIC_ID, live};
use super::progress::as_f64;
use super::throughput::start_kafka;
use super::usage::{cpu_time, memory_bytes, peak_memory_bytes, threads};
use crate::build;
use crate::client::{Client, NewRecord};
use crate::demo::table::count_text;
use crate::notice;
use crate::ports::free_port;
use crate::reaper::scratch_dir;
use crate::stage::collector;
use crate::stage::pki::Pki;
use crate::stage::program::Program;
use crate::wait::POLL;

/// As created by the collector.
const PROGRESS_PARTITIONS: i32 = 16;

/// Until all sites are connected; topics are made in this time.
const CONNECT_LIMIT: Duration = Duration::from_secs(300);

/// How long the quiet fleet is watched.
const IDLE: Duration = Duration::from_secs(10);

/// What `lab bench fleet` is asked for.
#[derive(Debug, Clone, Args)]
pub struct FleetOptions {
    /// Sites that are connected
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub sites: u32,
    /// Sites that send, as fast as they can
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub active: u32,
    /// Positions of each site in spillway-progress.internal beforehand
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    pub partitions: u32,
    /// How long they send
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(5..=3600))]
    pub seconds: u64,
    /// Take the collector from this directory in place of building it: for comparing two builds
    #[arg(long, value_name = "DIR")]
    pub binaries: Option<std::path::PathBuf>,
}

/// Runs the benchmark and prints the report.
///
/// # Errors
/// When something does not start, or sites do not get connected.
pub fn run(options: &FleetOptions) -> Result<()> {
    let binaries = match &options.binaries {
        Some(dir) => dir.clone(),
        None => {
            println!("Building the collector as it ships; the first time this takes some minutes.");
            build::release_binaries()?
        }
    };
    let kafka = start_kafka("centre")?;
    let centre = Client::new(kafka.bootstrap());
    fill_progress(&centre, options)?;
    let dir = scratch_dir("fleet")?;
    let pki = Pki::init(&dir.join("pki"))?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
    let mut collector = collector(&dir, "collector", &pki, &centre, address)?;
    collector.run_from(&binaries);
    let started = Instant::now();
    collector.start()?;
    println!("  collector ready after {:.1} s with {} positions", started.elapsed().as_secs_f64(), positions_text(options));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut fleet = Fleet { boards: Vec::new(), collector };
    let connecting = Instant::now();
    for number in 0..options.sites {
        let identity = identity(&pki, &site_name(number)?)?;
        let board = Arc::new(Board::default());
        fleet.boards.push(Arc::clone(&board));
        runtime.spawn(async move {
            if let Err(error) = live(identity, address, &board).await {
                notice::tell(format_args!("lab: a site of the fleet: {error:#}"));
            }
        });
    }
    fleet.wait_connected("connected, certificates and topics made", connecting)?;
    fleet.idle()?;
    fleet.send(options)?;
    fleet.restart()?;
    drop(fleet);
    runtime.shutdown_background();
    Ok(())
}

struct Fleet {
    boards: Vec<Arc<Board>>,
    collector: Program,
}

impl Fleet {
    fn connected(&self) -> usize {
        self.boards.iter().filter(|board| board.resumed.load(Ordering::Relaxed)).count()
    }

    /// Waits until every site's lane was resumed, and tells how long it took.
    fn wait_connected(&mut self, what: &str, since: Instant) -> Result<()> {
        let (mut half, all) = (None, self.boards.len());
        loop {
            let connected = self.connected();
            if half.is_none() && 2 * connected >= all {
                half = Some(since.elapsed());
            }
            if connected == all {
                break;
            }
            anyhow::ensure!(since.elapsed() < CONNECT_LIMIT, "{connected} of {all} sites are connected after {CONNECT_LIMIT:?}");
            anyhow::ensure!(self.collector.is_running(), "the collector has ended");
            std::thread::sleep(POLL);
        }
        let half = half.unwrap_or_default().as_secs_f64();
        println!("  {all} sites {what}: half of them after {half:.1} s, the last after {:.1} s", since.elapsed().as_secs_f64());
        self.show_memory("then")
    }

    fn show_memory(&self, when: &str) -> Result<()> {
        let pid = self.collector.pid()?;
        let (resident, peak) = (mib(memory_bytes(pid)?), mib(peak_memory_bytes(pid)?));
        println!("    collector {when}: {resident:.0} MiB resident, {peak:.0} MiB at its peak, {} threads", threads(pid)?);
        Ok(())
    }

    /// Nobody sends.
    fn idle(&self) -> Result<()> {
        let before = cpu_time(self.collector.pid()?)?;
        std::thread::sleep(IDLE);
        let spent = cpu_time(self.collector.pid()?)?.saturating_sub(before);
        println!("  idle: {:.1} % of a core", 100.0 * spent.as_secs_f64() / IDLE.as_secs_f64());
        self.show_memory("idle")
    }

    /// Some send as fast as they can.
    fn send(&self, options: &FleetOptions) -> Result<()> {
        let active: Vec<_> =
            self.boards.iter().step_by((options.sites / options.active).max(1) as usize).take(options.active as usize).collect();
        active.iter().for_each(|board| board.send.store(true, Ordering::Relaxed));
        // Producers are opened again, topics for offset syncs are made: not what is measured.
        let settle = Duration::from_secs(options.seconds / 3);
        std::thread::sleep(settle);
        let acked = || active.iter().map(|board| board.acked.load(Ordering::Relaxed)).collect::<Vec<_>>();
        let own = std::process::id();
        let (before, started) = (acked(), Instant::now());
        let (collector_before, own_before) = (cpu_time(self.collector.pid()?)?, cpu_time(own)?);
        std::thread::sleep(Duration::from_secs(options.seconds));
        let seconds = started.elapsed().as_secs_f64();
        let collector = cpu_time(self.collector.pid()?)?.saturating_sub(collector_before).as_secs_f64();
        let generator = cpu_time(own)?.saturating_sub(own_before).as_secs_f64();
        let mut each: Vec<_> = acked().iter().zip(&before).map(|(now, before)| now - before).collect();
        each.sort_unstable();
        let total: u64 = each.iter().sum();
        let share = as_f64(total) / as_f64(each.len() as u64);
        let of_share = |records: Option<&u64>| as_f64(records.copied().unwrap_or(0)) / share.max(1.0);
        println!("  {} sites send for {seconds:.0} s: {} records/s together", active.len(), count_text((as_f64(total) / seconds) as u64));
        println!(
            "    collector {:.2} CPU-s per million records, {:.0} % of a core; the load generator beside it {:.0} %, {:.0} MiB",
            collector * 1e6 / as_f64(total).max(1.0),
            100.0 * collector / seconds,
            100.0 * generator / seconds,
            mib(memory_bytes(own)?)
        );
        println!(
            "    fairness, parts of a site's share: least {:.2}, median {:.2}, most {:.2}",
            of_share(each.first()),
            of_share(each.get(each.len() / 2)),
            of_share(each.last())
        );
        self.show_memory("sending")
    }

    /// `kill -9`, and a new one at once. The active ones go on sending.
    fn restart(&mut self) -> Result<()> {
        anyhow::ensure!(self.collector.kill(), "the collector was not running");
        let killed = Instant::now();
        self.boards.iter().for_each(|board| board.resumed.store(false, Ordering::Relaxed));
        self.collector.start()?;
        println!("  kill -9; the new collector is ready after {:.1} s", killed.elapsed().as_secs_f64());
        self.wait_connected("back", killed)
    }
}

/// Positions of every site, as it would have after mirroring so many partitions.
fn fill_progress(centre: &Client, options: &FleetOptions) -> Result<()> {
    centre.create_topic(progress::TOPIC, PROGRESS_PARTITIONS, &[("cleanup.policy", "compact")])?;
    let producer = centre.clone().with("queue.buffering.max.messages", "500000").producer()?;
    for number in 0..options.sites {
        let site = site_name(number)?;
        let partition = partition_of(&site, PROGRESS_PARTITIONS.unsigned_abs()).to_kafka();
        for index in 0..options.partitions {
            let topic = TopicName::parse(&format!("history-{}", index / 10))?;
            let source = TopicPartition { topic, partition: Partition::new(index % 10).context("no such partition")? };
            let next = NextOffset::new(u64::from(index) * 1000).context("no such offset")?;
            let key = ProgressKey::Position { site: site.clone(), source }.encode();
            let value = Position { topic_id: TOPIC_ID, next, deferred: Deferred::new() }.encode();
            producer.send(progress::TOPIC, partition, &NewRecord { key: Some(key), value: Some(value), ..NewRecord::default() })?;
        }
    }
    producer.flush(Duration::from_secs(120))
}

fn identity(pki: &Pki, site: &SiteName) -> Result<Identity> {
    let files = pki.issue(site.as_str())?;
    Ok(Identity::load(&IdentityFiles { ca: pki.ca(), cert: files.cert, key: files.key }, Role::Site, SystemTime::now())?)
}

fn site_name(number: u32) -> Result<SiteName> {
    Ok(SiteName::parse(&format!("site-{number}"))?)
}

fn positions_text(options: &FleetOptions) -> String {
    count_text(u64::from(options.sites) * u64::from(options.partitions))
}

fn mib(bytes: u64) -> f64 {
    as_f64(bytes / 1024) / 1024.0
}
