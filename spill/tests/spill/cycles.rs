//! Filled and drained again and again: the disk is given back each time, and a backlog of gigabytes is opened at once.

use std::path::Path;
use std::time::Instant;

use spillway_proto::TopicId;
use spillway_spill::store::{Appended, Release};
use spillway_spill::{EntryId, Line, Options, RotatingStore, SpillStore as _};

use crate::support::{data, entry, next, partition, setting};

const MIB: u64 = 1 << 20;
const FRAME_BYTES: u64 = 64 * 1024;

/// What may be left after a drain: `lock`, `format`, `state` and the slack.
const LEFT_BYTES: u64 = MIB / 2;

fn options(mib: u64) -> Options {
    let mut options = Options::new(4 * mib.max(64) * MIB);
    options.limits.min_free_disk = 0;
    options
}

fn release(end: u64) -> [Release; 1] {
    [Release { partition: partition(0), topic_id: TopicId([7; 16]), line: Line(0), next: next(end) }]
}

/// Appends so many frames from the n-th on, a sync for each eight.
fn fill(store: &mut RotatingStore, from: u64, count: u64) {
    for n in from..from + count {
        let frame = (0..FRAME_BYTES).map(|at| (at.wrapping_mul(n | 1) >> 5) as u8).collect();
        assert!(matches!(store.append(&entry(vec![data(0, n, n + 1)], frame), 0).unwrap(), Appended::Stored(_)));
        if n % 8 == 7 {
            store.sync().unwrap();
        }
    }
    store.sync().unwrap();
}

/// Reads everything, and releases it on the way. Answers how many entries there were.
fn drain(store: &mut RotatingStore, end: u64) -> u64 {
    let (mut after, mut count) = (EntryId::ZERO, 0);
    while let Some(found) = store.read(after).unwrap() {
        (after, count) = (found.id, count + 1);
        if count % 16 == 0 {
            let spillway_proto::frame::SectionKind::Data { next, .. } = found.identity.sections[0].kind else { panic!("data") };
            store.release(&release(next.value())).unwrap();
        }
    }
    store.release(&release(end)).unwrap();
    count
}

/// Bytes that the files below a directory take on the disk.
fn disk_bytes(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let entries = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| if path.is_dir() { disk_bytes(&path) } else { path.metadata().unwrap().blocks() * 512 }).sum()
}

#[test]
fn each_drain_gives_the_disk_back() {
    let (cycles, mib) = (setting("SPILL_CYCLES", 4), setting("SPILL_CYCLE_MIB", 20));
    let directory = tempfile::tempdir().unwrap();
    let mut store = RotatingStore::open(directory.path(), options(mib)).unwrap();
    let (count, mut most, mut left) = (mib * MIB / FRAME_BYTES, 0, 0);
    for cycle in 0..cycles {
        fill(&mut store, cycle * count, count);
        most = most.max(disk_bytes(directory.path()));
        assert_eq!(drain(&mut store, (cycle + 1) * count), count, "cycle {cycle}");
        let now = disk_bytes(directory.path());
        assert!(now <= LEFT_BYTES, "cycle {cycle}: {now} bytes are left");
        assert!(store.usage().disk_bytes <= LEFT_BYTES, "{:?}", store.usage());
        left = left.max(now);
    }
    let payload = (cycles * mib * MIB) as f64;
    println!(
        "{cycles} cycles of {mib} MiB: at most {} MiB on disk, {} KiB after a drain, {:.2}x written by the store's count",
        most / MIB,
        left / 1024,
        store.usage().written_bytes as f64 / payload
    );
    assert!(most >= mib * MIB, "it was full: {most}");
}

/// `SPILL_BACKLOG_MIB=4096 cargo test -p spillway-spill --test spill backlog -- --nocapture`
#[test]
fn a_backlog_is_opened_at_once_whatever_its_size() {
    let mib = setting("SPILL_BACKLOG_MIB", 48);
    let directory = tempfile::tempdir_in(std::env::var_os("SPILL_DIRECTORY").unwrap_or_else(|| std::env::temp_dir().into())).unwrap();
    let mut store = RotatingStore::open(directory.path(), options(mib)).unwrap();
    let count = mib * MIB / FRAME_BYTES;
    fill(&mut store, 0, count);
    // Not closed: as a crash leaves it.
    drop(store);
    let (begun, before) = (Instant::now(), bytes_read());
    let mut store = RotatingStore::open(directory.path(), options(mib)).unwrap();
    let (opened, read) = (begun.elapsed(), bytes_read() - before);
    assert_eq!(store.usage().entries, count);
    assert_eq!(drain(&mut store, count), count);
    println!("a backlog of {mib} MiB was opened in {opened:?}, {} KiB were read; nothing was lost", read / 1024);
    // Only the generation that the crash left open is looked through, and the indexes.
    assert!(read < 10 * MIB + mib * MIB / 100, "{read} bytes were read");
}

/// Bytes that this thread has read.
fn bytes_read() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/io").unwrap();
    text.lines().find_map(|line| line.strip_prefix("rchar: ")?.parse().ok()).unwrap()
}
