//! Many integers beside each other: their lowest bytes first, then the next ones, and so on.
//!
//! ```text
//! u8      how: 0 distance from the smallest, 1 zigzag difference to the one before
//! zigzag  the smallest, or the first
//! u8      width in bytes, 0 to 8
//!         the lowest byte of each distance (of each difference, the first one's left out), then the next byte of each, ...
//! ```
//! Arithmetic wraps, so that any integers come back as they were.

use crate::codec::{DecodeError, Reader, put_zigzag};

const FROM_SMALLEST: u8 = 0;
const FROM_PREVIOUS: u8 = 1;

/// Appends a series of at least one integer.
pub(super) fn put(out: &mut Vec<u8>, values: &[i64]) {
    let (Some(first), Some(smallest), Some(largest)) = (values.first(), values.iter().min(), values.iter().max()) else {
        return;
    };
    let range = largest.wrapping_sub(*smallest).cast_unsigned();
    let by_range = u64::from(bits(range)) * values.len() as u64;
    let by_difference = differences(values).map(|difference| u64::from(bits(difference))).sum::<u64>();
    // A difference has two numbers' noise in it: it has to be clearly shorter.
    if by_difference + by_difference / 8 < by_range {
        out.push(FROM_PREVIOUS);
        put_zigzag(out, *first);
        put_bytes_apart(out, differences(values).max().unwrap_or(0), || differences(values));
    } else {
        out.push(FROM_SMALLEST);
        put_zigzag(out, *smallest);
        put_bytes_apart(out, range, || values.iter().map(|value| value.wrapping_sub(*smallest).cast_unsigned()));
    }
}

/// Reads the integers of a series one after the other, without memory of its own.
#[derive(Debug, Clone)]
pub(super) struct Series<'a> {
    bytes: &'a [u8],
    /// How many integers the bytes are of.
    stored: usize,
    width: usize,
    differences: bool,
    base: i64,
    next: usize,
}

impl<'a> Series<'a> {
    /// Reads a series of `count` integers, at least one.
    pub(super) fn read(reader: &mut Reader<'a>, count: usize, what: &'static str) -> Result<Self, DecodeError> {
        let differences = match reader.u8(what)? {
            FROM_SMALLEST => false,
            FROM_PREVIOUS => true,
            other => return Err(DecodeError::Unknown { what, value: u64::from(other) }),
        };
        let base = reader.zigzag(what)?;
        let width = reader.u8(what)?;
        if width > 8 {
            return Err(DecodeError::Range { what, value: u64::from(width), limit: 8 });
        }
        let (width, stored) = (usize::from(width), count - usize::from(differences && count > 0));
        let bytes = reader.bytes(width.saturating_mul(stored), what)?;
        Ok(Self { bytes, stored, width, differences, base, next: 0 })
    }

    /// The next integer; the last ones again and again beyond the end, which callers never ask for.
    pub(super) fn next(&mut self) -> i64 {
        let place = self.next;
        self.next += 1;
        if !self.differences {
            return self.base.wrapping_add(self.stored_at(place).cast_signed());
        }
        if place > 0 {
            let raw = self.stored_at(place - 1);
            self.base = self.base.wrapping_add((raw >> 1).cast_signed() ^ -((raw & 1).cast_signed()));
        }
        self.base
    }

    fn stored_at(&self, place: usize) -> u64 {
        let byte = |at: usize| u64::from(self.bytes.get(at * self.stored + place).copied().unwrap_or(0));
        (0..self.width).fold(0, |value, at| value | byte(at) << (8 * at))
    }
}

fn differences(values: &[i64]) -> impl Iterator<Item = u64> {
    values.iter().zip(values.iter().skip(1)).map(|(before, value)| {
        let difference = value.wrapping_sub(*before);
        ((difference << 1) ^ (difference >> 63)).cast_unsigned()
    })
}

fn put_bytes_apart<I: Iterator<Item = u64>>(out: &mut Vec<u8>, largest: u64, values: impl Fn() -> I) {
    let width = bits(largest).div_ceil(8);
    out.push(width as u8);
    for at in 0..width {
        out.extend(values().map(|value| (value >> (8 * at)) as u8));
    }
}

fn bits(value: u64) -> u32 {
    64 - value.leading_zeros()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;

    use super::*;

    fn round_trip(values: &[i64]) -> usize {
        let mut out = Vec::new();
        put(&mut out, values);
        let mut reader = Reader::new(&out);
        let mut series = Series::read(&mut reader, values.len(), "series").unwrap();
        let read: Vec<i64> = values.iter().map(|_| series.next()).collect();
        assert_eq!(read, values);
        reader.finish("series").unwrap();
        out.len()
    }

    #[test]
    fn what_is_alike_takes_no_room() {
        assert_eq!(round_trip(&[1_700_000_000_000; 1000]), 8);
        let steps: Vec<i64> = (0..1000).map(|n| 1_700_000_000_000 + n * 10).collect();
        assert!(round_trip(&steps) < 1010);
    }

    #[test]
    fn a_series_longer_than_its_bytes_is_refused() {
        assert!(matches!(Series::read(&mut Reader::new(&[0, 0, 8, 1]), usize::MAX, "s"), Err(DecodeError::Truncated { .. })));
        assert!(matches!(Series::read(&mut Reader::new(&[0, 0, 9]), 1, "s"), Err(DecodeError::Range { .. })));
        assert!(matches!(Series::read(&mut Reader::new(&[2, 0, 0]), 1, "s"), Err(DecodeError::Unknown { .. })));
    }

    proptest! {
        #[test]
        fn any_integers_round_trip(values in prop::collection::vec(prop_oneof![any::<i64>(), -100i64..100, Just(i64::MIN), Just(i64::MAX)], 1..50)) {
            round_trip(&values);
        }
    }
}
