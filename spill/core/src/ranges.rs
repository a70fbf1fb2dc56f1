//! Sets of offsets, as ranges from a first offset up to, not including, a next one.

use spillway_proto::NextOffset;

/// Ranges that neither touch nor overlap, in ascending order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ranges(Vec<(NextOffset, NextOffset)>);

impl Ranges {
    /// Adds a range; joins what touches. An empty one changes nothing.
    pub fn insert(&mut self, first: NextOffset, next: NextOffset) {
        if first >= next {
            return;
        }
        let from = self.0.partition_point(|(_, end)| *end < first);
        let to = self.0.partition_point(|(begin, _)| *begin <= next);
        let merged = self.0.get(from..to).unwrap_or_default();
        let begin = merged.first().map_or(first, |range| range.0.min(first));
        let end = merged.last().map_or(next, |range| range.1.max(next));
        self.0.splice(from..to, [(begin, end)]);
    }

    /// Takes a range out.
    pub fn remove(&mut self, first: NextOffset, next: NextOffset) {
        let mut kept = Self::default();
        for (begin, end) in &self.0 {
            kept.insert(*begin, (*end).min(first));
            kept.insert((*begin).max(next), *end);
        }
        *self = kept;
    }

    /// The parts of a range that are not in the set.
    pub fn missing(&self, first: NextOffset, next: NextOffset) -> Self {
        let mut missing = Self::default();
        missing.insert(first, next);
        for (begin, end) in &self.0 {
            missing.remove(*begin, *end);
        }
        missing
    }

    /// The parts of a range that are in the set.
    pub fn common(&self, first: NextOffset, next: NextOffset) -> Self {
        let mut common = Self::default();
        for (begin, end) in &self.0 {
            common.insert((*begin).max(first), (*end).min(next));
        }
        common
    }

    /// The ranges in order.
    pub fn iter(&self) -> impl Iterator<Item = (NextOffset, NextOffset)> + Clone + '_ {
        self.0.iter().copied()
    }

    /// The lowest offset.
    pub fn first(&self) -> Option<NextOffset> {
        self.0.first().map(|range| range.0)
    }

    /// One past the highest offset.
    pub fn end(&self) -> Option<NextOffset> {
        self.0.last().map(|range| range.1)
    }

    /// True without any offset.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many offsets there are.
    pub fn count(&self) -> u64 {
        self.0.iter().map(|(first, next)| next.value() - first.value()).sum()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn next(value: u64) -> NextOffset {
        NextOffset::new(value).unwrap()
    }

    proptest! {
        #[test]
        fn ranges_are_sets(steps in prop::collection::vec((any::<bool>(), 0u64..40, 0u64..12), 0..30), from in 0u64..40, length in 0u64..20) {
            let (mut ranges, mut set) = (Ranges::default(), BTreeSet::new());
            for (add, first, length) in steps {
                if add {
                    ranges.insert(next(first), next(first + length));
                    set.extend(first..first + length);
                } else {
                    ranges.remove(next(first), next(first + length));
                    set.retain(|value| !(first..first + length).contains(value));
                }
            }
            let values = |ranges: &Ranges| ranges.iter().flat_map(|(first, next)| first.value()..next.value()).collect::<BTreeSet<_>>();
            prop_assert_eq!(values(&ranges), set.clone());
            prop_assert_eq!(ranges.count(), set.len() as u64);
            prop_assert!(ranges.iter().zip(ranges.iter().skip(1)).all(|(a, b)| a.1 < b.0), "they neither touch nor overlap");
            let window = from..from + length;
            let (inside, outside): (BTreeSet<u64>, BTreeSet<u64>) = window.clone().partition(|value| set.contains(value));
            prop_assert_eq!(values(&ranges.common(next(window.start), next(window.end))), inside);
            prop_assert_eq!(values(&ranges.missing(next(window.start), next(window.end))), outside);
        }
    }
}
