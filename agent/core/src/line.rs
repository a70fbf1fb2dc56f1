//! How large frames may be on a line of this rate.
//!
//! A frame takes at most two seconds of the line, so that whatever is urgent by then does not wait for long; one of a flow that shares the line with others two
//! seconds of its part, so that shares hold over a minute; one of class 0 half a second. The limit is for bytes as they are sent, while frames are closed by their
//! raw bytes: the ratio of the frames before tells how many that are.

use std::time::Duration;

use crate::schedule::{Flow, Scheduler};
use crate::transit::{FRAME_LINE_TIME, LineRate};

mod kept;

pub use kept::KeptLine;

/// Frames are not made smaller than so many raw bytes by a slow line: below it, their headers would count.
pub const MIN_FRAME_BYTES: usize = 1024;

/// What a line of which nothing is known is taken to carry in its first second, in bytes a second. Each second it may be twice as much: what congestion control makes
/// of a line before it has filled it once says nothing, and frames that are built for a line that is not there cannot be made smaller.
const YOUNG_RATE: u64 = 8 * 1024;

/// Most bytes a second that a line may be taken to carry that was open for so long, if nothing is known of it from before.
pub fn young_rate(age: Duration) -> u64 {
    YOUNG_RATE
        .checked_shl(u32::try_from(age.as_secs()).unwrap_or(u32::MAX))
        .filter(|rate| *rate >= YOUNG_RATE && age.as_secs() < 40)
        .unwrap_or(u64::MAX)
}

/// A frame of class 0 takes no longer.
const URGENT_LINE_TIME: Duration = Duration::from_millis(500);

/// Frames are never taken to compress better than this: one that does not would take so many times its time.
const RATIO_MOST: f64 = 12.0;

/// After each frame the ratio is taken to be better by so much at the most.
const RATIO_GROWTH: f64 = 1.25;

/// Most encoded bytes of a frame while nothing is known of the line: what 50 kbit/s carry in two seconds. Frames that are built before the first session are sent as
/// they are.
const UNKNOWN_BYTES: usize = 12 * 1024;

/// Most encoded bytes of a frame of each flow.
pub fn frame_bytes(scheduler: &Scheduler, line: LineRate) -> Vec<usize> {
    let bytes = |flow: Flow, is_urgent: bool| {
        let time = if is_urgent { URGENT_LINE_TIME } else { FRAME_LINE_TIME };
        let Some(bytes) = line.bytes_in(time) else { return UNKNOWN_BYTES };
        let bytes = bytes as f64 * scheduler.part(flow);
        if bytes < MAX_BYTES { bytes as usize } else { MAX_BYTES as usize }
    };
    scheduler.flows().map(|(flow, spec)| bytes(flow, spec.class.is_urgent())).collect()
}

/// More than any frame.
const MAX_BYTES: f64 = (1 << 30) as f64;

/// What a flow's frames compress to.
#[derive(Debug, Clone, Copy)]
pub struct FrameSize {
    ratio: f64,
}

impl Default for FrameSize {
    fn default() -> Self {
        Self { ratio: 1.0 }
    }
}

impl FrameSize {
    /// A frame was built. A worse ratio counts at once, a better one step by step.
    pub fn built(&mut self, raw_bytes: usize, encoded_bytes: usize) {
        let ratio = raw_bytes as f64 / encoded_bytes.max(1) as f64;
        self.ratio = ratio.min(self.ratio * RATIO_GROWTH).clamp(1.0, RATIO_MOST);
    }

    /// Most raw bytes of the next frame: `most`, or what takes the line as long as `line_bytes`.
    pub fn raw_bytes(&self, most: usize, line_bytes: Option<usize>) -> usize {
        let of_line = line_bytes.map_or(usize::MAX, |bytes| ((bytes as f64 * self.ratio) as usize).max(MIN_FRAME_BYTES));
        most.min(of_line)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::schedule::{FlowSpec, TopicClass};

    #[test]
    fn a_frame_takes_its_part_of_two_seconds() {
        let spec = |class| FlowSpec { class: TopicClass::new(class).unwrap(), ..FlowSpec::default() };
        let line = LineRate { bytes_per_second: Some(13_000), round_trip: Duration::ZERO };
        let of = |classes: &[u8]| frame_bytes(&Scheduler::new(classes.iter().map(|class| spec(*class)).collect()), line);
        assert_eq!(of(&[2]), [26_000]);
        assert_eq!(of(&[0, 2]), [6_500, 26_000]);
        assert_eq!(of(&[1, 2, 3]), [16_000, 8_000, 2_000]);
        assert_eq!(frame_bytes(&Scheduler::new(Vec::new()), LineRate::UNKNOWN), [12_288], "as on 50 kbit/s");
    }

    #[test]
    fn a_young_line_is_taken_to_be_thin() {
        let rates = [0, 1, 2, 10, 39, 40, 1000].map(|seconds| young_rate(Duration::from_secs(seconds)));
        assert_eq!(rates, [8192, 16_384, 32_768, 8192 << 10, 8192 << 39, u64::MAX, u64::MAX]);
    }

    #[test]
    fn the_ratio_tells_how_much_fits() {
        let mut size = FrameSize::default();
        assert_eq!((size.raw_bytes(1 << 20, None), size.raw_bytes(1 << 20, Some(10_000))), (1 << 20, 10_000));
        assert_eq!((size.raw_bytes(5_000, Some(10_000)), size.raw_bytes(1 << 20, Some(100))), (5_000, MIN_FRAME_BYTES));
        size.built(10_000, 1_000);
        assert_eq!(size.raw_bytes(1 << 20, Some(10_000)), 12_500, "step by step");
        (0..20).for_each(|_| size.built(100_000, 10_000));
        assert_eq!(size.raw_bytes(1 << 20, Some(10_000)), 100_000);
        size.built(100_000, 50_000);
        assert_eq!(size.raw_bytes(1 << 20, Some(10_000)), 20_000, "at once");
        (0..50).for_each(|_| size.built(100_000, 10));
        assert_eq!(size.raw_bytes(1 << 30, Some(10_000)), 120_000, "within bounds");
    }
}
