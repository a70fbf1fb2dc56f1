//! The thread that owns the store, with real files.

use std::sync::mpsc;

use spillway_spill::keeper::{Command, Event, Keeper, KeeperLimits};
use spillway_spill::{EntryId, RotatingStore};

use crate::support::{Load, read_all, small};

#[test]
fn what_the_thread_confirmed_is_there_after_its_end() {
    let directory = tempfile::tempdir().unwrap();
    let mut load = Load::new(3, 60_000);
    let entries = (0..60).map(|_| load.entry()).collect::<Vec<_>>();
    let (tell, events) = mpsc::channel();
    let store = RotatingStore::open(directory.path(), small()).unwrap();
    let keeper = Keeper::start(store, KeeperLimits::default(), move |event| drop(tell.send(event))).unwrap();
    for entry in &entries {
        keeper.give(Command::Append(entry.clone())).unwrap();
    }
    let mut confirmed = 0;
    while confirmed < entries.len() {
        if let Event::Stored { count, .. } = events.recv().unwrap() {
            confirmed += count;
        }
    }
    keeper.give(Command::Read(None, EntryId(1))).unwrap();
    let second = events.iter().find_map(|event| if let Event::Read(entry) = event { entry } else { None });
    assert_eq!(second.map(|entry| entry.frame), Some(entries[1].frame.clone()));
    drop(keeper);
    let found = read_all(&mut RotatingStore::open(directory.path(), small()).unwrap());
    assert_eq!(found.iter().map(|entry| &entry.frame).collect::<Vec<_>>(), entries.iter().map(|entry| &entry.frame).collect::<Vec<_>>());
}
