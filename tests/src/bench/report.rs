//! Medians, ratios and the tables.

use std::fmt::Write as _;
use std::time::Duration;

use super::contestant::Contestant;
use super::progress::Run;
use super::workload::Workload;
use crate::demo::table::count_text;

/// What one run of one contestant has shown.
#[derive(Debug, Clone, PartialEq)]
pub struct Figures {
    /// Records a second in the steady state.
    pub rate: f64,
    /// Processor seconds for a million records in the steady state, of each process.
    pub cpu: Vec<f64>,
    /// The same from the start of the processes to the last record.
    pub cpu_with_start_up: Vec<f64>,
    /// The same in the steady state of the two brokers, edge and centre.
    pub brokers_cpu: Vec<f64>,
    /// Largest resident memory of each process, in MiB.
    pub memory_mib: Vec<f64>,
    /// From the start of the processes to the first record at the centre, in seconds.
    pub first_record: f64,
}

/// Middle and worst hundredth of latencies, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Latency {
    /// Half of the records were faster.
    pub p50_ms: f64,
    /// 99 of 100 records were faster.
    pub p99_ms: f64,
}

impl Figures {
    /// Takes a run apart. `own` is how many of the watched processes are the contestant's; the brokers come after them. `memory_mib` is of the
    /// contestant's processes.
    #[must_use]
    pub fn of(run: &Run, own: usize, memory_mib: Vec<f64>) -> Option<Self> {
        let (steady, all) = (run.steady()?, run.with_start_up()?);
        let mut cpu = steady.cpu_per_million();
        let brokers_cpu = cpu.split_off(own.min(cpu.len()));
        let mut cpu_with_start_up = all.cpu_per_million();
        cpu_with_start_up.truncate(own);
        let first_record = run.first_record().unwrap_or_default().as_secs_f64();
        Some(Self { rate: steady.rate(), cpu, cpu_with_start_up, brokers_cpu, memory_mib, first_record })
    }

    /// The median of each figure on its own.
    #[must_use]
    pub fn median(runs: &[Self]) -> Option<Self> {
        let one = |pick: fn(&Self) -> f64| median(runs.iter().map(pick).collect());
        let many = |pick: fn(&Self) -> &Vec<f64>| -> Option<Vec<f64>> {
            let count = runs.first().map_or(0, |run| pick(run).len());
            (0..count).map(|index| median(runs.iter().filter_map(|run| pick(run).get(index).copied()).collect())).collect()
        };
        Some(Self {
            rate: one(|run| run.rate)?,
            cpu: many(|run| &run.cpu)?,
            cpu_with_start_up: many(|run| &run.cpu_with_start_up)?,
            brokers_cpu: many(|run| &run.brokers_cpu)?,
            memory_mib: many(|run| &run.memory_mib)?,
            first_record: one(|run| run.first_record)?,
        })
    }
}

impl Latency {
    /// Percentiles of latencies.
    #[must_use]
    pub fn of(p50: Duration, p99: Duration) -> Self {
        Self { p50_ms: p50.as_secs_f64() * 1e3, p99_ms: p99.as_secs_f64() * 1e3 }
    }

    /// The median of each on its own.
    #[must_use]
    pub fn median(runs: &[Self]) -> Option<Self> {
        let p50_ms = median(runs.iter().map(|run| run.p50_ms).collect())?;
        Some(Self { p50_ms, p99_ms: median(runs.iter().map(|run| run.p99_ms).collect())? })
    }
}

/// The middle one; of an even number the mean of the middle two. `None` of none.
#[must_use]
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    if values.len() % 2 == 1 {
        return Some(upper);
    }
    Some(f64::midpoint(*values.get(middle - 1)?, upper))
}

/// One line for one run, told as it ends.
#[must_use]
pub fn run_line(contestant: Contestant, figures: &Figures) -> String {
    format!(
        "    {:<14} {:>9} records/s   {:>6.2} CPU-s per million   {} MiB   first record after {:.1} s",
        contestant.name(),
        whole(figures.rate),
        figures.cpu.iter().sum::<f64>(),
        figures.memory_mib.iter().map(|mib| format!("{mib:.0}")).collect::<Vec<_>>().join(" + "),
        figures.first_record
    )
}

/// The table of a workload. Without MirrorMaker 2 there is nothing to compare with.
#[must_use]
pub fn table(workload: &Workload, records: u64, spillway: &Figures, mirror_maker: Option<&Figures>) -> String {
    let mut text = format!("  {}: {} records, medians\n", workload.name, count_text(records));
    let sum = |values: &[f64]| values.iter().sum::<f64>();
    let split = |values: &[f64]| values.iter().map(|value| format!("{value:.1}")).collect::<Vec<_>>().join(" + ");
    let mut row = |name: &str, ours: f64, parts: &str, theirs: Option<f64>, digits: usize| {
        let theirs_text = theirs.map_or_else(|| "-".to_owned(), |value| figure(value, digits));
        let ratio = theirs.map_or_else(String::new, |value| format!("{:>6.2}", ours / value));
        // Writing to a string cannot fail.
        let _written = writeln!(text, "    {name:<38}{:>10}  {theirs_text:>13}  {ratio:>6}  {parts}", figure(ours, digits));
    };
    row("records/s", spillway.rate, "", mirror_maker.map(|figures| figures.rate), 0);
    let parts = format!("agent + collector: {}", split(&spillway.cpu));
    row("CPU-s per million records", sum(&spillway.cpu), &parts, mirror_maker.map(|figures| sum(&figures.cpu)), 2);
    let parts = format!("agent + collector: {}", split(&spillway.cpu_with_start_up));
    let theirs = mirror_maker.map(|figures| sum(&figures.cpu_with_start_up));
    row("  the same with start-up", sum(&spillway.cpu_with_start_up), &parts, theirs, 2);
    let parts = format!("edge + centre: {}", split(&spillway.brokers_cpu));
    let theirs = mirror_maker.map(|figures| sum(&figures.brokers_cpu));
    row("  beside it, of the brokers", sum(&spillway.brokers_cpu), &parts, theirs, 2);
    let parts = format!("agent + collector: {}", split(&spillway.memory_mib));
    row("peak resident memory, MiB", sum(&spillway.memory_mib), &parts, mirror_maker.map(|figures| sum(&figures.memory_mib)), 0);
    row("first record after, s", spillway.first_record, "", mirror_maker.map(|figures| figures.first_record), 1);
    text
}

/// The table of the latencies.
#[must_use]
pub fn latency_table(rate: u32, spillway: Latency, mirror_maker: Option<Latency>) -> String {
    let mut text = format!("  latency at {rate} records/s, from CreateTime until a read_committed consumer has the record, medians\n");
    for (name, pick) in [("p50, ms", (|latency| latency.p50_ms) as fn(Latency) -> f64), ("p99, ms", |latency| latency.p99_ms)] {
        let ours = pick(spillway);
        let (theirs, ratio) = mirror_maker
            .map(pick)
            .map_or_else(|| ("-".to_owned(), String::new()), |theirs| (format!("{theirs:.0}"), format!("{:.2}", ours / theirs)));
        let _written = writeln!(text, "    {name:<38}{ours:>10.0}  {theirs:>13}  {ratio:>6}");
    }
    text
}

/// The line above all tables.
#[must_use]
pub fn heading() -> String {
    format!("  {:<40}{:>10}  {:>13}  {:>6}", "", "Spillway", "MirrorMaker 2", "ratio")
}

fn figure(value: f64, digits: usize) -> String {
    if digits == 0 { whole(value) } else { format!("{value:.digits$}") }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a figure for people, never negative")]
fn whole(value: f64) -> String {
    count_text(value.max(0.0).round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::workload::WORKLOADS;

    fn figures(rate: f64, cpu: Vec<f64>) -> Figures {
        Figures { rate, cpu_with_start_up: cpu.clone(), memory_mib: cpu.clone(), cpu, brokers_cpu: vec![1.0, 2.0], first_record: 1.5 }
    }

    #[test]
    fn medians_are_taken_figure_by_figure() {
        let runs = [figures(10.0, vec![1.0, 9.0]), figures(30.0, vec![3.0, 7.0]), figures(20.0, vec![2.0, 8.0])];
        assert_eq!(Figures::median(&runs), Some(figures(20.0, vec![2.0, 8.0])));
        assert_eq!(median(vec![4.0, 1.0]), Some(2.5));
        assert_eq!((median(Vec::new()), Figures::median(&[])), (None, None));
    }

    #[test]
    fn the_ratio_is_ours_to_theirs() {
        let text = table(&WORKLOADS[0], 1_000_000, &figures(50_000.0, vec![4.0, 6.0]), Some(&figures(40_000.0, vec![20.0])));
        let rate = text.lines().find(|line| line.contains("records/s")).unwrap_or_default();
        assert!(rate.contains("50,000") && rate.contains("40,000") && rate.contains("1.25"), "{rate}");
        let cpu = text.lines().find(|line| line.contains("CPU-s per million")).unwrap_or_default();
        assert!(cpu.contains("10.00") && cpu.contains("20.00") && cpu.contains("0.50"), "{cpu}");
    }
}
