//! The records of a benchmark.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Result, bail};
use rand::rngs::StdRng;
use rand::{Rng as _, RngCore as _, SeedableRng as _};

use crate::client::{Client, NewRecord};
use crate::telemetry::now_ms;

/// Partitions of every workload's topic.
pub const PARTITIONS: i32 = 8;

/// Until everything is in the source's Kafka.
const FLUSH_LIMIT: Duration = Duration::from_secs(120);

/// Records of a workload are the same in every run.
const SEED: u64 = 11;

/// Devices that send telemetry; the key of a record is its device.
const DEVICES: usize = 64;

/// What values look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// JSON as sensors send it: the same names again and again, numbers that wander.
    Telemetry,
    /// Bytes without any pattern: compressed or encrypted payloads.
    Random,
}

/// One kind of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Workload {
    /// What it is called on the command line and in the report.
    pub name: &'static str,
    /// What values look like.
    pub content: Content,
    /// Bytes of a value, at most; random ones have exactly so many.
    pub value_bytes: usize,
    /// Records of a run, unless the command line says otherwise: some ten seconds of work.
    pub records: u64,
}

/// All workloads, in the order of the report.
pub const WORKLOADS: [Workload; 4] = [
    Workload { name: "telemetry-1k", content: Content::Telemetry, value_bytes: 1024, records: 600_000 },
    Workload { name: "telemetry-200", content: Content::Telemetry, value_bytes: 200, records: 2_000_000 },
    Workload { name: "random-1k", content: Content::Random, value_bytes: 1024, records: 600_000 },
    Workload { name: "random-200", content: Content::Random, value_bytes: 200, records: 2_000_000 },
];

impl Workload {
    /// The workload called `name`.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        WORKLOADS.into_iter().find(|workload| workload.name == name)
    }

    /// Its topic at the source.
    #[must_use]
    pub fn topic(&self) -> String {
        format!("bench-{}", self.name)
    }

    /// Writes `count` records to the source, in turn to each partition. Answers their bytes (keys and values).
    ///
    /// # Errors
    /// When the source does not take them.
    pub fn produce(&self, source: &Client, count: u64) -> Result<u64> {
        let producer = source.clone().with("linger.ms", "20").with("queue.buffering.max.messages", "500000").producer()?;
        let (topic, mut maker) = (self.topic(), Maker::new(*self));
        let mut bytes = 0;
        for number in 0..count {
            let record = maker.next_record();
            bytes += record.key.as_ref().map_or(0, Vec::len) + record.value.as_ref().map_or(0, Vec::len);
            producer.send(&topic, i32::try_from(number % u64::from(PARTITIONS.unsigned_abs()))?, &record)?;
        }
        producer.flush(FLUSH_LIMIT)?;
        Ok(u64::try_from(bytes)?)
    }
}

/// Makes the records of a workload.
#[derive(Debug)]
pub struct Maker {
    workload: Workload,
    rng: StdRng,
    sequence: u64,
    /// The last reading of each device: real values wander.
    readings: Vec<f64>,
}

impl Maker {
    /// The records of `workload` from its first one on.
    #[must_use]
    pub fn new(workload: Workload) -> Self {
        let mut rng = StdRng::seed_from_u64(SEED);
        let readings = (0..DEVICES).map(|_| rng.random_range(18.0..75.0)).collect();
        Self { workload, rng, sequence: 0, readings }
    }

    /// The next record; its time is now.
    pub fn next_record(&mut self) -> NewRecord {
        self.sequence += 1;
        let device = self.rng.random_range(0..DEVICES);
        let value = match self.workload.content {
            Content::Random => {
                let mut bytes = vec![0; self.workload.value_bytes];
                self.rng.fill_bytes(&mut bytes);
                bytes
            }
            Content::Telemetry => self.reading(device).into_bytes(),
        };
        NewRecord {
            key: Some(format!("press-{device:02}").into_bytes()),
            value: Some(value),
            headers: Vec::new(),
            timestamp_ms: Some(now_ms()),
        }
    }

    /// One JSON object: who, when, and as many channels as fit.
    fn reading(&mut self, device: usize) -> String {
        const CHANNELS: [&str; 6] =
            ["bearing_temperature", "oil_pressure", "vibration_rms", "motor_current", "spindle_speed", "coolant_flow"];
        const END: &str = "]}";
        let mut text = String::with_capacity(self.workload.value_bytes);
        let start = format_args!(
            r#"{{"ts":{},"seq":{},"site":"plant-7","line":"line-{}","device":"press-{device:02}","channels":["#,
            now_ms(),
            self.sequence,
            device % 4
        )
        .to_string();
        text.push_str(&start);
        for number in 0.. {
            let name = CHANNELS.get(number % CHANNELS.len()).copied().unwrap_or_default();
            let step = self.rng.random_range(-0.4..0.4);
            let value = self.readings.get_mut(device).map_or(20.0, |reading| {
                *reading = (*reading + step).clamp(5.0, 95.0);
                *reading
            });
            let before = text.len();
            let comma = if number > 0 { "," } else { "" };
            // Writing to a string cannot fail.
            let _written = write!(text, r#"{comma}{{"name":"{name}","value":{value:.2},"quality":"good"}}"#);
            if text.len() + END.len() > self.workload.value_bytes {
                text.truncate(before);
                break;
            }
        }
        text.push_str(END);
        text
    }
}

/// Refuses a size that no workload has.
///
/// # Errors
/// With the names that there are.
pub fn parse_name(name: &str) -> Result<Workload> {
    match Workload::named(name) {
        Some(workload) => Ok(workload),
        None => bail!("no workload {name:?}; there are {}", WORKLOADS.map(|workload| workload.name).join(", ")),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn values_have_their_size_and_telemetry_is_json() {
        for workload in WORKLOADS {
            let mut maker = Maker::new(workload);
            for _ in 0..200 {
                let value = maker.next_record().value.unwrap();
                match workload.content {
                    Content::Random => assert_eq!(value.len(), workload.value_bytes),
                    Content::Telemetry => {
                        assert!(value.len() <= workload.value_bytes && value.len() + 80 > workload.value_bytes, "{}", value.len());
                        let json: serde_json::Value = serde_json::from_slice(&value).unwrap();
                        assert!(!json["channels"].as_array().unwrap().is_empty());
                    }
                }
            }
        }
    }

    #[test]
    fn a_workload_is_found_by_its_name_only() {
        assert_eq!(parse_name("random-1k").unwrap(), WORKLOADS[2]);
        assert!(parse_name("random").is_err());
    }
}
