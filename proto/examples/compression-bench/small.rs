//! Small frames: what is built, and what else would be possible.
//!
//! A trickle's frames are small, and each travels alone. What they have in common may be in one dictionary, in one for each topic, or in history.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use spillway_proto::compress::{Body, Codec, Compressor, Decompressor};
use spillway_proto::dictionary::Dictionary;

use crate::cost::{Cost, timed};
use crate::data::Data;
use crate::frames::{Raw, split};
use crate::history::{self, History};
use crate::sent;

/// A way to compress small frames.
#[derive(Clone, Copy)]
struct Way {
    name: &'static str,
    hold: Hold,
    /// A dictionary and a history for each topic: that of the topic with most bytes in the frame.
    per_topic: bool,
    /// Besides what is built.
    history: Option<History>,
    /// As it is sent, with so many frames that are not acknowledged.
    sent: Option<u64>,
}

/// What frames hold.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hold {
    /// All topics.
    All,
    /// One topic each, at the same size: records wait as many times longer as there are topics.
    One,
    /// One topic each, and as many times smaller as there are topics: records wait as long.
    OneSmaller,
}

/// Rows in a frame, in bytes.
const SIZES: [usize; 5] = [512, 1024, 2048, 4096, 8192];

/// Prints a table: bytes on the line, and how many fewer than as frames are built.
pub(crate) fn table(data: &Data, level: i32) {
    println!(
        "\n{}, level {level}: {:.2} MB of keys and values in {} records\n",
        data.name,
        data.payload() as f64 / 1e6,
        data.records.len()
    );
    println!(
        "kB on the line (frames + dictionaries), saved of all, saved of the second half of the frames; processor time of a frame there and back\n"
    );
    println!("| frames of | {} |\n|---|---|---|---|---|---|", SIZES.map(|bytes| format!("{bytes} bytes")).join(" | "));
    let mut built: [Option<Cost>; SIZES.len()] = Default::default();
    for way in ways(data.topics) {
        let cells = std::array::from_fn::<_, { SIZES.len() }, _>(|place| {
            let cost = measure(data, SIZES[place], level, way);
            cell(&cost, built[place].get_or_insert_with(|| cost.clone()))
        });
        println!("| {} | {} |", way.name, cells.join(" | "));
    }
    println!();
    for (size, cost) in SIZES.into_iter().zip(built.into_iter().flatten()) {
        let of_frame = |bytes: usize| bytes / cost.frames.len();
        let (bytes, headers) = (of_frame(cost.frames.iter().sum()), of_frame(cost.headers));
        println!(
            "As built: {} frames of {size} bytes take {bytes} bytes each, {headers} of them sections and what is fixed.",
            cost.frames.len()
        );
    }
}

fn cell(cost: &Cost, built: &Cost) -> String {
    let kilobytes = |bytes: usize| bytes as f64 / 1e3;
    let saved = |bytes: usize, of: usize| 100.0 - 100.0 * bytes as f64 / of as f64;
    let micros = |time: Duration| time.as_secs_f64() * 1e6 / cost.frames.len() as f64;
    format!(
        "{:.0} ({:.0} + {:.0}), {:.1} %, {:.1} %; {:.0}, {:.0} µs",
        kilobytes(cost.line()),
        kilobytes(cost.frames.iter().sum()),
        kilobytes(cost.dictionaries),
        saved(cost.line(), built.line()),
        // Frames of other sizes are others in number; their second half is of the same records, nearly.
        saved(cost.line_late(), built.line_late()),
        micros(cost.there),
        micros(cost.back)
    )
}

/// The first one is what is built.
fn ways(topics: usize) -> Vec<Way> {
    let history = |kib, lag| Some(History { kib, lag, columns: true, dictionary: false });
    let both = |kib, lag| Some(History { kib, lag, columns: true, dictionary: true });
    let ways = [
        ("built: columns, one dictionary", Hold::All, false, None),
        ("dictionary per topic", Hold::All, true, None),
        ("history 16 KiB, lag 4", Hold::All, false, history(16, 4)),
        ("history 32 KiB, lag 4", Hold::All, false, history(32, 4)),
        ("history 64 KiB, lag 1", Hold::All, false, history(64, 1)),
        ("history 64 KiB, lag 4", Hold::All, false, history(64, 4)),
        ("history 64 KiB, lag 16", Hold::All, false, history(64, 16)),
        (
            "rows, not columns, history 64 KiB, lag 4",
            Hold::All,
            false,
            Some(History { kib: 64, lag: 4, columns: false, dictionary: false }),
        ),
        ("a dictionary for rows too, where columns are no smaller", Hold::All, false, both(0, 4)),
        ("rows, not columns, a dictionary for them", Hold::All, false, Some(History { kib: 0, lag: 4, columns: false, dictionary: true })),
        ("dictionary and history 16 KiB, lag 4", Hold::All, false, both(16, 4)),
        ("dictionary and history 32 KiB, lag 4", Hold::All, false, both(32, 4)),
        ("dictionary and history 64 KiB, lag 1", Hold::All, false, both(64, 1)),
        ("dictionary and history 64 KiB, lag 4", Hold::All, false, both(64, 4)),
        ("dictionary and history 64 KiB, lag 16", Hold::All, false, both(64, 16)),
        ("one topic a frame, that waits longer: one dictionary", Hold::One, false, None),
        ("one topic a frame, that waits longer: dictionary per topic", Hold::One, true, None),
        ("one topic a frame, that waits longer: dictionary and history 64 KiB, lag 4", Hold::One, false, both(64, 4)),
        ("one topic a frame, that waits longer: both per topic, lag 4", Hold::One, true, both(64, 4)),
        ("one topic a frame, smaller: one dictionary", Hold::OneSmaller, false, None),
        ("one topic a frame, smaller: dictionary per topic", Hold::OneSmaller, true, None),
    ];
    let sent = |name, lag| Way { name, hold: Hold::All, per_topic: false, history: None, sent: Some(lag) };
    let sent = [sent("as sent, lag 0", 0), sent("as sent, lag 1", 1), sent("as sent, lag 4", 4), sent("as sent, lag 16", 16)];
    let ways = ways.map(|(name, hold, per_topic, history)| Way { name, hold, per_topic, history, sent: None });
    ways.into_iter().chain(sent).filter(|way| topics > 1 || (way.hold == Hold::All && !way.per_topic)).collect()
}

/// Compresses the records in frames of `most` bytes.
fn measure(data: &Data, most: usize, level: i32, way: Way) -> Cost {
    let most = if way.hold == Hold::OneSmaller { most / data.topics } else { most };
    let frames = split(data, most, way.hold != Hold::All);
    let raws: Vec<Raw> = frames.iter().map(|records| Raw::new(data, records, way.per_topic)).collect();
    match (way.sent, way.history) {
        (Some(lag), _) => sent::measure(data, &frames, &raws, level, lag),
        (None, None) => built(&raws, level),
        (None, Some(history)) => history::measure(raws, level, history),
    }
}

/// With the compressor as it is, one for each topic where frames are told apart.
fn built(raws: &[Raw], level: i32) -> Cost {
    let mut cost = Cost::default();
    let mut compressors: BTreeMap<usize, Compressor> = BTreeMap::new();
    let mut bodies: Vec<(Codec, Vec<u8>)> = Vec::new();
    let mut made: BTreeMap<u32, Arc<Dictionary>> = BTreeMap::new();
    for raw in raws {
        let compressor = compressors.entry(raw.topic).or_insert_with(|| {
            let mut compressor = Compressor::new(level).unwrap();
            compressor.allow_columns(true);
            compressor.allow_dictionaries(true);
            compressor
        });
        cost.there += timed(|| bodies.push(compressor.compress(&raw.sections, &raw.rows)));
        if let Some(dictionary) = compressor.take_dictionary() {
            cost.dictionary(dictionary.bytes().len());
            made.insert(dictionary.id().0, dictionary);
        }
    }
    let mut decompressors: BTreeMap<usize, Decompressor> = BTreeMap::new();
    for (raw, (codec, body)) in raws.iter().zip(&bodies) {
        cost.frame(raw, body.len());
        let id = (*codec == Codec::ColumnsWithDictionary).then(|| u32::from_be_bytes(*body.first_chunk().unwrap()));
        let body = Body { codec: *codec, bytes: body, dictionary: id.map(|id| &*made[&id]) };
        let decompressor = decompressors.entry(raw.topic).or_insert_with(|| Decompressor::new().unwrap());
        let mut rows = Vec::new();
        cost.back += timed(|| rows = decompressor.decompress(&body, &raw.sections, raw.rows.len()).unwrap());
        assert_eq!(rows, raw.rows, "what was compressed comes back");
    }
    cost
}
