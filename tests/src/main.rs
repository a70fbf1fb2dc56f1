//! `./lab`, or `cargo lab`.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::Parser as _;
use spillway_lab::chaos::fleet::{self, FleetOptions};
use spillway_lab::chaos::real::{self, RealOptions};
use spillway_lab::cli::{BenchCommand, Cli, Command, KafkaCommand};
use spillway_lab::demo::{self, DemoOptions};
use spillway_lab::fuzz::{self, FuzzOptions};
use spillway_lab::test_cmd::{self, TestOptions};
use spillway_lab::{bench, build, interrupt, kafka_cmd, notice, reaper, shapes, smoke, wan};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = interrupt::install().and_then(|()| run(cli.command));
    reaper::finish();
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            notice::tell(format_args!("lab: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// `Ok(false)`: the lab did its work, and what it looked at is not as it should be.
fn run(command: Command) -> Result<bool> {
    match command {
        Command::Demo { kafka, seconds, rate } => {
            build::binaries()?;
            demo::run(DemoOptions { kafka, duration: Duration::from_secs(seconds), rate })
        }
        Command::Bench { command: BenchCommand::Throughput(options) } => bench::throughput::run(&options).map(|()| true),
        Command::Bench { command: BenchCommand::Fleet(options) } => bench::fleet::run(&options).map(|()| true),
        Command::Bench { command: BenchCommand::Retention(options) } => bench::retention::run(&options),
        Command::Bench { command: BenchCommand::Compress(options) } => bench::compress::run(&options).map(|()| true),
        Command::Bench { command: BenchCommand::Link(options) } => bench::link::run(&options).map(|()| true),
        Command::Bench { command: BenchCommand::Outage(options) } => bench::outage::run(&options).map(|()| true),
        Command::Bench { command: BenchCommand::Classes(options) } => bench::classes::run(&options).map(|()| true),
        Command::Bench { command: BenchCommand::Cap(options) } => bench::cap::run(&options),
        Command::Bench { command: BenchCommand::Spill(options) } => bench::spill::run(&options).map(|()| true),
        Command::Chaos { seed, schedules, jobs, in_process: true, .. } => {
            fleet::run(FleetOptions { seed: seed.unwrap_or_else(shapes::fresh_seed), schedules, jobs: jobs.into() })
        }
        Command::Chaos { seed, records, short, in_process: false, .. } => {
            build::binaries()?;
            real::run(RealOptions { seed: seed.unwrap_or_else(shapes::fresh_seed), records, short })
        }
        Command::Fuzz { targets, seconds, jobs, list, merge, replay } => {
            fuzz::run(&FuzzOptions { targets, seconds, jobs, list, merge, replay })
        }
        Command::Kafka { command: KafkaCommand::Up { brokers, wan } } => kafka_cmd::up(brokers, wan).map(|()| true),
        Command::Kafka { command: KafkaCommand::Down } => kafka_cmd::down().map(|()| true),
        Command::Smoke { agent, runner } => {
            build::binaries()?;
            smoke::run(&agent, &runner)
        }
        Command::Test { without_kafka, filter } => {
            build::binaries()?;
            test_cmd::run(&TestOptions { without_kafka, filter })
        }
        Command::Wan { command } => wan::command::run(command).map(|()| true),
    }
}
