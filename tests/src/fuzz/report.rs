//! What libFuzzer said, in a few figures.

/// One target's run.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Report {
    target: String,
    executions: u64,
    /// Edges of the program that were reached.
    coverage: u64,
    inputs: u64,
    finding: Option<Finding>,
}

/// Something that does not hold.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    /// The last words of the panic, or what libFuzzer calls it.
    what: String,
    /// The input, where there is one.
    artifact: Option<String>,
}

impl Report {
    /// Reads libFuzzer's log.
    pub(super) fn read(target: &str, succeeded: bool, log: &str) -> Self {
        let number = |text: &str| text.split_whitespace().next().and_then(|number| number.parse().ok());
        let last = |label: &str| log.lines().rev().find_map(|line| line.split_once(label).and_then(|(_, rest)| number(rest)));
        let artifact = log.lines().rev().find_map(|line| line.split_once("Test unit written to ")).map(|(_, path)| path.trim().to_owned());
        let what = || {
            let panic = log.lines().position(|line| line.contains("panicked at"));
            let panic = panic.map(|at| log.lines().skip(at).take(3).collect::<Vec<_>>().join(" "));
            let error = log.lines().find(|line| line.contains("ERROR: ")).map(str::to_owned);
            panic.or(error).unwrap_or_else(|| log.lines().last().unwrap_or("no word").to_owned())
        };
        Self {
            target: target.to_owned(),
            executions: last("stat::number_of_executed_units:").or_else(|| last("Done ")).unwrap_or(0),
            coverage: last(" cov: ").unwrap_or(0),
            inputs: last("stat::new_units_added:").unwrap_or(0),
            finding: (!succeeded).then(|| Finding { what: what(), artifact }),
        }
    }

    pub(super) fn is_clean(&self) -> bool {
        self.finding.is_none()
    }

    /// One line of the table.
    pub(super) fn line(&self) -> String {
        let Self { target, executions, coverage, inputs, finding } = self;
        let ending = if finding.is_some() { "FOUND" } else { "ok" };
        format!("  {ending:<6} {target:<12} {executions:>12} executions {coverage:>6} edges {inputs:>6} new inputs")
    }
}

/// What was found, and how to see it again.
pub(super) fn print(reports: &[Report], seconds: u64) {
    for Report { target, finding, .. } in reports {
        let Some(Finding { what, artifact }) = finding else { continue };
        println!("\n{target}: {what}");
        match artifact {
            Some(path) => println!("  again: ./lab fuzz {target} --replay {path}"),
            None => println!("  no input was kept; the log is .lab/fuzz/{target}.log"),
        }
    }
    let found = reports.iter().filter(|report| !report.is_clean()).count();
    println!("\n{} targets, {seconds} s each: {found} findings", reports.len());
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLEAN: &str = "#2\tINITED cov: 90 ft: 91 corp: 1/1b exec/s: 0 rss: 40Mb\n\
                         #1048576\tpulse  cov: 412 ft: 1044 corp: 93/2048b lim: 110 exec/s: 524288 rss: 61Mb\n\
                         Done 1500000 runs in 31 second(s)\n\
                         stat::number_of_executed_units: 1500000\n\
                         stat::new_units_added:          92\n";

    #[test]
    fn a_clean_run_is_told_in_figures() {
        let report = Report::read("frame", true, CLEAN);
        assert!(report.is_clean());
        assert_eq!((report.executions, report.coverage, report.inputs), (1_500_000, 412, 92));
    }

    #[test]
    fn a_finding_is_told_with_its_words_and_its_input() {
        let log = "#9\tNEW    cov: 7 ft: 7\nthread '<unnamed>' panicked at src/agent.rs:9:1:\nassertion failed\nnote: more\n\
                   artifact_prefix='/x/'; Test unit written to /x/crash-00ff\n";
        let report = Report::read("agent", false, log);
        let finding = report.finding.as_ref();
        assert!(finding.is_some_and(|finding| finding.what.contains("assertion failed")), "{report:?}");
        assert_eq!(finding.and_then(|finding| finding.artifact.as_deref()), Some("/x/crash-00ff"));
        assert!(report.line().contains("FOUND"));
    }
}
