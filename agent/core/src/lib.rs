//! Every decision of the agent, without I/O, clock or threads: time and randomness come in as arguments.

pub mod batcher;
pub mod budget;
pub mod compression;
pub mod forecast;
pub mod kept;
pub mod lane;
pub mod ledger;
pub mod line;
pub mod redial;
pub mod schedule;
pub mod sessions;
pub mod settings;
pub mod silence;
pub mod spool;
pub mod start;
pub mod topics;
pub mod transit;
pub mod ttl;
pub mod way;
