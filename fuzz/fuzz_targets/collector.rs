//! See `spillway_fuzz::collector`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| spillway_fuzz::collector::run(data));
