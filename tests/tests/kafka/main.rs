//! Suites that need real Apache Kafka. `./lab test` runs them; alone:
//! `cargo test --workspace --test kafka -- --ignored --test-threads=1`.
#![expect(clippy::unwrap_used, reason = "tests")]

mod cluster;
mod common;
mod faults;
mod gaps;
mod memory;
mod outages;
mod progress;
mod refused;
mod security;
mod sessions;
mod shutdown;
mod syncs;
mod topics;
