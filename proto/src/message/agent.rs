//! What the agent says on the control stream.

use bytes::Bytes;

use super::settings::{put_report, report};
use super::{SettingsReport, framed, lane, unknown};
use crate::codec::{DecodeError, Reader, put_text, put_varint};
use crate::dictionary::Dictionary;
use crate::frame::next_offset;
use crate::limits;
use crate::types::{Lane, NextOffset, Partition, TopicId, TopicName, TopicPartition};

/// What the agent says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AgentMessage {
    /// First message of a session.
    Hello(Hello),
    /// Announces a lane; answered by [`super::CollectorMessage::Resume`] or [`super::CollectorMessage::Hold`].
    Open(OpenLane),
    /// The agent sends nothing more on this lane.
    CloseLane(Lane),
    /// Nothing more comes for now: commit what is there without waiting for a fuller transaction.
    Flush,
    /// What became of the settings that the collector has sent. Skipped by collectors that know no settings.
    SettingsReport(SettingsReport),
    /// A dictionary that the collector wants.
    Dictionary(Dictionary),
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
    /// `None`: the partition's own lane. Else a late lane, for the [deferred](crate::deferred) range that ends here; only in a session of version 3.
    pub until: Option<NextOffset>,
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
                out.push(if open.until.is_some() { OPEN_LATE } else { OPEN });
                put_varint(out, u64::from(open.lane.0));
                put_text(out, open.source.topic.as_str(), limits::MAX_TOPIC_NAME);
                out.extend_from_slice(&open.topic_id.0);
                put_varint(out, u64::from(open.source.partition.index()));
                put_varint(out, u64::from(open.partition_count));
                if let Some(until) = open.until {
                    put_varint(out, until.value());
                }
            }
            Self::CloseLane(lane) => {
                out.push(CLOSE_LANE);
                put_varint(out, u64::from(lane.0));
            }
            Self::Flush => out.push(FLUSH),
            Self::SettingsReport(report) => {
                out.push(SETTINGS_REPORT);
                put_report(out, report);
            }
            Self::Dictionary(dictionary) => {
                out.push(DICTIONARY);
                out.extend_from_slice(dictionary.bytes());
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
            HELLO => Self::Hello(Hello {
                min_version: reader.u8("oldest version")?,
                max_version: reader.u8("newest version")?,
                software: reader.text(limits::MAX_TEXT, "software")?.to_owned(),
            }),
            OPEN => Self::Open(open_lane(&mut reader)?),
            OPEN_LATE => {
                let open = open_lane(&mut reader)?;
                Self::Open(OpenLane { until: Some(next_offset(&mut reader, "until")?), ..open })
            }
            CLOSE_LANE => Self::CloseLane(lane(&mut reader)?),
            FLUSH => Self::Flush,
            SETTINGS_REPORT => Self::SettingsReport(report(&mut reader)?),
            DICTIONARY => {
                let bytes = reader.bytes(reader.remaining(), "dictionary")?;
                Self::Dictionary(Dictionary::new(Bytes::copy_from_slice(bytes))?)
            }
            kind => return unknown(kind).map(Self::Ignored),
        };
        reader.finish("the message")?;
        Ok(message)
    }
}

const HELLO: u8 = 0x01;
const OPEN: u8 = 0x02;
const CLOSE_LANE: u8 = 0x03;
const FLUSH: u8 = 0x04;
const OPEN_LATE: u8 = 0x05;
const SETTINGS_REPORT: u8 = 0x41;
const DICTIONARY: u8 = 0x42;

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
    Ok(OpenLane { lane, source: TopicPartition { topic, partition }, topic_id, partition_count, until: None })
}
