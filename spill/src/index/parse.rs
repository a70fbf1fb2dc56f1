//! Reads an index, as much of it as is whole.

use bytes::Bytes;
use spillway_proto::codec::{DecodeError, Reader};

use super::{BLOCK_BYTES, BY_SLED, CLOSED, CUT, Closed, DURABLE, ENTRY, FRAMING_BYTES, FileSum, HEAD, Head, LOST, MAGIC, VERSION};
use crate::entry::{Class, EntryId, Identity};
use crate::seal::{KeyId, Sealed, Sealer};

/// Largest record: an identity with as many sections and topics as a frame may have.
const MAX_RECORD_BYTES: usize = 4 * 1024 * 1024;

/// Longer than any path that sled makes.
const MAX_PATH_BYTES: usize = 256;

/// What an index file says.
#[derive(Debug, Default)]
pub struct Parsed {
    /// What the generation is; `None` when that is not readable.
    pub head: Option<Head>,
    /// Entries that were not given up, ascending.
    pub entries: Vec<(EntryId, Identity)>,
    /// Entries up to this one were synced.
    pub durable: EntryId,
    /// Entries above this one were given up.
    pub cut: Option<EntryId>,
    /// Entries whose frames are damaged.
    pub lost: Vec<EntryId>,
    /// How it was closed; `None`: it was not.
    pub closed: Option<Closed>,
    /// Everything could be read, up to a record that a power cut may have torn.
    pub sound: bool,
    /// Length of what could be read, in bytes.
    pub length: usize,
    /// Version of a later format; nothing else of it was read.
    pub newer: Option<u8>,
    /// The key does not fit.
    pub foreign_key: Option<KeyId>,
}

/// Reads the head of an index file, of whatever version; `None` when it is damaged.
pub fn peek(bytes: &[u8]) -> Option<(u8, Option<Head>)> {
    let (kind, record) = next_record(bytes.strip_prefix(MAGIC)?)?;
    let body = record.get(FRAMING_BYTES - 4..record.len() - 4)?;
    let version = *body.first().filter(|_| kind == HEAD)?;
    Some((version, read_head(body).filter(|_| version == VERSION)))
}

/// Bytes of a file that [`peek`] needs.
pub const PEEK_BYTES: u64 = 256;

/// Reads an index file. `sealer` makes the keys once the head is known; it answers `None` when the key does not fit.
pub fn parse(bytes: &Bytes, sealer: impl Fn(&Head) -> Option<Sealer>) -> Parsed {
    let mut parsed = Parsed::default();
    if !bytes.starts_with(MAGIC) {
        return parsed;
    }
    parsed.length = MAGIC.len();
    let (mut keys, mut skipped) = (None, false);
    while parsed.length < bytes.len() {
        let rest = bytes.get(parsed.length..).unwrap_or_default();
        let Some((kind, record)) = next_record(rest) else {
            // What follows a damaged record still counts; a record that was not written to its end has nothing after it.
            let Some(distance) = (1..rest.len()).find(|from| rest.get(*from..).is_some_and(|rest| next_record(rest).is_some())) else {
                break;
            };
            (parsed.length, skipped) = (parsed.length + distance, true);
            continue;
        };
        let body = record.get(FRAMING_BYTES - 4..record.len() - 4).unwrap_or_default();
        if kind == HEAD {
            if let Some(version) = body.first().filter(|version| **version != VERSION) {
                (parsed.newer, skipped) = (Some(*version), true);
                break;
            }
            parsed.head = read_head(body);
            keys = parsed.head.as_ref().and_then(&sealer);
            if let Some(head) = parsed.head.filter(|_| keys.is_none()) {
                (parsed.foreign_key, skipped) = (Some(head.key_id), true);
                break;
            }
        } else if parsed.take(kind, body, record, keys.as_ref()).is_none() {
            skipped = true;
        }
        parsed.length += record.len();
    }
    // A closed index has nothing torn at its end: whatever stands there is damage.
    let whole = parsed.length == bytes.len() || parsed.closed.is_none();
    parsed.sound = parsed.head.is_some() && !skipped && whole;
    parsed.entries.sort_by_key(|(id, _)| *id);
    parsed.entries.dedup_by_key(|(id, _)| *id);
    parsed
}

impl Parsed {
    fn take(&mut self, kind: u8, body: &[u8], record: &[u8], keys: Option<&Sealer>) -> Option<()> {
        let number = |body: &[u8]| Some(EntryId(u64::from_le_bytes(body.get(..8)?.try_into().ok()?)));
        match kind {
            ENTRY => {
                let (id, mut identity) = (number(body)?, Vec::new());
                let covered = record.get(..record.len() - 4)?;
                if !keys?.open(Sealed::Index { entry: id.0 }, covered, FRAMING_BYTES - 4 + 8, &mut identity) {
                    return None;
                }
                self.entries.push((id, Identity::decode(&identity).ok()?));
            }
            DURABLE => self.durable = self.durable.max(number(body)?),
            CUT => {
                let last = number(body)?;
                self.entries.retain(|(id, _)| *id <= last);
                self.cut = Some(last);
            }
            LOST => self.lost.push(number(body)?),
            CLOSED => self.closed = Some(read_closed(body).ok()?),
            _ => return None,
        }
        Some(())
    }
}

fn next_record(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let length = u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    if length > MAX_RECORD_BYTES {
        return None;
    }
    let record = bytes.get(..FRAMING_BYTES + length)?;
    let (covered, crc) = record.split_at_checked(record.len() - 4)?;
    (crc32c::crc32c(covered).to_le_bytes() == crc).then_some((*record.get(4)?, record))
}

fn read_head(body: &[u8]) -> Option<Head> {
    let generation = u64::from_le_bytes(body.get(1..9)?.try_into().ok()?);
    let class = Class::new(*body.get(9)?)?;
    let key_id = body.get(10..18)?.try_into().ok()?;
    Some(Head { generation, class, key_id, salt: body.get(18..34)?.try_into().ok()? })
}

fn read_closed(body: &[u8]) -> Result<Closed, DecodeError> {
    let mut reader = Reader::new(body);
    let by_sled = reader.u8("how it was closed")? == BY_SLED;
    let mut files = Vec::new();
    while reader.remaining() > 0 {
        let path = reader.text(MAX_PATH_BYTES, "path")?.to_owned();
        let length = reader.varint("file length")?;
        let count = usize::try_from(length.div_ceil(BLOCK_BYTES as u64)).unwrap_or(usize::MAX);
        let sums = reader.bytes(count.saturating_mul(4), "checksums")?;
        let blocks = sums.chunks_exact(4).filter_map(|sum| sum.try_into().ok()).map(u32::from_le_bytes).collect();
        files.push(FileSum { path, length, blocks });
    }
    Ok(Closed { by_sled, files })
}
