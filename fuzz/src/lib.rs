//! What is fuzzed, and what has to hold. Each module is a target; `run` panics where something does not hold.
//!
//! | module | what is fed | what has to hold beside "no panic" |
//! |---|---|---|
//! | [`frame`] | frames off the wire: header, sections, body, records | what is accepted is encoded to the same frame again; memory |
//! | [`control`] | the control stream, both directions, cut anywhere; how a peer ends a connection | what is accepted is encoded to the same bytes again; memory; one plain line in the log |
//! | [`centre`] | keys and values in the central Kafka, names | the same; remote names stay under the site's prefix |
//! | [`agent`] | a collector that says anything, to the agent's batcher and books | the invariants of `spillway-agent-core` |
//! | [`collector`] | an agent that sends anything, to the collector's sequencer, backlog, syncs | the invariants of `spillway-collector-core` |
//! | [`config`] | agent.toml, collector.toml, a site's file, sizes, times, rates | every problem has a place and a remedy |
//! | [`certificate`] | certificates and keys of peers and operators | what is logged of them is one plain line |
//! | [`spill`] | the files of the agent's spill: index, state, identities, chunks | what is accepted means the same when it is written again; memory |
//!
//! [`memory`] measures what a decoder allocates. `SPILLWAY_FUZZ_TRACE=1` prints the steps of a structured input.
#![forbid(unsafe_code)]

pub mod agent;
pub mod centre;
pub mod certificate;
pub mod collector;
pub mod config;
pub mod control;
mod file;
pub mod frame;
pub mod memory;
pub mod spill;
mod tools;

/// Prints a step of a structured input when `SPILLWAY_FUZZ_TRACE` is set.
pub(crate) fn trace(step: &dyn std::fmt::Debug) {
    if std::env::var_os("SPILLWAY_FUZZ_TRACE").is_some() {
        eprintln!("{step:?}");
    }
}
