//! How much memory a decoder takes at most, in bytes. libFuzzer runs a target on one thread, so all that is allocated meanwhile is the
//! decoder's. What zstd allocates in C is not seen here; libFuzzer's `-rss_limit_mb` bounds it.

use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// What an error's text, a growing vector's second copy or a container's first allocation may take beside the bound.
const SLACK_BYTES: usize = 4096;

/// Runs `decode` and panics if it takes more than `bound` bytes at any time.
pub fn bounded<T>(bound: usize, decode: impl FnOnce() -> T) -> T {
    let before = ALLOCATOR.current_usage();
    ALLOCATOR.reset_peak_usage();
    let decoded = decode();
    let taken = ALLOCATOR.peak_usage().saturating_sub(before);
    assert!(taken <= bound + SLACK_BYTES, "{taken} bytes were allocated, {bound} are allowed");
    decoded
}
