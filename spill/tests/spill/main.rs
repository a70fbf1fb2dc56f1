//! The store on real files.
#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "../support/mod.rs"]
mod support;

mod basics;
mod cycles;
mod damage;
mod fixtures;
mod full;
mod keeper;
mod kill;
mod model;
mod small_disk;
