//! One source partition against its remote partition. Pure.

use std::collections::{HashMap, VecDeque};

use super::read::Fingerprint;

/// Faults described in words, per partition and kind.
pub const MAX_EXAMPLES: usize = 3;

/// What was found in one partition; the fields are those of [`super::Report`].
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// See [`super::Report::source_records`].
    pub source_records: u64,
    /// See [`super::Report::centre_records`].
    pub centre_records: u64,
    /// See [`super::Report::lost`].
    pub lost: u64,
    /// See [`super::Report::duplicated`].
    pub duplicated: u64,
    /// See [`super::Report::out_of_order`].
    pub out_of_order: u64,
    /// See [`super::Report::altered`].
    pub altered: u64,
    /// Some faults in words.
    pub examples: Vec<String>,
}

/// Holds the centre's log against the source's: each record with its contents and timestamp, in order, exactly once. Offsets
/// are each log's own and not compared.
#[must_use]
pub fn compare(source: &[Fingerprint], centre: &[Fingerprint]) -> Verdict {
    let mut verdict = Verdict { source_records: count(source.len()), centre_records: count(centre.len()), ..Verdict::default() };
    let same = source.len() == centre.len() && source.iter().zip(centre).all(|(a, b)| a.hash == b.hash);
    if !same {
        explain(source, centre, &mut verdict);
    }
    verdict
}

fn explain(source: &[Fingerprint], centre: &[Fingerprint], verdict: &mut Verdict) {
    // Equal records are interchangeable: the n-th at the centre stands for the n-th at the source.
    let mut awaited: HashMap<u128, VecDeque<usize>> = HashMap::new();
    for (index, record) in source.iter().enumerate() {
        awaited.entry(record.hash).or_default().push_back(index);
    }
    let mut arrived = vec![false; source.len()];
    let mut furthest: Option<usize> = None;
    let mut examples = Examples::default();
    for record in centre {
        let Some(indices) = awaited.get_mut(&record.hash) else {
            verdict.altered += 1;
            examples.note("altered", record, "nothing like it at the source");
            continue;
        };
        let Some(index) = indices.pop_front() else {
            verdict.duplicated += 1;
            examples.note("duplicated", record, "one more than at the source");
            continue;
        };
        if let Some(seen) = arrived.get_mut(index) {
            *seen = true;
        }
        if furthest.is_some_and(|furthest| index < furthest) {
            verdict.out_of_order += 1;
            examples.note("out of order", record, "behind a record that follows it at the source");
        } else {
            furthest = Some(index);
        }
    }
    for (record, _) in source.iter().zip(&arrived).filter(|(_, arrived)| !**arrived) {
        verdict.lost += 1;
        examples.note("lost", record, "not at the centre");
    }
    verdict.examples = examples.lines;
}

#[derive(Default)]
struct Examples {
    per_kind: HashMap<&'static str, usize>,
    lines: Vec<String>,
}

impl Examples {
    fn note(&mut self, kind: &'static str, record: &Fingerprint, why: &str) {
        let seen = self.per_kind.entry(kind).or_default();
        *seen += 1;
        if *seen <= MAX_EXAMPLES {
            let side = if kind == "lost" { "source" } else { "central" };
            let time = record.create_time_ms.map_or_else(|| "no CreateTime".to_owned(), |ms| format!("CreateTime {ms}"));
            self.lines.push(format!("{kind}: {side} offset {}, {time}, {} bytes: {why}", record.offset, record.size));
        }
    }
}

fn count(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(hashes: &[u128]) -> Vec<Fingerprint> {
        let one = |(offset, hash): (i64, &u128)| Fingerprint { offset, create_time_ms: Some(0), hash: *hash, size: 1 };
        (0..).zip(hashes).map(one).collect()
    }

    fn faults(source: &[u128], centre: &[u128]) -> (u64, u64, u64, u64) {
        let verdict = compare(&log(source), &log(centre));
        assert_eq!(verdict.examples.is_empty(), source == centre);
        (verdict.lost, verdict.duplicated, verdict.out_of_order, verdict.altered)
    }

    #[test]
    fn every_kind_of_fault_is_told_from_the_others() {
        assert_eq!(faults(&[1, 2, 3], &[1, 2, 3]), (0, 0, 0, 0));
        assert_eq!(faults(&[1, 2, 3], &[1, 3]), (1, 0, 0, 0), "lost in the middle");
        assert_eq!(faults(&[1, 2, 3], &[1, 2]), (1, 0, 0, 0), "lost at the end");
        assert_eq!(faults(&[1, 2, 3], &[1, 2, 2, 3]), (0, 1, 0, 0));
        assert_eq!(faults(&[1, 2, 3], &[1, 2, 3, 1, 2, 3]), (0, 3, 0, 0), "a batch written twice");
        assert_eq!(faults(&[1, 2, 3], &[2, 1, 3]), (0, 0, 1, 0));
        assert_eq!(faults(&[1, 2, 3], &[1, 9, 3]), (1, 0, 0, 1), "altered is also lost");
        assert_eq!(faults(&[], &[9]), (0, 0, 0, 1));
    }

    #[test]
    fn equal_records_are_counted_not_confused() {
        assert_eq!(faults(&[7, 7, 7], &[7, 7, 7]), (0, 0, 0, 0));
        assert_eq!(faults(&[7, 7, 7], &[7, 7]), (1, 0, 0, 0));
        assert_eq!(faults(&[7, 7], &[7, 7, 7]), (0, 1, 0, 0));
        assert_eq!(faults(&[7, 8, 7], &[7, 7, 8]), (0, 0, 1, 0));
    }
}
