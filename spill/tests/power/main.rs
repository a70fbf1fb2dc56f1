//! Power cuts and full disks. The program records every call by which the store and sled change files, and plays them back up to any point, with
//! whatever was not synced by then lost, torn or out of order.
#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "../support/mod.rs"]
mod support;

mod calls;
mod cuts;
mod disk;
mod full;
