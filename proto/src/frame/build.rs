//! Frames that are made here.

use bytes::Bytes;

use super::{FORMAT, GapReason, Section, SectionKind};
use crate::codec::{put_bytes, put_varint};
use crate::compress::{Codec, Compressor};
use crate::limits;
use crate::record::RecordWriter;
use crate::types::{Lane, NextOffset};

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

/// Encodes a frame whose body is compressed already.
pub(super) fn assemble(codec: Codec, sections: &[Section], body: &[u8]) -> Bytes {
    assemble_after(0, codec, sections, body)
}

/// The same behind bytes of the checksum `seed`, which are not in it.
pub(super) fn assemble_after(seed: u32, codec: Codec, sections: &[Section], body: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(body.len() + sections.len() * limits::MAX_SECTION_HEADER_BYTES + 64);
    out.push(FORMAT);
    out.push(codec.code());
    put_varint(&mut out, sections.len() as u64);
    for section in sections {
        section.put(&mut out);
    }
    put_bytes(&mut out, body);
    let crc = crc32c::crc32c_append(seed, &out);
    out.extend_from_slice(&crc.to_le_bytes());
    Bytes::from(out)
}
