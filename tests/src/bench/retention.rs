//! `lab bench retention`: an outage that is longer than the source keeps its records, through Spillway and through MirrorMaker 2 side by side.
//!
//! A topic whose records the source keeps for a short time only is written at a steady rate; the link is down for most of that; the agent is
//! killed with -9 again and again. Each record says which one it is, so readers at the centre can tell what became of each, although the
//! source has long forgotten it.
//!
//! | module | what it is for |
//! |---|---|
//! | [`plan`] | when the link is down and the agent is killed (pure) |
//! | [`ledger`] | the records, and which of them have arrived (pure) |
//! | [`flow`] | the writer at the source and the readers at the centre |
//! | [`outcome`] | the table, and what makes a run good (pure) |
//! | [`field`] | clusters, links, agent, collector, MirrorMaker 2 |

pub mod field;
pub mod flow;
pub mod ledger;
pub mod outcome;
pub mod plan;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Args;
use spillway_config::units::ByteSize;

use self::field::{Field, Tops};
use self::flow::Writer;
use self::outcome::{Kills, LEFT_MAX_BYTES, Outcome};
use self::plan::{Due, Plan};
use crate::build;
use crate::reaper::Reaper;
use crate::wait::POLL;

/// Between two lines of the time line.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Until both have carried their first record.
const BEGIN_LIMIT: Duration = Duration::from_secs(120);

/// The last two kills wait so long for the agent to drain; then they come without that, and the run fails.
const DRAINING_LIMIT: Duration = Duration::from_secs(120);

/// Between the start of the agent and the second kill while it drains.
const DRAINING_PAUSE: Duration = Duration::from_secs(2);

/// A contestant at which nothing has arrived for so long has carried what it will carry. The link is up.
const STUCK: Duration = Duration::from_secs(120);

/// How long copies of what is there already are waited for.
const LATE_COPIES: Duration = Duration::from_secs(10);

/// The spill gives the disk back within this time.
const GIVEN_BACK_LIMIT: Duration = Duration::from_secs(60);

/// What `lab bench retention` is asked for.
#[derive(Debug, Clone, Args)]
pub struct RetentionOptions {
    /// How long records are written
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u64).range(2..=600))]
    pub minutes: u64,
    /// How long the link is down meanwhile
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=599))]
    pub outage_minutes: u64,
    /// How long the source keeps records
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=598))]
    pub retention_minutes: u64,
    /// Bytes a second
    #[arg(long, default_value = "1MB")]
    pub rate: ByteSize,
    /// Take agent and collector from this directory in place of building them: for comparing two builds
    #[arg(long, value_name = "DIR")]
    pub binaries: Option<PathBuf>,
    /// Heap of MirrorMaker 2 in MiB
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u32).range(128..))]
    pub mm2_heap: u32,
}

/// Runs it and prints what became of the records. `Ok(true)`: Spillway has carried each once and in order, through kills while it spilled and while
/// it drained, has given the disk back, and MirrorMaker 2 has lost some, without which nothing is proven.
///
/// # Errors
/// When something does not start, or a fault cannot be made to happen.
pub fn run(options: &RetentionOptions) -> Result<bool> {
    let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
    let (writing, outage, retention) = (minutes(options.minutes), minutes(options.outage_minutes), minutes(options.retention_minutes));
    ensure!(outage < writing, "--outage-minutes has to be less than --minutes");
    ensure!(retention < outage, "--retention-minutes has to be less than --outage-minutes, or nothing is proven");
    let binaries = match &options.binaries {
        Some(dir) => dir.clone(),
        None => {
            println!("Building agent and collector as they ship; the first time this takes some minutes.");
            build::release_binaries()?
        }
    };
    let rate = options.rate.bytes();
    // All of the outage, uncompressed, and half as much again.
    let spill_max = rate * outage.as_secs() * 3 / 2 + (64 << 20);
    let field = Field::start(&binaries, options.mm2_heap, retention, spill_max)?;
    let played =
        Race { field, plan: Plan::new(writing, outage), began: Instant::now(), tops: Tops::default(), kills: Kills::default() }.play(rate);
    if !matches!(&played, Ok(outcome) if outcome.is_good()) {
        println!("\nlogs and configuration files stay in {}", Reaper::global()?.keep_logs().display());
    }
    let outcome = played?;
    println!("\n{}", outcome.table());
    Ok(outcome.is_good())
}

struct Race {
    field: Field,
    plan: Plan,
    began: Instant,
    tops: Tops,
    kills: Kills,
}

impl Race {
    fn play(mut self, rate: u64) -> Result<Outcome> {
        let mut writer = Writer::start(&self.field.source, field::TOPIC, rate)?;
        self.field.wait_for_both(BEGIN_LIMIT)?;
        println!(
            "both carry records; the link goes down in {:?}, is down for {:?}",
            self.plan.down_at,
            self.plan.up_at - self.plan.down_at
        );
        self.began = Instant::now();
        let mut produced = Vec::new();
        let (mut told, mut link) = (Instant::now(), "up");
        for (at, due) in self.plan.events() {
            while self.began.elapsed() < at {
                self.look(&writer, &mut told, link)?;
            }
            match due {
                Due::Down => {
                    self.field.set_cut(true);
                    link = "DOWN";
                }
                Due::Up => {
                    self.field.set_cut(false);
                    link = "up";
                }
                Due::Kill => {
                    self.kill("while the link is down")?;
                    self.kills.link_down += 1;
                }
                Due::KillDraining => self.kill_draining(&writer, &mut told)?,
                Due::End => produced = writer.stop()?,
            }
            if matches!(due, Due::Down | Due::Up | Due::End) {
                println!("{}  {}", self.clock(), event_text(due));
            }
        }
        self.wait_for_the_rest(&writer, &produced, &mut told)?;
        let left_bytes = self.wait_given_back(&writer, &mut told)?;
        let Self { field, tops, kills, .. } = self;
        Ok(Outcome {
            spillway: field.spillway.ledger().verdict(&produced),
            mirror_maker: field.mirror_maker.ledger().verdict(&produced),
            mirror_maker_ended: field.mirror_maker_ended,
            tops,
            kills,
            left_bytes,
        })
    }

    fn clock(&self) -> String {
        let seconds = self.began.elapsed().as_secs();
        format!("{:>3}:{:02}", seconds / 60, seconds % 60)
    }

    /// A moment passes; now and then a line is told.
    fn look(&mut self, writer: &Writer, told: &mut Instant, link: &str) -> Result<()> {
        std::thread::sleep(POLL);
        self.field.check()?;
        if told.elapsed() >= LINE_EVERY {
            *told = Instant::now();
            let line = self.field.line(writer.records(), &mut self.tops)?;
            println!("{}  link {link:<4}  {line}", self.clock());
        }
        Ok(())
    }

    fn kill(&mut self, when: &str) -> Result<()> {
        self.field.note_memory(&mut self.tops);
        ensure!(self.field.stage.agent.kill(), "the agent was not running when it was to be killed");
        // As systemd would. Ready or not: the link may be down.
        self.field.stage.agent.spawn()?;
        println!("{}  agent killed with -9 {when}, and started", self.clock());
        Ok(())
    }

    fn kill_draining(&mut self, writer: &Writer, told: &mut Instant) -> Result<()> {
        let begun = Instant::now();
        while !self.field.drains() || begun.elapsed() < DRAINING_PAUSE {
            ensure!(
                begun.elapsed() < DRAINING_LIMIT,
                "the agent was not seen to drain within {DRAINING_LIMIT:?}: the backlog is too small"
            );
            self.look(writer, told, "up")?;
        }
        self.kill("while it drains")?;
        self.kills.draining += 1;
        Ok(())
    }

    /// Until both have the last record, or carry nothing any more.
    fn wait_for_the_rest(&mut self, writer: &Writer, produced: &[u64], told: &mut Instant) -> Result<()> {
        let counts = |field: &Field| (field.spillway.ledger().distinct(), field.mirror_maker.ledger().distinct());
        let (mut last, mut moved) = (counts(&self.field), Instant::now());
        loop {
            let now = counts(&self.field);
            if now != last {
                (last, moved) = (now, Instant::now());
            }
            let all = produced.iter().sum::<u64>();
            let ours = now.0 == all;
            let theirs = self.field.mirror_maker.ledger().has_last(produced);
            if (ours && theirs && moved.elapsed() >= LATE_COPIES) || moved.elapsed() >= STUCK {
                return Ok(());
            }
            self.look(writer, told, "up")?;
        }
    }

    /// What is left on the disk, once the spill is drained.
    fn wait_given_back(&mut self, writer: &Writer, told: &mut Instant) -> Result<u64> {
        let begun = Instant::now();
        loop {
            let left = self.field.spill_disk_bytes();
            if left <= LEFT_MAX_BYTES || begun.elapsed() >= GIVEN_BACK_LIMIT {
                let line = self.field.line(writer.records(), &mut self.tops)?;
                println!("{}  link up    {line}", self.clock());
                return Ok(left);
            }
            self.look(writer, told, "up")?;
        }
    }
}

fn event_text(due: Due) -> &'static str {
    match due {
        Due::Down => "the link goes down",
        Due::Up => "the link is up",
        Due::Kill | Due::KillDraining => "the agent is killed",
        Due::End => "nothing more is written",
    }
}
