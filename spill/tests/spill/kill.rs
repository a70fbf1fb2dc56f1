//! A process that is killed at any moment loses nothing that it had confirmed.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, RngCore as _, SeedableRng as _};
use spillway_proto::TopicId;
use spillway_spill::store::{Appended, Release, Report};
use spillway_spill::{Entry, EntryId, Line, RotatingStore, SpillStore as _};

use crate::support::{data, entry, next, partition, read_all, seed, setting, small};

const DIRECTORY: &str = "SPILL_KILL_DIRECTORY";
const FIRST: &str = "SPILL_KILL_FIRST";

/// The n-th frame.
fn frame(n: u64) -> Entry {
    let mut random = StdRng::seed_from_u64(n);
    let mut bytes = vec![0; random.random_range(1..60_000)];
    random.fill_bytes(&mut bytes);
    entry(vec![data(0, n, n + 1)], bytes)
}

/// Not a test of its own: what is killed.
#[test]
fn child() {
    let Ok(directory) = std::env::var(DIRECTORY) else {
        return;
    };
    let mut store = RotatingStore::open(Path::new(&directory), small()).unwrap();
    let mut out = std::io::stdout().lock();
    for n in setting(FIRST, 0).. {
        assert!(matches!(store.append(&frame(n), 0).unwrap(), Appended::Stored(_)));
        if n % 3 == 0 {
            store.sync().unwrap();
            writeln!(out, "confirmed {n}").unwrap();
            out.flush().unwrap();
        }
        if n % 16 == 0 {
            store.read(EntryId::ZERO).unwrap();
            let release = Release { partition: partition(0), topic_id: TopicId([7; 16]), line: Line(0), next: next(n.saturating_sub(60)) };
            store.release(&[release]).unwrap();
        }
    }
}

#[test]
fn kill_9_loses_nothing_that_was_confirmed() {
    let mut random = StdRng::seed_from_u64(seed("kill -9"));
    let directory = tempfile::tempdir().unwrap();
    let (mut first, mut kills, mut confirmed_in_all) = (1, 0, 0);
    for _ in 0..setting("SPILL_KILLS", 15) {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["kill::child", "--exact", "--nocapture", "--test-threads=1"])
            .env(DIRECTORY, directory.path())
            .env(FIRST, first.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let lives = random.random_range(0..60);
        let mut confirmed = None;
        // It may be in any call when it is killed: wait for some confirmations, then for a moment.
        let mut lines = lines.map_while(Result::ok).filter_map(|line| line.rsplit("confirmed ").next().and_then(|n| n.parse::<u64>().ok()));
        for n in lines.by_ref().take(lives) {
            confirmed = Some(n);
        }
        std::thread::sleep(Duration::from_micros(random.random_range(0..3000)));
        child.kill().unwrap();
        kills += u64::from(!child.wait().unwrap().success());
        // What it said before it died counts too.
        confirmed = lines.last().or(confirmed);

        let mut store = RotatingStore::open(directory.path(), small()).unwrap();
        let found = read_all(&mut store);
        assert!(found.iter().all(|entry| {
            let SectionOf(n) = SectionOf::of(entry);
            entry.frame == frame(n).frame
        }));
        let last = found.last().map_or(first - 1, |entry| SectionOf::of(entry).0);
        if let Some(confirmed) = confirmed {
            assert!(last >= confirmed, "{confirmed} was confirmed, the last one is {last}");
            confirmed_in_all += 1;
        }
        let numbers = found.iter().map(|entry| SectionOf::of(entry).0).collect::<Vec<_>>();
        assert!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]), "no hole: {numbers:?}");
        assert!(numbers.first().is_none_or(|oldest| oldest + 60 + 32 + 10 >= last.saturating_sub(60)), "what is released is deleted");
        let lost = store.take_reports().0.into_iter().filter(|report| matches!(report, Report::Lost { .. })).count();
        assert_eq!(lost, 0);
        first = last + 1;
    }
    println!("{kills} kills, {confirmed_in_all} after confirmations: nothing lost");
    assert!(kills > 0 && confirmed_in_all > 0);
}

/// The number in the first section.
struct SectionOf(u64);

impl SectionOf {
    fn of(entry: &spillway_spill::StoredEntry) -> Self {
        let spillway_proto::frame::SectionKind::Data { first, .. } = entry.identity.sections[0].kind else { panic!("data") };
        Self(first.value())
    }
}
