//! A full spill: each policy does what it says, and what is dropped is known.

use std::time::Duration;

use spillway_proto::TopicId;
use spillway_proto::frame::GapReason;
use spillway_spill::admission::{Full, Policy};
use spillway_spill::store::{Appended, Release};
use spillway_spill::summary::What;
use spillway_spill::{Class, Entry, EntryId, Line, Options, RotatingStore, SpillStore as _};

use crate::support::{data, entry, next, partition, read_all};

const MIB: u64 = 1 << 20;

fn options(policy: Policy) -> Options {
    let mut options = Options::new(8 * MIB);
    options.limits.min_free_disk = 0;
    options.policies.insert(Class::DEFAULT, policy);
    options
}

fn frame(n: u64) -> Entry {
    entry(vec![data(0, n, n + 1)], vec![n as u8; 100_000])
}

#[test]
fn eight_mebibytes_are_enough_and_blocking_ends_with_a_release() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = RotatingStore::open(directory.path(), options(Policy::Block)).unwrap();
    let mut stored = 0;
    while let Appended::Stored(_) = store.append(&frame(stored), 0).unwrap() {
        store.sync().unwrap();
        stored += 1;
    }
    assert_eq!(store.append(&frame(stored), 0).unwrap(), Appended::Full(Full::Bytes));
    assert!(stored > 60, "{stored} frames of 100 kB fit 8 MiB");
    assert!(store.usage().disk_bytes <= 8 * MIB, "{:?}", store.usage());
    assert_eq!(read_all(&mut store).len() as u64, stored);
    store.release(&[Release { partition: partition(0), topic_id: TopicId([7; 16]), line: Line(0), next: next(30) }]).unwrap();
    assert!(matches!(store.append(&frame(stored), 0).unwrap(), Appended::Stored(_)));
}

#[test]
fn drop_oldest_keeps_the_newest_and_tells_what_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = RotatingStore::open(directory.path(), options(Policy::DropOldest)).unwrap();
    for n in 0..200 {
        assert!(matches!(store.append(&frame(n), 0).unwrap(), Appended::Stored(_)));
        store.sync().unwrap();
        assert!(store.usage().disk_bytes <= 8 * MIB + 128 * 1024, "{:?}", store.usage());
    }
    let check = |store: &mut RotatingStore| {
        let left = read_all(store).iter().map(|entry| entry.id.0 - 1).collect::<Vec<_>>();
        assert_eq!(left, (left[0]..200).collect::<Vec<_>>());
        let dropped =
            store.spans(&partition(0)).into_iter().map(|(_, span)| span).find(|span| span.what == What::Gap(GapReason::Dropped)).unwrap();
        assert_eq!((dropped.first, dropped.next), (next(0), next(left[0])));
        assert_eq!(store.usage().dropped_records, left[0]);
    };
    check(&mut store);
    drop(store);
    check(&mut RotatingStore::open(directory.path(), options(Policy::DropOldest)).unwrap());
}

#[test]
fn drop_newest_keeps_the_oldest_and_tells_what_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = RotatingStore::open(directory.path(), options(Policy::DropNewest)).unwrap();
    let stored = (0..120).filter(|n| matches!(store.append(&frame(*n), 0).unwrap(), Appended::Stored(_))).count() as u64;
    assert!(stored > 60 && stored < 100, "{stored}");
    store.sync().unwrap();
    drop(store);
    let mut store = RotatingStore::open(directory.path(), options(Policy::DropNewest)).unwrap();
    assert_eq!(read_all(&mut store).len() as u64, stored);
    let gone = store.spans(&partition(0)).into_iter().map(|(_, span)| span).find(|span| matches!(span.what, What::Gap(_))).unwrap();
    assert_eq!((gone.first, gone.next), (next(stored), next(120)));
}

#[test]
fn what_may_be_dropped_makes_room_for_what_must_wait() {
    let directory = tempfile::tempdir().unwrap();
    let bulk = Class::new(1).unwrap();
    let mut options = options(Policy::Block);
    options.policies.insert(bulk, Policy::DropOldest);
    let mut store = RotatingStore::open(directory.path(), options).unwrap();
    for n in 0..100 {
        store.append(&Entry { class: bulk, ..entry(vec![data(1, n, n + 1)], vec![0; 100_000]) }, 0).unwrap();
    }
    let alarms = (0..100).take_while(|n| matches!(store.append(&frame(*n), 0).unwrap(), Appended::Stored(_))).count();
    store.sync().unwrap();
    assert!(alarms > 60, "{alarms} alarms found room");
    assert_eq!(read_all(&mut store).iter().filter(|entry| entry.identity.class == Class::DEFAULT).count(), alarms);
}

#[test]
fn too_old_is_full_too() {
    let directory = tempfile::tempdir().unwrap();
    let mut options = options(Policy::Block);
    options.limits.max_age = Some(Duration::from_secs(60));
    let mut store = RotatingStore::open(directory.path(), options).unwrap();
    store.append(&frame(0), 1_000).unwrap();
    assert_eq!(store.sync().unwrap(), EntryId(1));
    assert!(matches!(store.append(&frame(1), 61_000).unwrap(), Appended::Stored(_)));
    assert_eq!(store.append(&frame(2), 61_001).unwrap(), Appended::Full(Full::Age));
}
