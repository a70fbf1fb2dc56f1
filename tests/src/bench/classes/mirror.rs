//! MirrorMaker 2 with a backlog of bulk and a topic of alarms, one after the other on a WAN of the same shape, between the same two Kafkas.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::row::Row;
use super::{Alarms, ClassesOptions, WARM_UP, fill, shape};
use crate::bench::mirror::Mirror;
use crate::bench::thin::{Ends, Field, HEAP_MIB};
use crate::demo::tail::Tail;
use crate::oracle::remote_topic;
use crate::reaper::Reaper;
use crate::telemetry::now_ms;
use crate::wait::poll_until;
use crate::wan::{End, Wan};

/// Where the bulk waits.
const BULK: &str = "bulk";

/// From its start to its first record at the centre, at the most; after that it is measured whatever it has done.
const START_LIMIT: Duration = Duration::from_secs(240);

/// After the last alarm, for those that have not arrived.
const AFTERMATH: Duration = Duration::from_secs(60);

/// Prints a row for each.
///
/// # Errors
/// When the brokers do not come up.
pub fn measure(mirrors: &[Mirror], options: &ClassesOptions) -> Result<()> {
    let wan = Wan::start(7)?;
    let ends = Ends::start(&wan, true)?;
    shape(&wan, options)?;
    wan.inside(End::Edge, || fill(&ends.edge.client(), options, &[(BULK, "", 1)]))?;
    for mirror in mirrors {
        match one(*mirror, &wan, &ends, options) {
            Ok(row) => print!("{}", row.line(mirror.name())),
            Err(error) => {
                println!("  {} is left out: {error:#}", mirror.name());
                println!("  logs and configuration files stay in {}", Reaper::global()?.keep_logs().display());
            }
        }
    }
    Ok(())
}

fn one(mirror: Mirror, wan: &Wan, ends: &Ends, options: &ClassesOptions) -> Result<Row> {
    let (site, topic) = (mirror.site(), format!("alarms-{}", mirror.name()));
    let topics = format!("{BULK}|{topic}");
    let field = Field::new(wan, ends, &topics, PathBuf::new(), HEAP_MIB);
    let mut alarms = wan.inside(End::Edge, || {
        field.source.create_topic(&topic, 1, &[])?;
        Alarms::new(&field.source.clone().with("linger.ms", "0"), &topic)
    })?;
    let tail = |topic: &str| {
        let remote = remote_topic(site, topic);
        wan.inside(End::Centre, || {
            field.centre.create_topic(&remote, 1, &[])?;
            Tail::start(&field.centre, &[remote])
        })
    };
    let (bulk, arriving) = (tail(BULK)?, tail(&topic)?);
    arriving.start_measuring();
    let mut mirroring = mirror.start(&field, site)?;
    let starting = Instant::now();
    let started = poll_until(START_LIMIT, || {
        mirroring.check()?;
        Ok((bulk.records() > 0).then_some(()))
    })?;
    let brings = if started.is_some() { "bulk" } else { "nothing" };
    let (seconds, minutes) = (starting.elapsed().as_secs(), u64::from(options.minutes) + WARM_UP.as_secs().div_ceil(60));
    println!("  {} brings {brings} after {seconds} s; {minutes} min …", mirror.name());
    alarms.run(WARM_UP)?;
    let (first, from_ms, before) = (alarms.sent, now_ms(), wan.counters().to_centre);
    let time = Duration::from_secs(60) * options.minutes;
    alarms.run(time)?;
    let carried = wan.counters().to_centre.since(&before).carried().bytes as f64 * 8.0;
    mirroring.check()?;
    mirroring.is_as_meant(wan)?;
    poll_until(AFTERMATH, || Ok((arriving.records() >= alarms.sent).then_some(())))?;
    let measured = arriving.samples().into_iter().filter(|(created, _)| *created >= from_ms);
    let ages = measured.map(|(_, age)| Duration::from_millis(u64::try_from(age).unwrap_or(0))).collect();
    let written = usize::try_from(alarms.sent - first).context("fewer alarms than before")?;
    Ok(Row::new(written, ages, carried / time.as_secs_f64() / options.line_bits as f64))
}
