//! How entries come in: the open generations, their syncs, and what happens to them after a failure.

use super::generation::Generation;
use super::writer::Writer;
use super::{RotatingStore, directory_of, disk, record};
use crate::entry::{Class, Entry, EntryId};
use crate::index::Head;
use crate::seal::{self, NO_KEY, Sealer};
use crate::store::Error;
use crate::summary::Summary;

impl RotatingStore {
    pub(super) fn write(&mut self, entry: &Entry) -> Result<EntryId, Error> {
        let limit = self.options.generation_bytes();
        if self.writers.get(&entry.class).is_some_and(|(_, writer)| !writer.has_room(entry.stored_bytes(), limit)) {
            self.sync_writers()?;
            self.close_writer(entry.class);
        }
        let sections = self.place(entry);
        let identity = record::identity_of(entry, sections);
        let mut encoded = Vec::new();
        identity.encode(&mut encoded);
        let id = self.next_entry;
        let (number, writer) = self.writer(entry.class)?;
        writer.append(id, &encoded, &entry.frame)?;
        self.next_entry = id.next();
        self.pending.push((id, number, identity));
        Ok(id)
    }

    pub(super) fn writer(&mut self, class: Class) -> Result<(u64, &mut Writer), Error> {
        if !self.writers.contains_key(&class) {
            let number = self.next_generation;
            let (key_id, salt) = match &self.options.key {
                Some(key) => (key.id(), seal::fresh_salt()?),
                None => (NO_KEY, [0; 16]),
            };
            let head = Head { generation: number, class, key_id, salt };
            let sealer = Sealer::new(self.options.key.as_ref(), &salt);
            let directory = directory_of(&self.root, number);
            let writer = Writer::create(&self.root, &directory, head, sealer, self.options.generation_bytes())?;
            self.next_generation += 1;
            let summary = Summary::default();
            self.generations.insert(number, Generation { class, directory, summary, disk_bytes: 0, damaged: false });
            self.writers.insert(class, (number, writer));
        }
        match self.writers.get_mut(&class) {
            Some((number, writer)) => Ok((*number, writer)),
            // Inserted above.
            None => Err(Error::Database { path: self.root.clone(), text: "no open generation".to_owned() }),
        }
    }

    pub(super) fn sync_writers(&mut self) -> Result<EntryId, Error> {
        // What was given up after a failure has numbers too: they do not count.
        let last = self.pending.last().map_or(self.durable, |(id, ..)| *id);
        for (number, writer) in self.writers.values_mut() {
            if self.pending.iter().any(|(_, generation, _)| generation == number) {
                writer.sync(last)?;
            }
            self.written_bytes += writer.take_written();
        }
        for (id, number, identity) in std::mem::take(&mut self.pending) {
            if let Some(generation) = self.generations.get_mut(&number) {
                generation.summary.add(id, &identity, false, &mut self.sources);
            }
        }
        self.durable = self.durable.max(last);
        Ok(self.durable)
    }

    /// Gives up the open generations, and with them what was appended and not synced. What was synced stays.
    pub(super) fn abandon(&mut self) {
        let durable = self.durable;
        for (number, mut writer) in std::mem::take(&mut self.writers).into_values() {
            self.written_bytes += writer.take_written();
            writer.abandon(durable);
            self.measure(number);
        }
        self.forget_empty();
        // Their numbers are not given again: they may be on disk.
        self.pending.clear();
        self.tails = self.tails_now();
    }

    pub(super) fn close_writer(&mut self, class: Class) {
        if let Some((number, writer)) = self.writers.remove(&class) {
            writer.close();
            self.measure(number);
            if let Some(generation) = self.generations.get_mut(&number) {
                generation.summary.close();
            }
            self.forget_empty();
        }
    }

    /// Looks how much disk a generation takes, now that it is not written any more.
    pub(super) fn measure(&mut self, number: u64) {
        if let Some(generation) = self.generations.get_mut(&number) {
            generation.disk_bytes = disk::bytes_below(&generation.directory);
        }
    }
}
