//! Compresses frames at the level that is right for now, and tells what became of each topic's bytes.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use rustix::time::{ClockId, clock_gettime};
use spillway_agent_core::compression::{Levels, Line};
use spillway_ops::metrics::FloatCounter;
use spillway_proto::Lane;
use spillway_proto::compress::{Codec, Compressor};
use spillway_proto::frame::{EncodedFrame, FrameBuilder};

use crate::dictionaries::Dictionaries;
use crate::metrics::{AgentMetrics, TopicLabels};

/// The compressor, its level, and the topics' figures.
pub(super) struct Compression {
    compressor: Compressor,
    levels: Levels,
    metrics: AgentMetrics,
    dictionaries: Arc<Dictionaries>,
    /// The session's version has them.
    speaks_dictionaries: bool,
    /// Of the lanes that are read.
    lanes: HashMap<Lane, Meters>,
}

/// One topic's figures.
#[derive(Clone)]
struct Meters {
    raw: Counter,
    encoded: Counter,
    seconds: FloatCounter,
    level: Gauge,
}

impl fmt::Debug for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compression").field("compressor", &self.compressor).field("levels", &self.levels).finish_non_exhaustive()
    }
}

impl Compression {
    /// `fixed` is the configuration's level; `None` leaves it to the policy. zstd's tables take at most `memory_bytes`.
    pub(super) fn new(fixed: Option<i32>, memory_bytes: usize, metrics: AgentMetrics, dictionaries: Arc<Dictionaries>) -> io::Result<Self> {
        let levels = Levels::new(fixed, Instant::now());
        let mut compressor = Compressor::with_memory(levels.level(), memory_bytes)?;
        compressor.allow_columns(true);
        Ok(Self { compressor, levels, metrics, dictionaries, speaks_dictionaries: true, lanes: HashMap::new() })
    }

    /// From now on frames may hold records of the lane.
    pub(super) fn know(&mut self, lane: Lane, topic: &str) {
        let labels = TopicLabels { topic: topic.to_owned() };
        let meters = Meters {
            raw: self.metrics.compression_raw.get_or_create_owned(&labels),
            encoded: self.metrics.compression_encoded.get_or_create_owned(&labels),
            seconds: self.metrics.compression_seconds.get_or_create_owned(&labels),
            level: self.metrics.compression_level.get_or_create_owned(&labels),
        };
        self.lanes.insert(lane, meters);
    }

    /// No frame holds records of the lane any more.
    pub(super) fn forget(&mut self, lane: Lane) {
        self.lanes.remove(&lane);
    }

    /// Makes bodies that version `version` of the protocol knows.
    pub(super) fn speak(&mut self, version: u8) {
        self.compressor.allow_columns(version >= Codec::Columns.since());
        self.speaks_dictionaries = version >= Codec::ColumnsWithDictionary.since();
    }

    /// Takes in what is known of the line.
    pub(super) fn line(&mut self, line: Line) {
        self.levels.line(line);
    }

    /// Encodes a frame; those of one `kind` hold the same topics. One that is urgent names no dictionary: it would wait at the collector until that is there, on a thin line for
    /// seconds.
    pub(super) fn encode(&mut self, kind: usize, is_urgent: bool, builder: &mut FrameBuilder) -> EncodedFrame {
        self.compressor.allow_dictionaries(self.speaks_dictionaries && !is_urgent);
        self.levels.decide(Instant::now());
        if let Err(error) = self.compressor.set_level(self.levels.level()) {
            tracing::debug!(%error, level = self.levels.level(), "zstd keeps its level");
        }
        self.compressor.turn_to(kind);
        let before = processor_time();
        let frame = builder.encode(&mut self.compressor);
        if let Some(dictionary) = self.compressor.take_dictionary() {
            tracing::debug!(id = dictionary.id().0, bytes = dictionary.bytes().len(), "trained a dictionary");
            self.dictionaries.add(dictionary);
        }
        let took = processor_time().saturating_sub(before);
        self.levels.encoded(frame.raw_length, frame.bytes.len(), took);
        self.tell(&frame, took);
        frame
    }

    /// Frames are joined of many topics, so that each topic's part of what a frame took is known by its raw bytes only.
    fn tell(&self, frame: &EncodedFrame, took: Duration) {
        if frame.raw_length == 0 {
            return;
        }
        // Whole bytes are counted; what is left of them goes to the sections that follow, so that all together are the frame's.
        let (mut raw_bytes, mut told) = (0u64, 0u64);
        for section in &frame.sections {
            let raw = section.kind.raw_length() as u64;
            raw_bytes += raw;
            let encoded = frame.bytes.len() as u64 * raw_bytes / frame.raw_length as u64 - told;
            told += encoded;
            if let Some(meters) = self.lanes.get(&section.lane).filter(|_| raw > 0) {
                meters.raw.inc_by(raw);
                meters.encoded.inc_by(encoded);
                meters.seconds.inc_by(took.as_secs_f64() * raw as f64 / frame.raw_length as f64);
                meters.level.set(i64::from(self.compressor.level()));
            }
        }
    }
}

/// What this thread has used of the processor.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]
    use spillway_proto::compress::LEAST_MEMORY_BYTES;
    use spillway_proto::frame::Frame;
    use spillway_proto::record::RecordWriter;
    use spillway_proto::{NextOffset, Offset};

    use super::*;

    fn records(count: u64) -> RecordWriter {
        let mut writer = RecordWriter::new(NextOffset::ZERO);
        for n in 0..count {
            let value = format!(r#"{{"n":{n},"text":"hello"}}"#);
            assert!(writer.push(Offset::new(n).unwrap(), 0, None, Some(value.as_bytes()), std::iter::empty()));
        }
        writer
    }

    #[test]
    fn topics_share_what_a_frame_took_by_their_raw_bytes() {
        let metrics = AgentMetrics::register(&mut spillway_ops::Metrics::new("test"));
        let mut compression = Compression::new(Some(6), LEAST_MEMORY_BYTES, metrics.clone(), Arc::default()).unwrap();
        for (lane, topic) in [(1, "a"), (2, "b"), (3, "a")] {
            compression.know(Lane(lane), topic);
        }
        let mut builder = FrameBuilder::new();
        for (lane, count) in [(1, 100), (2, 333), (3, 1000)] {
            builder.data(Lane(lane), records(count));
        }
        let frame = compression.encode(0, false, &mut builder);
        let of = |topic: &str| {
            let labels = TopicLabels { topic: topic.to_owned() };
            let raw = metrics.compression_raw.get_or_create(&labels).get();
            let seconds = metrics.compression_seconds.get_or_create(&labels).get();
            (raw, metrics.compression_encoded.get_or_create(&labels).get(), seconds, metrics.compression_level.get_or_create(&labels).get())
        };
        let (a, b) = (of("a"), of("b"));
        assert_eq!(a.0, (frame.sections[0].kind.raw_length() + frame.sections[2].kind.raw_length()) as u64);
        assert_eq!((a.0 + b.0, a.1 + b.1), (frame.raw_length as u64, frame.bytes.len() as u64));
        let part = b.0 as f64 / frame.raw_length as f64;
        assert!((b.1 as f64 / frame.bytes.len() as f64 - part).abs() < 0.01 && (b.2 / (a.2 + b.2) - part).abs() < 0.01);
        assert!(a.2 + b.2 > 0.0, "processor time is measured");
        assert_eq!((a.3, b.3), (6, 6));
        compression.forget(Lane(2));
        builder.data(Lane(2), records(10));
        compression.encode(0, false, &mut builder);
        assert_eq!(of("b"), b, "nothing is told of a lane that was let go");
    }
    #[test]
    fn what_is_urgent_names_no_dictionary() {
        let metrics = AgentMetrics::register(&mut spillway_ops::Metrics::new("test"));
        let mut compression = Compression::new(Some(3), LEAST_MEMORY_BYTES, metrics, Arc::default()).unwrap();
        let mut codec_of = |is_urgent: bool, n: u64| {
            let mut builder = FrameBuilder::new();
            let mut writer = RecordWriter::new(NextOffset::ZERO);
            for k in 0..20 {
                let m = 31 * n + k;
                let value = format!(r#"{{"sensor":"boiler-{}","temperature":{}.{},"state":"in operation"}}"#, m % 7, m % 90, m % 10);
                assert!(writer.push(Offset::new(k).unwrap(), 0, None, Some(value.as_bytes()), std::iter::empty()));
            }
            builder.data(Lane(1), writer);
            Frame::peek_codec(&compression.encode(0, is_urgent, &mut builder).bytes)
        };
        let named = (0..50_000).find(|n| codec_of(false, *n) == Some(Codec::ColumnsWithDictionary));
        let at = named.expect("no dictionary was trained");
        assert_ne!(codec_of(true, at + 1), Some(Codec::ColumnsWithDictionary));
        assert_eq!(codec_of(false, at + 2), Some(Codec::ColumnsWithDictionary), "others go on");
    }
}
