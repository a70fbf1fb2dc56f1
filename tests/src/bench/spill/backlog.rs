//! The agent as it ships, between two Kafka clusters: cut off, filled and drained; and started with a large backlog.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::bench::contestant::as_shipped;
use crate::bench::report::median;
use crate::bench::retention::flow::{PARTITIONS, Reader, by_partition, write};
use crate::bench::retention::ledger::VALUE_BYTES;
use crate::bench::throughput::start_kafka;
use crate::bench::usage::{disk_bytes, memory_bytes};
use crate::client::Client;
use crate::demo::table::bytes_text;
use crate::oracle::{remote_topic, wait_drained};
use crate::spill_status::SpillStatus;
use crate::stage::{Stage, StageOptions};
use crate::wait::{poll_until, wait_until};

const SITE: &str = "gateway";
const TOPIC: &str = "backlog";
const MIB: u64 = 1 << 20;

/// Until the first record has arrived.
const BEGIN_LIMIT: Duration = Duration::from_secs(60);

/// Until everything written is in the spill, or has arrived: 4 GiB at 4 MB/s.
const CARRY_LIMIT: Duration = Duration::from_secs(1100);

/// Until the disk is given back.
const GIVEN_BACK_LIMIT: Duration = Duration::from_secs(60);

/// What a drained spill may keep: one generation and what is written beside it.
const LEFT_MAX_BYTES: u64 = 9 * MIB;

/// How long the agent is watched with its backlog before the link is back.
const WATCHED: Duration = Duration::from_secs(10);

/// How much is carried.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// Times that the spill is filled and drained.
    pub cycles: u32,
    /// MiB of records each time.
    pub cycle_mib: u64,
    /// MiB of records of the backlog.
    pub backlog_mib: u64,
}

/// One time that the spill was filled and drained.
#[derive(Debug, Clone, Copy)]
struct Cycle {
    fill_mib_s: f64,
    drain_mib_s: f64,
    full_bytes: u64,
    /// Bytes written to the spill for a byte of records.
    written: f64,
    left_bytes: u64,
    given_back_after: Duration,
}

/// A start with a backlog.
#[derive(Debug, Clone, Copy)]
struct Start {
    cycle: Cycle,
    started_after: Duration,
    resident_bytes: u64,
    peak_bytes: u64,
}

/// Fills and drains, and answers the table.
///
/// # Errors
/// When something does not start, or records are lost, duplicated or out of order.
pub fn measure(binaries: &Path, sizes: Sizes) -> Result<String> {
    let (edge, central) = (start_kafka("edge")?, start_kafka("centre")?);
    let (source, centre) = (Client::new(edge.bootstrap()), Client::new(central.bootstrap()));
    let mut rig = Rig::start(binaries, source, centre, sizes)?;
    let mut cycles = Vec::new();
    for number in 1..=sizes.cycles {
        let cycle = rig.cycle(sizes.cycle_mib)?;
        println!(
            "  cycle {number}: filled at {:.0} MiB/s to {}, drained at {:.0} MiB/s, {} left after {:.0?}",
            cycle.fill_mib_s,
            bytes_text(cycle.full_bytes),
            cycle.drain_mib_s,
            bytes_text(cycle.left_bytes),
            cycle.given_back_after
        );
        cycles.push(cycle);
    }
    let start = rig.start_with_backlog(sizes.backlog_mib)?;
    Ok(table(sizes, &cycles, &start))
}

struct Rig {
    stage: Stage,
    reader: Reader,
    spill: PathBuf,
    records: u64,
}

impl Rig {
    fn start(binaries: &Path, source: Client, centre: Client, sizes: Sizes) -> Result<Self> {
        let remote = remote_topic(SITE, TOPIC);
        source.create_topic(TOPIC, PARTITIONS, &[])?;
        centre.create_topic(&remote, PARTITIONS, &[])?;
        let reader = Reader::start(&centre, &remote)?;
        let mut stage = Stage::new(StageOptions { site: SITE.to_owned(), source, centre, include: vec![TOPIC.to_owned()], collectors: 1 })?;
        as_shipped(&mut stage, binaries)?;
        let spill = stage.spill_dir();
        stage.agent.config.set("spill.max_bytes", format!("{}MiB", sizes.backlog_mib.max(sizes.cycle_mib) * 5 / 4 + 256));
        // How fast it drains is measured, not how long it waits before it dials.
        stage.agent.config.set("link.redial_max", "1s");
        stage.start()?;
        let mut rig = Self { stage, reader, spill, records: 0 };
        rig.write(u64::from(PARTITIONS.unsigned_abs()))?;
        rig.wait_arrived(BEGIN_LIMIT)?;
        Ok(rig)
    }

    fn write(&mut self, records: u64) -> Result<()> {
        write(&self.stage.source, TOPIC, self.records..self.records + records)?;
        self.records += records;
        Ok(())
    }

    fn wait_arrived(&self, limit: Duration) -> Result<()> {
        let arrived = || self.reader.ledger().distinct();
        wait_until("everything has arrived", limit, || Ok(arrived() >= self.records))?;
        let verdict = self.reader.ledger().verdict(&by_partition(self.records));
        ensure!(verdict.is_exact(), "{verdict:?}");
        Ok(())
    }

    /// Cuts the link and writes until everything is in the spill.
    fn fill(&mut self, mib: u64) -> Result<Cycle> {
        let records = mib * MIB / VALUE_BYTES as u64;
        self.stage.relay.set_cut(true);
        let before = SpillStatus::of(&self.stage.agent)?.written_bytes;
        let begun = Instant::now();
        self.write(records)?;
        // Committed for the local group is what is durable in the spill: nothing arrives.
        wait_drained(&self.stage.source, SITE, &[TOPIC], CARRY_LIMIT)?;
        let took = begun.elapsed();
        let spill = SpillStatus::of(&self.stage.agent)?;
        ensure!(spill.records >= records, "the spill holds {} of {records} records", spill.records);
        // For the source's disk: the spill holds them now.
        for partition in 0..PARTITIONS {
            let (_, end) = self.stage.source.watermarks(TOPIC, partition)?;
            self.stage.source.delete_records(TOPIC, partition, end)?;
        }
        let payload = (records * VALUE_BYTES as u64) as f64;
        Ok(Cycle {
            fill_mib_s: payload / MIB as f64 / took.as_secs_f64(),
            drain_mib_s: 0.0,
            full_bytes: disk_bytes(&self.spill),
            written: (spill.written_bytes - before) as f64 / payload,
            left_bytes: 0,
            given_back_after: Duration::ZERO,
        })
    }

    /// Restores the link and waits until everything has arrived and the disk is given back.
    fn drain(&mut self, cycle: &mut Cycle, mib: u64) -> Result<()> {
        let before = self.reader.ledger().distinct();
        self.stage.relay.set_cut(false);
        wait_until("the drain begins", CARRY_LIMIT, || Ok(self.reader.ledger().distinct() > before))?;
        let begun = Instant::now();
        self.wait_arrived(CARRY_LIMIT)?;
        cycle.drain_mib_s = mib as f64 / begun.elapsed().as_secs_f64();
        let drained = Instant::now();
        poll_until(GIVEN_BACK_LIMIT, || Ok((disk_bytes(&self.spill) <= LEFT_MAX_BYTES).then_some(())))?;
        (cycle.left_bytes, cycle.given_back_after) = (disk_bytes(&self.spill), drained.elapsed());
        Ok(())
    }

    fn cycle(&mut self, mib: u64) -> Result<Cycle> {
        let mut cycle = self.fill(mib)?;
        self.drain(&mut cycle, mib)?;
        Ok(cycle)
    }

    fn start_with_backlog(&mut self, mib: u64) -> Result<Start> {
        println!("  filling a backlog of {mib} MiB …");
        let mut cycle = self.fill(mib)?;
        ensure!(self.stage.agent.kill(), "the agent was not running when it was to be killed");
        let begun = Instant::now();
        self.stage.agent.spawn()?;
        let held = || Ok(SpillStatus::of(&self.stage.agent).ok().map(|spill| spill.records).filter(|records| *records > 0));
        let held = poll_until(BEGIN_LIMIT, held)?;
        let started_after = begun.elapsed();
        println!("  killed with -9, started with {} records in the spill after {started_after:.2?}", held.unwrap_or(0));
        ensure!(held.is_some(), "the agent does not see its backlog");
        std::thread::sleep(WATCHED);
        let resident_bytes = memory_bytes(self.stage.agent.pid()?)?;
        self.drain(&mut cycle, mib)?;
        Ok(Start { cycle, started_after, resident_bytes, peak_bytes: self.stage.agent.peak_memory_bytes()? })
    }
}

fn table(sizes: Sizes, cycles: &[Cycle], start: &Start) -> String {
    let mut text = String::new();
    let of = |pick: fn(&Cycle) -> f64| median(cycles.iter().map(pick).collect());
    if let (Some(fill), Some(drain), Some(written)) =
        (of(|cycle| cycle.fill_mib_s), of(|cycle| cycle.drain_mib_s), of(|cycle| cycle.written))
    {
        let left = cycles.iter().map(|cycle| cycle.left_bytes).max().unwrap_or(0);
        let slowest = cycles.iter().map(|cycle| cycle.given_back_after).max().unwrap_or_default();
        // Writing to a string cannot fail.
        let _written = writeln!(text, "\n  the agent, {} times {} MiB of random records, medians", sizes.cycles, sizes.cycle_mib);
        let _written = writeln!(text, "    filled at                 {fill:>10.1} MiB/s, while they are written to the source");
        let _written = writeln!(text, "    written to the spill      {written:>10.2} times the records");
        let _written = writeln!(text, "    drained at                {drain:>10.1} MiB/s");
        let _written = writeln!(text, "    left on the disk, at most {:>10}, the slowest after {slowest:.1?}", bytes_text(left));
    }
    let Start { cycle, started_after, resident_bytes, peak_bytes } = start;
    let mebibytes = |bytes: u64| bytes as f64 / MIB as f64;
    let _written = writeln!(
        text,
        "\n  the agent, killed with -9 with {} MiB of records in the spill ({})",
        sizes.backlog_mib,
        bytes_text(cycle.full_bytes)
    );
    let _written = writeln!(text, "    started again within      {:>10.2} s", started_after.as_secs_f64());
    let _written = writeln!(text, "    resident with the backlog {:>10.1} MiB", mebibytes(*resident_bytes));
    let _written = writeln!(text, "    resident at most, drained {:>10.1} MiB", mebibytes(*peak_bytes));
    let _written = writeln!(text, "    drained at                {:>10.1} MiB/s", cycle.drain_mib_s);
    let _written =
        writeln!(text, "    left on the disk          {:>10}, after {:.1?}", bytes_text(cycle.left_bytes), cycle.given_back_after);
    text.push_str("\n  every record arrived once and in order");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_tells_medians_and_the_worst_of_what_is_left() {
        let cycle = |drain_mib_s, left_bytes| Cycle {
            fill_mib_s: 30.0,
            drain_mib_s,
            full_bytes: 300_000_000,
            written: 1.05,
            left_bytes,
            given_back_after: Duration::from_millis(left_bytes / 1000),
        };
        let start =
            Start { cycle: cycle(40.0, 8_000), started_after: Duration::from_millis(420), resident_bytes: 20 * MIB, peak_bytes: 48 * MIB };
        let sizes = Sizes { cycles: 3, cycle_mib: 256, backlog_mib: 4096 };
        let text = table(sizes, &[cycle(10.0, 1_000), cycle(30.0, 400_000), cycle(20.0, 2_000)], &start);
        for part in ["20.0 MiB/s", "400.0 kB, the slowest after 400.0ms", "0.42 s", "48.0 MiB", "1.05 times"] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
    }
}
