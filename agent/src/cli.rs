//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use spillway_ops::cli::{Shell, VERSION};

/// `spillway-agent`.
#[derive(Debug, Parser)]
#[command(
    name = "spillway-agent",
    version = VERSION,
    about = "Ships a site's Kafka to the centre, each record exactly once",
    long_about = "Ships a site's Kafka to the centre, each record exactly once.\n\n\
        The agent runs beside the site's Kafka, reads every selected topic, and sends the records over one outgoing UDP connection to a \
        collector, which writes them into the central Kafka as SITE.TOPIC. It survives a line that is thin, lossy or away for days: what the \
        centre has not committed stays in the site's Kafka and is sent when the line is back.",
    after_long_help = AFTER_HELP.as_str(),
    max_term_width = 120
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the agent in the foreground until SIGTERM or SIGINT
    ///
    /// Logs to standard error (level by SPILLWAY_LOG, for example SPILLWAY_LOG=debug) and logs one line with event=ready once it
    /// serves. The first signal stops reading, waits for acknowledgements (shutdown.deadline), and exits with 0; a second one exits at once.
    /// Neither loses anything.
    Run(ConfigFile),
    /// Check the configuration, certificates included, and say what the agent would do
    ///
    /// Finds all problems at once. With --connect it also asks the site's Kafka for its topics and dials the collector.
    Check {
        /// The configuration.
        #[command(flatten)]
        file: ConfigFile,
        /// Also ask the site's Kafka and dial the collector. Opens no session and moves no data
        #[arg(long)]
        connect: bool,
    },
    /// Print the commented reference configuration: every key with its default
    Config,
    /// Show what a running agent does: link, lag of each partition, gaps
    Status {
        /// Configuration of the running agent; its admin.listen is asked.
        #[arg(long, value_name = "FILE", conflicts_with = "address")]
        config: Option<PathBuf>,
        /// Address of its admin endpoint. Default: 127.0.0.1:9610
        #[arg(long, value_name = "HOST:PORT")]
        address: Option<SocketAddr>,
        /// Print JSON, for machines
        #[arg(long)]
        json: bool,
    },
    /// Look into the spill of a stopped agent, or into a copy of its directory; nothing is changed there
    Spill {
        /// What to do.
        #[command(subcommand)]
        command: SpillCommand,
    },
    /// Print a completion script for a shell
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Print the manual pages (roff)
    Man,
}

/// What to do with a spill.
#[derive(Debug, Subcommand)]
pub enum SpillCommand {
    /// Show which offsets of which partitions it holds
    Inspect(SpillDirectory),
    /// Read everything, compare every checksum, and list what is damaged or lost; exits with 1 if anything is
    Verify(SpillDirectory),
    /// Write every record as a line of JSON to standard output: keys, values and headers in base64
    Export(SpillDirectory),
    /// As export, with what is left in damaged generations that were put aside
    Salvage(SpillDirectory),
}

/// Where a spill is.
#[derive(Debug, Args)]
pub struct SpillDirectory {
    /// Its directory
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
    /// The file with its key, if it is encrypted
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
}

/// Where the configuration is.
#[derive(Debug, Args)]
pub struct ConfigFile {
    /// The configuration file; `spillway-agent config` prints a commented one
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
}

static AFTER_HELP: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| {
    let examples = "Examples:\n  \
        spillway-agent config > agent.toml                      # then set site, collector.address and the three of [tls]\n  \
        spillway-agent check --config agent.toml --connect      # does it fit together, is everything reachable\n  \
        spillway-agent run --config agent.toml\n  \
        spillway-agent status --config agent.toml\n";
    format!("{examples}\n{}", spillway_ops::exit::help())
});

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_help_names_the_exit_codes() {
        let help = Cli::command().render_long_help().to_string();
        assert!(help.contains("lose or duplicate data"), "{help}");
    }
}
