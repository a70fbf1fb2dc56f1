//! See `spillway_fuzz::control`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| spillway_fuzz::control::run(data));
