//! Small frames with history: what was sent before and is known to have arrived stands before each frame, at both ends.

use spillway_proto::columns::{self, Packer};
use spillway_proto::dictionary::{Dictionary, Samples};
use zstd::zstd_safe::{CCtx, CParameter, DCtx, compress_bound};

use crate::cost::{Cost, timed};
use crate::frames::Raw;

/// What names the history of a frame: which frame of the session it ends with.
const NAME_BYTES: usize = 3;

/// What stands before frames.
#[derive(Clone, Copy)]
pub(crate) struct History {
    /// The last so many KiB …
    pub(crate) kib: usize,
    /// … of all frames before but the last so many, which are not acknowledged yet.
    pub(crate) lag: usize,
    /// Columns are compressed, and are history; else rows.
    pub(crate) columns: bool,
    /// A dictionary stands before the history, whose tables hold: trained once, as [`Compressor`](spillway_proto::compress::Compressor) does.
    pub(crate) dictionary: bool,
}

/// Compresses the frames, and restores them to see that they come back.
pub(crate) fn measure(mut raws: Vec<Raw>, level: i32, history: History) -> Cost {
    let mut cost = Cost::default();
    let sent = pack(&mut raws, history.columns, &mut cost);
    let mut acknowledged = vec![0; sent.len()];
    let mut dictionaries: Vec<(Samples, Option<Dictionary>)> = vec![Default::default(); sent.len()];
    let (mut there, mut back) = (CCtx::create(), DCtx::create());
    there.set_parameter(CParameter::CompressionLevel(level)).unwrap();
    // The name of a frame's dictionary is counted apart.
    there.set_parameter(CParameter::DictIdFlag(false)).unwrap();
    for (number, raw) in raws.iter().enumerate() {
        if let Some(arrived) = number.checked_sub(history.lag + 1).map(|number| &raws[number]) {
            acknowledged[arrived.topic] = arrived.place.1;
        }
        let (sent, end) = (&sent[raw.topic], acknowledged[raw.topic]);
        let (before, plain) = (&sent[end.saturating_sub(history.kib * 1024)..end], &sent[raw.place.0..raw.place.1]);
        let (samples, dictionary) = &mut dictionaries[raw.topic];
        let (mut body, mut again) = (Vec::with_capacity(compress_bound(plain.len())), Vec::with_capacity(plain.len()));
        let mut name = if before.is_empty() { 0 } else { NAME_BYTES };
        // A prefix is no dictionary to zstd: it has no tables. So with a dictionary both are loaded as a larger one, which is what takes most of the time.
        let joined = dictionary.as_ref().map(|dictionary| [&dictionary.bytes()[..], before].concat());
        name += joined.as_ref().map_or(0, |_| size_of::<u32>());
        cost.there += timed(|| {
            match &joined {
                Some(joined) => there.load_dictionary(joined).unwrap(),
                None => there.ref_prefix(before).unwrap(),
            };
            there.compress2(&mut body, plain).unwrap();
        });
        cost.back += timed(|| {
            match &joined {
                Some(joined) => back.load_dictionary(joined).unwrap(),
                None => back.ref_prefix(before).unwrap(),
            };
            back.decompress(&mut again, &body).unwrap();
            if raw.packed {
                again = columns::unpack(&again, &raw.sections, raw.rows.len()).unwrap();
            }
        });
        assert_eq!(again, raw.rows, "what was compressed comes back");
        cost.frame(raw, (name + body.len()).min(raw.rows.len()));
        if history.dictionary && dictionary.is_none() && samples.add(plain) {
            cost.there += timed(|| *dictionary = Dictionary::train(samples));
            cost.dictionary(dictionary.as_ref().map_or(0, |dictionary| dictionary.bytes().len()));
        }
    }
    cost
}

/// All that is ever sent, for each topic where frames are told apart: history is a slice of it.
fn pack(raws: &mut [Raw], columns: bool, cost: &mut Cost) -> Vec<Vec<u8>> {
    let topics = raws.iter().map(|raw| raw.topic).max().unwrap_or(0) + 1;
    let (mut sent, mut packer) = (vec![Vec::new(); topics], Packer::new());
    for raw in raws {
        let sent: &mut Vec<u8> = &mut sent[raw.topic];
        let begin = sent.len();
        cost.there += timed(|| {
            let packed = if columns { packer.pack(&raw.sections, &raw.rows) } else { None };
            raw.packed = packed.is_some();
            sent.extend_from_slice(packed.unwrap_or(&raw.rows));
        });
        raw.place = (begin, sent.len());
    }
    sent
}
