//! How `memory_max` is shared out. The one place where sizes of buffers are decided.
//!
//! | share | of what | bound |
//! |---|---|---|
//! | process | code, stacks, allocator, tables of lanes | [`PROCESS_BYTES`] |
//! | allocator | holes that cannot be given back | a sixteenth |
//! | link | control messages, datagrams, TLS; frames in flight are shared with the ledger, not copied | [`LINK_BYTES`] |
//! | frame | the open frame, a sealed one, its compressed copy | 4 x the frame's largest size |
//! | compressor | zstd's tables | by level, at most `link.compression_memory` and a fifth of what is variable |
//! | dictionaries | the newest with its tables, samples for the next, all that were made: 32 of 8 KiB | [`SMALL_FRAMES_BYTES`] |
//! | history | zstd's tables for small frames, what was sent before, frames that may be asked for once more | the same |
//! | columns | a frame's numbers and texts parted, and what they are packed into | 5 x the frame's largest size |
//! | in flight | frames that are not acknowledged, or wait for the disk | half of the rest |
//! | prefetch | librdkafka's queue: payload and its book of each record, and fetches on their way, decompressed | the other half |
//!
//! With a spill, before the rest is shared:
//!
//! | share | of what | bound |
//! |---|---|---|
//! | store | generations that are written and read, one of both for each flow; sled's buffers | [`spill_bytes`], at most two fifths of what is variable, but at least generations of 1 MiB |
//! | frame | one more open frame for each further flow | 1 x the frame's largest size |
//! | drain | frames that were read back and are not acknowledged: what waits for the disk does not stop the draining | a sixth of the rest, at least 2 frames |
//!
//! sled keeps all of a generation in memory as long as it is open: its cache gives pages back only after sixty-four accesses to one of 256 parts of it,
//! which a generation, written and read once, does not see. So `cache_capacity` is of no effect, and the size of a generation decides.
//!
//! librdkafka counts payload only, while its book of a record takes about 500 bytes; so the queue is bounded in records as well. A fetch may
//! decompress to many times its size, so fetches are kept small: on a local network that costs no throughput.

use rdkafka::config::ClientConfig;
use spillway_proto::compress::LEAST_MEMORY_BYTES;

/// What the process needs whatever it does, in bytes: measured 13 to 15 MiB resident with librdkafka, OpenSSL and rustls.
pub const PROCESS_BYTES: usize = 16 * MIB;

/// This part of `memory_max` is for what the allocator cannot give back under load (see [`crate::allocator`]).
const ALLOCATOR_PART: usize = 16;

/// Datagrams, TLS and control messages, in bytes.
pub const LINK_BYTES: usize = MIB;

/// What small frames take beside what all do, in bytes. Dictionaries: tables of less than 1 MiB (measured at level 12), 128 KiB of samples, and 256 KiB of dictionaries.
/// History: 300 kB of tables to compress, a context to decompress, 72 KiB of history, 64 KiB of frames that may be asked for.
pub const SMALL_FRAMES_BYTES: usize = 2 * MIB;

/// Least `memory_max` of an agent with a spill, in bytes, with up to three flows.
pub const LEAST_WITH_SPILL: usize = 48 * MIB;

/// The bounds of every buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shares {
    /// Largest raw frame, unless it is a single record, in bytes.
    pub frame_bytes: usize,
    /// zstd's working memory, in bytes.
    pub compressor_bytes: usize,
    /// Frames that exist beside those in flight.
    pub building_frames: usize,
    /// Encoded frames that are not acknowledged, and did not come from the spill, in bytes.
    pub in_flight_bytes: usize,
    /// Encoded frames that were read back from the spill and are not acknowledged, in bytes; 0 without a spill.
    pub drain_bytes: usize,
    /// What the spill's store takes, in bytes; 0 without a spill.
    pub spill_bytes: usize,
    /// Largest generation of the spill, in bytes; 0 without a spill.
    pub generation_bytes: usize,
    /// Payload that librdkafka has fetched ahead, in bytes.
    pub prefetch_bytes: usize,
    /// Records that librdkafka has fetched ahead.
    pub prefetch_records: usize,
    /// A fetch from one broker, as it comes over the network, in bytes. A single larger batch passes nevertheless (KIP-74).
    pub fetch_bytes: usize,
    /// Largest answer of a broker, which bounds the largest batch, in bytes.
    pub response_max_bytes: usize,
}

impl Shares {
    /// Shares `memory_max` bytes out. `frame_max_bytes` is what the configuration asks for; it is cut to what fits, and so is the compressor's memory:
    /// `compression` are the highest level and the most bytes for it. `flows` is the number of flows, `has_spill` says whether there is a spill. With one,
    /// `memory_max` is at least [`LEAST_WITH_SPILL`], and 4 MiB more for each flow beyond three.
    pub fn of(memory_max: usize, frame_max_bytes: usize, compression: (i32, usize), flows: usize, has_spill: bool) -> Self {
        let spill = has_spill.then_some(flows);
        let variable = memory_max.saturating_sub(PROCESS_BYTES + LINK_BYTES + SMALL_FRAMES_BYTES + memory_max / ALLOCATOR_PART);
        let generation_bytes = spill.map_or(0, |classes| generation_bytes(classes, variable / 5 * 2));
        let spill_bytes = spill.map_or(0, |classes| spill_bytes(classes, generation_bytes));
        let variable = variable.saturating_sub(spill_bytes);
        // So that the frame's share and the compressor's stay below half of what is variable. With a spill there are more frames, and each flow has its own.
        let frames = if spill.is_some() { 48 } else { 40 } + 3 * flows.saturating_sub(3);
        let frame_bytes = frame_max_bytes.min(variable / frames);
        let (level, most) = compression;
        let compressor_bytes = compressor_bytes(level, frame_bytes).min(most).min(variable / 5).max(LEAST_MEMORY_BYTES);
        let building_frames = BUILDERS + COLUMNS + flows.saturating_sub(1);
        let rest = variable.saturating_sub(building_frames * frame_bytes + compressor_bytes);
        let drain_bytes = spill.map_or(0, |_| (rest / DRAIN_PART).max(2 * frame_bytes));
        let rest = rest.saturating_sub(drain_bytes);
        let fetch_bytes = (rest / 128).clamp(MIN_FETCH_BYTES, MAX_FETCH_BYTES);
        let queue = (rest / 2).saturating_sub(FETCH_GROWTH * fetch_bytes);
        Self {
            frame_bytes,
            compressor_bytes,
            building_frames,
            in_flight_bytes: rest / 2,
            drain_bytes,
            spill_bytes,
            generation_bytes,
            prefetch_bytes: queue / 2,
            prefetch_records: (queue / 2 / RECORD_BOOK_BYTES).max(1),
            fetch_bytes,
            response_max_bytes: (memory_max / 2).max(MIN_RESPONSE_BYTES),
        }
    }

    /// Everything together, in bytes: at most `memory_max` less the allocator's part.
    pub fn total_bytes(&self) -> usize {
        let prefetch = self.prefetch_bytes + self.prefetch_records * RECORD_BOOK_BYTES + FETCH_GROWTH * self.fetch_bytes;
        let building = self.building_frames * self.frame_bytes + self.compressor_bytes;
        PROCESS_BYTES + LINK_BYTES + SMALL_FRAMES_BYTES + building + self.in_flight_bytes + self.drain_bytes + self.spill_bytes + prefetch
    }

    /// Tells librdkafka its share.
    pub fn apply(&self, config: &mut ClientConfig) {
        let fetch_bytes = self.fetch_bytes.to_string();
        config.set("queued.max.messages.kbytes", (self.prefetch_bytes / 1024).max(1).to_string());
        config.set("queued.min.messages", self.prefetch_records.to_string());
        config.set("fetch.max.bytes", &fetch_bytes);
        config.set("max.partition.fetch.bytes", &fetch_bytes);
        // A consumer produces nothing, but librdkafka raises `fetch.max.bytes` to this one.
        config.set("message.max.bytes", fetch_bytes);
        config.set("receive.message.max.bytes", self.response_max_bytes.to_string());
        // When the queue is full, librdkafka looks again after a second by default; ours is small and empties in milliseconds.
        config.set("fetch.queue.backoff.ms", "20");
    }
}

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// This part of what is left is for frames that were read back from the spill.
const DRAIN_PART: usize = 6;

/// Generations of the spill, in bytes: the largest that fits is taken. Below the least, the making of them costs more than their writing.
const GENERATION_BYTES: [usize; 4] = [8 * MIB, 4 * MIB, 2 * MIB, MIB];

/// What the store takes whatever it holds, in bytes: code and buffers of sled, copies of the entry that is written and of the one that is read.
const STORE_BYTES: usize = 5 * MIB + MIB / 2;

/// Frames that exist beside those in flight: open, sealed, raw copy, compressed copy.
const BUILDERS: usize = 4;

/// What a frame takes while its records are turned into columns, in frames: integers of eight bytes for numbers of three and more, forms, texts, the
/// packed copy.
const COLUMNS: usize = 5;

/// librdkafka's book of one record: an operation with the message in it and its place in the queue.
const RECORD_BOOK_BYTES: usize = 512;

/// What a fetch grows to: itself, eight times its size decompressed, and as much again for the books of its records.
const FETCH_GROWTH: usize = 17;

/// Below this, round trips to the broker would limit the throughput.
const MIN_FETCH_BYTES: usize = 64 * KIB;

/// Above this, nothing gets faster.
const MAX_FETCH_BYTES: usize = MIB;

/// A batch of Kafka's default largest size (1 MiB and its headers) passes whatever the memory.
const MIN_RESPONSE_BYTES: usize = 16 * MIB;

fn generation_bytes(classes: usize, most: usize) -> usize {
    let fits = |bytes: &usize| *bytes == MIB || spill_bytes(classes, *bytes) <= most;
    GENERATION_BYTES.into_iter().find(fits).unwrap_or(MIB)
}

/// What the spill's store takes, in bytes: of each class, the generation that is written and the one that is read, and an eighth of one for their trees.
/// Measured with `spill-bench` (docs/lab.md), which took 0.2 to 3.3 MiB less.
pub fn spill_bytes(classes: usize, generation_bytes: usize) -> usize {
    STORE_BYTES + classes * (2 * generation_bytes + generation_bytes / 8)
}

/// zstd's tables grow with the level and are never larger than the input needs. Measured with zstd 1.5.7: up to 21 bytes for each byte of the
/// input, rounded up to a power of two.
fn compressor_bytes(level: i32, frame_bytes: usize) -> usize {
    let by_level = match level {
        ..=3 => return LEAST_MEMORY_BYTES,
        4..=6 => 4 * MIB,
        7..=9 => 11 * MIB,
        _ => 52 * MIB,
    };
    by_level.min(42 * frame_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_add_up_to_the_bound() {
        for memory_mib in [32, 48, 64, 100, 256, 1024, 65_536] {
            for frame_kib in [4, 64, 256, 1024, 8192] {
                for (level, flows) in (1..=12).flat_map(|level| (1..=16).map(move |flows| (level, flows))) {
                    let (memory, frame) = (memory_mib * MIB, frame_kib * KIB);
                    let shares = Shares::of(memory, frame.min(memory / 16), (level, 16 * MIB), flows, false);
                    let case = format!("{memory_mib} MiB, frames of {frame_kib} KiB, level {level}, {flows} flows: {shares:?}");
                    assert!(shares.total_bytes() <= memory - memory / ALLOCATOR_PART, "{case}");
                    assert!(shares.in_flight_bytes >= 4 * shares.frame_bytes, "{case}");
                    // Open frames of further flows are taken from both.
                    let (in_flight, prefetch) = if flows == 1 { (3 * MIB, MIB) } else { (2 * MIB, MIB / 2) };
                    assert!(shares.in_flight_bytes >= in_flight && shares.prefetch_bytes >= prefetch, "{case}");
                }
            }
        }
    }

    #[test]
    fn the_configuration_asks_for_what_a_spill_needs() {
        assert_eq!(spillway_config::MEMORY_LEAST_WITH_SPILL.as_usize(), LEAST_WITH_SPILL);
    }

    #[test]
    fn the_shares_add_up_with_a_spill() {
        for memory in [LEAST_WITH_SPILL, 56 * MIB, 64 * MIB, 100 * MIB, 256 * MIB, 65_536 * MIB] {
            for (frame, level, classes) in [4, 256, 1024, 8192]
                .into_iter()
                .flat_map(|kib| (1..=12).flat_map(move |level| (1..=16).map(move |classes| (kib * KIB, level, classes))))
                .filter(|(_, _, classes)| memory >= LEAST_WITH_SPILL + 4 * MIB * usize::saturating_sub(*classes, 3))
            {
                let shares = Shares::of(memory, frame, (level, 16 * MIB), classes, true);
                let case = format!("{} MiB, frames of {} KiB, level {level}, {classes} classes: {shares:?}", memory / MIB, frame / KIB);
                assert!(shares.total_bytes() <= memory - memory / ALLOCATOR_PART, "{case}");
                // Each class has an open frame, and one at least is in flight.
                assert!(
                    shares.in_flight_bytes >= 4 * (shares.frame_bytes + 4096) && shares.drain_bytes >= 2 * shares.frame_bytes,
                    "{case}"
                );
                assert!(shares.in_flight_bytes >= 2 * MIB && shares.prefetch_bytes >= MIB, "{case}");
            }
        }
    }

    #[test]
    fn a_generation_is_as_large_as_memory_allows() {
        let of = |memory, classes| Shares::of(memory * MIB, 256 * KIB, (3, 16 * MIB), classes, true).generation_bytes / MIB;
        assert_eq!([of(48, 1), of(64, 1), of(100, 1), of(64, 3), of(256, 3)], [2, 4, 8, 1, 8]);
    }

    #[test]
    fn compression_stays_within_what_it_was_given() {
        let of = |memory, most| Shares::of(memory * MIB, MIB, (12, most * MIB), 1, false).compressor_bytes;
        assert_eq!((of(1024, 16), of(1024, 8), of(1024, 64)), (16 * MIB, 8 * MIB, 42 * MIB));
        assert!(of(32, 16) < 4 * MIB, "a small agent has no more for it");
    }

    #[test]
    fn the_default_frame_fits_the_least_memory() {
        assert_eq!(Shares::of(32 * MIB, 256 * KIB, (12, 16 * MIB), 1, false).frame_bytes, 256 * KIB);
    }
}
