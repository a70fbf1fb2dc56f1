//! Bodies that were compressed after history: bytes that both ends have stand before them and are not sent. See [`crate::history`].

use std::borrow::Cow;
use std::fmt;
use std::io;

use zstd::zstd_safe::CParameter;

use super::{Body, Codec, plain};
use crate::codec::DecodeError;
use crate::dictionary::Dictionary;

/// Measured on frames of 1 to 4 KiB: a higher level finds hardly more, and history is indexed anew for each frame.
const LEVEL: i32 = 6;

/// Dictionary, history and frame together are less than this window.
const WINDOW_LOG: u32 = 16;

/// Entries of zstd's tables, as a power of two. Measured: the level's own size gains less than a per cent and takes three times the memory.
const TABLE_LOG: u32 = 14;

/// What every zstd frame begins with (RFC 8878, 3.1.1); both ends know it, and a small frame is hardly a hundred times as large.
const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Compresses after history.
pub(crate) struct CompressorAfter(zstd::bulk::Compressor<'static>);

impl CompressorAfter {
    /// # Errors
    /// When zstd cannot allocate its context.
    pub(crate) fn new() -> io::Result<Self> {
        let mut context = zstd::bulk::Compressor::new(LEVEL)?;
        context.set_parameter(CParameter::WindowLog(WINDOW_LOG))?;
        context.set_parameter(CParameter::HashLog(TABLE_LOG))?;
        context.set_parameter(CParameter::ChainLog(TABLE_LOG))?;
        // The frame names its dictionary itself, and has its length in its header.
        context.set_parameter(CParameter::DictIdFlag(false))?;
        context.set_parameter(CParameter::ContentSizeFlag(false))?;
        Ok(Self(context))
    }

    /// A body for the codec, which takes `dictionary` if it takes one at all; `None` where zstd does not do it.
    pub(crate) fn compress(&mut self, dictionary: Option<&Dictionary>, history: &[u8], plain: &[u8]) -> Option<Vec<u8>> {
        self.0.set_dictionary(LEVEL, &before(dictionary, history)).ok()?;
        let body = self.0.compress(plain).ok()?;
        let name = dictionary.map(|dictionary| dictionary.id().0.to_be_bytes()).unwrap_or_default();
        let name = name.get(..dictionary.map_or(0, |_| name.len()))?;
        Some([name, body.strip_prefix(&MAGIC)?].concat())
    }
}

/// Decompresses after history.
pub(crate) struct DecompressorAfter(zstd::bulk::Decompressor<'static>);

impl DecompressorAfter {
    /// # Errors
    /// When zstd cannot allocate its context.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(zstd::bulk::Decompressor::new()?))
    }

    /// What was compressed, of at most `raw_length` bytes.
    pub(crate) fn decompress(&mut self, body: &Body<'_>, history: &[u8], raw_length: usize) -> Result<Vec<u8>, DecodeError> {
        let (dictionary, rest) = match body.codec {
            Codec::Stored => return Err(DecodeError::Unknown { what: "codec after history", value: 0 }),
            Codec::Zstd | Codec::Columns => (None, body.bytes),
            Codec::ColumnsWithDictionary => body.named().map(|(dictionary, rest)| (Some(dictionary), rest))?,
        };
        self.0.set_dictionary(&before(dictionary, history)).map_err(|error| DecodeError::Zstd(error.to_string()))?;
        plain(&mut self.0, &[&MAGIC, rest].concat(), raw_length)
    }
}

/// A dictionary's tables hold for what stands behind it as well; without one, history is no more than bytes to zstd.
fn before<'a>(dictionary: Option<&Dictionary>, history: &'a [u8]) -> Cow<'a, [u8]> {
    dictionary.map_or(Cow::Borrowed(history), |dictionary| Cow::Owned([dictionary.bytes(), history].concat()))
}

impl fmt::Debug for CompressorAfter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CompressorAfter").finish_non_exhaustive()
    }
}

impl fmt::Debug for DecompressorAfter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DecompressorAfter").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::dictionary::MAX_DICTIONARY_BYTES;
    use crate::history::{MOST_BYTES, MOST_RAW_BYTES};

    #[test]
    fn working_memory_is_small() {
        let text = |length: usize| {
            (0..).flat_map(|n: u64| format!("{{\"n\":{}}}", n * n % 1_000_003).into_bytes()).take(length).collect::<Vec<_>>()
        };
        let mut compressor = CompressorAfter::new().unwrap();
        compressor.compress(None, &text(MAX_DICTIONARY_BYTES + MOST_BYTES), &text(MOST_RAW_BYTES)).unwrap();
        let taken = compressor.0.context_mut().sizeof();
        println!("{taken} bytes");
        assert!(taken < 300_000, "{taken} bytes");
    }
}
