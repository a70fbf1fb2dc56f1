//! What frames of telemetry come down to, and what that takes: `cargo run --release -p spillway-proto --example compression-bench`.
//!
//! Four sorts of small JSON records. Frames are closed at a size; small ones stand for a trickle, and for them ways are compared that are not built. Prints tables in Markdown; bytes are the
//! same in every run, times are those of this machine. A part of a table's name behind `--` leaves out the others: `all sizes`, `ten shapes`, `telemetry-200`, `three topics`, `events`.
//!
//! | module | what it is for |
//! |---|---|
//! | `data` | the records |
//! | `frames` | records as frames |
//! | `small` | small frames: what is built, and a dictionary for each topic |
//! | `sent` | small frames as they are sent, with history |
//! | `history` | small frames with what was acknowledged before them |
//! | `cost` | what goes over the line, and processor time |
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a program for developers")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use spillway_proto::compress::{Compressor, Decompressor};
use spillway_proto::frame::Frame;

mod cost;
mod data;
mod frames;
mod history;
mod sent;
mod small;

use data::{Data, Record};

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
    let wanted = std::env::args().nth(1).unwrap_or_default();
    let plant = data::plant();
    if "all sizes".contains(&wanted) {
        all_sizes(&plant);
    }
    let small: [(Data, &[i32]); 4] = [(plant, &[3]), (data::presses(), &[3]), (data::trickle(), &[3, 12]), (data::events(), &[3])];
    for (data, levels) in small.iter().filter(|(data, _)| data.name.contains(&wanted)) {
        for level in *levels {
            small::table(data, *level);
        }
    }
}

/// Frames of all sizes, as they are built.
fn all_sizes(data: &Data) {
    let payload = data.payload();
    println!("{} records, {:.1} MB of keys and values\n", data.records.len(), payload as f64 / 1e6);
    println!("| frames of | | MB | ratio | MB/s there | MB/s back |\n|---|---|---|---|---|---|");
    for frame_kib in [1, 4, 16, 64, 256, 1024] {
        let frames = frames::split(data, frame_kib * 1024, false);
        for (name, level, columns, dictionaries) in WAYS {
            let (bytes, there, back) = measure(data, &frames, level, columns, dictionaries);
            let speed = |time: Duration| payload as f64 / 1e6 / time.as_secs_f64();
            let ratio = payload as f64 / bytes as f64;
            println!("| {frame_kib} KiB | {name} | {:.2} | {ratio:.1} | {:.0} | {:.0} |", bytes as f64 / 1e6, speed(there), speed(back));
        }
    }
}

/// Bytes of all frames, time of compressing and of decompressing. Dictionaries count once.
fn measure(data: &Data, frames: &[Vec<&Record>], level: i32, columns: bool, dictionaries: bool) -> (usize, Duration, Duration) {
    let (mut compressor, mut decompressor) = (Compressor::new(level).unwrap(), Decompressor::new().unwrap());
    compressor.allow_columns(columns);
    compressor.allow_dictionaries(dictionaries);
    let (mut bytes, mut there, mut back, mut known) = (0, Duration::ZERO, Duration::ZERO, BTreeMap::new());
    for records in frames {
        let mut builder = frames::build(data, records);
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
