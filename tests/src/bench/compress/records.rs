//! The telemetry of a plant: small JSON records of many shapes, as the controllers, meters and gates of many makers send them.

use std::time::Duration;

use anyhow::Result;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::client::{Client, NewRecord};
use crate::telemetry::now_ms;

/// One topic of the plant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlantTopic {
    /// Its name at the edge.
    pub name: &'static str,
    /// How many partitions it has.
    pub partitions: i32,
}

/// Every topic; both contestants choose them by [`PATTERN`].
pub const TOPICS: [PlantTopic; 4] = [
    PlantTopic { name: "plant.sensors", partitions: 4 },
    PlantTopic { name: "plant.machines", partitions: 4 },
    PlantTopic { name: "plant.energy", partitions: 2 },
    PlantTopic { name: "plant.events", partitions: 1 },
];

/// Matches exactly [`TOPICS`].
pub const PATTERN: &str = "plant[.].*";

/// Records are the same in every run but for their times.
const SEED: u64 = 23;

/// Between two records of the backlog. 300,000 took fifty minutes to come about.
const SPACING_MS: i64 = 10;

/// Devices of each kind.
const DEVICES: usize = 40;

/// Kinds of records.
const SHAPES: u32 = 12;

/// Until everything is in the edge's Kafka.
const FLUSH_LIMIT: Duration = Duration::from_secs(120);

/// What waits at the edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backlog {
    /// Of keys and values.
    pub bytes: u64,
}

impl Backlog {
    /// Creates the topics and writes `count` records to them, uncompressed.
    ///
    /// # Errors
    /// When the source does not take them.
    pub fn produce(source: &Client, count: u64) -> Result<Self> {
        for topic in TOPICS {
            source.create_topic(topic.name, topic.partitions, &[])?;
        }
        let producer = source.clone().with("linger.ms", "20").with("queue.buffering.max.messages", "500000").producer()?;
        let first_ms = now_ms() - SPACING_MS * i64::try_from(count)?;
        let mut bytes = 0;
        for (topic, partition, record) in Plant::new(first_ms).take(usize::try_from(count)?) {
            bytes += record.key.as_ref().map_or(0, Vec::len) + record.value.as_ref().map_or(0, Vec::len);
            producer.send(topic.name, partition, &record)?;
        }
        producer.flush(FLUSH_LIMIT)?;
        Ok(Self { bytes: u64::try_from(bytes)? })
    }
}

/// Makes records without end; no two have the same time.
#[derive(Debug)]
pub struct Plant {
    rng: StdRng,
    next_ms: i64,
    cycles: u64,
    /// Real values wander.
    levels: Vec<f64>,
}

impl Plant {
    /// From the record of the time `first_ms` on, in milliseconds since 1970.
    #[must_use]
    pub fn new(first_ms: i64) -> Self {
        let mut rng = StdRng::seed_from_u64(SEED);
        let levels = (0..DEVICES).map(|_| rng.random_range(15.0..80.0)).collect();
        Self { rng, next_ms: first_ms, cycles: 18_000, levels }
    }

    fn level(&mut self, device: usize) -> f64 {
        let step = self.rng.random_range(-0.5..0.5);
        self.levels.get_mut(device).map_or(20.0, |level| {
            *level = (*level + step).clamp(5.0, 95.0);
            *level
        })
    }

    /// Topic, key and value of one shape.
    fn shape(&mut self, shape: u32, device: usize, ts: i64) -> (PlantTopic, String, String) {
        let [sensors, machines, energy, events] = TOPICS;
        let level = self.level(device);
        self.cycles += 1;
        let (cycle, line) = (self.cycles, device % 4);
        let rng = &mut self.rng;
        let press = format!("press-{device:02}");
        let mut around = |middle: f64, by: f64| middle + rng.random_range(-by..by);
        match shape {
            0 => (sensors, press.clone(), format!(r#"{{"ts":{ts},"dev":"{press}","temp_c":{level:.2},"q":"good"}}"#)),
            1 => {
                let (bar, flow) = (around(6.0, 0.5), around(12.0, 2.0));
                (
                    sensors,
                    press.clone(),
                    format!(r#"{{"ts":{ts},"dev":"{press}","bar":{bar:.3},"flow_lpm":{flow:.1},"line":"line-{line}"}}"#),
                )
            }
            2 => {
                let (x, y, z) = (around(0.8, 0.5), around(0.7, 0.5), around(1.1, 0.5));
                (sensors, format!("vib{device}"), format!(r#"{{"t":{ts},"id":{device},"rms":[{x:.3},{y:.3},{z:.3}],"unit":"mm/s"}}"#))
            }
            3 => {
                let state = ["running", "idle", "setup", "blocked"].get(device % 4).copied().unwrap_or_default();
                (machines, press.clone(), format!(r#"{{"machine":"{press}","state":"{state}","since":{ts},"shift":2}}"#))
            }
            4 => {
                let (millis, parts) = (rng.random_range(3800..5200), rng.random_range(1..5));
                (
                    machines,
                    press,
                    format!(r#"{{"m":{device},"ts":{ts},"cycle":{cycle},"ms":{millis},"parts":{parts},"ok":true,"line":"line-{line}"}}"#),
                )
            }
            5 => {
                let (power, energy_total) = (around(12.0, 4.0), 91_000.0 + cycle as f64 / 37.0);
                (
                    energy,
                    format!("em-{device:02}"),
                    format!(r#"{{"meter":"em-{device:02}","kw":{power:.2},"kwh":{energy_total:.1},"pf":0.97,"line":"line-{line}"}}"#),
                )
            }
            6 => {
                let (u1, u2, u3) = (around(230.0, 2.0), around(230.0, 2.0), around(230.0, 2.0));
                let value = format!(r#"{{"meter":"em-{device:02}","ts":{ts},"u":[{u1:.1},{u2:.1},{u3:.1}]}}"#);
                (energy, format!("em-{device:02}"), value)
            }
            7 => {
                let code = rng.random_range(4000..4020);
                (events, press.clone(), format!(r#"{{"sev":"warning","code":{code},"dev":"{press}","msg":"pressure above limit"}}"#))
            }
            8 => {
                let tag = rng.random::<u32>();
                (
                    events,
                    "gate".to_owned(),
                    format!(r#"{{"rfid":"e2801160{tag:08x}","gate":{},"at":{ts},"dir":"out","read":"ok"}}"#, device % 6),
                )
            }
            9 => {
                let weight = around(12.5, 0.3);
                (
                    machines,
                    "scale".to_owned(),
                    format!(r#"{{"scale":{},"kg":{weight:.3},"stable":true,"lot":"L-{}","ts":{ts}}}"#, device % 5, cycle / 500),
                )
            }
            10 => {
                let (x, y) = (around(40.0, 40.0), around(60.0, 60.0));
                let value = format!(r#"{{"agv":{},"pos":[{x:.2},{y:.2}],"bat":{level:.0},"load":{},"ts":{ts}}}"#, device % 8, device % 2);
                (machines, format!("agv-{}", device % 8), value)
            }
            _ => {
                let (cpu, up) = (around(20.0, 10.0), ts / 1000 - 1_700_000_000);
                (
                    sensors,
                    "gw".to_owned(),
                    format!(r#"{{"gw":"gw-{}","up_s":{up},"cpu":{cpu:.1},"mem":{:.0},"disk":71,"link":"lte"}}"#, device % 4, level),
                )
            }
        }
    }
}

impl Iterator for Plant {
    type Item = (PlantTopic, i32, NewRecord);

    fn next(&mut self) -> Option<Self::Item> {
        let (shape, device, ts) = (self.rng.random_range(0..SHAPES), self.rng.random_range(0..DEVICES), self.next_ms);
        self.next_ms += SPACING_MS;
        let (topic, key, value) = self.shape(shape, device, ts);
        let partition = i32::try_from(device).unwrap_or(0) % topic.partitions;
        let record =
            NewRecord { key: Some(key.into_bytes()), value: Some(value.into_bytes()), headers: Vec::new(), timestamp_ms: Some(ts) };
        Some((topic, partition, record))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    #[test]
    fn records_are_small_json_of_many_shapes_each_with_its_own_time() {
        let mut shapes: BTreeMap<String, u32> = BTreeMap::new();
        let (mut places, mut bytes) = (BTreeSet::new(), 0);
        for (topic, partition, record) in Plant::new(1_790_000_000_000).take(12_000) {
            assert!((0..topic.partitions).contains(&partition));
            assert!(places.insert((topic.name, partition, record.timestamp_ms)));
            let value: serde_json::Value = serde_json::from_slice(record.value.as_ref().unwrap()).unwrap();
            let names: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
            *shapes.entry(names.join(" ")).or_default() += 1;
            bytes += record.key.unwrap().len() + record.value.unwrap().len();
        }
        assert_eq!(shapes.len(), 12, "{shapes:?}");
        assert!(shapes.values().all(|count| *count > 800), "{shapes:?}");
        // 300,000 of them are some 23 MB.
        assert!((74..79).contains(&(bytes / 12_000)), "{}", bytes / 12_000);
    }
}
