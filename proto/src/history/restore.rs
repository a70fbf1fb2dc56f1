//! The end that receives.

use std::io;

use bytes::Bytes;

use super::{History, is_fit};
use crate::codec::DecodeError;
use crate::compress::{Compressor, Decompressor, DecompressorAfter, LEAST_MEMORY_BYTES};
use crate::frame::{Frame, FrameAfter};
use crate::types::FrameSeq;

/// Takes history away from frames. One for each session, small while it is not needed.
#[derive(Debug, Default)]
pub struct Restorer {
    history: History,
}

/// What restoring takes: zstd's working memory. One may serve many sessions.
#[derive(Debug)]
pub struct Decoder {
    after: DecompressorAfter,
    /// For history.
    before: Decompressor,
    /// For what is restored: while the central Kafka is away, it waits.
    again: Compressor,
}

/// What is restored is compressed again at zstd's fastest level.
const LEVEL: i32 = 1;

impl Decoder {
    /// # Errors
    /// When zstd cannot allocate its contexts.
    pub fn new() -> io::Result<Self> {
        let again = Compressor::with_memory(LEVEL, LEAST_MEMORY_BYTES)?;
        Ok(Self { after: DecompressorAfter::new()?, before: Decompressor::new()?, again })
    }
}

impl Restorer {
    /// A frame without history has arrived, its dictionary attached. To be told of each.
    pub fn arrived(&mut self, seq: FrameSeq, frame: &Frame) {
        self.history.keep(seq, frame);
        self.history.arrived(seq);
    }

    /// True while frames of its history are missing: the peer's QUIC has told the agent of them, but not us. They come.
    pub fn waits(&self, after: &FrameAfter) -> bool {
        after.base() > self.history.base
    }

    /// The frame without history. Its dictionary is to be attached before.
    ///
    /// # Errors
    /// When the history here is not the one that it was compressed after, or the frame is not what its header says. Nothing was kept of it then: ask for
    /// the frame without history.
    pub fn restore(&mut self, after: &FrameAfter, decoder: &mut Decoder) -> Result<Frame, DecodeError> {
        let history = self.history.before(after.base(), &mut decoder.before)?;
        let (frame, plain) = after.restore(&history, &mut decoder.after, &mut decoder.again)?;
        if is_fit(after.frame()) {
            self.history.keep_plain(after.seq(), frame.raw_length(), Bytes::from(plain));
        }
        self.history.arrived(after.seq());
        Ok(frame)
    }
}
