//! The power is cut at every write, sync, rename and delete: what was confirmed is there afterwards, and nothing stops the start.

use std::collections::BTreeMap;
use std::path::Path;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use spillway_proto::TopicId;
use spillway_spill::store::{Appended, Release, Report};
use spillway_spill::{Entry, EntryId, Line, RotatingStore, SpillStore as _};

use crate::calls::{self, Call};
use crate::disk::{Disk, Forget, Luck};
use crate::support::{Load, copy, next, partition, read_all, seed, setting, small};

/// What may be expected at a mark.
#[derive(Debug, Clone, Default)]
struct Expected {
    durable: EntryId,
    /// What was released or is being released.
    released: BTreeMap<u32, u64>,
}

struct Run {
    calls: Vec<Call>,
    root: u64,
    appended: BTreeMap<EntryId, Entry>,
    expected: Vec<Expected>,
}

impl Run {
    fn is_released(&self, entry: &Entry, expected: &Expected) -> bool {
        let _ = self;
        entry.sections.iter().all(|section| {
            let released = expected.released.get(&section.partition.partition.index()).copied().unwrap_or(0);
            section.kind.next().value() <= released
        })
    }
}

/// Fills, syncs, reads, releases, closes and starts again, and records it.
fn run(seed: u64, steps: usize, root: &Path) -> Run {
    let mut load = Load::new(seed, 40_000);
    let mut random = StdRng::seed_from_u64(seed ^ 1);
    let (mut appended, mut expected, mut now) = (BTreeMap::new(), Vec::new(), Expected::default());
    let mut positions: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    calls::begin(root, None);
    let mut store = RotatingStore::open(root, small()).unwrap();
    let mut confirm = |now: &Expected| {
        expected.push(now.clone());
        calls::mark(expected.len() - 1);
    };
    for _ in 0..steps {
        match random.random_range(0..20) {
            0..=9 => {
                let entry = load.entry();
                let Appended::Stored(id) = store.append(&entry, 0).unwrap() else { panic!("it is not full") };
                for section in &entry.sections {
                    positions.entry(section.partition.partition.index()).or_default().push(section.kind.next().value());
                }
                appended.insert(id, entry);
            }
            10..=14 => _ = store.sync().unwrap(),
            15..=17 => {
                let index = random.random_range(0..3);
                let ends = positions.entry(index).or_default();
                let synced = ends.len().saturating_sub(10);
                if synced > 0 {
                    let end = ends[random.random_range(0..synced)].max(now.released.get(&index).copied().unwrap_or(0));
                    now.released.insert(index, end);
                    // Deleting may begin at once.
                    confirm(&now);
                    store
                        .release(&[Release { partition: partition(index), topic_id: TopicId([7; 16]), line: Line(0), next: next(end) }])
                        .unwrap();
                }
            }
            18 => drop(read_all(&mut store)),
            _ => {
                if random.random() {
                    store.close().unwrap();
                } else {
                    drop(store);
                }
                store = RotatingStore::open(root, small()).unwrap();
            }
        }
        if store.durable() > now.durable {
            now.durable = store.durable();
            confirm(&now);
        }
    }
    drop(store);
    Run { calls: calls::end().calls, root: calls::object_at(root).unwrap(), appended, expected }
}

#[derive(Debug, Default)]
struct Outcome {
    cuts: u64,
    /// What was wrong, the first few.
    faults: Vec<String>,
    lost: u64,
}

/// Cuts the power after every `every`-th call.
fn cut(run: &Run, seed: u64, every: usize, lucks: &[Luck], forget: Option<Forget>, most: u64) -> Outcome {
    let mut disk = Disk::new(run.root);
    disk.forget = forget;
    let mut random = StdRng::seed_from_u64(seed ^ 2);
    let (mut outcome, mut expected) = (Outcome::default(), Expected::default());
    let space = tempfile::tempdir_in(if Path::new("/dev/shm").is_dir() { "/dev/shm" } else { "/tmp" }).unwrap();
    for (place, call) in run.calls.iter().enumerate() {
        disk.apply(call);
        if let Call::Mark(at) = call {
            expected = run.expected[*at].clone();
        }
        if place % every != 0 || outcome.cuts >= most {
            continue;
        }
        for luck in lucks {
            let root = space.path().join("spill");
            disk.cut(&root, *luck, &mut random);
            outcome.cuts += 1;
            if let Err(fault) = check(run, &expected, &root) {
                outcome.lost += 1;
                if outcome.faults.len() < 3 {
                    outcome.faults.push(format!("after call {place} of {}, {luck:?}: {fault}", run.calls.len()));
                }
            }
            std::fs::remove_dir_all(&root).unwrap();
        }
    }
    outcome
}

fn check(run: &Run, expected: &Expected, root: &Path) -> Result<(), String> {
    let mut store = RotatingStore::open(root, small()).map_err(|error| format!("no start: {error}"))?;
    let mut found = BTreeMap::new();
    for entry in read_all(&mut store) {
        let same = run
            .appended
            .get(&entry.id)
            .is_some_and(|appended| appended.frame == entry.frame && appended.sections == entry.identity.sections);
        if !same {
            return Err(format!("entry {} is not what was appended", entry.id));
        }
        found.insert(entry.id, entry);
    }
    let missing =
        run.appended.range(..=expected.durable).filter(|(id, entry)| !found.contains_key(id) && !run.is_released(entry, expected));
    let missing = missing.map(|(id, _)| id.0).collect::<Vec<_>>();
    if !missing.is_empty() {
        return Err(format!("entries {missing:?} are gone, durable up to {}", expected.durable));
    }
    let lost = store.take_reports().0.into_iter().filter(|report| matches!(report, Report::Lost { .. })).collect::<Vec<_>>();
    if lost.is_empty() { Ok(()) } else { Err(format!("a false alarm: {lost:?}")) }
}

#[test]
fn nothing_durable_is_lost_by_a_power_cut() {
    let (_alone, seed) = (calls::alone(), seed("power cuts"));
    let steps = usize::try_from(setting("SPILL_CUT_STEPS", 150)).unwrap();
    let mut cuts = 0;
    for round in 0..setting("SPILL_CUT_ROUNDS", 1) {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("spill");
        std::fs::create_dir(&root).unwrap();
        let run = run(seed + round, steps, &root);
        assert_complete(&run, &root);
        let every = usize::try_from(setting("SPILL_CUT_EVERY", 5)).unwrap();
        let outcome = cut(&run, seed + round, every, &[Luck::None, Luck::All, Luck::Some, Luck::Some], None, u64::MAX);
        assert!(outcome.faults.is_empty(), "{} of {} cuts: {:#?}", outcome.lost, outcome.cuts, outcome.faults);
        cuts += outcome.cuts;
        println!("round {round}: {} calls, {} entries, {} cuts", run.calls.len(), run.appended.len(), outcome.cuts);
    }
    println!("{cuts} power cuts, nothing lost, every start succeeded");
    assert!(cuts > 100);
    // That the test sees what it should: without one kind of sync it finds losses.
    for forget in [Forget::Database, Forget::Directories] {
        let directory = tempfile::tempdir().unwrap();
        let run = run(seed, 60, directory.path());
        let outcome = cut(&run, seed, 2, &[Luck::None, Luck::Some], Some(forget), u64::MAX);
        assert!(outcome.lost > 0, "without syncs of {forget:?} nothing was lost in {} cuts", outcome.cuts);
        println!("without syncs of {forget:?}: {} of {} cuts lose data, as they must", outcome.lost, outcome.cuts);
    }
}

/// What was recorded is all that happened: played back whole, it is what is on disk.
fn assert_complete(run: &Run, root: &Path) {
    let directory = tempfile::tempdir().unwrap();
    let mut disk = Disk::new(run.root);
    run.calls.iter().for_each(|call| disk.apply(call));
    let played = directory.path().join("played");
    disk.cut(&played, Luck::All, &mut StdRng::seed_from_u64(0));
    let real = directory.path().join("real");
    copy(root, &real);
    let (played, real) = (listing(&played), listing(&real));
    assert_eq!(played.keys().collect::<Vec<_>>(), real.keys().collect::<Vec<_>>());
    for (path, bytes) in &real {
        assert!(played.get(path) == Some(bytes), "{path} differs");
    }
}

fn listing(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let (mut found, mut directories) = (BTreeMap::new(), vec![root.to_owned()]);
    while let Some(directory) = directories.pop() {
        for path in std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                directories.push(path);
            } else {
                found.insert(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned(), std::fs::read(&path).unwrap());
            }
        }
    }
    found
}
