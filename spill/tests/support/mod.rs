//! Frames to store, and what is expected to come back.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng as _, RngCore as _, SeedableRng as _};
use spillway_proto::frame::SectionKind;
use spillway_proto::{NextOffset, Partition, TopicId, TopicName, TopicPartition};
use spillway_spill::{Class, Entry, EntryId, Line, Options, RotatingStore, SpillStore as _, StoredEntry, StoredSection};

/// Generations so small that a test goes through many.
pub(crate) const SMALL_GENERATION: u64 = 128 * 1024;

/// A store that is never full, in small generations.
pub(crate) fn small() -> Options {
    let mut options = Options { generation_bytes: Some(SMALL_GENERATION), ..Options::new(1 << 30) };
    options.limits.min_free_disk = 0;
    options
}

pub(crate) fn next(value: u64) -> NextOffset {
    NextOffset::new(value).unwrap()
}

pub(crate) fn partition(index: u32) -> TopicPartition {
    TopicPartition { topic: TopicName::parse("telemetry").unwrap(), partition: Partition::new(index).unwrap() }
}

pub(crate) fn data(index: u32, first: u64, end: u64) -> StoredSection {
    let kind = SectionKind::Data { first: next(first), next: next(end), records: (end - first) as u32, raw_length: 10 };
    section(index, kind)
}

pub(crate) fn section(index: u32, kind: SectionKind) -> StoredSection {
    StoredSection { partition: partition(index), topic_id: TopicId([7; 16]), partition_count: 4, line: Line(0), kind }
}

pub(crate) fn entry(sections: Vec<StoredSection>, frame: Vec<u8>) -> Entry {
    Entry { class: Class::DEFAULT, created_ms: 1_000, sections, frame: Bytes::from(frame) }
}

/// Makes frames of random sizes whose sections join.
pub(crate) struct Load {
    pub(crate) random: StdRng,
    positions: BTreeMap<u32, u64>,
    pub(crate) largest: usize,
}

impl Load {
    pub(crate) fn new(seed: u64, largest: usize) -> Self {
        Self { random: StdRng::seed_from_u64(seed), positions: BTreeMap::new(), largest }
    }

    pub(crate) fn entry(&mut self) -> Entry {
        let mut sections = Vec::new();
        for index in 0..3 {
            if index == 0 || self.random.random_ratio(1, 2) {
                let position = self.positions.entry(index).or_insert(100);
                let first = *position;
                *position += self.random.random_range(1..20);
                sections.push(data(index, first, *position));
            }
        }
        let size = if self.random.random_ratio(1, 10) { self.largest } else { self.largest / 8 };
        let mut frame = vec![0; self.random.random_range(1..=size)];
        self.random.fill_bytes(&mut frame);
        entry(sections, frame)
    }
}

/// Everything that can be read.
pub(crate) fn read_all(store: &mut RotatingStore) -> Vec<StoredEntry> {
    let (mut all, mut after) = (Vec::new(), EntryId::ZERO);
    while let Some(entry) = store.read(after).unwrap() {
        assert!(entry.id > after, "entries come in order");
        after = entry.id;
        all.push(entry);
    }
    all
}

/// Copies a directory.
pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let (path, name) = entry.map(|entry| (entry.path(), entry.file_name())).unwrap();
        if path.is_dir() {
            copy(&path, &to.join(name));
        } else {
            std::fs::copy(&path, to.join(name)).unwrap();
        }
    }
}

/// A figure from the environment, for long runs; else the default.
pub(crate) fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// The seed of a random test, printed so that a failure can be replayed.
pub(crate) fn seed(name: &str) -> u64 {
    let seed = std::env::var("SPILL_SEED").map_or_else(|_| rand::random(), |text| text.parse().unwrap());
    println!("{name}: SPILL_SEED={seed} replays this run");
    seed
}
