//! Datagrams on their way into the stream, already in its form.

use std::{
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use tokio::sync::Notify;

use super::MAX_TUNNEL_DATAGRAM_BYTES;

/// Bytes that may wait for the stream; QUIC is told to wait above. Little, for what waits here cannot be overtaken by an alarm; enough that the writer finds something each
/// time it comes back from the system's buffer.
const MAX_WAITING_BYTES: usize = 16 * 1024;

/// A bounded queue with one reader.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    state: Mutex<State>,
    filled: Notify,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<u8>,
    /// One for each connection that waits for room.
    blocked: Vec<Waker>,
    closed: bool,
}

impl Outbox {
    /// Takes a datagram, or answers false: there is no room. One that the format cannot carry is lost, as on any line that is too narrow for it.
    pub(super) fn push(&self, datagram: &[u8]) -> bool {
        let mut state = self.state();
        if state.closed {
            return true;
        }
        if state.waiting.len() >= MAX_WAITING_BYTES {
            return false;
        }
        if let Ok(length) = u16::try_from(datagram.len())
            && (1..=MAX_TUNNEL_DATAGRAM_BYTES).contains(&datagram.len())
        {
            state.waiting.extend_from_slice(&length.to_be_bytes());
            state.waiting.extend_from_slice(datagram);
        }
        drop(state);
        self.filled.notify_one();
        true
    }

    /// Ready when there is room; else the task is woken as soon as there is.
    pub(super) fn poll_room(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.state();
        if state.closed || state.waiting.len() < MAX_WAITING_BYTES {
            return Poll::Ready(());
        }
        if !state.blocked.iter().any(|waker| waker.will_wake(cx.waker())) {
            state.blocked.push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Everything that waits, into `bytes`, which is cleared first; false: it was closed, and all is taken. Cancel safe.
    pub(super) async fn take(&self, bytes: &mut Vec<u8>) -> bool {
        bytes.clear();
        loop {
            let blocked = {
                let mut state = self.state();
                if state.waiting.is_empty() && state.closed {
                    return false;
                }
                mem::swap(&mut state.waiting, bytes);
                mem::take(&mut state.blocked)
            };
            blocked.into_iter().for_each(Waker::wake);
            if !bytes.is_empty() {
                return true;
            }
            self.filled.notified().await;
        }
    }

    /// Takes nothing more from now on; what comes is lost.
    pub(super) fn close(&self) {
        let blocked = {
            let mut state = self.state();
            state.closed = true;
            mem::take(&mut state.blocked)
        };
        blocked.into_iter().for_each(Waker::wake);
        self.filled.notify_one();
    }

    /// True once closed.
    pub(super) fn is_closed(&self) -> bool {
        self.state().closed
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code that can panic runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_is_full_at_its_bound_and_wakes_who_waits() {
        let outbox = Outbox::default();
        let taken = (0..1000).take_while(|_| outbox.push(&[7; 1400])).count();
        assert_eq!(taken, MAX_WAITING_BYTES.div_ceil(1402));
        let room = std::future::poll_fn(|cx| outbox.poll_room(cx));
        let mut bytes = Vec::new();
        let (taken_all, ()) = tokio::join!(outbox.take(&mut bytes), async {
            assert!(outbox.push(&[7; 1400]), "the writer has emptied it");
        });
        assert!(taken_all);
        assert_eq!(bytes.len(), taken * 1402);
        assert_eq!(bytes.get(..3), Some(&[5, 120, 7][..]), "1400, big endian, then the datagram");
        room.await;
    }

    #[tokio::test]
    async fn a_task_without_room_is_woken_when_there_is_some() {
        let outbox = std::sync::Arc::new(Outbox::default());
        while outbox.push(&[7; 1400]) {}
        let waits = std::sync::Arc::clone(&outbox);
        let waiting = tokio::spawn(std::future::poll_fn(move |cx| waits.poll_room(cx)));
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        assert!(outbox.take(&mut Vec::new()).await);
        assert!(waiting.await.is_ok());
    }

    #[tokio::test]
    async fn what_the_format_cannot_carry_is_lost_and_a_closed_one_is_emptied_first() {
        let outbox = Outbox::default();
        let mut bytes = vec![1];
        assert!(outbox.push(&[]) && outbox.push(&[0; MAX_TUNNEL_DATAGRAM_BYTES + 1]) && outbox.push(&[9]));
        outbox.close();
        assert!(outbox.push(&[8]), "nobody has to wait for what is closed");
        assert!(outbox.take(&mut bytes).await);
        assert_eq!(bytes, [0, 1, 9]);
        assert!(!outbox.take(&mut bytes).await);
    }
}
