//! The transaction coordinator: producer ids and epochs, fencing, and which partitions and groups take part in what.
//!
//! It decides only; the markers it asks for are written by [`State::end_transaction`](crate::state::State). Preparing
//! and completing are one step here, since nothing else can happen between them.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use kafka_protocol::ResponseError;

use crate::batch::Marker;

/// `transaction.max.timeout.ms`.
pub(crate) const TIMEOUT_MAX: Duration = Duration::from_secs(15 * 60);
/// The last epoch given out; the one above it is left for the fencing of its holder.
const EPOCH_MAX: i16 = i16::MAX - 2;

/// All transactional producers.
#[derive(Debug, Default)]
pub(crate) struct Coordinator {
    by_id: HashMap<String, Transactional>,
    next_producer_id: i64,
}

/// A producer's id and epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) producer_id: i64,
    pub(crate) epoch: i16,
}

/// A transaction that is over: where the markers go and whose pending group offsets are settled.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ending {
    pub(crate) identity: Identity,
    pub(crate) marker: Marker,
    pub(crate) partitions: BTreeSet<(String, i32)>,
    pub(crate) groups: BTreeSet<String>,
}

/// What became of a request for an identity.
#[derive(Debug)]
pub(crate) struct Initialised {
    pub(crate) identity: Result<Identity, ResponseError>,
    /// The transaction of the producer before, which is to be aborted in any case.
    pub(crate) ending: Option<Ending>,
}

#[derive(Debug)]
struct Transactional {
    identity: Identity,
    /// The identity that may claim the newest one: what it was asked for with (the answer may have been lost), or what a
    /// fenced transaction had.
    previous: Option<Identity>,
    timeout: Duration,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    /// Since the producer was initialised nothing began.
    Empty,
    /// A transaction is open.
    Ongoing(Open),
    /// The last transaction ended like this.
    Ended(Marker),
}

/// An open transaction.
#[derive(Debug)]
struct Open {
    since: Instant,
    partitions: BTreeSet<(String, i32)>,
    groups: BTreeSet<String>,
}

impl Coordinator {
    /// A producer id for an idempotent producer without transactions.
    pub(crate) fn new_idempotent(&mut self) -> Identity {
        self.next_producer_id += 1;
        Identity { producer_id: self.next_producer_id, epoch: 0 }
    }

    /// Gives a transactional producer its identity and fences whoever had it before; a transaction that is open is aborted
    /// first, under a fencing epoch, even if the identity is then refused.
    ///
    /// A client that goes on after an error claims the identity it had. Kafka answers `CONCURRENT_TRANSACTIONS` while it
    /// aborts and lets the client ask again; here aborting takes no time, so the answer is that to the second question.
    ///
    /// # Errors
    /// `INVALID_TRANSACTION_TIMEOUT`, or `PRODUCER_FENCED` when `claimed` is neither the newest identity nor the one
    /// before it that a repeated request would still name.
    pub(crate) fn initialise(&mut self, id: &str, timeout: Duration, claimed: Option<Identity>) -> Initialised {
        if timeout.is_zero() || timeout > TIMEOUT_MAX {
            return Initialised::refused(ResponseError::InvalidTransactionTimeout, None);
        }
        let fresh = Identity { producer_id: self.next_producer_id + 1, epoch: 0 };
        let Some(producer) = self.by_id.get_mut(id) else {
            self.next_producer_id += 1;
            let producer = Transactional { identity: fresh, previous: None, timeout, phase: Phase::Empty };
            self.by_id.insert(id.to_owned(), producer);
            return Initialised { identity: Ok(fresh), ending: None };
        };
        let ending = producer.fence();
        match claimed {
            Some(claimed) if Some(claimed) == producer.previous => {
                return Initialised { identity: Ok(producer.identity), ending };
            }
            Some(claimed) if claimed != producer.identity => {
                return Initialised::refused(ResponseError::ProducerFenced, ending);
            }
            _ => {}
        }
        producer.previous = claimed;
        producer.timeout = timeout;
        producer.phase = Phase::Empty;
        if producer.identity.epoch >= EPOCH_MAX {
            self.next_producer_id += 1;
            producer.identity = fresh;
        } else {
            producer.identity.epoch += 1;
        }
        Initialised { identity: Ok(producer.identity), ending }
    }

    /// Adds partitions to the producer's transaction, which begins with the first.
    ///
    /// # Errors
    /// `INVALID_PRODUCER_ID_MAPPING` or `PRODUCER_FENCED`.
    pub(crate) fn add_partitions(
        &mut self,
        id: &str,
        identity: Identity,
        added: impl IntoIterator<Item = (String, i32)>,
        now: Instant,
    ) -> Result<(), ResponseError> {
        self.known(id, identity)?.ongoing(now).partitions.extend(added);
        Ok(())
    }

    /// Adds a group's offsets to the producer's transaction.
    ///
    /// # Errors
    /// `INVALID_PRODUCER_ID_MAPPING` or `PRODUCER_FENCED`.
    pub(crate) fn add_group(&mut self, id: &str, identity: Identity, group: &str, now: Instant) -> Result<(), ResponseError> {
        self.known(id, identity)?.ongoing(now).groups.insert(group.to_owned());
        Ok(())
    }

    /// Checks that a partition is part of the producer's open transaction.
    ///
    /// # Errors
    /// `INVALID_PRODUCER_ID_MAPPING`, `PRODUCER_FENCED` or `INVALID_TXN_STATE`.
    pub(crate) fn check_partition(&mut self, id: &str, identity: Identity, partition: &(String, i32)) -> Result<(), ResponseError> {
        match &self.known(id, identity)?.phase {
            Phase::Ongoing(open) if open.partitions.contains(partition) => Ok(()),
            _ => Err(ResponseError::InvalidTxnState),
        }
    }

    /// Checks that a group is part of the producer's open transaction.
    ///
    /// # Errors
    /// `INVALID_PRODUCER_ID_MAPPING`, `PRODUCER_FENCED` or `INVALID_TXN_STATE`.
    pub(crate) fn check_group(&mut self, id: &str, identity: Identity, group: &str) -> Result<(), ResponseError> {
        match &self.known(id, identity)?.phase {
            Phase::Ongoing(open) if open.groups.contains(group) => Ok(()),
            _ => Err(ResponseError::InvalidTxnState),
        }
    }

    /// Ends the producer's transaction. `None`: this is the repetition of a request whose work is done.
    ///
    /// # Errors
    /// `INVALID_PRODUCER_ID_MAPPING`, `PRODUCER_FENCED`, or `INVALID_TXN_STATE` when nothing is open or it ended the
    /// other way.
    pub(crate) fn end(&mut self, id: &str, identity: Identity, marker: Marker) -> Result<Option<Ending>, ResponseError> {
        let producer = self.known(id, identity)?;
        match &producer.phase {
            Phase::Ongoing(_) => Ok(producer.finish(marker)),
            Phase::Ended(before) if *before == marker => Ok(None),
            Phase::Ended(_) | Phase::Empty => Err(ResponseError::InvalidTxnState),
        }
    }

    /// Aborts every transaction that is open for longer than its producer allowed, under an epoch that fences it.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<Ending> {
        self.by_id
            .values_mut()
            .filter(|producer| match &producer.phase {
                Phase::Ongoing(open) => now.saturating_duration_since(open.since) > producer.timeout,
                Phase::Empty | Phase::Ended(_) => false,
            })
            .filter_map(Transactional::fence)
            .collect()
    }

    fn known(&mut self, id: &str, identity: Identity) -> Result<&mut Transactional, ResponseError> {
        let producer = self.by_id.get_mut(id).ok_or(ResponseError::InvalidProducerIdMapping)?;
        if producer.identity.producer_id != identity.producer_id {
            return Err(ResponseError::InvalidProducerIdMapping);
        }
        if producer.identity.epoch != identity.epoch {
            return Err(ResponseError::ProducerFenced);
        }
        Ok(producer)
    }
}

impl Initialised {
    fn refused(code: ResponseError, ending: Option<Ending>) -> Self {
        Self { identity: Err(code), ending }
    }
}

impl Transactional {
    /// Aborts the open transaction, if any, under a new epoch, which whoever had the transaction may claim.
    fn fence(&mut self) -> Option<Ending> {
        if !matches!(self.phase, Phase::Ongoing(_)) {
            return None;
        }
        self.previous = Some(self.identity);
        self.identity.epoch = self.identity.epoch.saturating_add(1);
        self.finish(Marker::Abort)
    }

    fn finish(&mut self, marker: Marker) -> Option<Ending> {
        match std::mem::replace(&mut self.phase, Phase::Ended(marker)) {
            Phase::Ongoing(Open { partitions, groups, .. }) => Some(Ending { identity: self.identity, marker, partitions, groups }),
            Phase::Empty | Phase::Ended(_) => None,
        }
    }

    fn ongoing(&mut self, now: Instant) -> &mut Open {
        let begin = || Open { since: now, partitions: BTreeSet::new(), groups: BTreeSet::new() };
        loop {
            match self.phase {
                Phase::Ongoing(ref mut open) => return open,
                Phase::Empty | Phase::Ended(_) => self.phase = Phase::Ongoing(begin()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn open(coordinator: &mut Coordinator, now: Instant) -> Identity {
        let identity = coordinator.initialise("t", MINUTE, None).identity.unwrap();
        coordinator.add_partitions("t", identity, [("a".to_owned(), 0)], now).unwrap();
        identity
    }

    #[test]
    fn the_second_producer_of_an_id_fences_the_first_and_aborts_its_transaction() {
        let mut coordinator = Coordinator::default();
        let first = open(&mut coordinator, Instant::now());
        let second = coordinator.initialise("t", MINUTE, None);
        let (second, ending) = (second.identity.unwrap(), second.ending.unwrap());
        assert_eq!(ending.marker, Marker::Abort);
        assert!(ending.identity.epoch > first.epoch && second.epoch > ending.identity.epoch);
        assert_eq!(coordinator.end("t", first, Marker::Commit), Err(ResponseError::ProducerFenced));
        let zombie = coordinator.initialise("t", MINUTE, Some(first));
        assert_eq!(zombie.identity, Err(ResponseError::ProducerFenced));
    }

    #[test]
    fn a_repeated_commit_is_done_but_a_contrary_one_is_refused() {
        let mut coordinator = Coordinator::default();
        let identity = open(&mut coordinator, Instant::now());
        assert!(coordinator.end("t", identity, Marker::Commit).unwrap().is_some());
        assert_eq!(coordinator.end("t", identity, Marker::Commit), Ok(None));
        assert_eq!(coordinator.end("t", identity, Marker::Abort), Err(ResponseError::InvalidTxnState));
    }

    #[test]
    fn a_transaction_expires_after_its_timeout_under_a_fencing_epoch() {
        let mut coordinator = Coordinator::default();
        let now = Instant::now();
        let identity = open(&mut coordinator, now);
        assert_eq!(coordinator.expire(now + MINUTE), []);
        let endings = coordinator.expire(now + MINUTE + Duration::from_millis(1));
        assert_eq!(endings.len(), 1);
        assert_eq!(endings[0].identity.epoch, identity.epoch + 1);
        assert_eq!(coordinator.end("t", identity, Marker::Commit), Err(ResponseError::ProducerFenced));
        assert_eq!(coordinator.initialise("t", MINUTE, Some(identity)).identity, Ok(endings[0].identity));
    }

    #[test]
    fn a_claim_is_answered_again_with_the_same_identity() {
        let mut coordinator = Coordinator::default();
        let first = coordinator.initialise("t", MINUTE, None).identity.unwrap();
        let second = coordinator.initialise("t", MINUTE, Some(first)).identity.unwrap();
        assert_eq!(second.epoch, first.epoch + 1);
        assert_eq!(coordinator.initialise("t", MINUTE, Some(first)).identity, Ok(second));
    }

    #[test]
    fn an_exhausted_epoch_gives_a_new_producer_id() {
        let mut coordinator = Coordinator::default();
        let first = coordinator.initialise("t", MINUTE, None).identity.unwrap();
        let mut last = first;
        while last.producer_id == first.producer_id {
            last = coordinator.initialise("t", MINUTE, None).identity.unwrap();
        }
        assert_eq!(last.epoch, 0);
    }
}
