//! Where the next entry is, what of it is lost, and what is told about it.

use spillway_proto::frame::SectionKind;

use super::reader::Reader;
use super::{MAX_REPORTS, RotatingStore, directory_of, source_of};
use crate::entry::{Class, EntryId, Identity};
use crate::store::Report;

impl RotatingStore {
    /// The first durable entry after `after`, of a class or of all, its class and its generation; opens the generation.
    pub(super) fn find(&mut self, wanted: Option<Class>, after: EntryId) -> Option<(EntryId, Class, u64)> {
        let mut best: Option<(EntryId, Class, u64)> = None;
        for number in self.generations.keys().copied().collect::<Vec<_>>() {
            let Some(generation) = self.generations.get(&number) else {
                continue;
            };
            let (class, summary) = (generation.class, &generation.summary);
            let (Some(first), Some(last)) = (summary.first, summary.last) else {
                continue;
            };
            let known = best.filter(|(_, found, _)| *found == class).is_some();
            if wanted.is_some_and(|wanted| class != wanted) || last <= after || known || best.is_some_and(|(id, ..)| id < first) {
                continue;
            }
            if let Some(id) = self.next_in(number, class, after, last)
                && best.is_none_or(|(best, ..)| id < best)
            {
                best = Some((id, class, number));
            }
        }
        best
    }

    pub(super) fn next_in(&mut self, number: u64, class: Class, after: EntryId, last: EntryId) -> Option<EntryId> {
        if let Some((_, writer)) = self.writers.get(&class).filter(|(writing, _)| *writing == number) {
            return writer.next_id(after, last);
        }
        if self.readers.get(&class).is_none_or(|reader| reader.generation != number) {
            if let Some(reader) = self.readers.remove(&class) {
                reader.close(true);
            }
            let directory = directory_of(&self.root, number);
            let (reader, reports) = Reader::open(&directory, number, self.options.key.as_ref());
            if !reports.is_empty()
                && let Some(generation) = self.generations.get_mut(&number)
            {
                generation.damaged = true;
            }
            self.report(reports);
            self.readers.insert(class, reader);
        }
        self.readers.get(&class).and_then(|reader| reader.next_id(after, last))
    }

    /// An entry is damaged: books and reports it.
    pub(super) fn lose(&mut self, id: EntryId, class: Class, number: u64) {
        let key = self.options.key.as_ref();
        let identity = self.readers.get_mut(&class).and_then(|reader| reader.lose(id, key));
        let path = directory_of(&self.root, number);
        self.report([Report::Damaged { path, what: format!("entry {id} is damaged") }]);
        if let (Some(identity), Some(generation)) = (identity, self.generations.get_mut(&number)) {
            generation.damaged = true;
            generation.summary.lose(&identity, &mut self.sources);
            self.report_lost(&identity);
        }
    }

    pub(super) fn report_lost(&mut self, identity: &Identity) {
        for section in &identity.sections {
            if let SectionKind::Data { first, next, .. } = section.kind {
                let source = source_of(section);
                self.report([Report::Lost { source, line: section.line, first, next }]);
            }
        }
    }

    pub(super) fn report(&mut self, reports: impl IntoIterator<Item = Report>) {
        for report in reports {
            if self.reports.len() < MAX_REPORTS {
                self.reports.push(report);
            } else {
                self.unreported += 1;
            }
        }
    }
}
