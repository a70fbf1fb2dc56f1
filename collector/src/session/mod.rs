//! One connection of a site, from the handshake to its close.
//!
//! | module | what it is for |
//! |---|---|
//! | [`limits`] | what one session may cost |
//! | [`handshake`] | who is there, and may it come in |
//! | [`registry`] | the sessions that live now; a newer one ends an older one of the same site |
//! | [`control`] | the control stream's reading side |
//! | [`outgoing`] | the control stream's writing side: acks are merged while they wait |
//! | [`frames`] | frames off their streams, checked and in custody |
//! | `history` | what was sent before, taken away from small frames |
//! | [`run`] | the session's loop |
//! | [`end`] | its end |
//! | [`lanes`] | lanes announced, topics made ready, positions told |
//! | [`refusals`] | the log lines about those that may not come in |
//! | `told` | the site's settings, and what it answers |
//! | [`held`] | partitions whose record the central Kafka refuses, and when they are tried again |
//!
//! The session's loop owns the sequencer and both directions of the control stream; the writer's thread owns the transaction. Between
//! them are an inbox and events, both bounded.

use spillway_proto::CloseCode;

pub mod control;
pub mod dictionaries;
pub mod end;
pub mod frames;
pub mod handshake;
pub mod held;
mod history;
pub mod lanes;
pub mod limits;
pub mod outgoing;
pub mod refusals;
pub mod registry;
pub mod run;
mod told;

/// How a session ends on our side: the close code and what happened, for the log and the peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The close code.
    pub code: CloseCode,
    /// What happened, in one line.
    pub reason: String,
}

impl Refused {
    /// Says why.
    pub fn new(code: CloseCode, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into() }
    }
}
