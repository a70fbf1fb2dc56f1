#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};

use bytes::Bytes;
use spillway_proto::frame::SectionKind;
use spillway_proto::{NextOffset, Partition, TopicId, TopicName};

use super::*;
use crate::entry::{Class, Identity, Line, StoredSection};

/// A list in memory that fails when it is told to.
#[derive(Debug, Default)]
struct List {
    entries: Vec<StoredEntry>,
    pending: Vec<StoredEntry>,
    next: u64,
    /// Each call takes the first: whether it fails.
    failures: VecDeque<bool>,
    /// Room for so many entries.
    room: usize,
    /// So many attempts to note what was released fail, and so many to delete.
    persist_failures: usize,
    release_failures: usize,
    /// How often what was released was noted.
    persisted: Arc<AtomicUsize>,
}

impl List {
    fn fails(&mut self) -> Result<(), Error> {
        if self.failures.pop_front() != Some(true) {
            return Ok(());
        }
        // What was not durable is not in the store, and its numbers are not given again.
        self.pending.clear();
        Err(failure())
    }
}

/// For which there is always room.
const ALARMS: Class = Class::DROP_NEWEST;

fn failure() -> Error {
    Error::Database { path: "list".into(), text: "told to".to_owned() }
}

fn fails_still(failures: &mut usize) -> Result<(), Error> {
    match failures.checked_sub(1) {
        Some(left) => {
            *failures = left;
            Err(failure())
        }
        None => Ok(()),
    }
}

impl SpillStore for List {
    fn append(&mut self, entry: &Entry, _now_ms: i64) -> Result<Appended, Error> {
        self.fails()?;
        if entry.class != ALARMS && self.entries.len() + self.pending.len() >= self.room {
            return Ok(Appended::Full(Full::Bytes));
        }
        self.next += 1;
        let identity = Identity { class: entry.class, created_ms: 0, sections: entry.sections.clone(), frame_bytes: 1, frame_crc: 0 };
        self.pending.push(StoredEntry { id: EntryId(self.next), identity, frame: entry.frame.clone() });
        Ok(Appended::Stored(EntryId(self.next)))
    }

    fn sync(&mut self) -> Result<EntryId, Error> {
        self.fails()?;
        self.entries.append(&mut self.pending);
        Ok(self.durable())
    }

    fn durable(&self) -> EntryId {
        self.entries.last().map_or(EntryId::ZERO, |entry| entry.id)
    }

    fn read_of(&mut self, class: Option<Class>, after: EntryId) -> Result<Option<StoredEntry>, Error> {
        self.fails()?;
        let is_wanted = |entry: &&StoredEntry| entry.id > after && class.is_none_or(|class| entry.identity.class == class);
        Ok(self.entries.iter().find(is_wanted).cloned())
    }

    fn release(&mut self, releases: &[Release]) -> Result<(), Error> {
        self.fails()?;
        fails_still(&mut self.release_failures)?;
        self.room += releases.len();
        Ok(())
    }

    fn persist(&mut self) -> Result<(), Error> {
        self.fails()?;
        fails_still(&mut self.persist_failures)?;
        self.persisted.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn spans(&self, _partition: &TopicPartition) -> Vec<(Source, Span)> {
        Vec::new()
    }

    fn released(&self, _partition: &TopicPartition) -> Option<Released> {
        None
    }

    fn take_reports(&mut self) -> (Vec<Report>, u64) {
        (Vec::new(), 0)
    }

    fn usage(&self) -> Usage {
        Usage { entries: self.entries.len() as u64, ..Usage::default() }
    }

    fn close(self) -> Result<(), Error> {
        Ok(())
    }
}

fn partition() -> TopicPartition {
    TopicPartition { topic: TopicName::parse("t").unwrap(), partition: Partition::FIRST }
}

fn frame(n: u8) -> Entry {
    let offset = |value| NextOffset::new(value).unwrap();
    let kind = SectionKind::Data { first: offset(n.into()), next: offset(u64::from(n) + 1), records: 1, raw_length: 1 };
    let section = StoredSection { partition: partition(), topic_id: TopicId([1; 16]), partition_count: 1, line: Line(0), kind };
    Entry { class: Class::DEFAULT, created_ms: 0, sections: vec![section], frame: Bytes::from(vec![n]) }
}

fn release() -> Release {
    Release { partition: partition(), topic_id: TopicId([1; 16]), line: Line(0), next: NextOffset::ZERO }
}

fn start(list: List) -> (Keeper, Receiver<Event>) {
    let (tell, events) = mpsc::channel();
    let commit = CommitLimits { max_bytes: 3, max_wait: Duration::from_millis(1) };
    let limits = KeeperLimits { commit, retry_pause: Duration::from_millis(5) };
    (Keeper::start(list, limits, move |event| drop(tell.send(event))).unwrap(), events)
}

/// The events up to the first that is awaited, with it.
fn wait(events: &Receiver<Event>, is_awaited: impl Fn(&Event) -> bool) -> Vec<Event> {
    let mut seen = Vec::new();
    while !seen.last().is_some_and(&is_awaited) {
        seen.push(events.recv_timeout(Duration::from_secs(60)).unwrap());
    }
    seen
}

/// Gives `count` frames, waits until all are confirmed, and reads them. Answers what came back, how often there was trouble, how often it was full.
fn play(list: List, count: u8) -> (Vec<u8>, usize, usize) {
    let (keeper, events) = start(list);
    (0..count).for_each(|n| keeper.give(Command::Append(frame(n))).unwrap());
    let (mut confirmed, mut read, mut troubles, mut full) = (0, Vec::new(), 0, 0);
    loop {
        match events.recv_timeout(Duration::from_secs(60)).unwrap() {
            Event::Stored { count, .. } => confirmed += count,
            Event::Read(Some(entry)) => {
                read.push(entry.frame[0]);
                keeper.give(Command::Read(None, entry.id)).unwrap();
                continue;
            }
            Event::Read(None) => return (read, troubles, full),
            Event::Trouble(Some(_)) => troubles += 1,
            Event::Full(_, Some(_)) => {
                full += 1;
                keeper.give(Command::Release(vec![release(); 10])).unwrap();
            }
            _ => {}
        }
        assert!(confirmed <= usize::from(count), "each is confirmed once");
        if confirmed == usize::from(count) && read.is_empty() {
            keeper.give(Command::Read(None, EntryId::ZERO)).unwrap();
            confirmed = 0;
        }
    }
}

#[test]
fn frames_are_confirmed_and_come_back_in_order() {
    let list = List { room: 100, ..List::default() };
    assert_eq!(play(list, 50), ((0..50).collect(), 0, 0));
}

#[test]
fn after_failures_everything_is_there_once_and_in_order() {
    for at in 0..12 {
        let mut failures = VecDeque::from(vec![false; 12]);
        failures[at] = true;
        let list = List { room: 100, failures, ..List::default() };
        let (read, troubles, _) = play(list, 10);
        assert_eq!(read, (0..10).collect::<Vec<_>>(), "call {at} failed");
        assert_eq!(troubles, 1);
    }
}

#[test]
fn a_full_store_goes_on_when_there_is_room() {
    let list = List { room: 6, ..List::default() };
    let (read, troubles, full) = play(list, 14);
    assert_eq!((read, troubles), ((0..14).collect(), 0));
    assert!(full > 0);
}

#[test]
fn what_is_taken_back_does_not_come_to_light_later() {
    let (keeper, events) = start(List { room: 2, ..List::default() });
    (0..5).for_each(|n| keeper.give(Command::Append(frame(n))).unwrap());
    let seen = wait(&events, |event| matches!(event, Event::Full(_, Some(_))));
    keeper.give(Command::TakeBack(None)).unwrap();
    let more = wait(&events, |event| matches!(event, Event::TakenBack));
    let confirmed =
        |events: &[Event]| events.iter().map(|event| if let Event::Stored { count, .. } = event { *count } else { 0 }).sum::<usize>();
    let first = confirmed(&seen) + confirmed(&more);
    assert!(first <= 2, "{first} of 2 that there was room for");

    keeper.give(Command::Release(vec![release(); 10])).unwrap();
    keeper.give(Command::Append(frame(9))).unwrap();
    let mut later = wait(&events, |event| matches!(event, Event::Stored { .. }));
    assert_eq!(confirmed(&later), 1, "what was taken back is not confirmed any more");
    assert!(later.iter().any(|event| matches!(event, Event::Full(_, None))));
    let mut read = Vec::new();
    let mut after = EntryId::ZERO;
    loop {
        keeper.give(Command::Read(None, after)).unwrap();
        later = wait(&events, |event| matches!(event, Event::Read(_)));
        let Some(Event::Read(Some(entry))) = later.pop() else { break };
        read.push(entry.frame[0]);
        after = entry.id;
    }
    // What was appended and not yet synced when it was taken back may be there all the same.
    assert_eq!(read, [0, 1, 9]);
}

#[test]
fn nothing_is_told_of_a_partition_before_what_was_released_is_noted() {
    let persisted = Arc::new(AtomicUsize::new(0));
    let (keeper, events) = start(List { room: 9, persist_failures: 3, persisted: Arc::clone(&persisted), ..List::default() });
    keeper.give(Command::Persist).unwrap();
    keeper.give(Command::Tell(partition())).unwrap();
    let seen = wait(&events, |event| matches!(event, Event::Known { .. }));
    assert!(persisted.load(Ordering::Relaxed) > 0, "told before it was noted: {seen:?}");
    assert!(seen.iter().any(|event| matches!(event, Event::Trouble(Some(_)))), "it did not fail: {seen:?}");
}

#[test]
fn trouble_ends_by_itself_when_nothing_waits() {
    let (keeper, events) = start(List { room: 9, persist_failures: 2, ..List::default() });
    keeper.give(Command::Persist).unwrap();
    wait(&events, |event| matches!(event, Event::Trouble(Some(_))));
    wait(&events, |event| matches!(event, Event::Trouble(None)));
}

#[test]
fn what_cannot_be_deleted_does_not_stop_what_comes() {
    let (keeper, events) = start(List { room: 9, release_failures: usize::MAX, ..List::default() });
    keeper.give(Command::Release(vec![release()])).unwrap();
    keeper.give(Command::Append(frame(1))).unwrap();
    let seen = wait(&events, |event| matches!(event, Event::Stored { .. }));
    assert!(!seen.iter().any(|event| matches!(event, Event::Trouble(_))), "{seen:?}");
}

#[test]
fn a_class_does_not_wait_for_the_room_of_another() {
    let (keeper, events) = start(List { room: 2, ..List::default() });
    (0..5).for_each(|n| keeper.give(Command::Append(frame(n))).unwrap());
    wait(&events, |event| matches!(event, Event::Full(Class::DEFAULT, Some(_))));
    for n in 5..8 {
        keeper.give(Command::Append(Entry { class: ALARMS, ..frame(n) })).unwrap();
    }
    let mut stored = 0;
    while stored < 3 {
        let seen = wait(&events, |event| matches!(event, Event::Stored { class: ALARMS, .. }));
        let Some(Event::Stored { count, .. }) = seen.last() else { panic!("{seen:?}") };
        stored += count;
    }
    keeper.give(Command::Read(Some(ALARMS), EntryId::ZERO)).unwrap();
    let seen = wait(&events, |event| matches!(event, Event::Read(_)));
    assert!(matches!(seen.last(), Some(Event::Read(Some(entry))) if entry.frame[0] == 5), "{seen:?}");
    keeper.give(Command::TakeBack(Some(Class::DEFAULT))).unwrap();
    wait(&events, |event| matches!(event, Event::TakenBack));
    keeper.give(Command::Append(Entry { class: ALARMS, ..frame(8) })).unwrap();
    wait(&events, |event| matches!(event, Event::Stored { class: ALARMS, count: 1, .. }));
}
