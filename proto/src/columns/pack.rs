//! Rows to columns.

use std::collections::HashMap;

use super::parts::{Part, part, whole};
use super::{END, MAX_MARKS, MAX_TEMPLATES, NULL, NUMBER, TEXT, is_mark, number, series};
use crate::codec::{put_bytes, put_varint};
use crate::frame::{Section, SectionKind};
use crate::record::{Record, RecordReader};

/// Turns rows into columns; keeps its memory between frames, at most some five times the largest frame's rows.
#[derive(Debug, Default)]
pub struct Packer {
    places: HashMap<Vec<u8>, usize>,
    /// Templates in the order of their first record, each with its slots.
    templates: Vec<Template>,
    /// Slots, ends and nulls of all templates.
    marks: usize,
    distances: Vec<i64>,
    timestamps: Vec<i64>,
    order: Vec<i64>,
    /// The record's template, made anew for each.
    text: Vec<u8>,
    packed: Vec<u8>,
}

#[derive(Debug, Default)]
struct Template {
    text: Vec<u8>,
    slots: Vec<Slot>,
}

#[derive(Debug, Default)]
struct Slot {
    /// Digits of numbers; lengths of texts.
    values: Vec<i64>,
    forms: Vec<u8>,
    text: Vec<u8>,
}

impl Packer {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Packs the rows of a frame's data sections, joined in order. `None` where the columns would be larger than the rows, or the rows are none.
    pub fn pack(&mut self, sections: &[Section], rows: &[u8]) -> Option<&[u8]> {
        self.clear();
        let mut rest = rows;
        let mut parts = Vec::new();
        for section in sections {
            let SectionKind::Data { first, next, records, raw_length } = section.kind else {
                continue;
            };
            let (bytes, left) = rest.split_at_checked(raw_length)?;
            rest = left;
            let mut position = first.value();
            for record in RecordReader::new(bytes, first, next, records) {
                let record = record.ok()?;
                self.distances.push(record.offset.value().wrapping_sub(position).cast_signed());
                self.timestamps.push(record.timestamp);
                position = record.offset.next().value();
                self.add(&record, &mut parts)?;
            }
        }
        if self.order.is_empty() {
            return None;
        }
        self.join(crc32c::crc32c(rows));
        (self.packed.len() <= rows.len()).then_some(self.packed.as_slice())
    }

    fn clear(&mut self) {
        self.places.clear();
        self.templates.clear();
        self.marks = 0;
        self.distances.clear();
        self.timestamps.clear();
        self.order.clear();
        self.packed.clear();
    }

    /// Adds a record to its template; `None` when there are too many.
    fn add<'a>(&mut self, record: &Record<'a>, parts: &mut Vec<Part<'a>>) -> Option<()> {
        let mut text = std::mem::take(&mut self.text);
        template_of(record, &mut text, parts, true);
        let shapeless = self.templates.len() >= MANY_TEMPLATES.max(self.order.len() / RECORDS_OF_A_TEMPLATE);
        if shapeless && !self.places.contains_key(&text) {
            template_of(record, &mut text, parts, false);
        }
        let place = match self.places.get(&text) {
            Some(place) => *place,
            None => self.begin(&text)?,
        };
        let template = self.templates.get_mut(place)?;
        for (slot, part) in template.slots.iter_mut().zip(parts) {
            slot.add(*part);
        }
        self.order.push(place as i64);
        self.text = text;
        Some(())
    }

    fn begin(&mut self, text: &[u8]) -> Option<usize> {
        self.marks += text.iter().filter(|byte| is_mark(**byte)).count();
        if self.templates.len() >= MAX_TEMPLATES || self.marks > MAX_MARKS {
            return None;
        }
        let slots = text.iter().filter(|byte| matches!(**byte, NUMBER | TEXT)).count();
        let place = self.templates.len();
        self.places.insert(text.to_vec(), place);
        self.templates.push(Template { text: text.to_vec(), slots: (0..slots).map(|_| Slot::default()).collect() });
        Some(place)
    }

    fn join(&mut self, checksum: u32) {
        let out = &mut self.packed;
        out.extend_from_slice(&checksum.to_le_bytes());
        put_varint(out, self.templates.len() as u64);
        for template in &self.templates {
            put_bytes(out, &template.text);
        }
        for column in [&self.distances, &self.timestamps, &self.order] {
            series::put(out, column);
        }
        for slot in self.templates.iter_mut().flat_map(|template| &mut template.slots) {
            if slot.forms.is_empty() {
                series::put(out, &slot.values);
                put_bytes(out, &slot.text);
            } else {
                number::put(out, &mut slot.values, &slot.forms);
            }
        }
    }
}

/// So many templates are never too many.
const MANY_TEMPLATES: usize = 64;

/// On average over a frame, a template has to serve so many records, or further ones are not made: their text would be repeated for nothing.
const RECORDS_OF_A_TEMPLATE: usize = 8;

impl Slot {
    fn add(&mut self, part: Part<'_>) {
        match part {
            Part::Number(number) => {
                self.values.push(number.digits);
                self.forms.push(number.form);
            }
            Part::Text(text) => {
                self.values.push(text.len() as i64);
                self.text.extend_from_slice(text);
            }
        }
    }
}

/// Makes a record's template and what stands in its slots; a coarse one, without `fine`, keeps nothing of the texts.
fn template_of<'a>(record: &Record<'a>, text: &mut Vec<u8>, parts: &mut Vec<Part<'a>>, fine: bool) {
    text.clear();
    parts.clear();
    let mut field = |field: Option<&'a [u8]>| {
        match field {
            None => text.push(NULL),
            Some(field) if fine => part(field, text, parts),
            Some(field) => whole(field, text, parts),
        }
        text.push(END);
    };
    field(record.key);
    field(record.value);
    for (name, value) in record.headers.iter() {
        field(Some(name.as_bytes()));
        field(value);
    }
}
