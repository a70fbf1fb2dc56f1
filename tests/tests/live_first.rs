//! `order = "live-first"` with the real programs, between embedded brokers, on a slow line: after an outage what is new is at the centre long before what the
//! spill holds, and everything comes once, although the agent is killed in the outage and in the middle of the drain.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use spillway_lab::build;
use spillway_lab::client::{Headers, NewRecord};
use spillway_lab::cluster::EmbeddedCluster;
use spillway_lab::oracle::read::read_records;
use spillway_lab::oracle::syncs::{check_syncs_rise, read_syncs};
use spillway_lab::shapes::seed;
use spillway_lab::spill_dir;
use spillway_lab::stage::{Stage, StageOptions};
use spillway_lab::wait::wait_until;

const LIMIT: Duration = Duration::from_secs(60);

/// The backlog takes a minute of the line.
const DRAIN_LIMIT: Duration = Duration::from_secs(240);

const PARTITIONS: i32 = 2;

const TOPIC: &str = "t";

/// Records of 1,000 bytes that do not compress, of each partition.
const BEFORE: usize = 20;
const BACKLOG: usize = 1000;

/// The line.
const RATE: &str = "256kbit";

struct Bench {
    stage: Stage,
    rng: StdRng,
    _clusters: [EmbeddedCluster; 2],
}

impl Bench {
    fn start(seed: u64) -> Self {
        build::binaries().unwrap();
        let clusters = ["edge", "centre"].map(|name| EmbeddedCluster::start(name).unwrap());
        let (source, centre) = (clusters[0].client(), clusters[1].client());
        source.create_topic(TOPIC, PARTITIONS, &[]).unwrap();
        centre.create_topic("plant-7.t", PARTITIONS, &[]).unwrap();
        let options = StageOptions { site: "plant-7".to_owned(), source, centre, include: vec![".*".to_owned()], collectors: 1 };
        let mut stage = Stage::new(options).unwrap();
        for (key, value) in [
            ("link.rate_max", RATE),
            ("link.idle_timeout", "5s"),
            ("link.keep_alive", "1s"),
            ("spill.after", "2s"),
            ("spill.after_bytes", "4MiB"),
        ] {
            stage.agent.config.set(key, value);
        }
        stage.agent.config.append("[[topics.rule]]\nmatch = 't'\norder = \"live-first\"");
        stage.start().unwrap();
        Self { stage, rng: StdRng::seed_from_u64(seed), _clusters: clusters }
    }

    /// Writes so many records to each partition.
    fn write(&mut self, records: usize) {
        let producer = self.stage.source.producer().unwrap();
        for partition in (0..PARTITIONS).cycle().take(records * PARTITIONS as usize) {
            let mut value = vec![0; 1000];
            self.rng.fill_bytes(&mut value);
            producer
                .send(TOPIC, partition, &NewRecord { key: None, value: Some(value), headers: Headers::default(), timestamp_ms: None })
                .unwrap();
        }
        producer.flush(LIMIT).unwrap();
    }

    /// Writes a record to each partition and waits until all of them are at the centre. Answers how many records of each are there before it.
    fn mark(&mut self, mark: &str) -> Vec<usize> {
        let producer = self.stage.source.producer().unwrap();
        let record = NewRecord { key: None, value: Some(mark.as_bytes().to_vec()), headers: Headers::default(), timestamp_ms: None };
        (0..PARTITIONS).for_each(|partition| producer.send(TOPIC, partition, &record).unwrap());
        producer.flush(LIMIT).unwrap();
        let mut places = Vec::new();
        wait_until(&format!("{mark} is at the centre"), DRAIN_LIMIT, || {
            let logs = read_records(&self.stage.centre, "plant-7.t")?;
            places = logs.iter().filter_map(|log| log.iter().position(|(_, other)| other.value == record.value)).collect();
            Ok(places.len() == PARTITIONS as usize)
        })
        .unwrap();
        places
    }

    /// Everything that was written is committed at the site: at the centre, or durable in the spill.
    fn is_committed(&self) -> bool {
        let committed = self.stage.source.committed(&self.stage.group(), TOPIC, PARTITIONS).unwrap();
        (0..).zip(committed).all(|(partition, committed)| committed == Some(self.stage.source.watermarks(TOPIC, partition).unwrap().1))
    }
}

#[test]
fn what_is_new_is_central_long_before_the_backlog() {
    let seed = seed("live-first");
    let mut bench = Bench::start(seed);
    bench.write(BEFORE);
    wait_until("the first records are at the centre", LIMIT, || Ok(bench.is_committed())).unwrap();

    bench.stage.relay.set_cut(true);
    bench.write(BACKLOG);
    wait_until("the backlog is durable", LIMIT, || Ok(bench.is_committed())).unwrap();
    // What the source may forget from now on, it forgets: all that is left of the backlog is in the spill.
    for partition in 0..PARTITIONS {
        let end = bench.stage.source.watermarks(TOPIC, partition).unwrap().1;
        bench.stage.source.delete_records(TOPIC, partition, end).unwrap();
    }
    assert!(bench.stage.agent.kill(), "the agent was running");
    bench.stage.agent.spawn().unwrap();
    bench.stage.relay.set_cut(false);

    let first = bench.mark("written after the outage");
    let half = BEFORE + BACKLOG / 2;
    assert!(first.iter().all(|place| (BEFORE..half).contains(place)), "in order they would be behind {BACKLOG}, and are behind {first:?}");
    assert!(spill_dir::has_frames(&bench.stage.spill_dir()), "the backlog is still there");

    // In the middle of the drain.
    assert!(bench.stage.agent.kill(), "the agent was running");
    bench.stage.agent.spawn().unwrap();
    let second = bench.mark("written after the kill");
    assert!(second.iter().all(|place| *place < BEFORE + BACKLOG), "nothing of the backlog is left behind {second:?}");

    wait_until("the spill is drained", DRAIN_LIMIT, || Ok(spill_dir::is_empty(&bench.stage.spill_dir()))).unwrap();
    wait_until("the end is committed", LIMIT, || Ok(bench.is_committed())).unwrap();
    let logs = read_records(&bench.stage.centre, "plant-7.t").unwrap();
    for (partition, log) in (0..).zip(&logs) {
        let values: Vec<_> = log.iter().map(|(_, record)| record.value.as_deref().unwrap()).collect();
        let expected = bench.expected(seed, partition);
        let sorted = |mut values: Vec<Vec<u8>>| {
            values.sort_unstable();
            values
        };
        let there: Vec<_> = values.iter().map(|value| value.to_vec()).collect();
        assert!(sorted(there.clone()) == sorted(expected.clone()), "partition {partition}: {} of {} records", there.len(), expected.len());
        // The backlog itself is in order.
        let backlog = &expected[BEFORE..BEFORE + BACKLOG];
        let late: Vec<_> = there.iter().filter(|value| backlog.contains(value)).cloned().collect();
        assert!(late == backlog, "partition {partition}: the backlog is not in order");
    }
    let gaps = read_records(&bench.stage.centre, "spillway-gaps.internal").unwrap();
    assert!(gaps.iter().all(Vec::is_empty), "{gaps:?}");
    assert!(!bench.stage.agent.log_lines("event=\"deferred\"").is_empty(), "nothing was deferred");
    let syncs = read_syncs(&bench.stage.centre, "plant-7").unwrap();
    let late = BEFORE as u64..(BEFORE + BACKLOG) as u64;
    assert!(!syncs.is_empty() && syncs.iter().all(|sync| !late.contains(&sync.upstream.value())), "{syncs:?}");
    check_syncs_rise(&syncs).unwrap();
    assert!(bench.stage.agent.terminate().unwrap().success());
    assert!(bench.stage.collector(0).unwrap().terminate().unwrap().success());
}

impl Bench {
    /// The values of a partition in the order of the source, which has forgotten most of them.
    fn expected(&self, seed: u64, partition: i32) -> Vec<Vec<u8>> {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut values = Vec::new();
        for of in (0..PARTITIONS).cycle().take((BEFORE + BACKLOG) * PARTITIONS as usize) {
            let mut value = vec![0; 1000];
            rng.fill_bytes(&mut value);
            if of == partition {
                values.push(value);
            }
        }
        values.extend(["written after the outage", "written after the kill"].map(|mark| mark.as_bytes().to_vec()));
        values
    }
}
