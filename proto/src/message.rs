//! Messages of the control stream: `u32` length (type and body), `u8` type, body.
//!
//! Types 0x01-0x3f go from agent to collector, 0x81-0xbf back. A type with bit 0x40 set that is not known is skipped, so that later versions can
//! add messages that older peers may ignore; any other unknown type ends the session. A known body is read whole: bytes left over are an error.

use crate::codec::{DecodeError, Reader, put_text, put_varint};
use crate::frame::next_offset;
use crate::limits;
use crate::types::{Lane, NextOffset, Partition, TopicId, TopicName, TopicPartition};

/// Protocol version of this build; the ALPN `spillway/1` names the family.
pub const VERSION: u8 = 1;
/// Oldest protocol version that this build speaks.
pub const MIN_VERSION: u8 = 1;
/// ALPN of the QUIC connection.
pub const ALPN: &[u8] = b"spillway/1";
/// Type of a unidirectional stream that carries one frame: the type as a varint, the frame's sequence number as a varint, the frame.
pub const STREAM_FRAME: u64 = 0x00;

/// What the agent says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AgentMessage {
    /// First message of a session.
    Hello(Hello),
    /// Announces a lane; answered by [`CollectorMessage::Resume`] or [`CollectorMessage::Hold`].
    Open(OpenLane),
    /// The agent sends nothing more on this lane.
    CloseLane(Lane),
    /// Nothing more comes for now: commit what is there without waiting for a fuller transaction.
    Flush,
    /// A message of a later version that may be skipped.
    Ignored(u8),
}

/// First message of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Oldest version that the agent speaks.
    pub min_version: u8,
    /// Newest version that the agent speaks.
    pub max_version: u8,
    /// The agent's software version, for people.
    pub software: String,
}

/// Announces one run of one source partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenLane {
    /// Number chosen by the agent, not used before in this session.
    pub lane: Lane,
    /// The source partition.
    pub source: TopicPartition,
    /// The topic's id at the source.
    pub topic_id: TopicId,
    /// How many partitions the topic has at the source.
    pub partition_count: u32,
}

/// What the collector says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CollectorMessage {
    /// The session is open.
    Welcome(Welcome),
    /// Where a lane goes on.
    Resume {
        /// The lane.
        lane: Lane,
        /// Its position at the centre.
        resume: ResumePoint,
    },
    /// Committed at the centre, per lane: everything below the next offset.
    Ack(Vec<(Lane, NextOffset)>),
    /// The centre refuses a record. The lane is dead; the others go on.
    Hold(Hold),
    /// What held a lane may have changed: open a new lane for its partition.
    Retry(Lane),
    /// A message of a later version that may be skipped.
    Ignored(u8),
}

/// Answer to the hello.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Welcome {
    /// The version that the session speaks.
    pub version: u8,
    /// The collector's software version, for people.
    pub software: String,
    /// Largest raw (decompressed) body of a frame, in bytes.
    pub max_frame_raw_bytes: u64,
    /// Most bytes of encoded frames that may be unacknowledged.
    pub max_in_flight_bytes: u64,
}

/// A lane's position at the centre.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResumePoint {
    /// The centre has no progress: the agent begins with a start section.
    Fresh,
    /// The next offset that the centre expects.
    At(NextOffset),
    /// The progress at the centre is of an older topic of the same name: the agent begins with a gap section of reason
    /// [`crate::frame::GapReason::TopicRecreated`] whose `first` is `next`.
    Recreated {
        /// The older topic's id.
        previous: TopicId,
        /// The next offset that was expected of it.
        next: NextOffset,
    },
}

/// The centre refuses a record, or the lane's remote topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// The lane.
    pub lane: Lane,
    /// The first offset that is not committed: the record that is refused.
    pub next: NextOffset,
    /// Why.
    pub reason: HoldReason,
    /// For people: what the central Kafka answered and what to change.
    pub detail: String,
}

/// Why a lane is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HoldReason {
    /// Larger than the remote topic's `max.message.bytes`.
    RecordTooLarge,
    /// Timestamp outside what the remote topic allows.
    TimestampOutOfRange,
    /// Refused for another reason that the record itself has.
    RecordInvalid,
    /// The remote topic cannot be written or made: name, authorisation, policy.
    TopicRefused,
    /// A reason that this version does not know.
    Other(u8),
}

impl HoldReason {
    /// The number on the wire.
    pub fn code(self) -> u8 {
        match self {
            Self::RecordTooLarge => 1,
            Self::TimestampOutOfRange => 2,
            Self::RecordInvalid => 3,
            Self::TopicRefused => 4,
            Self::Other(code) => code,
        }
    }

    /// The reason behind a number.
    pub fn from_code(code: u8) -> Self {
        match code {
            1 => Self::RecordTooLarge,
            2 => Self::TimestampOutOfRange,
            3 => Self::RecordInvalid,
            4 => Self::TopicRefused,
            other => Self::Other(other),
        }
    }

    /// Stable name for logs and metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RecordTooLarge => "record_too_large",
            Self::TimestampOutOfRange => "timestamp_out_of_range",
            Self::RecordInvalid => "record_invalid",
            Self::TopicRefused => "topic_refused",
            Self::Other(_) => "other",
        }
    }
}

/// Picks the newest version that both sides speak; `None` without one.
pub fn negotiate(hello: &Hello) -> Option<u8> {
    let version = hello.max_version.min(VERSION);
    (version >= hello.min_version && version >= MIN_VERSION).then_some(version)
}

impl AgentMessage {
    /// Appends the message with its length.
    pub fn encode(&self, out: &mut Vec<u8>) {
        framed(out, |out| match self {
            Self::Hello(hello) => {
                out.extend_from_slice(&[HELLO, hello.min_version, hello.max_version]);
                put_text(out, &hello.software, limits::MAX_TEXT);
            }
            Self::Open(open) => {
                out.push(OPEN);
                put_varint(out, u64::from(open.lane.0));
                put_text(out, open.source.topic.as_str(), limits::MAX_TOPIC_NAME);
                out.extend_from_slice(&open.topic_id.0);
                put_varint(out, u64::from(open.source.partition.index()));
                put_varint(out, u64::from(open.partition_count));
            }
            Self::CloseLane(lane) => {
                out.push(CLOSE_LANE);
                put_varint(out, u64::from(lane.0));
            }
            Self::Flush => out.push(FLUSH),
            Self::Ignored(kind) => out.push(*kind),
        });
    }

    /// Decodes type and body, without the length.
    ///
    /// # Errors
    /// Any deviation from the format.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let message = match reader.u8("message type")? {
            HELLO => Self::Hello(Hello {
                min_version: reader.u8("oldest version")?,
                max_version: reader.u8("newest version")?,
                software: reader.text(limits::MAX_TEXT, "software")?.to_owned(),
            }),
            OPEN => Self::Open(open_lane(&mut reader)?),
            CLOSE_LANE => Self::CloseLane(lane(&mut reader)?),
            FLUSH => Self::Flush,
            kind => return unknown(kind).map(Self::Ignored),
        };
        reader.finish("the message")?;
        Ok(message)
    }
}

impl CollectorMessage {
    /// Appends the message with its length.
    pub fn encode(&self, out: &mut Vec<u8>) {
        framed(out, |out| match self {
            Self::Welcome(welcome) => {
                out.extend_from_slice(&[WELCOME, welcome.version]);
                put_text(out, &welcome.software, limits::MAX_TEXT);
                put_varint(out, welcome.max_frame_raw_bytes);
                put_varint(out, welcome.max_in_flight_bytes);
            }
            Self::Resume { lane, resume } => {
                out.push(RESUME);
                put_varint(out, u64::from(lane.0));
                put_resume(out, resume);
            }
            Self::Ack(acks) => {
                out.push(ACK);
                put_varint(out, acks.len() as u64);
                for (lane, next) in acks {
                    put_varint(out, u64::from(lane.0));
                    put_varint(out, next.value());
                }
            }
            Self::Hold(hold) => {
                out.push(HOLD);
                put_varint(out, u64::from(hold.lane.0));
                put_varint(out, hold.next.value());
                out.push(hold.reason.code());
                put_text(out, &hold.detail, limits::MAX_TEXT);
            }
            Self::Retry(lane) => {
                out.push(RETRY);
                put_varint(out, u64::from(lane.0));
            }
            Self::Ignored(kind) => out.push(*kind),
        });
    }

    /// Decodes type and body, without the length.
    ///
    /// # Errors
    /// Any deviation from the format.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let message = match reader.u8("message type")? {
            WELCOME => Self::Welcome(Welcome {
                version: reader.u8("version")?,
                software: reader.text(limits::MAX_TEXT, "software")?.to_owned(),
                max_frame_raw_bytes: reader.varint("largest raw frame")?,
                max_in_flight_bytes: reader.varint("bytes in flight")?,
            }),
            RESUME => Self::Resume { lane: lane(&mut reader)?, resume: resume_point(&mut reader)? },
            ACK => Self::Ack(acks(&mut reader)?),
            HOLD => Self::Hold(Hold {
                lane: lane(&mut reader)?,
                next: next_offset(&mut reader, "next")?,
                reason: HoldReason::from_code(reader.u8("hold reason")?),
                detail: reader.text(limits::MAX_TEXT, "detail")?.to_owned(),
            }),
            RETRY => Self::Retry(lane(&mut reader)?),
            kind => return unknown(kind).map(Self::Ignored),
        };
        reader.finish("the message")?;
        Ok(message)
    }
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
const HELLO: u8 = 0x01;
const OPEN: u8 = 0x02;
const CLOSE_LANE: u8 = 0x03;
const FLUSH: u8 = 0x04;
const WELCOME: u8 = 0x81;
const RESUME: u8 = 0x82;
const ACK: u8 = 0x83;
const HOLD: u8 = 0x84;
const RETRY: u8 = 0x85;
const RESUME_FRESH: u8 = 0;
const RESUME_AT: u8 = 1;
const RESUME_RECREATED: u8 = 2;

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

fn open_lane(reader: &mut Reader<'_>) -> Result<OpenLane, DecodeError> {
    let lane = lane(reader)?;
    let topic = reader.text(limits::MAX_TOPIC_NAME, "topic")?;
    let topic = TopicName::parse(topic).map_err(|source| DecodeError::Name { what: "topic", source })?;
    let topic_id = TopicId(reader.array("topic id")?);
    let limit = u64::from(limits::MAX_PARTITIONS);
    let index = reader.varint_up_to(limit - 1, "partition")?;
    let partition_count = reader.varint_up_to(limit, "partition count")? as u32;
    if index >= u64::from(partition_count) {
        return Err(DecodeError::Mismatch { what: "partition and count", left: index, right: u64::from(partition_count) });
    }
    let partition = Partition::new(index as u32).ok_or(DecodeError::Range { what: "partition", value: index, limit })?;
    Ok(OpenLane { lane, source: TopicPartition { topic, partition }, topic_id, partition_count })
}

fn put_resume(out: &mut Vec<u8>, resume: &ResumePoint) {
    match resume {
        ResumePoint::Fresh => out.push(RESUME_FRESH),
        ResumePoint::At(next) => {
            out.push(RESUME_AT);
            put_varint(out, next.value());
        }
        ResumePoint::Recreated { previous, next } => {
            out.push(RESUME_RECREATED);
            out.extend_from_slice(&previous.0);
            put_varint(out, next.value());
        }
    }
}

fn resume_point(reader: &mut Reader<'_>) -> Result<ResumePoint, DecodeError> {
    Ok(match reader.u8("resume kind")? {
        RESUME_FRESH => ResumePoint::Fresh,
        RESUME_AT => ResumePoint::At(next_offset(reader, "next")?),
        RESUME_RECREATED => ResumePoint::Recreated { previous: TopicId(reader.array("topic id")?), next: next_offset(reader, "next")? },
        other => return Err(DecodeError::Unknown { what: "resume kind", value: u64::from(other) }),
    })
}

fn acks(reader: &mut Reader<'_>) -> Result<Vec<(Lane, NextOffset)>, DecodeError> {
    let count = reader.length(limits::MAX_ACKS.min(reader.remaining() / 2), "ack count")?;
    (0..count).map(|_| Ok((lane(reader)?, next_offset(reader, "next")?))).collect()
}
