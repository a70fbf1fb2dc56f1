//! The primitive reader and writer. No length that was read drives an allocation before it was checked (invariant G).
//!
//! Integers are big-endian; `varint` is unsigned LEB128 in its shortest form, at most 10 bytes; `text` is a varint length and UTF-8.

use thiserror::Error;

/// Bytes that do not follow the format. `at` is the position in the input, in bytes from 0.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The input ends inside a value.
    #[error("truncated in {what} at byte {at}")]
    Truncated {
        /// The value that was being read.
        what: &'static str,
        /// Where it began.
        at: usize,
    },
    /// Bytes are left after the last value.
    #[error("{left} bytes too many after {what}")]
    Trailing {
        /// What had been read whole.
        what: &'static str,
        /// How many bytes are left.
        left: usize,
    },
    /// A varint longer than 10 bytes, above 2⁶⁴−1, or not in its shortest form.
    #[error("malformed varint in {what} at byte {at}")]
    Varint {
        /// The value that was being read.
        what: &'static str,
        /// Where it began.
        at: usize,
    },
    /// A number outside what its field allows.
    #[error("{what} is {value}, at most {limit} is allowed")]
    Range {
        /// The field.
        what: &'static str,
        /// What it said.
        value: u64,
        /// The largest value allowed.
        limit: u64,
    },
    /// A number that stands for nothing known.
    #[error("unknown {what} {value}")]
    Unknown {
        /// The field.
        what: &'static str,
        /// What it said.
        value: u64,
    },
    /// Text that is not UTF-8.
    #[error("{what} at byte {at} is not UTF-8")]
    Utf8 {
        /// The field.
        what: &'static str,
        /// Where the text began.
        at: usize,
    },
    /// A name that its type refuses.
    #[error("{what}")]
    Name {
        /// The field.
        what: &'static str,
        /// Why the name is refused.
        #[source]
        source: crate::types::NameError,
    },
    /// Two fields contradict each other.
    #[error("{what}: {left} against {right}")]
    Mismatch {
        /// What was compared.
        what: &'static str,
        /// The first figure.
        left: u64,
        /// The second figure.
        right: u64,
    },
    /// The checksum does not match the bytes.
    #[error("checksum {found:08x}, computed {computed:08x}")]
    Checksum {
        /// What the bytes carry.
        found: u32,
        /// What they should carry.
        computed: u32,
    },
    /// The body names a dictionary that is not there.
    #[error("dictionary {0:08x} is not there")]
    Dictionary(u32),
    /// zstd refused the body.
    #[error("zstd: {0}")]
    Zstd(String),
}

/// Reads values off a byte slice.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Starts at the first byte.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Position, in bytes from the start.
    pub fn position(&self) -> usize {
        self.at
    }

    /// Bytes that are left.
    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// The next `length` bytes, borrowed.
    pub fn bytes(&mut self, length: usize, what: &'static str) -> Result<&'a [u8], DecodeError> {
        let end = self.at.checked_add(length);
        let slice = end.and_then(|end| self.bytes.get(self.at..end));
        let slice = slice.ok_or(DecodeError::Truncated { what, at: self.at })?;
        self.at += length;
        Ok(slice)
    }

    /// A fixed number of bytes.
    pub fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], DecodeError> {
        let at = self.at;
        self.bytes(N, what)?.try_into().map_err(|_| DecodeError::Truncated { what, at })
    }

    /// One byte.
    pub fn u8(&mut self, what: &'static str) -> Result<u8, DecodeError> {
        self.array::<1>(what).map(|[byte]| byte)
    }

    /// A big-endian INT16.
    pub fn i16(&mut self, what: &'static str) -> Result<i16, DecodeError> {
        self.array(what).map(i16::from_be_bytes)
    }

    /// A big-endian INT32.
    pub fn i32(&mut self, what: &'static str) -> Result<i32, DecodeError> {
        self.array(what).map(i32::from_be_bytes)
    }

    /// A big-endian INT64.
    pub fn i64(&mut self, what: &'static str) -> Result<i64, DecodeError> {
        self.array(what).map(i64::from_be_bytes)
    }

    /// An unsigned LEB128 number in its shortest form.
    pub fn varint(&mut self, what: &'static str) -> Result<u64, DecodeError> {
        let at = self.at;
        let mut value = 0u64;
        for shift in (0..).step_by(7).take(MAX_VARINT_BYTES) {
            let byte = self.u8(what).map_err(|_| DecodeError::Truncated { what, at })?;
            let bits = u64::from(byte & 0x7f);
            let last = byte & 0x80 == 0;
            // The tenth byte holds the one bit that is left; a final zero byte would be a longer form of the same number.
            if (shift == 63 && bits > 1) || (last && bits == 0 && shift > 0) {
                return Err(DecodeError::Varint { what, at });
            }
            value |= bits << shift;
            if last {
                return Ok(value);
            }
        }
        Err(DecodeError::Varint { what, at })
    }

    /// A varint no larger than `limit`.
    pub fn varint_up_to(&mut self, limit: u64, what: &'static str) -> Result<u64, DecodeError> {
        let value = self.varint(what)?;
        if value > limit {
            return Err(DecodeError::Range { what, value, limit });
        }
        Ok(value)
    }

    /// A varint that fits 32 bits.
    pub fn varint_u32(&mut self, what: &'static str) -> Result<u32, DecodeError> {
        let value = self.varint_up_to(u64::from(u32::MAX), what)?;
        u32::try_from(value).map_err(|_| DecodeError::Range { what, value, limit: u64::from(u32::MAX) })
    }

    /// A varint used as a length, no larger than `limit`.
    pub fn length(&mut self, limit: usize, what: &'static str) -> Result<usize, DecodeError> {
        let value = self.varint_up_to(limit as u64, what)?;
        usize::try_from(value).map_err(|_| DecodeError::Range { what, value, limit: limit as u64 })
    }

    /// A signed number in zigzag form.
    pub fn zigzag(&mut self, what: &'static str) -> Result<i64, DecodeError> {
        let raw = self.varint(what)?;
        Ok((raw >> 1).cast_signed() ^ -((raw & 1).cast_signed()))
    }

    /// Text of at most `limit` bytes.
    pub fn text(&mut self, limit: usize, what: &'static str) -> Result<&'a str, DecodeError> {
        let length = self.length(limit, what)?;
        let at = self.at;
        std::str::from_utf8(self.bytes(length, what)?).map_err(|_| DecodeError::Utf8 { what, at })
    }

    /// Kafka's STRING: INT16 length and UTF-8, never null.
    pub fn kafka_string(&mut self, what: &'static str) -> Result<&'a str, DecodeError> {
        let at = self.at;
        let length = self.i16(what)?;
        let length = usize::try_from(length).map_err(|_| DecodeError::Truncated { what, at })?;
        let at = self.at;
        std::str::from_utf8(self.bytes(length, what)?).map_err(|_| DecodeError::Utf8 { what, at })
    }

    /// Ends the reading: nothing may be left.
    pub fn finish(&self, what: &'static str) -> Result<(), DecodeError> {
        match self.remaining() {
            0 => Ok(()),
            left => Err(DecodeError::Trailing { what, left }),
        }
    }
}

/// Appends a varint.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a signed number in zigzag form.
pub fn put_zigzag(out: &mut Vec<u8>, value: i64) {
    put_varint(out, ((value << 1) ^ (value >> 63)).cast_unsigned());
}

/// Appends a length and the bytes.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends text, cut at a character boundary to at most `limit` bytes.
pub fn put_text(out: &mut Vec<u8>, text: &str, limit: usize) {
    put_bytes(out, cut(text, limit).as_bytes());
}

/// Appends Kafka's STRING. Names that Spillway writes are far below INT16's limit; a longer one is cut.
pub fn put_kafka_string(out: &mut Vec<u8>, text: &str) {
    let text = cut(text, i16::MAX as usize);
    out.extend_from_slice(&(text.len() as u16).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// The longest head of `text` of at most `limit` bytes that ends between two characters.
pub fn cut(text: &str, limit: usize) -> &str {
    text.get(..text.floor_char_boundary(limit)).unwrap_or(text)
}

/// How many bytes [`put_varint`] appends.
pub fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

const MAX_VARINT_BYTES: usize = 10;

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn overlong_varints_are_refused() {
        for bytes in [&[0x80, 0x00][..], &[0xff; 11], &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02]] {
            assert!(matches!(Reader::new(bytes).varint("n"), Err(DecodeError::Varint { .. })), "{bytes:x?}");
        }
        assert_eq!(Reader::new(&[0x80]).varint("n"), Err(DecodeError::Truncated { what: "n", at: 0 }));
    }

    #[test]
    fn a_length_is_checked_before_it_is_used() {
        let mut bytes = Vec::new();
        put_varint(&mut bytes, u64::MAX);
        assert!(matches!(Reader::new(&bytes).text(10, "t"), Err(DecodeError::Range { limit: 10, .. })));
        assert!(matches!(Reader::new(&[5, b'a']).text(10, "t"), Err(DecodeError::Truncated { .. })));
        assert_eq!(Reader::new(&[0xff, 0xff]).kafka_string("t"), Err(DecodeError::Truncated { what: "t", at: 0 }));
    }

    #[test]
    fn text_is_cut_between_characters() {
        assert_eq!(cut("aé", 2), "a");
        assert_eq!(cut("aé", 3), "aé");
    }

    proptest! {
        #[test]
        fn numbers_round_trip(value: u64, signed: i64) {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            prop_assert_eq!(out.len(), varint_len(value));
            put_zigzag(&mut out, signed);
            let mut reader = Reader::new(&out);
            prop_assert_eq!(reader.varint("a").unwrap(), value);
            prop_assert_eq!(reader.zigzag("b").unwrap(), signed);
            prop_assert!(reader.finish("both").is_ok());
        }
    }
}
