//! Spillway's workbench: the demo, real Kafka, whole deployments of the real binaries, and the oracle that judges them.
//!
//! | module | what it is for |
//! |---|---|
//! | [`cli`] | the command line |
//! | [`demo`], [`telemetry`] | `lab demo` and what its sensors say |
//! | [`kafka_cmd`] | `lab kafka up` and `down` |
//! | [`smoke`] | `lab smoke`: an agent built for another processor, under an emulator |
//! | [`test_cmd`], [`build`] | `lab test`, and calling cargo |
//! | [`mod@bench`] | `lab bench`: throughput, cost and latency beside MirrorMaker 2 |
//! | [`fuzz`] | `lab fuzz` |
//! | [`stage`] | a whole deployment of the real binaries |
//! | [`chaos`] | `lab chaos`: seeded faults against exactly-once, on real Kafka and in this process |
//! | [`relay`] | the link: a UDP relay that can be cut, delayed, moved, and made a bad one |
//! | [`mod@wan`] | `lab wan`: two network namespaces and a thin line between them, for TCP and UDP alike; needs root |
//! | [`tcp_relay`] | the link of whoever speaks Kafka's protocol to the centre |
//! | [`shim`] | sets the clock of one process, or makes its disk slow |
//! | [`mod@spill_dir`] | the files of a spill: whether it holds anything, and damage |
//! | [`oracle`] | judges whether the centre holds what the source holds, and whether offset syncs tell the truth |
//! | [`metrics`], [`spill_status`] | reads the admin endpoint of a binary |
//! | [`shapes`] | records of every shape |
//! | [`client`] | topics, records and offsets of any cluster |
//! | [`cluster`] | a cluster of the demo, embedded or real |
//! | [`java`], [`kafka_cluster`] | Apache Kafka: jars, tools, clusters of one to three brokers |
//! | [`notice`] | lines for the person at the terminal, who may have left |
//! | [`reaper`], [`process`], [`interrupt`], [`ports`], [`wait`] | child processes that never outlive the lab, free ports, limits on waiting |
//!
//! Everything is blocking: a test reads from top to bottom. Errors are `anyhow`: no code decides by them, a person reads them.

pub mod bench;
pub mod build;
pub mod chaos;
pub mod cli;
pub mod client;
pub mod cluster;
pub mod demo;
pub mod fuzz;
pub mod interrupt;
pub mod java;
pub mod kafka_cluster;
pub mod kafka_cmd;
pub mod metrics;
pub mod notice;
pub mod oracle;
pub mod ports;
pub mod process;
pub mod reaper;
pub mod relay;
pub mod shapes;
pub mod shim;
pub mod smoke;
pub mod spill_dir;
pub mod spill_status;
pub mod stage;
pub mod tcp_relay;
pub mod telemetry;
pub mod test_cmd;
pub mod wait;
pub mod wan;
