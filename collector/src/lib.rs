//! The central side of Spillway: accepts sites over QUIC and writes their records exactly once.
//!
//! | module | what it is for |
//! |---|---|
//! | [`spillway_collector_core`] | every decision, without I/O: order, transactions, syncs, refusals |
//! | [`session`] | one connection of a site: handshake, frames, lanes, acks |
//! | [`custody`] | frames received and not yet committed, counted |
//! | [`sites`] | the site files, watched |
//! | [`writer`] | a site's transactions: one thread with one producer |
//! | [`centre`] | the central Kafka: producers, topics, progress of all sites |
//! | [`server`] | all of it together, from the start to the drain |
//! | [`status`], [`metrics`] | what operators see |
//! | [`cli`], [`pki`] | what operators type |
//!
//! Data flows frames -> sequencer -> backlog -> transaction -> central Kafka; acks flow back after the commit. Every arrow is bounded. A
//! collector keeps nothing on disk: whatever it knows comes from the central Kafka, so that any collector can take any site.

pub mod centre;
pub mod cli;
pub mod custody;
pub mod metrics;
pub mod pki;
pub mod server;
pub mod session;
pub mod sites;
pub mod status;
pub mod writer;
