#![expect(clippy::unwrap_used, reason = "tests")]
use super::*;
use crate::frame::FrameBuilder;
use crate::record::RecordWriter;
use crate::types::{Lane, NextOffset, Offset};

#[test]
fn a_bomb_is_stopped_at_the_declared_length() {
    let (codec, body) = Compressor::new(3).unwrap().compress(&[], &vec![0; 100 << 20]);
    assert_eq!(codec, Codec::Zstd);
    assert!(body.len() < 20_000);
    for codec in [Codec::Zstd, Codec::Columns] {
        let error = Decompressor::new().unwrap().decompress(&Body { codec, bytes: &body, dictionary: None }, &[], 1000).unwrap_err();
        assert!(matches!(error, DecodeError::Zstd(_)), "{error}");
    }
}

#[test]
fn a_body_shorter_than_declared_is_refused() {
    let (codec, body) = Compressor::new(3).unwrap().compress(&[], &[7; 500]);
    let error = Decompressor::new().unwrap().decompress(&Body { codec, bytes: &body, dictionary: None }, &[], 501).unwrap_err();
    assert_eq!(error, DecodeError::Mismatch { what: "raw length", left: 500, right: 501 });
}

#[test]
fn incompressible_data_is_stored() {
    let noise: Vec<u8> = (0..4096u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8 ^ (n >> 3) as u8).collect();
    let (codec, body) = Compressor::new(3).unwrap().compress(&[], &noise[..64]);
    assert_eq!((codec, body.as_slice()), (Codec::Stored, &noise[..64]));
    assert_eq!(Decompressor::new().unwrap().decompress(&Body { codec, bytes: &body, dictionary: None }, &[], 64).unwrap(), &noise[..64]);
}

#[test]
fn working_memory_stays_within_its_bound_at_every_level() {
    let text: Vec<u8> = (0..400_000u64).flat_map(|n| format!("{{\"n\":{}}}", n * n % 1_000_003).into_bytes()).collect();
    for memory in [LEAST_MEMORY_BYTES, 8 << 20, DEFAULT_MEMORY_BYTES, 64 << 20] {
        for level in 1..=12 {
            let mut compressor = Compressor::with_memory(level, memory).unwrap();
            compressor.compress(&[], &text);
            let taken = compressor.context.context_mut().sizeof();
            assert!(taken <= memory, "level {level}: {taken} of {memory} bytes");
            assert!(memory > LEAST_MEMORY_BYTES || taken > memory / 8, "level {level}: only {taken} of {memory} bytes");
        }
    }
}

/// A frame of a few records of several shapes, each of a job: without a dictionary its rows are smaller than its columns.
fn events(number: u64) -> FrameBuilder {
    const RECORDS: u64 = 12;
    let mut writer = RecordWriter::new(NextOffset::new(number * RECORDS).unwrap());
    for at in number * RECORDS..(number + 1) * RECORDS {
        let noise = at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
        let job = (noise % 8 + at / 100).wrapping_mul(0xd134_2543_de82_ef95);
        let job = format!("{:08x}-{:04x}-4abc-a{:03x}-{:012x}", job >> 32, job & 0xffff, job >> 52, job >> 16);
        let step = ["weld", "press", "paint", "inspect", "pack"][(noise / 8 % 5) as usize];
        let value = match noise / 64 % 4 {
            0 => format!(r#"{{"ts":{at},"station":"st-{:02}","event":"{step} done","job":"{job}"}}"#, noise / 256 % 24),
            _ => format!(r#"{{"job":"{job}","station":"st-{:02}","step":"{step}","ms":{},"ts":{at}}}"#, noise / 256 % 24, noise % 9000),
        };
        assert!(writer.push(Offset::new(at).unwrap(), at as i64, Some(job.as_bytes()), Some(value.as_bytes()), std::iter::empty()));
    }
    let mut builder = FrameBuilder::new();
    builder.data(Lane(1), writer);
    builder
}

#[test]
fn a_dictionary_is_trained_for_what_columns_do_not_suit_without() {
    let mut compressor = Compressor::new(3).unwrap();
    compressor.allow_columns(true);
    compressor.allow_dictionaries(true);
    let (mut rows, mut made, mut named) = (0, None, 0);
    for number in 0..600 {
        let frame = events(number).encode(&mut compressor);
        let codec = crate::frame::Frame::peek_codec(&frame.bytes).unwrap();
        rows += u32::from(codec == Codec::Zstd && made.is_none());
        named += u32::from(codec == Codec::ColumnsWithDictionary);
        made = made.or_else(|| compressor.take_dictionary().map(|_| number));
    }
    assert!(rows > 50, "only {rows} frames were rows before there was a dictionary");
    assert!(made.is_some_and(|number| number < 300), "{made:?}");
    assert!(named > 100, "only {named} frames name the dictionary");
}
