//! How space is given back: what is released, and what is dropped by policy.

use std::fs;
use std::path::PathBuf;

use spillway_proto::frame::GapReason;

use super::disk::{self, failed};
use super::{QUARANTINE_DIRECTORY, RotatingStore, SLACK_FILE, STATE_FILE, TRASH_PREFIX, directory_of, source_of};
use crate::entry::{Class, Entry};
use crate::plan::Released;
use crate::seal;
use crate::state::DroppedLine;
use crate::store::{Error, Report};
use crate::summary::{Source, Span, What, span_of};

/// Disk kept for a state file.
const SLACK_BYTES: u64 = 256 * 1024;

impl RotatingStore {
    /// Deletes the generations of which everything is released; the open ones only when nothing else is left.
    pub(super) fn delete_released(&mut self) -> Result<(), Error> {
        let is_open = |number: &u64| self.writers.values().any(|(writing, _)| writing == number);
        let released = self.generations.iter().filter(|(_, generation)| self.is_released(&generation.summary));
        let mut numbers = released.map(|(number, _)| *number).collect::<Vec<_>>();
        if numbers.len() < self.generations.len() || !self.pending.is_empty() {
            numbers.retain(|number| !is_open(number));
        }
        if numbers.is_empty() {
            return Ok(());
        }
        for class in self.writers.iter().filter(|(_, (number, _))| numbers.contains(number)).map(|(class, _)| *class).collect::<Vec<_>>() {
            self.close_writer(class);
        }
        self.forget_released_drops();
        // What is released may be stale on disk: the centre knows it. Room for this may come only with the deleting.
        drop(self.write_state());
        self.delete(&numbers)
    }

    /// Drops the oldest generation of a class. What it held is known afterwards.
    pub(super) fn drop_oldest(&mut self, class: Class) -> Result<(), Error> {
        let oldest = self.generations.iter().find(|(_, generation)| generation.class == class && !generation.summary.is_empty());
        let Some(number) = oldest.map(|(number, _)| *number) else {
            return Ok(());
        };
        if self.writers.get(&class).is_some_and(|(writing, _)| *writing == number) {
            self.sync_writers()?;
            self.close_writer(class);
        }
        let Some(generation) = self.generations.get(&number) else {
            return Ok(());
        };
        let spans = generation.summary.spans().filter_map(|(key, span)| Some((self.sources.source(key)?.clone(), span)));
        let dropped = spans.filter(|(source, span)| !self.is_span_released(source, span)).collect::<Vec<_>>();
        self.state.dropped_records += generation.summary.records;
        for (source, span) in dropped {
            self.drop_span(class, source, span);
        }
        self.write_state()?;
        self.delete(&[number])
    }

    /// Drops a frame that was not stored. Durable with the next state file, which is written now.
    pub(super) fn drop_newest(&mut self, entry: &Entry) -> Result<(), Error> {
        for section in self.place(entry) {
            self.state.dropped_records += section.records();
            self.drop_span(entry.class, source_of(&section), span_of(&section, false));
        }
        self.write_state()
    }

    /// Writes the state, durably. On a full disk it takes the slack.
    pub(super) fn write_state(&mut self) -> Result<(), Error> {
        (self.state.next_entry, self.state.next_generation) = (self.next_entry.0, self.next_generation);
        let salt = seal::fresh_salt()?;
        let too_large = || Error::EntryTooLarge { bytes: 0 };
        let bytes = self.state.encode(self.options.key.as_ref(), salt).ok_or_else(too_large)?;
        self.written_bytes += bytes.len() as u64;
        let written = disk::replace(&self.root, STATE_FILE, &bytes);
        if !self.slack || !written.as_ref().is_err_and(Error::is_disk_full) {
            self.take_slack();
            return written;
        }
        drop(fs::remove_file(self.root.join(SLACK_FILE)));
        self.slack = false;
        disk::replace(&self.root, STATE_FILE, &bytes)
    }

    /// Takes the slack if it is not there. On a full disk that is tried again later.
    pub(super) fn take_slack(&mut self) {
        if self.slack {
            return;
        }
        let path = self.root.join(SLACK_FILE);
        let taken = fs::File::create(&path).map_err(failed("make", &path)).and_then(|file| {
            disk::reserve(&file, &path, SLACK_BYTES)?;
            file.set_len(SLACK_BYTES).map_err(failed("reserve", &path))
        });
        self.slack = taken.is_ok();
    }

    /// Forgets generations that hold nothing.
    pub(super) fn forget_empty(&mut self) {
        let open = |number: &u64| self.writers.values().any(|(writing, _)| writing == number);
        let empty = self.generations.iter().filter(|(number, generation)| generation.summary.is_empty() && !open(number));
        let numbers = empty.map(|(number, _)| *number).collect::<Vec<_>>();
        if !numbers.is_empty()
            && let Err(error) = self.delete(&numbers)
        {
            // It is found empty at the next start.
            tracing::debug!(%error, "deleting an empty generation");
        }
    }

    /// Deletes generations: first out of the way, durably, so that a half-deleted one is never taken for a damaged one.
    fn delete(&mut self, numbers: &[u64]) -> Result<(), Error> {
        let mut trash: Vec<PathBuf> = Vec::new();
        let mut outcome = Ok(());
        for number in numbers {
            if let Some(class) = self.readers.iter().find(|(_, reader)| reader.generation == *number).map(|(class, _)| *class)
                && let Some(reader) = self.readers.remove(&class)
            {
                reader.close(false);
            }
            let Some(generation) = self.generations.get(number) else {
                continue;
            };
            let directory = directory_of(&self.root, *number);
            if generation.damaged {
                // One that stays, as on a full disk, keeps no other from going.
                if let Err(error) = self.put_aside(*number) {
                    outcome = Err(error);
                    continue;
                }
            } else {
                let name = directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let away = self.root.join(format!("{TRASH_PREFIX}{name}"));
                fs::rename(&directory, &away).map_err(failed("rename", &directory))?;
                trash.push(away);
            }
            self.generations.remove(number);
        }
        disk::sync_directory(&self.root)?;
        for directory in trash {
            fs::remove_dir_all(&directory).map_err(failed("remove", &directory))?;
        }
        outcome
    }

    /// Moves a damaged generation to the quarantine, and the oldest ones out of it when it is full.
    pub(super) fn put_aside(&mut self, number: u64) -> Result<(), Error> {
        let (directory, quarantine) = (directory_of(&self.root, number), self.root.join(QUARANTINE_DIRECTORY));
        disk::make_directory(&quarantine)?;
        let mut bytes = disk::bytes_below(&directory) + disk::bytes_below(&quarantine);
        let mut kept = fs::read_dir(&quarantine).into_iter().flatten().flatten().map(|entry| entry.path()).collect::<Vec<_>>();
        kept.sort();
        for oldest in kept {
            if bytes > self.options.quarantine_max_bytes {
                bytes = bytes.saturating_sub(disk::bytes_below(&oldest));
                fs::remove_dir_all(&oldest).map_err(failed("remove", &oldest))?;
            }
        }
        if bytes > self.options.quarantine_max_bytes {
            return fs::remove_dir_all(&directory).map_err(failed("remove", &directory));
        }
        let path = quarantine.join(directory.file_name().unwrap_or_default());
        fs::rename(&directory, &path).map_err(failed("rename", &directory))?;
        disk::sync_directory(&quarantine)?;
        self.report([Report::Quarantined { path }]);
        Ok(())
    }

    fn is_released(&self, summary: &crate::summary::Summary) -> bool {
        summary.spans().all(|(key, span)| self.sources.source(key).is_some_and(|source| self.is_span_released(source, &span)))
    }

    fn is_span_released(&self, source: &Source, span: &Span) -> bool {
        let Some(Released { line, next, .. }) = self.state.released.get(&source.partition) else {
            return false;
        };
        span.line < *line || (span.line == *line && span.next <= *next)
    }

    fn drop_span(&mut self, class: Class, source: Source, span: Span) {
        match span.what {
            What::Start | What::Gap(GapReason::Truncated | GapReason::TopicRecreated) => return,
            What::Data | What::Lost | What::Gap(_) => {}
        }
        let Source { partition, topic_id, partition_count } = source.clone();
        let empty = || DroppedLine { topic_id, partition_count, ranges: crate::ranges::Ranges::default() };
        let line = self.state.dropped.entry((partition, span.line)).or_insert_with(empty);
        line.ranges.insert(span.first, span.next);
        if span.what == What::Data {
            self.report([Report::Dropped { class, source, line: span.line, first: span.first, next: span.next }]);
        }
    }

    fn forget_released_drops(&mut self) {
        let released = &self.state.released;
        self.state.dropped.retain(|(partition, line), dropped| {
            let Some(known) = released.get(partition) else {
                return true;
            };
            if known.line == *line {
                dropped.ranges.remove(spillway_proto::NextOffset::ZERO, known.next);
            }
            known.line <= *line && !dropped.ranges.is_empty()
        });
    }
}
