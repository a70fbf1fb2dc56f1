//! Encryption at rest, optional: ChaCha20-Poly1305, which is fast on gateways without AES instructions.
//!
//! The key file holds 32 bytes, or 64 hexadecimal digits. It is never used itself: HKDF-SHA256 derives from it, with a fresh random salt of 16
//! bytes for each generation and each state file, one key for chunks, one for the index and one for the state. A nonce is the entry's number (u64,
//! little-endian) and the chunk's index (u32), or zeros for a state file. Under one key each nonce is used at most once, because an entry number
//! is given once in a generation, a generation is written by one process only, and every other salt is another key; so a crash or a power cut
//! cannot cause a repetition, and nothing has to be remembered. What stands before the payload (a chunk's header, an index record's head) is
//! authenticated with it. File names, sizes, counts and times of writing stay visible; topic names and offsets do not.

use std::path::Path;

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, KeyType, Salt};
use ring::rand::{SecureRandom, SystemRandom};

/// Identifies a key without telling it: eight bytes derived from it. All zero: no encryption.
pub type KeyId = [u8; 8];

/// Not encrypted.
pub const NO_KEY: KeyId = [0; 8];

/// Random bytes in clear, from which the keys of one file are derived.
pub type FileSalt = [u8; 16];

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read.
    #[error("cannot read the key file")]
    Read(#[source] std::io::Error),
    /// The file holds something else.
    #[error("the key file holds {0} bytes; 32 bytes or 64 hexadecimal digits are expected")]
    Malformed(usize),
    /// The system gives no random numbers.
    #[error("the system gives no random numbers")]
    Random,
}

/// The operator's key.
#[derive(Clone)]
pub struct Key([u8; 32]);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(…)")
    }
}

impl Key {
    /// Reads a key file.
    ///
    /// # Errors
    /// When it cannot be read or holds no key.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        Self::parse(&std::fs::read(path).map_err(KeyError::Read)?)
    }

    /// Takes 32 bytes as they are, or 64 hexadecimal digits with white space around.
    ///
    /// # Errors
    /// For anything else.
    pub fn parse(bytes: &[u8]) -> Result<Self, KeyError> {
        if let Ok(key) = bytes.try_into() {
            return Ok(Self(key));
        }
        let digits = bytes.trim_ascii();
        let malformed = || KeyError::Malformed(bytes.len());
        if digits.len() != 64 {
            return Err(malformed());
        }
        let mut key = [0; 32];
        for (byte, pair) in key.iter_mut().zip(digits.chunks(2)) {
            let text = std::str::from_utf8(pair).ok().filter(|text| text.bytes().all(|digit| digit.is_ascii_hexdigit()));
            *byte = text.and_then(|text| u8::from_str_radix(text, 16).ok()).ok_or_else(malformed)?;
        }
        Ok(Self(key))
    }

    /// Identifies the key.
    pub fn id(&self) -> KeyId {
        let mut id = NO_KEY;
        self.derive(&[0; 16], b"spillway-spill key id", &mut id);
        id
    }

    fn derive(&self, salt: &FileSalt, purpose: &[u8], out: &mut [u8]) -> bool {
        let secret = Salt::new(HKDF_SHA256, salt).extract(&self.0);
        secret.expand(&[purpose], Length(out.len())).and_then(|okm| okm.fill(out)).is_ok()
    }
}

struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

/// Fresh random bytes for a file.
///
/// # Errors
/// When the system gives none.
pub fn fresh_salt() -> Result<FileSalt, KeyError> {
    let mut salt = [0; 16];
    SystemRandom::new().fill(&mut salt).map_err(|_| KeyError::Random)?;
    Ok(salt)
}

/// What is sealed; each has a nonce of its own under its key.
#[derive(Debug, Clone, Copy)]
pub enum Sealed {
    /// A chunk's payload.
    Chunk {
        /// The entry.
        entry: u64,
        /// Index of the chunk.
        index: u32,
    },
    /// An entry's identity in the index.
    Index {
        /// The entry.
        entry: u64,
    },
    /// The state file.
    State,
}

/// Seals and opens what belongs to one file; without a key it copies.
#[derive(Debug)]
pub struct Sealer(Option<Keys>);

struct Keys {
    salt: FileSalt,
    chunks: LessSafeKey,
    index: LessSafeKey,
    state: LessSafeKey,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys(…)")
    }
}

const TAG_BYTES: usize = 16;

impl Sealer {
    /// Keys for the file with this salt; `None` leaves everything in clear.
    pub fn new(key: Option<&Key>, salt: &FileSalt) -> Self {
        let make = |key: &Key, purpose: &[u8]| {
            let mut bytes = [0; 32];
            let derived = key.derive(salt, purpose, &mut bytes);
            UnboundKey::new(&CHACHA20_POLY1305, &bytes).ok().filter(|_| derived).map(LessSafeKey::new)
        };
        let keys = |key| {
            let chunks = make(key, b"spillway-spill chunks")?;
            Some(Keys { salt: *salt, chunks, index: make(key, b"spillway-spill index")?, state: make(key, b"spillway-spill state")? })
        };
        Self(key.and_then(keys))
    }

    /// True with a key.
    pub fn is_sealing(&self) -> bool {
        self.0.is_some()
    }

    /// What the keys are derived from; `None` without a key.
    pub fn salt(&self) -> Option<FileSalt> {
        self.0.as_ref().map(|keys| keys.salt)
    }

    /// Bytes that sealing adds.
    pub fn overhead_bytes(&self) -> usize {
        if self.is_sealing() { TAG_BYTES } else { 0 }
    }

    /// Appends the sealed payload to `out`, whose bytes so far are authenticated with it. `None` when the payload is far too long for the cipher.
    pub fn seal(&self, what: Sealed, payload: &[u8], out: &mut Vec<u8>) -> Option<()> {
        let Some(keys) = &self.0 else {
            out.extend_from_slice(payload);
            return Some(());
        };
        let (key, nonce) = keys.of(what);
        let from = out.len();
        out.extend_from_slice(payload);
        let (head, body) = out.split_at_mut(from);
        let tag = key.seal_in_place_separate_tag(nonce, Aad::from(head), body).ok()?;
        out.extend_from_slice(tag.as_ref());
        Some(())
    }

    /// Opens what stands in `bytes` from `from` on and appends it to `out`. False when it was changed or sealed with another key.
    pub fn open(&self, what: Sealed, bytes: &[u8], from: usize, out: &mut Vec<u8>) -> bool {
        let Some((head, sealed)) = bytes.split_at_checked(from) else {
            return false;
        };
        let Some(keys) = &self.0 else {
            out.extend_from_slice(sealed);
            return true;
        };
        let (key, nonce) = keys.of(what);
        let at = out.len();
        out.extend_from_slice(sealed);
        let length = out.get_mut(at..).and_then(|body| key.open_in_place(nonce, Aad::from(head), body).ok()).map(|plain| plain.len());
        out.truncate(at + length.unwrap_or(0));
        length.is_some()
    }
}

impl Keys {
    fn of(&self, what: Sealed) -> (&LessSafeKey, Nonce) {
        let (key, entry, index) = match what {
            Sealed::Chunk { entry, index } => (&self.chunks, entry, index),
            Sealed::Index { entry } => (&self.index, entry, 0),
            Sealed::State => (&self.state, 0, 0),
        };
        let mut nonce = [0; 12];
        for (place, byte) in nonce.iter_mut().zip(entry.to_le_bytes().into_iter().chain(index.to_le_bytes())) {
            *place = byte;
        }
        (key, Nonce::assume_unique_for_key(nonce))
    }
}
