//! What the machines around a program see of it: its admin endpoint, its log, its answer to signals.
#![expect(clippy::unwrap_used, reason = "tests")]

mod admin;
mod signals;
