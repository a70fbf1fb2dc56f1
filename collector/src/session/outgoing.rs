//! The control stream's writing side. Acks are merged while the stream is busy: what waits is bounded by the number of lanes, however
//! slowly the agent reads.

use std::collections::BTreeMap;

use spillway_proto::message::CollectorMessage;
use spillway_proto::{Lane, NextOffset, limits};

/// Messages on their way to the agent.
#[derive(Debug, Default)]
pub struct Outgoing {
    bytes: Vec<u8>,
    written: usize,
    acks: BTreeMap<Lane, NextOffset>,
}

/// Written bytes are thrown away in pieces of this size at least.
const DRAIN_BYTES: usize = 64 * 1024;

impl Outgoing {
    /// Nothing to send.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a message, after the acks that came before it.
    pub fn push(&mut self, message: &CollectorMessage) {
        self.encode_acks();
        message.encode(&mut self.bytes);
    }

    /// Adds acks; a lane's later one replaces its earlier one.
    pub fn ack(&mut self, acks: Vec<(Lane, NextOffset)>) {
        self.acks.extend(acks);
    }

    /// The bytes to write next; empty when there are none.
    pub fn pending(&mut self) -> &[u8] {
        if self.written == self.bytes.len() {
            self.bytes.clear();
            self.written = 0;
            self.encode_acks();
        }
        self.bytes.get(self.written..).unwrap_or_default()
    }

    /// So many bytes were written.
    pub fn advance(&mut self, count: usize) {
        self.written += count;
        // An agent that is never quite done reading must not keep what it has read here.
        if self.written >= DRAIN_BYTES {
            self.bytes.drain(..self.written.min(self.bytes.len()));
            self.written = 0;
        }
    }

    /// Bytes of messages that are not written; merged acks, which are bounded by the number of lanes, count when they are encoded.
    pub fn waiting_bytes(&self) -> usize {
        self.bytes.len() - self.written
    }

    fn encode_acks(&mut self) {
        let mut acks = std::mem::take(&mut self.acks).into_iter();
        loop {
            let part: Vec<_> = acks.by_ref().take(limits::MAX_ACKS).collect();
            if part.is_empty() {
                return;
            }
            CollectorMessage::Ack(part).encode(&mut self.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use spillway_proto::message::MessageBuffer;

    use super::*;

    fn next(value: u64) -> NextOffset {
        NextOffset::new(value).unwrap()
    }

    fn drain(outgoing: &mut Outgoing) -> Vec<CollectorMessage> {
        let (mut buffer, mut out) = (MessageBuffer::default(), Vec::new());
        while !outgoing.pending().is_empty() {
            // One byte at a time, as a slow stream takes them.
            let byte = outgoing.pending()[0];
            outgoing.advance(1);
            buffer.push(&[byte]);
            while let Some(message) = buffer.take().unwrap() {
                out.push(CollectorMessage::decode(message).unwrap());
            }
        }
        out
    }

    #[test]
    fn acks_are_merged_while_they_wait_and_stay_before_later_messages() {
        let mut outgoing = Outgoing::new();
        outgoing.ack(vec![(Lane(1), next(5)), (Lane(2), next(7))]);
        outgoing.ack(vec![(Lane(1), next(9))]);
        outgoing.push(&CollectorMessage::Retry(Lane(1)));
        outgoing.ack(vec![(Lane(2), next(8))]);
        assert_eq!(
            drain(&mut outgoing),
            [
                CollectorMessage::Ack(vec![(Lane(1), next(9)), (Lane(2), next(7))]),
                CollectorMessage::Retry(Lane(1)),
                CollectorMessage::Ack(vec![(Lane(2), next(8))]),
            ]
        );
    }

    #[test]
    fn what_was_written_is_not_kept() {
        let mut outgoing = Outgoing::new();
        let hold = CollectorMessage::Retry(Lane(1));
        for _ in 0..100_000 {
            // Never quite done: two messages more, one less.
            outgoing.push(&hold);
            outgoing.push(&hold);
            let bytes = outgoing.pending().len().min(9);
            outgoing.advance(bytes);
        }
        assert_eq!(outgoing.waiting_bytes(), 100_000 * (2 * 6 - 9));
        assert!(outgoing.bytes.len() < outgoing.waiting_bytes() + DRAIN_BYTES, "{} bytes are kept", outgoing.bytes.len());
    }

    #[test]
    fn many_acks_are_split() {
        let mut outgoing = Outgoing::new();
        outgoing.ack((0..limits::MAX_ACKS as u32 + 1).map(|lane| (Lane(lane), next(1))).collect());
        let sizes: Vec<_> =
            drain(&mut outgoing).iter().map(|message| matches!(message, CollectorMessage::Ack(acks) if acks.len() == 1)).collect();
        assert_eq!(sizes, [false, true]);
    }
}
