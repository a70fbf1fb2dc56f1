//! `lab bench cap`: how closely the cap on wire bytes is kept, and a month of a budget.
//!
//! A real link client sends without a pause to a real link server through the relay, which loses 2 % of the packets of both directions. All that arrive at it
//! count, each at the moment the kernel had it, which on loopback is when it was sent: a relay that got no processor for a while would else find packets close
//! together that were not. The figures are the most and the least that any 10 s carried ([`sampler`]). [`peers`] have their cap in the application, [`mirror`] in
//! the central Kafka.

use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use clap::{Args, Parser as _};
use spillway_collector::cli::{Cli, Command};
use spillway_link::{
    BitRate, Counting, Identity, IdentityFiles, LinkClient, LinkServer, LinkSettings, MtuDiscovery, RateCap, Role, SLOW_LINE_BITS, Way,
};

use self::sampler::{Figures, Samples, figures, running};
use crate::bench::given;
use crate::bench::peer::{Peer, Present, among};
use crate::reaper::scratch_dir;
use crate::relay::weather::Weather;
use crate::relay::{Direction, Relay};

pub mod mirror;
pub mod month;
pub mod peers;
pub mod sampler;

/// What `lab bench cap` is asked for.
#[derive(Debug, Clone, Args)]
pub struct CapOptions {
    /// Seconds at each rate, beyond the handshake; 21 to 3600
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u64).range(21..=3600))]
    pub seconds: u64,
    /// Only this rate, for example 64kbit; 1kbit to 1Gbit [default: 8kbit, 64kbit, 1Mbit, 10Mbit]
    #[arg(long, value_parser = given::bits(1_000..=1_000_000_000))]
    pub rate: Option<u64>,
    /// Only these. MirrorMaker 2 needs Java, and all but Spillway root; who cannot be measured here is left out
    #[arg(long, value_name = "WHO", value_delimiter = ',', num_args = 1.., value_parser = among(&Peer::ALL))]
    pub with: Vec<Peer>,
    /// Seed of the simulated month [default: a new one]
    #[arg(long)]
    pub seed: Option<u64>,
    /// Only the simulated month
    #[arg(long)]
    pub month_only: bool,
}

/// Rates that are measured, in bits per second.
const RATES: [u64; 4] = [8_000, 64_000, 1_000_000, 10_000_000];

/// Packets lost, in a thousand.
const LOST: u16 = 20;

/// What is kept of 10 s: promised by the issue, and asserted by `./lab test` in virtual time.
const PROMISE_PERCENT: f64 = 2.0;

const SITE: &str = "plant-7";

/// Runs it. Answers whether no 10 s were more than 2 % over their rate, and no budget was passed by more than 0.5 %.
///
/// # Errors
/// When a port cannot be had, or the link does not come up.
pub fn run(options: &CapOptions) -> Result<bool> {
    let seed = options.seed.unwrap_or_else(rand::random);
    let mut kept = true;
    if !options.month_only {
        kept = rates(options)?;
    }
    Ok(month::run(seed)? && kept)
}

/// Each rate; answers whether ours was kept.
fn rates(options: &CapOptions) -> Result<bool> {
    let Present { ours, bare, mirrors } = Present::of(&options.with)?;
    let rates = options.rate.map_or_else(|| RATES.to_vec(), |rate| vec![rate]);
    let span = Duration::from_secs(options.seconds);
    let dir = scratch_dir("cap")?;
    let identities = Identities::make(&dir)?;
    let mut kept = true;
    let runs = u64::from(ours) * 2 + u64::from(!bare.is_empty());
    let mirrored = mirrors.len() as u64 * (options.seconds + mirror::START_SECONDS);
    println!("about {} min; a row as soon as it is there", (rates.len() as u64 * (runs * options.seconds + mirrored)).div_ceil(60));
    println!("rate          counts  most in 10 s  least in 10 s  used   packets lost");
    for bits in &rates {
        for counting in [Counting::Sent, Counting::Both].into_iter().filter(|_| ours) {
            let figures = measure(&identities, *bits, counting, span)?;
            println!("{}  spillway", figures.line(*bits, counting));
            kept &= figures.most <= PROMISE_PERCENT;
        }
        for (peer, figures) in peers::measure(&bare, *bits, span) {
            match figures {
                Ok(figures) => println!("{}  {peer}, cap in the application", figures.line(*bits, Counting::Sent)),
                Err(error) => println!("{peer} is left out: {error:#}"),
            }
        }
    }
    if !mirrors.is_empty() {
        mirror::measure(&mirrors, &rates, span)?;
    }
    std::fs::remove_dir_all(&dir)?;
    println!("whole packets: 10 s that begin right after one and end right before another hold one packet less, at 8 kbit/s 12 %\n");
    Ok(kept)
}

struct Identities {
    site: Identity,
    server: Identity,
}

impl Identities {
    fn make(dir: &Path) -> Result<Self> {
        let text = dir.display().to_string();
        for args in [vec!["init", "--dir", &text, "--host", "localhost", "127.0.0.1"], vec!["issue", SITE, "--dir", &text]] {
            let Command::Pki(command) = Cli::try_parse_from(["spillway-collector", "pki"].into_iter().chain(args))?.command else {
                bail!("not pki")
            };
            spillway_collector::pki::run(&command, &mut Vec::new())?;
        }
        let load = |name: &str, role| {
            let file = |name: &str| dir.join(name);
            let files = IdentityFiles { ca: file("ca.pem"), cert: file(&format!("{name}.pem")), key: file(&format!("{name}.key")) };
            Identity::load(&files, role, SystemTime::now())
        };
        Ok(Self { site: load(SITE, Role::Site)?, server: load("server", Role::Collector)? })
    }
}

fn measure(identities: &Identities, bits: u64, counting: Counting, span: Duration) -> Result<Figures> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        // A handshake alone takes seconds of the slowest line.
        let patience = Duration::from_secs(120);
        let slow = |settings| LinkSettings { handshake_timeout: patience, idle_timeout: patience, ..settings };
        let server = LinkServer::bind("127.0.0.1:0".parse()?, &identities.server, &slow(LinkSettings::collector()))?;
        let relay = Relay::start(server.local_addr()?)?;
        relay.set_weather(Weather { lost: LOST, ..Weather::default() }, bits);
        tokio::spawn(async move {
            let connection = server.accept().await?.await.ok()?;
            while let Ok(mut stream) = connection.accept_uni().await {
                while let Ok(Some(_)) = stream.read_chunk(64 * 1024, true).await {}
            }
            Some(())
        });
        let cap = RateCap::new(BitRate::new(bits));
        cap.set_counting(counting);
        let settings = LinkSettings {
            mtu_discovery: if bits > SLOW_LINE_BITS { MtuDiscovery::Often } else { MtuDiscovery::Never },
            ..slow(LinkSettings::agent())
        };
        let client = LinkClient::new(&identities.site, &settings, cap)?;
        let connection =
            client.dial_addresses(Way::Udp, vec![relay.address()], "localhost").await.context("no connection through the relay")?;
        let sender = tokio::spawn({
            let connection = connection.clone();
            async move {
                let mut stream = connection.open_uni().await.ok()?;
                while stream.write_all(&[7; 16 * 1024]).await.is_ok() {}
                Some(())
            }
        });
        relay.record();
        tokio::time::sleep(span).await;
        let samples = samples(&relay, counting);
        sender.abort();
        let lost = relay.traffic().lost_packets;
        connection.close(0_u32.into(), b"");
        client.shutdown(spillway_proto::CloseCode::Done, Duration::from_millis(100)).await;
        Ok(figures(&samples, bits, lost))
    })
}

/// What the relay recorded.
fn samples(relay: &Relay, counting: Counting) -> Samples {
    let mut arrivals = relay.arrivals(Direction::Up);
    if counting == Counting::Both {
        arrivals.extend(relay.arrivals(Direction::Down));
    }
    running(arrivals.into_iter().map(|arrival| (arrival.at, arrival.bytes)).collect())
}
