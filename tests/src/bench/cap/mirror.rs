//! MirrorMaker 2, which has no cap of its own. What its users do is give it a quota at the Kafka that it writes to (`producer_byte_rate`, with Kafka's own
//! `kafka-configs`): that broker answers late when more has come than the quota allows, and the client waits as long.
//!
//! The quota is for every user, since it is then one for all connections of MirrorMaker 2 together; one for client ids would be a quota for each. One after the
//! other on a WAN that loses as much as the relay does, without delay, which suits a quota best.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use spillway_link::Counting;

use super::LOST;
use super::sampler::{Figures, Sampler, figures};
use crate::bench::backlog::{self, TOPIC};
use crate::bench::mirror::Mirror;
use crate::bench::thin::{Ends, Field, HEAP_MIB};
use crate::reaper::Reaper;
use crate::wan::{End, Wan};

/// Kafka's own tool.
const CONFIGS: &str = "kafka.admin.ConfigCommand";

/// The backlog holds so much more than is measured, for what a quota lets through at first.
const AHEAD: Duration = Duration::from_secs(30);

/// What one takes until its first record on such a line, about: for telling how long all take.
pub const START_SECONDS: u64 = 15;

/// Each at each rate, in a row.
///
/// # Errors
/// When the brokers do not come up, or take no quota.
pub fn measure(mirrors: &[Mirror], rates: &[u64], span: Duration) -> Result<()> {
    let most = rates.iter().copied().max().unwrap_or_default();
    let wan = Arc::new(Wan::start(most)?);
    wan.tell(&format!("loss {}%", f64::from(LOST) / 10.0))?;
    let ends = Ends::start(&wan, true)?;
    let field = Field::new(&wan, &ends, TOPIC, PathBuf::new(), HEAP_MIB);
    backlog::fill(&field, most / 8 * (span + AHEAD).as_secs())?;
    for bits in rates {
        set_quota(&field, bits / 8)?;
        for mirror in mirrors {
            match one(&wan, &field, *mirror, *bits, span) {
                Ok(rows) => {
                    for (since, figures) in rows {
                        println!(
                            "{}  {}, quota of the central Kafka, since its {since}",
                            figures.line(*bits, Counting::Sent),
                            mirror.name()
                        );
                    }
                }
                Err(error) => {
                    println!("{} is left out: {error:#}", mirror.name());
                    println!("logs and configuration files stay in {}", Reaper::global()?.keep_logs().display());
                }
            }
        }
    }
    Ok(())
}

/// From its start on, and from its first record at the centre on: what it connects with, and what it sends before the quota bites, is sent all the same.
fn one(wan: &Arc<Wan>, field: &Field<'_>, mirror: Mirror, bits: u64, span: Duration) -> Result<[(&'static str, Figures); 2]> {
    let counted = Arc::clone(wan);
    let lost = || wan.counters().to_centre.lost.packets;
    let before = lost();
    let sampler = Sampler::start(move || counted.counters().to_centre.offered.bytes);
    let bringing = backlog::bring(field, mirror, &format!("{}-{bits}", mirror.site()))?;
    let (first, lost_first) = (sampler.elapsed(), lost());
    std::thread::sleep(span);
    let samples = sampler.stop()?;
    bringing.is_as_meant(field)?;
    let since_first = samples.get(samples.partition_point(|(at, _)| *at < first)..).unwrap_or_default();
    Ok([("start", figures(&samples, bits, lost() - before)), ("first record", figures(since_first, bits, lost() - lost_first))])
}

fn set_quota(field: &Field<'_>, bytes_per_second: u64) -> Result<()> {
    let quota = format!("producer_byte_rate={bytes_per_second}");
    let central = field.ends.kafka()?;
    let everybody = ["--entity-type", "users", "--entity-default"];
    let configs = |args: &[&str]| field.wan.inside(End::Centre, || central.run_tool(CONFIGS, &[args, &everybody].concat()));
    configs(&["--alter", "--add-config", &quota])?;
    let told = configs(&["--describe"])?;
    ensure!(told.contains(&quota), "the central Kafka has taken no quota: {told}");
    Ok(())
}
