//! Frames that are not confirmed, in order.

use std::collections::VecDeque;

use crate::entry::{Entry, EntryId};

/// Pure: what the store took of them, and what has to be appended (again).
#[derive(Debug, Default)]
pub(super) struct Queue {
    frames: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    entry: Entry,
    place: Place,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Not appended.
    None,
    /// Durable when the store says so.
    In(EntryId),
    /// Dropped by policy.
    Dropped,
}

impl Queue {
    pub(super) fn push(&mut self, entry: Entry) {
        self.frames.push_back(Waiting { entry, place: Place::None });
    }

    /// The first one that has to be appended.
    pub(super) fn next(&self) -> Option<&Entry> {
        self.frames.iter().find(|waiting| waiting.place == Place::None).map(|waiting| &waiting.entry)
    }

    /// That one was stored, or dropped.
    pub(super) fn placed(&mut self, id: Option<EntryId>) {
        if let Some(waiting) = self.frames.iter_mut().find(|waiting| waiting.place == Place::None) {
            waiting.place = id.map_or(Place::Dropped, Place::In);
        }
    }

    /// How many from the front are done, now that everything up to `durable` is durable.
    pub(super) fn confirm(&mut self, durable: EntryId) -> usize {
        let is_done = |waiting: &Waiting| match waiting.place {
            Place::None => false,
            Place::In(id) => id <= durable,
            Place::Dropped => true,
        };
        let count = self.frames.iter().take_while(|waiting| is_done(waiting)).count();
        self.frames.drain(..count);
        count
    }

    /// Nothing of it is to be confirmed any more. What was appended of it may become durable nevertheless.
    pub(super) fn clear(&mut self) {
        self.frames.clear();
    }

    /// The store failed: what is not confirmed has to be appended again.
    pub(super) fn again(&mut self) {
        for waiting in self.frames.iter_mut().filter(|waiting| matches!(waiting.place, Place::In(_))) {
            waiting.place = Place::None;
        }
    }
}
