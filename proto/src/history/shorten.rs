//! The end that sends.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{History, MOST_RAW_BYTES, MOST_SECTIONS, is_fit};
use crate::compress::{CompressorAfter, Decompressor};
use crate::dictionary::{Dictionary, DictionaryId};
use crate::frame::Frame;
use crate::limits::MAX_SECTION_HEADER_BYTES;
use crate::types::FrameSeq;

/// Puts history before small frames. One for each session.
#[derive(Debug)]
pub struct Shortener {
    history: History,
    compressor: CompressorAfter,
    decompressor: Decompressor,
    effort: Effort,
}

/// A frame beside its sections and its body: format, codec, two lengths, checksum; rounded up.
const FIXED_BYTES: usize = 64;

/// A shortened frame is worth its while if it has so many bytes less.
const LEAST_SAVED: usize = 4;

impl Shortener {
    /// A session begins.
    ///
    /// # Errors
    /// When zstd cannot allocate its contexts.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            history: History::default(),
            compressor: CompressorAfter::new()?,
            decompressor: Decompressor::new()?,
            effort: Effort::default(),
        })
    }

    /// A frame is about to be sent: answers what stands on a stream of type [`STREAM_FRAME_AFTER`](crate::message::STREAM_FRAME_AFTER) behind its number, if that is
    /// less. To be told of every frame of the session, in the order of their numbers; `dictionary` finds what a frame names. One that is urgent stays as it is: it would wait for
    /// frames of its history that wait at the collector for their dictionary.
    pub fn send(
        &mut self,
        seq: FrameSeq,
        is_urgent: bool,
        bytes: &Bytes,
        now: Instant,
        dictionary: impl FnOnce(DictionaryId) -> Option<Arc<Dictionary>>,
    ) -> Option<Bytes> {
        // A look at the length spares the checksum of all large frames.
        if bytes.len() > MOST_RAW_BYTES + MOST_SECTIONS * MAX_SECTION_HEADER_BYTES + FIXED_BYTES {
            return None;
        }
        let mut frame = Frame::decode(bytes.clone(), MOST_RAW_BYTES).ok().filter(is_fit)?;
        if let Some(id) = frame.missing_dictionary() {
            frame.attach(dictionary(id)?);
        }
        let shortened = if is_urgent { None } else { self.shorten(seq, &frame, now) };
        self.history.keep(seq, &frame);
        shortened.filter(|shortened| shortened.len() + LEAST_SAVED <= bytes.len())
    }

    /// The peer has all of a frame.
    pub fn arrived(&mut self, seq: FrameSeq) {
        self.history.arrived(seq);
    }

    fn shorten(&mut self, seq: FrameSeq, frame: &Frame, now: Instant) -> Option<Bytes> {
        if !self.history.is_near(seq) || !self.effort.is_due(now) {
            return None;
        }
        let history = self.history.before(self.history.base, &mut self.decompressor).ok().filter(|history| !history.is_empty())?;
        let plain = frame.plain(&mut self.decompressor).ok()?;
        let after = frame.put_after(&mut self.compressor, seq.0 - self.history.base.0, &history, &plain)?;
        self.effort.made(frame.wire_length(), after.len());
        Some(after)
    }
}

/// Whether history is worth its processor time.
#[derive(Debug, Default)]
struct Effort {
    /// The part of a frame that is saved, lately.
    saved: Option<f64>,
    /// Frames since the last attempt.
    passed: u32,
    /// When this second began, and the attempts in it.
    second: Option<(Instant, u32)>,
}

/// Where less than this part of a frame is saved, one frame in so many is tried.
const WORTH: f64 = 0.03;
const TRIAL_EVERY: u32 = 16;

/// Most frames a second: an attempt takes 50 to 150 µs on x86-64, and more on a small gateway. A line that carries more small frames than these has
/// bytes to spare.
const MOST_A_SECOND: u32 = 50;

impl Effort {
    fn is_due(&mut self, now: Instant) -> bool {
        self.passed += 1;
        if self.saved.is_some_and(|saved| saved < WORTH) && self.passed < TRIAL_EVERY {
            return false;
        }
        let (since, count) = self.second.unwrap_or((now, 0));
        let (since, count) = if now.saturating_duration_since(since) >= Duration::from_secs(1) { (now, 0) } else { (since, count) };
        if count >= MOST_A_SECOND {
            return false;
        }
        self.second = Some((since, count + 1));
        self.passed = 0;
        true
    }

    fn made(&mut self, without: usize, with: usize) {
        let saved = 1.0 - with as f64 / without.max(1) as f64;
        self.saved = Some(self.saved.map_or(saved, |before| before + (saved - before) / 4.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_gains_nothing_is_tried_at_times() {
        let (mut effort, begin) = (Effort::default(), Instant::now());
        let mut tries = 0;
        for second in 0..160 {
            if effort.is_due(begin + Duration::from_secs(second)) {
                effort.made(100, 100);
                tries += 1;
            }
        }
        assert_eq!(tries, 10);
        // The trials show that it gains again.
        let mut tries = 0;
        for second in 160..320 {
            if effort.is_due(begin + Duration::from_secs(second)) {
                effort.made(100, 50);
                tries += 1;
            }
        }
        assert!(tries > 140, "{tries}");
    }

    #[test]
    fn a_second_has_room_for_so_many() {
        let (mut effort, begin) = (Effort::default(), Instant::now());
        let tries = (0..1000).filter(|milli| effort.is_due(begin + Duration::from_millis(*milli))).count();
        assert_eq!(tries, MOST_A_SECOND as usize);
        assert!(effort.is_due(begin + Duration::from_secs(1)));
    }
}
