//! What the collector says on the control stream.

use super::settings::{put_settings, settings};
use super::{Settings, framed, lane, unknown};
use crate::codec::{DecodeError, Reader, put_text, put_varint};
use crate::deferred::Deferred;
use crate::dictionary::DictionaryId;
use crate::frame::next_offset;
use crate::limits;
use crate::types::{FrameSeq, Lane, NextOffset, TopicId};

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
    /// The deferred ranges of a lane's partition; comes before the resume of a partition's own lane, where there are any. Only in a session of
    /// version 3.
    Deferred {
        /// The lane.
        lane: Lane,
        /// What is still to come on late lanes.
        deferred: Deferred,
    },
    /// Committed at the centre, per lane: everything below the next offset.
    Ack(Vec<(Lane, NextOffset)>),
    /// The centre refuses a record. The lane is dead; the others go on.
    Hold(Hold),
    /// What held a lane may have changed: open a new lane for its partition.
    Retry(Lane),
    /// The site's settings. Skipped by agents that know none.
    Settings(Settings),
    /// A report about the settings of this revision has arrived: a sign of life for an agent that tries them.
    SettingsSeen(u64),
    /// A frame names this dictionary, and it is not here.
    WantDictionary(DictionaryId),
    /// The frame of this number has a [history](crate::history) that is not here: send it without, under the same number. Only in a session of version 4.
    FrameAgain(FrameSeq),
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
    /// Every name that [`Self::as_str`] answers.
    pub const NAMES: &[&str] = &["record_too_large", "timestamp_out_of_range", "record_invalid", "topic_refused", "other"];

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
            Self::Deferred { lane, deferred } => {
                out.push(DEFERRED);
                put_varint(out, u64::from(lane.0));
                deferred.put(out);
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
            Self::Settings(settings) => {
                out.push(SETTINGS);
                put_settings(out, settings);
            }
            Self::SettingsSeen(revision) => {
                out.push(SETTINGS_SEEN);
                put_varint(out, *revision);
            }
            Self::WantDictionary(id) => {
                out.push(WANT_DICTIONARY);
                out.extend_from_slice(&id.0.to_be_bytes());
            }
            Self::FrameAgain(seq) => {
                out.push(FRAME_AGAIN);
                put_varint(out, seq.0);
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
            DEFERRED => Self::Deferred { lane: lane(&mut reader)?, deferred: Deferred::read(&mut reader)? },
            ACK => Self::Ack(acks(&mut reader)?),
            HOLD => Self::Hold(Hold {
                lane: lane(&mut reader)?,
                next: next_offset(&mut reader, "next")?,
                reason: HoldReason::from_code(reader.u8("hold reason")?),
                detail: reader.text(limits::MAX_TEXT, "detail")?.to_owned(),
            }),
            RETRY => Self::Retry(lane(&mut reader)?),
            SETTINGS => Self::Settings(settings(&mut reader)?),
            SETTINGS_SEEN => Self::SettingsSeen(reader.varint("revision")?),
            WANT_DICTIONARY => Self::WantDictionary(DictionaryId(reader.array("dictionary id").map(u32::from_be_bytes)?)),
            FRAME_AGAIN => Self::FrameAgain(FrameSeq(reader.varint("frame number")?)),
            kind => return unknown(kind).map(Self::Ignored),
        };
        reader.finish("the message")?;
        Ok(message)
    }
}

const WELCOME: u8 = 0x81;
const RESUME: u8 = 0x82;
const ACK: u8 = 0x83;
const HOLD: u8 = 0x84;
const RETRY: u8 = 0x85;
const DEFERRED: u8 = 0x86;
const FRAME_AGAIN: u8 = 0x87;
const SETTINGS: u8 = 0xc1;
const SETTINGS_SEEN: u8 = 0xc2;
const WANT_DICTIONARY: u8 = 0xc3;
const RESUME_FRESH: u8 = 0;
const RESUME_AT: u8 = 1;
const RESUME_RECREATED: u8 = 2;

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
