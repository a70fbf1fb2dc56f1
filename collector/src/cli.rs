//! The command line: one definition for parser, help, manual and completions.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use spillway_ops::cli::Shell;

use crate::pki;

/// The central side of Spillway: accepts sites over QUIC and writes their records exactly once into the central Kafka.
///
/// Sites prove who they are with a certificate, and each writes only topics that begin with its own name. A collector keeps nothing of
/// its own: several may share one central Kafka, and a site may move between them at any moment.
#[derive(Debug, Parser)]
#[command(name = "spillway-collector", version, after_long_help = after_help())]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve sites, in the foreground, until SIGTERM or SIGINT.
    ///
    /// Logs to stderr; the line with event=ready says that sites can connect. On the first signal what has arrived is committed and
    /// acknowledged, then the program ends with code 0; on the second it ends at once, and sites send again what was not acknowledged.
    ///
    /// Example: spillway-collector run --config /etc/spillway/collector.toml
    Run(ConfigArg),
    /// Check a configuration, the files it names and all site files, and say everything that is wrong with them. Starts nothing.
    ///
    /// Exits with 3 if there is a mistake in any of them, although a collector that runs goes on without a bad site file: so a script can try a change first.
    ///
    /// Example: spillway-collector check --config collector.toml
    Check(ConfigArg),
    /// Print the commented reference of collector.toml, with every key and its default.
    ///
    /// Example: spillway-collector config > collector.toml
    Config {
        /// Print the reference of a site's file in sites.dir instead.
        #[arg(long)]
        site: bool,
    },
    /// Show the running collector: connected sites, their last commit, partitions that stand still and why.
    ///
    /// Asks the admin endpoint, so it must be the machine (or the address in admin.listen) that the collector runs on.
    ///
    /// Example: spillway-collector status --json
    Status {
        /// The collector's configuration, for admin.listen [default: the default address].
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// For machines.
        #[arg(long)]
        json: bool,
    },
    /// Make and look at the certificates that sites and collectors prove themselves with.
    #[command(subcommand)]
    Pki(pki::Command),
    /// Print a completion script for a shell.
    ///
    /// Example: spillway-collector completions bash > /etc/bash_completion.d/spillway-collector
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Print the manual page (roff).
    ///
    /// Example: spillway-collector man > spillway-collector.1
    Man,
}

/// Where the configuration is.
#[derive(Debug, clap::Args)]
pub struct ConfigArg {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
}

fn after_help() -> String {
    [
        "Examples:\n",
        "  spillway-collector pki init --dir pki --host central.example.com\n",
        "  spillway-collector pki issue plant-7 --dir pki --out plant-7\n",
        "  spillway-collector config > collector.toml\n",
        "  spillway-collector check --config collector.toml\n",
        "  spillway-collector run --config collector.toml\n\n",
        &spillway_ops::exit::help(),
        "\nSPILLWAY_LOG sets the log level (info, debug, spillway_collector=trace, …); SPILLWAY_<PATH> any key of the configuration.\n",
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
