//! Appends to the spill and to a bare fsynced log in turns, in the same directory; and opens and drains a backlog. One line each, of `name=value`.
//!
//! `spill-bench append|backlog DIRECTORY MIB [GENERATION_KIB]`, or `spill-bench memory DIRECTORY MIB [GENERATION_KIB [CLASSES [KIB]]]` for the memory
//! that a spill of so many classes takes: it is filled with frames of KIB, and then filled and drained at the same time. `./lab bench spill` runs
//! the first.
#![expect(clippy::unwrap_used, reason = "a tool for the workbench")]

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use spillway_proto::frame::SectionKind;
use spillway_proto::{NextOffset, Partition, TopicId, TopicName, TopicPartition};
use spillway_spill::store::{Appended, Release};
use spillway_spill::{Class, Entry, EntryId, Line, Options, RotatingStore, SpillStore as _, StoredSection};

const MIB: u64 = 1 << 20;

/// The yardstick: a segmented log with a checksum for each frame, and fdatasync. Nothing durable can do less.
struct BareLog {
    directory: PathBuf,
    file: File,
    bytes: u64,
    segment: u64,
}

impl BareLog {
    fn open(directory: &Path) -> Self {
        std::fs::create_dir_all(directory).unwrap();
        Self { directory: directory.to_owned(), file: Self::segment(directory, 0), bytes: 0, segment: 0 }
    }

    fn segment(directory: &Path, number: u64) -> File {
        let file = OpenOptions::new().append(true).create(true).open(directory.join(format!("{number:08}.log"))).unwrap();
        file.sync_all().unwrap();
        File::open(directory).unwrap().sync_all().unwrap();
        file
    }

    fn append(&mut self, frame: &[u8]) {
        if self.bytes >= 8 * MIB {
            self.segment += 1;
            (self.file, self.bytes) = (Self::segment(&self.directory, self.segment), 0);
        }
        let mut record = Vec::with_capacity(frame.len() + 8);
        record.extend_from_slice(&(frame.len() as u32).to_le_bytes());
        record.extend_from_slice(&crc32c::crc32c(frame).to_le_bytes());
        record.extend_from_slice(frame);
        self.file.write_all(&record).unwrap();
        self.bytes += record.len() as u64;
    }

    fn sync(&mut self) {
        self.file.sync_data().unwrap();
    }
}

fn entry_of(class: u8, n: u64, frame: Bytes) -> Entry {
    Entry { class: Class::new(class).unwrap(), ..entry(n, frame) }
}

fn entry(n: u64, frame: Bytes) -> Entry {
    let offset = |value| NextOffset::new(value).unwrap();
    let kind = SectionKind::Data { first: offset(n), next: offset(n + 1), records: 1, raw_length: frame.len() };
    let partition = TopicPartition { topic: TopicName::parse("telemetry").unwrap(), partition: Partition::FIRST };
    let section = StoredSection { partition, topic_id: TopicId([1; 16]), partition_count: 1, line: Line(0), kind };
    Entry { class: Class::DEFAULT, created_ms: 0, sections: vec![section], frame }
}

fn release(next: u64) -> Release {
    let partition = TopicPartition { topic: TopicName::parse("telemetry").unwrap(), partition: Partition::FIRST };
    Release { partition, topic_id: TopicId([1; 16]), line: Line(0), next: NextOffset::new(next).unwrap() }
}

/// Bytes that this process has caused to be written to the disk.
fn disk_writes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    text.lines().find_map(|line| line.strip_prefix("write_bytes: ")?.parse().ok()).unwrap_or(0)
}

/// Resident memory in MiB.
fn resident(field: &str) -> u64 {
    resident_kib(field) / 1024
}

fn resident_kib(field: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(field)).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse().unwrap_or(0)
}

fn options(max_bytes: u64, generation_kib: u64) -> Options {
    Options { generation_max_bytes: generation_kib * 1024, ..Options::new(max_bytes) }
}

fn main() {
    let arguments = std::env::args().skip(1).collect::<Vec<_>>();
    let [what, root, mib, rest @ ..] = &arguments[..] else { panic!("spill-bench append|backlog|memory DIRECTORY MIB [GENERATION_KIB]") };
    let (root, total) = (Path::new(root).join("spill-bench.tmp"), mib.parse::<u64>().unwrap() * MIB);
    let number = |index: usize, default: u64| rest.get(index).map_or(default, |text| text.parse().unwrap());
    let generation = number(0, 8192);
    match what.as_str() {
        "append" => {
            for (kib, every) in [(64, 8), (64, 1), (256, 1), (16, 4), (4, 16)] {
                compare(&root, kib * 1024, every, total, generation);
            }
        }
        "backlog" => backlog(&root, total),
        "memory" => memory(&root, total, u8::try_from(number(1, 1)).unwrap(), number(2, 256), generation),
        other => panic!("append, backlog or memory, not {other}"),
    }
    drop(std::fs::remove_dir_all(&root));
}

/// Appends in turns of 16 MiB, so that both meet the same disk.
fn compare(root: &Path, size: u64, every: u64, total: u64, generation: u64) {
    drop(std::fs::remove_dir_all(root));
    let frame = Bytes::from((0..size).map(|n| (n.wrapping_mul(2_654_435_761) >> 7) as u8).collect::<Vec<_>>());
    let mut log = BareLog::open(&root.join("log"));
    let mut store = RotatingStore::open(&root.join("spill"), options(4 * total, generation)).unwrap();
    let (mut log_time, mut spill_time, mut n, mut spill_bytes) = (Duration::ZERO, Duration::ZERO, 0, 0);
    let turn = (16 * MIB / size).min(total / size);
    while n < total / size {
        let begun = Instant::now();
        for count in 1..=turn {
            log.append(&frame);
            if count % every == 0 {
                log.sync();
            }
        }
        log_time += begun.elapsed();
        let (begun, before) = (Instant::now(), disk_writes());
        for count in 1..=turn {
            assert!(matches!(store.append(&entry(n + count, frame.clone()), 0).unwrap(), Appended::Stored(_)));
            if count % every == 0 {
                store.sync().unwrap();
            }
        }
        spill_time += begun.elapsed();
        spill_bytes += disk_writes() - before;
        n += turn;
    }
    let payload = (n * size) as f64;
    let rate = |time: Duration| payload / time.as_secs_f64() / MIB as f64;
    println!(
        "frame_kib={} sync_every={every} bare_mib_s={:.1} spill_mib_s={:.1} written={:.3} store_written={:.3} rss_mib={}",
        size / 1024,
        rate(log_time),
        rate(spill_time),
        spill_bytes as f64 / payload,
        store.usage().written_bytes as f64 / payload,
        resident("VmRSS:")
    );
}

/// What the store takes of memory, beyond what the process had before.
fn memory(root: &Path, total: u64, classes: u8, kib: u64, generation: u64) {
    drop(std::fs::remove_dir_all(root));
    let count = total / (kib * 1024);
    let before = resident_kib("VmRSS:");
    let mut store = RotatingStore::open(root, options(16 * total, generation)).unwrap();
    let append = |store: &mut RotatingStore, n: u64| {
        let frame = Bytes::from((0..kib * 1024).map(|at| (at.wrapping_mul(n | 1) >> 3) as u8).collect::<Vec<_>>());
        store.append(&entry_of((n % u64::from(classes)) as u8, n, frame), 0).unwrap();
        store.sync().unwrap();
    };
    (0..count).for_each(|n| append(&mut store, n));
    let filled = resident_kib("VmHWM:");
    let mut after = EntryId::ZERO;
    for n in 0..count {
        append(&mut store, count + n);
        after = store.read(after).unwrap().unwrap().id;
    }
    let more = |kib: u64| (kib - before) as f64 / 1024.0;
    println!(
        "{classes} classes, frames of {kib} KiB, generations of {generation} KiB: filling {:.1} MiB, filling and draining {:.1} MiB at the most, {:.1} MiB at the end, over {:.1} MiB before",
        more(filled),
        more(resident_kib("VmHWM:")),
        more(resident_kib("VmRSS:")),
        before as f64 / 1024.0
    );
}

/// A backlog is opened and drained.
fn backlog(root: &Path, total: u64) {
    drop(std::fs::remove_dir_all(root));
    let frame = Bytes::from(vec![5; 64 * 1024]);
    let mut store = RotatingStore::open(root, Options::new(2 * total)).unwrap();
    let count = total / frame.len() as u64;
    for n in 0..count {
        store.append(&entry(n, frame.clone()), 0).unwrap();
        if n % 64 == 63 {
            store.sync().unwrap();
        }
    }
    store.close().unwrap();
    let begun = Instant::now();
    let mut store = RotatingStore::open(root, Options::new(2 * total)).unwrap();
    print!("backlog_mib={} opened_ms={} rss_mib={}", total / MIB, begun.elapsed().as_millis(), resident("VmRSS:"));
    let (begun, mut after, mut read) = (Instant::now(), EntryId::ZERO, 0u64);
    while let Some(found) = store.read(after).unwrap() {
        (after, read) = (found.id, read + 1);
        if read % 64 == 0 {
            store.release(&[release(read)]).unwrap();
        }
    }
    store.release(&[release(count)]).unwrap();
    let rate = total as f64 / begun.elapsed().as_secs_f64() / MIB as f64;
    println!(" drained_mib_s={rate:.0} left_kib={} peak_rss_mib={}", store.usage().disk_bytes / 1024, resident("VmHWM:"));
    assert_eq!(read, count);
}
