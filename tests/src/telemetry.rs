//! What a small factory's sensors say: JSON records as real ones look, on several topics.

use std::time::{SystemTime, UNIX_EPOCH};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::json;

use crate::client::NewRecord;

/// A topic of the factory.
#[derive(Debug, Clone, Copy)]
pub struct TelemetryTopic {
    /// Its name.
    pub name: &'static str,
    /// Its partitions.
    pub partitions: i32,
    /// Its share of all records, in percent.
    share: u32,
}

/// The topics, 13 partitions together.
pub const TOPICS: [TelemetryTopic; 4] = [
    TelemetryTopic { name: "sensors.temperature", partitions: 6, share: 60 },
    TelemetryTopic { name: "sensors.vibration", partitions: 4, share: 30 },
    TelemetryTopic { name: "machine.events", partitions: 2, share: 8 },
    TelemetryTopic { name: "alarms", partitions: 1, share: 2 },
];

/// Devices of the factory; a device's records stay in one partition.
const DEVICES: u32 = 48;

/// Makes records without end.
#[derive(Debug)]
pub struct Telemetry {
    rng: StdRng,
    sequence: u64,
    /// The last temperature of each device: real values wander.
    degrees: Vec<f64>,
}

impl Telemetry {
    /// The same seed gives the same records but for their times.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let degrees = (0..DEVICES).map(|_| rng.random_range(18.0..75.0)).collect();
        Self { rng, sequence: 0, degrees }
    }

    /// The next record, with the topic and partition it belongs to.
    pub fn next_record(&mut self) -> (&'static str, i32, NewRecord) {
        let topic = self.pick_topic();
        let device = self.rng.random_range(0..DEVICES);
        let partition = i32::try_from(device).unwrap_or(0) % topic.partitions;
        self.sequence += 1;
        let now_ms = now_ms();
        let value = self.reading(topic.name, device, now_ms);
        let record = NewRecord {
            key: Some(format!("press-{device:02}").into_bytes()),
            value: Some(value.to_string().into_bytes()),
            headers: vec![
                ("schema".to_owned(), Some(format!("{}/v1", topic.name).into_bytes())),
                ("gateway".to_owned(), Some(b"gw-3".to_vec())),
            ],
            timestamp_ms: Some(now_ms),
        };
        (topic.name, partition, record)
    }

    fn pick_topic(&mut self) -> TelemetryTopic {
        let mut roll = self.rng.random_range(0..100);
        for topic in TOPICS {
            if roll < topic.share {
                return topic;
            }
            roll -= topic.share;
        }
        TOPICS[0]
    }

    fn reading(&mut self, topic: &str, device: u32, now_ms: i64) -> serde_json::Value {
        let rng = &mut self.rng;
        let head = json!({
            "ts": now_ms, "seq": self.sequence, "site": "plant-7", "line": format!("line-{}", device % 4), "device": format!("press-{device:02}"),
        });
        let body = match topic {
            "sensors.temperature" => {
                let step = rng.random_range(-0.4..0.4);
                let degrees = self.degrees.get_mut(usize::try_from(device).unwrap_or(0)).map_or(20.0, |degrees| {
                    *degrees = (*degrees + step).clamp(5.0, 95.0);
                    *degrees
                });
                json!({ "unit": "celsius", "value": (degrees * 100.0).round() / 100.0, "quality": "good" })
            }
            "sensors.vibration" => {
                let spectrum: Vec<f64> = (0..8).map(|_| (rng.random_range(0.0..4.0_f64) * 1000.0).round() / 1000.0).collect();
                json!({ "unit": "mm/s", "rms": spectrum.iter().sum::<f64>() / 8.0, "spectrum": spectrum, "quality": "good" })
            }
            "alarms" => {
                json!({ "severity": "high", "code": rng.random_range(4000..4020), "text": "pressure above limit", "acknowledged": false })
            }
            _ => json!({ "event": "cycle_finished", "duration_ms": rng.random_range(3800..5200), "parts": rng.random_range(1..5) }),
        };
        json!({ "head": head, "body": body })
    }
}

/// Milliseconds since 1970, as Kafka's CreateTime has them.
#[must_use]
pub fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).ok().and_then(|since| i64::try_from(since.as_millis()).ok()).unwrap_or(0)
}
