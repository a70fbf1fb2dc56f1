//! What the agent reads at the site and makes frames of.

use spillway_agent_core::batcher::{ClosedFrame, Incoming, Pushed};
use spillway_agent_core::lane::AfterDrain;
use spillway_proto::frame::{Frame, SectionKind};

use super::{LARGEST_RAW, World, next};

impl World {
    pub(super) fn read(&mut self, index: usize, count: u64) {
        let Some((lane, at)) = self.reading.get(&index).copied() else { return };
        let (start, log_end) = self.logs[index];
        if at < start {
            // The consumer is told that its offset is out of range.
            self.ledger.drain(lane, AfterDrain::Reopen);
            return;
        }
        let end = log_end.min(at.saturating_add(count));
        for offset in (at..end).filter(|offset| is_record(index, *offset)) {
            let value = value_of(index, offset);
            let headers = std::iter::empty::<(&str, Option<&[u8]>)>();
            let offset = spillway_proto::Offset::new(offset).expect("small");
            let record = Incoming { offset, timestamp: 1, key: None, value: Some(value.as_bytes()), headers };
            assert_eq!(self.batcher.push(lane, record, self.now), Pushed::Added);
            self.take_sealed();
        }
        if end > at && end == log_end {
            self.batcher.cover(lane, next(end), self.now);
            self.take_sealed();
        }
        self.reading.insert(index, (lane, end.max(at)));
    }

    pub(super) fn close(&mut self) {
        self.take_sealed();
        if let Some(closed) = self.batcher.close() {
            self.push(closed);
        }
    }

    pub(super) fn let_go(&mut self) {
        while let Some(detachment) = self.letting_go.pop_front() {
            self.batcher.detach(detachment.lane, detachment.keep);
            if detachment.keep {
                self.close();
            }
            self.reading.retain(|_, (lane, _)| *lane != detachment.lane);
            self.ledger.detached(detachment.lane);
        }
    }

    pub(super) fn push(&mut self, mut closed: ClosedFrame) {
        let frame = closed.builder.encode(&mut self.tools.compressor);
        let budget = frame.raw_length;
        self.check_content(&frame.bytes);
        self.model.pushed(&self.ledger, &frame, budget);
        let pushed = self.ledger.push(frame, &closed.timestamps, budget, self.now);
        assert_eq!(pushed, Ok(()), "the agent would stop");
    }

    fn take_sealed(&mut self) {
        while let Some(closed) = self.batcher.take_sealed() {
            self.push(closed);
        }
    }

    /// A section of a partition holds all its records in its range, and nothing else.
    fn check_content(&mut self, bytes: &bytes::Bytes) {
        let frame = Frame::decode(bytes.clone(), LARGEST_RAW).expect("our own frame");
        let body = frame.open(&mut self.tools.decompressor).expect("our own body");
        for (place, section) in frame.sections().iter().enumerate() {
            let SectionKind::Data { first, next, .. } = section.kind else { continue };
            let index = self.lanes[section.lane.0 as usize];
            let expected = (first.value()..next.value()).filter(|offset| is_record(index, *offset)).map(|offset| value_of(index, offset));
            let found = body.records(&frame, place).map(|record| record.expect("our own record"));
            assert!(found.map(|record| String::from_utf8_lossy(record.value.unwrap_or_default()).into_owned()).eq(expected));
        }
    }
}

/// Which offsets are records; the others are holes.
fn is_record(index: usize, offset: u64) -> bool {
    !(offset + index as u64).is_multiple_of(5)
}

fn value_of(index: usize, offset: u64) -> String {
    format!("{index}:{offset}")
}
