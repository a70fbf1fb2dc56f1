//! Frames whose body was compressed after [history](crate::history): the same but for the body, and a checksum that is continued from the history's, so that
//! a frame and a history that do not belong together are told from those that do.

use std::borrow::Cow;

use bytes::Bytes;

use super::build::assemble_after;
use super::{Frame, verify_checksum};
use crate::codec::{DecodeError, Reader, put_varint};
use crate::compress::{self, Compressor, CompressorAfter, Decompressor, DecompressorAfter};
use crate::types::FrameSeq;

/// A received frame whose history has to be put before it.
#[derive(Debug, Clone)]
pub struct FrameAfter {
    seq: FrameSeq,
    base: FrameSeq,
    /// Not verified yet.
    frame: Frame,
    bytes: Bytes,
}

impl FrameAfter {
    /// Decodes what a stream of type [`STREAM_FRAME_AFTER`](crate::message::STREAM_FRAME_AFTER) holds behind the frame's number.
    ///
    /// # Errors
    /// Any deviation from the format, or a raw length above `max_raw`.
    pub fn decode(seq: FrameSeq, bytes: &Bytes, max_raw: usize) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let distance = reader.varint_up_to(seq.0, "distance of the history")?;
        let bytes = bytes.slice(reader.position()..);
        Ok(Self { seq, base: FrameSeq(seq.0 - distance), frame: Frame::parse(bytes.clone(), max_raw)?, bytes })
    }

    /// Its number.
    pub fn seq(&self) -> FrameSeq {
        self.seq
    }

    /// Its history are frames below this one.
    pub fn base(&self) -> FrameSeq {
        self.base
    }

    /// The header, which holds whatever the history is.
    pub fn frame(&self) -> &Frame {
        &self.frame
    }

    /// The same, to attach its dictionary.
    pub fn frame_mut(&mut self) -> &mut Frame {
        &mut self.frame
    }

    /// The frame without history, compressed quickly for as long as it is kept, and what was compressed of it when it was sent.
    pub(crate) fn restore(
        &self,
        history: &[u8],
        decompressor: &mut DecompressorAfter,
        compressor: &mut Compressor,
    ) -> Result<(Frame, Vec<u8>), DecodeError> {
        verify_checksum(&self.bytes, crc32c::crc32c(history))?;
        let Frame { sections, codec, raw_length, .. } = &self.frame;
        let plain = decompressor.decompress(&self.frame.stored(), history, *raw_length)?;
        let rows = compress::rows(*codec, Cow::Borrowed(&plain), sections, *raw_length)?;
        let (codec, body) = compressor.compress(sections, &rows);
        Ok((Frame { codec, body: Bytes::from(body), dictionary: None, ..self.frame.clone() }, plain))
    }
}

impl Frame {
    /// What was compressed: rows or columns.
    pub(crate) fn plain(&self, decompressor: &mut Decompressor) -> Result<Bytes, DecodeError> {
        decompressor.plain(&self.stored(), self.raw_length).map(|plain| Bytes::from(plain.into_owned()))
    }

    /// What stands on a stream behind the frame's number if `plain`, what was compressed of it, is compressed after `history`, which ends `distance` frames
    /// before it.
    pub(crate) fn put_after(&self, compressor: &mut CompressorAfter, distance: u64, history: &[u8], plain: &[u8]) -> Option<Bytes> {
        let body = compressor.compress(self.dictionary.as_deref(), history, plain)?;
        let frame = assemble_after(crc32c::crc32c(history), self.codec, &self.sections, &body);
        let mut out = Vec::with_capacity(frame.len() + 2);
        put_varint(&mut out, distance);
        out.extend_from_slice(&frame);
        Some(Bytes::from(out))
    }
}
