//! What has happened, against what was meant to.

use std::collections::BTreeMap;

use super::schedule::{Cast, Kind, Moment};

/// Counts of faults that were seen to happen, by kind and by the moment that was proven.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    counts: BTreeMap<(Kind, Moment), usize>,
}

impl Tally {
    /// A fault happened. `moment` is [`Moment::Any`] where none was proven.
    pub fn note(&mut self, kind: Kind, moment: Moment) {
        *self.counts.entry((kind, moment)).or_default() += 1;
    }

    /// Adds another tally.
    pub fn add(&mut self, other: &Self) {
        for (place, count) in &other.counts {
            *self.counts.entry(*place).or_default() += count;
        }
    }

    /// Faults of a kind, at whichever moment.
    #[must_use]
    pub fn of(&self, kind: Kind) -> usize {
        self.counts.iter().filter(|((other, _), _)| *other == kind).map(|(_, count)| count).sum()
    }

    /// Faults of a kind at a moment.
    #[must_use]
    pub fn at(&self, kind: Kind, moment: Moment) -> usize {
        self.counts.get(&(kind, moment)).copied().unwrap_or(0)
    }

    /// All faults.
    #[must_use]
    pub fn total(&self) -> usize {
        self.counts.values().sum()
    }

    /// What of a cast has not happened. A fault that missed its moment, or hit one more often than was asked for, stands for one at any time.
    #[must_use]
    pub fn missing(&self, cast: &Cast) -> Cast {
        let mut missing = Cast::new();
        for (kind, moment, wanted) in cast {
            let had = if *moment == Moment::Any {
                let aimed = cast.iter().filter(|(other, at, _)| other == kind && *at != Moment::Any);
                let hits: usize = aimed.map(|(_, at, wanted)| self.at(*kind, *at).min(*wanted)).sum();
                self.of(*kind) - hits
            } else {
                self.at(*kind, *moment)
            };
            if had < *wanted {
                missing.push((*kind, *moment, wanted - had));
            }
        }
        missing
    }

    /// A table of kinds and moments.
    #[must_use]
    pub fn table(&self) -> String {
        let title = format!("  {:<30}{:>8}{:>16}{:>16}{:>14}", "fault", "all", "before produce", "before commit", "before ack");
        let row = |kind: Kind| {
            let [produce, commit, ack] = Moment::OF_TRANSACTION.map(|moment| match kind.has_moment() {
                true => self.at(kind, moment).to_string(),
                false => String::new(),
            });
            format!("  {kind:<30}{:>8}{produce:>16}{commit:>16}{ack:>14}", self.of(kind)).trim_end().to_owned()
        };
        let happened = Kind::ALL.into_iter().filter(|kind| self.of(*kind) > 0);
        std::iter::once(title).chain(happened.map(row)).map(|line| line + "\n").collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_told_by_kind_and_moment() {
        let cast = vec![(Kind::Cut, Moment::Any, 2), (Kind::Cut, Moment::BeforeAck, 1), (Kind::Move, Moment::Any, 1)];
        let mut tally = Tally::default();
        assert_eq!(tally.missing(&cast), cast);
        tally.note(Kind::Cut, Moment::Any);
        tally.note(Kind::Cut, Moment::Any);
        // One of them was meant for the ack and missed it: that is asked for again, and both count.
        assert_eq!(tally.missing(&cast), [(Kind::Cut, Moment::BeforeAck, 1), (Kind::Move, Moment::Any, 1)]);
        tally.note(Kind::Cut, Moment::BeforeAck);
        tally.note(Kind::Move, Moment::Any);
        assert_eq!(tally.missing(&cast), []);
        assert_eq!((tally.of(Kind::Cut), tally.at(Kind::Cut, Moment::BeforeAck), tally.total()), (3, 1, 4));
    }
}
