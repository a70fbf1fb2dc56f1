//! What survives the agent, and the frames that it builds.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bytes::Bytes;
use spillway_proto::compress::Compressor;
use spillway_proto::frame::{EncodedFrame, FrameBuilder, Section, SectionKind, Timestamps};
use spillway_proto::record::RecordWriter;
use spillway_proto::{Lane, Offset};
use spillway_spill_core::entry::{Class, EntryId, StoredSection};

use super::next;
use crate::batcher::{Batcher, FrameLimits, Incoming, Pushed};

/// What survives the agent.
#[derive(Debug, Default)]
pub(super) struct Site {
    /// First and next offset of each partition's log.
    pub(super) logs: BTreeMap<u32, (u64, u64)>,
    /// The timestamp of each record.
    pub(super) times: BTreeMap<(u32, u64), i64>,
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

/// What the source builds of these parts, each of a lane of a partition, first and next, when all that `is_over` says is too old.
pub(super) fn built(
    parts: &[(Lane, u32, u64, u64)],
    times: &BTreeMap<(u32, u64), i64>,
    is_over: impl Fn(i64) -> bool,
) -> (EncodedFrame, Vec<Option<Timestamps>>) {
    let limits = FrameLimits { max_bytes: 1 << 20, max_records: 1 << 20, linger: Duration::ZERO, largest_raw: 1 << 20 };
    let (mut batcher, now) = (Batcher::new(limits), Instant::now());
    for (lane, index, first, end) in parts {
        batcher.attach(*lane, next(*first));
        for offset in *first..*end {
            let (timestamp, offset) = (times[&(*index, offset)], Offset::new(offset).unwrap());
            if is_over(timestamp) {
                assert!(batcher.expire(*lane, offset, now));
                continue;
            }
            let headers = std::iter::empty::<(&str, Option<&[u8]>)>();
            let record = Incoming { offset, timestamp, key: None, value: Some(b"x"), headers };
            assert_eq!(batcher.push(*lane, record, now), Pushed::Added);
        }
    }
    let mut closed = batcher.close().unwrap();
    (closed.builder.encode(&mut Compressor::new(1).unwrap()), closed.timestamps)
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
