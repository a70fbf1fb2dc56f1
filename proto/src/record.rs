//! Records inside a section: offsets as distances, so that runs cost a byte each; keys and values as they are.
//!
//! A record is `varint` distance from the position before it (0 = the next offset), `zigzag` timestamp distance from the record before
//! (milliseconds, CreateTime; −1 stands for none), optional key, optional value, `varint` header count and for each header its name as
//! bytes and its optional value. Optional bytes are a varint of length + 1, 0 for null: null is not empty.

use crate::codec::{DecodeError, Reader, put_bytes, put_varint, put_zigzag};
use crate::types::{NextOffset, Offset};

/// One record, borrowed from the section's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record<'a> {
    /// Source offset.
    pub offset: Offset,
    /// CreateTime in milliseconds since 1970; −1 when the source has none.
    pub timestamp: i64,
    /// Key; `None` is Kafka's null.
    pub key: Option<&'a [u8]>,
    /// Value; `None` is Kafka's null (a tombstone).
    pub value: Option<&'a [u8]>,
    /// Headers in order; read them with [`Headers`].
    pub headers: Headers<'a>,
}

/// Headers of a record, in order, names not necessarily distinct. Validated when the record was read, so iterating cannot fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Headers<'a> {
    count: usize,
    bytes: &'a [u8],
}

impl<'a> Headers<'a> {
    /// How many headers there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// True without headers.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Name and value of each header.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, Option<&'a [u8]>)> + use<'a> {
        let mut reader = Reader::new(self.bytes);
        (0..self.count).map_while(move |_| header(&mut reader).ok())
    }
}

/// Appends records to a section's bytes.
#[derive(Debug, Clone)]
pub struct RecordWriter {
    first: NextOffset,
    /// One past the last record: what the next distance counts from, as the reader does.
    position: NextOffset,
    /// End of the range covered; above `position` after a hole.
    next: NextOffset,
    timestamp: i64,
    count: u32,
    bytes: Vec<u8>,
}

impl RecordWriter {
    /// A section that covers offsets from `first`.
    pub fn new(first: NextOffset) -> Self {
        Self { first, position: first, next: first, timestamp: 0, count: 0, bytes: Vec::new() }
    }

    /// Appends a record. Offsets must rise; a distance above one is a hole that the section covers.
    ///
    /// `headers` are names and values in order. Names are UTF-8 in Kafka.
    ///
    /// # Panics
    /// Never; a record below the position reached is ignored and answered with `false`.
    #[must_use]
    pub fn push<'h>(
        &mut self,
        offset: Offset,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl ExactSizeIterator<Item = (&'h str, Option<&'h [u8]>)>,
    ) -> bool {
        if self.next.covers(offset) {
            return false;
        }
        put_varint(&mut self.bytes, offset.value() - self.position.value());
        put_zigzag(&mut self.bytes, timestamp.wrapping_sub(self.timestamp));
        put_optional(&mut self.bytes, key);
        put_optional(&mut self.bytes, value);
        put_varint(&mut self.bytes, headers.len() as u64);
        for (name, value) in headers {
            put_bytes(&mut self.bytes, name.as_bytes());
            put_optional(&mut self.bytes, value);
        }
        self.position = offset.next();
        self.next = self.position;
        self.timestamp = timestamp;
        self.count += 1;
        true
    }

    /// Where the section begins.
    pub fn first(&self) -> NextOffset {
        self.first
    }

    /// One past the last offset covered.
    pub fn next(&self) -> NextOffset {
        self.next
    }

    /// Moves the end past a hole without a record (aborted records, transaction markers). Never moves back.
    pub fn cover(&mut self, next: NextOffset) {
        self.next = self.next.max(next);
    }

    /// Records written.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Raw bytes written.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// True when neither a record nor a hole was added.
    pub fn is_empty(&self) -> bool {
        self.count == 0 && self.first == self.next
    }

    /// The section's raw bytes.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// Reads the records of one section. Checks each record against the section's range; ends after an error.
#[derive(Debug, Clone)]
pub struct RecordReader<'a> {
    reader: Reader<'a>,
    position: NextOffset,
    end: NextOffset,
    timestamp: i64,
    left: u32,
}

impl<'a> RecordReader<'a> {
    /// Reads `count` records of a section that covers `first` to `end` (exclusive).
    pub fn new(bytes: &'a [u8], first: NextOffset, end: NextOffset, count: u32) -> Self {
        Self { reader: Reader::new(bytes), position: first, end, timestamp: 0, left: count }
    }

    fn record(&mut self) -> Result<Record<'a>, DecodeError> {
        let reader = &mut self.reader;
        let distance = reader.varint("offset distance")?;
        let value = self.position.value().saturating_add(distance);
        let out_of_range = DecodeError::Range { what: "offset", value, limit: self.end.value().saturating_sub(1) };
        let offset = Offset::new(value).filter(|offset| self.end.covers(*offset)).ok_or(out_of_range)?;
        let timestamp = self.timestamp.wrapping_add(reader.zigzag("timestamp distance")?);
        let key = optional(reader, "key")?;
        let value = optional(reader, "value")?;
        // A header takes at least two bytes, so the count cannot be larger than half of what is left.
        let count = reader.length(reader.remaining() / 2, "header count")?;
        let rest = reader.clone();
        for _ in 0..count {
            header(reader)?;
        }
        let length = reader.position() - rest.position();
        let bytes = rest.clone().bytes(length, "headers")?;
        self.position = offset.next();
        self.timestamp = timestamp;
        Ok(Record { offset, timestamp, key, value, headers: Headers { count, bytes } })
    }
}

impl<'a> Iterator for RecordReader<'a> {
    type Item = Result<Record<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            let end = self.reader.finish("the last record").err();
            self.reader = Reader::new(&[]);
            return end.map(Err);
        }
        let record = self.record();
        self.left = if record.is_ok() { self.left - 1 } else { 0 };
        if record.is_err() {
            self.reader = Reader::new(&[]);
        }
        Some(record)
    }
}

fn header<'a>(reader: &mut Reader<'a>) -> Result<(&'a str, Option<&'a [u8]>), DecodeError> {
    let name = reader.text(reader.remaining(), "header name")?;
    Ok((name, optional(reader, "header value")?))
}

fn put_optional(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        None => put_varint(out, 0),
        Some(bytes) => {
            put_varint(out, bytes.len() as u64 + 1);
            out.extend_from_slice(bytes);
        }
    }
}

fn optional<'a>(reader: &mut Reader<'a>, what: &'static str) -> Result<Option<&'a [u8]>, DecodeError> {
    match reader.length(reader.remaining(), what)? {
        0 => Ok(None),
        length => reader.bytes(length - 1, what).map(Some),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    type Header = (&'static str, Option<&'static [u8]>);

    fn write(writer: &mut RecordWriter, offset: u64, key: Option<&[u8]>, value: Option<&[u8]>, headers: &[Header]) -> bool {
        writer.push(Offset::new(offset).unwrap(), 1_700_000_000_000 + offset as i64, key, value, headers.iter().copied())
    }

    #[test]
    fn null_and_empty_stay_apart_and_headers_keep_their_order() {
        let mut writer = RecordWriter::new(NextOffset::new(5).unwrap());
        let headers: &[Header] = &[("b", Some(b"1")), ("a", None), ("b", Some(b"")), ("", Some(&[0xff, 0]))];
        assert!(write(&mut writer, 7, None, Some(b""), headers));
        assert!(write(&mut writer, 8, Some(b""), None, &[]));
        assert!(!write(&mut writer, 8, None, None, &[]), "an offset that does not rise");
        let (first, end, count) = (writer.first(), writer.next(), writer.count());
        let bytes = writer.into_bytes();
        let records: Vec<_> = RecordReader::new(&bytes, first, end, count).collect::<Result<_, _>>().unwrap();
        assert_eq!(records.len(), 2);
        assert_eq!((records[0].key, records[0].value), (None, Some(&b""[..])));
        assert_eq!(records[0].headers.iter().collect::<Vec<_>>(), headers);
        assert_eq!((records[1].key, records[1].value), (Some(&b""[..]), None));
        assert_eq!(records[1].timestamp, 1_700_000_000_008);
    }

    #[test]
    fn records_after_a_covered_hole_keep_their_offsets() {
        let mut writer = RecordWriter::new(NextOffset::ZERO);
        assert!(write(&mut writer, 1, None, None, &[]));
        writer.cover(NextOffset::new(5).unwrap());
        assert!(!write(&mut writer, 4, None, None, &[]), "inside of the hole");
        assert!(write(&mut writer, 7, None, None, &[]));
        let (first, end, count) = (writer.first(), writer.next(), writer.count());
        let bytes = writer.into_bytes();
        let offsets: Vec<_> = RecordReader::new(&bytes, first, end, count).map(|record| record.unwrap().offset.value()).collect();
        assert_eq!(offsets, [1, 7]);
    }

    #[test]
    fn a_record_outside_its_section_is_refused() {
        let mut writer = RecordWriter::new(NextOffset::ZERO);
        assert!(write(&mut writer, 9, None, None, &[]));
        let bytes = writer.into_bytes();
        let mut reader = RecordReader::new(&bytes, NextOffset::ZERO, NextOffset::new(9).unwrap(), 1);
        assert_eq!(reader.next(), Some(Err(DecodeError::Range { what: "offset", value: 9, limit: 8 })));
        assert_eq!(reader.next(), None);
    }

    #[test]
    fn bytes_after_the_last_record_are_refused() {
        let mut reader = RecordReader::new(&[0], NextOffset::ZERO, NextOffset::ZERO, 0);
        assert!(matches!(reader.next(), Some(Err(DecodeError::Trailing { left: 1, .. }))));
        assert_eq!(reader.next(), None);
    }
}
