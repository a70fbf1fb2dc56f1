//! Makes glibc's allocator give large buffers back.
//!
//! glibc maps large blocks on their own and returns them when they are freed, but raises the size from which it does so with each such
//! block that is freed, up to 32 MiB. Frames and fetched batches come and go all the time, so after a while they are cut out of the heap,
//! whose holes nobody else fits into: under load with 1 MiB records the agent's resident memory peaked at 64 to 71 MiB with the default
//! and at 56 MiB with fixed thresholds. Other allocators (musl's) do not do this, and there this does nothing.

#![cfg_attr(target_env = "gnu", expect(unsafe_code, reason = "mallopt is the only way to set the thresholds from within the process"))]

/// Blocks from this size on, in bytes, are mapped on their own: below it are records and small messages, above it frames and batches.
#[cfg(target_env = "gnu")]
const MAPPED_FROM_BYTES: libc::c_int = 64 * 1024;

/// Free memory at the end of the heap, in bytes, from which it is given back.
#[cfg(target_env = "gnu")]
const TRIMMED_FROM_BYTES: libc::c_int = 128 * 1024;

/// Fixes the thresholds. To be called first thing in `main`.
#[cfg(target_env = "gnu")]
pub fn give_back_large_blocks() {
    // SAFETY: mallopt takes two integers and locks the allocator itself; it may be called at any time.
    let taken =
        unsafe { [libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_FROM_BYTES), libc::mallopt(libc::M_TRIM_THRESHOLD, TRIMMED_FROM_BYTES)] };
    debug_assert_eq!(taken, [1, 1], "glibc knows both parameters");
}

/// Nothing to do with this allocator.
#[cfg(not(target_env = "gnu"))]
pub fn give_back_large_blocks() {}
