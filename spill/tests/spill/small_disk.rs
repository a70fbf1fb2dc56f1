//! A real file system of 64 MiB, filled to the brim again and again, by the spill and by others.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use spillway_proto::TopicId;
use spillway_spill::store::{Appended, Release, Report};
use spillway_spill::{EntryId, Line, Options, RotatingStore, SpillStore as _};

use crate::support::{data, entry, next, partition, seed, setting};

const MIB: u64 = 1 << 20;

/// A mounted file system, which goes with the test.
struct Mount<'p>(&'p Path);

impl Mount<'_> {
    /// ext4 in a file, or in memory where loop devices cannot be had. `None` without the right to mount.
    fn new<'p>(space: &Path, at: &'p Path) -> Option<(Mount<'p>, &'static str)> {
        let run =
            |program: &str, arguments: &[&str]| Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success());
        let (image, at_text) = (space.join("image"), at.to_str()?);
        std::fs::File::create(&image).and_then(|file| file.set_len(64 * MIB)).ok()?;
        if run("mkfs.ext4", &["-q", "-m", "0", image.to_str()?]) && run("mount", &["-o", "loop", image.to_str()?, at_text]) {
            return Some((Mount(at), "ext4"));
        }
        run("mount", &["-t", "tmpfs", "-o", "size=64m", "tmpfs", at_text]).then_some((Mount(at), "tmpfs"))
    }
}

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        let done = Command::new("umount").arg(self.0).status();
        assert!(done.is_ok_and(|status| status.success()) || std::thread::panicking(), "it could be unmounted");
    }
}

/// Takes what is left of the disk, but for so many bytes.
fn ballast(root: &Path, leave: u64) {
    use std::io::Write as _;
    let mut file = std::fs::OpenOptions::new().append(true).create(true).open(root.join("ballast")).unwrap();
    let free = rustix::fs::statvfs(root).map(|stat| stat.f_bavail * stat.f_frsize).unwrap();
    drop(file.write_all(&vec![1; usize::try_from(free.saturating_sub(leave)).unwrap()]));
    drop(file.sync_all());
}

#[derive(Debug, Default)]
struct Seen {
    stored: u64,
    refused: u64,
    full: u64,
    brims: u64,
}

/// `cargo test -p spillway-spill --test spill small_disk -- --ignored --nocapture`, as root.
#[test]
#[ignore = "needs the right to mount a file system"]
fn a_small_disk_filled_to_the_brim_loses_nothing_and_goes_on() {
    let seed = seed("small disk");
    let space = tempfile::tempdir().unwrap();
    let at = space.path().join("disk");
    std::fs::create_dir(&at).unwrap();
    let (_mount, kind) = Mount::new(space.path(), &at).unwrap();
    let mut random = StdRng::seed_from_u64(seed);
    let mut options = Options::new(1 << 30);
    options.limits.min_free_disk = 0;
    let mut store = RotatingStore::open(&at.join("spill"), options.clone()).unwrap();
    let (mut number, mut durable, mut seen) = (0u64, BTreeMap::new(), Seen::default());
    for round in 0..setting("SPILL_SMALL_DISK_ROUNDS", 60) {
        // Others fill the disk, or give it back.
        if random.random_ratio(1, 2) {
            ballast(&at, random.random_range(0..12) * MIB);
        } else {
            drop(std::fs::remove_file(at.join("ballast")));
        }
        fill(&mut store, &at, &mut random, &mut number, &mut durable, &mut seen);
        seen.brims += u64::from(rustix::fs::statvfs(&at).unwrap().f_bavail * 4096 < MIB);
        let found = read(&mut store, &durable);
        assert_eq!(found, durable.len(), "round {round}");
        // The link is back for a while: from the beginning on, some is acknowledged.
        let share = random.random_range(0..=durable.len());
        if let Some((id, end)) = durable.iter().nth(share.saturating_sub(1)).map(|(id, n)| (*id, n + 1)) {
            let release = Release { partition: partition(0), topic_id: TopicId([7; 16]), line: Line(0), next: next(end) };
            store.release(&[release]).unwrap_or_else(|error| panic!("round {round}: a full disk can still be emptied: {error:?}"));
            durable.retain(|kept, _| *kept > id);
        }
        let lost = store
            .take_reports()
            .0
            .into_iter()
            .filter(|report| matches!(report, Report::Lost { .. } | Report::Damaged { .. }))
            .collect::<Vec<_>>();
        assert!(lost.is_empty(), "round {round}: {lost:?}");
        if random.random_ratio(1, 10) {
            drop(store);
            options.generation_bytes = random.random::<bool>().then_some(512 * 1024);
            store = RotatingStore::open(&at.join("spill"), options.clone()).unwrap();
        }
    }
    println!("{kind} of 64 MiB: {seen:?}: nothing was lost");
    assert!(seen.stored > 1000 && seen.refused > 5 && seen.full > 5 && seen.brims > 5, "{seen:?}");
}

/// Appends until the disk is full, as the agent does: what was not confirmed is appended again later.
fn fill(
    store: &mut RotatingStore,
    at: &Path,
    random: &mut StdRng,
    number: &mut u64,
    durable: &mut BTreeMap<EntryId, u64>,
    seen: &mut Seen,
) {
    for _ in 0..random.random_range(1..2000) {
        if random.random_ratio(1, 30) {
            // In the middle of a generation.
            ballast(at, random.random_range(0..64) * 1024);
        }
        let (mut waiting, mut failed) = (Vec::new(), false);
        for n in *number..*number + random.random_range(1..8) {
            let size = random.random_range(1..120_000);
            match store.append(&entry(vec![data(0, n, n + 1)], vec![n as u8; size]), 0) {
                Ok(Appended::Stored(id)) => waiting.push((id, n)),
                Ok(_) => {
                    seen.full += 1;
                    failed = true;
                    break;
                }
                Err(error) => {
                    assert!(error.is_disk_full(), "{error:?}");
                    seen.refused += 1;
                    failed = true;
                    break;
                }
            }
        }
        if let Err(error) = store.sync() {
            assert!(error.is_disk_full(), "{error:?}");
            seen.refused += 1;
            failed = true;
        }
        for (id, n) in waiting.into_iter().filter(|(id, _)| *id <= store.durable()) {
            durable.insert(id, n);
            (*number, seen.stored) = (n + 1, seen.stored + 1);
        }
        if failed {
            return;
        }
    }
}

/// Reads everything. Answers how much of what is confirmed was there, as it was.
fn read(store: &mut RotatingStore, durable: &BTreeMap<EntryId, u64>) -> usize {
    let (mut after, mut found) = (EntryId::ZERO, 0);
    while let Some(entry) = store.read(after).unwrap() {
        after = entry.id;
        if let Some(n) = durable.get(&entry.id) {
            assert!(entry.frame.iter().all(|byte| *byte == *n as u8));
            found += 1;
        }
    }
    found
}
