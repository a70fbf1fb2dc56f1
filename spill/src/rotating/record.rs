//! An entry's record: what its chunks hold together.

use bytes::Bytes;

use crate::chunk;
use crate::entry::{Entry, EntryId, Identity};
use crate::seal::Sealer;
use crate::store::StoredEntry;

/// The identity of an entry with what only the bytes tell.
pub(crate) fn identity_of(entry: &Entry, sections: Vec<crate::entry::StoredSection>) -> Identity {
    let (frame_bytes, frame_crc) = (entry.frame.len() as u32, crc32c::crc32c(&entry.frame));
    Identity { class: entry.class, created_ms: entry.created_ms, sections, frame_bytes, frame_crc }
}

/// Joins identity and frame.
pub(crate) fn join(identity: &[u8], frame: &[u8]) -> Vec<u8> {
    let mut record = Vec::with_capacity(4 + identity.len() + frame.len());
    record.extend_from_slice(&(identity.len() as u32).to_le_bytes());
    record.extend_from_slice(identity);
    record.extend_from_slice(frame);
    record
}

/// Takes a record apart; `None` when it is not one.
pub(crate) fn part(id: EntryId, record: Vec<u8>) -> Option<StoredEntry> {
    let length = u32::from_le_bytes(record.get(..4)?.try_into().ok()?) as usize;
    let from = length.checked_add(4)?;
    let identity = Identity::decode(record.get(4..from)?).ok()?;
    let frame = Bytes::from(record).slice(from..);
    let whole = frame.len() == identity.frame_bytes as usize && crc32c::crc32c(&frame) == identity.frame_crc;
    whole.then_some(StoredEntry { id, identity, frame })
}

/// Reads an entry chunk by chunk from `fetch`; `None` when one is missing or damaged.
pub(crate) fn assemble(
    generation: u64,
    id: EntryId,
    sealer: &Sealer,
    mut fetch: impl FnMut(u32) -> Option<Vec<u8>>,
) -> Option<StoredEntry> {
    let (mut record, mut index, mut count) = (Vec::new(), 0, 1);
    while index < count {
        let bytes = fetch(index)?;
        let (head, covered) = chunk::parse(&bytes)?;
        let right = head.generation == generation && head.entry == id && head.index == index && (index == 0 || head.count == count);
        if !right || !chunk::open(&head, covered, sealer, &mut record) {
            return None;
        }
        (index, count) = (index + 1, head.count);
    }
    part(id, record)
}
