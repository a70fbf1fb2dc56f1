//! `./lab wan`.

use std::ffi::OsString;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use clap::{Args, Subcommand, ValueEnum};

use super::order::{HELP, Order, Scenario};
use super::{End, Wan, control, namespace};
use crate::java::lab_dir;
use crate::shapes;
use crate::wait::POLL;

/// `lab wan …`
#[derive(Debug, Subcommand)]
pub enum WanCommand {
    /// Make the WAN, and keep it until Ctrl-C
    #[command(after_help = HELP)]
    Up(UpOptions),
    /// Give an order to the WAN that is up
    #[command(after_help = HELP)]
    Tell {
        /// The order, for example: to-centre rate 512kbit
        #[arg(required = true)]
        order: Vec<String>,
    },
    /// Print packets and bytes of each direction at the IP level
    ///
    /// Each as packets/bytes. Offered: what an end has sent. Carried: what went onto the line, which a provider would bill. Lost: of these, at random.
    /// Overflowed, down: dropped before the line, because the queue was full or the line down. Stray: sent to an address that the edge has left.
    Counters,
    /// Run a command at one end, with its exit code
    #[command(
        after_help = "Examples:\n  ./lab wan exec centre -- iperf3 -s\n  ./lab wan exec edge -- ping -c 3 10.93.0.1\n  ./lab wan exec edge -- bash"
    )]
    Exec {
        /// Where
        end: EndName,
        /// The command and its arguments
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<OsString>,
    },
}

/// `lab wan up …`
#[derive(Debug, Args)]
pub struct UpOptions {
    /// Orders over time; each is printed when it is carried out
    #[arg(long, value_name = "FILE")]
    pub scenario: Option<PathBuf>,
    /// Bits a second in both directions, for example 2Mbit; unlimited if it is not given
    #[arg(long)]
    pub rate: Option<String>,
    /// One way, in both directions
    #[arg(long, value_name = "TIME")]
    pub delay: Option<String>,
    /// Up to so much more for each packet
    #[arg(long, value_name = "TIME")]
    pub jitter: Option<String>,
    /// Of packets in both directions, for example 2% or, in bursts of 8, 2%/8
    #[arg(long)]
    pub loss: Option<String>,
    /// What waits at most in each direction, for example 64KiB
    #[arg(long, value_name = "SIZE")]
    pub queue: Option<String>,
    /// An order at the start, as often as needed
    #[arg(long, value_name = "ORDER")]
    pub order: Vec<String>,
    /// What is left to chance is drawn from it; a new one if it is not given
    #[arg(long)]
    pub seed: Option<u64>,
}

/// An end, on the command line.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum EndName {
    /// The site
    Edge,
    /// The centre
    Centre,
}

impl From<EndName> for End {
    fn from(name: EndName) -> Self {
        match name {
            EndName::Edge => Self::Edge,
            EndName::Centre => Self::Centre,
        }
    }
}

/// Does what was asked for.
///
/// # Errors
/// When a WAN cannot be had, none is up, or an order is not understood.
pub fn run(command: WanCommand) -> Result<()> {
    match command {
        WanCommand::Up(options) => up(&options),
        WanCommand::Tell { order } => {
            println!("{}", control::ask(&socket(), &order.join(" "))?);
            Ok(())
        }
        WanCommand::Counters => {
            println!("{}", control::ask(&socket(), "counters")?);
            Ok(())
        }
        WanCommand::Exec { end, command } => {
            namespace::enter_of(control::pid(&socket(), end.into())?)?;
            let (program, arguments) = command.split_first().context("no command")?;
            Err(Command::new(program).args(arguments).exec()).with_context(|| format!("cannot run {}", program.to_string_lossy()))
        }
    }
}

/// Where the WAN of this checkout takes its orders.
#[must_use]
pub fn socket() -> PathBuf {
    lab_dir().join("wan.sock")
}

fn up(options: &UpOptions) -> Result<()> {
    // All that can be wrong in words is found before anything is made.
    let scenario = options.scenario.as_deref().map(Scenario::read).transpose()?.unwrap_or_default();
    let orders = orders(options)?;
    ensure!(control::ask(&socket(), "counters").is_err(), "a WAN is up already; end it first");
    let seed = options.seed.unwrap_or_else(shapes::fresh_seed);
    let wan = Wan::start(seed)?;
    for order in &orders {
        wan.order(order)?;
    }
    let _control = wan.listen(&socket())?;
    wan.play(scenario)?;
    println!(
        "The WAN is up (seed {seed}).\n
  edge    {}   namespace of process {}
  centre  {}   namespace of process {}\n
  ./lab wan exec edge -- ping -c 3 {centre}
  ./lab wan tell to-centre rate 512kbit delay 300ms loss 2%
  ./lab wan tell outage 10s
  ./lab wan counters\n
All orders: ./lab wan tell --help. End: Ctrl-C",
        End::Edge.address(),
        wan.pid(End::Edge),
        End::Centre.address(),
        wan.pid(End::Centre),
        centre = End::Centre.address(),
    );
    // Ctrl-C ends the process (crate::interrupt), and the reaper removes what there is.
    loop {
        for done in wan.done() {
            // The WAN stays up for those who use it when nobody reads this any more.
            let _unread = writeln!(std::io::stdout(), "{:>8.1} s  {}", done.at.as_secs_f64(), done.what);
        }
        std::thread::sleep(POLL);
    }
}

fn orders(options: &UpOptions) -> Result<Vec<Order>> {
    let pairs = [
        ("rate", &options.rate),
        ("delay", &options.delay),
        ("jitter", &options.jitter),
        ("loss", &options.loss),
        ("queue", &options.queue),
    ];
    let given = pairs.into_iter().filter_map(|(key, value)| value.as_ref().map(|value| format!("{key} {value}")));
    given.chain(options.order.iter().cloned()).map(|text| text.parse().with_context(|| format!("order {text:?}"))).collect()
}
