//! What frames of telemetry come down to, and what that takes: `cargo run --release -p spillway-proto --example compression-bench`.
//!
//! 300,000 small JSON records of ten shapes on 30 partitions, as a small plant has them: numbers that wander, counters, states, times. Frames are closed at
//! a size; small ones stand for a trickle. Prints a table in Markdown; times are those of this machine.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a program for developers")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use spillway_proto::compress::{Compressor, Decompressor};
use spillway_proto::frame::{Frame, FrameBuilder};
use spillway_proto::record::RecordWriter;
use spillway_proto::{Lane, NextOffset, Offset};

const RECORDS: usize = 300_000;
const TOPICS: [&str; 10] = ["temp", "press", "vib", "energy", "status", "gps", "counter", "flow", "door", "log"];
const PARTITIONS: usize = 3;

struct Record {
    lane: usize,
    offset: u64,
    timestamp: i64,
    key: String,
    value: String,
}

/// Ways to compress: what they are called, the level, columns, dictionaries.
const WAYS: [(&str, i32, bool, bool); 6] = [
    ("rows, level 1", 1, false, false),
    ("rows, level 3", 3, false, false),
    ("rows, level 9", 9, false, false),
    ("columns, level 3", 3, true, false),
    ("columns and dictionary, level 3", 3, true, true),
    ("columns and dictionary, level 12", 12, true, true),
];

fn main() {
    let records = telemetry();
    let payload = records.iter().map(|record| record.key.len() + record.value.len()).sum::<usize>();
    println!("{RECORDS} records, {:.1} MB of keys and values\n", payload as f64 / 1e6);
    println!("| frames of | | MB | ratio | MB/s there | MB/s back |\n|---|---|---|---|---|---|");
    for frame_kib in [1, 4, 16, 64, 256, 1024] {
        let frames = split(&records, frame_kib * 1024);
        for (name, level, columns, dictionaries) in WAYS {
            let (bytes, there, back) = measure(&frames, level, columns, dictionaries);
            let speed = |time: Duration| payload as f64 / 1e6 / time.as_secs_f64();
            let ratio = payload as f64 / bytes as f64;
            println!("| {frame_kib} KiB | {name} | {:.2} | {ratio:.1} | {:.0} | {:.0} |", bytes as f64 / 1e6, speed(there), speed(back));
        }
    }
}

/// Bytes of all frames, time of compressing and of decompressing. Dictionaries count once.
fn measure(frames: &[Vec<&Record>], level: i32, columns: bool, dictionaries: bool) -> (usize, Duration, Duration) {
    let (mut compressor, mut decompressor) = (Compressor::new(level).unwrap(), Decompressor::new().unwrap());
    compressor.allow_columns(columns);
    compressor.allow_dictionaries(dictionaries);
    let (mut bytes, mut there, mut back, mut known) = (0, Duration::ZERO, Duration::ZERO, BTreeMap::new());
    for records in frames {
        let mut builder = build(records);
        let begin = Instant::now();
        let encoded = builder.encode(&mut compressor);
        there += begin.elapsed();
        bytes += encoded.bytes.len();
        let mut frame = Frame::decode(encoded.bytes, 1 << 24).unwrap();
        if let Some(id) = frame.missing_dictionary() {
            frame.attach(Arc::clone(&known[&id]));
        }
        let begin = Instant::now();
        frame.open(&mut decompressor).unwrap();
        back += begin.elapsed();
        if let Some(made) = compressor.take_dictionary() {
            bytes += made.bytes().len();
            known.insert(made.id(), made);
        }
    }
    (bytes, there, back)
}

fn build(records: &[&Record]) -> FrameBuilder {
    let mut builder = FrameBuilder::new();
    for lane in 0..TOPICS.len() * PARTITIONS {
        let mut of_lane = records.iter().filter(|record| record.lane == lane).peekable();
        let Some(first) = of_lane.peek() else { continue };
        let mut writer = RecordWriter::new(NextOffset::new(first.offset).unwrap());
        for record in of_lane {
            let (offset, key, value) = (Offset::new(record.offset).unwrap(), record.key.as_bytes(), record.value.as_bytes());
            assert!(writer.push(offset, record.timestamp, Some(key), Some(value), std::iter::empty()));
        }
        builder.data(Lane(lane as u32), writer);
    }
    builder
}

fn split(records: &[Record], most: usize) -> Vec<Vec<&Record>> {
    let (mut frames, mut bytes) = (vec![Vec::new()], 0);
    for record in records {
        if bytes >= most {
            frames.push(Vec::new());
            bytes = 0;
        }
        bytes += record.key.len() + record.value.len() + 5;
        frames.last_mut().unwrap().push(record);
    }
    frames
}

/// Numbers that look random and are the same in every run.
struct Noise(u64);

impl Noise {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

fn telemetry() -> Vec<Record> {
    let mut noise = Noise(3);
    let mut readings: Vec<f64> = (0..400).map(|_| 5.0 + noise.below(9000) as f64 / 100.0).collect();
    let (mut counts, mut offsets) = (vec![0u64; 400], [0u64; TOPICS.len() * PARTITIONS]);
    let mut now = 1_763_800_000_000i64;
    let mut records = Vec::with_capacity(RECORDS);
    for number in 0..RECORDS {
        now += noise.below(3) as i64;
        let (topic, device) = (noise.below(TOPICS.len() as u64) as usize, noise.below(40) as usize);
        let place = topic * 40 + device;
        readings[place] += noise.below(1000) as f64 / 1000.0 - 0.5;
        counts[place] += 1;
        let (x, n) = (readings[place], counts[place]);
        let value = match topic {
            0 => format!(r#"{{"ts":{now},"sensor":"t-{device:02}","value":{x:.2},"unit":"C"}}"#),
            1 => format!(r#"{{"id":"p{device}","bar":{:.3},"ok":{},"seq":{number}}}"#, x / 10.0, noise.below(100) < 97),
            2 => format!(r#"{{"dev":"vib-{device}","rms":{:.3},"peak":{:.3},"t":{now}}}"#, x / 20.0, noise.below(9000) as f64 / 1e3),
            3 => format!(r#"{{"meter":"m{device:03}","kwh":{},"w":{}}}"#, 10_000 + n, 200 + noise.below(4600)),
            4 => {
                let state = ["running", "idle", "stopped", "fault"][noise.below(4) as usize];
                format!(r#"{{"machine":"press-{device:02}","state":"{state}","since":{}}}"#, now - noise.below(60_000) as i64)
            }
            5 => format!(r#"{{"v":"truck-{device}","lat":{:.5},"lon":{:.5},"kmh":{}}}"#, 48.0 + x / 1e3, 11.0 + x / 900.0, noise.below(90)),
            6 => format!(r#"{{"line":{device},"count":{},"rejects":{}}}"#, n * 3, n / 20),
            7 => format!(r#"{{"sensor":"flow-{device}","lpm":{x:.1},"temp":{:.1},"alarm":false,"seq":{n}}}"#, 20.0 + x / 9.0),
            8 => format!(r#"{{"door":"d{device}","open":{},"user":{},"ts":{now}}}"#, noise.below(2) == 1, 1000 + noise.below(400)),
            _ => format!(r#"{{"lvl":"info","msg":"cycle {n} finished in {} ms","ts":{now}}}"#, 900 + noise.below(400)),
        };
        let lane = topic * PARTITIONS + device % PARTITIONS;
        records.push(Record { lane, offset: offsets[lane], timestamp: now, key: format!("{}-{device}", TOPICS[topic]), value });
        offsets[lane] += 1;
    }
    records
}
