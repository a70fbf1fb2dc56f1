//! Chunks: the values in sled. An entry's record is its identity and its frame, cut into chunks of a little less than 32 KiB.
//!
//! ```text
//! record: u32 length of the identity, identity, frame
//!
//! chunk:   0  "SWc1"
//!          4  u32 flags: 1 the payload is sealed
//!          8  u64 generation
//!         16  u64 entry
//!         24  u32 index of the chunk in its entry
//!         28  u32 number of chunks of the entry
//!         32  u32 length of the payload
//!         36  16 bytes salt that the generation's keys are derived from, zero without a key; as in its index
//!         52  payload
//!             u32 CRC-32C of all bytes before
//! ```
//! All numbers are little-endian. A chunk tells everything about itself, so that it is found in the bytes of a file by its magic alone
//! ([`find`]): sled keeps values whole and unchanged, and what it cannot open any more can still be read.

use crate::entry::EntryId;
use crate::seal::{FileSalt, Sealed, Sealer};

/// Largest chunk, header and checksum included. Below a quarter of a sled segment, so that no value is ever put into a file of its own; and so
/// that with sled's own heads eight fill a segment of 256 KiB.
pub const MAX_CHUNK_BYTES: usize = 127 * 256;

/// Bytes of a chunk beside its payload.
pub const OVERHEAD_BYTES: usize = HEADER_BYTES + CRC_BYTES;

/// Most chunks of an entry: 160 MiB, above the largest frame.
pub const MAX_CHUNKS: u32 = 5120;

const MAGIC: &[u8; 4] = b"SWc1";
const HEADER_BYTES: usize = 52;
const CRC_BYTES: usize = 4;
const FLAG_SEALED: u32 = 1;

/// Where a chunk belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChunkHead {
    /// The entry.
    pub entry: EntryId,
    /// Index in the entry.
    pub index: u32,
    /// Number of chunks of the entry.
    pub count: u32,
    /// The generation that it was written in.
    pub generation: u64,
    /// Length of the payload, in bytes.
    pub length: usize,
    /// What the generation's keys are derived from; `None`: not sealed.
    pub salt: Option<FileSalt>,
}

/// Cuts a record into chunks. `None` when it is too long.
pub fn split(generation: u64, entry: EntryId, record: &[u8], sealer: &Sealer) -> Option<Vec<Vec<u8>>> {
    let room = MAX_CHUNK_BYTES - OVERHEAD_BYTES - sealer.overhead_bytes();
    let count = u32::try_from(record.len().div_ceil(room).max(1)).ok().filter(|count| *count <= MAX_CHUNKS)?;
    let cut = |index: u32| {
        let payload = record.chunks(room).nth(index as usize).unwrap_or_default();
        let mut out = Vec::with_capacity(MAX_CHUNK_BYTES.min(payload.len() + OVERHEAD_BYTES + sealer.overhead_bytes()));
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&u32::from(sealer.is_sealing()).to_le_bytes());
        out.extend_from_slice(&generation.to_le_bytes());
        out.extend_from_slice(&entry.0.to_le_bytes());
        out.extend_from_slice(&index.to_le_bytes());
        out.extend_from_slice(&count.to_le_bytes());
        out.extend_from_slice(&((payload.len() + sealer.overhead_bytes()) as u32).to_le_bytes());
        out.extend_from_slice(&sealer.salt().unwrap_or_default());
        sealer.seal(Sealed::Chunk { entry: entry.0, index }, payload, &mut out)?;
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        Some(out)
    };
    (0..count).map(cut).collect()
}

/// Reads the chunk at the beginning of `bytes`, which may go on behind it; `None` when there is no whole and valid one.
pub fn parse(bytes: &[u8]) -> Option<(ChunkHead, &[u8])> {
    let header = bytes.get(..HEADER_BYTES)?;
    let number = |at: usize| header.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes);
    let long = |at: usize| header.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
    if !header.starts_with(MAGIC) {
        return None;
    }
    let (index, count, length) = (number(24)?, number(28)?, number(32)? as usize);
    if count == 0 || count > MAX_CHUNKS || index >= count || length > MAX_CHUNK_BYTES - OVERHEAD_BYTES || number(4)? > FLAG_SEALED {
        return None;
    }
    let covered = bytes.get(..HEADER_BYTES + length)?;
    let found = bytes.get(covered.len()..covered.len() + CRC_BYTES)?.try_into().ok().map(u32::from_le_bytes)?;
    if crc32c::crc32c(covered) != found {
        return None;
    }
    let salt = (number(4)? == FLAG_SEALED).then(|| header.get(36..52)?.try_into().ok()).flatten();
    let head = ChunkHead { entry: EntryId(long(16)?), index, count, generation: long(8)?, length, salt };
    Some((head, covered))
}

/// Opens a chunk that [`parse`] found and appends its payload to `record`. False when it was sealed with another key.
pub fn open(head: &ChunkHead, covered: &[u8], sealer: &Sealer, record: &mut Vec<u8>) -> bool {
    let place = Sealed::Chunk { entry: head.entry.0, index: head.index };
    head.salt == sealer.salt() && sealer.open(place, covered, HEADER_BYTES, record)
}

/// Position of the next possible chunk in `bytes` from `from` on.
pub fn find(bytes: &[u8], from: usize) -> Option<usize> {
    let rest = bytes.get(from..)?;
    let mut at = 0;
    while let Some(place) = rest.get(at..)?.iter().position(|byte| *byte == b'S') {
        at += place;
        if rest.get(at..)?.starts_with(MAGIC) {
            return Some(from + at);
        }
        at += 1;
    }
    None
}
