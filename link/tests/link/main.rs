//! The link as its users see it: identities, handshakes, bytes on the wire.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;
mod handshake;
mod identity;
mod outage;
mod tunnel;
mod wire;
