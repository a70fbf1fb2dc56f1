//! Frames off their streams: read at the same time, bounded in number and bytes, decoded and checked, body still compressed.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use quinn::{Connection, ReadError, RecvStream};
use spillway_proto::codec::{DecodeError, Reader};
use spillway_proto::dictionary::{Dictionary, DictionaryId};
use spillway_proto::frame::{Frame, FrameAfter};
use spillway_proto::message::{HISTORY_SINCE, STREAM_FRAME, STREAM_FRAME_AFTER};
use spillway_proto::{CloseCode, FrameSeq, limits as proto_limits};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use super::{Refused, limits};
use crate::custody::{Custody, HeldFrame, Lease, Place};
use crate::metrics::Meters;

/// A frame that has arrived, or what was wrong with it.
pub type Arrival = Result<Arrived, Refused>;

/// A frame that has arrived.
#[derive(Debug)]
pub struct Arrived {
    /// Its number.
    pub seq: FrameSeq,
    /// The frame. As long as it has history, its body makes no sense.
    pub frame: HeldFrame,
    /// The same with its history to be put before it.
    pub after: Option<Box<FrameAfter>>,
}

impl Arrived {
    /// The dictionary that the frame cannot be opened without.
    pub fn missing_dictionary(&self) -> Option<DictionaryId> {
        match &self.after {
            Some(after) => after.frame().missing_dictionary(),
            None => self.frame.as_ref().missing_dictionary(),
        }
    }

    /// Attaches it.
    pub fn attach(&mut self, dictionary: Arc<Dictionary>) {
        match &mut self.after {
            Some(after) => after.frame_mut().attach(dictionary),
            None => self.frame.attach(dictionary),
        }
    }
}

/// Bytes taken off a stream at once.
const READ_BYTES: usize = 256 * 1024;

/// As the semaphore counts.
const MAX_SECTIONS: u32 = proto_limits::MAX_SECTIONS as u32;

/// What stands before the frame on its stream: type and sequence number, two varints.
const MAX_PREFIX_BYTES: usize = 20;

/// Reads frames until the connection ends or nobody listens.
#[derive(Debug)]
pub struct FrameReader {
    /// The connection.
    pub connection: Connection,
    /// The session's version of the protocol.
    pub version: u8,
    /// The session's bytes.
    pub custody: Arc<Custody>,
    /// Largest raw body.
    pub max_raw_bytes: usize,
    /// Metrics.
    pub meters: Meters,
    /// Where they go.
    pub arrivals: mpsc::Sender<Arrival>,
}

impl FrameReader {
    /// Runs until the connection ends.
    pub async fn run(self) {
        let held = Arc::new(Semaphore::new(limits::MAX_FRAMES_HELD));
        let sections = Arc::new(Semaphore::new(limits::MAX_SECTIONS_HELD));
        let reader = Arc::new(self);
        let mut streams = JoinSet::new();
        loop {
            let Ok(place) = Arc::clone(&held).acquire_owned().await else {
                return;
            };
            let Ok(sections) = Arc::clone(&sections).acquire_many_owned(MAX_SECTIONS).await else {
                return;
            };
            let place = Place { frame: place, sections };
            let stream = tokio::select! {
                stream = reader.connection.accept_uni() => stream,
                () = reader.arrivals.closed() => return,
            };
            let Ok(stream) = stream else {
                return;
            };
            while streams.try_join_next().is_some() {}
            let reader = Arc::clone(&reader);
            streams.spawn(async move { reader.read(stream, place).await });
        }
    }

    async fn read(&self, stream: RecvStream, place: Place) {
        let mut lease = self.custody.lease();
        let arrival = match self.read_whole(stream, &mut lease).await {
            Ok(None) => return,
            Ok(Some(bytes)) => self.decode(bytes, lease, place),
            Err(refused) => Err(refused),
        };
        // The session has ended when nobody listens.
        let _ended = self.arrivals.send(arrival).await;
    }

    /// `None` when the connection is gone.
    async fn read_whole(&self, mut stream: RecvStream, lease: &mut Lease) -> Result<Option<Bytes>, Refused> {
        let limit = self.max_raw_bytes + proto_limits::MAX_FRAME_OVERHEAD_BYTES + MAX_PREFIX_BYTES;
        let mut whole = BytesMut::new();
        loop {
            let chunk = match stream.read_chunk(READ_BYTES, true).await {
                Ok(Some(chunk)) => chunk.bytes,
                Ok(None) => return Ok(Some(whole.freeze())),
                Err(ReadError::ConnectionLost(_)) => return Ok(None),
                Err(error) => return Err(Refused::new(CloseCode::ProtocolViolation, format!("a frame's stream broke: {error}"))),
            };
            if whole.len() + chunk.len() > limit {
                return Err(Refused::new(CloseCode::LimitExceeded, format!("a frame of more than {limit} bytes")));
            }
            lease.enlarge(chunk.len()).map_err(|exceeded| Refused::new(CloseCode::LimitExceeded, exceeded.to_string()))?;
            whole.extend_from_slice(&chunk);
        }
    }

    fn decode(&self, bytes: Bytes, lease: Lease, mut place: Place) -> Arrival {
        let invalid = |error: DecodeError| Refused::new(code_of(&error), format!("a frame: {error}"));
        let mut reader = Reader::new(&bytes);
        let has_history = match reader.varint("stream type").map_err(invalid)? {
            STREAM_FRAME => false,
            STREAM_FRAME_AFTER if self.version >= HISTORY_SINCE => true,
            other => return Err(Refused::new(CloseCode::ProtocolViolation, format!("a stream of unknown type {other}"))),
        };
        let seq = FrameSeq(reader.varint_up_to(MAX_SEQ, "frame number").map_err(invalid)?);
        let bytes = bytes.slice(reader.position()..);
        let (frame, after) = if has_history {
            let after = FrameAfter::decode(seq, &bytes, self.max_raw_bytes).map_err(invalid)?;
            (after.frame().clone(), Some(Box::new(after)))
        } else {
            (Frame::decode(bytes, self.max_raw_bytes).map_err(invalid)?, None)
        };
        self.meters.frames.inc();
        self.meters.frame_bytes.inc_by(frame.wire_length() as u64);
        // What was reserved beyond the sections that there are is given back.
        drop(place.sections.split(proto_limits::MAX_SECTIONS.saturating_sub(frame.sections().len())));
        Ok(Arrived { seq, frame: HeldFrame::new(frame, lease, place), after })
    }
}

/// Far beyond what a session can send; keeps sums from overflowing.
const MAX_SEQ: u64 = u64::MAX / 2;

fn code_of(error: &DecodeError) -> CloseCode {
    match error {
        DecodeError::Range { what: "raw length", .. } => CloseCode::LimitExceeded,
        _ => CloseCode::FrameInvalid,
    }
}
