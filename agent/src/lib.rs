//! The edge side: consumes the site's Kafka and ships it to the collector.
//!
//! ```text
//! site's Kafka -> source (thread: poll, batch, compress) -> runner (books) -> session (QUIC) -> collector
//!                 survey (thread: topics, positions)    ->    |
//!                 local group  <- commit  <- acks  <-----------'
//! ```
//!
//! | module | what for |
//! |---|---|
//! | [`spillway_agent_core`] | every decision, without I/O: batching, the books, beginnings, redialling, topics |
//! | [`memory`], [`allocator`] | how `memory_max` is shared out; large buffers go back to the system |
//! | [`source`] | the thread that reads the site's Kafka and builds frames |
//! | [`survey`] | the thread that asks the site's Kafka for topics and positions |
//! | [`session`] | one QUIC session with a collector |
//! | [`runner`] | the loop that owns the books and connects the others |
//! | [`plan`] | what the site may send: the centre's settings, the budget, the cap |
//! | [`status`], [`metrics`] | what the outside sees |
//! | [`service`] | puts the parts together |
//! | [`check`] | what `check` tells |
//! | [`spill`] | opens the spill |
//! | [`spill_tools`] | what `spill` shows and writes out |
//! | [`cli`] | the command line |

pub mod allocator;
pub mod check;
pub mod cli;
pub mod dictionaries;
pub mod flows;
pub mod memory;
pub mod metrics;
pub mod plan;
pub mod runner;
pub mod service;
pub mod session;
pub mod source;
pub mod spill;
pub mod spill_tools;
pub mod status;
pub mod survey;
