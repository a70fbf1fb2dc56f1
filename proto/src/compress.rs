//! The one place that compresses and decompresses. Decompression is capped: a body can never become larger than its header said,
//! and its header was checked against the limit before.

use std::fmt;

use crate::codec::DecodeError;

/// How a frame's body is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Codec {
    /// As it is: the data did not get smaller.
    Stored,
    /// One zstd frame with its content size.
    Zstd,
}

impl Codec {
    /// The number on the wire.
    pub fn code(self) -> u8 {
        match self {
            Self::Stored => 0,
            Self::Zstd => 1,
        }
    }

    /// The codec behind a number.
    ///
    /// # Errors
    /// [`DecodeError::Unknown`] for any other number.
    pub fn from_code(code: u8) -> Result<Self, DecodeError> {
        match code {
            0 => Ok(Self::Stored),
            1 => Ok(Self::Zstd),
            _ => Err(DecodeError::Unknown { what: "codec", value: u64::from(code) }),
        }
    }
}

/// Compresses bodies; holds zstd's working memory (about 1.3 MiB at level 3, 10.7 MiB at level 9) so that it is allocated once.
pub struct Compressor {
    context: zstd::bulk::Compressor<'static>,
}

impl Compressor {
    /// A compressor of the given zstd level, 1 to 19.
    ///
    /// # Errors
    /// When zstd cannot allocate its context.
    pub fn new(level: i32) -> Result<Self, std::io::Error> {
        Ok(Self { context: zstd::bulk::Compressor::new(level)? })
    }

    /// Compresses `raw`; answers [`Codec::Stored`] with the bytes as they are where compression gains less than a byte in sixteen,
    /// so that incompressible data costs the other side no work.
    pub fn compress(&mut self, raw: &[u8]) -> (Codec, Vec<u8>) {
        match self.context.compress(raw) {
            Ok(packed) if packed.len() < raw.len() - raw.len() / 16 => (Codec::Zstd, packed),
            _ => (Codec::Stored, raw.to_vec()),
        }
    }
}

/// Decompresses bodies; keeps zstd's working memory between calls.
pub struct Decompressor {
    context: zstd::bulk::Decompressor<'static>,
}

impl Decompressor {
    /// A decompressor.
    ///
    /// # Errors
    /// When zstd cannot allocate its context.
    pub fn new() -> Result<Self, std::io::Error> {
        Ok(Self { context: zstd::bulk::Decompressor::new()? })
    }

    /// Restores a body whose raw length is known from the frame's header, which was checked against the session's limit.
    ///
    /// # Errors
    /// When the body is not zstd, or its raw length is not exactly `raw_length`. At most `raw_length` bytes are ever allocated.
    pub fn decompress(&mut self, codec: Codec, body: &[u8], raw_length: usize) -> Result<Vec<u8>, DecodeError> {
        let raw = match codec {
            Codec::Stored => body.to_vec(),
            Codec::Zstd => self.context.decompress(body, raw_length).map_err(|error| DecodeError::Zstd(error.to_string()))?,
        };
        if raw.len() != raw_length {
            return Err(DecodeError::Mismatch { what: "raw length", left: raw.len() as u64, right: raw_length as u64 });
        }
        Ok(raw)
    }
}

impl fmt::Debug for Compressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compressor").finish_non_exhaustive()
    }
}

impl fmt::Debug for Decompressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decompressor").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_bomb_is_stopped_at_the_declared_length() {
        let (codec, body) = Compressor::new(3).unwrap().compress(&vec![0; 100 << 20]);
        assert_eq!(codec, Codec::Zstd);
        assert!(body.len() < 20_000);
        let error = Decompressor::new().unwrap().decompress(codec, &body, 1000).unwrap_err();
        assert!(matches!(error, DecodeError::Zstd(_)), "{error}");
    }

    #[test]
    fn a_body_shorter_than_declared_is_refused() {
        let (codec, body) = Compressor::new(3).unwrap().compress(&[7; 500]);
        let error = Decompressor::new().unwrap().decompress(codec, &body, 501).unwrap_err();
        assert_eq!(error, DecodeError::Mismatch { what: "raw length", left: 500, right: 501 });
    }

    #[test]
    fn incompressible_data_is_stored() {
        let noise: Vec<u8> = (0..4096u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8 ^ (n >> 3) as u8).collect();
        let (codec, body) = Compressor::new(3).unwrap().compress(&noise[..64]);
        assert_eq!((codec, body.as_slice()), (Codec::Stored, &noise[..64]));
        assert_eq!(Decompressor::new().unwrap().decompress(codec, &body, 64).unwrap(), &noise[..64]);
    }
}
