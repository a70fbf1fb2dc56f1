//! What the collector decides, without I/O, clock or threads: time comes in as an argument.
//!
//! | module | what it decides |
//! |---|---|
//! | [`sequencer`] | which section of which frame comes next on its lane, what is a duplicate, what is a hole |
//! | [`backlog`] | which sections one transaction takes, and what is left after it was committed or aborted |
//! | [`transaction`] | when a transaction is committed, and how much it may hold |
//! | [`progress`] | where a transaction leaves the partitions that it moves |
//! | [`syncs`] | which offset syncs go into a transaction |
//! | [`gaps`] | what a record of `spillway-gaps.internal` says |
//! | [`refusal`] | which record the central Kafka refuses, found by halving |

pub mod backlog;
pub mod gaps;
pub mod progress;
pub mod refusal;
pub mod sequencer;
pub mod syncs;
pub mod transaction;
