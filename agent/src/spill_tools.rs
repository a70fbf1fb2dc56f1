//! `spillway-agent spill`: what an operator does with the spill of a stopped agent, or with a copy of its directory. Nothing is changed there.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Value, json};
use spillway_ops::exit;
use spillway_proto::codec::DecodeError;
use spillway_proto::compress::Decompressor;
use spillway_proto::frame::Frame;
use spillway_proto::limits;
use spillway_spill::seal::{Key, KeyError};
use spillway_spill::store::{self, Report};
use spillway_spill::summary::{Source, Span, What};
use spillway_spill::{StoredEntry, tools};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is of a later version, sealed with another key, or cannot be read.
    #[error("cannot read the spill")]
    Spill(#[from] store::Error),
    /// The key file is no key.
    #[error("cannot use the key file")]
    Key(#[from] KeyError),
    /// There is no such directory.
    #[error("{0} is no directory")]
    Missing(String),
    /// There is nothing of a spill in it.
    #[error("{0} is no spill: name the directory that spill.dir names in the agent's configuration, or a copy of it")]
    NotASpill(String),
    /// What was written out was not taken.
    #[error("cannot write")]
    Output(#[source] io::Error),
    /// zstd has no memory.
    #[error("cannot decompress")]
    Decompressor(#[source] io::Error),
    /// `verify` found damage.
    #[error("the spill is damaged: {0} findings, listed above; the agent starts with it nevertheless")]
    Damaged(usize),
}

/// Opens the directory and the key for a command.
///
/// # Errors
/// When there is no directory, or no spill in it, or no key in the file.
pub fn open(root: &Path, key: Option<&Path>) -> Result<Option<Key>, Error> {
    if !root.is_dir() {
        return Err(Error::Missing(root.display().to_string()));
    }
    if !tools::is_spill(root) {
        return Err(Error::NotASpill(root.display().to_string()));
    }
    Ok(key.map(Key::read).transpose()?)
}

/// Says what each generation holds, by partition.
///
/// # Errors
/// When the spill cannot be read at all.
pub fn inspect(root: &Path, key: Option<&Key>) -> Result<String, Error> {
    let mut out = String::new();
    let (mut entries, mut records, mut bytes) = (0, 0, 0);
    for view in tools::inspect(root, key)? {
        let state = if view.closed { "closed" } else { "left open" };
        let range = view.range.map_or_else(String::new, |(first, last)| format!(", entries {first} to {last}"));
        let oldest =
            view.oldest_ms.and_then(|ms| Timestamp::from_millisecond(ms).ok()).map_or_else(String::new, |time| format!(", oldest {time}"));
        // Writing to a string cannot fail.
        _ = writeln!(
            out,
            "generation {} (class {}, {state}{range}{oldest}): {} entries, {} records, {} bytes",
            view.number,
            view.class.urgency(),
            view.entries,
            view.records,
            view.frame_bytes
        );
        for (source, span) in &view.spans {
            _ = writeln!(out, "  {}", describe(source, span));
        }
        (entries, records, bytes) = (entries + view.entries, records + view.records, bytes + view.frame_bytes);
    }
    _ = writeln!(out, "{entries} entries, {records} records, {bytes} bytes");
    Ok(out)
}

/// Reads everything and compares every checksum. Answers what is there, and a line for each finding.
///
/// # Errors
/// When the spill cannot be read at all.
pub fn verify(root: &Path, key: Option<&Key>) -> Result<(String, usize), Error> {
    let verified = tools::verify(root, key)?;
    let mut out = format!("{} entries with {} records are whole\n", verified.entries, verified.records);
    for report in &verified.reports {
        _ = match report {
            Report::Damaged { path, what } => writeln!(out, "damaged: {}: {what}", path.display()),
            Report::Lost { source, first, next, .. } => writeln!(out, "lost: {} offsets {first} to {next}, exclusive", source.partition),
            Report::Dropped { source, first, next, .. } => {
                writeln!(out, "dropped: {} offsets {first} to {next}, exclusive", source.partition)
            }
            Report::Quarantined { path } => writeln!(out, "put aside: {}", path.display()),
        };
    }
    Ok((out, verified.reports.len()))
}

/// Writes every record that can be read as a line of JSON: topic, topic_id, partition, offset, timestamp, key, value, headers; bytes in base64,
/// null for null. With `quarantine` also what is left in damaged generations that were put aside. A record may come twice.
///
/// # Errors
/// When the spill cannot be read at all, or what is written is not taken.
pub fn export(root: &Path, key: Option<&Key>, quarantine: bool, out: &mut impl Write) -> Result<u64, Error> {
    let mut decompressor = Decompressor::new().map_err(Error::Decompressor)?;
    let (mut count, mut failed) = (0, None);
    let take = |entry: StoredEntry| {
        if failed.is_some() {
            return;
        }
        match lines(&entry, &mut decompressor) {
            Ok(lines) => {
                count += lines.len() as u64;
                failed = lines.iter().try_for_each(|line| writeln!(out, "{line}")).err();
            }
            // Its checksum is right, so this is no damage.
            Err(error) => exit::say(format_args!("entry {} is no frame of this version: {error}", entry.id)),
        }
    };
    if quarantine { tools::salvage(root, key, take) } else { tools::export(root, key, take) }?;
    accepted(failed.map_or_else(|| out.flush(), Err))?;
    Ok(count)
}

/// Writes a text.
///
/// # Errors
/// When it is not taken.
pub fn write(out: &mut impl Write, text: &str) -> Result<(), Error> {
    accepted(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
}

/// Whoever reads has enough, as `head` does: no error.
fn accepted(written: io::Result<()>) -> Result<(), Error> {
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Error::Output(error)),
        _ => Ok(()),
    }
}

fn lines(entry: &StoredEntry, decompressor: &mut Decompressor) -> Result<Vec<Value>, DecodeError> {
    let frame = Frame::decode(entry.frame.clone(), limits::MAX_FRAME_RAW_BYTES)?;
    let body = frame.open(decompressor)?;
    let mut lines = Vec::new();
    let bytes = |bytes: Option<&[u8]>| bytes.map(|bytes| STANDARD.encode(bytes));
    for (index, section) in entry.identity.sections.iter().enumerate().filter(|(_, section)| !section.is_void()) {
        for record in body.records(&frame, index) {
            let record = record?;
            lines.push(json!({
                "topic": section.partition.topic.as_str(),
                "topic_id": section.topic_id.to_string(),
                "partition": section.partition.partition.index(),
                "offset": record.offset.value(),
                "timestamp": record.timestamp,
                "key": bytes(record.key),
                "value": bytes(record.value),
                "headers": record.headers.iter().map(|(name, value)| json!([name, bytes(value)])).collect::<Vec<_>>(),
            }));
        }
    }
    Ok(lines)
}

fn describe(source: &Source, span: &Span) -> String {
    let what = match span.what {
        What::Data => "offsets",
        What::Lost => "lost offsets",
        What::Gap(reason) => return format!("{} gap ({}) from {} to {}", source.partition, reason.as_str(), span.first, span.next),
        What::Start => return format!("{} starts at {}", source.partition, span.next),
    };
    format!("{} {what} {} to {}, exclusive", source.partition, span.first, span.next)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use spillway_proto::compress::Compressor;
    use spillway_proto::frame::FrameBuilder;
    use spillway_proto::record::RecordWriter;
    use spillway_proto::{Lane, NextOffset, Offset, Partition, TopicId, TopicName, TopicPartition};
    use spillway_spill::{Class, Entry, Line, Options, RotatingStore, SpillStore as _, StoredSection};

    use super::*;

    fn make(root: &Path, class: Class) {
        let next = |value| NextOffset::new(value).unwrap();
        let mut records = RecordWriter::new(next(5));
        let headers = [("h", Some(b"\x00".as_slice())), ("n", None)];
        assert!(records.push(Offset::new(5).unwrap(), 1_700_000_000_000, None, Some(b"hello"), headers.into_iter()));
        assert!(records.push(Offset::new(7).unwrap(), 1_700_000_000_001, Some(b"k"), None, std::iter::empty()));
        let mut builder = FrameBuilder::new();
        builder.data(Lane(0), records);
        let frame = builder.encode(&mut Compressor::new(1).unwrap());
        let partition = TopicPartition { topic: TopicName::parse("t").unwrap(), partition: Partition::FIRST };
        let kind = frame.sections[0].kind;
        let section = StoredSection { partition, topic_id: TopicId([1; 16]), partition_count: 1, line: Line(0), kind };
        let sections = vec![section];
        let entry = Entry { class, created_ms: 1_700_000_000_000, sections, frame: frame.bytes };
        let mut store = RotatingStore::open(root, Options::new(8 << 20)).unwrap();
        store.append(&entry, 0).unwrap();
        store.sync().unwrap();
        store.close().unwrap();
    }

    #[test]
    fn a_spill_is_shown_checked_and_written_out() {
        let directory = tempfile::tempdir().unwrap();
        make(directory.path(), Class::DEFAULT);
        let shown = inspect(directory.path(), None).unwrap();
        assert!(
            shown.starts_with("generation 1 (class 2, closed, entries 1 to 1, oldest 2023-11-14T22:13:20Z): 1 entries, 2 records, "),
            "{shown}"
        );
        assert!(shown.contains("t-0 offsets 5 to 8, exclusive"), "{shown}");
        assert_eq!(verify(directory.path(), None).unwrap(), ("1 entries with 2 records are whole\n".to_owned(), 0));
        let mut out = Vec::new();
        assert_eq!(export(directory.path(), None, false, &mut out).unwrap(), 2);
        let lines = String::from_utf8(out).unwrap().lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect::<Vec<_>>();
        assert_eq!((&lines[0]["offset"], &lines[0]["key"], &lines[0]["value"]), (&json!(5), &Value::Null, &json!("aGVsbG8=")));
        assert_eq!(lines[0]["headers"], json!([["h", "AA=="], ["n", null]]));
        assert_eq!((&lines[1]["offset"], &lines[1]["key"], &lines[1]["value"]), (&json!(7), &json!("aw=="), &Value::Null));
    }

    #[test]
    fn a_generation_has_the_class_of_the_topic_rules() {
        for urgency in 0..4 {
            for policy in [Class::BLOCK, Class::DROP_OLDEST, Class::DROP_NEWEST] {
                let directory = tempfile::tempdir().unwrap();
                make(directory.path(), Class::of(policy, urgency, 1).unwrap());
                let shown = inspect(directory.path(), None).unwrap();
                assert!(shown.starts_with(&format!("generation 1 (class {urgency}, closed")), "{policy:?}: {shown}");
            }
        }
    }

    #[test]
    fn damage_is_found_and_the_rest_written_out() {
        let directory = tempfile::tempdir().unwrap();
        make(directory.path(), Class::DEFAULT);
        let path = directory.path().join("g000000000001/sled/db");
        let mut bytes = std::fs::read(&path).unwrap();
        let place = bytes.windows(4).position(|window| window == b"SWc1").unwrap();
        bytes[place + 60] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let (text, findings) = verify(directory.path(), None).unwrap();
        assert!(findings > 0 && text.contains("lost: t-0 offsets 5 to 8, exclusive"), "{text}");
        let mut out = Vec::new();
        assert_eq!(export(directory.path(), None, true, &mut out).unwrap(), 0);
        // Without the file that says what it is, it is a damaged one.
        std::fs::remove_file(directory.path().join("format")).unwrap();
        assert!(open(directory.path(), None).is_ok());
        assert!(matches!(open(&directory.path().join("nowhere"), None), Err(Error::Missing(_))));
        assert!(matches!(open(tempfile::tempdir().unwrap().path(), None), Err(Error::NotASpill(_))));
    }
}
