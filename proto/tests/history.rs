//! What version 4 of the protocol adds, history: both ends agree whatever is lost on the way and however late it comes, and the bytes are those that are kept in
//! `fixtures/v4.txt`, one `name = hexadecimal` a line.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use proptest::prelude::*;
use spillway_proto::codec::DecodeError;
use spillway_proto::compress::{Compressor, Decompressor};
use spillway_proto::dictionary::{Dictionary, DictionaryId};
use spillway_proto::frame::{EncodedFrame, Frame, FrameAfter, FrameBuilder, GapReason};
use spillway_proto::history::{Decoder, MOST_RAW_BYTES, Restorer, Shortener};
use spillway_proto::message::CollectorMessage;
use spillway_proto::record::RecordWriter;
use spillway_proto::{FrameSeq, Lane, NextOffset, Offset};

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/v4.txt");
const MAX_RAW: usize = 1 << 20;

fn builder(values: &[String]) -> FrameBuilder {
    let mut writer = RecordWriter::new(NextOffset::ZERO);
    for (offset, value) in (0..).zip(values) {
        assert!(writer.push(Offset::new(offset).unwrap(), 1_700_000_000_000, None, Some(value.as_bytes()), [].into_iter()));
    }
    let mut builder = FrameBuilder::new();
    builder.data(Lane(1), writer);
    builder
}

/// An event that names one of a few jobs, which are not in any dictionary.
fn event(n: u64) -> String {
    let job = (n / 40).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!("{{\"job\":\"{job:016x}-{:08x}\",\"step\":{n},\"state\":\"running\"}}", job >> 7)
}

fn plain(values: &[String]) -> EncodedFrame {
    builder(values).encode(&mut Compressor::new(3).unwrap())
}

fn rows(frame: &Frame) -> Vec<String> {
    let body = frame.open(&mut Decompressor::new().unwrap()).unwrap();
    body.records(frame, 0).map(|record| String::from_utf8(record.unwrap().value.unwrap().to_vec()).unwrap()).collect()
}

/// Both ends, and what is between them.
struct Pair {
    shortener: Shortener,
    restorer: Restorer,
    decoder: Decoder,
    now: Instant,
    dictionaries: BTreeMap<DictionaryId, Arc<Dictionary>>,
    /// Under way: what each frame is, and how it was sent.
    under_way: BTreeMap<FrameSeq, (Bytes, Option<Bytes>)>,
    /// Off the line, and a part of their history is not.
    waiting: Vec<FrameSeq>,
    arrived: BTreeSet<FrameSeq>,
    saved: usize,
    shortened: usize,
    waited: usize,
}

impl Pair {
    fn new() -> Self {
        Self {
            shortener: Shortener::new().unwrap(),
            restorer: Restorer::default(),
            decoder: Decoder::new().unwrap(),
            now: Instant::now(),
            dictionaries: BTreeMap::new(),
            under_way: BTreeMap::new(),
            waiting: Vec::new(),
            arrived: BTreeSet::new(),
            saved: 0,
            shortened: 0,
            waited: 0,
        }
    }

    fn send(&mut self, seq: u64, bytes: &Bytes) {
        self.now += Duration::from_secs(1);
        let shortened = self.shortener.send(FrameSeq(seq), false, bytes, self.now, |id| self.dictionaries.get(&id).cloned());
        if let Some(shortened) = &shortened {
            self.shortened += 1;
            self.saved += bytes.len() - shortened.len();
        }
        self.under_way.insert(FrameSeq(seq), (bytes.clone(), shortened));
    }

    /// A frame comes off the line, and is looked at.
    fn deliver(&mut self, seq: FrameSeq) {
        self.waiting.push(seq);
        while let Some(at) = (0..self.waiting.len()).find(|at| self.look(self.waiting[*at])) {
            self.arrived.insert(self.waiting.swap_remove(at));
        }
        self.waited += self.waiting.len();
    }

    /// Answers false while it has to wait.
    fn look(&mut self, seq: FrameSeq) -> bool {
        let (whole, shortened) = self.under_way[&seq].clone();
        let mut expected = Frame::decode(whole, MAX_RAW).unwrap();
        self.attach(&mut expected);
        let Some(bytes) = shortened else {
            self.restorer.arrived(seq, &expected);
            return true;
        };
        let mut after = FrameAfter::decode(seq, &bytes, MAX_RAW).unwrap();
        self.attach(after.frame_mut());
        if self.restorer.waits(&after) {
            return false;
        }
        let restored = self.restorer.restore(&after, &mut self.decoder).unwrap();
        assert_eq!(rows(&restored), rows(&expected));
        assert_eq!(restored.sections(), expected.sections());
        true
    }

    fn attach(&self, frame: &mut Frame) {
        if let Some(id) = frame.missing_dictionary() {
            frame.attach(Arc::clone(&self.dictionaries[&id]));
        }
    }
}

/// What a frame holds.
#[derive(Debug, Clone)]
enum Made {
    Events(u64),
    Noise(Vec<u8>),
    Large(u64),
    Gap,
}

fn made() -> impl Strategy<Value = Made> {
    prop_oneof![
        8 => (1u64..12).prop_map(Made::Events),
        1 => proptest::collection::vec(any::<u8>(), 300).prop_map(Made::Noise),
        1 => (200u64..400).prop_map(Made::Large),
        1 => Just(Made::Gap),
    ]
}

fn encode(made: &Made, next: &mut u64) -> Bytes {
    let mut events = |count: u64| {
        let values: Vec<_> = (*next..*next + count).map(event).collect();
        *next += count;
        plain(&values).bytes
    };
    match made {
        Made::Events(count) => events(*count),
        Made::Large(count) => events(*count),
        Made::Noise(noise) => {
            let value = noise.iter().map(|byte| char::from(*byte)).collect::<String>();
            plain(&[value]).bytes
        }
        Made::Gap => {
            let mut builder = FrameBuilder::new();
            builder.gap(Lane(1), NextOffset::ZERO, NextOffset::new(9).unwrap(), GapReason::Retention);
            builder.encode(&mut Compressor::new(3).unwrap()).bytes
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Frames overtake each other by up to `reach`, on the line and again until somebody looks at them; for some QUIC's acknowledgement never comes.
    fn what_was_shortened_comes_back_in_whatever_order(
        frames in proptest::collection::vec((made(), 0u64..1000, 0u64..1000, 0u64..50), 60..150),
        reach in 1u64..40,
    ) {
        let (mut pair, mut next) = (Pair::new(), 0);
        let mut schedule: Vec<(u64, bool, u64)> = Vec::new();
        for (seq, (_, line, look, fate)) in (0u64..).zip(&frames) {
            let arrives = seq + 1 + line * reach / 1000;
            if *fate > 0 {
                schedule.push((arrives, false, seq));
            }
            schedule.push((arrives + look * reach / 2000, true, seq));
        }
        schedule.sort_unstable();
        let mut due = schedule.into_iter().peekable();
        let happens = |pair: &mut Pair, is_looked_at: bool, seq: u64| {
            if is_looked_at { pair.deliver(FrameSeq(seq)) } else { pair.shortener.arrived(FrameSeq(seq)) }
        };
        for (seq, (made, ..)) in (0u64..).zip(&frames) {
            let bytes = encode(made, &mut next);
            pair.send(seq, &bytes);
            while let Some((_, is_looked_at, seq)) = due.next_if(|(at, ..)| *at <= seq + 1) {
                happens(&mut pair, is_looked_at, seq);
            }
        }
        due.for_each(|(_, is_looked_at, seq)| happens(&mut pair, is_looked_at, seq));
        prop_assert_eq!(pair.arrived.len(), frames.len(), "all made sense in the end");
        prop_assert!(pair.waiting.is_empty());
        SHORTENED.fetch_add(pair.shortened, Ordering::Relaxed);
        WAITED.fetch_add(pair.waited, Ordering::Relaxed);
    }
}

/// What all cases together had of what they are about.
static SHORTENED: AtomicUsize = AtomicUsize::new(0);
static WAITED: AtomicUsize = AtomicUsize::new(0);

#[test]
fn frames_were_shortened_and_had_to_wait() {
    what_was_shortened_comes_back_in_whatever_order();
    let (shortened, waited) = (SHORTENED.load(Ordering::Relaxed), WAITED.load(Ordering::Relaxed));
    println!("{shortened} shortened, {waited} times one waited");
    assert!(shortened > 500 && waited > 50, "{shortened} shortened, {waited} times one waited");
}

#[test]
fn a_trickle_of_events_takes_a_third_less() {
    let mut pair = Pair::new();
    let mut whole = 0;
    for seq in 0..500 {
        let values: Vec<_> = (seq * 4..seq * 4 + 4).map(event).collect();
        let bytes = plain(&values).bytes;
        whole += bytes.len();
        pair.send(seq, &bytes);
        pair.shortener.arrived(FrameSeq(seq));
        pair.deliver(FrameSeq(seq));
    }
    println!("{whole} bytes, {} saved in {} frames", pair.saved, pair.shortened);
    assert!(pair.saved * 3 > whole && pair.shortened > 450);
}

#[test]
fn columns_with_a_dictionary_have_history_too() {
    let mut compressor = Compressor::new(3).unwrap();
    compressor.allow_columns(true);
    compressor.allow_dictionaries(true);
    let (mut pair, mut of_dictionary) = (Pair::new(), 0);
    for seq in 0..3_000u64 {
        let reading = |n: u64| {
            let m = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
            format!("{{\"sensor\":\"boiler-{}\",\"temperature\":{}.{},\"state\":\"in operation\"}}", m % 7, m % 90, m % 10)
        };
        let values: Vec<_> = (seq * 10..seq * 10 + 10).map(reading).collect();
        let bytes = builder(&values).encode(&mut compressor).bytes;
        of_dictionary += usize::from(Frame::decode(bytes.clone(), MAX_RAW).unwrap().missing_dictionary().is_some());
        let before = pair.shortened;
        pair.send(seq, &bytes);
        pair.shortener.arrived(FrameSeq(seq));
        pair.deliver(FrameSeq(seq));
        if of_dictionary > 100 && pair.shortened > before {
            return;
        }
        if let Some(made) = compressor.take_dictionary() {
            pair.dictionaries.insert(made.id(), made);
        }
    }
    panic!("of {of_dictionary} frames with a dictionary none was shortened");
}

#[test]
fn another_history_is_an_error_and_the_frame_without_goes_on() {
    let mut shortener = Shortener::new().unwrap();
    let (mut right, mut wrong, mut decoder) = (Restorer::default(), Restorer::default(), Decoder::new().unwrap());
    let frame = |seq: u64| plain(&(seq * 4..seq * 4 + 4).map(event).collect::<Vec<_>>()).bytes;
    let decode = |bytes: &Bytes| Frame::decode(bytes.clone(), MAX_RAW).unwrap();
    let (begin, mut errors, mut restored) = (Instant::now(), 0, 0);
    for seq in (0..20).map(FrameSeq) {
        let bytes = frame(seq.0);
        match shortener.send(seq, false, &bytes, begin + Duration::from_secs(seq.0), |_| None) {
            None => {
                right.arrived(seq, &decode(&bytes));
                // One frame differs.
                wrong.arrived(seq, &decode(&frame(if seq.0 == 0 { 77 } else { seq.0 })));
            }
            Some(shortened) => {
                let after = FrameAfter::decode(seq, &shortened, MAX_RAW).unwrap();
                assert_eq!(rows(&right.restore(&after, &mut decoder).unwrap()), rows(&decode(&bytes)));
                match wrong.restore(&after, &mut decoder) {
                    Err(error) => {
                        assert!(matches!(error, DecodeError::Checksum { .. }), "{error}");
                        errors += 1;
                        // It is sent again.
                        wrong.arrived(seq, &decode(&bytes));
                    }
                    // Once the frame that differs is no longer a part of it.
                    Ok(frame) => {
                        assert_eq!(rows(&frame), rows(&decode(&bytes)));
                        restored += 1;
                    }
                }
            }
        }
        shortener.arrived(seq);
    }
    println!("{errors} errors, {restored} restored");
    assert!(errors > 0);
}

#[test]
fn a_session_begins_without_history_and_large_frames_have_none() {
    let mut shortener = Shortener::new().unwrap();
    let small = plain(&[event(1)]).bytes;
    let large = plain(&(0..200).map(event).collect::<Vec<_>>());
    assert!(large.raw_length > MOST_RAW_BYTES);
    let now = Instant::now();
    assert_eq!(shortener.send(FrameSeq(0), false, &small, now, |_| None), None);
    assert_eq!(shortener.send(FrameSeq(1), false, &small, now, |_| None), None, "nothing has arrived");
    shortener.arrived(FrameSeq(0));
    assert_eq!(shortener.send(FrameSeq(2), false, &large.bytes, now, |_| None), None);
    assert_eq!(shortener.send(FrameSeq(3), true, &small, now, |_| None), None, "what is urgent waits for nothing");
    assert!(shortener.send(FrameSeq(4), false, &small, now, |_| None).is_some());
}

#[test]
fn cut_or_damaged_bytes_are_an_error() {
    let mut shortener = Shortener::new().unwrap();
    let bytes = plain(&(0..4).map(event).collect::<Vec<_>>()).bytes;
    let now = Instant::now();
    assert_eq!(shortener.send(FrameSeq(0), false, &bytes, now, |_| None), None);
    shortener.arrived(FrameSeq(0));
    let shortened = shortener.send(FrameSeq(1), false, &bytes, now, |_| None).unwrap();
    let mut decoder = Decoder::new().unwrap();
    let mut restore = |bytes: Bytes| {
        let mut restorer = Restorer::default();
        restorer.arrived(FrameSeq(0), &Frame::decode(plain(&(0..4).map(event).collect::<Vec<_>>()).bytes, MAX_RAW).unwrap());
        let after = FrameAfter::decode(FrameSeq(1), &bytes, MAX_RAW).ok()?;
        if restorer.waits(&after) { None } else { restorer.restore(&after, &mut decoder).ok() }
    };
    assert!(restore(shortened.clone()).is_some());
    for length in 0..shortened.len() {
        assert!(restore(shortened.slice(..length)).is_none(), "cut to {length}");
    }
    for at in 0..shortened.len() {
        for bit in 0..8 {
            let mut damaged = shortened.to_vec();
            damaged[at] ^= 1 << bit;
            assert!(restore(damaged.into()).is_none(), "byte {at}, bit {bit}");
        }
    }
}

/// The frame that stands before, and the one after it.
fn frames() -> [Bytes; 2] {
    [0, 4].map(|first| plain(&(first..first + 4).map(event).collect::<Vec<_>>()).bytes)
}

#[test]
fn every_fixture_has_the_bytes_it_always_had_and_is_read_as_what_it_was() {
    let [before, whole] = frames();
    let mut shortener = Shortener::new().unwrap();
    assert_eq!(shortener.send(FrameSeq(0), false, &before, Instant::now(), |_| None), None);
    shortener.arrived(FrameSeq(0));
    let after = shortener.send(FrameSeq(1), false, &whole, Instant::now(), |_| None).unwrap();
    let again = CollectorMessage::FrameAgain(FrameSeq(300));
    let mut message = Vec::new();
    again.encode(&mut message);
    if std::env::var_os("SPILLWAY_BLESS").is_some() {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let all = [("collector.frame_again", hex(&message)), ("frame.before", hex(&before)), ("frame.after", hex(&after))];
        std::fs::write(PATH, all.map(|(name, hex)| format!("{name} = {hex}\n")).concat()).unwrap();
    }
    assert_eq!(fixture("collector.frame_again"), message);
    assert_eq!(CollectorMessage::decode(&message[4..]).unwrap(), again);
    // Another zstd may compress otherwise; what it must do is read the kept bytes.
    let mut restorer = Restorer::default();
    restorer.arrived(FrameSeq(0), &Frame::decode(fixture("frame.before").into(), MAX_RAW).unwrap());
    let after = FrameAfter::decode(FrameSeq(1), &fixture("frame.after").into(), MAX_RAW).unwrap();
    assert_eq!((after.seq(), after.base()), (FrameSeq(1), FrameSeq(1)));
    let restored = restorer.restore(&after, &mut Decoder::new().unwrap()).unwrap();
    assert_eq!(rows(&restored), (4..8).map(event).collect::<Vec<_>>());
}

fn fixture(name: &str) -> Vec<u8> {
    let text = std::fs::read_to_string(PATH).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = ")).unwrap();
    line.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}
