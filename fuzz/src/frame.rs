//! Frames off the wire.

use bytes::Bytes;
use spillway_proto::compress::Codec;
use spillway_proto::frame::{Frame, FrameBuilder, SectionKind};
use spillway_proto::record::{RecordReader, RecordWriter};
use spillway_proto::{columns, limits};

use crate::memory::bounded;
use crate::tools::Tools;

/// The limit of the session that is played: small, so that a fuzzer gets past it.
const MAX_RAW_BYTES: usize = 64 * 1024;

/// What a decoded section takes in memory; a section takes at least three bytes on the wire.
const SECTION_BYTES: usize = 48;

/// What a mark of a template takes, the text before it and a growing vector included; and a template.
const MARK_BYTES: usize = 512;
const TEMPLATE_BYTES: usize = 64;

/// The first byte says whether the checksum is made right, so that the fuzzer gets behind it; the rest is a frame.
pub fn run(data: &[u8]) {
    let Some((mode, frame)) = data.split_first() else { return };
    let mut frame = frame.to_vec();
    if mode & 1 == 0 {
        let crc = crc32c::crc32c(&frame);
        frame.extend_from_slice(&crc.to_le_bytes());
    }
    let bytes = Bytes::from(frame);
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

fn open_with(frame: &Frame, Tools { compressor, decompressor }: &mut Tools) {
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
