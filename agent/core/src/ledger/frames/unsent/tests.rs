//! What of a flow goes first.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::Instant;

use spillway_proto::frame::{Section, SectionKind};
use spillway_proto::{Lane, NextOffset};

use super::super::Copy;
use super::*;

const FLOW: Flow = Flow(0);

/// A frame of `length` bytes with data of a lane of its own.
fn frame(frames: &mut Frames, length: usize, is_late: bool) {
    let lane = Lane(u32::try_from(frames.next_index()).unwrap());
    let from = NextOffset::new(0).unwrap();
    let next = NextOffset::new(1).unwrap();
    let section = Section { lane, kind: SectionKind::Data { first: from, next, records: 1, raw_length: 1 } };
    let mut frame = Retained::new(FLOW, Bytes::from(vec![u8::from(is_late); length]), length, Copy::None, Instant::now());
    frame.add(&section, (from, next), None, true);
    if is_late {
        frame.set_late();
    }
    frames.push(frame);
}

/// While both wait, what was deferred gets one byte for sixteen of what goes first, whatever the sizes of frames; alone it gets all.
#[test]
fn what_is_deferred_gets_one_byte_for_sixteen() {
    for (live, late) in [(100, 100), (1000, 50), (50, 800)] {
        let mut frames = Frames::default();
        (0..4000).for_each(|_| frame(&mut frames, live, false));
        (0..5000).for_each(|_| frame(&mut frames, late, true));
        let mut sent = [0, 0];
        while sent[0] < 3000 * live {
            let bytes = frames.mark_sent(FLOW);
            sent[usize::from(bytes[0])] += bytes.len();
        }
        // To one frame of either.
        assert!(sent[1].abs_diff(sent[0] / 16) <= live + late, "{live} and {late}: {sent:?}");
    }
    let mut frames = Frames::default();
    (0..3).for_each(|_| frame(&mut frames, 10, true));
    assert!((0..3).all(|_| frames.mark_sent(FLOW) == [1; 10][..]));
}
