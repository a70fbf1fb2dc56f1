//! Small frames as they are sent: with history, where that is less.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use spillway_proto::FrameSeq;
use spillway_proto::compress::{Compressor, Decompressor};
use spillway_proto::dictionary::{Dictionary, DictionaryId};
use spillway_proto::frame::{Frame, FrameAfter};
use spillway_proto::history::{Decoder, Restorer, Shortener};

use crate::cost::{Cost, timed};
use crate::data::Data;
use crate::frames::{self, Raw};

/// Most rows of a frame.
const MOST: usize = 1 << 24;

/// Builds, shortens and restores the frames; the last `lag` are not acknowledged yet.
pub(crate) fn measure(data: &Data, frames: &[Vec<&crate::data::Record>], raws: &[Raw], level: i32, lag: u64) -> Cost {
    let mut cost = Cost::default();
    let mut compressor = Compressor::new(level).unwrap();
    compressor.allow_columns(true);
    compressor.allow_dictionaries(true);
    let (mut shortener, mut restorer) = (Shortener::new().unwrap(), Restorer::default());
    let (mut decoder, mut decompressor) = (Decoder::new().unwrap(), Decompressor::new().unwrap());
    let mut known: BTreeMap<DictionaryId, Arc<Dictionary>> = BTreeMap::new();
    let begin = Instant::now();
    for ((seq, records), raw) in (0..).map(FrameSeq).zip(frames).zip(raws) {
        if let Some(arrived) = seq.0.checked_sub(lag + 1) {
            shortener.arrived(FrameSeq(arrived));
        }
        let mut builder = frames::build(data, records);
        let (mut encoded, mut after) = (None, None);
        // A frame a second: none is too many.
        let now = begin + Duration::from_secs(seq.0);
        cost.there += timed(|| {
            let built = builder.encode(&mut compressor);
            after = shortener.send(seq, false, &built.bytes, now, |id| known.get(&id).cloned());
            encoded = Some(built);
        });
        let encoded = encoded.unwrap();
        cost.sent(raw, after.as_ref().unwrap_or(&encoded.bytes).len());
        cost.back += timed(|| {
            let frame = match &after {
                Some(bytes) => {
                    let mut after = FrameAfter::decode(seq, bytes, MOST).unwrap();
                    attach(after.frame_mut(), &known);
                    restorer.restore(&after, &mut decoder).unwrap()
                }
                None => {
                    let mut frame = Frame::decode(encoded.bytes.clone(), MOST).unwrap();
                    attach(&mut frame, &known);
                    restorer.arrived(seq, &frame);
                    frame
                }
            };
            assert!(frame.open(&mut decompressor).unwrap().is(&raw.rows), "what was shortened comes back");
        });
        if let Some(made) = compressor.take_dictionary() {
            cost.dictionary(made.bytes().len());
            known.insert(made.id(), made);
        }
    }
    cost
}

fn attach(frame: &mut Frame, known: &BTreeMap<DictionaryId, Arc<Dictionary>>) {
    if let Some(id) = frame.missing_dictionary() {
        frame.attach(Arc::clone(&known[&id]));
    }
}
