//! Offset syncs: does `mm2-offset-syncs.<site>.internal` tell the truth?

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use spillway_proto::mm2::OffsetSync;

use super::read::{Reader, read_records};
use super::remote_topic;
use crate::client::Client;

/// The topic at the centre that holds the offset syncs of `site`.
#[must_use]
pub fn syncs_topic(site: &str) -> String {
    format!("mm2-offset-syncs.{site}.internal")
}

/// All committed syncs of a site, in the order written.
///
/// # Errors
/// When the topic is missing or a record is not an offset sync.
pub fn read_syncs(centre: &Client, site: &str) -> Result<Vec<OffsetSync>> {
    let topic = syncs_topic(site);
    let mut syncs = Vec::new();
    for (offset, record) in read_records(centre, &topic)?.concat() {
        let key = record.key.with_context(|| format!("{topic} at {offset}: no key"))?;
        let value = record.value.with_context(|| format!("{topic} at {offset}: no value"))?;
        syncs.push(OffsetSync::decode(&key, &value).with_context(|| format!("{topic} at {offset} is no offset sync"))?);
    }
    Ok(syncs)
}

/// Picks `samples` syncs at random and reads the record on both sides: they must be the same.
///
/// Returns how many were compared. Syncs of source records that are gone (compacted, deleted) are skipped.
///
/// # Errors
/// The first sync that points to another record, or to none at the centre.
pub fn check_syncs(source: &Client, centre: &Client, site: &str, samples: usize, seed: u64) -> Result<usize> {
    compare_syncs(source, centre, site, &read_syncs(centre, site)?, samples, seed)
}

/// Like [`check_syncs`], of syncs that were read already.
///
/// # Errors
/// The first sync that points to another record, or to none at the centre.
pub fn compare_syncs(source: &Client, centre: &Client, site: &str, syncs: &[OffsetSync], samples: usize, seed: u64) -> Result<usize> {
    let (at_source, at_centre) = (Reader::new(source)?, Reader::new(centre)?);
    let mut rng = StdRng::seed_from_u64(seed);
    let mut compared = 0;
    for sync in syncs.choose_multiple(&mut rng, samples) {
        let topic = sync.source.topic.as_str();
        let partition = sync.source.partition.to_kafka();
        let (upstream, downstream) = (sync.upstream.to_kafka(), sync.downstream.to_kafka());
        let central = at_centre
            .one(&remote_topic(site, topic), partition, downstream)?
            .with_context(|| format!("sync {topic}-{partition} {upstream} -> {downstream}: no record at the centre (seed {seed})"))?;
        let Some(original) = at_source.one(topic, partition, upstream)? else { continue };
        ensure!(central == original, "sync {topic}-{partition} {upstream} -> {downstream}: different records (seed {seed})");
        compared += 1;
    }
    Ok(compared)
}

/// Checks per partition that syncs rise on both sides: a consumer group translated by them never jumps back.
///
/// # Errors
/// The first pair that falls.
pub fn check_syncs_rise(syncs: &[OffsetSync]) -> Result<()> {
    let mut last: BTreeMap<(String, i32), (i64, i64)> = BTreeMap::new();
    for sync in syncs {
        let place = (sync.source.topic.to_string(), sync.source.partition.to_kafka());
        let now = (sync.upstream.to_kafka(), sync.downstream.to_kafka());
        if let Some(before) = last.insert(place.clone(), now) {
            ensure!(before.0 <= now.0 && before.1 <= now.1, "syncs of {}-{} fall: {before:?}, then {now:?}", place.0, place.1);
        }
    }
    Ok(())
}
