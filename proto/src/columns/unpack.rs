//! Columns to rows. Nothing that was read is trusted: rows end where the frame's header says, and have the checksum that stands in front.

use super::number::Numbers;
use super::series::Series;
use super::{END, MAX_MARKS, MAX_TEMPLATES, NUMBER, TEXT, is_mark};
use crate::codec::{DecodeError, Reader, put_varint, put_zigzag};
use crate::frame::{Section, SectionKind};

/// A record's least row: distance, timestamp, key, value and the number of headers, a byte each.
const LEAST_ROW: usize = 5;

/// Rows are checked after each piece of text, so they may pass their end by the numbers of a record before that is found.
const ROOM: usize = 64;

/// Restores the rows of a frame's data sections, joined in order. Allocates `raw_length` bytes for them,
/// and at most 512 for each of [`MAX_MARKS`].
///
/// # Errors
/// When the columns are not what they should be, or the rows not what the sections say.
pub fn unpack(packed: &[u8], sections: &[Section], raw_length: usize) -> Result<Vec<u8>, DecodeError> {
    let mut reader = Reader::new(packed);
    let expected = reader.array("rows' checksum").map(u32::from_le_bytes)?;
    let count = sections.iter().map(records_of).sum::<usize>();
    if count == 0 || count > raw_length / LEAST_ROW {
        return Err(DecodeError::Range { what: "records in columns", value: count as u64, limit: (raw_length / LEAST_ROW) as u64 });
    }
    let mut templates = read_templates(&mut reader)?;
    let mut columns = Columns {
        distances: Series::read(&mut reader, count, "distances")?,
        timestamps: Series::read(&mut reader, count, "timestamps")?,
        order: Series::read(&mut reader, count, "templates' order")?,
    };
    count_records(&mut templates, columns.order.clone(), count)?;
    for template in templates.iter_mut().filter(|template| template.records > 0) {
        for piece in &mut template.pieces {
            piece.fill(&mut reader, template.records)?;
        }
    }
    reader.finish("the last column")?;
    let mut rows = Vec::with_capacity(raw_length + ROOM);
    let mut field = Vec::new();
    for section in sections {
        let (end, records) = (rows.len() + section.kind.raw_length(), records_of(section));
        let mut timestamp = 0i64;
        for _ in 0..records {
            put_varint(&mut rows, columns.distances.next().cast_unsigned());
            let at = columns.timestamps.next();
            put_zigzag(&mut rows, at.wrapping_sub(timestamp));
            timestamp = at;
            let template = usize::try_from(columns.order.next()).ok().and_then(|place| templates.get_mut(place));
            let template = template.ok_or(DecodeError::Truncated { what: "template", at: 0 })?;
            template.print(&mut rows, &mut field, end)?;
        }
        if rows.len() != end {
            return Err(DecodeError::Mismatch { what: "section's length", left: rows.len() as u64, right: end as u64 });
        }
    }
    let computed = crc32c::crc32c(&rows);
    if computed != expected || rows.len() != raw_length {
        return Err(DecodeError::Checksum { found: expected, computed });
    }
    Ok(rows)
}

struct Columns<'a> {
    distances: Series<'a>,
    timestamps: Series<'a>,
    order: Series<'a>,
}

struct Template<'a> {
    pieces: Vec<Piece<'a>>,
    fields: usize,
    records: usize,
}

enum Piece<'a> {
    Literal(&'a [u8]),
    Null,
    End,
    /// A slot whose column was not read yet.
    Empty {
        number: bool,
    },
    Numbers(Numbers<'a>),
    Texts {
        lengths: Series<'a>,
        texts: Reader<'a>,
    },
}

fn records_of(section: &Section) -> usize {
    match section.kind {
        SectionKind::Data { records, .. } => records as usize,
        SectionKind::Gap { .. } | SectionKind::Start { .. } => 0,
    }
}

fn read_templates<'a>(reader: &mut Reader<'a>) -> Result<Vec<Template<'a>>, DecodeError> {
    let count = reader.length(MAX_TEMPLATES, "number of templates")?;
    let mut templates = Vec::with_capacity(count.min(reader.remaining()));
    // Literals lie between marks, so these bound all pieces.
    let mut left = MAX_MARKS;
    for _ in 0..count {
        let length = reader.length(reader.remaining(), "template")?;
        templates.push(Template::parse(reader.bytes(length, "template")?, &mut left)?);
    }
    Ok(templates)
}

/// Counts the records of each template.
fn count_records(templates: &mut [Template<'_>], mut order: Series<'_>, count: usize) -> Result<(), DecodeError> {
    let limit = templates.len().saturating_sub(1) as u64;
    for _ in 0..count {
        let place = order.next();
        let template = usize::try_from(place).ok().and_then(|place| templates.get_mut(place));
        template.ok_or_else(|| DecodeError::Range { what: "template's place", value: place.cast_unsigned(), limit })?.records += 1;
    }
    Ok(())
}

impl<'a> Template<'a> {
    fn parse(text: &'a [u8], marks_left: &mut usize) -> Result<Self, DecodeError> {
        let (mut pieces, mut fields, mut rest) = (Vec::new(), 0, text);
        while let Some(byte) = rest.first().copied() {
            let literal = rest.iter().take_while(|byte| !is_mark(**byte)).count();
            let (done, left) = rest.split_at(literal.max(1));
            rest = left;
            if literal == 0 {
                let limit = MAX_MARKS as u64;
                *marks_left = marks_left.checked_sub(1).ok_or(DecodeError::Range { what: "marks", value: limit + 1, limit })?;
            }
            let piece = match byte {
                _ if literal > 0 => Piece::Literal(done),
                NUMBER | TEXT => Piece::Empty { number: byte == NUMBER },
                END => {
                    fields += 1;
                    Piece::End
                }
                _ => Piece::Null,
            };
            pieces.push(piece);
        }
        // Key, value, and pairs for headers, the last one ended.
        if fields < 2 || fields % 2 != 0 || text.last() != Some(&END) {
            return Err(DecodeError::Mismatch { what: "fields of a template", left: fields as u64, right: 2 });
        }
        Ok(Self { pieces, fields, records: 0 })
    }

    /// Appends the next record's key, value and headers; rows may reach up to `end`.
    fn print(&mut self, rows: &mut Vec<u8>, field: &mut Vec<u8>, end: usize) -> Result<(), DecodeError> {
        field.clear();
        let (mut place, mut null) = (0usize, false);
        for piece in &mut self.pieces {
            match piece {
                Piece::Literal(text) => field.extend_from_slice(text),
                Piece::Null => null = true,
                Piece::Numbers(numbers) => numbers.print_next(field),
                Piece::Texts { lengths, texts } => {
                    let length = usize::try_from(lengths.next()).unwrap_or(usize::MAX);
                    field.extend_from_slice(texts.bytes(length, "text")?);
                }
                Piece::Empty { .. } => return Err(DecodeError::Truncated { what: "column", at: 0 }),
                Piece::End => {
                    // A header's name is never null and is written without the one that tells null from empty.
                    let is_name = place >= 2 && place.is_multiple_of(2);
                    match (null, is_name) {
                        (true, _) => put_varint(rows, 0),
                        (false, true) => put_varint(rows, field.len() as u64),
                        (false, false) => put_varint(rows, field.len() as u64 + 1),
                    }
                    rows.extend_from_slice(field);
                    field.clear();
                    (place, null) = (place + 1, false);
                    if place == 2 {
                        put_varint(rows, (self.fields / 2 - 1) as u64);
                    }
                }
            }
            if rows.len() + field.len() > end {
                return Err(DecodeError::Range { what: "section's length", value: (rows.len() + field.len()) as u64, limit: end as u64 });
            }
        }
        Ok(())
    }
}

impl<'a> Piece<'a> {
    /// Reads the column of a slot.
    fn fill(&mut self, reader: &mut Reader<'a>, records: usize) -> Result<(), DecodeError> {
        match self {
            Self::Empty { number: true } => *self = Self::Numbers(Numbers::read(reader, records)?),
            Self::Empty { number: false } => {
                let lengths = Series::read(reader, records, "lengths of texts")?;
                let length = reader.length(reader.remaining(), "texts")?;
                *self = Self::Texts { lengths, texts: Reader::new(reader.bytes(length, "texts")?) };
            }
            Self::Literal(_) | Self::Null | Self::End | Self::Numbers(_) | Self::Texts { .. } => {}
        }
        Ok(())
    }
}
