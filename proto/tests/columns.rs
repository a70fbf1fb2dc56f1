//! Columns: what was packed is unpacked as it was; what was damaged is refused, and never a panic or a byte too many.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use spillway_proto::codec::DecodeError;
use spillway_proto::columns::{MAX_MARKS, MAX_TEMPLATES, Packer, unpack};
use spillway_proto::compress::{Body, COLUMNS_LEVEL, Codec, Compressor, Decompressor};
use spillway_proto::dictionary::{Dictionary, MAX_DICTIONARY_BYTES};
use spillway_proto::frame::{Frame, FrameBuilder, Section, SectionKind};
use spillway_proto::record::RecordWriter;
use spillway_proto::{Lane, NextOffset, Offset};

#[derive(Debug, Clone)]
struct Record {
    hole: u64,
    timestamp: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
}

/// Text of few shapes with many numbers in them, and some of none.
fn text() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => (any::<i32>(), -99.9..99.9f64).prop_map(|(n, x)| format!(r#"{{"ts":{n},"value":{x:.2},"unit":"C"}}"#).into_bytes()),
        3 => any::<f64>().prop_map(|x| format!(r#"{{"x":{x},"y":{x:e}}}"#).into_bytes()),
        3 => (0u8..60, any::<u64>()).prop_map(|(s, id)| format!("2026-11-22T10:{s:02}:0{}.{:03}Z id={id:016x}", s % 9, s).into_bytes()),
        1 => "[-0-9.eT:a-f]{0,40}".prop_map(String::into_bytes),
        1 => vec(any::<u8>(), 0..60),
        1 => vec(0u8..6, 0..20),
    ]
}

fn record() -> impl Strategy<Value = Record> {
    let headers = vec(("(schema|trace|.{0,8})", option::of(text())), 0..3);
    let times = prop_oneof![1_700_000_000_000i64..1_700_000_060_000, any::<i64>()];
    let holes = prop_oneof![4 => Just(0u64), 1 => 0u64..1000];
    (holes, times, option::of(text()), option::of(text()), headers).prop_map(|(hole, timestamp, key, value, headers)| Record {
        hole,
        timestamp,
        key,
        value,
        headers,
    })
}

fn sections() -> impl Strategy<Value = Vec<Vec<Record>>> {
    vec(vec(record(), 0..40), 1..5)
}

fn builder(sections: &[Vec<Record>]) -> FrameBuilder {
    let mut builder = FrameBuilder::new();
    for (lane, records) in sections.iter().enumerate() {
        let first = 1000 * lane as u64;
        let mut writer = RecordWriter::new(NextOffset::new(first).unwrap());
        let mut offset = first;
        for record in records {
            offset += record.hole;
            let headers = record.headers.iter().map(|(name, value)| (name.as_str(), value.as_deref()));
            let at = Offset::new(offset).unwrap();
            assert!(writer.push(at, record.timestamp, record.key.as_deref(), record.value.as_deref(), headers));
            offset += 1;
        }
        builder.data(Lane(lane as u32), writer);
        builder.start(Lane(99), NextOffset::ZERO);
    }
    builder
}

/// The sections and rows of a frame.
fn rows(sections: &[Vec<Record>]) -> (Vec<Section>, Vec<u8>) {
    let encoded = builder(sections).encode(&mut Compressor::new(1).unwrap());
    let frame = Frame::decode(encoded.bytes.clone(), 1 << 20).unwrap();
    let body = body(&encoded.bytes);
    let body = Body { codec: frame.codec(), bytes: &body, dictionary: None };
    let rows = Decompressor::new().unwrap().decompress(&body, frame.sections(), frame.raw_length()).unwrap();
    (frame.sections().to_vec(), rows)
}

/// The body as it stands in the frame: before the checksum, behind its own length.
fn body(frame: &Bytes) -> Bytes {
    let stored = Frame::decode(frame.clone(), 1 << 20).unwrap();
    frame.slice(frame.len() - 4 - stored.body_length()..frame.len() - 4)
}

fn packed(sections: &[Section], rows: &[u8]) -> Option<Vec<u8>> {
    Packer::new().pack(sections, rows).map(<[u8]>::to_vec)
}

proptest! {
    #[test]
    fn rows_come_back_as_they_were(sections in sections()) {
        let (sections, rows) = rows(&sections);
        if let Some(packed) = packed(&sections, &rows) {
            prop_assert!(packed.len() <= rows.len());
            prop_assert_eq!(unpack(&packed, &sections, rows.len()).unwrap(), rows);
        }
    }

    #[test]
    fn damage_is_found_and_never_panics(sections in sections(), damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6), cut: prop::sample::Index) {
        let (sections, rows) = rows(&sections);
        if let Some(mut packed) = packed(&sections, &rows) {
            let cut = &packed[..cut.index(packed.len())];
            prop_assert!(unpack(cut, &sections, rows.len()).is_err());
            for (at, byte) in damage {
                let at = at.index(packed.len());
                packed[at] = byte;
            }
            // Damage may change nothing, but never the rows.
            if let Ok(read) = unpack(&packed, &sections, rows.len()) {
                prop_assert_eq!(read, rows);
            }
        }
    }

    #[test]
    fn noise_never_panics(noise in vec(any::<u8>(), 0..400), records in 0u32..50, raw_length in 0usize..1000) {
        let next = NextOffset::new(1000).unwrap();
        let kind = SectionKind::Data { first: NextOffset::ZERO, next, records, raw_length };
        if let Ok(rows) = unpack(&noise, &[Section { lane: Lane(0), kind }], raw_length) {
            prop_assert_eq!(rows.len(), raw_length);
        }
    }
}

fn telemetry(count: u32) -> Vec<Vec<Record>> {
    let record = |n: u32| Record {
        hole: 0,
        timestamp: 1_700_000_000_000 + i64::from(n) * 7,
        key: Some(format!("press-{:02}", n * 7 % 48).into_bytes()),
        value: Some(
            format!(
                r#"{{"ts":{},"seq":{n},"value":{}.{:02},"quality":"good"}}"#,
                1_700_000_000_000 + u64::from(n) * 7,
                n * 31 % 90,
                n * 17 % 100
            )
            .into_bytes(),
        ),
        headers: vec![("schema".to_owned(), Some(b"v1".to_vec()))],
    };
    vec![(0..count).map(record).collect()]
}

#[test]
fn a_frame_of_telemetry_goes_in_columns_where_both_sides_know_them() {
    let mut compressor = Compressor::new(COLUMNS_LEVEL).unwrap();
    let plain = builder(&telemetry(1000)).encode(&mut compressor);
    compressor.allow_columns(true);
    let encoded = builder(&telemetry(1000)).encode(&mut compressor);
    let (frame, plain) = (Frame::decode(encoded.bytes, 1 << 20).unwrap(), Frame::decode(plain.bytes, 1 << 20).unwrap());
    assert_eq!((frame.codec(), plain.codec()), (Codec::Columns, Codec::Zstd));
    assert!(frame.wire_length() * 3 < plain.wire_length() * 2, "{} against {}", frame.wire_length(), plain.wire_length());
    let mut decompressor = Decompressor::new().unwrap();
    let (rows, plain_rows) = (frame.open(&mut decompressor).unwrap(), plain.open(&mut decompressor).unwrap());
    assert!(rows.records(&frame, 0).eq(plain_rows.records(&plain, 0)));
    assert_eq!(rows.records(&frame, 0).count(), 1000);
}

#[test]
fn records_without_a_shape_in_common_are_not_made_templates() {
    // Each of another text, as free text is: without a limit, 5,000 templates.
    let word = |n: u32| (0..6).map(|place| char::from(b'a' + (n >> (place * 2) & 15) as u8)).collect::<String>();
    let record = |n: u32| Record {
        hole: 0,
        timestamp: 0,
        key: None,
        value: Some(format!("{} said {}", word(n), word(n * 7)).into_bytes()),
        headers: vec![],
    };
    let (sections, rows) = rows(&[(0..5000).map(record).collect()]);
    let packed = packed(&sections, &rows).unwrap();
    assert_eq!(unpack(&packed, &sections, rows.len()).unwrap(), rows);
    // Behind the checksum stands the number of templates, a varint of two bytes here.
    let count = u32::from(packed[4] & 0x7f) | u32::from(packed[5]) << 7;
    assert!((64..=5000 / 8 + 1).contains(&count), "{count} templates");
}

#[test]
fn what_takes_more_than_is_allowed_is_refused() {
    let (sections, rows) = rows(&telemetry(100));
    let kind =
        |records, raw_length| SectionKind::Data { first: NextOffset::ZERO, next: NextOffset::new(1 << 20).unwrap(), records, raw_length };
    let of = |records, raw_length| [Section { lane: Lane(0), kind: kind(records, raw_length) }];
    // More records than bytes for them.
    assert!(matches!(unpack(&[0; 40], &of(9, 44), 44), Err(DecodeError::Range { what: "records in columns", .. })));
    // Too many templates; too many marks in them.
    let head = |count: usize| {
        let mut bytes = vec![0; 4];
        spillway_proto::codec::put_varint(&mut bytes, count as u64);
        bytes
    };
    assert!(matches!(unpack(&head(MAX_TEMPLATES + 1), &of(1, 99), 99), Err(DecodeError::Range { what: "number of templates", .. })));
    let mut marks = head(1);
    spillway_proto::codec::put_bytes(&mut marks, &vec![2; MAX_MARKS + 1]);
    assert!(matches!(unpack(&marks, &of(1, 99), 99), Err(DecodeError::Range { what: "marks", .. })));
    // A template without key and value.
    let mut short = head(1);
    spillway_proto::codec::put_bytes(&mut short, b"key\x02");
    assert!(matches!(unpack(&short, &of(1, 99), 99), Err(DecodeError::Mismatch { .. })));
    // Rows that would pass the section's end.
    let packed = packed(&sections, &rows).unwrap();
    assert!(matches!(unpack(&packed, &of(100, rows.len() - 1), rows.len() - 1), Err(DecodeError::Range { what: "section's length", .. })));
    assert!(matches!(unpack(&packed, &of(100, rows.len() + 1), rows.len() + 1), Err(DecodeError::Mismatch { .. })));
    let mut other = packed.clone();
    other[0] ^= 1;
    assert!(matches!(unpack(&other, &sections, rows.len()), Err(DecodeError::Checksum { .. })));
}

/// The frame of `tests/fixtures/v2.txt`.
fn kept() -> Vec<Vec<Record>> {
    let record = |n: u64, value: Option<String>| Record {
        hole: n % 2,
        timestamp: 1_700_000_000_000 + n as i64 * 20,
        key: Some(format!("press-{n:02}").into_bytes()),
        value: value.map(String::into_bytes),
        headers: vec![("trace".to_owned(), (!n.is_multiple_of(5)).then(|| format!("{:016x}", n * 0x1234_5678_9abc).into_bytes()))],
    };
    let value = |n: u64| format!(r#"{{"seq":{n},"bar":{},"volt":{}.{:02},"state":-{n}}}"#, n as f64 / 4.0, n % 7, n);
    let first = (0..20).map(|n| record(n, (n != 3).then(|| value(n)))).collect();
    let second = (0..10).map(|n| record(n, Some(format!("\u{1}{n}")))).collect();
    vec![first, second]
}

#[test]
fn the_kept_columns_are_read_as_what_they_were() {
    const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/v2.txt");
    let (sections, rows) = rows(&kept());
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let line = |name: &str, bytes: &[u8]| format!("{name} = {}\n", hex(bytes));
    let mut compressor = Compressor::new(COLUMNS_LEVEL).unwrap();
    compressor.allow_columns(true);
    let frame = builder(&kept()).encode(&mut compressor).bytes;
    if std::env::var_os("SPILLWAY_BLESS").is_some() {
        let columns = packed(&sections, &rows).unwrap();
        let (dictionary, named) = trained();
        let lines = [("columns", &columns[..]), ("frame.columns", &frame), ("dictionary", &dictionary), ("frame.dictionary", &named)];
        std::fs::write(PATH, lines.map(|(name, bytes)| line(name, bytes)).concat()).unwrap();
    }
    let text = std::fs::read_to_string(PATH).unwrap();
    let found = |name: &str| -> Vec<u8> {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = ")).unwrap();
        line.as_bytes().chunks(2).map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap()).collect()
    };
    // Another packer may choose other columns; what it must do is read these.
    assert_eq!(unpack(&found("columns"), &sections, rows.len()).unwrap(), rows);
    let kept = Frame::decode(found("frame.columns").into(), 1 << 20).unwrap();
    assert_eq!((kept.codec(), kept.sections()), (Codec::Columns, &sections[..]));
    let opened = kept.open(&mut Decompressor::new().unwrap()).unwrap();
    let count = (0..sections.len()).map(|index| opened.records(&kept, index).map(Result::unwrap).count()).sum::<usize>();
    assert_eq!(count, 30);

    let mut named = Frame::decode(found("frame.dictionary").into(), 1 << 20).unwrap();
    let dictionary = Dictionary::new(found("dictionary").into()).unwrap();
    assert_eq!((named.codec(), named.missing_dictionary()), (Codec::ColumnsWithDictionary, Some(dictionary.id())));
    named.attach(Arc::new(dictionary));
    let opened = named.open(&mut Decompressor::new().unwrap()).unwrap();
    let plain = Frame::decode(small("pressure", 7).encode(&mut Compressor::new(1).unwrap()).bytes, 1 << 20).unwrap();
    assert!(opened.records(&named, 0).eq(plain.open(&mut Decompressor::new().unwrap()).unwrap().records(&plain, 0)));
}

/// A dictionary, and the frame of [`small`] that names it.
fn trained() -> (Vec<u8>, Vec<u8>) {
    let mut compressor = Compressor::new(COLUMNS_LEVEL).unwrap();
    compressor.allow_columns(true);
    compressor.allow_dictionaries(true);
    let made = (0..10_000).find_map(|number| {
        small("pressure", number).encode(&mut compressor);
        compressor.take_dictionary()
    });
    (made.unwrap().bytes().to_vec(), small("pressure", 7).encode(&mut compressor).bytes.to_vec())
}

/// Small frames, one after the other, of a shape that `name` has a part in.
fn small(name: &str, number: u32) -> FrameBuilder {
    let record = |n: u32| Record {
        hole: 0,
        timestamp: 1_700_000_000_000 + i64::from(n),
        key: Some(format!("{name}-{}", n % 7).into_bytes()),
        value: Some(
            format!(r#"{{"sensor":"{name}","seq":{n},"{name}_value":{}.{:02},"quality":"good"}}"#, n * 31 % 90, n * 17 % 100).into_bytes(),
        ),
        headers: vec![],
    };
    builder(&[(number * 8..number * 8 + 8).map(record).collect()])
}

#[test]
fn small_frames_get_smaller_with_a_dictionary_and_another_one_when_it_has_aged() {
    let mut compressor = Compressor::new(COLUMNS_LEVEL).unwrap();
    compressor.allow_columns(true);
    compressor.allow_dictionaries(true);
    let mut decompressor = Decompressor::new().unwrap();
    let mut dictionaries = BTreeMap::new();
    let (mut before, mut after) = (0, 0);
    for number in 0..6000 {
        let name = if number < 3000 { "temperature" } else { "a_quite_different_thing" };
        let encoded = small(name, number).encode(&mut compressor);
        let mut frame = Frame::decode(encoded.bytes.clone(), 1 << 20).unwrap();
        match frame.missing_dictionary() {
            Some(id) => {
                let error = frame.open(&mut decompressor).unwrap_err();
                assert_eq!(error, DecodeError::Dictionary(id.0));
                frame.attach(Arc::clone(&dictionaries[&id]));
                after += usize::from(number < 3000) * encoded.bytes.len();
            }
            None => before = encoded.bytes.len(),
        }
        let plain = small(name, number).encode(&mut Compressor::new(1).unwrap());
        let plain = Frame::decode(plain.bytes, 1 << 20).unwrap();
        let (rows, plain_rows) = (frame.open(&mut decompressor).unwrap(), plain.open(&mut Decompressor::new().unwrap()).unwrap());
        assert!(rows.records(&frame, 0).eq(plain_rows.records(&plain, 0)));
        if let Some(made) = compressor.take_dictionary() {
            dictionaries.insert(made.id(), made);
        }
        if number == 2999 {
            assert_eq!(dictionaries.len(), 1);
            // Of 3,000 frames some 2,500 named it.
            assert!(after > 0 && after / 2000 < before * 3 / 4, "{after} bytes of more than 2000 frames, {before} of one before");
        }
    }
    assert!((2..10).contains(&dictionaries.len()), "{} dictionaries", dictionaries.len());
}

#[test]
fn a_dictionary_that_is_none_or_another_one_is_refused() {
    assert!(Dictionary::new(vec![0; MAX_DICTIONARY_BYTES + 1].into()).is_err());
    let other = Dictionary::new(b"any bytes at all".to_vec().into()).unwrap();
    let kind = SectionKind::Data { first: NextOffset::ZERO, next: NextOffset::new(9).unwrap(), records: 1, raw_length: 99 };
    let sections = [Section { lane: Lane(0), kind }];
    let mut decompressor = Decompressor::new().unwrap();
    let mut open = |bytes: &[u8], dictionary| {
        let body = Body { codec: Codec::ColumnsWithDictionary, bytes, dictionary };
        decompressor.decompress(&body, &sections, 99).unwrap_err()
    };
    assert_eq!(open(&[0, 0, 0, 7, 1, 2], Some(&other)), DecodeError::Dictionary(7));
    assert!(matches!(open(&[0, 0, 7], Some(&other)), DecodeError::Truncated { .. }));
    let named = [&other.id().0.to_be_bytes()[..], b"no zstd"].concat();
    assert!(matches!(open(&named, Some(&other)), DecodeError::Zstd(_)));
}
