//! How old a record is when a consumer at the centre has it, at a fixed rate.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::contestant::{Contestant, Field, remote};
use super::report::Latency;
use super::workload::{Maker, PARTITIONS, Workload};
use crate::demo::tail::Tail;
use crate::wait::wait_until;

/// Records are written one by one at this rate.
pub const RATE: u32 = 1000;

/// What both are given before anything is measured: connections, and time for the Java machine to compile what is hot.
const WARM_UP: Duration = Duration::from_secs(15);

/// Until the first record, or the last, has arrived.
const ARRIVAL_LIMIT: Duration = Duration::from_secs(120);

/// Writes telemetry of 200 bytes at the fixed rate through one contestant and measures for `duration`.
///
/// # Errors
/// When records do not arrive.
pub fn measure(field: &Field, contestant: Contestant, run: u32, duration: Duration) -> Result<Latency> {
    let Some(workload) = Workload::named("telemetry-200") else { anyhow::bail!("no such workload") };
    let topic = format!("bench-latency-{}", contestant.site(run));
    let remote = remote(contestant, &topic, run);
    field.source.create_topic(&topic, PARTITIONS, &[])?;
    field.centre.create_topic(&remote, PARTITIONS, &[])?;
    let running = contestant.start(field, &topic, run)?;
    let tail = Tail::start(&field.centre, std::slice::from_ref(&remote))?;
    // Sent at once: the source's own waiting is no part of the contest.
    let producer = field.source.clone().with("linger.ms", "0").producer()?;
    let mut maker = Maker::new(workload);
    let started = Instant::now();
    let mut written = 0_u64;
    let mut measuring = false;
    while started.elapsed() < WARM_UP + duration {
        let due = u64::try_from(started.elapsed().as_micros() * u128::from(RATE) / 1_000_000)?;
        while written < due {
            producer.send(&topic, i32::try_from(written % u64::from(PARTITIONS.unsigned_abs()))?, &maker.next_record())?;
            written += 1;
        }
        if !measuring && started.elapsed() >= WARM_UP {
            ensure!(tail.records() > 0, "{} has not begun within {WARM_UP:?}", contestant.name());
            tail.start_measuring();
            measuring = true;
        }
        std::thread::sleep(Duration::from_micros(500));
    }
    producer.flush(ARRIVAL_LIMIT)?;
    wait_until("every record can be read at the centre", ARRIVAL_LIMIT, || Ok(tail.records() >= written))?;
    let (all, _) = tail.latencies(&[])?;
    drop(running);
    Ok(Latency::of(all.p50, all.p99))
}
