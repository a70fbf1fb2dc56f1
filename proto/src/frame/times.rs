//! How old the records of a frame are.

use crate::codec::DecodeError;
use crate::compress::Decompressor;
use crate::frame::Frame;

/// The timestamps of some records, by their ends; milliseconds since 1970. A record without one counts as younger than all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timestamps {
    /// The lowest.
    pub oldest: i64,
    /// The highest; [`i64::MAX`] where a record has none.
    pub newest: i64,
}

impl Timestamps {
    /// Of one record.
    pub fn of(timestamp: i64) -> Self {
        let timestamp = if timestamp < 0 { i64::MAX } else { timestamp };
        Self { oldest: timestamp, newest: timestamp }
    }

    /// Of these records and those.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { oldest: self.oldest.min(other.oldest), newest: self.newest.max(other.newest) }
    }
}

impl Frame {
    /// The timestamps of its records; `None` without any. Decompresses the body.
    ///
    /// # Errors
    /// When the body is not what the header says.
    pub fn timestamps(&self, decompressor: &mut Decompressor) -> Result<Option<Timestamps>, DecodeError> {
        let body = self.open(decompressor)?;
        let mut all: Option<Timestamps> = None;
        for index in 0..self.sections().len() {
            for record in body.records(self, index) {
                let own = Timestamps::of(record?.timestamp);
                all = Some(all.map_or(own, |all| all.and(own)));
            }
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_without_a_timestamp_is_the_youngest() {
        let all = [7, -1, 3].into_iter().map(Timestamps::of).reduce(Timestamps::and);
        assert_eq!(all, Some(Timestamps { oldest: 3, newest: i64::MAX }));
        assert_eq!(Timestamps::of(0), Timestamps { oldest: 0, newest: 0 });
    }
}
