//! Which of the numbered records have arrived, how often and in which order. Pure.
//!
//! The source has forgotten most of what was written when it is over, so both sides cannot be compared: each record says itself which one it is,
//! and what it says follows from its number.

use rand::rngs::StdRng;
use rand::{RngCore as _, SeedableRng as _};

/// Bytes of a value.
pub const VALUE_BYTES: usize = 1000;

/// Holes that are told.
const HOLES_TOLD: usize = 3;

/// The value of a record: its number, then bytes that only a record with this number in this partition has. Nothing compresses.
#[must_use]
pub fn value(partition: i32, number: u64) -> Vec<u8> {
    let mut bytes = vec![0; VALUE_BYTES];
    let mut rng = StdRng::seed_from_u64(number << 16 | u64::from(partition.unsigned_abs()));
    let (head, filler) = bytes.split_at_mut(8);
    head.copy_from_slice(&number.to_be_bytes());
    rng.fill_bytes(filler);
    bytes
}

/// The records of all partitions that have arrived.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    partitions: Vec<Arrivals>,
    altered: u64,
}

#[derive(Debug, Clone, Default)]
struct Arrivals {
    /// By number.
    seen: Vec<bool>,
    distinct: u64,
    duplicated: u64,
    out_of_order: u64,
}

/// What became of the records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Written at the source.
    pub produced: u64,
    /// At the centre, each counted once.
    pub arrived: u64,
    /// Not at the centre.
    pub lost: u64,
    /// At the centre once more than needed.
    pub duplicated: u64,
    /// At the centre behind a record that was written after it, when it came first.
    pub out_of_order: u64,
    /// At the centre, and not as it was written.
    pub altered: u64,
    /// The first holes: partition, first number, number after the last one.
    pub holes: Vec<(usize, u64, u64)>,
}

impl Ledger {
    /// Of so many partitions.
    #[must_use]
    pub fn new(partitions: usize) -> Self {
        Self { partitions: vec![Arrivals::default(); partitions], altered: 0 }
    }

    /// A record has arrived.
    pub fn note(&mut self, partition: i32, value: Option<&[u8]>) {
        let number = value.and_then(|value| Some(u64::from_be_bytes(*value.first_chunk()?)));
        // The number is believed only when the rest fits it.
        let genuine = number.filter(|number| value == Some(self::value(partition, *number).as_slice()));
        let arrivals = usize::try_from(partition).ok().and_then(|index| self.partitions.get_mut(index));
        match (genuine.and_then(|number| usize::try_from(number).ok()), arrivals) {
            (Some(number), Some(arrivals)) => arrivals.note(number),
            _ => self.altered += 1,
        }
    }

    /// Records that have arrived, each counted once.
    #[must_use]
    pub fn distinct(&self) -> u64 {
        self.partitions.iter().map(|arrivals| arrivals.distinct).sum()
    }

    /// Whether the last of so many records of each partition has arrived.
    #[must_use]
    pub fn has_last(&self, produced: &[u64]) -> bool {
        self.partitions.iter().zip(produced).all(|(arrivals, produced)| arrivals.seen.len() as u64 >= *produced)
    }

    /// Holds what has arrived against the records of each partition.
    #[must_use]
    pub fn verdict(&self, produced: &[u64]) -> Verdict {
        let (total, arrived) = (produced.iter().sum::<u64>(), self.distinct());
        let sum = |pick: fn(&Arrivals) -> u64| self.partitions.iter().map(pick).sum();
        let holes = self.partitions.iter().zip(produced).enumerate();
        let holes = holes.flat_map(|(partition, (arrivals, end))| arrivals.holes(*end).map(move |(first, next)| (partition, first, next)));
        Verdict {
            produced: total,
            arrived,
            lost: total.saturating_sub(arrived),
            duplicated: sum(|arrivals| arrivals.duplicated),
            out_of_order: sum(|arrivals| arrivals.out_of_order),
            altered: self.altered,
            holes: holes.take(HOLES_TOLD).collect(),
        }
    }
}

impl Arrivals {
    fn note(&mut self, number: usize) {
        let newest = number >= self.seen.len();
        if newest {
            self.seen.resize(number + 1, false);
        }
        if let Some(seen) = self.seen.get_mut(number) {
            if std::mem::replace(seen, true) {
                self.duplicated += 1;
            } else {
                self.distinct += 1;
                self.out_of_order += u64::from(!newest);
            }
        }
    }

    /// Numbers below `end` that have not arrived, in ranges.
    fn holes(&self, end: u64) -> impl Iterator<Item = (u64, u64)> {
        let missing = |number: u64| usize::try_from(number).ok().and_then(|index| self.seen.get(index)).is_none_or(|seen| !*seen);
        let mut at = 0;
        std::iter::from_fn(move || {
            let first = (at..end).find(|number| missing(*number))?;
            let next = (first..end).find(|number| !missing(*number)).unwrap_or(end);
            at = next;
            Some((first, next))
        })
    }
}

impl Verdict {
    /// Every record once, in order, as it was.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        self.produced > 0 && (self.lost, self.duplicated, self.out_of_order, self.altered) == (0, 0, 0, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(numbers: &[u64]) -> Ledger {
        let mut ledger = Ledger::new(2);
        for number in numbers {
            ledger.note(1, Some(&value(1, *number)));
        }
        ledger
    }

    fn counts(numbers: &[u64]) -> (u64, u64, u64, u64) {
        let verdict = ledger(numbers).verdict(&[0, 5]);
        (verdict.lost, verdict.duplicated, verdict.out_of_order, verdict.altered)
    }

    #[test]
    fn every_kind_of_fault_is_told_from_the_others() {
        assert!(ledger(&[0, 1, 2, 3, 4]).verdict(&[0, 5]).is_exact());
        assert_eq!(counts(&[0, 1, 4]), (2, 0, 0, 0));
        assert_eq!(counts(&[0, 1, 2, 1, 2, 3, 4]), (0, 2, 0, 0), "sent again");
        assert_eq!(counts(&[0, 2, 1, 3, 4]), (0, 0, 1, 0));
        assert_eq!(counts(&[0, 1, 2]), (2, 0, 0, 0), "lost at the end");
        assert!(!Ledger::new(1).verdict(&[0]).is_exact(), "nothing was written");
    }

    #[test]
    fn a_value_that_is_not_as_it_was_written_is_no_arrival() {
        let mut ledger = ledger(&[0, 1, 2, 3]);
        let mut bytes = value(1, 4);
        bytes[500] ^= 1;
        ledger.note(1, Some(&bytes));
        // The same record in another partition.
        ledger.note(0, Some(&value(1, 4)));
        ledger.note(1, None);
        let verdict = ledger.verdict(&[0, 5]);
        assert_eq!((verdict.lost, verdict.altered), (1, 3));
    }

    #[test]
    fn holes_are_told_as_ranges() {
        let ledger = ledger(&[1, 2, 6]);
        assert_eq!(ledger.verdict(&[0, 9]).holes, [(1, 0, 1), (1, 3, 6), (1, 7, 9)]);
        assert!(ledger.has_last(&[0, 7]) && !ledger.has_last(&[0, 8]));
    }
}
