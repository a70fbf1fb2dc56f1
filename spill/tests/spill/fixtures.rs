//! Spills that earlier versions and other architectures have written are opened.

use std::path::{Path, PathBuf};

use spillway_proto::TopicId;
use spillway_proto::frame::{GapReason, SectionKind};
use spillway_spill::seal::Key;
use spillway_spill::store::{Appended, Release};
use spillway_spill::summary::What;
use spillway_spill::{Entry, Line, Options, RotatingStore, SpillStore as _, StoredSection, tools};

use crate::support::{copy, data, entry, next, partition, read_all, section, small};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn key(name: &str) -> Option<Key> {
    name.ends_with("sealed").then(|| Key::parse(&[0x42; 32]).unwrap())
}

/// What version 1 wrote: every kind of section, a frame of several chunks, two generations and one left by a crash.
fn entries() -> Vec<Entry> {
    let back = SectionKind::Gap { first: next(30), next: next(20), reason: GapReason::Truncated };
    let anew = StoredSection { topic_id: TopicId([8; 16]), ..data(1, 0, 9) };
    let long = (0..70_000u32).map(|n| (n % 251) as u8).collect();
    vec![
        entry(vec![section(0, SectionKind::Start { next: next(10) })], vec![1]),
        entry(vec![data(0, 10, 30), data(1, 0, 5)], long),
        entry(vec![section(0, back)], vec![2, 2]),
        entry(vec![data(0, 20, 40), anew], b"the last frame".to_vec()),
    ]
}

/// Writes the fixtures of a new version: `SPILL_WRITE_FIXTURES=1 cargo test -p spillway-spill fixtures`. Those of earlier versions stay.
fn write(name: &str) {
    let root = fixture(name);
    drop(std::fs::remove_dir_all(&root));
    let options = || Options { key: key(name), generation_bytes: Some(80_000), ..small() };
    let mut store = RotatingStore::open(&root, options()).unwrap();
    for (n, entry) in entries().iter().enumerate() {
        assert!(matches!(store.append(entry, 0).unwrap(), Appended::Stored(_)));
        store.sync().unwrap();
        if n == 1 {
            store.release(&[Release { partition: partition(2), topic_id: TopicId([7; 16]), line: Line(0), next: next(77) }]).unwrap();
            store.close().unwrap();
            store = RotatingStore::open(&root, options()).unwrap();
        }
    }
    drop(store);
    for name in ["lock", "slack"] {
        drop(std::fs::remove_file(root.join(name)));
    }
}

#[test]
fn version_1_is_opened() {
    for name in ["v1", "v1-sealed"] {
        if std::env::var_os("SPILL_WRITE_FIXTURES").is_some() {
            write(name);
        }
        let directory = tempfile::tempdir().unwrap();
        copy(&fixture(name), directory.path());
        let verified = tools::verify(directory.path(), key(name).as_ref()).unwrap();
        assert_eq!((verified.entries, verified.reports), (4, Vec::new()), "{name}");
        let mut store = RotatingStore::open(directory.path(), Options { key: key(name), ..small() }).unwrap();
        let found = read_all(&mut store);
        for (found, expected) in found.iter().zip(entries()) {
            assert_eq!(found.frame, expected.frame);
            let kinds = |sections: &[StoredSection]| {
                sections.iter().map(|section| (section.partition.clone(), section.topic_id, section.kind)).collect::<Vec<_>>()
            };
            assert_eq!(kinds(&found.identity.sections), kinds(&expected.sections));
        }
        assert_eq!(found.len(), 4);
        let lines = found.iter().flat_map(|entry| &entry.identity.sections).map(|section| section.line.0).collect::<Vec<_>>();
        assert_eq!(lines, [0, 0, 0, 1, 1, 1]);
        assert_eq!(store.released(&partition(2)).unwrap().next, next(77));
        assert!(store.spans(&partition(0)).iter().any(|(_, span)| span.what == What::Start));
        assert_eq!(store.take_reports(), (Vec::new(), 0), "{name}");
    }
}
