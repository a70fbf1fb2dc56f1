//! Dictionaries: what small frames have in common, held at both ends so that it need not be in each of them.
//!
//! A dictionary is trained from columns that were sent before, has the CRC-32C of its bytes for an id, and never changes: another one has another id.

use bytes::Bytes;

use crate::codec::DecodeError;

/// Largest dictionary, in bytes.
pub const MAX_DICTIONARY_BYTES: usize = 16 * 1024;

/// What is trained, in bytes: measured on columns of telemetry, 32 and 64 KiB gain nothing over 8.
const TRAINED_BYTES: usize = 8 * 1024;

/// Names a dictionary of a site.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DictionaryId(pub u32);

/// A dictionary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dictionary {
    id: DictionaryId,
    bytes: Bytes,
}

impl Dictionary {
    /// A dictionary of these bytes.
    ///
    /// # Errors
    /// When they are more than [`MAX_DICTIONARY_BYTES`].
    pub fn new(bytes: Bytes) -> Result<Self, DecodeError> {
        if bytes.len() > MAX_DICTIONARY_BYTES {
            let (value, limit) = (bytes.len() as u64, MAX_DICTIONARY_BYTES as u64);
            return Err(DecodeError::Range { what: "dictionary", value, limit });
        }
        Ok(Self { id: DictionaryId(crc32c::crc32c(&bytes)), bytes })
    }

    /// Trains one from samples; `None` where they are too few or too different.
    pub fn train(samples: &Samples) -> Option<Self> {
        let trained = zstd::dict::from_continuous(&samples.bytes, &samples.lengths, TRAINED_BYTES).ok()?;
        Self::new(Bytes::from(trained)).ok()
    }

    /// Its id.
    pub fn id(&self) -> DictionaryId {
        self.id
    }

    /// Its bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

/// What a dictionary is trained from. Bounded by [`Samples::ENOUGH_BYTES`].
#[derive(Debug, Clone, Default)]
pub struct Samples {
    bytes: Vec<u8>,
    lengths: Vec<usize>,
}

impl Samples {
    /// So many bytes are enough to train from.
    pub const ENOUGH_BYTES: usize = 128 * 1024;

    /// More of one frame would outweigh others.
    const MOST_OF_ONE: usize = 4 * 1024;

    /// Adds the beginning of what is to be compressed, where templates stand. Answers whether there are enough.
    pub fn add(&mut self, packed: &[u8]) -> bool {
        let sample = packed.get(..packed.len().min(Self::MOST_OF_ONE)).unwrap_or_default();
        if self.bytes.len() < Self::ENOUGH_BYTES {
            self.bytes.extend_from_slice(sample);
            self.lengths.push(sample.len());
        }
        self.bytes.len() >= Self::ENOUGH_BYTES
    }
}
