//! The control stream, in both directions; the numbers before a frame on its stream; the words with which a peer ends a connection.

use quinn::{ApplicationClose, ConnectionClose, ConnectionError, TransportErrorCode, VarInt};
use spillway_link::explain::{Side, explain};
use spillway_proto::codec::{DecodeError, Reader, put_varint, put_zigzag};
use spillway_proto::dictionary::MAX_DICTIONARY_BYTES;
use spillway_proto::limits;
use spillway_proto::message::{AgentMessage, CollectorMessage, MessageBuffer, ResumePoint, negotiate};

use crate::memory::bounded;

/// An ack takes 16 bytes in memory and at least two on the wire; other messages hold at most their own texts.
const MEMORY_PER_WIRE_BYTE: usize = 8;

/// First bytes that stand for neither speaker.
const END: u8 = 255;
const NUMBERS: u8 = 254;

/// The first byte says who speaks, the second how large the pieces are in which the rest arrives.
pub fn run(data: &[u8]) {
    let [speaker, piece, stream @ ..] = data else { return };
    match *speaker {
        END => return end(*piece, stream),
        NUMBERS => return numbers(stream),
        _ => {}
    }
    let whole = cut(stream, stream.len().max(1));
    let pieces = cut(stream, usize::from(*piece) + 1);
    assert_eq!(whole, pieces, "it does not matter how the bytes arrive");
    for message in &whole.0 {
        let bound = message.len() * MEMORY_PER_WIRE_BYTE;
        if speaker & 1 == 0 {
            agent(message, bound);
        } else {
            collector(message, bound);
        }
    }
}

/// The messages in the stream, and the error that ends it, if any.
fn cut(stream: &[u8], piece: usize) -> (Vec<Vec<u8>>, Option<DecodeError>) {
    let (mut buffer, mut messages) = (MessageBuffer::default(), Vec::new());
    for bytes in stream.chunks(piece) {
        bounded(2 * (limits::MAX_MESSAGE_BYTES + bytes.len()), || buffer.push(bytes));
        loop {
            match buffer.take() {
                Ok(Some(message)) => messages.push(message.to_vec()),
                Ok(None) => break,
                Err(error) => return (messages, Some(error)),
            }
        }
    }
    (messages, None)
}

fn agent(bytes: &[u8], bound: usize) {
    let Ok(message) = bounded(bound, || AgentMessage::decode(bytes)) else { return };
    match &message {
        AgentMessage::Ignored(_) => return,
        AgentMessage::Hello(hello) => {
            if let Some(version) = negotiate(hello) {
                assert!((hello.min_version..=hello.max_version).contains(&version));
            }
        }
        AgentMessage::Open(open) => assert!(open.source.partition.index() < open.partition_count),
        AgentMessage::Dictionary(dictionary) => assert!(dictionary.bytes().len() <= MAX_DICTIONARY_BYTES),
        AgentMessage::CloseLane(_) | AgentMessage::Flush | AgentMessage::SettingsReport(_) => {}
    }
    same(bytes, |out| message.encode(out));
}

fn collector(bytes: &[u8], bound: usize) {
    let Ok(message) = bounded(bound, || CollectorMessage::decode(bytes)) else { return };
    match &message {
        CollectorMessage::Ignored(_) => return,
        CollectorMessage::Ack(acks) => assert!(acks.len() <= limits::MAX_ACKS),
        CollectorMessage::Deferred { deferred, .. } => assert!(deferred.len() <= spillway_proto::deferred::MAX_RANGES),
        CollectorMessage::Resume { resume: ResumePoint::At(next), .. } => assert!(next.to_kafka() >= 0),
        _ => {}
    }
    same(bytes, |out| message.encode(out));
}

/// A known message has one encoding.
fn same(bytes: &[u8], encode: impl FnOnce(&mut Vec<u8>)) {
    let mut again = Vec::new();
    encode(&mut again);
    assert_eq!(again.get(4..), Some(bytes));
    assert_eq!(again.first_chunk().map(|length| u32::from_be_bytes(*length) as usize), Some(bytes.len()));
}

/// A peer ends the connection: with a code and a reason, or with a TLS alert. What is logged of it is one plain line.
fn end(alert: u8, said: &[u8]) {
    let (code, reason) = said.split_at(said.len().min(4));
    let code = code.iter().fold(0, |code, byte| code << 8 | u32::from(*byte));
    let reason = reason.to_vec();
    let close = ApplicationClose { error_code: VarInt::from_u32(code), reason: reason.clone().into() };
    let alert = ConnectionClose { error_code: TransportErrorCode::crypto(alert), frame_type: None, reason: reason.into() };
    for error in [ConnectionError::ApplicationClosed(close), ConnectionError::ConnectionClosed(alert)] {
        for side in [Side::Agent, Side::Collector] {
            let line = explain(&error, side).to_string();
            assert!(!line.is_empty() && !line.chars().any(char::is_control), "a peer writes into the log: {line:?}");
        }
    }
}

/// Numbers have one encoding.
fn numbers(bytes: &[u8]) {
    let mut again = Vec::new();
    let mut reader = Reader::new(bytes);
    while let Ok(number) = reader.varint("number") {
        put_varint(&mut again, number);
    }
    assert!(bytes.starts_with(&again));
    again.clear();
    let mut reader = Reader::new(bytes);
    while let Ok(number) = reader.zigzag("number") {
        put_zigzag(&mut again, number);
    }
    assert!(bytes.starts_with(&again));
}
