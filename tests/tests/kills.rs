//! `kill -9` of the real agent over and over, on real files, with the line up and down; the source forgets at once what was committed there, so
//! that whatever the spill lost would be lost. `AGENT_KILLS=300` makes it long.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use spillway_lab::bench::retention::flow::{PARTITIONS, Reader, Writer};
use spillway_lab::build;
use spillway_lab::cluster::EmbeddedCluster;
use spillway_lab::shapes::seed;
use spillway_lab::spill_dir;
use spillway_lab::stage::{Stage, StageOptions};
use spillway_lab::wait::wait_until;

const TOPIC: &str = "kills";

/// How often, unless the environment says otherwise.
const KILLS: u32 = 12;

/// The line is cut or restored after so many.
const KILLS_A_TURN: u32 = 6;

/// Every third life lasts until the agent has committed something that the source still holds.
const LIVES_A_COMMIT: u32 = 3;

const COMMIT_LIMIT: Duration = Duration::from_secs(60);

/// The other lives: the agent needs a tenth of this to be at work again.
const LIFE_MS: std::ops::Range<u64> = 200..1200;

const BYTES_PER_SECOND: u64 = 500_000;

/// Until everything is at the centre.
const DRAIN_LIMIT: Duration = Duration::from_secs(120);

#[test]
fn an_agent_that_is_killed_over_and_over_loses_nothing_that_the_source_forgot() {
    build::binaries().unwrap();
    let kills = std::env::var("AGENT_KILLS").map_or(KILLS, |text| text.parse().unwrap());
    let mut rng = StdRng::seed_from_u64(seed("kills"));
    let (edge, central) = (EmbeddedCluster::start("edge").unwrap(), EmbeddedCluster::start("centre").unwrap());
    let (source, centre) = (edge.client(), central.client());
    source.create_topic(TOPIC, PARTITIONS, &[]).unwrap();
    centre.create_topic(&format!("plant-7.{TOPIC}"), PARTITIONS, &[]).unwrap();
    let reader = Reader::start(&centre, &format!("plant-7.{TOPIC}")).unwrap();
    let mut stage =
        Stage::new(StageOptions { site: "plant-7".to_owned(), source, centre, include: vec![TOPIC.to_owned()], collectors: 1 }).unwrap();
    // A dead connection has to be noticed soon, and the spill to be used, between two kills.
    for (key, value) in [("link.idle_timeout", "5s"), ("link.keep_alive", "1s"), ("spill.after", "100ms"), ("kafka.commit_interval", "1s")]
    {
        stage.agent.config.set(key, value);
    }
    stage.start().unwrap();
    let mut writer = Writer::start(&stage.source, TOPIC, BYTES_PER_SECOND).unwrap();
    let spill = stage.spill_dir();
    wait_until("the first commit", COMMIT_LIMIT, || Ok(has_committed(&stage))).unwrap();
    let (mut spilled, mut forgotten) = (0, 0);
    for kill in 0..kills {
        stage.relay.set_cut((kill / KILLS_A_TURN).is_multiple_of(2));
        std::thread::sleep(Duration::from_millis(rng.random_range(LIFE_MS)));
        if kill % LIVES_A_COMMIT == LIVES_A_COMMIT - 1 {
            wait_until("the agent commits", COMMIT_LIMIT, || Ok(!committed(&stage).is_empty())).unwrap();
        }
        spilled += u32::from(spill_dir::has_frames(&spill));
        assert!(stage.agent.kill(), "the agent was not running");
        forgotten += forget_committed(&stage);
        stage.agent.spawn().unwrap();
    }
    stage.relay.set_cut(false);
    let written = writer.stop().unwrap();
    wait_until("the last records arrive", DRAIN_LIMIT, || Ok(reader.ledger().has_last(&written))).unwrap();
    wait_until("the spill is drained", DRAIN_LIMIT, || Ok(spill_dir::is_empty(&spill))).unwrap();
    let verdict = reader.ledger().verdict(&written);
    println!(
        "{kills} times killed, {spilled} times with frames in the spill; {} records, {forgotten} forgotten by the source between kills",
        written.iter().sum::<u64>()
    );
    assert!(verdict.is_exact(), "{verdict:?}");
    assert!(spilled >= kills / 6, "the spill held frames only {spilled} times");
    assert!(forgotten > 0, "the source forgot nothing");
}

/// Whether something of every partition is committed: the agent reads on after a start in an outage, and commits, where it can tell what the centre has.
fn has_committed(stage: &Stage) -> bool {
    stage.source.committed(&stage.group(), TOPIC, PARTITIONS).unwrap().iter().all(Option::is_some)
}

/// What the local group has committed and the source still holds: of each partition the first such record, and where the next one is to be read.
fn committed(stage: &Stage) -> Vec<(i32, i64, i64)> {
    let committed = stage.source.committed(&stage.group(), TOPIC, PARTITIONS).unwrap();
    (0..)
        .zip(committed)
        .filter_map(|(partition, committed)| {
            let (low, _) = stage.source.watermarks(TOPIC, partition).unwrap();
            committed.filter(|committed| *committed > low).map(|committed| (partition, low, committed))
        })
        .collect()
}

/// The source forgets them. Answers how many.
fn forget_committed(stage: &Stage) -> i64 {
    let committed = committed(stage);
    for (partition, _, next) in &committed {
        stage.source.delete_records(TOPIC, *partition, *next).unwrap();
    }
    committed.into_iter().map(|(_, low, next)| next - low).sum()
}
