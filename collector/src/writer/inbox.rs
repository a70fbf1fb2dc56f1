//! What a session hands to its writer, across the border between tasks and threads.
//!
//! The inbox never blocks its sender: its items are bounded by the sections that the session may hold (see [`crate::session::limits`])
//! and by the lanes that it may announce. What can be asked any number of times is asked once between two of those.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use spillway_collector_core::sequencer::Ready;
use spillway_proto::{Lane, NextOffset, TopicId, TopicName, TopicPartition};

use crate::custody::HeldFrame;

/// What the writer is asked to do, in order.
#[derive(Debug)]
pub enum Command {
    /// Write a section.
    Write(Ready<HeldFrame>),
    /// Tell where a lane goes on; its remote topic is there. Boxed, so that a section's command stays small.
    Open(Box<OpenLane>),
    /// Commit without waiting for more.
    Flush,
    /// The site has a new session marker: is it still ours?
    CheckMarker,
}

/// A lane that the agent announced.
#[derive(Debug, Clone)]
pub struct OpenLane {
    /// The lane.
    pub lane: Lane,
    /// The source partition.
    pub source: TopicPartition,
    /// The source topic's id.
    pub topic_id: TopicId,
    /// Partitions of the source topic.
    pub partition_count: u32,
    /// Of a late lane: where its range ends.
    pub until: Option<NextOffset>,
    /// The topic at the centre.
    pub remote: TopicName,
    /// The lane that had the partition before in this session, if any.
    pub replaces: Option<Lane>,
}

/// How the writer shall end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Commit what is there, by the deadline.
    Commit(Instant),
    /// At once: another session has the site.
    Abandon,
}

/// The queue between session and writer.
#[derive(Debug, Default)]
pub struct Inbox {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    commands: VecDeque<Command>,
    ending: Option<Ending>,
}

impl Inbox {
    /// Appends a command; one that repeats the last one is left out.
    pub fn push(&self, command: Command) {
        let mut state = self.lock();
        match (&command, state.commands.back()) {
            (Command::Flush, Some(Command::Flush)) | (Command::CheckMarker, Some(Command::CheckMarker)) => return,
            _ => state.commands.push_back(command),
        }
        self.changed.notify_one();
    }

    /// Appends sections; the vector is empty afterwards.
    pub fn push_all(&self, ready: &mut Vec<Ready<HeldFrame>>) {
        if !ready.is_empty() {
            self.lock().commands.extend(ready.drain(..).map(Command::Write));
            self.changed.notify_one();
        }
    }

    /// Asks the writer to end. An order to abandon is not taken back.
    pub fn end(&self, ending: Ending) {
        let mut state = self.lock();
        if state.ending != Some(Ending::Abandon) {
            state.ending = Some(ending);
        }
        self.changed.notify_one();
    }

    /// How the writer shall end, if it shall.
    pub fn ending(&self) -> Option<Ending> {
        self.lock().ending
    }

    /// Takes everything into `commands`; waits for something until `deadline` (`None`: as long as it takes).
    pub fn take(&self, commands: &mut VecDeque<Command>, deadline: Option<Instant>) -> Option<Ending> {
        let mut state = self.lock();
        while state.commands.is_empty() && state.ending.is_none() {
            state = match deadline {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        break;
                    }
                    self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        commands.append(&mut state.commands);
        state.ending
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_again_and_again_waits_once() {
        let inbox = Inbox::default();
        for _ in 0..100_000 {
            inbox.push(Command::Flush);
        }
        inbox.push(Command::CheckMarker);
        inbox.push(Command::CheckMarker);
        inbox.push(Command::Flush);
        let mut commands = VecDeque::new();
        assert_eq!(inbox.take(&mut commands, None), None);
        assert!(matches!(commands.make_contiguous(), [Command::Flush, Command::CheckMarker, Command::Flush]), "{}", commands.len());
    }
}
