//! Record batches: what is read from the 61 byte header of format version 2, how the broker rewrites it, and the
//! control marker that ends a transaction.
//!
//! ```text
//! 0  base offset i64 | 8 length i32 | 12 leader epoch i32 | 16 magic i8 | 17 crc u32 | 21 attributes i16
//! 23 last offset delta i32 | 27 base timestamp i64 | 35 max timestamp i64 | 43 producer id i64
//! 51 producer epoch i16 | 53 base sequence i32 | 57 record count i32 | 61 records
//! ```
//! The checksum covers everything from the attributes on, so base offset and leader epoch are rewritten freely; a
//! change of the timestamp type or of the maximum timestamp needs a new checksum.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::ResponseError;

use crate::compress::decompress;
use crate::varint::Reader;

/// Bytes before the first record.
pub(crate) const HEADER_LEN: usize = 61;
/// Bytes of a batch that its length field does not count.
const LENGTH_OVERHEAD: usize = 12;
const CRC_AT: usize = 17;
const ATTRIBUTES_AT: usize = 21;
const MAX_TIMESTAMP_AT: usize = 35;

const LOG_APPEND_TIME: i16 = 0x08;
const TRANSACTIONAL: i16 = 0x10;
const CONTROL: i16 = 0x20;
const COMPRESSION_MASK: i16 = 0x07;

/// The leader epoch of every partition: one node never elects a second leader.
pub(crate) const LEADER_EPOCH: i32 = 0;
/// The producer id of a batch whose producer is not idempotent.
pub(crate) const NO_PRODUCER: i64 = -1;

/// The header of a record batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) base_offset: i64,
    pub(crate) attributes: i16,
    pub(crate) last_offset_delta: i32,
    pub(crate) base_timestamp: i64,
    pub(crate) max_timestamp: i64,
    pub(crate) producer_id: i64,
    pub(crate) producer_epoch: i16,
    pub(crate) base_sequence: i32,
    pub(crate) record_count: i32,
}

impl Header {
    /// Reads and checks the only batch of `bytes`, as Kafka checks what a producer sends.
    ///
    /// # Errors
    /// The code that Kafka answers: `CORRUPT_MESSAGE` for a wrong length or checksum, `UNSUPPORTED_FOR_MESSAGE_FORMAT`
    /// for the formats 0 and 1, `INVALID_RECORD` for more than one batch, a control batch or a wrong record count.
    pub(crate) fn of_produced(bytes: &[u8]) -> Result<Self, ResponseError> {
        let header = Self::read(bytes)?;
        let length = LENGTH_OVERHEAD + length_field(bytes)?;
        if length > bytes.len() {
            return Err(ResponseError::CorruptMessage);
        }
        if length < bytes.len() {
            return Err(ResponseError::InvalidRecord);
        }
        if crc32c::crc32c(bytes.get(ATTRIBUTES_AT..).unwrap_or_default()) != field(bytes, CRC_AT).map(u32::from_be_bytes)? {
            return Err(ResponseError::CorruptMessage);
        }
        let counted = header.record_count > 0 && header.record_count == header.last_offset_delta.saturating_add(1);
        if header.is_control() || !counted {
            return Err(ResponseError::InvalidRecord);
        }
        Ok(header)
    }

    /// Reads a header without checking the checksum.
    ///
    /// # Errors
    /// `CORRUPT_MESSAGE` for fewer than 61 bytes, `UNSUPPORTED_FOR_MESSAGE_FORMAT` for another magic than 2.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, ResponseError> {
        if bytes.len() < HEADER_LEN {
            return Err(ResponseError::CorruptMessage);
        }
        if bytes.get(16) != Some(&2) {
            return Err(ResponseError::UnsupportedForMessageFormat);
        }
        Ok(Self {
            base_offset: field(bytes, 0).map(i64::from_be_bytes)?,
            attributes: field(bytes, ATTRIBUTES_AT).map(i16::from_be_bytes)?,
            last_offset_delta: field(bytes, 23).map(i32::from_be_bytes)?,
            base_timestamp: field(bytes, 27).map(i64::from_be_bytes)?,
            max_timestamp: field(bytes, MAX_TIMESTAMP_AT).map(i64::from_be_bytes)?,
            producer_id: field(bytes, 43).map(i64::from_be_bytes)?,
            producer_epoch: field(bytes, 51).map(i16::from_be_bytes)?,
            base_sequence: field(bytes, 53).map(i32::from_be_bytes)?,
            record_count: field(bytes, 57).map(i32::from_be_bytes)?,
        })
    }

    pub(crate) fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL != 0
    }

    pub(crate) fn is_control(&self) -> bool {
        self.attributes & CONTROL != 0
    }

    pub(crate) fn is_log_append_time(&self) -> bool {
        self.attributes & LOG_APPEND_TIME != 0
    }

    pub(crate) fn last_offset(&self) -> i64 {
        self.base_offset + i64::from(self.last_offset_delta)
    }

    /// The sequence number of the last record; sequence numbers start again at 0 after `i32::MAX`.
    pub(crate) fn last_sequence(&self) -> i32 {
        let sum = i64::from(self.base_sequence) + i64::from(self.last_offset_delta);
        i32::try_from(sum % (i64::from(i32::MAX) + 1)).unwrap_or(0)
    }
}

/// One record as far as the broker looks into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RecordMeta {
    pub(crate) offset: i64,
    pub(crate) timestamp: i64,
    pub(crate) has_key: bool,
}

/// Lists the records of a batch, decompressed if need be.
///
/// # Errors
/// `CORRUPT_MESSAGE` when the records cannot be read, `UNSUPPORTED_COMPRESSION_TYPE` for an unknown codec.
pub(crate) fn records(bytes: &[u8]) -> Result<Vec<RecordMeta>, ResponseError> {
    let header = Header::read(bytes)?;
    let body = decompress(header.attributes & COMPRESSION_MASK, bytes.get(HEADER_LEN..).unwrap_or_default())?;
    let mut reader = Reader::new(&body);
    let mut records = Vec::new();
    for _ in 0..header.record_count {
        let record = read_record(&mut reader, &header).ok_or(ResponseError::CorruptMessage)?;
        records.push(record);
    }
    Ok(records)
}

/// Copies a produced batch with the offset it got and the leader epoch; with `append_time` it gets this timestamp.
pub(crate) fn place(bytes: &[u8], base_offset: i64, append_time: Option<i64>) -> Bytes {
    let mut placed = BytesMut::from(bytes);
    put(&mut placed, 0, &base_offset.to_be_bytes());
    put(&mut placed, 12, &LEADER_EPOCH.to_be_bytes());
    if let (Some(now_ms), Ok(header)) = (append_time, Header::read(bytes)) {
        put(&mut placed, ATTRIBUTES_AT, &(header.attributes | LOG_APPEND_TIME).to_be_bytes());
        put(&mut placed, MAX_TIMESTAMP_AT, &now_ms.to_be_bytes());
        let crc = crc32c::crc32c(placed.get(ATTRIBUTES_AT..).unwrap_or_default());
        put(&mut placed, CRC_AT, &crc.to_be_bytes());
    }
    placed.freeze()
}

/// The outcome a control marker announces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Marker {
    Abort,
    Commit,
}

/// Builds the control batch that ends a transaction; its one record takes the offset `base_offset`.
pub(crate) fn marker(kind: Marker, base_offset: i64, producer_id: i64, producer_epoch: i16, now_ms: i64) -> Bytes {
    // The key holds version 0 and the kind; the value version 0 and the coordinator epoch 0. Lengths are zigzag varints.
    let kind = match kind {
        Marker::Abort => 0,
        Marker::Commit => 1,
    };
    let record = [0, 0, 0, 8, 0, 0, 0, kind, 12, 0, 0, 0, 0, 0, 0, 0];
    let mut tail = BytesMut::new();
    tail.put_i16(TRANSACTIONAL | CONTROL);
    tail.put_i32(0);
    tail.put_i64(now_ms);
    tail.put_i64(now_ms);
    tail.put_i64(producer_id);
    tail.put_i16(producer_epoch);
    tail.put_i32(-1);
    tail.put_i32(1);
    tail.put_u8(32); // 16 bytes follow
    tail.put_slice(&record);
    let mut batch = BytesMut::new();
    batch.put_i64(base_offset);
    batch.put_u32(u32::try_from(tail.len() + ATTRIBUTES_AT - LENGTH_OVERHEAD).unwrap_or(u32::MAX));
    batch.put_i32(LEADER_EPOCH);
    batch.put_u8(2);
    batch.put_u32(crc32c::crc32c(&tail));
    batch.put_slice(&tail);
    batch.freeze()
}

fn read_record(reader: &mut Reader<'_>, header: &Header) -> Option<RecordMeta> {
    let length = usize::try_from(reader.varint()?).ok()?;
    let mut record = Reader::new(reader.take(length)?);
    record.take(1)?; // the attributes of a record are unused
    let timestamp = header.base_timestamp.checked_add(record.varlong()?)?;
    let offset = header.base_offset.checked_add(i64::from(record.varint()?))?;
    let key_len = record.varint()?;
    let timestamp = if header.is_log_append_time() { header.max_timestamp } else { timestamp };
    Some(RecordMeta { offset, timestamp, has_key: key_len >= 0 })
}

fn length_field(bytes: &[u8]) -> Result<usize, ResponseError> {
    let length = field(bytes, 8).map(i32::from_be_bytes)?;
    usize::try_from(length).map_err(|_| ResponseError::CorruptMessage)
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], ResponseError> {
    bytes.get(at..).and_then(<[u8]>::first_chunk).copied().ok_or(ResponseError::CorruptMessage)
}

fn put(bytes: &mut BytesMut, at: usize, value: &[u8]) {
    if let Some(slot) = bytes.get_mut(at..at + value.len()) {
        slot.copy_from_slice(value);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_marker_is_a_control_batch_of_one_record() {
        let batch = marker(Marker::Commit, 41, 7, 3, 1_000);
        let header = Header::read(&batch).unwrap();
        assert!(header.is_control() && header.is_transactional());
        assert_eq!((header.base_offset, header.last_offset()), (41, 41));
        assert_eq!((header.producer_id, header.producer_epoch), (7, 3));
        assert_eq!(records(&batch).unwrap(), [RecordMeta { offset: 41, timestamp: 1_000, has_key: true }]);
        assert_eq!(LENGTH_OVERHEAD + length_field(&batch).unwrap(), batch.len());
    }

    #[test]
    fn a_producer_may_not_send_a_control_batch() {
        let batch = marker(Marker::Abort, 0, 7, 3, 1_000);
        assert_eq!(Header::of_produced(&batch), Err(ResponseError::InvalidRecord));
    }

    #[test]
    fn a_flipped_bit_is_a_corrupt_message() {
        let mut batch = marker(Marker::Abort, 0, 7, 3, 1_000).to_vec();
        *batch.last_mut().unwrap() ^= 1;
        assert_eq!(Header::of_produced(&batch), Err(ResponseError::CorruptMessage));
    }

    #[test]
    fn log_append_time_keeps_the_checksum_right() {
        let mut batch = marker(Marker::Abort, 0, 7, 3, 1_000).to_vec();
        // The same batch without its control bit is one a producer may send.
        batch[ATTRIBUTES_AT + 1] &= !0x20;
        let crc = crc32c::crc32c(&batch[ATTRIBUTES_AT..]);
        batch[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_be_bytes());
        let placed = place(&batch, 9, Some(77));
        let header = Header::of_produced(&placed).unwrap();
        assert!(header.is_log_append_time());
        assert_eq!(records(&placed).unwrap()[0].timestamp, 77);
    }
}
