//! See `spillway_fuzz::certificate`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| spillway_fuzz::certificate::run(data));
