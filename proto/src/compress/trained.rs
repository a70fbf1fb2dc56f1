//! Small frames with a dictionary: when one is trained, when it has aged.

use std::fmt;
use std::sync::Arc;

use zstd::zstd_safe::CParameter;

use crate::dictionary::{Dictionary, Samples};

/// Larger frames have enough in themselves: measured, a dictionary makes them smaller by a few per cent.
const MOST_RAW_BYTES: usize = 64 * 1024;

/// zstd's window for what is compressed with a dictionary: its working memory stays below 1 MiB.
const WINDOW_LOG: u32 = 16;

/// Frames with a dictionary until another one may be trained.
const LEAST_LIFE: u32 = 512;

/// Frames that are turned into columns for nothing but their samples: enough of them if they have 128 bytes each.
const MOST_SOUGHT: u32 = 1024;

/// Most dictionaries that one compressor makes: whoever keeps them keeps all, since any kept frame may name any.
pub const MAX_TRAINED: usize = 32;

/// Trains dictionaries and compresses with the newest.
#[derive(Default)]
pub(super) struct Trained {
    current: Option<Current>,
    samples: Samples,
    count: usize,
    /// Frames until samples are taken again.
    rest: u32,
    /// Frames that were turned into columns for their sample only.
    sought: u32,
}

struct Current {
    dictionary: Arc<Dictionary>,
    context: zstd::bulk::Compressor<'static>,
    level: i32,
    /// By how much smaller frames got when it was new, and lately: bytes without it divided by bytes with it.
    gain_first: Option<f64>,
    gain: f64,
    life: u32,
}

impl fmt::Debug for Trained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = self.current.as_ref().map(|current| current.dictionary.id());
        f.debug_struct("Trained").field("current", &id).field("count", &self.count).finish_non_exhaustive()
    }
}

impl Trained {
    /// Compresses columns of `raw_length` bytes of rows; `None` without a dictionary that is of use for them.
    pub(super) fn compress(&mut self, packed: &[u8], raw_length: usize, level: i32) -> Option<(Arc<Dictionary>, Vec<u8>)> {
        let current = self.current.as_mut().filter(|_| raw_length <= MOST_RAW_BYTES)?;
        if current.level != level {
            current.context.set_parameter(CParameter::CompressionLevel(level)).ok()?;
            current.level = level;
        }
        current.life = current.life.saturating_add(1);
        let body = current.context.compress(packed).ok()?;
        Some((Arc::clone(&current.dictionary), body))
    }

    /// Takes in what a trial showed: bytes without the dictionary, and with it.
    pub(super) fn compared(&mut self, without: usize, with: usize) {
        if let Some(current) = &mut self.current {
            let gain = without as f64 / with.max(1) as f64;
            current.gain = if current.gain_first.is_none() { gain } else { current.gain + (gain - current.gain) / 4.0 };
            current.gain_first.get_or_insert(gain);
        }
    }

    /// True as long as a frame of `raw_length` bytes of rows is worth to be turned into columns just to learn from it: there is no dictionary, and columns would hardly be used without.
    /// Counts the frames: data that has nothing in common costs no more of them than [`MOST_SOUGHT`].
    pub(super) fn seeks(&mut self, raw_length: usize) -> bool {
        let seeks = self.current.is_none() && raw_length <= MOST_RAW_BYTES && self.rest == 0 && self.sought < MOST_SOUGHT;
        self.sought += u32::from(seeks);
        seeks
    }

    /// Takes a sample, and trains when there are enough. Answers a new dictionary, which the next frame may name.
    pub(super) fn learn(&mut self, packed: &[u8], raw_length: usize, level: i32) -> Option<Arc<Dictionary>> {
        if raw_length > MOST_RAW_BYTES || self.count >= MAX_TRAINED || !self.is_wanted() {
            return None;
        }
        if self.rest > 0 {
            self.rest -= 1;
            return None;
        }
        if !self.samples.add(packed) {
            return None;
        }
        let dictionary = Dictionary::train(&std::mem::take(&mut self.samples));
        let made = dictionary.and_then(|dictionary| Current::new(dictionary, level));
        if made.is_none() {
            self.rest = LEAST_LIFE;
        }
        let current = made?;
        self.count += 1;
        Some(Arc::clone(&self.current.insert(current).dictionary))
    }

    /// True without a dictionary, and when the one that there is gains less than half of what it gained when it was new.
    fn is_wanted(&self) -> bool {
        self.current.as_ref().is_none_or(|current| {
            let first = current.gain_first.unwrap_or(1.0);
            current.life >= LEAST_LIFE && current.gain - 1.0 < (first - 1.0) / 2.0
        })
    }
}

impl Current {
    fn new(dictionary: Dictionary, level: i32) -> Option<Self> {
        let mut context = zstd::bulk::Compressor::with_dictionary(level, dictionary.bytes()).ok()?;
        context.set_parameter(CParameter::WindowLog(WINDOW_LOG)).ok()?;
        // The frame names its dictionary itself.
        context.set_parameter(CParameter::DictIdFlag(false)).ok()?;
        Some(Self { dictionary: Arc::new(dictionary), context, level, gain_first: None, gain: 1.0, life: 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_sought_for_so_many_frames_and_small_ones_only() {
        let mut trained = Trained::default();
        assert!(!trained.seeks(MOST_RAW_BYTES + 1));
        assert_eq!((0..3 * MOST_SOUGHT).filter(|_| trained.seeks(1000)).count(), MOST_SOUGHT as usize);
    }
}
