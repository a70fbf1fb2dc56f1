//! The spill: a durable first-in-first-out store of frames for the time when the link is down. Blocking; give it a thread of its own.
//!
//! What is stored and every decision about it is in `spillway-spill-core`, whose modules are offered here as well.
//!
//! | module | what it is for |
//! |---|---|
//! | [`store`] | the trait of a store, its errors, its figures |
//! | [`rotating`] | the store: small sled databases in rotation, and how damage is met |
//! | [`keeper`] | the thread that owns a store |
//! | [`chunk`], [`index`], [`state`] | the bytes on disk |
//! | [`seal`] | encryption at rest |
//! | [`tools`] | inspect, verify, export, salvage on a stopped or copied directory |
//!
//! The bytes are specified in `docs/spill-format.md`; fixtures in `tests/fixtures` hold both to each other.

pub mod chunk;
pub mod index;
pub mod keeper;
pub mod rotating;
pub mod seal;
pub mod state;
pub mod store;
pub mod tools;

pub use rotating::{Options, RotatingStore, deals_with_panics_here, generations};
pub use spillway_spill_core::entry::{Class, Entry, EntryId, Identity, Line, StoredSection};
pub use spillway_spill_core::{admission, commit, entry, plan, ranges, summary};
pub use store::{Error, SpillStore, StoredEntry};
