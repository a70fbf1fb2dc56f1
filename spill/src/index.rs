//! The index of a generation: the identities of its entries, beside the payload and apart from it, so that what was lost is known although the
//! payload is damaged, and a start needs to read no payload.
//!
//! ```text
//! file:    "SPILLIX1", then records, the first one a head
//! record:  u32 length of the body, u8 kind, body, u32 CRC-32C of all before in the record; numbers little-endian
//!   1 head     u8 version = 1, u64 generation, u8 class, 8 bytes key id, 16 bytes salt
//!   2 entry    u64 entry, identity (sealed with a key)
//!   3 durable  u64 entry: all entries up to this one were synced
//!   4 cut      u64 entry: those above it that stand before this record were given up
//!   5 lost     u64 entry: its frame is damaged
//!   6 closed   u8 how (1 by sled, 2 otherwise: to be read chunk by chunk), then of each file below `sled/`: varint length of the path, path, varint length of the file,
//!              u32 CRC-32C of each 64 KiB of it
//! ```
//! Records are appended without fsync: the payload has its own copy of the identity, so a power cut may take records from the end.

use spillway_proto::codec::put_varint;

use crate::entry::{Class, EntryId};
use crate::seal::{FileSalt, KeyId, NO_KEY, Sealed, Sealer};

mod parse;

pub use parse::{PEEK_BYTES, Parsed, parse, peek};

/// Version of the format.
pub const VERSION: u8 = 1;

/// Bytes of a file that share a checksum.
pub const BLOCK_BYTES: usize = 64 * 1024;

const MAGIC: &[u8; 8] = b"SPILLIX1";
const FRAMING_BYTES: usize = 9;

const HEAD: u8 = 1;
const ENTRY: u8 = 2;
const DURABLE: u8 = 3;
const CUT: u8 = 4;
const LOST: u8 = 5;
const CLOSED: u8 = 6;

/// What a generation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Its number, the same as in the name of its directory.
    pub generation: u64,
    /// The class of its entries.
    pub class: Class,
    /// The key that it is sealed with.
    pub key_id: KeyId,
    /// What its keys are derived from.
    pub salt: FileSalt,
}

/// Checksums of a file of the payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSum {
    /// Path below the payload's directory.
    pub path: String,
    /// Length, in bytes.
    pub length: u64,
    /// CRC-32C of each block.
    pub blocks: Vec<u32>,
}

/// How a generation was closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    /// Its writer closed it, so sled can open it if the sums match; else it was salvaged after a crash and is read chunk by chunk.
    pub by_sled: bool,
    /// The files as they were then.
    pub files: Vec<FileSum>,
}

/// The beginning of an index file.
pub fn begin(head: &Head) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    put(&mut out, HEAD, |out| {
        out.push(VERSION);
        out.extend_from_slice(&head.generation.to_le_bytes());
        out.push(head.class.number());
        out.extend_from_slice(&head.key_id);
        out.extend_from_slice(&head.salt);
    });
    out
}

/// Appends the record of an entry. `None` when it cannot be sealed.
pub fn put_entry(out: &mut Vec<u8>, entry: EntryId, identity: &[u8], sealer: &Sealer) -> Option<()> {
    let mut record = ((8 + identity.len() + sealer.overhead_bytes()) as u32).to_le_bytes().to_vec();
    record.push(ENTRY);
    record.extend_from_slice(&entry.0.to_le_bytes());
    sealer.seal(Sealed::Index { entry: entry.0 }, identity, &mut record)?;
    let crc = crc32c::crc32c(&record);
    record.extend_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(&record);
    Some(())
}

/// Appends: all entries up to this one were synced.
pub fn put_durable(out: &mut Vec<u8>, entry: EntryId) {
    put(out, DURABLE, |out| out.extend_from_slice(&entry.0.to_le_bytes()));
}

/// Appends: the entries above this one that stand before were given up.
pub fn put_cut(out: &mut Vec<u8>, entry: EntryId) {
    put(out, CUT, |out| out.extend_from_slice(&entry.0.to_le_bytes()));
}

/// Appends: the entry's frame is damaged.
pub fn put_lost(out: &mut Vec<u8>, entry: EntryId) {
    put(out, LOST, |out| out.extend_from_slice(&entry.0.to_le_bytes()));
}

/// Appends: the generation is complete.
pub fn put_closed(out: &mut Vec<u8>, closed: &Closed) {
    put(out, CLOSED, |out| {
        out.push(if closed.by_sled { BY_SLED } else { SALVAGED });
        for file in &closed.files {
            put_varint(out, file.path.len() as u64);
            out.extend_from_slice(file.path.as_bytes());
            put_varint(out, file.length);
            for block in &file.blocks {
                out.extend_from_slice(&block.to_le_bytes());
            }
        }
    });
}

const BY_SLED: u8 = 1;
const SALVAGED: u8 = 2;

fn put(out: &mut Vec<u8>, kind: u8, body: impl FnOnce(&mut Vec<u8>)) {
    let from = out.len();
    out.extend_from_slice(&[0; 4]);
    out.push(kind);
    body(out);
    let length = (out.len() - from - (FRAMING_BYTES - 4)) as u32;
    if let Some(place) = out.get_mut(from..from + 4) {
        place.copy_from_slice(&length.to_le_bytes());
    }
    let crc = crc32c::crc32c(out.get(from..).unwrap_or_default());
    out.extend_from_slice(&crc.to_le_bytes());
}

impl Head {
    /// True when it is sealed.
    pub fn is_sealed(&self) -> bool {
        self.key_id != NO_KEY
    }
}
