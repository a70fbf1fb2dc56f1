//! What was found out about one kind of data, so that not every frame is compressed in every way.

use super::Codec;

/// Frames until all ways are tried again: data changes, and the trial costs a frame's time once more.
const TRIAL_EVERY: u32 = 64;

/// The same for data that does not get smaller, which a sample may have missed.
const STORED_TRIAL_EVERY: u32 = 32;

/// What is known of one kind of data, apart for frames of different sizes: what is best for small ones is not for large ones.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Habits([Habit; SIZES]);

const SIZES: usize = 5;

/// Which size of frames `raw` belongs to: each is eight times the one before, from 512 bytes.
pub(super) fn size_of(raw: &[u8]) -> usize {
    ((raw.len() >> 9 | 1).ilog2() as usize).div_ceil(3).min(SIZES - 1)
}

impl Habits {
    pub(super) fn of(self, size: usize) -> Habit {
        self.0.get(size).copied().unwrap_or_default()
    }

    pub(super) fn learn(&mut self, size: usize, plan: Plan, best: Codec) {
        if let Some(habit) = self.0.get_mut(size) {
            habit.learn(plan, best);
        }
    }
}

/// What is known of frames of one size.
#[derive(Debug, Clone, Copy)]
pub(super) struct Habit {
    /// What was smallest at the last trial.
    best: Codec,
    /// What was tried then.
    tried: Plan,
    /// Frames until the next trial.
    left: u32,
}

/// How a frame is to be compressed. Neither: it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Plan {
    pub(super) rows: bool,
    pub(super) columns: bool,
    /// The outcome tells which way is best.
    pub(super) trial: bool,
}

impl Default for Habit {
    fn default() -> Self {
        Self { best: Codec::Zstd, tried: Plan::default(), left: 0 }
    }
}

impl Habit {
    /// How to compress `raw` if columns are allowed or not.
    pub(super) fn plan(self, columns: bool, raw: &[u8]) -> Plan {
        let trial = Plan { rows: true, columns, trial: true };
        let changed = self.tried.columns != columns && self.best != Codec::Stored;
        if self.left == 0 || changed || (self.best == Codec::Stored && sample_shrinks(raw)) {
            return trial;
        }
        match self.best {
            Codec::Stored => Plan::default(),
            Codec::Zstd => Plan { rows: true, ..Plan::default() },
            Codec::Columns | Codec::ColumnsWithDictionary => Plan { columns: true, ..Plan::default() },
        }
    }

    /// Takes in what was smallest.
    pub(super) fn learn(&mut self, plan: Plan, best: Codec) {
        if plan.trial {
            let every = if best == Codec::Stored { STORED_TRIAL_EVERY } else { TRIAL_EVERY };
            *self = Self { best, tried: plan, left: every };
        } else {
            // What was stored although it used to get smaller is tried anew with the next frame.
            self.left = if best == self.best { self.left.saturating_sub(1) } else { 0 };
        }
    }
}

/// Bytes of one piece of a sample, and how many there are: a hundredth of a large frame's work.
const PIECE_BYTES: usize = 512;
const PIECES: usize = 8;

/// True if pieces from all over `raw` hold few different bytes, as text does. Cheap: bytes are counted, not compressed.
fn sample_shrinks(raw: &[u8]) -> bool {
    let mut counts = [0u32; 256];
    let step = (raw.len() / PIECES).max(PIECE_BYTES);
    for piece in raw.chunks(step) {
        for byte in piece.iter().take(PIECE_BYTES) {
            if let Some(count) = counts.get_mut(usize::from(*byte)) {
                *count += 1;
            }
        }
    }
    let total = f64::from(counts.iter().sum::<u32>().max(1));
    let bits = |count: &u32| f64::from(*count) / total * (total / f64::from(*count)).log2();
    let entropy = counts.iter().filter(|count| **count > 0).map(bits).sum::<f64>();
    // Random bytes in a sample of 4 KiB have 7.95 bits each, base64 6, text 5.
    entropy < 7.5
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(length: usize) -> Vec<u8> {
        let mut state = 1u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        };
        (0..length).map(|_| next()).collect()
    }

    #[test]
    fn noise_is_stored_and_tried_again_at_times() {
        let (mut habit, raw) = (Habit::default(), noise(100_000));
        let mut trials = 0;
        for _ in 0..=2 * STORED_TRIAL_EVERY + 2 {
            let plan = habit.plan(true, &raw);
            trials += u32::from(plan.trial);
            assert!(plan.trial || plan == Plan::default());
            habit.learn(plan, Codec::Stored);
        }
        assert_eq!(trials, 3);
        let text = b"{\"a\":1.5,\"text\":\"hello\"}".repeat(4000);
        assert!(habit.plan(true, &text).trial, "text after noise is noticed at once");
    }

    #[test]
    fn the_better_way_is_kept_until_the_next_trial() {
        let (mut habit, raw) = (Habit::default(), b"text".repeat(1000));
        let first = habit.plan(true, &raw);
        assert!(first.rows && first.columns);
        habit.learn(first, Codec::Columns);
        for _ in 0..TRIAL_EVERY {
            let plan = habit.plan(true, &raw);
            assert_eq!(plan, Plan { columns: true, ..Plan::default() });
            habit.learn(plan, Codec::Columns);
        }
        assert!(habit.plan(true, &raw).trial);
        assert_eq!(habit.plan(false, &raw), Plan { rows: true, columns: false, trial: true });
    }

    #[test]
    fn small_frames_and_large_ones_are_told_apart() {
        let of = |length| size_of(&vec![0; length]);
        assert_eq!([of(0), of(511), of(1024), of(4095), of(4096), of(100_000), of(1 << 20)], [0, 0, 1, 1, 1, 3, 4]);
        let mut habits = Habits::default();
        habits.learn(0, habits.of(0).plan(true, b"text"), Codec::Zstd);
        assert!(!habits.of(0).plan(true, b"text").trial && habits.of(3).plan(true, b"text").trial);
    }

    #[test]
    fn what_no_longer_gets_smaller_is_tried_in_every_way() {
        let (mut habit, raw) = (Habit::default(), b"text".repeat(1000));
        habit.learn(habit.plan(true, &raw), Codec::Zstd);
        habit.learn(habit.plan(true, &raw), Codec::Stored);
        assert!(habit.plan(true, &raw).trial);
    }
}
