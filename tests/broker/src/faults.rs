//! Faults on demand: what a test does to the broker to see how its clients bear it.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::ApiKey;
use tokio_util::sync::CancellationToken;

/// The APIs whose answers [`Faults::fail_next`] can replace by an error.
const CAN_FAIL: &[ApiKey] = &[
    ApiKey::Produce,
    ApiKey::Fetch,
    ApiKey::ListOffsets,
    ApiKey::Metadata,
    ApiKey::OffsetCommit,
    ApiKey::FindCoordinator,
    ApiKey::CreateTopics,
    ApiKey::InitProducerId,
    ApiKey::AddPartitionsToTxn,
    ApiKey::AddOffsetsToTxn,
    ApiKey::EndTxn,
    ApiKey::TxnOffsetCommit,
];

/// The fault hooks of one broker. All take effect at once and hold until they are changed back.
#[derive(Debug, Default)]
pub struct Faults {
    refuse: AtomicBool,
    delay_micros: AtomicU64,
    connections: Mutex<CancellationToken>,
    failures: Mutex<HashMap<i16, VecDeque<Failure>>>,
    injected: AtomicU64,
}

/// What happens to one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It is answered with this error and has no effect.
    Refused(ResponseError),
    /// It has its effect, but the connection ends before the answer.
    Unanswered,
}

/// An API whose answer has no place for an injected error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the embedded broker cannot inject errors into {api:?}")]
pub struct CannotFail {
    /// The API that was asked for.
    pub api: ApiKey,
}

impl Faults {
    /// Cuts every connection that is open now. Clients may come back at once.
    pub fn cut_connections(&self) {
        let cut = std::mem::take(&mut *self.connections());
        cut.cancel();
    }

    /// Accepts no new connection (`true`: they are closed as soon as they are made) or accepts them again. Connections that
    /// are open stay.
    pub fn refuse(&self, refuse: bool) {
        self.refuse.store(refuse, Ordering::Relaxed);
    }

    /// Delays every answer by this much; zero ends it. Answers on one connection wait for each other.
    pub fn delay(&self, delay: Duration) {
        self.delay_micros.store(u64::try_from(delay.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Answers the next request of this API, from any client, with an error and without effect. Several calls queue up.
    ///
    /// # Errors
    /// [`CannotFail`] unless the API is one of Produce, Fetch, `ListOffsets`, Metadata, `OffsetCommit`, `FindCoordinator`,
    /// `CreateTopics`, `InitProducerId`, `AddPartitionsToTxn`, `AddOffsetsToTxn`, `EndTxn` and `TxnOffsetCommit`.
    pub fn fail_next(&self, api: ApiKey, error: ResponseError) -> Result<(), CannotFail> {
        if !CAN_FAIL.contains(&api) {
            return Err(CannotFail { api });
        }
        self.failures().entry(api as i16).or_default().push_back(Failure::Refused(error));
        Ok(())
    }

    /// Carries out the next request of this API, from any client, but cuts its connection instead of answering: the client
    /// cannot know what became of it.
    pub fn unanswer_next(&self, api: ApiKey) {
        self.failures().entry(api as i16).or_default().push_back(Failure::Unanswered);
    }

    /// Forgets what [`Self::fail_next`] and [`Self::unanswer_next`] asked for and no request has met yet.
    pub fn forgive(&self) {
        self.failures().clear();
    }

    /// How many requests have met what [`Self::fail_next`] and [`Self::unanswer_next`] asked for.
    #[must_use]
    pub fn injected(&self) -> u64 {
        self.injected.load(Ordering::Relaxed)
    }

    pub(crate) fn refuses(&self) -> bool {
        self.refuse.load(Ordering::Relaxed)
    }

    pub(crate) fn delay_now(&self) -> Duration {
        Duration::from_micros(self.delay_micros.load(Ordering::Relaxed))
    }

    /// The token that ends a connection made now.
    pub(crate) fn connection(&self) -> CancellationToken {
        self.connections().clone()
    }

    pub(crate) fn take(&self, api: ApiKey) -> Option<Failure> {
        let failure = self.failures().get_mut(&(api as i16)).and_then(VecDeque::pop_front)?;
        self.injected.fetch_add(1, Ordering::Relaxed);
        Some(failure)
    }

    fn connections(&self) -> MutexGuard<'_, CancellationToken> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failures(&self) -> MutexGuard<'_, HashMap<i16, VecDeque<Failure>>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
