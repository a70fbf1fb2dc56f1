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

use std::sync::Arc;

use bytes::Bytes;

use crate::codec::{DecodeError, Reader, put_bytes, put_varint};
use crate::compress::{self, Body, Codec, Compressor, Decompressor};
use crate::dictionary::{Dictionary, DictionaryId};
use crate::limits;
use crate::record::{RecordReader, RecordWriter};
use crate::types::{Lane, NextOffset};

mod lanes;
mod times;
mod version;

pub use times::Timestamps;
pub use version::Translator;

/// Why offsets of a source partition will never reach the centre.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum GapReason {
    /// The source's retention (or DeleteRecords) removed them before they were read.
    Retention,
    /// The source's log ends below what was already read: a leader without them was elected. `next` is below `first`.
    Truncated,
    /// The topic was deleted and made anew; `first` counts in the old incarnation, `next` in the new one.
    TopicRecreated,
    /// The agent dropped them by policy, because its spill was full.
    Dropped,
    /// The agent's spill was damaged, and the source had removed them by then.
    Damaged,
    /// They come later, on a lane of their own: no loss. From version 3 on.
    Deferred,
    /// They were older than the topic's time to live when they were to be sent.
    Expired,
    /// A reason that this version does not know.
    Other(u8),
}

impl GapReason {
    /// The number on the wire.
    pub fn code(self) -> u8 {
        match self {
            Self::Retention => 1,
            Self::Truncated => 2,
            Self::TopicRecreated => 3,
            Self::Dropped => 4,
            Self::Damaged => 5,
            Self::Deferred => 6,
            Self::Expired => 7,
            Self::Other(code) => code,
        }
    }

    /// The reason behind a number; a later version's is kept as [`Self::Other`], since a gap must never be lost.
    pub fn from_code(code: u8) -> Self {
        match code {
            1 => Self::Retention,
            2 => Self::Truncated,
            3 => Self::TopicRecreated,
            4 => Self::Dropped,
            5 => Self::Damaged,
            6 => Self::Deferred,
            7 => Self::Expired,
            other => Self::Other(other),
        }
    }

    /// Stable name for logs and metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Retention => "retention",
            Self::Truncated => "truncated",
            Self::TopicRecreated => "topic_recreated",
            Self::Dropped => "dropped",
            Self::Damaged => "damaged",
            Self::Deferred => "deferred",
            Self::Expired => "expired",
            Self::Other(_) => "other",
        }
    }

    /// How many offsets a gap for this reason loses; `None` where that is not known: a truncated log goes back, a topic made anew counts
    /// otherwise, and what is deferred is not lost. Holes count: nobody can tell any more whether they were records.
    pub fn lost_count(self, first: NextOffset, next: NextOffset) -> Option<u64> {
        match self {
            Self::Retention | Self::Dropped | Self::Damaged | Self::Expired => next.value().checked_sub(first.value()),
            Self::Truncated | Self::TopicRecreated | Self::Deferred | Self::Other(_) => None,
        }
    }
}

/// One lane's part of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Section {
    /// The lane.
    pub lane: Lane,
    /// What it says about the lane.
    pub kind: SectionKind,
}

/// What a section says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SectionKind {
    /// Everything that the source has from `first` up to, not including, `next`: records and the holes between them.
    Data {
        /// First offset covered.
        first: NextOffset,
        /// One past the last offset covered.
        next: NextOffset,
        /// Records, which may be none: then the range is a hole.
        records: u32,
        /// Length of the records in the raw body, in bytes.
        raw_length: usize,
    },
    /// The offsets from `first` on will not come; the lane goes on at `next`.
    Gap {
        /// The next expected offset.
        first: NextOffset,
        /// Where the lane goes on.
        next: NextOffset,
        /// Why.
        reason: GapReason,
    },
    /// A lane without progress at the centre begins here. Without this section a later frame that overtook the first one would be taken
    /// for the beginning.
    Start {
        /// Where the lane begins.
        next: NextOffset,
    },
}

impl SectionKind {
    /// Where the lane goes on after this section.
    pub fn next(self) -> NextOffset {
        match self {
            Self::Data { next, .. } | Self::Gap { next, .. } | Self::Start { next } => next,
        }
    }

    /// The offsets that it takes a lane over that has begun, first and next: of data, and of a gap that may stand in the middle of a lane. `None` for what a
    /// lane only begins with.
    pub fn range(self) -> Option<(NextOffset, NextOffset)> {
        match self {
            Self::Data { first, next, .. } | Self::Gap { first, next, reason: GapReason::Expired } => Some((first, next)),
            Self::Gap { .. } | Self::Start { .. } => None,
        }
    }

    /// Length in the raw body, in bytes.
    pub fn raw_length(self) -> usize {
        match self {
            Self::Data { raw_length, .. } => raw_length,
            Self::Gap { .. } | Self::Start { .. } => 0,
        }
    }
}

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
        let checked = bytes.len().saturating_sub(CRC_BYTES);
        let mut reader = Reader::new(bytes.get(..checked).unwrap_or_default());
        match reader.u8("frame format")? {
            FORMAT => {}
            other => return Err(DecodeError::Unknown { what: "frame format", value: u64::from(other) }),
        }
        verify_checksum(&bytes, checked)?;
        let codec = Codec::from_code(reader.u8("codec")?)?;
        let count = reader.length(limits::MAX_SECTIONS, "section count")?;
        if count == 0 {
            return Err(DecodeError::Unknown { what: "section count", value: 0 });
        }
        // A section takes at least three bytes, which bounds what a false count can make us reserve.
        let mut sections = Vec::with_capacity(count.min(reader.remaining() / 3));
        let mut raw_length = 0usize;
        for _ in 0..count {
            let section = read_section(&mut reader, max_raw)?;
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
        let body = Body { codec: self.codec, bytes: &self.body, dictionary: self.dictionary.as_deref() };
        let bytes = decompressor.decompress(&body, &self.sections, self.raw_length)?;
        Ok(RawBody { bytes })
    }
}

/// A decompressed body.
#[derive(Debug)]
pub struct RawBody {
    bytes: Vec<u8>,
}

impl RawBody {
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

/// Collects sections into a frame.
#[derive(Debug, Default)]
pub struct FrameBuilder {
    sections: Vec<Section>,
    raw: Vec<u8>,
}

impl FrameBuilder {
    /// An empty frame.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a lane's records and holes.
    pub fn data(&mut self, lane: Lane, records: RecordWriter) {
        let kind = SectionKind::Data { first: records.first(), next: records.next(), records: records.count(), raw_length: records.len() };
        self.sections.push(Section { lane, kind });
        self.raw.extend_from_slice(&records.into_bytes());
    }

    /// Adds a gap.
    pub fn gap(&mut self, lane: Lane, first: NextOffset, next: NextOffset, reason: GapReason) {
        self.sections.push(Section { lane, kind: SectionKind::Gap { first, next, reason } });
    }

    /// Adds a lane's beginning.
    pub fn start(&mut self, lane: Lane, next: NextOffset) {
        self.sections.push(Section { lane, kind: SectionKind::Start { next } });
    }

    /// Sections so far; at most [`limits::MAX_SECTIONS`] may be added.
    pub fn sections(&self) -> &[Section] {
        &self.sections
    }

    /// Raw bytes so far.
    pub fn raw_length(&self) -> usize {
        self.raw.len()
    }

    /// Compresses and encodes. The builder is empty afterwards and keeps its buffers.
    pub fn encode(&mut self, compressor: &mut Compressor) -> EncodedFrame {
        let (codec, body) = compressor.compress(&self.sections, &self.raw);
        let bytes = assemble(codec, &self.sections, &body);
        let raw_length = self.raw.len();
        self.raw.clear();
        EncodedFrame { sections: std::mem::take(&mut self.sections), raw_length, bytes }
    }
}

/// A frame ready to send, with its sections for the sender's books.
#[derive(Debug, Clone)]
pub struct EncodedFrame {
    /// What the frame covers.
    pub sections: Vec<Section>,
    /// Length of the body before compression, in bytes.
    pub raw_length: usize,
    /// The bytes on the wire.
    pub bytes: Bytes,
}

impl EncodedFrame {
    /// A frame of sections without a body: gaps, starts, holes. At least one, and at most [`limits::MAX_SECTIONS`].
    pub fn bare(sections: Vec<Section>) -> Self {
        debug_assert!(sections.iter().all(|section| section.kind.raw_length() == 0), "a body would be missing");
        let bytes = assemble(Codec::Stored, &sections, &[]);
        Self { sections, raw_length: 0, bytes }
    }
}

const FORMAT: u8 = 1;
const CRC_BYTES: usize = 4;
const KIND_DATA: u8 = 0;
const KIND_GAP: u8 = 1;
const KIND_START: u8 = 2;

fn assemble(codec: Codec, sections: &[Section], body: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(body.len() + sections.len() * limits::MAX_SECTION_HEADER_BYTES + 64);
    out.push(FORMAT);
    out.push(codec.code());
    put_varint(&mut out, sections.len() as u64);
    for section in sections {
        put_section(&mut out, section);
    }
    put_bytes(&mut out, body);
    let crc = crc32c::crc32c(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    Bytes::from(out)
}

fn verify_checksum(bytes: &[u8], checked: usize) -> Result<(), DecodeError> {
    let (covered, crc) = bytes.split_at_checked(checked).unwrap_or_default();
    let found = Reader::new(crc).array("checksum").map(u32::from_le_bytes)?;
    let computed = crc32c::crc32c(covered);
    if found != computed {
        return Err(DecodeError::Checksum { found, computed });
    }
    Ok(())
}

fn read_section(reader: &mut Reader<'_>, max_raw: usize) -> Result<Section, DecodeError> {
    Ok(Section { lane: Lane(reader.varint_u32("lane")?), kind: SectionKind::read(reader, max_raw)? })
}

fn put_section(out: &mut Vec<u8>, section: &Section) {
    put_varint(out, u64::from(section.lane.0));
    section.kind.put(out);
}

impl SectionKind {
    /// Reads what [`Self::put`] writes; data of more than `max_raw` bytes is refused.
    ///
    /// # Errors
    /// Any deviation from the format.
    pub fn read(reader: &mut Reader<'_>, max_raw: usize) -> Result<Self, DecodeError> {
        Ok(match reader.u8("section kind")? {
            KIND_DATA => {
                let first = next_offset(reader, "first")?;
                let span = reader.varint("span")?;
                let value = first.value().saturating_add(span);
                let limit = i64::MAX.cast_unsigned();
                let next = NextOffset::new(value).ok_or(DecodeError::Range { what: "next", value, limit })?;
                let limit = u64::from(limits::MAX_SECTION_RECORDS).min(span);
                let records = reader.varint_up_to(limit, "record count")? as u32;
                Self::Data { first, next, records, raw_length: reader.length(max_raw, "raw length")? }
            }
            KIND_GAP => {
                let (first, next) = (next_offset(reader, "first")?, next_offset(reader, "next")?);
                Self::Gap { first, next, reason: GapReason::from_code(reader.u8("gap reason")?) }
            }
            KIND_START => Self::Start { next: next_offset(reader, "next")? },
            other => return Err(DecodeError::Unknown { what: "section kind", value: u64::from(other) }),
        })
    }

    /// Appends the bytes of a frame's header for it, behind the lane.
    pub fn put(self, out: &mut Vec<u8>) {
        match self {
            Self::Data { first, next, records, raw_length } => {
                out.push(KIND_DATA);
                put_varint(out, first.value());
                put_varint(out, next.value().saturating_sub(first.value()));
                put_varint(out, u64::from(records));
                put_varint(out, raw_length as u64);
            }
            Self::Gap { first, next, reason } => {
                out.push(KIND_GAP);
                put_varint(out, first.value());
                put_varint(out, next.value());
                out.push(reason.code());
            }
            Self::Start { next } => {
                out.push(KIND_START);
                put_varint(out, next.value());
            }
        }
    }
}

/// Reads a next offset; `what` names it in an error.
///
/// # Errors
/// When it is beyond what Kafka knows.
pub fn next_offset(reader: &mut Reader<'_>, what: &'static str) -> Result<NextOffset, DecodeError> {
    let limit = i64::MAX.cast_unsigned();
    let value = reader.varint_up_to(limit, what)?;
    NextOffset::new(value).ok_or(DecodeError::Range { what, value, limit })
}
