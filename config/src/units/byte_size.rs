use std::fmt;
use std::str::FromStr;

use super::{Error, Kind};

/// A number of bytes, written `64KiB`, `8MiB`, `1GiB` (powers of 1024) or `kB`, `MB`, `GB` (powers of 1000).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(u64);

impl ByteSize {
    /// A size of `count` bytes.
    pub const fn from_bytes(count: u64) -> Self {
        Self(count)
    }

    /// A size of `count` times 1024 bytes; the largest size there is where that is too many.
    pub const fn from_kib(count: u64) -> Self {
        Self(count.saturating_mul(1 << 10))
    }

    /// A size of `count` times 1024 * 1024 bytes; the largest size there is where that is too many.
    pub const fn from_mib(count: u64) -> Self {
        Self(count.saturating_mul(1 << 20))
    }

    /// The number of bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// The number of bytes as an in-memory size; `usize::MAX` where it does not fit (a 32-bit machine).
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl FromStr for ByteSize {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        super::parse(Kind::Size, text).map(Self)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        super::format(Kind::Size, self.0, f)
    }
}

impl fmt::Debug for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
