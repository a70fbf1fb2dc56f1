//! History: what was sent before in a session and is at both ends stands before a small frame that is compressed, and is not sent with it.
//!
//! A trickle's frames are small, and have too little in themselves to be compressed well. What they have in common for long is in a
//! [dictionary](crate::dictionary); history is for what comes and goes: a job's name, a user's address.
//!
//! Frames are made, kept and spilled without. An agent's [`Shortener`] puts history before one at the moment it is sent, and a collector's [`Restorer`] takes it away as it
//! arrives; so nothing but the session's two ends knows of it, and a frame that is sent again in the next session is what it was.
//!
//! Frame `n` names its history by its base, the frame below which everything had arrived as a whole when it was sent (QUIC had an acknowledgement
//! for each of these streams). So a frame never waits for one that was lost. History are the last frames below the base, at most [`MOST_FRAMES`] and of at most [`MOST_BYTES`]
//! together, of those that are fit (`is_fit`): what was compressed of each, rows or columns, in the order of their numbers.
//!
//! Both ends count alike, so they agree. If ever they do not, the checksum tells, and costs one frame: the collector asks for it without history.
//!
//! Invariants:
//! - A. What is restored is what was shortened, or an error: never other rows.
//! - B. What is kept is bounded, in frames, in their sections and in bytes (`MOST_KEPT`), whatever the peer sends.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use bytes::Bytes;

use crate::codec::DecodeError;
use crate::compress::{Codec, Decompressor};
use crate::frame::Frame;
use crate::types::FrameSeq;

mod restore;
mod shorten;

pub use restore::{Decoder, Restorer};
pub use shorten::Shortener;

/// Most rows of a frame that has history, in bytes. Frames of 8 KiB still gain (see "Small frames" in `docs/performance.md`); larger ones come with a backlog.
pub const MOST_RAW_BYTES: usize = 12 * 1024;

/// Most sections of such a frame. One takes 48 bytes in memory.
pub const MOST_SECTIONS: usize = 64;

/// Most rows that one history stands for, in bytes: measured, 64 KiB gain one or two per cent more.
pub const MOST_BYTES: usize = 24 * 1024;

/// Most frames of one history.
pub const MOST_FRAMES: usize = 48;

/// A frame has history only if at most so many stand between it and its base, of at most so many bytes of rows that may be history. With more under way
/// the line carries large frames, or should.
const MOST_BETWEEN: (u64, usize) = (32, 48 * 1024);

/// What is kept below the base, which may have moved on by all that was between: the history of a frame under way.
const KEPT_FRAMES: usize = MOST_FRAMES + MOST_BETWEEN.0 as usize;
const KEPT_BYTES: usize = MOST_BYTES + MOST_BETWEEN.1;

/// Most frames and rows that are kept in all: what an agent sends while one frame is lost, or waits at the collector for its dictionary. Where that is more, the first ones go; a frame that names
/// them is sent again.
const MOST_KEPT: (usize, usize) = (KEPT_FRAMES + 128, KEPT_BYTES + 256 * 1024);

/// The frames of a session that may be history.
#[derive(Default)]
struct History {
    kept: BTreeMap<FrameSeq, Kept>,
    /// Every frame below is at both ends.
    base: FrameSeq,
    /// Those above that are, too.
    ahead: BTreeSet<FrameSeq>,
}

/// One of them.
struct Kept {
    raw_length: usize,
    body: KeptBody,
}

enum KeptBody {
    /// Most are never needed.
    Compressed(Frame),
    Plain(Bytes),
}

impl Kept {
    /// What was compressed. Decompressed once.
    fn plain(&mut self, decompressor: &mut Decompressor) -> Result<Bytes, DecodeError> {
        match &self.body {
            KeptBody::Plain(plain) => Ok(plain.clone()),
            KeptBody::Compressed(frame) => {
                let plain = frame.plain(decompressor)?;
                self.body = KeptBody::Plain(plain.clone());
                Ok(plain)
            }
        }
    }
}

/// True for frames that may have history, and be history: of a few rows that got smaller. An agent's always do, or it would have stored them.
fn is_fit(frame: &Frame) -> bool {
    let raw_length = frame.raw_length();
    let is_compressed = frame.codec() != Codec::Stored && frame.body_length() <= raw_length;
    is_compressed && (1..=MOST_RAW_BYTES).contains(&raw_length) && frame.sections().len() <= MOST_SECTIONS
}

impl History {
    /// Keeps a frame, if it is fit. Both ends have to be told of each once.
    fn keep(&mut self, seq: FrameSeq, frame: &Frame) {
        if is_fit(frame) {
            self.put(seq, Kept { raw_length: frame.raw_length(), body: KeptBody::Compressed(frame.clone()) });
        }
    }

    /// The same for a frame of which `plain` was compressed.
    fn keep_plain(&mut self, seq: FrameSeq, raw_length: usize, plain: Bytes) {
        self.put(seq, Kept { raw_length, body: KeptBody::Plain(plain) });
    }

    fn put(&mut self, seq: FrameSeq, kept: Kept) {
        self.kept.insert(seq, kept);
        let (frames, bytes) = MOST_KEPT;
        let mut sum = self.kept.values().map(|kept| kept.raw_length).sum::<usize>();
        while (self.kept.len() > frames || sum > bytes)
            && let Some((_, kept)) = self.kept.pop_first()
        {
            sum -= kept.raw_length;
        }
    }

    /// A frame, fit or not, is at both ends as a whole.
    fn arrived(&mut self, seq: FrameSeq) {
        if seq >= self.base {
            self.ahead.insert(seq);
        }
        while self.ahead.first() == Some(&self.base) {
            self.ahead.pop_first();
            self.base = self.base.next();
        }
        match last(&self.kept, self.base, KEPT_FRAMES, KEPT_BYTES) {
            Some(first) => self.kept = self.kept.split_off(&first),
            None => self.kept.retain(|seq, _| *seq >= self.base),
        }
    }

    /// What stands before a frame that names this base; nothing where there is none.
    fn before(&mut self, base: FrameSeq, decompressor: &mut Decompressor) -> Result<Vec<u8>, DecodeError> {
        let first = last(&self.kept, base, MOST_FRAMES, MOST_BYTES);
        let mut history = Vec::new();
        for (_, kept) in first.map(|first| self.kept.range_mut(first..base)).into_iter().flatten() {
            history.extend_from_slice(&kept.plain(decompressor)?);
        }
        Ok(history)
    }

    /// True if a frame of this number may have what is below the base for history.
    fn is_near(&self, seq: FrameSeq) -> bool {
        let (frames, bytes) = MOST_BETWEEN;
        let between = self.kept.range(self.base..seq.max(self.base)).map(|(_, kept)| kept.raw_length).sum::<usize>();
        seq.0.saturating_sub(self.base.0) <= frames && between <= bytes
    }
}

/// The first of the last `frames` below `base` that are `bytes` at most.
fn last(kept: &BTreeMap<FrameSeq, Kept>, base: FrameSeq, frames: usize, bytes: usize) -> Option<FrameSeq> {
    let mut sum = 0;
    let fits = |(_, kept): &(&FrameSeq, &Kept)| {
        sum += kept.raw_length;
        sum <= bytes
    };
    kept.range(..base).rev().take(frames).take_while(fits).last().map(|(seq, _)| *seq)
}

impl fmt::Debug for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("History").field("base", &self.base).field("kept", &self.kept.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
