//! `lab bench cap`: how closely the cap on wire bytes is kept, and a month of a budget.
//!
//! A real link client sends without a pause to a real link server through the relay, which loses 2 % of the packets of both directions and counts all that
//! arrive at it. Its counters are read every millisecond or two; the figures are the most and the least that any 10 s carried. [`peers`] have their cap in the
//! application.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, anyhow, bail};
use clap::{Args, Parser as _};
use spillway_collector::cli::{Cli, Command};
use spillway_link::{
    BitRate, Counting, Identity, IdentityFiles, LinkClient, LinkServer, LinkSettings, MtuDiscovery, RateCap, Role, SLOW_LINE_BITS, Way,
};

use crate::reaper::scratch_dir;
use crate::relay::Relay;
use crate::relay::weather::Weather;
use crate::wan::namespace::problem;

pub mod month;
pub mod peers;

/// What `lab bench cap` is asked for.
#[derive(Debug, Clone, Args)]
pub struct CapOptions {
    /// Seconds at each rate, beyond the handshake
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u64).range(21..=3600))]
    pub seconds: u64,
    /// Only this rate, in bits per second [default: 8000, 64000, 1000000, 10000000]
    #[arg(long, value_name = "BITS", value_parser = clap::value_parser!(u64).range(1_000..=1_000_000_000))]
    pub rate: Option<u64>,
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

/// The span that a cap is about.
const SPAN: Duration = Duration::from_secs(10);

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
        let dir = scratch_dir("cap")?;
        let identities = Identities::make(&dir)?;
        let no_wan = problem();
        println!("rate          counts  most in 10 s  least in 10 s  used   packets lost");
        for bits in options.rate.map_or_else(|| RATES.to_vec(), |rate| vec![rate]) {
            let span = Duration::from_secs(options.seconds);
            for counting in [Counting::Sent, Counting::Both] {
                let figures = measure(&identities, bits, counting, span)?;
                println!("{}", figures.line(bits, counting));
                kept &= figures.most <= PROMISE_PERCENT;
            }
            let others = if no_wan.is_none() { peers::measure(bits, span) } else { Vec::new() };
            for (peer, figures) in others {
                match figures {
                    Ok(figures) => println!("{}  {peer}, cap in the application", figures.line(bits, Counting::Sent)),
                    Err(error) => println!("{peer} is left out: {error:#}"),
                }
            }
        }
        if let Some(problem) = no_wan {
            println!("TCP and stock quinn are left out, since a WAN needs: {problem}");
        }
        std::fs::remove_dir_all(&dir)?;
        println!("whole packets: 10 s that begin right after one and end right before another hold one packet less, at 8 kbit/s 12 %\n");
    }
    Ok(month::run(seed)? && kept)
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

/// In percent of what the rate allows, less 100; and the share of the line that was used.
#[derive(Debug, Clone, Copy)]
pub struct Figures {
    most: f64,
    least: f64,
    used: f64,
    lost: u64,
}

impl Figures {
    fn line(&self, bits: u64, counting: Counting) -> String {
        let counts = if counting == Counting::Both { "both" } else { "sent" };
        let Self { most, least, used, lost } = self;
        format!("{bits:>8} bit/s  {counts}    {most:>+8.2} %    {least:>+8.2} %    {used:>5.1} %  {lost:>6}")
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
        let relay = Arc::new(relay);
        let counted = Arc::clone(&relay);
        let sampler = Sampler::start(move || {
            let traffic = counted.traffic();
            traffic.up_bytes + if counting == Counting::Both { traffic.down_bytes } else { 0 }
        });
        tokio::time::sleep(span).await;
        let samples = sampler.stop()?;
        sender.abort();
        let lost = relay.traffic().lost_packets;
        connection.close(0_u32.into(), b"");
        client.shutdown(spillway_proto::CloseCode::Done, Duration::from_millis(100)).await;
        Ok(figures(&samples, bits, lost))
    })
}

/// Bytes so far, and when.
type Samples = Vec<(Instant, u64)>;

struct Sampler {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Samples>,
}

impl Sampler {
    /// `count` answers the bytes so far.
    fn start(count: impl Fn() -> u64 + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut samples: Samples = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                let bytes = count();
                let now = Instant::now();
                if samples.last().is_none_or(|(_, last)| *last != bytes) {
                    samples.push((now, bytes));
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            samples
        });
        Self { stop, thread }
    }

    fn stop(self) -> Result<Samples> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow!("the sampler has panicked"))
    }
}

/// The most: from a sample on, its own packets included, up to the last one before 10 s have passed. The least: after a sample, its own packets not included, as
/// far; not in the first 10 s, in which what the handshake received is paid for.
fn figures(samples: &Samples, bits: u64, lost: u64) -> Figures {
    let allowed = bits as f64 / 8.0 * SPAN.as_secs_f64();
    let (mut most, mut least) = (0, u64::MAX);
    let mut after = 0;
    for (index, (from, before)) in samples.iter().enumerate() {
        while after < samples.len() && samples[after].0 < *from + SPAN {
            after += 1;
        }
        let until = samples[after.max(1) - 1].1;
        most = most.max(until - index.checked_sub(1).map_or(*before, |last| samples[last].1));
        if after < samples.len() && samples.first().is_some_and(|(begun, _)| *from >= *begun + SPAN) {
            least = least.min(until - before);
        }
    }
    let (first, last) = (samples.first(), samples.last());
    let used = first.zip(last).map_or(0.0, |(first, last)| {
        (last.1 - first.1) as f64 * 8.0 / bits as f64 / (last.0 - first.0).as_secs_f64().max(f64::EPSILON) * 100.0
    });
    let percent = |bytes: u64| (bytes as f64 / allowed - 1.0) * 100.0;
    Figures { most: percent(most), least: percent(least), used, lost }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_ten_seconds_are_found() {
        let begin = Instant::now();
        // 1,000 bytes a second, and a burst of 500 at 15 s.
        let bytes = |second: u64| 1000 * second + if second >= 15 { 500 } else { 0 };
        let samples: Samples = (0..40).map(|second| (begin + Duration::from_secs(second), bytes(second))).collect();
        let Figures { most, least, .. } = figures(&samples, 8_000, 0);
        // Ten of the packets; nine lie between two that are 10 s apart.
        assert!((most - 5.0).abs() < 1e-9 && (least + 10.0).abs() < 1e-9, "{most} {least}");
    }
}
