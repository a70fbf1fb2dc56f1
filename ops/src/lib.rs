//! Operation: what agent and collector share towards the people and machines that run them.
//!
//! | module | what it is for |
//! |---|---|
//! | [`logging`] | log lines to stderr, as text or JSON |
//! | [`exit`] | the documented exit codes, and the last line before one |
//! | [`signals`] | SIGTERM and SIGINT: drain at the first, leave at the second |
//! | [`metrics`] | Prometheus metrics whose names come from one list a program |
//! | [`panics`] | a panic ends the program |
//! | [`process`] | memory, CPU and files of this process, as metrics |
//! | [`admin`] | the HTTP endpoint for machines: metrics, health, readiness, status |
//! | [`status`] | the client of that endpoint behind the `status` command |
//! | [`table`] | aligned tables for people |
//! | [`notify`] | the ready announcement, and systemd's readiness and watchdog |
//! | [`cli`] | completions, manual page and version of both commands |

pub mod admin;
pub mod cli;
pub mod exit;
pub mod logging;
pub mod metrics;
pub mod notify;
pub mod panics;
pub mod process;
pub mod signals;
pub mod status;
pub mod table;

pub use admin::{AdminServer, AdminSource, Health};
pub use exit::Exit;
pub use metrics::{FloatGauge, MetricName, Metrics};
pub use table::Table;
