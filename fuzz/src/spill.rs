//! What the spill finds on the agent's disk, beside what sled reads: the index, the state, identities, chunks.

use bytes::Bytes;
use spillway_spill::entry::Identity;
use spillway_spill::index::{self, Head};
use spillway_spill::seal::{NO_KEY, Sealer};
use spillway_spill::state::{self, State};
use spillway_spill::{Class, EntryId, chunk};

use crate::memory::bounded;

/// A section takes at least five bytes on disk, and in memory its share of a growing vector and a copy of its topic's name.
const BYTES_PER_BYTE: usize = 160;

/// What the files of a spill without a key are sealed with.
const CLEAR: [u8; 16] = [0; 16];

/// The first byte says what the rest is.
pub fn run(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else { return };
    match kind % 6 {
        0 => identity(rest),
        1 => whole_index(rest),
        2 => damaged_index(rest),
        3 => whole_state(rest),
        4 => _ = state(rest),
        _ => chunks(rest, kind / 6),
    }
}

/// What is accepted means the same when it is written again.
fn identity(bytes: &[u8]) {
    let Ok(identity) = bounded(BYTES_PER_BYTE * bytes.len(), || Identity::decode(bytes)) else { return };
    let mut again = Vec::new();
    identity.encode(&mut again);
    assert_eq!(Identity::decode(&again), Ok(identity));
}

/// Records with right lengths and checksums, of a kind and a length that the input gives each.
fn whole_index(mut rest: &[u8]) {
    let head = Head { generation: 7, class: Class::DEFAULT, key_id: NO_KEY, salt: CLEAR };
    let mut file = index::begin(&head);
    let mut records = 0;
    while let Some(([kind, length], more)) = rest.split_first_chunk() {
        let (body, more) = more.split_at(more.len().min(usize::from(*length)));
        let from = file.len();
        file.extend_from_slice(&(body.len() as u32).to_le_bytes());
        file.push(kind % 8);
        file.extend_from_slice(body);
        let crc = crc32c::crc32c(&file[from..]);
        file.extend_from_slice(&crc.to_le_bytes());
        (rest, records) = (more, records + 1);
    }
    let length = file.len();
    let parsed = parse(file);
    // A head in the middle may say that the rest is of another format or sealed with another key.
    if parsed.newer.is_none() && parsed.foreign_key.is_none() {
        assert_eq!(parsed.length, length, "every one of {records} records is whole");
    }
}

fn damaged_index(rest: &[u8]) {
    let _head = index::peek(rest);
    parse(rest.to_vec());
}

fn parse(file: Vec<u8>) -> index::Parsed {
    let bytes = Bytes::from(file);
    let sealer = |head: &Head| (head.key_id == NO_KEY).then(|| Sealer::new(None, &head.salt));
    let parsed = bounded(BYTES_PER_BYTE * bytes.len(), || index::parse(&bytes, sealer));
    assert!(parsed.length <= bytes.len());
    assert!(parsed.entries.windows(2).all(|pair| pair[0].0 < pair[1].0), "each entry once, ascending");
    assert!(!parsed.sound || parsed.head.is_some());
    parsed
}

/// Head and checksum are right, so that the fuzzer gets behind them.
fn whole_state(body: &[u8]) {
    let mut bytes = [b"SPILLST1".as_slice(), &[state::VERSION], &NO_KEY, &CLEAR, body].concat();
    let crc = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    if let Some(state) = state(&bytes) {
        let again = state.encode(None, CLEAR).expect("without a key nothing is sealed");
        assert!(matches!(State::decode(&again, None), state::Read::State(again) if again == state));
    }
}

fn state(bytes: &[u8]) -> Option<State> {
    match bounded(BYTES_PER_BYTE * bytes.len(), || State::decode(bytes, None)) {
        state::Read::State(state) => Some(state),
        _ => None,
    }
}

/// Whatever stands around them, chunks are found, and nothing else is.
fn chunks(rest: &[u8], count: u8) {
    let sealer = Sealer::new(None, &CLEAR);
    let mut at = 0;
    while let Some(place) = chunk::find(rest, at) {
        assert!(place >= at);
        if let Some((head, covered)) = chunk::parse(&rest[place..]) {
            let mut record = Vec::new();
            assert!(bounded(covered.len(), || chunk::open(&head, covered, &sealer, &mut record)) || head.salt.is_some());
            assert!(record.len() <= head.length);
        }
        at = place + 1;
    }
    let (before, record) = rest.split_at(rest.len().min(usize::from(count)));
    let mut file = before.to_vec();
    let split = chunk::split(3, EntryId(9), record, &sealer).expect("short enough");
    split.iter().for_each(|chunk| file.extend_from_slice(chunk));
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(place) = chunk::find(&file, at) {
        at = place + 1;
        if let Some((head, covered)) = chunk::parse(&file[place..]).filter(|(head, _)| (head.generation, head.entry) == (3, EntryId(9))) {
            assert!(chunk::open(&head, covered, &sealer, &mut found));
            at = place + covered.len();
        }
    }
    assert!(found.ends_with(record), "the record is found again behind {} other bytes", before.len());
}
