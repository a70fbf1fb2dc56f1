#![expect(clippy::unwrap_used, reason = "tests")]
use super::*;

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
