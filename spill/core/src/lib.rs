//! What the spill holds, and every decision about it, without I/O, clock or threads: time comes in as an argument. The store itself is
//! `spillway-spill`.
//!
//! | module | what it is for |
//! |---|---|
//! | [`entry`] | what is stored: frames, and for each section which offsets of which partition it holds |
//! | [`ranges`] | sets of offsets |
//! | [`summary`] | what a generation holds, by partition; what is missing between |
//! | [`plan`] | what of the spill is sent, given what the centre has, and where reading goes on |
//! | [`admission`] | what happens when the spill is full |
//! | [`commit`] | when what was appended is synced |

pub mod admission;
pub mod commit;
pub mod entry;
pub mod plan;
pub mod ranges;
pub mod summary;
