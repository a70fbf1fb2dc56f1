//! The store against a list in memory, over random runs of everything that can be asked of it.

use std::collections::BTreeMap;

use proptest::prelude::*;
use spillway_proto::TopicId;
use spillway_spill::store::{Appended, Release};
use spillway_spill::{Entry, EntryId, Line, RotatingStore, SpillStore as _};

use crate::support::{data, entry, next, partition, small};

#[derive(Debug, Clone)]
enum Step {
    Append { sections: u32, size: usize },
    Sync,
    ReadAll,
    Release { partition: u32, back: u64 },
    Close,
    Crash,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (1u32..8, 1usize..60_000).prop_map(|(sections, size)| Step::Append { sections, size }),
        3 => Just(Step::Sync),
        1 => Just(Step::ReadAll),
        2 => (0u32..3, 0u64..40).prop_map(|(partition, back)| Step::Release { partition, back }),
        1 => Just(Step::Close),
        1 => Just(Step::Crash),
    ];
    prop::collection::vec(step, 1..60)
}

/// The oracle: what is in the store.
#[derive(Default)]
struct Model {
    entries: Vec<(EntryId, Entry)>,
    unsynced: Vec<(EntryId, Entry)>,
    positions: BTreeMap<u32, u64>,
    released: BTreeMap<u32, u64>,
}

impl Model {
    fn is_released(&self, entry: &Entry) -> bool {
        entry.sections.iter().all(|section| {
            let released = self.released.get(&section.partition.partition.index()).copied().unwrap_or(0);
            section.kind.next().value() <= released
        })
    }

    fn check(&self, store: &mut RotatingStore) {
        let (mut after, mut found) = (EntryId::ZERO, BTreeMap::new());
        while let Some(read) = store.read(after).unwrap() {
            assert!(read.id > after);
            after = read.id;
            found.insert(read.id, read);
        }
        for (id, entry) in &self.entries {
            match found.remove(id) {
                Some(read) => assert_eq!((&read.frame, &read.identity.sections), (&entry.frame, &entry.sections)),
                None => assert!(self.is_released(entry), "entry {id} is missing and was not released"),
            }
        }
        assert!(found.is_empty(), "entries that were never appended: {:?}", found.keys());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(u32::try_from(crate::support::setting("SPILL_MODEL_CASES", 40)).unwrap()))]
    #[test]
    fn the_store_is_a_list(steps in steps()) {
        let directory = tempfile::tempdir().unwrap();
        let mut model = Model::default();
        let mut store = RotatingStore::open(directory.path(), small()).unwrap();
        for step in steps {
            match step {
                Step::Append { sections, size } => {
                    let mut list = Vec::new();
                    for index in (0..3).filter(|index| sections & (1 << index) != 0) {
                        let position = model.positions.entry(index).or_insert(0);
                        list.push(data(index, *position, *position + 7));
                        *position += 7;
                    }
                    let entry = entry(list, vec![size as u8; size]);
                    let Appended::Stored(id) = store.append(&entry, 0).unwrap() else { panic!("it is never full") };
                    model.unsynced.push((id, entry));
                    let durable = store.durable();
                    model.entries.extend(model.unsynced.extract_if(.., |(id, _)| *id <= durable));
                }
                Step::Sync => {
                    store.sync().unwrap();
                    model.entries.append(&mut model.unsynced);
                }
                Step::ReadAll => model.check(&mut store),
                Step::Release { partition: index, back } => {
                    let synced = model.entries.iter().flat_map(|(_, entry)| &entry.sections).filter(|section| section.partition == partition(index));
                    let end = synced.map(|section| section.kind.next().value()).max().unwrap_or(0).saturating_sub(back);
                    let released = model.released.entry(index).or_insert(0);
                    *released = end.max(*released);
                    let release = Release { partition: partition(index), topic_id: TopicId([7; 16]), line: Line(0), next: next(*released) };
                    store.release(&[release]).unwrap();
                }
                Step::Close => {
                    store.close().unwrap();
                    model.entries.append(&mut model.unsynced);
                    store = RotatingStore::open(directory.path(), small()).unwrap();
                }
                Step::Crash => {
                    drop(store);
                    // Without a sync all may be there or not; that the next appends join does not matter to the store.
                    model.unsynced.clear();
                    store = RotatingStore::open(directory.path(), small()).unwrap();
                    let mut after = model.entries.iter().map(|(id, _)| *id).max().unwrap_or(EntryId::ZERO);
                    while let Some(read) = store.read(after).unwrap() {
                        after = read.id;
                        let entry = Entry {
                            class: read.identity.class, created_ms: read.identity.created_ms, sections: read.identity.sections,
                            frame: read.frame,
                        };
                        model.entries.push((after, entry));
                    }
                }
            }
            prop_assert_eq!(store.take_reports(), (Vec::new(), 0));
        }
        model.check(&mut store);
    }
}
