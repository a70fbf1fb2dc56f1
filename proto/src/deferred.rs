//! Offsets of a source partition that come later than those above them: the ranges over which a lane was moved by a gap of reason
//! [`GapReason::Deferred`](crate::frame::GapReason::Deferred), and how much of each is still to come.
//!
//! Invariants:
//! - A. Ranges are not empty, do not overlap, and stand in order.
//! - B. A range's end never changes while it lasts: it is the range's name. Its beginning only goes up.
//! - C. There are at most [`MAX_RANGES`].

use crate::codec::{DecodeError, Reader, put_varint};
use crate::frame::next_offset;
use crate::types::NextOffset;

/// Most deferred ranges of a partition. Each costs 16 bytes in the partition's position at the centre, which is written with every transaction that
/// moves it, and each outage that ends before the backlog of the last one is sent makes one more.
pub const MAX_RANGES: usize = 8;

/// A range of offsets that is still to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// First offset that is not at the centre.
    pub first: NextOffset,
    /// One past the last offset.
    pub end: NextOffset,
}

/// The deferred ranges of a partition, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Deferred {
    ranges: Vec<Range>,
}

/// A range that cannot be deferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There are as many as a partition may have.
    #[error("more than {MAX_RANGES} deferred ranges")]
    TooMany,
    /// It is empty, or does not lie above all others.
    #[error("the range from {} to {} is empty, or not above the others", .0.first, .0.end)]
    Disorder(Range),
}

impl Deferred {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// The range comes later.
    ///
    /// # Errors
    /// When it would break an invariant; then nothing has changed.
    pub fn defer(&mut self, range: Range) -> Result<(), Error> {
        if range.first >= range.end || self.ranges.last().is_some_and(|last| range.first < last.end) {
            return Err(Error::Disorder(range));
        }
        if self.ranges.len() >= MAX_RANGES {
            return Err(Error::TooMany);
        }
        self.ranges.push(range);
        Ok(())
    }

    /// Everything of the range with this end that is below `next` has come. Without effect where it had come before.
    pub fn advance(&mut self, end: NextOffset, next: NextOffset) {
        for range in self.ranges.iter_mut().filter(|range| range.end == end) {
            range.first = range.first.max(next);
        }
        self.ranges.retain(|range| range.first < range.end);
    }

    /// The range with this end; `None` when all of it has come, or it never was.
    pub fn range(&self, end: NextOffset) -> Option<Range> {
        self.iter().find(|range| range.end == end)
    }

    /// The ranges in order.
    pub fn iter(&self) -> impl Iterator<Item = Range> + '_ {
        self.ranges.iter().copied()
    }

    /// The first offset of all that is still to come.
    pub fn first(&self) -> Option<NextOffset> {
        self.ranges.first().map(|range| range.first)
    }

    /// How many offsets are still to come. Holes count.
    pub fn offsets(&self) -> u64 {
        self.iter().map(|range| range.end.value() - range.first.value()).sum()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// True when nothing is still to come.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// True when no further range may be deferred.
    pub fn is_full(&self) -> bool {
        self.ranges.len() >= MAX_RANGES
    }

    /// Appends the bytes: varint count, then of each range varint first, varint end.
    pub fn put(&self, out: &mut Vec<u8>) {
        put_varint(out, self.ranges.len() as u64);
        for range in &self.ranges {
            put_varint(out, range.first.value());
            put_varint(out, range.end.value());
        }
    }

    /// Reads what [`Self::put`] writes.
    ///
    /// # Errors
    /// Any deviation from the format, ranges that break an invariant included.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let count = reader.length(MAX_RANGES, "deferred ranges")?;
        // A range takes at least two bytes, which bounds what a false count can make us reserve.
        let mut deferred = Self { ranges: Vec::with_capacity(count.min(reader.remaining() / 2)) };
        for _ in 0..count {
            let range = Range { first: next_offset(reader, "first deferred")?, end: next_offset(reader, "end of deferred")? };
            let (left, right) = (range.first.value(), range.end.value());
            deferred.defer(range).map_err(|_| DecodeError::Mismatch { what: "deferred ranges in order", left, right })?;
        }
        Ok(deferred)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;

    use super::*;

    fn range(first: u64, end: u64) -> Range {
        Range { first: NextOffset::new(first).unwrap(), end: NextOffset::new(end).unwrap() }
    }

    fn at(next: u64) -> NextOffset {
        NextOffset::new(next).unwrap()
    }

    #[test]
    fn a_range_shrinks_from_its_beginning_and_goes_with_its_end() {
        let mut deferred = Deferred::new();
        deferred.defer(range(10, 20)).unwrap();
        deferred.defer(range(20, 30)).unwrap();
        deferred.advance(at(20), at(15));
        assert_eq!(deferred.range(at(20)), Some(range(15, 20)));
        deferred.advance(at(20), at(12));
        assert_eq!(deferred.first(), Some(at(15)), "what has come does not go away again");
        deferred.advance(at(20), at(20));
        assert_eq!((deferred.range(at(20)), deferred.first()), (None, Some(at(20))));
        deferred.advance(at(25), at(25));
        assert_eq!(deferred.range(at(30)), Some(range(20, 30)), "no range ends there");
    }

    #[test]
    fn what_breaks_an_invariant_is_refused() {
        let mut deferred = Deferred::new();
        for wrong in [range(5, 5), range(6, 5)] {
            assert_eq!(deferred.defer(wrong), Err(Error::Disorder(wrong)));
        }
        deferred.defer(range(0, 5)).unwrap();
        assert_eq!(deferred.defer(range(4, 9)), Err(Error::Disorder(range(4, 9))));
        for n in 1..MAX_RANGES as u64 {
            assert!(!deferred.is_full());
            deferred.defer(range(10 * n, 10 * n + 1)).unwrap();
        }
        assert!(deferred.is_full());
        assert_eq!(deferred.defer(range(1000, 1001)), Err(Error::TooMany));
        assert_eq!(deferred.len(), MAX_RANGES);
    }

    proptest! {
        #[test]
        fn bytes_are_read_back(steps in prop::collection::vec((0u64..1 << 40, 1u64..1 << 40), 0..=MAX_RANGES)) {
            let (mut deferred, mut from) = (Deferred::new(), 0);
            for (gap, length) in steps {
                deferred.defer(range(from + gap, from + gap + length)).unwrap();
                from += gap + length;
            }
            let mut bytes = Vec::new();
            deferred.put(&mut bytes);
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(Deferred::read(&mut reader).unwrap(), deferred);
            reader.finish("the ranges").unwrap();
        }

        #[test]
        fn no_bytes_break_an_invariant(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(deferred) = Deferred::read(&mut Reader::new(&bytes)) {
                let ends = deferred.iter().flat_map(|range| [range.first, range.end]).collect::<Vec<_>>();
                prop_assert!(ends.is_sorted() && deferred.iter().all(|range| range.first < range.end) && deferred.len() <= MAX_RANGES);
            }
        }
    }
}
