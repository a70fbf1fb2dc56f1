//! The zigzag variable-length integers of Kafka's record format.

/// Reads a record's fields from the front of a byte slice; every method answers `None` when the bytes end too early.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(taken)
    }

    pub(crate) fn varint(&mut self) -> Option<i32> {
        self.varlong().and_then(|value| i32::try_from(value).ok())
    }

    pub(crate) fn varlong(&mut self) -> Option<i64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = *self.take(1)?.first()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some((value >> 1).cast_signed() ^ -((value & 1).cast_signed()));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zigzag_values_alternate_in_sign() {
        let mut reader = Reader::new(&[0, 1, 2, 0xff, 0x01, 0x80]);
        assert_eq!(reader.varint(), Some(0));
        assert_eq!(reader.varint(), Some(-1));
        assert_eq!(reader.varint(), Some(1));
        assert_eq!(reader.varint(), Some(-128));
        assert_eq!(reader.varint(), None, "a value that is cut off");
    }
}
