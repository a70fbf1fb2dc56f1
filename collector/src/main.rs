//! `spillway-collector`: see the library for what it does.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::time::SystemTime;

use anyhow::Context;
use clap::{CommandFactory, Parser};
use spillway_collector::cli::{Cli, Command};
use spillway_collector::pki;
use spillway_collector::server::{self, Server};
use spillway_collector::status::{self, CollectorStatus};
use spillway_config::{COLLECTOR_REFERENCE, CollectorConfig, LogFormat, Problem, Problems, SITE_REFERENCE};
use spillway_link::{Identity, IdentityFiles, Role, identity};
use spillway_ops::{Exit, exit, logging, panics, signals};
use tokio_util::sync::CancellationToken;

fn main() -> Exit {
    panics::end_the_program(|| false);
    match command(Cli::parse().command) {
        Ok(()) => Exit::Done,
        Err(failure) => {
            let (exit, text) = failure.told();
            exit::say(text);
            exit
        }
    }
}

/// Why the program ends otherwise than well.
enum Failure {
    Configuration(Problems),
    /// In the site files; the collector's own file is good. Only for `check`: a collector that runs goes on without them.
    SiteFiles(Vec<Problem>),
    Identity(identity::Error),
    Start(server::Error),
    Runtime(anyhow::Error),
    Command(anyhow::Error),
}

impl Failure {
    /// Exit code and text. The one place where errors become codes.
    fn told(&self) -> (Exit, String) {
        match self {
            Self::Configuration(problems) => (Exit::Configuration, problems.to_string()),
            Self::SiteFiles(problems) => {
                let lines: String = problems.iter().map(|problem| format!("{problem}\n")).collect();
                let count = if problems.len() == 1 { "1 problem".to_owned() } else { format!("{} problems", problems.len()) };
                let then = "a collector keeps what it read of these sites before, and refuses those of which it read nothing";
                (Exit::Configuration, format!("{lines}{count} in the site files; {then}"))
            }
            Self::Identity(error) => (Exit::CannotStart, format!("spillway-collector: {}", exit::chain(error))),
            Self::Start(error) => (Exit::CannotStart, format!("spillway-collector: {}", exit::chain(error))),
            Self::Runtime(error) => (Exit::CannotStart, format!("spillway-collector: {error:#}")),
            Self::Command(error) => (Exit::Failed, format!("spillway-collector: {error:#}")),
        }
    }
}

fn command(command: Command) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let done = match command {
        Command::Run(args) => return run(&args.config),
        Command::Check(args) => return check(&args.config, &mut out),
        Command::Status { config, json } => return show_status(config.as_deref(), json, &mut out),
        Command::Config { site } => out.write_all(if site { SITE_REFERENCE } else { COLLECTOR_REFERENCE }.as_bytes()).map_err(Into::into),
        Command::Pki(command) => pki::run(&command, &mut out).map_err(Into::into),
        Command::Completions { shell } => spillway_ops::cli::completions(shell, Cli::command(), &mut out).map_err(Into::into),
        Command::Man => spillway_ops::cli::man(Cli::command(), &mut out).map_err(Into::into),
    };
    done.map_err(Failure::Command)
}

fn run(path: &Path) -> Result<(), Failure> {
    let config = load(path)?;
    let format = match config.log.format {
        LogFormat::Text => logging::Format::Text,
        LogFormat::Json => logging::Format::Json,
    };
    logging::init(format).context("the log cannot be set up").map_err(Failure::Runtime)?;
    for warning in config.warnings.iter().chain(&config.site_problems) {
        tracing::warn!("{warning}");
    }
    let identity = identity(&config)?;
    let stop = signals::install().context("signals cannot be handled").map_err(Failure::Runtime)?;
    let runtime = tokio::runtime::Runtime::new().context("no runtime").map_err(Failure::Runtime)?;
    runtime.block_on(serve(&config, &identity, stop)).map_err(Failure::Start)?;
    // Blocking calls into librdkafka may last a moment longer; nothing depends on them.
    runtime.shutdown_background();
    tracing::info!(event = "stopped", "stopped");
    Ok(())
}

async fn serve(config: &CollectorConfig, identity: &Identity, stop: CancellationToken) -> Result<(), server::Error> {
    let server = Server::bind(config, identity)?;
    tracing::info!(event = "starting", listen = %server.address()?, "listening; waiting for the central Kafka");
    server.run(config, stop).await;
    Ok(())
}

fn check(path: &Path, out: &mut impl Write) -> Result<(), Failure> {
    let config = load(path)?;
    identity(&config)?;
    let mut lines: Vec<String> = config.warnings.iter().map(ToString::to_string).collect();
    lines.push(format!("{} is good\n", path.display()));
    out.write_all(lines.join("\n").as_bytes()).map_err(|error| Failure::Command(error.into()))?;
    if config.site_problems.is_empty() { Ok(()) } else { Err(Failure::SiteFiles(config.site_problems)) }
}

fn show_status(path: Option<&Path>, json: bool, out: &mut impl Write) -> Result<(), Failure> {
    let listen = match path {
        None => DEFAULT_ADMIN,
        Some(path) => {
            let off = || Failure::Command(anyhow::anyhow!("admin.listen is off in {}: there is nothing to ask", path.display()));
            load(path)?.admin.listen.ok_or_else(off)?
        }
    };
    let show = |out: &mut dyn Write| -> anyhow::Result<()> {
        let status = spillway_ops::status::fetch(listen)?;
        if json {
            writeln!(out, "{status:#}")?;
        } else {
            let status: CollectorStatus = serde_json::from_value(status).context("the collector is of another version")?;
            writeln!(out, "{}", status::print(&status))?;
        }
        Ok(())
    };
    show(out).map_err(Failure::Command)
}

fn load(path: &Path) -> Result<CollectorConfig, Failure> {
    CollectorConfig::load(path, std::env::vars_os()).map_err(Failure::Configuration)
}

fn identity(config: &CollectorConfig) -> Result<Identity, Failure> {
    let files = IdentityFiles { ca: config.tls.ca.clone(), cert: config.tls.cert.clone(), key: config.tls.key.clone() };
    Identity::load(&files, Role::Collector, SystemTime::now()).map_err(Failure::Identity)
}

/// `admin.listen` where no configuration is named.
const DEFAULT_ADMIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9611);
