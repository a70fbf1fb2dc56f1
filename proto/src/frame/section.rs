//! What a frame says of a lane, and the bytes of its header for that.

use super::GapReason;
use crate::codec::{DecodeError, Reader, put_varint};
use crate::limits;
use crate::types::{Lane, NextOffset};

/// One lane's part of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Section {
    /// The lane.
    pub lane: Lane,
    /// What it says about the lane.
    pub kind: SectionKind,
}

/// What a section says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SectionKind {
    /// Everything that the source has from `first` up to, not including, `next`: records and the holes between them.
    Data {
        /// First offset covered.
        first: NextOffset,
        /// One past the last offset covered.
        next: NextOffset,
        /// Records, which may be none: then the range is a hole.
        records: u32,
        /// Length of the records in the raw body, in bytes.
        raw_length: usize,
    },
    /// The offsets from `first` on will not come; the lane goes on at `next`.
    Gap {
        /// The next expected offset.
        first: NextOffset,
        /// Where the lane goes on.
        next: NextOffset,
        /// Why.
        reason: GapReason,
    },
    /// A lane without progress at the centre begins here. Without this section a later frame that overtook the first one would be taken
    /// for the beginning.
    Start {
        /// Where the lane begins.
        next: NextOffset,
    },
}

impl Section {
    /// Reads what [`Self::put`] writes; data of more than `max_raw` bytes is refused.
    pub(super) fn read(reader: &mut Reader<'_>, max_raw: usize) -> Result<Self, DecodeError> {
        Ok(Self { lane: Lane(reader.varint_u32("lane")?), kind: SectionKind::read(reader, max_raw)? })
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        put_varint(out, u64::from(self.lane.0));
        self.kind.put(out);
    }
}

impl SectionKind {
    /// Where it begins: of a start, where the lane does.
    pub fn first(self) -> NextOffset {
        match self {
            Self::Data { first, .. } | Self::Gap { first, .. } => first,
            Self::Start { next } => next,
        }
    }

    /// Where the lane goes on after this section.
    pub fn next(self) -> NextOffset {
        match self {
            Self::Data { next, .. } | Self::Gap { next, .. } | Self::Start { next } => next,
        }
    }

    /// The offsets that it takes a lane over that has begun, first and next: of data, and of a gap that may stand in the middle of a lane. `None` for what a
    /// lane only begins with.
    pub fn range(self) -> Option<(NextOffset, NextOffset)> {
        match self {
            Self::Data { first, next, .. } | Self::Gap { first, next, reason: GapReason::Expired } => Some((first, next)),
            Self::Gap { .. } | Self::Start { .. } => None,
        }
    }

    /// Length in the raw body, in bytes.
    pub fn raw_length(self) -> usize {
        match self {
            Self::Data { raw_length, .. } => raw_length,
            Self::Gap { .. } | Self::Start { .. } => 0,
        }
    }

    /// Reads what [`Self::put`] writes; data of more than `max_raw` bytes is refused.
    ///
    /// # Errors
    /// Any deviation from the format.
    pub fn read(reader: &mut Reader<'_>, max_raw: usize) -> Result<Self, DecodeError> {
        Ok(match reader.u8("section kind")? {
            KIND_DATA => {
                let first = next_offset(reader, "first")?;
                let span = reader.varint("span")?;
                let value = first.value().saturating_add(span);
                let limit = i64::MAX.cast_unsigned();
                let next = NextOffset::new(value).ok_or(DecodeError::Range { what: "next", value, limit })?;
                let limit = u64::from(limits::MAX_SECTION_RECORDS).min(span);
                let records = reader.varint_up_to(limit, "record count")? as u32;
                Self::Data { first, next, records, raw_length: reader.length(max_raw, "raw length")? }
            }
            KIND_GAP => {
                let (first, next) = (next_offset(reader, "first")?, next_offset(reader, "next")?);
                Self::Gap { first, next, reason: GapReason::from_code(reader.u8("gap reason")?) }
            }
            KIND_START => Self::Start { next: next_offset(reader, "next")? },
            other => return Err(DecodeError::Unknown { what: "section kind", value: u64::from(other) }),
        })
    }

    /// Appends the bytes of a frame's header for it, behind the lane.
    pub fn put(self, out: &mut Vec<u8>) {
        match self {
            Self::Data { first, next, records, raw_length } => {
                out.push(KIND_DATA);
                put_varint(out, first.value());
                put_varint(out, next.value().saturating_sub(first.value()));
                put_varint(out, u64::from(records));
                put_varint(out, raw_length as u64);
            }
            Self::Gap { first, next, reason } => {
                out.push(KIND_GAP);
                put_varint(out, first.value());
                put_varint(out, next.value());
                out.push(reason.code());
            }
            Self::Start { next } => {
                out.push(KIND_START);
                put_varint(out, next.value());
            }
        }
    }
}

/// Reads a next offset; `what` names it in an error.
///
/// # Errors
/// When it is beyond what Kafka knows.
pub fn next_offset(reader: &mut Reader<'_>, what: &'static str) -> Result<NextOffset, DecodeError> {
    let limit = i64::MAX.cast_unsigned();
    let value = reader.varint_up_to(limit, what)?;
    NextOffset::new(value).ok_or(DecodeError::Range { what, value, limit })
}

const KIND_DATA: u8 = 0;
const KIND_GAP: u8 = 1;
const KIND_START: u8 = 2;
