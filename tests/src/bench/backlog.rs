//! A backlog of records of random bytes, for a MirrorMaker 2 to bring without a pause.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rand::RngCore as _;

use super::mirror::{Mirror, Mirroring};
use super::thin::Field;
use crate::client::NewRecord;
use crate::demo::tail::Tail;
use crate::oracle::remote_topic;
use crate::wait::wait_until;
use crate::wan::End;

/// Where it waits at the edge, in one partition.
pub const TOPIC: &str = "backlog";

/// Of a record's value. They do not compress.
pub const RECORD_BYTES: u32 = 1000;

/// Of values in it; a disk has to hold the backlog once, and what is brought of it again for each MirrorMaker 2.
const BYTES_MAX: u64 = 1_000_000_000;

/// From the start to the first record at the centre: most of a minute on a long line, more on a thin one.
const FIRST_LIMIT: Duration = Duration::from_secs(300);

/// Until the edge's Kafka has taken everything.
const FLUSH_LIMIT: Duration = Duration::from_secs(120);

/// Writes at least so many bytes of values to [`TOPIC`].
///
/// # Errors
/// When they are more than a GB, or the edge's Kafka does not take them.
pub fn fill(field: &Field<'_>, bytes: u64) -> Result<()> {
    let megabytes = |bytes: u64| bytes / 1_000_000;
    ensure!(
        bytes <= BYTES_MAX,
        "a backlog of {} MB for MirrorMaker 2 is more than {} MB: measure fewer seconds, or a lower rate",
        megabytes(bytes),
        megabytes(BYTES_MAX)
    );
    field.wan.inside(End::Edge, || {
        field.source.create_topic(TOPIC, 1, &[])?;
        let producer = field.source.producer()?;
        for _ in 0..bytes.div_ceil(RECORD_BYTES.into()) {
            let mut value = vec![0; usize::try_from(RECORD_BYTES)?];
            rand::rng().fill_bytes(&mut value);
            producer.send(TOPIC, 0, &NewRecord { value: Some(value), ..NewRecord::default() })?;
        }
        producer.flush(FLUSH_LIMIT)
    })
}

/// A MirrorMaker 2 that has begun to bring it. Dropping it kills it.
#[derive(Debug)]
pub struct Bringing {
    mirroring: Mirroring,
    tail: Tail,
}

/// Starts one as `alias`, which no other has, and waits for its first record at the centre.
///
/// # Errors
/// When it does not start, or none arrives.
pub fn bring(field: &Field<'_>, mirror: Mirror, alias: &str) -> Result<Bringing> {
    let remote = remote_topic(alias, TOPIC);
    let tail = field.wan.inside(End::Centre, || {
        field.centre.create_topic(&remote, 1, &[])?;
        Tail::start(&field.centre, &[remote])
    })?;
    let started = Instant::now();
    let mut mirroring = mirror.start(field, alias)?;
    wait_until("the first record is at the centre", FIRST_LIMIT, || {
        mirroring.check()?;
        Ok(tail.records() > 0)
    })
    .with_context(|| format!("{} brings nothing", mirror.name()))?;
    println!("  {} brings its first record after {:.0} s", mirror.name(), started.elapsed().as_secs_f64());
    Ok(Bringing { mirroring, tail })
}

impl Bringing {
    /// Bytes of values that a `read_committed` reader at the centre has.
    #[must_use]
    pub fn payload_bytes(&self) -> u64 {
        self.tail.records() * u64::from(RECORD_BYTES)
    }

    /// Whether it still runs as it is meant to.
    ///
    /// # Errors
    /// When it does not, or has brought nothing.
    pub fn is_as_meant(&self, field: &Field<'_>) -> Result<()> {
        ensure!(self.tail.records() > 0, "it has brought nothing");
        self.mirroring.is_as_meant(field.wan)
    }
}
