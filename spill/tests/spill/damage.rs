//! Any byte flipped, any file cut, emptied or gone: the store starts, gives back all that is whole, and says exactly what is not.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use spillway_proto::TopicId;
use spillway_proto::frame::SectionKind;
use spillway_proto::message::ResumePoint;
use spillway_spill::plan::{Leg, Opening, plan};
use spillway_spill::store::{Appended, Release, Report};
use spillway_spill::{Entry, EntryId, Line, RotatingStore, SpillStore as _, tools};

use crate::support::{Load, copy, next, partition, read_all, seed, setting, small};

const TOPIC: TopicId = TopicId([7; 16]);

/// Makes a spill with closed generations, one that is being read, and one that a crash left open.
fn make(root: &Path, seed: u64) -> BTreeMap<EntryId, Entry> {
    let (mut load, mut appended) = (Load::new(seed, 40_000), BTreeMap::new());
    let mut store = RotatingStore::open(root, small()).unwrap();
    for _ in 0..110 {
        let entry = load.entry();
        let Appended::Stored(id) = store.append(&entry, 0).unwrap() else { panic!("it is not full") };
        store.sync().unwrap();
        appended.insert(id, entry);
    }
    for index in 0..3 {
        let ends = appended.values().take(60).flat_map(|entry| &entry.sections).filter(|section| section.partition == partition(index));
        let end = ends.map(|section| section.kind.next().value()).max().unwrap();
        store.release(&[Release { partition: partition(index), topic_id: TOPIC, line: Line(0), next: next(end) }]).unwrap();
    }
    let first = store.read(EntryId::ZERO).unwrap().unwrap();
    assert!(first.id > EntryId(1), "a generation was deleted");
    appended.retain(|id, _| *id >= first.id);
    drop(store);
    appended
}

/// Offsets by partition.
type Offsets = BTreeMap<u32, BTreeSet<u64>>;

fn offsets_of<'e>(entries: impl Iterator<Item = &'e Entry>) -> Offsets {
    let mut offsets = Offsets::new();
    for section in entries.flat_map(|entry| &entry.sections) {
        if let SectionKind::Data { first, next, .. } = section.kind {
            offsets.entry(section.partition.partition.index()).or_default().extend(first.value()..next.value());
        }
    }
    offsets
}

/// Changes one file somehow. Answers what it did; `None` when the file is as it was.
fn mutate(root: &Path, files: &[PathBuf], random: &mut StdRng) -> Option<(PathBuf, String)> {
    let file = &files[random.random_range(0..files.len())];
    let path = root.join(file);
    let before = std::fs::read(&path).ok()?;
    let mut bytes = before.clone();
    let at = |random: &mut StdRng| random.random_range(0..before.len().max(1));
    let what = match random.random_range(0..10) {
        0..=4 if !bytes.is_empty() => {
            let at = at(random);
            bytes[at] ^= 1 << random.random_range(0..8);
            format!("a bit of byte {at} flipped")
        }
        5..=6 if !bytes.is_empty() => {
            let (from, length) = (at(random), random.random_range(1..5000));
            let end = bytes.len().min(from + length);
            let zeros = random.random();
            bytes[from..end].fill_with(|| if zeros { 0 } else { random.random() });
            format!("bytes {from} to {end} overwritten")
        }
        7 => {
            bytes.truncate(at(random));
            format!("cut to {} bytes", bytes.len())
        }
        8 => {
            bytes.clear();
            "emptied".to_owned()
        }
        _ => {
            std::fs::remove_file(&path).unwrap();
            return Some((file.clone(), "removed".to_owned()));
        }
    };
    std::fs::write(&path, &bytes).unwrap();
    (bytes != before).then(|| (file.clone(), what))
}

fn files(root: &Path) -> Vec<PathBuf> {
    let (mut found, mut directories) = (Vec::new(), vec![root.to_owned()]);
    while let Some(directory) = directories.pop() {
        for path in std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                directories.push(path);
            } else {
                found.push(path.strip_prefix(root).unwrap().to_owned());
            }
        }
    }
    // They have no content that counts.
    found.retain(|path| !matches!(path.to_str(), Some("lock" | "slack")));
    found.sort();
    found
}

/// One round of damage.
struct Round<'w> {
    root: PathBuf,
    appended: &'w BTreeMap<EntryId, Entry>,
    /// What was done, for a failure.
    case: String,
    changed: Vec<PathBuf>,
}

/// What a round showed.
#[derive(Debug, Default)]
struct Seen {
    slowest: Duration,
    mutations: u64,
    with_loss: u64,
    with_holes: u64,
}

impl Round<'_> {
    fn check(&self, newest: &str, seen: &mut Seen) {
        let case = &self.case;
        let noticed = tools::verify(&self.root, None).is_ok_and(|verified| !verified.reports.is_empty());
        let begun = Instant::now();
        let mut store = RotatingStore::open(&self.root, small()).unwrap_or_else(|error| panic!("{case}: {error}"));
        seen.slowest = seen.slowest.max(begun.elapsed());
        let found = read_all(&mut store).into_iter().map(|entry| (entry.id, entry)).collect::<BTreeMap<_, _>>();
        for (id, entry) in &found {
            assert_eq!(entry.frame, self.appended[id].frame, "{case}: entry {id} is not what was appended");
        }
        let whole = offsets_of(self.appended.iter().filter(|(id, _)| found.contains_key(id)).map(|(_, entry)| entry));
        let missing = offsets_of(self.appended.iter().filter(|(id, _)| !found.contains_key(id)).map(|(_, entry)| entry));
        let reports = store.take_reports().0;
        if let [file] = &self.changed[..] {
            // One damaged file leaves the other to tell what was lost.
            assert_eq!(lost(&reports), missing, "{case}: {reports:?}");
            let closed = !file.starts_with(newest) && file.file_name().unwrap() != "index";
            if !missing.is_empty() || closed {
                assert!(noticed && !reports.is_empty(), "{case}: passed unnoticed (verify: {noticed}, store: {reports:?})");
            }
        } else {
            let told = lost(&reports);
            assert!(
                told.iter().all(|(index, told)| missing.get(index).is_some_and(|missing| told.is_subset(missing))),
                "{case}: a false alarm"
            );
            seen.with_holes += u64::from(told != missing);
        }
        for index in 0..3 {
            self.check_plan(&store, index, &whole, &missing);
        }
        seen.with_loss += u64::from(!missing.is_empty());
        drop(store);
        // It is known at the next start too.
        if seen.mutations.is_multiple_of(10) {
            let mut store = RotatingStore::open(&self.root, small()).unwrap();
            assert_eq!(read_all(&mut store).len(), found.len(), "{case}: the second start");
        }
    }

    /// Whatever is damaged: from any position of the centre on, what is whole is sent, and exactly the rest is read again.
    fn check_plan(&self, store: &RotatingStore, index: u32, whole: &Offsets, missing: &Offsets) {
        let none = BTreeSet::new();
        let (whole, missing) = (whole.get(&index).unwrap_or(&none), missing.get(&index).unwrap_or(&none));
        let Some(position) = whole.union(missing).next().copied() else {
            return;
        };
        let (partition, point) = (partition(index), ResumePoint::At(next(position)));
        let plan = plan(&store.spans(&partition), store.released(&partition), point, TOPIC, Some(TOPIC));
        let (mut sent, mut again) = (BTreeSet::new(), BTreeSet::new());
        for leg in &plan.legs {
            match leg {
                Leg::Send { first, next, opening, .. } => {
                    assert_eq!(*opening, Opening::Joins, "{}", self.case);
                    sent.extend(first.value()..next.value());
                }
                Leg::Refill { first, next, .. } => again.extend(first.value()..next.value()),
            }
        }
        // Behind its end the spill knows nothing: reading goes on there.
        let end = plan.goes_on.map_or(position, |(_, end)| end.value());
        again.extend(missing.range(end..));
        assert_eq!(sent, whole.range(position..).copied().collect(), "{}: partition {index}: {plan:?}", self.case);
        assert_eq!(again, missing.range(position..).copied().collect(), "{}: partition {index}: {plan:?}", self.case);
    }
}

fn lost(reports: &[Report]) -> Offsets {
    let mut lost = Offsets::new();
    for report in reports {
        if let Report::Lost { source, first, next, .. } = report {
            lost.entry(source.partition.partition.index()).or_default().extend(first.value()..next.value());
        }
    }
    lost
}

#[test]
fn damage_never_stops_the_start_and_is_told_exactly() {
    let seed = seed("damage");
    let space = tempfile::tempdir_in(if Path::new("/dev/shm").is_dir() { "/dev/shm" } else { "/tmp" }).unwrap();
    let mut random = StdRng::seed_from_u64(seed);
    let (mut seen, rounds) = (Seen::default(), setting("SPILL_MUTATIONS", 300));
    while seen.mutations < rounds {
        let whole = space.path().join("whole");
        let appended = make(&whole, random.random());
        let files = files(&whole);
        let newest = files.iter().filter_map(|path| path.iter().next()?.to_str().filter(|name| name.starts_with('g'))).max().unwrap();
        for _ in 0..rounds.min(1000) {
            let root = space.path().join("damaged");
            copy(&whole, &root);
            let many = if random.random_ratio(1, 5) { random.random_range(2..5) } else { 1 };
            let done = (0..many).filter_map(|_| mutate(&root, &files, &mut random)).collect::<Vec<_>>();
            if !done.is_empty() {
                seen.mutations += done.len() as u64;
                let case = format!("after {} mutations: {done:?}", seen.mutations);
                let mut changed = done.into_iter().map(|(file, _)| file).collect::<Vec<_>>();
                changed.dedup();
                Round { root: root.clone(), appended: &appended, case, changed }.check(newest, &mut seen);
            }
            std::fs::remove_dir_all(&root).unwrap();
        }
        std::fs::remove_dir_all(&whole).unwrap();
    }
    let Seen { slowest, mutations, with_loss, with_holes } = seen;
    println!(
        "{mutations} mutations: every start succeeded, the slowest in {slowest:?}; {with_loss} starts with loss, {with_holes} of them known by holes only"
    );
    assert!(with_loss * 10 > mutations, "the mutations do damage something: {with_loss} of {mutations}");
}
