//! Frames: the unit on the wire, in flight and in the spill. Built once, sent byte-identical as often as needed.
//!
//! ```text
//! u8      format = 1
//! u8      codec: 0 stored, 1 zstd, 2 columns and zstd, 3 the same with a dictionary
//! varint  number of sections, 1 to 4096
//!         sections, each: varint lane, u8 kind, then
//!           0 data   varint first, varint span (next − first), varint records, varint raw length
//!           1 gap    varint first, varint next, u8 reason
//!           2 start  varint next
//! varint  body length
//!         body: the data sections' raw bytes, joined in order, as the codec says
//! u32     CRC-32C of all bytes before it, little-endian
//! ```
//! The header stays uncompressed so that a collector can order frames without decompressing them.
//!
//! | module | what it is for |
//! |---|---|
//! | `after` | frames whose body was compressed after [history](crate::history) |
//! | `section` | what a frame says of a lane, and its bytes |
//! | `gap` | why offsets will never come |
//! | `build` | frames that are made here |
//! | `lanes`, `version` | a frame that was kept, with other lanes, or for an older peer |
//! | `times` | how old its records are |

use std::sync::Arc;

use bytes::Bytes;

use crate::codec::{DecodeError, Reader};
use crate::compress::{self, Body, Codec, Decompressor};
use crate::dictionary::{Dictionary, DictionaryId};
use crate::limits;
use crate::record::RecordReader;
use crate::types::NextOffset;

mod after;
mod build;
mod gap;
mod lanes;
mod section;
mod times;
mod version;

pub use after::FrameAfter;
use build::assemble;
pub use build::{EncodedFrame, FrameBuilder};
pub use gap::GapReason;
pub use section::{Section, SectionKind, next_offset};
pub use times::Timestamps;
pub use version::Translator;

/// A received frame: decoded header, body still compressed.
#[derive(Debug, Clone)]
pub struct Frame {
    sections: Vec<Section>,
    codec: Codec,
    raw_length: usize,
    body: Bytes,
    dictionary: Option<Arc<Dictionary>>,
    wire_length: usize,
}

impl Frame {
    /// Decodes and checks a whole frame; the body is not decompressed yet.
    ///
    /// # Errors
    /// Any deviation from the format, a wrong checksum, or a raw length above `max_raw`.
    pub fn decode(bytes: Bytes, max_raw: usize) -> Result<Self, DecodeError> {
        // What is of another format may have its checksum elsewhere.
        Reader::new(covered(&bytes)).u8("frame format").and_then(known_format)?;
        verify_checksum(&bytes, 0)?;
        Self::parse(bytes, max_raw)
    }

    /// The same but for the checksum.
    fn parse(bytes: Bytes, max_raw: usize) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(covered(&bytes));
        known_format(reader.u8("frame format")?)?;
        let codec = Codec::from_code(reader.u8("codec")?)?;
        let count = reader.length(limits::MAX_SECTIONS, "section count")?;
        if count == 0 {
            return Err(DecodeError::Unknown { what: "section count", value: 0 });
        }
        // A section takes at least three bytes, which bounds what a false count can make us reserve.
        let mut sections = Vec::with_capacity(count.min(reader.remaining() / 3));
        let mut raw_length = 0usize;
        for _ in 0..count {
            let section = Section::read(&mut reader, max_raw)?;
            raw_length += section.kind.raw_length();
            if raw_length > max_raw {
                return Err(DecodeError::Range { what: "raw length", value: raw_length as u64, limit: max_raw as u64 });
            }
            sections.push(section);
        }
        let body_length = reader.length(reader.remaining(), "body length")?;
        let start = reader.position();
        reader.bytes(body_length, "body")?;
        reader.finish("the body")?;
        if codec == Codec::Stored && body_length != raw_length {
            return Err(DecodeError::Mismatch { what: "stored body length", left: body_length as u64, right: raw_length as u64 });
        }
        let body = bytes.slice(start..start + body_length);
        Ok(Self { sections, codec, raw_length, body, dictionary: None, wire_length: bytes.len() })
    }

    /// The sections in order.
    pub fn sections(&self) -> &[Section] {
        &self.sections
    }

    /// Length of the decompressed body, in bytes.
    pub fn raw_length(&self) -> usize {
        self.raw_length
    }

    /// Length of the encoded frame, in bytes.
    pub fn wire_length(&self) -> usize {
        self.wire_length
    }

    /// Length of the body as it is stored, in bytes.
    pub fn body_length(&self) -> usize {
        self.body.len()
    }

    /// The dictionary that the body names and that was not attached yet; without it the body cannot be opened.
    pub fn missing_dictionary(&self) -> Option<DictionaryId> {
        if self.codec != Codec::ColumnsWithDictionary || self.dictionary.is_some() {
            return None;
        }
        compress::named(&self.body).ok().map(|(id, _)| id)
    }

    /// Attaches the dictionary that the body names.
    pub fn attach(&mut self, dictionary: Arc<Dictionary>) {
        self.dictionary = Some(dictionary);
    }

    /// How the body is stored.
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// The codec of an encoded frame, without a look at anything else; `None` where these bytes are none.
    pub fn peek_codec(bytes: &[u8]) -> Option<Codec> {
        match bytes {
            [FORMAT, code, ..] => Codec::from_code(*code).ok(),
            _ => None,
        }
    }

    /// Decompresses the body.
    ///
    /// # Errors
    /// When it is not what the header says.
    pub fn open(&self, decompressor: &mut Decompressor) -> Result<RawBody, DecodeError> {
        let bytes = decompressor.decompress(&self.stored(), &self.sections, self.raw_length)?;
        Ok(RawBody { bytes })
    }

    /// The body as it is stored.
    fn stored(&self) -> Body<'_> {
        Body { codec: self.codec, bytes: &self.body, dictionary: self.dictionary.as_deref() }
    }
}

/// A decompressed body.
#[derive(Debug)]
pub struct RawBody {
    bytes: Vec<u8>,
}

impl RawBody {
    /// True if these are the rows of all data sections, joined in order.
    pub fn is(&self, rows: &[u8]) -> bool {
        self.bytes == rows
    }

    /// The records of the section at `index` of `frame`, the frame that this body was opened from; none where it is not a data section.
    pub fn records(&self, frame: &Frame, index: usize) -> RecordReader<'_> {
        let before = frame.sections.iter().take(index).map(|section| section.kind.raw_length()).sum::<usize>();
        match frame.sections.get(index).map(|section| section.kind) {
            Some(SectionKind::Data { first, next, records, raw_length }) => {
                RecordReader::new(self.bytes.get(before..before + raw_length).unwrap_or_default(), first, next, records)
            }
            _ => RecordReader::new(&[], NextOffset::ZERO, NextOffset::ZERO, 0),
        }
    }
}

const FORMAT: u8 = 1;
const CRC_BYTES: usize = 4;

fn known_format(format: u8) -> Result<(), DecodeError> {
    if format == FORMAT { Ok(()) } else { Err(DecodeError::Unknown { what: "frame format", value: u64::from(format) }) }
}

/// What the checksum covers: all but itself.
fn covered(bytes: &[u8]) -> &[u8] {
    bytes.get(..bytes.len().saturating_sub(CRC_BYTES)).unwrap_or_default()
}

/// `seed` is the checksum of what stands before the frame without being in it; 0 where nothing does.
fn verify_checksum(bytes: &[u8], seed: u32) -> Result<(), DecodeError> {
    let covered = covered(bytes);
    let found = Reader::new(bytes.get(covered.len()..).unwrap_or_default()).array("checksum").map(u32::from_le_bytes)?;
    let computed = crc32c::crc32c_append(seed, covered);
    if found != computed {
        return Err(DecodeError::Checksum { found, computed });
    }
    Ok(())
}
