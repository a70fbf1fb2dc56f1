//! See `spillway_fuzz::centre`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| spillway_fuzz::centre::run(data));
