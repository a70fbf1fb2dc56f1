//! Frames that are not confirmed, in order. Those of a class do not wait for those of another.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::admission::Full;
use crate::entry::{Class, Entry, EntryId};

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

    /// The first one that has to be appended, but for those of the classes in `full`.
    pub(super) fn next(&self, full: &BTreeMap<Class, Full>) -> Option<&Entry> {
        let is_next = |waiting: &&Waiting| waiting.place == Place::None && !full.contains_key(&waiting.entry.class);
        self.frames.iter().find(is_next).map(|waiting| &waiting.entry)
    }

    /// The first one of a class was stored, or dropped.
    pub(super) fn placed(&mut self, class: Class, id: Option<EntryId>) {
        let is_next = |waiting: &&mut Waiting| waiting.place == Place::None && waiting.entry.class == class;
        if let Some(waiting) = self.frames.iter_mut().find(is_next) {
            waiting.place = id.map_or(Place::Dropped, Place::In);
        }
    }

    /// How many of each class are done, from its oldest on, now that everything up to `durable` is durable.
    pub(super) fn confirm(&mut self, durable: EntryId) -> BTreeMap<Class, usize> {
        let is_done = |waiting: &Waiting| match waiting.place {
            Place::None => false,
            Place::In(id) => id <= durable,
            Place::Dropped => true,
        };
        let (mut done, mut waits) = (BTreeMap::new(), BTreeSet::new());
        self.frames.retain(|waiting| {
            let class = waiting.entry.class;
            if waits.contains(&class) || !is_done(waiting) {
                waits.insert(class);
                return true;
            }
            *done.entry(class).or_default() += 1;
            false
        });
        done
    }

    /// Nothing of a class, or of all, is to be confirmed any more. What was appended of it may become durable nevertheless.
    pub(super) fn clear(&mut self, class: Option<Class>) {
        self.frames.retain(|waiting| class.is_some_and(|class| waiting.entry.class != class));
    }

    /// The store failed: what is not confirmed has to be appended again.
    pub(super) fn again(&mut self) {
        for waiting in self.frames.iter_mut().filter(|waiting| matches!(waiting.place, Place::In(_))) {
            waiting.place = Place::None;
        }
    }
}
