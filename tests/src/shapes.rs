//! Records of every shape Kafka allows: what a test for "record for record" has to carry.

use rand::rngs::StdRng;
use rand::{Rng as _, RngCore as _, SeedableRng as _};

use crate::client::{Headers, NewRecord};
use crate::telemetry::now_ms;

/// Size of the largest value made: a record just above Kafka's default limit, so topics for it need a larger one.
pub const LARGE_BYTES: usize = 1024 * 1024;

/// Headers of the records that have many.
const MANY_HEADERS: usize = 100;

/// How often, in records, a special shape comes: large values are rare, or there would be nothing else on the wire.
const MANY_HEADERS_EVERY: u64 = 500;

/// The year 2001, long before any retention.
const OLD_MS: i64 = 1_000_000_000_000;

/// A source of records of all shapes; the same seed gives the same shapes.
#[derive(Debug)]
pub struct Shapes {
    rng: StdRng,
    sequence: u64,
    large_every: u64,
}

impl Shapes {
    /// Every `large_every`-th record has a value of [`LARGE_BYTES`].
    #[must_use]
    pub fn new(seed: u64, large_every: u64) -> Self {
        Self { rng: StdRng::seed_from_u64(seed), sequence: 0, large_every: large_every.max(1) }
    }

    /// The next record. Values carry a running number where they have room for one, so that records differ.
    pub fn next_record(&mut self) -> NewRecord {
        self.sequence += 1;
        NewRecord { key: self.key(), value: self.value(), headers: self.headers(), timestamp_ms: self.timestamp() }
    }

    fn key(&mut self) -> Option<Vec<u8>> {
        match self.rng.random_range(0..10) {
            0 => None,
            1 => Some(Vec::new()),
            2 => Some(self.bytes(24)),
            _ => Some(format!("device-{}", self.rng.random_range(0..500)).into_bytes()),
        }
    }

    fn value(&mut self) -> Option<Vec<u8>> {
        if self.sequence.is_multiple_of(self.large_every) {
            return Some(self.bytes(LARGE_BYTES));
        }
        match self.rng.random_range(0..20) {
            0 => None,
            1 => Some(Vec::new()),
            2 => {
                let len = self.rng.random_range(1..2000);
                Some(self.bytes(len))
            }
            _ => Some(
                format!("{{\"seq\":{},\"value\":{},\"quality\":\"good\"}}", self.sequence, self.rng.random_range(0..100_000)).into_bytes(),
            ),
        }
    }

    fn headers(&mut self) -> Headers {
        if self.sequence.is_multiple_of(MANY_HEADERS_EVERY) {
            return (0..MANY_HEADERS).map(|n| (format!("h{}", n % 7), (n % 5 > 0).then(|| vec![0xff; n]))).collect();
        }
        match self.rng.random_range(0..8) {
            // The same name twice, no value, an empty value, bytes that are no text, an empty name.
            0 => vec![("a".to_owned(), Some(b"1".to_vec())), ("a".to_owned(), None), ("a".to_owned(), Some(Vec::new()))],
            1 => vec![("binary".to_owned(), Some(self.bytes(16))), (String::new(), Some(b"no name".to_vec()))],
            _ => Headers::new(),
        }
    }

    fn timestamp(&mut self) -> Option<i64> {
        match self.rng.random_range(0..10) {
            0 => Some(OLD_MS + self.rng.random_range(0..1_000_000_000)),
            1 => Some(0),
            _ => Some(now_ms()),
        }
    }

    /// Random bytes do not compress: they are the hard case for every size limit.
    fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.rng.fill_bytes(&mut bytes);
        bytes
    }
}

/// A new seed, short enough to be typed.
#[must_use]
pub fn fresh_seed() -> u64 {
    rand::rng().random_range(0..1_000_000_000)
}

/// A seed for a random test: `SPILLWAY_TEST_SEED` if it is set, otherwise a new one. It is printed, so that a failing run can be
/// had again.
#[must_use]
pub fn seed(test: &str) -> u64 {
    let given = std::env::var("SPILLWAY_TEST_SEED").ok().and_then(|text| text.parse().ok());
    let seed = given.unwrap_or_else(fresh_seed);
    println!("{test}: SPILLWAY_TEST_SEED={seed}");
    seed
}
