//! The log of one partition: whole record batches in memory, in offset order.
//!
//! Invariants:
//! - (A) base offsets rise; a batch's last offset is below the next one's base offset; holes do not occur, since nothing
//!   is compacted.
//! - (B) `start` lies in the first batch or before it; batches wholly below `start` are gone.
//! - (C) the last stable offset is at a batch's base offset or at the end.
//! - (D) the high watermark is the end: one node has no followers to wait for.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use kafka_protocol::ResponseError;

use crate::batch::{self, Header, Marker};
use crate::config::Settings;
use crate::producers::{Producers, Verdict};

/// The log of one partition.
#[derive(Debug, Default)]
pub(crate) struct PartitionLog {
    batches: VecDeque<Stored>,
    start: i64,
    end: i64,
    size_bytes: u64,
    producers: Producers,
    aborted: Vec<Aborted>,
}

/// What a partition answers to a produced batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Appended {
    pub(crate) base_offset: i64,
    /// Unix milliseconds for a topic with `LogAppendTime`.
    pub(crate) append_time_ms: Option<i64>,
}

/// A transaction that was aborted: offsets of its first record and of its marker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Aborted {
    pub(crate) producer_id: i64,
    pub(crate) first_offset: i64,
    pub(crate) marker_offset: i64,
}

/// Batches from one fetch.
#[derive(Debug, Default)]
pub(crate) struct Slice {
    pub(crate) records: Bytes,
    pub(crate) aborted: Vec<Aborted>,
}

/// A record's place in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TimedOffset {
    pub(crate) offset: i64,
    pub(crate) timestamp: i64,
}

#[derive(Debug)]
struct Stored {
    base_offset: i64,
    last_offset: i64,
    max_timestamp: i64,
    bytes: Bytes,
}

impl PartitionLog {
    /// The first offset that can be read.
    pub(crate) fn start(&self) -> i64 {
        self.start
    }

    /// The high watermark: one past the last offset.
    pub(crate) fn end(&self) -> i64 {
        self.end
    }

    /// One past the last offset that `read_committed` may see.
    pub(crate) fn last_stable(&self) -> i64 {
        self.producers.first_unstable().map_or(self.end, |first| first.max(self.start))
    }

    /// The end of what a consumer of this isolation level may see.
    pub(crate) fn readable_end(&self, read_committed: bool) -> i64 {
        if read_committed { self.last_stable() } else { self.end }
    }

    pub(crate) fn producers(&self) -> &Producers {
        &self.producers
    }

    /// Checks and appends one produced batch.
    ///
    /// # Errors
    /// Whatever Kafka answers to a batch that is corrupt, too large, out of the topic's time range or out of sequence.
    pub(crate) fn append(&mut self, bytes: &[u8], settings: &Settings, now_ms: i64) -> Result<Appended, ResponseError> {
        let header = Header::of_produced(bytes)?;
        if bytes.len() as u64 > settings.max_message_bytes {
            return Err(ResponseError::MessageTooLarge);
        }
        settings.check_records(bytes, &header, now_ms)?;
        if header.producer_id != batch::NO_PRODUCER
            && let Verdict::Duplicate(base_offset) = self.producers.check(&header)?
        {
            return Ok(Appended { base_offset, append_time_ms: None });
        }
        let append_time_ms = settings.log_append_time.then_some(now_ms);
        let placed = Header { base_offset: self.end, ..header };
        self.push(batch::place(bytes, self.end, append_time_ms))?;
        self.producers.appended(&placed);
        Ok(Appended { base_offset: placed.base_offset, append_time_ms })
    }

    /// Ends a producer's transaction with a control marker, which takes an offset.
    ///
    /// # Errors
    /// None in practice: the marker is built here.
    pub(crate) fn append_marker(&mut self, kind: Marker, producer_id: i64, epoch: i16, now_ms: i64) -> Result<(), ResponseError> {
        let marker_offset = self.end;
        self.push(batch::marker(kind, marker_offset, producer_id, epoch, now_ms))?;
        let first = self.producers.ended(producer_id, epoch);
        if let (Marker::Abort, Some(first_offset)) = (kind, first) {
            self.aborted.push(Aborted { producer_id, first_offset, marker_offset });
        }
        Ok(())
    }

    /// Reads whole batches from the one that holds `from`, below `end`, up to `max_bytes`; the first batch comes even if
    /// it is larger when `at_least_one` is set. With `read_committed` the aborted transactions among them are listed.
    pub(crate) fn read(&self, from: i64, read_committed: bool, max_bytes: usize, at_least_one: bool) -> Slice {
        let end = self.readable_end(read_committed);
        let mut records = BytesMut::new();
        let mut next = from;
        for stored in self.from(from).take_while(|stored| stored.base_offset < end) {
            let first = records.is_empty() && at_least_one;
            if !first && records.len() + stored.bytes.len() > max_bytes {
                break;
            }
            records.extend_from_slice(&stored.bytes);
            next = stored.last_offset + 1;
        }
        let aborted = if read_committed { self.aborted_between(from, next) } else { Vec::new() };
        Slice { records: records.freeze(), aborted }
    }

    /// How many bytes [`read`](Self::read) would find, counted up to `max_bytes`.
    pub(crate) fn readable_bytes(&self, from: i64, read_committed: bool, max_bytes: usize) -> usize {
        let end = self.readable_end(read_committed);
        let mut sum = 0;
        for stored in self.from(from).take_while(|stored| stored.base_offset < end) {
            sum += stored.bytes.len();
            if sum >= max_bytes {
                break;
            }
        }
        sum
    }

    /// The first record at or after a time, in offset order.
    pub(crate) fn first_at(&self, timestamp: i64, read_committed: bool) -> Option<TimedOffset> {
        let end = self.readable_end(read_committed);
        self.batches
            .iter()
            .filter(|stored| stored.max_timestamp >= timestamp)
            .flat_map(|stored| batch::records(&stored.bytes).unwrap_or_default())
            .find(|record| record.timestamp >= timestamp && record.offset >= self.start)
            .map(|record| TimedOffset { offset: record.offset, timestamp: record.timestamp })
            .filter(|found| found.offset < end)
    }

    /// The first record that bears the largest timestamp.
    pub(crate) fn newest(&self) -> Option<TimedOffset> {
        let newest = self.batches.iter().map(|stored| stored.max_timestamp).max()?;
        self.first_at(newest, false)
    }

    /// Deletes everything below `offset`.
    ///
    /// # Errors
    /// `OFFSET_OUT_OF_RANGE` beyond the high watermark.
    pub(crate) fn delete_below(&mut self, offset: i64) -> Result<(), ResponseError> {
        if offset < 0 || offset > self.end {
            return Err(ResponseError::OffsetOutOfRange);
        }
        self.start = self.start.max(offset);
        while let Some(first) = self.batches.front().filter(|first| first.last_offset < self.start) {
            self.size_bytes -= first.bytes.len() as u64;
            self.batches.pop_front();
        }
        self.aborted.retain(|aborted| aborted.marker_offset >= self.start);
        Ok(())
    }

    /// Applies `retention.ms` and `retention.bytes`, batch by batch and never across an open transaction.
    pub(crate) fn retain(&mut self, settings: &Settings, now_ms: i64) {
        if !settings.deletes {
            return;
        }
        let stable = self.last_stable();
        let mut excess = settings.retention_bytes.map_or(0, |keep| self.size_bytes.saturating_sub(keep));
        let mut keep_from = self.start;
        for stored in self.batches.iter().take_while(|stored| stored.last_offset < stable) {
            let size = stored.bytes.len() as u64;
            let expired = settings.retention_ms.is_some_and(|keep| now_ms.saturating_sub(stored.max_timestamp) > keep);
            if !expired && size > excess {
                break;
            }
            excess = excess.saturating_sub(size);
            keep_from = stored.last_offset + 1;
        }
        // The offset is at most the end, so nothing is out of range.
        if keep_from > self.start && self.delete_below(keep_from).is_err() {
            tracing::error!(keep_from, "retention computed an offset beyond the log");
        }
    }

    fn push(&mut self, bytes: Bytes) -> Result<(), ResponseError> {
        let header = Header::read(&bytes)?;
        self.size_bytes += bytes.len() as u64;
        self.end = header.last_offset() + 1;
        self.batches.push_back(Stored {
            base_offset: header.base_offset,
            last_offset: header.last_offset(),
            max_timestamp: header.max_timestamp,
            bytes,
        });
        Ok(())
    }

    fn from(&self, offset: i64) -> impl Iterator<Item = &Stored> {
        let first = self.batches.partition_point(|stored| stored.last_offset < offset);
        self.batches.range(first..)
    }

    fn aborted_between(&self, from: i64, next: i64) -> Vec<Aborted> {
        let mut hit: Vec<_> =
            self.aborted.iter().filter(|aborted| aborted.marker_offset >= from && aborted.first_offset < next).copied().collect();
        hit.sort_by_key(|aborted| aborted.first_offset);
        hit
    }
}
