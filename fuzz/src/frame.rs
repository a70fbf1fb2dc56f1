//! Frames off the wire.

use bytes::Bytes;
use spillway_proto::compress::{COLUMNS_LEVEL, Codec};
use spillway_proto::frame::{Frame, FrameAfter, FrameBuilder, SectionKind};
use spillway_proto::history::{MOST_BYTES, Restorer};
use spillway_proto::record::{RecordReader, RecordWriter};
use spillway_proto::{FrameSeq, Lane, NextOffset, Offset, columns, limits};

use crate::memory::bounded;
use crate::tools::Tools;

/// The limit of the session that is played: small, so that a fuzzer gets past it.
const MAX_RAW_BYTES: usize = 64 * 1024;

/// What a decoded section takes in memory; a section takes at least three bytes on the wire.
const SECTION_BYTES: usize = 48;

/// What a mark of a template takes, the text before it and a growing vector included; and a template.
const MARK_BYTES: usize = 512;
const TEMPLATE_BYTES: usize = 64;

/// The first byte says whether the checksum is made right, so that the fuzzer gets behind it, and whether the frame has history; the rest is a frame.
pub fn run(data: &[u8]) {
    let Some((mode, frame)) = data.split_first() else { return };
    let has_history = mode & 2 != 0;
    let mut frame = frame.to_vec();
    if mode & 1 == 0 {
        let seed = if has_history { crc32c::crc32c(&history().into_bytes()) } else { 0 };
        let crc = crc32c::crc32c_append(seed, &frame);
        frame.extend_from_slice(&crc.to_le_bytes());
    }
    let bytes = Bytes::from(frame);
    if has_history { after_history(&bytes) } else { whole(&bytes) }
}

/// What was sent before: rows that get smaller, so that they are not stored.
fn history() -> RecordWriter {
    let mut writer = RecordWriter::new(NextOffset::ZERO);
    let value = br#"{"job":"6f1c2b7a-9d3e","state":"running"}"#;
    for offset in (0..8).filter_map(Offset::new) {
        assert!(writer.push(offset, 0, None, Some(value), [].into_iter()), "offsets rise");
    }
    writer
}

/// A frame that has one other frame for history.
fn after_history(bytes: &Bytes) {
    let mut tools = Tools::take();
    let (seq, before) = (FrameSeq(1), FrameSeq(0));
    let mut builder = FrameBuilder::new();
    builder.data(Lane(1), history());
    // At this level rows are not turned into columns.
    tools.compressor.set_level(1).expect("a level of zstd's");
    let sent = builder.encode(&mut tools.compressor);
    tools.compressor.set_level(COLUMNS_LEVEL).expect("a level of zstd's");
    let mut restorer = Restorer::default();
    restorer.arrived(before, &Frame::decode(sent.bytes, MAX_RAW_BYTES).expect("our own frame"));
    let stream = Bytes::from([&[0], &bytes[..]].concat());
    let sections = (bytes.len() / 3).min(limits::MAX_SECTIONS) * SECTION_BYTES;
    if let Ok(after) = bounded(sections, || FrameAfter::decode(seq, &stream, MAX_RAW_BYTES)) {
        let raw_length = after.frame().raw_length();
        assert!(raw_length <= MAX_RAW_BYTES && !restorer.waits(&after));
        // Columns, rows, what stays as history, and what is compressed again; and the history itself, twice.
        let most = 6 * raw_length + 4 * MOST_BYTES + sections + columns::MAX_MARKS * MARK_BYTES + columns::MAX_TEMPLATES * TEMPLATE_BYTES;
        if let Ok(frame) = bounded(most, || restorer.restore(&after, &mut tools.decoder)) {
            assert!(frame.missing_dictionary().is_none() && frame.body_length() <= frame.raw_length());
            open_with(&frame, &mut tools);
        }
    }
    tools.give_back();
}

fn whole(bytes: &Bytes) {
    let sections = (bytes.len() / 3).min(limits::MAX_SECTIONS);
    let Ok(frame) = bounded(sections * SECTION_BYTES, || Frame::decode(bytes.clone(), MAX_RAW_BYTES)) else { return };
    assert!(frame.raw_length() <= MAX_RAW_BYTES);
    assert_eq!(frame.wire_length(), bytes.len());
    assert!((1..=limits::MAX_SECTIONS).contains(&frame.sections().len()));
    for section in frame.sections() {
        if let SectionKind::Data { first, next, records, .. } = section.kind {
            assert!(first <= next && u64::from(records) <= next.value() - first.value());
        }
    }
    open(&frame);
}

fn open(frame: &Frame) {
    let mut tools = Tools::take();
    open_with(frame, &mut tools);
    tools.give_back();
}

fn open_with(frame: &Frame, Tools { compressor, decompressor, .. }: &mut Tools) {
    let most = match frame.codec() {
        Codec::Stored | Codec::Zstd => frame.raw_length(),
        Codec::Columns | Codec::ColumnsWithDictionary => {
            2 * frame.raw_length() + columns::MAX_MARKS * MARK_BYTES + columns::MAX_TEMPLATES * TEMPLATE_BYTES
        }
    };
    let Ok(body) = bounded(most, || frame.open(decompressor)) else { return };
    let mut again = FrameBuilder::new();
    for (index, section) in frame.sections().iter().enumerate() {
        match section.kind {
            SectionKind::Data { next, records, .. } => {
                let mut reader = body.records(frame, index);
                // Records are borrowed from the body.
                bounded(0, || body.records(frame, index).flatten().for_each(|record| record.headers.iter().for_each(drop)));
                let Some(mut writer) = rewrite(&mut reader, section.kind) else {
                    assert_eq!(reader.next(), None, "nothing comes after an error");
                    return;
                };
                assert_eq!(writer.count(), records);
                writer.cover(next);
                again.data(section.lane, writer);
            }
            SectionKind::Gap { first, next, reason } => again.gap(section.lane, first, next, reason),
            SectionKind::Start { next } => again.start(section.lane, next),
        }
    }
    // What was accepted whole has one encoding: section for section, byte for byte before compression.
    assert_eq!(again.sections(), frame.sections());
    let encoded = again.encode(compressor);
    let decoded = Frame::decode(encoded.bytes, MAX_RAW_BYTES).expect("our own frame");
    assert_eq!(decoded.sections(), frame.sections());
    let reopened = decoded.open(decompressor).expect("our own body");
    for index in 0..frame.sections().len() {
        assert!(reopened.records(&decoded, index).eq(body.records(frame, index)), "section {index}");
    }
}

/// The section's records, written anew; `None` where they are not what the section says.
fn rewrite(reader: &mut RecordReader<'_>, kind: SectionKind) -> Option<RecordWriter> {
    let SectionKind::Data { first, next, raw_length, .. } = kind else { return None };
    let mut writer = RecordWriter::new(first);
    for record in reader {
        let record = record.ok()?;
        assert!(next.covers(record.offset) && !first.covers(record.offset));
        let headers: Vec<_> = record.headers.iter().collect();
        assert_eq!(headers.len(), record.headers.len(), "what was validated can be iterated");
        assert!(writer.push(record.offset, record.timestamp, record.key, record.value, headers.into_iter()), "offsets rise");
    }
    assert_eq!(writer.len(), raw_length, "one encoding");
    Some(writer)
}
