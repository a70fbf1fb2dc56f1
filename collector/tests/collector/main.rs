//! The collector against a central Kafka, spoken to over real QUIC by an agent that says whatever a test wants.
//!
//! The central Kafka is the embedded broker. `SPILLWAY_TEST_KAFKA=host:port cargo test -- --ignored` runs what needs a real one; more of
//! that is in the workbench's suites (`tests/`).
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod check;
mod closes;
mod deferred;
mod dictionaries;
mod gaps;
mod history;
mod hostile;
mod moves;
mod real;
mod sessions;
mod support;
mod told;
