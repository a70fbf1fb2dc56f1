//! Records as frames.

use spillway_proto::codec::varint_len;
use spillway_proto::compress::Compressor;
use spillway_proto::frame::{Frame, FrameBuilder, Section};
use spillway_proto::record::RecordWriter;
use spillway_proto::{Lane, NextOffset, Offset};

use crate::data::{Data, Record};

/// Frames of `most` bytes each, of all topics or of one topic each, in the order in which they are full.
pub(crate) fn split(data: &Data, most: usize, apart: bool) -> Vec<Vec<&Record>> {
    let mut frames = Vec::new();
    let mut open: Vec<(usize, Vec<&Record>)> = (0..data.topics).map(|_| (0, Vec::new())).collect();
    for record in &data.records {
        let (bytes, records) = &mut open[if apart { record.lane / data.partitions } else { 0 }];
        if *bytes >= most {
            frames.push(std::mem::take(records));
            *bytes = 0;
        }
        *bytes += record.key.len() + record.value.len() + 5;
        records.push(record);
    }
    frames.extend(open.into_iter().map(|(_, records)| records).filter(|records| !records.is_empty()));
    frames
}

/// A frame of these records.
pub(crate) fn build(data: &Data, records: &[&Record]) -> FrameBuilder {
    let mut builder = FrameBuilder::new();
    for (lane, writer) in writers(data, records) {
        builder.data(lane, writer);
    }
    builder
}

/// A frame before it is compressed.
pub(crate) struct Raw {
    /// The topic with most bytes; 0 for all where topics are not told apart.
    pub(crate) topic: usize,
    pub(crate) sections: Vec<Section>,
    pub(crate) rows: Vec<u8>,
    /// Bytes of the frame beside its body and the body's length.
    pub(crate) around: usize,
    /// Where what is compressed stands in all that its topic sends.
    pub(crate) place: (usize, usize),
    /// That is columns, not rows.
    pub(crate) packed: bool,
}

impl Raw {
    /// A frame of these records.
    pub(crate) fn new(data: &Data, records: &[&Record], per_topic: bool) -> Self {
        let rows = writers(data, records).into_iter().flat_map(|(_, writer)| writer.into_bytes()).collect();
        let frame = build(data, records).encode(&mut Compressor::new(1).unwrap());
        let body = Frame::decode(frame.bytes.clone(), 1 << 24).unwrap().body_length();
        let around = frame.bytes.len() - body - varint_len(body as u64);
        let mut of_topics = vec![0; data.topics];
        for section in &frame.sections {
            of_topics[section.lane.0 as usize / data.partitions] += section.kind.raw_length();
        }
        let most = (0..data.topics).max_by_key(|topic| of_topics[*topic]).unwrap();
        let topic = if per_topic { most } else { 0 };
        Self { topic, sections: frame.sections, rows, around, place: (0, 0), packed: false }
    }
}

fn writers(data: &Data, records: &[&Record]) -> Vec<(Lane, RecordWriter)> {
    let mut writers: Vec<Option<RecordWriter>> = vec![None; data.topics * data.partitions];
    for record in records {
        let writer = writers[record.lane].get_or_insert_with(|| RecordWriter::new(NextOffset::new(record.offset).unwrap()));
        let (offset, key, value) = (Offset::new(record.offset).unwrap(), record.key.as_bytes(), record.value.as_bytes());
        assert!(writer.push(offset, record.timestamp, Some(key), Some(value), std::iter::empty()));
    }
    let of_lane = |(lane, writer): (usize, Option<RecordWriter>)| Some((Lane(lane as u32), writer?));
    writers.into_iter().enumerate().filter_map(of_lane).collect()
}
