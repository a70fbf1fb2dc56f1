//! What is stored comes back, in order, after any end of the process; what is released is deleted.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use spillway_proto::TopicId;
use spillway_proto::frame::{GapReason, SectionKind};
use spillway_spill::seal::Key;
use spillway_spill::store::{Appended, Release, Report};
use spillway_spill::{Class, Entry, EntryId, Error, Line, Options, RotatingStore, SpillStore as _, StoredSection, tools};

use crate::support::{Load, data, entry, next, partition, read_all, section, small};

fn fill(store: &mut RotatingStore, load: &mut Load, count: usize) -> Vec<(EntryId, Entry)> {
    let mut stored = Vec::new();
    for _ in 0..count {
        let entry = load.entry();
        let Appended::Stored(id) = store.append(&entry, 0).unwrap() else { panic!("it is not full") };
        stored.push((id, entry));
    }
    store.sync().unwrap();
    stored
}

fn check(store: &mut RotatingStore, stored: &[(EntryId, Entry)]) {
    let found = read_all(store);
    assert_eq!(found.len(), stored.len());
    for (found, (id, entry)) in found.iter().zip(stored) {
        assert_eq!((found.id, &found.frame, &found.identity.sections), (*id, &entry.frame, &entry.sections));
    }
}

fn release(index: u32, end: u64) -> Release {
    Release { partition: partition(index), topic_id: TopicId([7; 16]), line: Line(0), next: next(end) }
}

#[test]
fn everything_comes_back_while_open_after_a_close_and_after_a_crash() {
    for key in [None, Some(Key::parse(&[9; 32]).unwrap())] {
        let directory = tempfile::tempdir().unwrap();
        let options = || Options { key: key.clone(), ..small() };
        let mut load = Load::new(1, 150_000);
        let mut store = RotatingStore::open(directory.path(), options()).unwrap();
        let mut stored = fill(&mut store, &mut load, 60);
        check(&mut store, &stored);
        assert!(store.usage().generations > 3, "{:?}", store.usage());
        store.close().unwrap();

        let mut store = RotatingStore::open(directory.path(), options()).unwrap();
        check(&mut store, &stored);
        stored.extend(fill(&mut store, &mut load, 20));
        // As a crash leaves it: nothing is closed.
        drop(store);
        let mut store = RotatingStore::open(directory.path(), options()).unwrap();
        check(&mut store, &stored);
        assert_eq!(store.take_reports(), (Vec::new(), 0));
        drop(store);
        let verified = tools::verify(directory.path(), key.as_ref()).unwrap();
        assert_eq!((verified.entries, verified.reports), (80, Vec::new()));
    }
}

#[test]
fn a_spill_of_another_size_is_opened() {
    let directory = tempfile::tempdir().unwrap();
    let large = || Options { generation_bytes: Some(8 << 20), ..small() };
    let mut stored = Vec::new();
    let mut load = Load::new(2, 100_000);
    for options in [small(), large(), small(), large()] {
        let mut store = RotatingStore::open(directory.path(), options).unwrap();
        check(&mut store, &stored);
        assert_eq!(store.take_reports(), (Vec::new(), 0));
        stored.extend(fill(&mut store, &mut load, 20));
        store.close().unwrap();
    }
}

#[test]
fn what_is_released_is_deleted_whole_and_the_disk_is_given_back() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = RotatingStore::open(directory.path(), small()).unwrap();
    for n in 0..40 {
        store.append(&entry(vec![data(0, n * 10, n * 10 + 10)], vec![1; 20_000]), 0).unwrap();
    }
    store.sync().unwrap();
    let full = store.usage();
    store.release(&[release(0, 195)]).unwrap();
    let half = store.usage();
    assert!(half.entries < full.entries && half.entries >= 21, "{half:?}");
    assert_eq!(read_all(&mut store).last().unwrap().id, EntryId(40), "what is not released stays");
    store.release(&[release(0, 400)]).unwrap();
    assert_eq!((store.usage().entries, store.usage().generations), (0, 0));
    assert!(store.usage().disk_bytes < 64 * 1024);
    let left = std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(left.into_iter().all(|name| !name.starts_with('g') && !name.starts_with("trash")), "nothing of a generation is left");
}

#[test]
fn a_second_process_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let store = RotatingStore::open(directory.path(), small()).unwrap();
    assert!(matches!(RotatingStore::open(directory.path(), small()), Err(Error::Locked { .. })));
    drop(store);
    RotatingStore::open(directory.path(), small()).unwrap();
}

#[test]
fn a_lock_that_outlives_its_holder_is_no_damage() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = RotatingStore::open(directory.path(), small()).unwrap();
    store.append(&entry(vec![data(0, 0, 10)], b"the first frame".to_vec()), 0).unwrap();
    store.close().unwrap();
    // What a forked process holds for a moment.
    let sled = std::fs::File::open(directory.path().join("g000000000001/sled/db")).unwrap();
    sled.lock().unwrap();
    let mut store = RotatingStore::open(directory.path(), small()).unwrap();
    let begun = Instant::now();
    let forked = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        drop(sled);
    });
    assert_eq!(read_all(&mut store).len(), 1);
    assert!(begun.elapsed() >= Duration::from_millis(100), "nobody waited for the lock");
    assert_eq!(store.take_reports(), (Vec::new(), 0));
    forked.join().unwrap();
}

#[test]
fn another_key_and_a_later_version_are_refused_and_nothing_is_touched() {
    let directory = tempfile::tempdir().unwrap();
    let with = |key: Option<[u8; 32]>| Options { key: key.map(|key| Key::parse(&key).unwrap()), ..small() };
    let mut store = RotatingStore::open(directory.path(), with(Some([1; 32]))).unwrap();
    fill(&mut store, &mut Load::new(1, 1000), 3);
    store.close().unwrap();
    let before = listing(directory.path());
    for wrong in [None, Some([2; 32])] {
        assert!(matches!(RotatingStore::open(directory.path(), with(wrong)), Err(Error::KeyWrong { .. })));
    }
    let text = std::fs::read(directory.path().join("format")).unwrap();
    let later = format!("spillway-spill 2 {:08x}\n", crc32c::crc32c(b"spillway-spill 2"));
    std::fs::write(directory.path().join("format"), later).unwrap();
    assert!(matches!(RotatingStore::open(directory.path(), with(Some([1; 32]))), Err(Error::Newer { version: 2, .. })));
    std::fs::write(directory.path().join("format"), text).unwrap();
    assert_eq!(listing(directory.path()), before);
    assert_eq!(read_all(&mut RotatingStore::open(directory.path(), with(Some([1; 32]))).unwrap()).len(), 3);
}

fn listing(path: &std::path::Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(listing(&path));
        } else {
            found.push((path.clone(), std::fs::read(&path).unwrap()));
        }
    }
    found.sort();
    found
}

#[test]
fn what_is_encrypted_is_nowhere_in_clear() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options { key: Some(Key::parse(&[3; 32]).unwrap()), ..small() };
    let mut store = RotatingStore::open(directory.path(), options).unwrap();
    store.append(&entry(vec![data(0, 0, 5)], b"a secret, a secret, a secret".to_vec()), 0).unwrap();
    store.sync().unwrap();
    store.release(&[release(1, 5)]).unwrap();
    store.close().unwrap();
    let contains =
        |needle: &[u8]| listing(directory.path()).into_iter().any(|(_, bytes)| bytes.windows(needle.len()).any(|part| part == needle));
    assert!(contains(b"SWc1"), "there is a chunk");
    assert!(!contains(b"secret") && !contains(b"telemetry"));
}

#[test]
fn lines_are_kept_as_they_were_given() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = RotatingStore::open(directory.path(), small()).unwrap();
    let back = SectionKind::Gap { first: next(50), next: next(30), reason: GapReason::Truncated };
    let anew = StoredSection { topic_id: TopicId([8; 16]), line: Line(2), ..data(0, 0, 9) };
    let on = |line, section| vec![StoredSection { line: Line(line), ..section }];
    for sections in [on(0, data(0, 0, 50)), on(1, section(0, back)), on(1, data(0, 30, 60)), vec![anew.clone()]] {
        store.append(&entry(sections, vec![0; 10]), 0).unwrap();
    }
    store.sync().unwrap();
    let lines = |store: &mut RotatingStore| read_all(store).iter().map(|entry| entry.identity.sections[0].line.0).collect::<Vec<_>>();
    assert_eq!(lines(&mut store), [0, 1, 1, 2]);
    drop(store);
    let mut store = RotatingStore::open(directory.path(), small()).unwrap();
    store.append(&entry(vec![StoredSection { kind: data(0, 9, 12).kind, ..anew }], vec![0; 10]), 0).unwrap();
    store.sync().unwrap();
    assert_eq!(lines(&mut store), [0, 1, 1, 2, 2], "after a restart, too");
}

#[test]
fn classes_are_read_in_one_order_and_deleted_apart() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = RotatingStore::open(directory.path(), small()).unwrap();
    for n in 0..30u64 {
        let class = Class::new((n % 2) as u8).unwrap();
        store.append(&Entry { class, ..entry(vec![data((n % 2) as u32, n, n + 1)], vec![2; 30_000]) }, 0).unwrap();
    }
    store.sync().unwrap();
    assert_eq!(read_all(&mut store).iter().map(|entry| entry.id.0).collect::<Vec<_>>(), (1..=30).collect::<Vec<_>>());
    store.release(&[release(0, 30)]).unwrap();
    let left = read_all(&mut store);
    assert!(left.iter().filter(|entry| entry.identity.class.number() == 1).count() == 15, "the other class is whole");
    assert!(left.len() <= 20, "{} are left", left.len());
    assert!(!store.take_reports().0.iter().any(|report| matches!(report, Report::Lost { .. })));
}

#[test]
fn a_class_is_read_without_the_others() {
    let directory = tempfile::tempdir().unwrap();
    let (alarms, bulk) = (Class::of(Class::BLOCK, 0, 0).unwrap(), Class::of(Class::DROP_OLDEST, 3, 1).unwrap());
    let mut store = RotatingStore::open(directory.path(), small()).unwrap();
    for n in 0..40u64 {
        let (class, index) = if n % 10 == 9 { (alarms, 0) } else { (bulk, 1) };
        store.append(&Entry { class, ..entry(vec![data(index, n, n + 1)], vec![2; 30_000]) }, 0).unwrap();
    }
    store.sync().unwrap();
    for _ in 0..2 {
        let read = |store: &mut RotatingStore, class| {
            let mut after = EntryId::ZERO;
            std::iter::from_fn(|| {
                after = store.read_of(Some(class), after).unwrap()?.id;
                Some(after.0)
            })
            .collect::<Vec<_>>()
        };
        assert_eq!(read(&mut store, alarms), [10, 20, 30, 40]);
        assert_eq!(read(&mut store, bulk).len(), 36);
        assert_eq!(read(&mut store, Class::DEFAULT), [0_u64; 0]);
        assert_eq!(store.classes(), BTreeMap::from([(alarms, vec![partition(0)]), (bulk, vec![partition(1)])]));
        drop(store);
        store = RotatingStore::open(directory.path(), small()).unwrap();
    }
}
