//! `spillway-agent`: see the library for how it works.

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use clap::{CommandFactory, Parser};
use spillway_agent::cli::{Cli, Command, ConfigFile, SpillCommand};
use spillway_agent::status::Status;
use spillway_agent::{allocator, check, runner, service, spill_tools};
use spillway_config::{AGENT_REFERENCE, AgentConfig, LogFormat, Problems};
use spillway_ops::{Exit, cli, exit, logging, panics, signals, status};

/// Where the admin endpoint is by default; the reference configuration says the same.
const DEFAULT_ADMIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9610);

fn main() -> ExitCode {
    allocator::give_back_large_blocks();
    panics::end_the_program(spillway_spill::deals_with_panics_here);
    let outcome = match Cli::parse().command {
        Command::Run(file) => run(&file),
        Command::Check { file, connect } => check(&file, connect),
        Command::Config => print(AGENT_REFERENCE),
        Command::Status { config, address, json } => show_status(config.as_deref(), address, json),
        Command::Spill { command } => spill(&command).map_err(Failure::other),
        Command::Completions { shell } => cli::completions(shell, Cli::command(), &mut std::io::stdout()).map_err(Failure::other),
        Command::Man => cli::man(Cli::command(), &mut std::io::stdout()).map_err(Failure::other),
    };
    match outcome {
        Ok(()) => Exit::Done.into(),
        Err(failure) => failure.report().into(),
    }
}

/// Everything that ends the program early.
enum Failure {
    Configuration(Problems),
    Service(service::Error),
    Check(check::Error),
    Other(anyhow::Error),
}

impl Failure {
    fn other(error: impl Into<anyhow::Error>) -> Self {
        Self::Other(error.into())
    }

    /// Prints what happened, once, and answers the exit code.
    fn report(self) -> Exit {
        let (text, exit) = match self {
            Self::Configuration(problems) => (problems.to_string(), Exit::Configuration),
            Self::Service(error) => (exit::chain(&error), exit_of(&error)),
            Self::Check(error) => (exit::chain(&error), Exit::Failed),
            Self::Other(error) => (format!("{error:#}"), Exit::Failed),
        };
        exit::say(format_args!("spillway-agent: {text}"));
        exit
    }
}

fn exit_of(error: &service::Error) -> Exit {
    match error {
        service::Error::Start(_) => Exit::CannotStart,
        service::Error::Run(runner::Error::GapHalt { .. } | runner::Error::Books(_) | runner::Error::SpilledFrame { .. }) => Exit::Stopped,
        service::Error::Run(
            runner::Error::Source(_)
            | runner::Error::Client(_)
            | runner::Error::Survey
            | runner::Error::Spill
            | runner::Error::Compression(_),
        ) => Exit::Failed,
    }
}

fn load(path: &Path) -> Result<AgentConfig, Failure> {
    AgentConfig::load(path, std::env::vars_os()).map_err(Failure::Configuration)
}

fn run(file: &ConfigFile) -> Result<(), Failure> {
    let config = load(&file.config)?;
    let format = match config.log.format {
        LogFormat::Text => logging::Format::Text,
        LogFormat::Json => logging::Format::Json,
    };
    logging::init(format).map_err(Failure::other)?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let stop = signals::install().context("cannot listen for signals").map_err(Failure::Other)?;
    let runtime = runtime()?;
    tracing::info!(version = cli::VERSION, site = %config.site, "starting");
    let outcome = runtime.block_on(service::run(config, stop));
    // Threads that ask the site's Kafka may hang in a question for seconds; nothing they do matters any more.
    runtime.shutdown_background();
    match outcome {
        Ok(ended) => {
            tracing::info!(unacked_records = ended.unacked_records, "done");
            Ok(())
        }
        Err(error) => {
            tracing::error!(error = exit::chain(&error), "stopped");
            Err(Failure::Service(error))
        }
    }
}

fn check(file: &ConfigFile, connect: bool) -> Result<(), Failure> {
    let config = load(&file.config)?;
    let runtime = runtime()?;
    let _guard = runtime.enter();
    for warning in &config.warnings {
        exit::say(format_args!("warning: {warning}"));
    }
    print(&check::describe(&config).map_err(Failure::Check)?)?;
    if connect {
        print(&runtime.block_on(check::connect(&config)).map_err(Failure::Check)?)?;
    }
    print("ok\n")
}

fn show_status(config: Option<&Path>, address: Option<SocketAddr>, json: bool) -> Result<(), Failure> {
    let address = match (address, config) {
        (Some(address), _) => address,
        (None, Some(path)) => {
            let listen = load(path)?.admin.listen;
            listen.context("admin.listen is \"off\": there is nothing to ask").map_err(Failure::Other)?
        }
        (None, None) => DEFAULT_ADMIN,
    };
    let value = status::fetch(address).map_err(Failure::other)?;
    if json {
        return print(&format!("{value:#}\n"));
    }
    let status = serde_json::from_value::<Status>(value).context("the agent there is of another version; try --json");
    print(&format!("{}\n", status.map_err(Failure::Other)?.render().trim_end()))
}

fn spill(command: &SpillCommand) -> Result<(), spill_tools::Error> {
    let (SpillCommand::Inspect(place) | SpillCommand::Verify(place) | SpillCommand::Export(place) | SpillCommand::Salvage(place)) = command;
    let (root, key) = (place.directory.as_path(), spill_tools::open(&place.directory, place.key.as_deref())?);
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    match command {
        SpillCommand::Inspect(_) => spill_tools::write(&mut out, &spill_tools::inspect(root, key.as_ref())?),
        SpillCommand::Verify(_) => {
            let (text, findings) = spill_tools::verify(root, key.as_ref())?;
            spill_tools::write(&mut out, &text)?;
            if findings > 0 { Err(spill_tools::Error::Damaged(findings)) } else { Ok(()) }
        }
        SpillCommand::Export(_) => spill_tools::export(root, key.as_ref(), false, &mut out).map(drop),
        SpillCommand::Salvage(_) => spill_tools::export(root, key.as_ref(), true, &mut out).map(drop),
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    // One for the runner, one for QUIC: a gateway has few cores, and each thread costs memory.
    builder.worker_threads(2).enable_all().build().context("cannot start the runtime").map_err(Failure::Other)
}

fn print(text: &str) -> Result<(), Failure> {
    use std::io::Write;
    match std::io::stdout().write_all(text.as_bytes()) {
        // Whoever reads has enough, as `head` does.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => result.map_err(Failure::other),
    }
}
