//! The spill's store beside a bare log, as `spill/examples/spill-bench.rs` measures them: in turns, in the same directory, in a process that
//! does nothing else.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::bench::report::median;
use crate::process::run;
use crate::reaper::scratch_dir;

/// As the agent sets them for itself (`agent/src/allocator.rs`).
const ALLOCATOR: [(&str, &str); 2] = [("MALLOC_MMAP_THRESHOLD_", "65536"), ("MALLOC_TRIM_THRESHOLD_", "131072")];

/// Size of the frames in KiB, and frames between two syncs.
type Case = (u64, u64);

/// The figures of a case, each of all runs.
#[derive(Debug, Clone, Default, PartialEq)]
struct Figures {
    bare_mib_s: Vec<f64>,
    spill_mib_s: Vec<f64>,
    ratio: Vec<f64>,
    written: Vec<f64>,
    rss_mib: Vec<f64>,
}

/// All runs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Appends {
    mib: u64,
    runs: u32,
    cases: BTreeMap<Case, Figures>,
}

impl Appends {
    /// Runs the comparison `runs` times, with `mib` MiB appended to each for each case.
    ///
    /// # Errors
    /// When it fails.
    pub fn measure(program: &Path, dir: Option<&Path>, mib: u64, runs: u32) -> Result<Self> {
        let scratch = scratch_dir("spill-bench")?;
        let dir = dir.unwrap_or(&scratch);
        let mut all = Self { mib, runs, cases: BTreeMap::new() };
        for number in 1..=runs {
            println!("  appending, run {number} of {runs} …");
            let mut command = Command::new(program);
            let output = run(command.arg("append").arg(dir).arg(mib.to_string()).envs(ALLOCATOR))?;
            ensure!(output.status.success(), "the comparison failed:\n{}", String::from_utf8_lossy(&output.stderr));
            all.add(&String::from_utf8_lossy(&output.stdout))?;
        }
        Ok(all)
    }

    /// Takes what one run has printed: a line for each case.
    fn add(&mut self, text: &str) -> Result<()> {
        for line in text.lines() {
            let values: BTreeMap<&str, f64> = line
                .split_whitespace()
                .filter_map(|word| word.split_once('='))
                .filter_map(|(name, value)| Some((name, value.parse().ok()?)))
                .collect();
            let of = |name: &str| values.get(name).copied().with_context(|| format!("no {name} in {line:?}"));
            let figures = self.cases.entry((whole(of("frame_kib")?), whole(of("sync_every")?))).or_default();
            let (bare, spill) = (of("bare_mib_s")?, of("spill_mib_s")?);
            figures.bare_mib_s.push(bare);
            figures.spill_mib_s.push(spill);
            figures.ratio.push(spill / bare);
            figures.written.push(of("written")?);
            figures.rss_mib.push(of("rss_mib")?);
        }
        Ok(())
    }

    /// Medians.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = format!("  appending {} MiB of frames in turns with a bare fsynced log, medians of {} runs\n", self.mib, self.runs);
        let columns = ["bare log", "spill", "ratio", "written", "resident"];
        // Writing to a string cannot fail.
        let _written = writeln!(text, "    {:<26}{}", "frames", columns.map(|name| format!("{name:>14}")).concat());
        for ((kib, every), figures) in &self.cases {
            let of = |values: &Vec<f64>| median(values.clone()).unwrap_or(0.0);
            let (name, bare, spill) = (format!("{kib} KiB, sync each {every}"), of(&figures.bare_mib_s), of(&figures.spill_mib_s));
            let (ratio, written, rss) = (of(&figures.ratio), of(&figures.written), of(&figures.rss_mib));
            let _written =
                writeln!(text, "    {name:<26}{bare:>8.1} MiB/s{spill:>8.1} MiB/s{ratio:>14.2}{written:>8.2} times{rss:>10.0} MiB");
        }
        text.push_str("    written: bytes that the system wrote to the disk, against payload\n");
        text
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small counts as printed by the comparison")]
fn whole(value: f64) -> u64 {
    value as u64
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn line(spill: f64) -> String {
        format!("frame_kib=64 sync_every=8 bare_mib_s=100.0 spill_mib_s={spill} written=1.050 store_written=1.040 rss_mib=15\n")
    }

    #[test]
    fn ratios_are_of_one_run_and_their_median_is_told() {
        let mut appends = Appends { mib: 32, runs: 3, cases: BTreeMap::new() };
        for spill in [50.0, 90.0, 70.0] {
            appends.add(&line(spill)).unwrap();
        }
        assert_eq!(appends.cases[&(64, 8)].ratio, [0.5, 0.9, 0.7]);
        let text = appends.table();
        let row = text.lines().find(|line| line.contains("64 KiB, sync each 8")).unwrap();
        assert!(row.contains("70.0 MiB/s") && row.contains("0.70") && row.contains("1.05 times"), "{row}");
    }

    #[test]
    fn a_line_without_a_figure_is_refused() {
        assert!(Appends::default().add("frame_kib=64 sync_every=8 bare_mib_s=100.0").is_err());
    }
}
