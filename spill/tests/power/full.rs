//! The disk is full, at any write: nothing panics or hangs, what was confirmed stays, and when there is room again everything goes on by itself.

use std::collections::BTreeMap;

use spillway_proto::TopicId;
use spillway_spill::store::{Appended, Release};
use spillway_spill::{Entry, EntryId, Line, RotatingStore, SpillStore as _};

use crate::calls;
use crate::support::{Load, next, partition, read_all, seed, setting, small};

/// Appends until everything is durable, again after each failure, as the agent does. Answers how often it failed.
fn store_all(store: &mut RotatingStore, entries: &[Entry], durable: &mut BTreeMap<EntryId, Entry>) -> u64 {
    let (mut failures, mut waiting) = (0, entries.to_vec());
    for _ in 0..200 {
        let mut appended = Vec::new();
        let mut failed = false;
        for entry in &waiting {
            match store.append(entry, 0) {
                Ok(Appended::Stored(id)) => appended.push((id, entry.clone())),
                Ok(other) => panic!("{other:?}"),
                Err(_) => {
                    failed = true;
                    break;
                }
            }
        }
        failed |= store.sync().is_err();
        failures += u64::from(failed);
        // Only what was confirmed counts; the rest is appended again.
        let confirmed = appended.into_iter().filter(|(id, _)| *id <= store.durable()).collect::<Vec<_>>();
        waiting.drain(..confirmed.len());
        durable.extend(confirmed);
        if waiting.is_empty() {
            return failures;
        }
    }
    panic!("it never went on");
}

#[test]
fn a_full_disk_at_any_write_passes() {
    let (_alone, seed) = (calls::alone(), seed("full disk"));
    let (mut refused, mut failures) = (0, 0);
    for place in (0..setting("SPILL_FULL_PLACES", 200)).step_by(usize::try_from(setting("SPILL_FULL_STEP", 7)).unwrap()) {
        for many in [1, 4, 30] {
            let directory = tempfile::tempdir().unwrap();
            calls::begin(directory.path(), Some((place, many)));
            let mut load = Load::new(seed + place, 40_000);
            let mut durable = BTreeMap::new();
            let Ok(mut store) = RotatingStore::open(directory.path(), small()) else {
                // Not even the lock's file can be made.
                refused += calls::end().refused;
                continue;
            };
            for round in 0..12 {
                let entries = (0..4).map(|_| load.entry()).collect::<Vec<_>>();
                failures += store_all(&mut store, &entries, &mut durable);
                if round == 6 {
                    // Deleting needs room too, or does it?
                    let end =
                        durable.values().take(20).flat_map(|entry| &entry.sections).filter(|section| section.partition == partition(0));
                    let end = end.map(|section| section.kind.next().value()).max().unwrap();
                    let released = Release { partition: partition(0), topic_id: TopicId([7; 16]), line: Line(0), next: next(end) };
                    drop(store.release(&[released]));
                }
            }
            refused += calls::end().refused;
            let check = |store: &mut RotatingStore| {
                let found = read_all(store).into_iter().map(|entry| (entry.id, entry.frame)).collect::<BTreeMap<_, _>>();
                for (id, entry) in durable.iter().filter(|(_, entry)| entry.sections.len() > 1) {
                    assert_eq!(found.get(id), Some(&entry.frame), "entry {id}, {many} writes refused from write {place} on");
                }
            };
            check(&mut store);
            drop(store);
            check(&mut RotatingStore::open(directory.path(), small()).unwrap());
        }
    }
    println!("{refused} writes were refused, {failures} attempts failed, nothing was lost");
    assert!(refused > 100 && failures > 20, "{refused} writes were refused, {failures} attempts failed");
}
