#![expect(clippy::unwrap_used, reason = "tests")]
use super::*;
use crate::codec::{put_bytes, put_varint};

fn kept(history: &mut History, seq: u64, bytes: usize) {
    history.keep_plain(FrameSeq(seq), bytes, Bytes::from(vec![seq as u8; bytes]));
}

fn before(history: &mut History, base: u64) -> Vec<u8> {
    history.before(FrameSeq(base), &mut Decompressor::new().unwrap()).unwrap()
}

#[test]
fn history_are_the_last_frames_below_the_base_that_fit() {
    let mut history = History::default();
    for seq in 0..200 {
        kept(&mut history, seq, 1000);
        history.arrived(FrameSeq(seq));
    }
    let frames = MOST_BYTES / 1000;
    let expected: Vec<u8> = (200 - frames as u64..200).flat_map(|seq| vec![seq as u8; 1000]).collect();
    assert_eq!(before(&mut history, 200), expected);
    let few = before(&mut history, 190);
    assert_eq!((few.len(), few.last()), (frames * 1000, Some(&189)));
    let mut small = History::default();
    (0..200).for_each(|seq| kept(&mut small, seq, 1));
    assert_eq!(before(&mut small, 200).len(), MOST_FRAMES);
}

#[test]
fn a_frame_under_way_finds_its_history_after_all_that_may_be_between() {
    // The most that an honest agent sends after its base.
    for bytes in [1, 500, 1_536, MOST_RAW_BYTES] {
        let mut agent = History::default();
        let mut collector = History::default();
        for seq in 0..300 {
            kept(&mut agent, seq, bytes);
            agent.arrived(FrameSeq(seq));
            kept(&mut collector, seq, bytes);
            collector.arrived(FrameSeq(seq));
        }
        let expected = before(&mut agent, 300);
        let mut seq = 300;
        while agent.is_near(FrameSeq(seq)) {
            assert_eq!(before(&mut collector, 300), expected, "frame {seq} of {bytes} bytes");
            kept(&mut agent, seq, bytes);
            kept(&mut collector, seq, bytes);
            collector.arrived(FrameSeq(seq));
            seq += 1;
        }
        assert!(seq > 303 && seq <= 301 + MOST_BETWEEN.0);
    }
}

#[test]
fn what_is_kept_is_bounded_whatever_comes() {
    let mut history = History::default();
    for seq in 1..5_000 {
        kept(&mut history, seq, 100);
        history.arrived(FrameSeq(seq));
    }
    assert_eq!((history.base, history.kept.len()), (FrameSeq(0), MOST_KEPT.0));
    history.arrived(FrameSeq(0));
    assert_eq!((history.base, history.kept.len()), (FrameSeq(5_000), KEPT_FRAMES));
    for seq in 5_000..5_100 {
        kept(&mut history, seq, MOST_RAW_BYTES);
        history.arrived(FrameSeq(seq));
    }
    assert_eq!(history.kept.len(), KEPT_BYTES / MOST_RAW_BYTES);
    let mut stuck = History::default();
    (1..100).for_each(|seq| kept(&mut stuck, seq, MOST_RAW_BYTES));
    assert_eq!(stuck.kept.len(), MOST_KEPT.1 / MOST_RAW_BYTES);
    // Frames that are no history move the base all the same.
    (5_100..5_300).for_each(|seq| history.arrived(FrameSeq(seq)));
    assert_eq!(history.base, FrameSeq(5_300));
}

#[test]
fn frames_that_would_take_more_than_they_say_are_not_kept() {
    let frame = |sections: u32, codec: u8, body: &[u8]| {
        let mut bytes = vec![1, codec];
        put_varint(&mut bytes, u64::from(sections));
        for lane in 0..sections {
            put_varint(&mut bytes, u64::from(lane));
            // Data: 10 offsets from 0, one record, 10 bytes of rows.
            bytes.extend_from_slice(&[0, 0, 10, 1, 10]);
        }
        put_bytes(&mut bytes, body);
        let crc = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        Frame::decode(bytes.into(), 1 << 20).unwrap()
    };
    let most = MOST_SECTIONS as u32;
    assert!(is_fit(&frame(1, 1, &[0; 10])));
    assert!(!is_fit(&frame(1, 1, &[0; 11])), "a body that is larger than its rows");
    assert!(!is_fit(&frame(1, 0, &[0; 10])), "a stored one");
    assert!(is_fit(&frame(most, 1, &[0; 100])));
    assert!(!is_fit(&frame(most + 1, 1, &[0; 100])), "many sections");
}
