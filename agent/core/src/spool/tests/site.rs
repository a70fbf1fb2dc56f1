//! What survives the agent, and the frames that it builds.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use spillway_proto::compress::Compressor;
use spillway_proto::frame::{EncodedFrame, FrameBuilder, Section, SectionKind};
use spillway_proto::record::RecordWriter;
use spillway_proto::{Lane, Offset};
use spillway_spill_core::entry::{Class, EntryId, StoredSection};

use super::next;

/// What survives the agent.
#[derive(Debug, Default)]
pub(super) struct Site {
    /// First and next offset of each partition's log.
    pub(super) logs: BTreeMap<u32, (u64, u64)>,
    pub(super) committed: BTreeMap<u32, u64>,
    pub(super) entries: BTreeMap<EntryId, (Vec<StoredSection>, Bytes)>,
    /// Of all entries that there ever were.
    pub(super) classes: BTreeMap<EntryId, Class>,
    pub(super) last: EntryId,
    pub(super) released: BTreeMap<u32, u64>,
    /// Offsets that were in entries that are lost.
    pub(super) damaged: BTreeSet<(u32, u64)>,
    /// Offsets that were dropped by policy, as the spill's state notes them.
    pub(super) dropped: BTreeSet<(u32, u64)>,
}

/// A frame with one data section for each lane, first and next; every offset is a record.
pub(super) fn frame(sections: &[(Lane, u64, u64)]) -> EncodedFrame {
    let mut builder = FrameBuilder::new();
    for (lane, first, end) in sections {
        let mut records = RecordWriter::new(next(*first));
        for offset in *first..*end {
            assert!(records.push(Offset::new(offset).unwrap(), 1, None, Some(b"x"), std::iter::empty()));
        }
        builder.data(*lane, records);
    }
    builder.encode(&mut Compressor::new(1).unwrap())
}

pub(super) fn opening(section: Section) -> EncodedFrame {
    let mut builder = FrameBuilder::new();
    match section.kind {
        SectionKind::Start { next } => builder.start(section.lane, next),
        SectionKind::Gap { first, next, reason } => builder.gap(section.lane, first, next, reason),
        SectionKind::Data { .. } => panic!("an opening has no data"),
    }
    builder.encode(&mut Compressor::new(1).unwrap())
}
