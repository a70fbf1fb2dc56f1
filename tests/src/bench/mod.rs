//! `lab bench`: how fast, and at what cost. Reports, never tests: the figures are those of this machine in this hour, so what is compared runs
//! side by side in the same run, and ratios are printed.
//!
//! | module | what it is for |
//! |---|---|
//! | [`throughput`] | the same records through Spillway and through MirrorMaker 2 |
//! | [`latency`] | how old records are at the centre, at a fixed rate |
//! | [`fleet`] | many sites at one collector |
//! | [`retention`] | an outage that is longer than the source keeps its records |
//! | [`spill`] | the spill beside a bare log, and the agent with a backlog |
//! | [`link`] | how much of a thin line becomes useful bytes, beside stock QUIC and TCP |
//! | [`compress`] | what a backlog of telemetry costs on a thin line |
//! | [`classes`] | alarms beside bulk, and shares by class and weight, on a thin line |
//! | [`cap`] | how closely the cap on wire bytes is kept, and a month of a budget |
//! | [`outage`] | how soon something arrives after the line was down |
//! | [`peer`] | who is compared on thin lines |
//! | [`mirror`], [`backlog`] | MirrorMaker 2 there, and what it is given where nothing else waits |
//! | [`contestant`] | Spillway and MirrorMaker 2 as something that can be started and measured |
//! | [`thin`] | the same with a WAN between their ends |
//! | [`given`] | options with units, and directories of programs |
//! | [`workload`] | the records |
//! | [`usage`] | processor time and memory of a process, disk of a directory |
//! | [`progress`] | how far the centre is, sampled |
//! | [`report`] | medians, ratios and the tables |

pub mod backlog;
pub mod cap;
pub mod classes;
pub mod compress;
pub mod contestant;
pub mod fleet;
pub mod given;
pub mod latency;
pub mod link;
pub mod mirror;
pub mod outage;
pub mod peer;
pub mod progress;
pub mod report;
pub mod retention;
pub mod spill;
pub mod thin;
pub mod throughput;
pub mod usage;
pub mod workload;
