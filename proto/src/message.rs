//! Messages of the control stream: `u32` length (type and body), `u8` type, body.
//!
//! Types 0x01-0x7f go from agent to collector, 0x81-0xff back. A type with bit 0x40 set that is not known is skipped, so that later versions can
//! add messages that older peers may ignore; any other unknown type ends the session. A known body is read whole: bytes left over are an error.
//!
//! | module | what it is for |
//! |---|---|
//! | `agent` | what the agent says |
//! | `collector` | what the collector says |
//! | `settings` | a site's settings, and what it made of them |

mod agent;
mod collector;
mod settings;

pub use agent::{AgentMessage, Hello, OpenLane};
pub use collector::{CollectorMessage, Hold, HoldReason, ResumePoint, Welcome};
pub use settings::{Settings, SettingsOutcome, SettingsReport, revision};

use crate::codec::{DecodeError, Reader};
use crate::limits;
use crate::types::Lane;

/// Newest protocol version of this build. 2 has frames in [columns](crate::columns), 3 [deferred](crate::deferred) ranges, 4 [history](crate::history). The ALPN `spillway/1` names the family.
pub const VERSION: u8 = 4;
/// Oldest protocol version that this build speaks.
pub const MIN_VERSION: u8 = 1;
/// Oldest protocol version with [deferred](crate::deferred) ranges.
pub const DEFERRED_SINCE: u8 = 3;
/// Oldest protocol version with [history](crate::history).
pub const HISTORY_SINCE: u8 = 4;
/// ALPN of the QUIC connection.
pub const ALPN: &[u8] = b"spillway/1";
/// Type of a unidirectional stream that carries one frame: the type as a varint, the frame's sequence number as a varint, the frame.
pub const STREAM_FRAME: u64 = 0x00;
/// Type of one that carries a frame with [history](crate::history): the type and the sequence number as above, a varint that says how many frames below it its
/// history ends, the frame. Only in a session of version 4.
pub const STREAM_FRAME_AFTER: u64 = 0x01;

/// Picks the newest version that both sides speak; `None` without one.
pub fn negotiate(hello: &Hello) -> Option<u8> {
    let version = hello.max_version.min(VERSION);
    (version >= hello.min_version && version >= MIN_VERSION).then_some(version)
}

/// Cuts a byte stream into messages. Holds at most one message of [`limits::MAX_MESSAGE_BYTES`].
#[derive(Debug, Default)]
pub struct MessageBuffer {
    bytes: Vec<u8>,
    read: usize,
}

impl MessageBuffer {
    /// Appends bytes as they arrive. Take all messages out with [`Self::take`] before the next call: that is what bounds the buffer.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.read);
        self.read = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// Type and body of the next whole message; `None` when more bytes are needed.
    ///
    /// # Errors
    /// A length of zero or above [`limits::MAX_MESSAGE_BYTES`], told before the message has arrived.
    pub fn take(&mut self) -> Result<Option<&[u8]>, DecodeError> {
        let mut reader = Reader::new(self.bytes.get(self.read..).unwrap_or_default());
        let Ok(length) = reader.array("message length").map(u32::from_be_bytes) else {
            return Ok(None);
        };
        let (value, limit) = (u64::from(length), limits::MAX_MESSAGE_BYTES as u64);
        if value == 0 || value > limit {
            return Err(DecodeError::Range { what: "message length", value, limit });
        }
        let start = self.read + LENGTH_BYTES;
        let end = start + length as usize;
        if end > self.bytes.len() {
            return Ok(None);
        }
        self.read = end;
        Ok(self.bytes.get(start..end))
    }
}

const LENGTH_BYTES: usize = 4;
const IGNORABLE: u8 = 0x40;

fn framed(out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; LENGTH_BYTES]);
    body(out);
    let length = (out.len() - start - LENGTH_BYTES) as u32;
    if let Some(place) = out.get_mut(start..start + LENGTH_BYTES) {
        place.copy_from_slice(&length.to_be_bytes());
    }
}

fn unknown(kind: u8) -> Result<u8, DecodeError> {
    if kind & IGNORABLE != 0 {
        return Ok(kind);
    }
    Err(DecodeError::Unknown { what: "message type", value: u64::from(kind) })
}

fn lane(reader: &mut Reader<'_>) -> Result<Lane, DecodeError> {
    reader.varint_u32("lane").map(Lane)
}
