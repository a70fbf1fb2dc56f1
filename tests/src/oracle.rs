//! The judge: what the source holds against what the centre holds, record for record.
//!
//! | module | what it judges |
//! |---|---|
//! | [`read`] | reads what a consumer with `read_committed` would be given, as fingerprints |
//! | [`mod@compare`] | one source partition against its remote partition (pure) |
//! | [`syncs`] | offset syncs: the record at the central offset is the source's record at the upstream offset |

pub mod compare;
pub mod read;
pub mod syncs;

use std::fmt;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::client::Client;
use crate::wait::poll_until;
use compare::{Verdict, compare};
use read::{Reader, read_topic};

/// What was found, summed over partitions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Committed records at the source.
    pub source_records: u64,
    /// Committed records at the centre.
    pub centre_records: u64,
    /// At the source but not at the centre.
    pub lost: u64,
    /// More often at the centre than at the source.
    pub duplicated: u64,
    /// At the centre behind a record that follows it at the source.
    pub out_of_order: u64,
    /// At the centre, but nothing like it at the source: changed on the way, or not ours.
    pub altered: u64,
    /// Some of the faults in words, at most [`compare::MAX_EXAMPLES`] a partition.
    pub examples: Vec<String>,
}

impl Report {
    /// Whether the centre holds exactly what the source holds.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        self.lost == 0 && self.duplicated == 0 && self.out_of_order == 0 && self.altered == 0 && self.source_records == self.centre_records
    }

    fn add(&mut self, place: &str, verdict: &Verdict) {
        self.source_records += verdict.source_records;
        self.centre_records += verdict.centre_records;
        self.lost += verdict.lost;
        self.duplicated += verdict.duplicated;
        self.out_of_order += verdict.out_of_order;
        self.altered += verdict.altered;
        self.examples.extend(verdict.examples.iter().map(|example| format!("{place}: {example}")));
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} records at the source, {} at the centre: {} lost, {} duplicated, {} out of order, {} altered",
            self.source_records, self.centre_records, self.lost, self.duplicated, self.out_of_order, self.altered
        )?;
        for example in &self.examples {
            write!(f, "\n  {example}")?;
        }
        Ok(())
    }
}

/// The name of a source topic at the centre.
#[must_use]
pub fn remote_topic(site: &str, topic: &str) -> String {
    format!("{site}.{topic}")
}

/// Compares every partition of `topics` with its remote partition.
///
/// # Errors
/// When a cluster does not answer, or the remote topic has another partition count.
pub fn judge(source: &Client, centre: &Client, site: &str, topics: &[&str]) -> Result<Report> {
    let mut report = Report::default();
    let (at_source, at_centre) = (Reader::new(source)?, Reader::new(centre)?);
    for topic in topics {
        let remote = remote_topic(site, topic);
        let ours = at_source.topic(topic)?;
        let theirs = at_centre.topic(&remote)?;
        ensure!(ours.len() == theirs.len(), "{topic} has {} partitions, {remote} has {}", ours.len(), theirs.len());
        for (partition, (source_log, centre_log)) in ours.iter().zip(&theirs).enumerate() {
            report.add(&format!("{topic}-{partition}"), &compare(source_log, centre_log));
        }
    }
    Ok(report)
}

/// Waits until the local group of `site` has committed the end of every partition of `topics`: everything is at the centre and acknowledged, or
/// durable in the agent's spill.
///
/// # Errors
/// When it is not so within `limit`; the message says how far it is.
pub fn wait_drained(source: &Client, site: &str, topics: &[&str], limit: Duration) -> Result<()> {
    let counts = source.topics()?;
    let mut ends = Vec::new();
    for topic in topics {
        let partitions = *counts.get(*topic).with_context(|| format!("no topic {topic} at the source"))?;
        let high = |partition| Ok(source.watermarks(topic, partition)?.1);
        ends.push((*topic, (0..partitions).map(high).collect::<Result<Vec<i64>>>()?));
    }
    let mut missing = String::new();
    let drained = poll_until(limit, || {
        missing = first_behind(source, &format!("spillway-{site}"), &ends)?;
        Ok(missing.is_empty().then_some(()))
    })?;
    drained.with_context(|| format!("not drained within {limit:?}: {missing}"))
}

fn first_behind(source: &Client, group: &str, ends: &[(&str, Vec<i64>)]) -> Result<String> {
    for (topic, ends) in ends {
        let committed = source.committed(group, topic, i32::try_from(ends.len())?)?;
        for (partition, (end, committed)) in ends.iter().zip(committed).enumerate() {
            if committed.unwrap_or(0) < *end {
                return Ok(format!("the group has {committed:?} of {end} of {topic}-{partition}"));
            }
        }
    }
    Ok(String::new())
}

/// Checks that the local group of `site` claims nothing that the centre does not hold: every committed offset is at most the
/// source offset behind the centre's last record. Call it at any moment, also while records flow.
///
/// Returns how many partitions had a committed offset.
///
/// # Errors
/// The first partition where the group is past the centre.
pub fn check_group_not_past_centre(source: &Client, centre: &Client, site: &str, topic: &str) -> Result<usize> {
    let group = format!("spillway-{site}");
    let partitions = source.topics()?.get(topic).copied().unwrap_or(0);
    // The group first: what the centre has gained since then cannot hide a fault, only what it had not yet can show one.
    let committed = source.committed(&group, topic, partitions)?;
    let centre_logs = read_topic(centre, &remote_topic(site, topic))?;
    let source_logs = read_topic(source, topic)?;
    let mut known = 0;
    for (partition, offset) in committed.iter().enumerate() {
        let Some(offset) = *offset else { continue };
        known += 1;
        let claimed = source_logs.get(partition).map_or(0, |log| log.iter().filter(|record| record.offset < offset).count());
        let held = centre_logs.get(partition).map_or(0, Vec::len);
        ensure!(
            claimed <= held,
            "group {group} has committed {offset} of {topic}-{partition}, which is {claimed} records, but the centre holds {held}"
        );
    }
    Ok(known)
}
