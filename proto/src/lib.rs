//! Wire format of Spillway and the names it writes, without I/O, clock or threads.
//!
//! | module | what it is for |
//! |---|---|
//! | [`types`] | site, topic, partition, offset, lane: one type per idea |
//! | [`limits`] | every bound of the protocol, with its reason |
//! | [`codec`] | the primitive reader and writer that check before they allocate |
//! | [`message`] | messages of the control stream |
//! | [`frame`] | the unit on the wire: a header of sections and a compressed body |
//! | [`record`] | records inside a section's bytes |
//! | [`columns`] | rows to columns, which compress better, and back |
//! | [`compress`] | the one place that compresses and decompresses |
//! | [`dictionary`] | what small frames have in common, held at both ends |
//! | [`history`] | what was sent before, put before small frames |
//! | [`deferred`] | offsets that come later than those above them |
//! | [`close`] | why a connection was closed, and what to do about it |
//! | [`progress`] | keys and values of `spillway-progress.internal` |
//! | [`mm2`] | MirrorMaker 2's bytes |
//! | [`naming`] | how remote and internal topics are named |
//!
//! The bytes are specified in `docs/wire-protocol.md`; golden fixtures in `tests/fixtures` hold both to each other.

pub mod close;
pub mod codec;
pub mod columns;
pub mod compress;
pub mod deferred;
pub mod dictionary;
pub mod frame;
pub mod history;
pub mod limits;
pub mod message;
pub mod mm2;
pub mod naming;
pub mod progress;
pub mod record;
pub mod types;

pub use close::CloseCode;
pub use types::{FrameSeq, Lane, NextOffset, Offset, Partition, SiteName, TopicId, TopicName, TopicPartition};
