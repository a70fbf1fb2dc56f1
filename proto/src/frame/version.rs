//! A frame that was kept, for a peer that speaks an older version of the protocol.

use crate::codec::DecodeError;
use crate::compress::{Codec, Compressor, Decompressor};
use crate::frame::{EncodedFrame, Frame, assemble};

/// Encodes frames anew that a peer's version does not know. Where such frames are sent from a store, this is the one place that changes them.
#[derive(Debug)]
pub struct Translator {
    version: u8,
    decompressor: Decompressor,
    compressor: Compressor,
}

/// Repetitions are found cheaply: a peer of an older version is an exception that lasts as long as an upgrade.
const LEVEL: i32 = 3;

impl Translator {
    /// Translates for a peer that speaks `version`, or a store that outlives dictionaries.
    ///
    /// # Errors
    /// When zstd cannot allocate its contexts.
    pub fn new(version: u8) -> Result<Self, std::io::Error> {
        let mut compressor = Compressor::new(LEVEL)?;
        compressor.allow_columns(version >= Codec::Columns.since());
        Ok(Self { version, decompressor: Decompressor::new()?, compressor })
    }

    /// True for what needs no translation. What names a dictionary always does: peers that can ask for it get frames as they are.
    pub fn knows(&self, codec: Codec) -> bool {
        codec != Codec::ColumnsWithDictionary && codec.since() <= self.version
    }

    /// The same frame as the peer knows it; `None` where it does already.
    ///
    /// # Errors
    /// When the body is not what the header says.
    pub fn translate(&mut self, frame: &Frame) -> Result<Option<EncodedFrame>, DecodeError> {
        if self.knows(frame.codec) {
            return Ok(None);
        }
        let rows = frame.open(&mut self.decompressor)?;
        let (codec, body) = self.compressor.compress(&frame.sections, &rows.bytes);
        let bytes = assemble(codec, &frame.sections, &body);
        Ok(Some(EncodedFrame { sections: frame.sections.clone(), raw_length: frame.raw_length, bytes }))
    }
}
