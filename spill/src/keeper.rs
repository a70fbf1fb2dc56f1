//! The thread that owns a store: puts frames at its end in order, again after failures, syncs by size and time, reads, and gives space back.
//!
//! - A. Frames of a class are confirmed in the order in which they were given, each once, when they are durable (or dropped by policy, durably noted). A class that
//!   waits for room does not hold up the others.
//! - B. After a failure everything that was not confirmed is appended again, in order; nothing is given back to whoever gave it.
//! - C. Every [`Command::Read`] is answered once, however long the disk fails.

use std::collections::{BTreeMap, VecDeque};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use spillway_proto::TopicPartition;

use crate::admission::Full;
use crate::commit::{CommitLimits, GroupCommit};
use crate::entry::{Class, Entry, EntryId};
use crate::plan::Released;
use crate::store::{Appended, Error, Release, Report, SpillStore, StoredEntry, Usage};
use crate::summary::{Source, Span};

mod queue;

use queue::Queue;

/// Most commands that wait for the thread. What they hold is bounded by whoever gives them.
const MAX_COMMANDS: usize = 1024;

/// How the thread takes its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeeperLimits {
    /// When what was appended is synced.
    pub commit: CommitLimits,
    /// After a failure, and while the store is full, it is tried again so often. Default 1 s.
    pub retry_pause: Duration,
}

impl Default for KeeperLimits {
    fn default() -> Self {
        Self { commit: CommitLimits::default(), retry_pause: Duration::from_secs(1) }
    }
}

/// What the thread is told.
#[derive(Debug)]
pub enum Command {
    /// Put this at the end.
    Append(Entry),
    /// Read the first entry after this one, of a class if one is given.
    Read(Option<Class>, EntryId),
    /// This is at the centre.
    Release(Vec<Release>),
    /// Forget what is not confirmed, of a class or of all; answered by [`Event::TakenBack`]. What of it is stored nevertheless comes to light when it is read.
    TakeBack(Option<Class>),
    /// Note durably what was released so far.
    Persist,
    /// Tell what is known of a partition, with everything that was given before.
    Tell(TopicPartition),
}

/// What the thread tells.
#[derive(Debug)]
pub enum Event {
    /// The oldest `count` frames of a class that were not confirmed are durable, or dropped by policy.
    Stored {
        /// The class.
        class: Class,
        /// How many.
        count: usize,
        /// The newest entry.
        last: EntryId,
    },
    /// The answer to [`Command::TakeBack`]: nothing of it that was not confirmed before will be.
    TakenBack,
    /// The answer to [`Command::Read`]; `None`: there is no further entry.
    Read(Option<StoredEntry>),
    /// The answer to [`Command::Tell`].
    Known {
        /// The partition.
        partition: TopicPartition,
        /// What the store holds and held.
        spans: Vec<(Source, Span)>,
        /// What it was told of the centre.
        released: Option<Released>,
    },
    /// Damage, loss, what was dropped.
    Report(Report),
    /// So many reports more.
    Unreported(u64),
    /// The figures have changed.
    Usage(Usage),
    /// Frames of a class wait because the store is full; `None`: none waits any more.
    Full(Class, Option<Full>),
    /// The store cannot do what it should; `None`: it can again. It is tried on and on.
    Trouble(Option<Error>),
}

/// The thread. Dropping it syncs and closes the store.
#[derive(Debug)]
pub struct Keeper {
    commands: Option<SyncSender<Command>>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Starts the thread. `tell` is called on it for each event, and may block: then the store waits.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn start<S>(store: S, limits: KeeperLimits, tell: impl FnMut(Event) + Send + 'static) -> std::io::Result<Self>
    where
        S: SpillStore + Send + 'static,
    {
        let (commands, commands_in) = sync_channel(MAX_COMMANDS);
        let work = Work {
            store,
            tell,
            queue: Queue::default(),
            commit: GroupCommit::new(limits.commit),
            retry_pause: limits.retry_pause,
            reads: VecDeque::new(),
            retry: None,
            tidy: None,
            persists: false,
            tells: VecDeque::new(),
            usage: None,
            full: BTreeMap::new(),
            full_retry: None,
            is_in_trouble: false,
        };
        let thread = std::thread::Builder::new().name("spill".to_owned()).spawn(move || work.run(&commands_in))?;
        Ok(Self { commands: Some(commands), thread: Some(thread) })
    }

    /// Gives a command. Answers it back when too many wait: try again later.
    ///
    /// # Errors
    /// The command, when it was not taken.
    pub fn give(&self, command: Command) -> Result<(), Command> {
        match &self.commands {
            Some(commands) => {
                commands.try_send(command).map_err(|(TrySendError::Full(command) | TrySendError::Disconnected(command))| command)
            }
            None => Err(command),
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.commands = None;
        if let Some(thread) = self.thread.take() {
            // A panic there was printed there.
            drop(thread.join());
        }
    }
}

struct Work<S, T> {
    store: S,
    tell: T,
    queue: Queue,
    commit: GroupCommit,
    reads: VecDeque<(Option<Class>, EntryId)>,
    /// Appending is tried again.
    retry: Option<Instant>,
    /// Deleting is tried again.
    tidy: Option<Instant>,
    /// What was released has to be noted durably before anything more is told of partitions.
    persists: bool,
    tells: VecDeque<TopicPartition>,
    retry_pause: Duration,
    usage: Option<Usage>,
    /// Classes that wait for room.
    full: BTreeMap<Class, Full>,
    /// They are tried again.
    full_retry: Option<Instant>,
    is_in_trouble: bool,
}

impl<S: SpillStore, T: FnMut(Event)> Work<S, T> {
    fn run(mut self, commands: &Receiver<Command>) {
        loop {
            let due = [self.commit.due(), self.retry, self.full_retry, self.tidy].into_iter().flatten().min();
            let wait = due.map_or(self.retry_pause, |due| due.saturating_duration_since(Instant::now()));
            match commands.recv_timeout(wait) {
                Ok(command) => self.take(command),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            // What has come meanwhile goes into the same sync.
            for command in commands.try_iter().take(MAX_COMMANDS) {
                self.take(command);
            }
            self.work();
        }
        if let Err(error) = self.store.close() {
            tracing::warn!(%error, "the spill was not closed properly; the next start takes longer");
        }
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Append(entry) => self.queue.push(entry),
            Command::Read(class, after) => self.reads.push_back((class, after)),
            Command::Release(releases) => {
                self.release(&releases);
                // There may be room now.
                self.full_retry = None;
            }
            Command::TakeBack(class) => {
                self.confirm();
                self.queue.clear(class);
                (self.tell)(Event::TakenBack);
            }
            Command::Persist => self.persists = true,
            Command::Tell(partition) => {
                self.tells.push_back(partition);
                self.work();
            }
        }
    }

    /// Gives space back. What cannot be deleted is tried again; it does not keep frames from being appended.
    fn release(&mut self, releases: &[Release]) {
        self.tidy = None;
        if let Err(error) = self.store.release(releases) {
            tracing::warn!(%error, "the spill cannot give all of its space back; trying again");
            self.tidy = Some(Instant::now() + self.retry_pause);
        }
    }

    /// Tells of partitions, with everything that was given before.
    fn tell_partitions(&mut self) {
        if self.persists {
            if let Err(error) = self.store.persist() {
                return self.note(Err(error));
            }
            self.persists = false;
        }
        if !self.tells.is_empty() && self.commit.due().is_some() {
            self.sync();
        }
        for partition in std::mem::take(&mut self.tells) {
            let (spans, released) = (self.store.spans(&partition), self.store.released(&partition));
            (self.tell)(Event::Known { partition, spans, released });
        }
    }

    fn work(&mut self) {
        let now = Instant::now();
        let retry = self.retry.take_if(|retry| *retry <= now).is_some();
        let full_retry = self.full_retry.take_if(|retry| *retry <= now).is_some();
        if self.tidy.take_if(|tidy| *tidy <= now).is_some() || retry || full_retry {
            self.release(&[]);
        }
        if retry && self.is_in_trouble && self.queue.next(&BTreeMap::new()).is_none() {
            // Nothing waits that would find out whether the disk works again.
            let outcome = self.store.persist();
            self.note(outcome);
        }
        // A store that takes nothing can still be read.
        if self.retry.is_none() {
            self.append(now);
        }
        if self.commit.is_due(now) {
            self.sync();
        }
        self.confirm();
        if self.retry.is_none() || !self.persists {
            self.tell_partitions();
        }
        self.read();
        self.report();
    }

    fn sync(&mut self) {
        self.commit.done();
        let outcome = self.store.sync().map(|_| ());
        self.note(outcome);
        self.confirm();
    }

    fn append(&mut self, now: Instant) {
        // Those that wait for room are tried at intervals, while the others go on.
        let tries_full = self.full_retry.is_none();
        let mut full = if tries_full { BTreeMap::new() } else { self.full.clone() };
        while let Some(entry) = self.queue.next(&full) {
            let (class, bytes) = (entry.class, entry.frame.len());
            match self.store.append(entry, now_ms()) {
                Ok(Appended::Stored(id)) => {
                    self.queue.placed(class, Some(id));
                    self.commit.appended(bytes, now);
                }
                Ok(Appended::Dropped(_)) => self.queue.placed(class, None),
                Ok(Appended::Full(because)) => {
                    full.insert(class, because);
                }
                Err(error @ Error::EntryTooLarge { .. }) => {
                    // No frame that the protocol allows is: it would stop everything behind it.
                    tracing::error!(%error, "a frame cannot be spilled and is dropped");
                    self.queue.placed(class, None);
                }
                Err(error) => {
                    self.note(Err(error));
                    break;
                }
            }
        }
        if tries_full && !full.is_empty() {
            self.full_retry = Some(now + self.retry_pause);
        }
        let before = std::mem::replace(&mut self.full, full);
        for class in before.keys().filter(|class| !self.full.contains_key(class)) {
            (self.tell)(Event::Full(*class, None));
        }
        for (class, because) in self.full.iter().filter(|(class, because)| before.get(class) != Some(because)) {
            (self.tell)(Event::Full(*class, Some(*because)));
        }
    }

    fn confirm(&mut self) {
        let last = self.store.durable();
        for (class, count) in self.queue.confirm(last) {
            (self.tell)(Event::Stored { class, count, last });
        }
    }

    fn read(&mut self) {
        while let Some((class, after)) = self.reads.front().copied() {
            match self.store.read_of(class, after) {
                Ok(entry) => {
                    self.reads.pop_front();
                    (self.tell)(Event::Read(entry));
                }
                Err(error) => return self.note(Err(error)),
            }
        }
    }

    /// Tells of trouble once, and of its end. What was not durable is appended again.
    fn note(&mut self, outcome: Result<(), Error>) {
        match outcome {
            Ok(()) if self.is_in_trouble => {
                self.is_in_trouble = false;
                (self.tell)(Event::Trouble(None));
            }
            Ok(()) => {}
            Err(error) => {
                self.confirm();
                self.queue.again();
                self.commit.done();
                self.retry = Some(Instant::now() + self.retry_pause);
                if !std::mem::replace(&mut self.is_in_trouble, true) {
                    (self.tell)(Event::Trouble(Some(error)));
                }
            }
        }
    }

    fn report(&mut self) {
        let (reports, more) = self.store.take_reports();
        for report in reports {
            (self.tell)(Event::Report(report));
        }
        if more > 0 {
            (self.tell)(Event::Unreported(more));
        }
        let usage = self.store.usage();
        if self.usage != Some(usage) {
            self.usage = Some(usage);
            (self.tell)(Event::Usage(usage));
        }
    }
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
