//! Congestion control on a modelled line: real QUIC connections (quinn-proto), packets, acknowledgements and losses, in virtual time.
//!
//! Each run prints its figures: `cargo test -p spillway-link --test congestion -- --nocapture`. Nothing depends on how fast the machine is.
#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "../link/common.rs"]
#[expect(dead_code, reason = "made for another test")]
mod common;

mod alone;
mod changes;
mod flow;
mod idle;
mod session;
mod sharing;
mod sim;
