//! What a partition remembers of the producers that wrote to it: epochs, the last five batches of each for idempotence,
//! and open transactions. The rules are those of Kafka's `ProducerStateManager`.

use std::collections::{HashMap, VecDeque};

use kafka_protocol::ResponseError;

use crate::batch::{Header, NO_PRODUCER};

/// How many batches of a producer are remembered; a client keeps at most as many in flight.
const REMEMBERED_BATCHES: usize = 5;

/// The producers of one partition.
#[derive(Debug, Default)]
pub(crate) struct Producers {
    by_id: HashMap<i64, Producer>,
}

/// What is to be done with a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is new.
    Append,
    /// It is in the log already, at this base offset.
    Duplicate(i64),
}

#[derive(Debug)]
struct Producer {
    epoch: i16,
    batches: VecDeque<Batch>,
    transaction_start: Option<i64>,
}

#[derive(Debug, Clone, Copy)]
struct Batch {
    first_sequence: i32,
    last_sequence: i32,
    base_offset: i64,
}

impl Producers {
    /// Judges a batch before it is appended.
    ///
    /// # Errors
    /// `INVALID_PRODUCER_EPOCH` for an older epoch than the newest seen, `OUT_OF_ORDER_SEQUENCE_NUMBER` for a gap or a
    /// repetition that is no longer remembered, `INVALID_TXN_STATE` for a plain batch inside an open transaction.
    pub(crate) fn check(&self, header: &Header) -> Result<Verdict, ResponseError> {
        let Some(producer) = self.by_id.get(&header.producer_id) else {
            // Nothing is known, perhaps since everything it wrote was deleted: any sequence number may come.
            return Ok(Verdict::Append);
        };
        if header.producer_epoch < producer.epoch {
            return Err(ResponseError::InvalidProducerEpoch);
        }
        if header.producer_epoch > producer.epoch {
            return match header.base_sequence {
                0 => Ok(Verdict::Append),
                _ => Err(ResponseError::OutOfOrderSequenceNumber),
            };
        }
        if let Some(batch) = producer.batches.iter().find(|batch| batch.is(header)) {
            return Ok(Verdict::Duplicate(batch.base_offset));
        }
        // After a marker under a new epoch nothing is remembered and the numbers start again at 0.
        let last = producer.batches.back().map_or(-1, |batch| batch.last_sequence);
        let follows = i64::from(header.base_sequence) == i64::from(last) + 1;
        let wrapped = header.base_sequence == 0 && last == i32::MAX;
        if !(follows || wrapped) {
            return Err(ResponseError::OutOfOrderSequenceNumber);
        }
        if producer.transaction_start.is_some() && !header.is_transactional() {
            return Err(ResponseError::InvalidTxnState);
        }
        Ok(Verdict::Append)
    }

    /// Remembers an appended batch (its header with the offset it got).
    pub(crate) fn appended(&mut self, header: &Header) {
        if header.producer_id == NO_PRODUCER {
            return;
        }
        let producer = self.at_epoch(header.producer_id, header.producer_epoch);
        if producer.batches.len() == REMEMBERED_BATCHES {
            producer.batches.pop_front();
        }
        producer.batches.push_back(Batch {
            first_sequence: header.base_sequence,
            last_sequence: header.last_sequence(),
            base_offset: header.base_offset,
        });
        if header.is_transactional() && producer.transaction_start.is_none() {
            producer.transaction_start = Some(header.base_offset);
        }
    }

    /// Ends the open transaction of a producer; answers its first offset, if it wrote anything here.
    ///
    /// A marker under a newer epoch than the data forgets the sequence numbers: the next producer with that epoch starts
    /// at 0, and its first batches must not pass for repetitions of the old ones.
    pub(crate) fn ended(&mut self, producer_id: i64, epoch: i16) -> Option<i64> {
        self.at_epoch(producer_id, epoch).transaction_start.take()
    }

    /// The newest epoch seen of a producer.
    pub(crate) fn epoch(&self, producer_id: i64) -> Option<i16> {
        self.by_id.get(&producer_id).map(|producer| producer.epoch)
    }

    /// Whether a producer has an open transaction in this partition.
    pub(crate) fn has_transaction(&self, producer_id: i64) -> bool {
        self.by_id.get(&producer_id).is_some_and(|producer| producer.transaction_start.is_some())
    }

    /// The first offset of the oldest open transaction: what `read_committed` may not see.
    pub(crate) fn first_unstable(&self) -> Option<i64> {
        self.by_id.values().filter_map(|producer| producer.transaction_start).min()
    }

    fn at_epoch(&mut self, producer_id: i64, epoch: i16) -> &mut Producer {
        let producer = self.by_id.entry(producer_id).or_insert_with(|| Producer {
            epoch,
            batches: VecDeque::with_capacity(REMEMBERED_BATCHES),
            transaction_start: None,
        });
        if producer.epoch != epoch {
            producer.epoch = epoch;
            producer.batches.clear();
        }
        producer
    }
}

impl Batch {
    fn is(&self, header: &Header) -> bool {
        self.first_sequence == header.base_sequence && self.last_sequence == header.last_sequence()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(epoch: i16, base_sequence: i32, base_offset: i64) -> Header {
        Header {
            base_offset,
            attributes: 0x10,
            last_offset_delta: 0,
            base_timestamp: 0,
            max_timestamp: 0,
            producer_id: 1,
            producer_epoch: epoch,
            base_sequence,
            record_count: 1,
        }
    }

    #[test]
    fn the_last_five_batches_are_known_again() {
        let mut producers = Producers::default();
        for sequence in 0..6 {
            assert_eq!(producers.check(&header(0, sequence, 0)), Ok(Verdict::Append));
            producers.appended(&header(0, sequence, i64::from(sequence) + 10));
        }
        assert_eq!(producers.check(&header(0, 1, 0)), Ok(Verdict::Duplicate(11)));
        assert_eq!(producers.check(&header(0, 0, 0)), Err(ResponseError::OutOfOrderSequenceNumber));
        assert_eq!(producers.check(&header(0, 7, 0)), Err(ResponseError::OutOfOrderSequenceNumber));
    }

    #[test]
    fn sequence_numbers_wrap_to_zero() {
        let mut producers = Producers::default();
        producers.appended(&header(0, i32::MAX, 5));
        assert_eq!(producers.check(&header(0, 0, 0)), Ok(Verdict::Append));
    }

    #[test]
    fn an_older_epoch_is_fenced_and_a_newer_one_starts_at_zero() {
        let mut producers = Producers::default();
        producers.appended(&header(3, 0, 0));
        assert_eq!(producers.check(&header(2, 1, 0)), Err(ResponseError::InvalidProducerEpoch));
        assert_eq!(producers.check(&header(4, 1, 0)), Err(ResponseError::OutOfOrderSequenceNumber));
        assert_eq!(producers.check(&header(4, 0, 0)), Ok(Verdict::Append));
    }

    #[test]
    fn a_marker_under_a_bumped_epoch_forgets_the_sequence_numbers() {
        let mut producers = Producers::default();
        producers.appended(&header(0, 0, 0));
        assert_eq!(producers.ended(1, 1), Some(0));
        // The next producer gets the epoch of the marker and starts at 0: its batch is new, not a repetition.
        assert_eq!(producers.check(&header(1, 0, 0)), Ok(Verdict::Append));
    }

    #[test]
    fn the_oldest_open_transaction_is_the_unstable_one() {
        let mut producers = Producers::default();
        producers.appended(&header(0, 0, 5));
        producers.appended(&header(0, 1, 6));
        assert_eq!(producers.first_unstable(), Some(5));
        assert_eq!(producers.ended(1, 0), Some(5));
        assert_eq!(producers.first_unstable(), None);
    }
}
