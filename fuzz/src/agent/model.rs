//! What the books have to be equal to: every frame that was pushed, what of it is open, what was sent in this session.

use std::collections::BTreeMap;

use bytes::Bytes;
use spillway_agent_core::ledger::{Ledger, Outgoing};
use spillway_proto::frame::{EncodedFrame, SectionKind};
use spillway_proto::{Lane, NextOffset, TopicPartition};

/// The frames.
#[derive(Debug, Default)]
pub(crate) struct Model {
    /// Those that the books have to keep, in order.
    frames: Vec<Pushed>,
    /// Frames before it were sent in this session.
    cursor: usize,
    next_seq: u64,
    /// The highest position that the collector ever claimed of each partition.
    claimed: BTreeMap<TopicPartition, NextOffset>,
    budget_out: usize,
}

#[derive(Debug)]
struct Pushed {
    bytes: Bytes,
    budget: usize,
    /// Sections of lanes that were alive: lane, end, records.
    open: Vec<(Lane, NextOffset, u64)>,
    lanes: Vec<Lane>,
}

impl Model {
    pub(crate) fn pushed(&mut self, ledger: &Ledger, frame: &EncodedFrame, budget: usize) {
        let alive = |lane: &Lane| ledger.book(*lane).is_some_and(|book| !book.is_dead());
        let records = |kind: SectionKind| if let SectionKind::Data { records, .. } = kind { u64::from(records) } else { 0 };
        let open = frame.sections.iter().filter(|section| alive(&section.lane));
        let open: Vec<_> = open.map(|section| (section.lane, section.kind.next(), records(section.kind))).collect();
        let lanes = frame.sections.iter().map(|section| section.lane).collect();
        self.frames.push(Pushed { bytes: frame.bytes.clone(), budget, open, lanes });
        self.budget_out += budget;
    }

    pub(crate) fn session_opened(&mut self) {
        (self.cursor, self.next_seq) = (0, 0);
    }

    /// The collector claims to have committed a lane up to here.
    pub(crate) fn claim(&mut self, partition: &TopicPartition, next: NextOffset) {
        let claimed = self.claimed.entry(partition.clone()).or_insert(next);
        *claimed = next.max(*claimed);
    }

    /// The books give up a frame when all of it is acknowledged or dead, and not before.
    pub(crate) fn compare(&mut self, ledger: &mut Ledger) {
        for frame in &mut self.frames {
            frame.open.retain(|(lane, next, _)| {
                let book = ledger.book(*lane).filter(|book| !book.is_dead());
                book.is_some_and(|book| book.acked.is_none_or(|acked| acked < *next))
            });
        }
        self.cursor = self.frames.iter().take(self.cursor).filter(|frame| !frame.open.is_empty()).count();
        self.frames.retain(|frame| !frame.open.is_empty());
        let bytes: usize = self.frames.iter().map(|frame| frame.bytes.len()).sum();
        assert_eq!(ledger.unacked_bytes(), bytes, "frames are kept until they are acknowledged");
        let records: u64 = self.frames.iter().flat_map(|frame| &frame.open).map(|(.., records)| records).sum();
        assert_eq!(ledger.unacked_records(), records);
        assert_eq!(ledger.is_empty(), self.frames.is_empty());
        self.budget_out -= ledger.take_released().into_values().sum::<usize>();
        let budget: usize = self.frames.iter().map(|frame| frame.budget).sum();
        assert_eq!(self.budget_out, budget, "what frames hold of the budget comes back with them");
    }

    /// A frame goes out: the next one that is open, byte for byte, in order, all its lanes answered, within the window.
    pub(crate) fn sent(&mut self, ledger: &Ledger, outgoing: &Outgoing, window: usize) {
        assert_eq!(outgoing.seq.0, self.next_seq);
        self.next_seq += 1;
        let out: usize = self.frames.iter().take(self.cursor).map(|frame| frame.bytes.len()).sum();
        let frame = self.frames.get(self.cursor).expect("nothing is to be sent");
        assert_eq!(frame.bytes, outgoing.bytes, "a frame is sent as it was pushed, and none before it is left out");
        assert!(out == 0 || out + frame.bytes.len() <= window, "{out} and {} bytes in a window of {window}", frame.bytes.len());
        for lane in &frame.lanes {
            let book = ledger.book(*lane).expect("a lane that a frame names");
            assert!(book.is_dead() || book.settled, "lane {lane} has no answer yet");
        }
        self.cursor += 1;
    }

    /// The local group never passes what the centre said to have.
    pub(crate) fn committed(&self, partition: &TopicPartition, next: NextOffset) {
        let claimed = self.claimed.get(partition);
        assert!(Some(&next) <= claimed, "{partition}: {next} is to be committed, the centre said {claimed:?}");
    }
}
