//! The QUIC link between agent and collector: who the peers are, how they meet, what the wire costs.
//!
//! | module | what it is for |
//! |---|---|
//! | [`identity`] | CA, certificate chain and key from PEM files, checked before anything starts |
//! | [`peer`] | the site's name out of the certificate it proved to hold |
//! | [`congestion`] | how much may be in flight: a model of the line in place of reactions to loss |
//! | [`settings`] | keep-alive, timeouts, windows and stream limits of a connection |
//! | [`client`] | the agent's endpoint: dials the collector |
//! | [`server`] | the collector's endpoint: mandatory client certificates, admission |
//! | [`probe`] | is there a way to the collector? a question of 25 bytes, and its answer |
//! | [`socket`] | wire bytes counted and capped at the socket |
//! | [`tunnel`] | QUIC inside TLS over TCP, where UDP is blocked |
//! | [`mod@explain`] | every way a connection ends, as a sentence and what to do about it |
//!
//! Nothing here knows frames or sessions: those speak over the [`quinn::Connection`] that this crate hands out.

pub mod client;
pub mod congestion;
pub mod explain;
pub mod identity;
pub mod peer;
pub mod probe;
mod rate;
pub mod server;
pub mod settings;
pub mod socket;
mod trust;
pub mod tunnel;
mod vigil;

pub use client::{LinkClient, Way};
pub use congestion::{Congestion, KnownLine, LineEstimate, LineMemory};
pub use explain::{Explanation, Side, explain};
pub use identity::{Identity, IdentityFiles, Role};
pub use peer::site_name;
pub use rate::{BitRate, Counting, RateCap, SLOW_LINE_BITS};
pub use server::LinkServer;
pub use settings::{LinkSettings, MtuDiscovery, Profile};
pub use socket::{CappedSocket, WireCounters};

/// The application protocol both ends offer in TLS. A peer that does not offer it is not Spillway.
pub const ALPN: &[u8] = b"spillway/1";
