//! The records: the same in every run.

/// A record of a lane.
pub(crate) struct Record {
    /// Topic times [`Data::partitions`], and the partition.
    pub(crate) lane: usize,
    pub(crate) offset: u64,
    pub(crate) timestamp: i64,
    pub(crate) key: String,
    pub(crate) value: String,
}

/// Records of some kind.
pub(crate) struct Data {
    pub(crate) name: &'static str,
    pub(crate) topics: usize,
    pub(crate) partitions: usize,
    pub(crate) records: Vec<Record>,
}

impl Data {
    /// Bytes of keys and values.
    pub(crate) fn payload(&self) -> usize {
        self.records.iter().map(|record| record.key.len() + record.value.len()).sum()
    }

    fn new(name: &'static str, topics: usize, partitions: usize) -> Self {
        Self { name, topics, partitions, records: Vec::new() }
    }

    fn push(&mut self, offsets: &mut Vec<u64>, lane: usize, timestamp: i64, key: String, value: String) {
        offsets.resize(self.topics * self.partitions, 0);
        self.records.push(Record { lane, offset: offsets[lane], timestamp, key, value });
        offsets[lane] += 1;
    }
}

/// A small plant: ten shapes of JSON, each a topic with three partitions: numbers that wander, counters, states, times.
pub(crate) fn plant() -> Data {
    const TOPICS: [&str; 10] = ["temp", "press", "vib", "energy", "status", "gps", "counter", "flow", "door", "log"];
    let mut noise = Noise(3);
    let mut readings: Vec<f64> = (0..400).map(|_| 5.0 + noise.below(9000) as f64 / 100.0).collect();
    let (mut data, mut offsets, mut counts) = (Data::new("ten shapes", 10, 3), Vec::new(), vec![0u64; 400]);
    let mut now = 1_763_800_000_000i64;
    for number in 0..300_000 {
        now += noise.below(3) as i64;
        let (topic, device) = (noise.below(TOPICS.len() as u64) as usize, noise.below(40) as usize);
        let place = topic * 40 + device;
        readings[place] += noise.below(1000) as f64 / 1000.0 - 0.5;
        counts[place] += 1;
        let value = shape(topic, device, now, number, (readings[place], counts[place]), &mut noise);
        data.push(&mut offsets, topic * 3 + device % 3, now, format!("{}-{device}", TOPICS[topic]), value);
    }
    data
}

/// A trickle: three of these shapes, twelve devices each, a record every 400 ms.
pub(crate) fn trickle() -> Data {
    const TOPICS: [(&str, usize); 3] = [("temp", 0), ("energy", 3), ("status", 4)];
    let mut noise = Noise(5);
    let mut readings: Vec<f64> = (0..36).map(|_| 5.0 + noise.below(9000) as f64 / 100.0).collect();
    let (mut data, mut offsets, mut counts) = (Data::new("a trickle of three topics", 3, 1), Vec::new(), vec![0u64; 36]);
    let mut now = 1_763_800_000_000i64;
    for number in 0..40_000 {
        now += noise.below(800) as i64;
        let (topic, device) = (noise.below(3) as usize, noise.below(12) as usize);
        let place = topic * 12 + device;
        readings[place] += noise.below(200) as f64 / 1000.0 - 0.1;
        counts[place] += 1;
        let value = shape(TOPICS[topic].1, device, now, number, (readings[place], counts[place]), &mut noise);
        data.push(&mut offsets, topic, now, format!("{}-{device}", TOPICS[topic].0), value);
    }
    data
}

/// One JSON object of 200 bytes, as the throughput benchmark has them, in eight partitions.
pub(crate) fn presses() -> Data {
    let mut noise = Noise(11);
    let mut readings: Vec<f64> = (0..64).map(|_| 18.0 + noise.below(57_000) as f64 / 1000.0).collect();
    let (mut data, mut offsets) = (Data::new("telemetry-200", 1, 8), Vec::new());
    let mut now = 1_763_800_000_000i64;
    for number in 0..60_000 {
        now += i64::from(noise.below(100) == 0);
        let device = noise.below(64) as usize;
        let mut value = format!(
            r#"{{"ts":{now},"seq":{},"site":"plant-7","line":"line-{}","device":"press-{device:02}","channels":["#,
            number + 1,
            device % 4
        );
        for (place, name) in ["bearing_temperature", "oil_pressure"].into_iter().enumerate() {
            readings[device] = (readings[device] + noise.below(800) as f64 / 1000.0 - 0.4).clamp(5.0, 95.0);
            let channel = format!(r#"{}{{"name":"{name}","value":{:.2},"quality":"good"}}"#, ["", ","][place], readings[device]);
            if value.len() + channel.len() + 2 <= 200 {
                value.push_str(&channel);
            }
        }
        value.push_str("]}");
        data.push(&mut offsets, number % 8, now, format!("press-{device:02}"), value);
    }
    data
}

/// A trickle of events that name what comes and goes: at each time eight jobs, of 100 events each, and 200 parts with serial numbers that stay. Texts like these are no template, and a
/// dictionary does not know them for long: the best that there may be for history.
pub(crate) fn events() -> Data {
    const STEPS: [&str; 5] = ["weld", "press", "paint", "inspect", "pack"];
    let mut noise = Noise(17);
    let mut hex = |length| (0..length).map(|_| char::from(b"0123456789abcdef"[noise.below(16) as usize])).collect::<String>();
    let mut job = move || format!("{}-{}-4{}-a{}-{}", hex(8), hex(4), hex(3), hex(3), hex(12));
    let mut noise = Noise(19);
    let serials: Vec<String> =
        (0..200).map(|_| (0..8).map(|_| char::from(b"0123456789ABCDEFGHJKLMNPQRSTUVWX"[noise.below(32) as usize])).collect()).collect();
    let mut jobs: Vec<String> = (0..8).map(|_| job()).collect();
    let (mut data, mut offsets) = (Data::new("a trickle of events", 2, 1), Vec::new());
    let mut now = 1_763_800_000_000i64;
    for number in 0..20_000 {
        now += noise.below(2000) as i64;
        if number % 12 == 0 {
            let place = noise.below(8) as usize;
            jobs[place] = job();
        }
        let (job, serial) = (&jobs[noise.below(8) as usize], &serials[noise.below(200) as usize]);
        let (station, step, took) = (noise.below(24), STEPS[noise.below(5) as usize], 200 + noise.below(9000));
        let (topic, value) = if noise.below(4) > 0 {
            (0, format!(r#"{{"job":"{job}","part":"{serial}","station":"st-{station:02}","step":"{step}","ms":{took},"ts":{now}}}"#))
        } else {
            (1, format!(r#"{{"ts":{now},"station":"st-{station:02}","event":"{step} done","job":"{job}"}}"#))
        };
        data.push(&mut offsets, topic, now, job.clone(), value);
    }
    data
}

/// The JSON of one shape: `x` wanders, `n` counts.
fn shape(topic: usize, device: usize, now: i64, number: usize, (x, n): (f64, u64), noise: &mut Noise) -> String {
    match topic {
        0 => format!(r#"{{"ts":{now},"sensor":"t-{device:02}","value":{x:.2},"unit":"C"}}"#),
        1 => format!(r#"{{"id":"p{device}","bar":{:.3},"ok":{},"seq":{number}}}"#, x / 10.0, noise.below(100) < 97),
        2 => format!(r#"{{"dev":"vib-{device}","rms":{:.3},"peak":{:.3},"t":{now}}}"#, x / 20.0, noise.below(9000) as f64 / 1e3),
        3 => format!(r#"{{"meter":"m{device:03}","kwh":{},"w":{}}}"#, 10_000 + n, 200 + noise.below(4600)),
        4 => {
            let state = ["running", "idle", "stopped", "fault"][noise.below(4) as usize];
            format!(r#"{{"machine":"press-{device:02}","state":"{state}","since":{}}}"#, now - noise.below(60_000) as i64)
        }
        5 => format!(r#"{{"v":"truck-{device}","lat":{:.5},"lon":{:.5},"kmh":{}}}"#, 48.0 + x / 1e3, 11.0 + x / 900.0, noise.below(90)),
        6 => format!(r#"{{"line":{device},"count":{},"rejects":{}}}"#, n * 3, n / 20),
        7 => format!(r#"{{"sensor":"flow-{device}","lpm":{x:.1},"temp":{:.1},"alarm":false,"seq":{n}}}"#, 20.0 + x / 9.0),
        8 => format!(r#"{{"door":"d{device}","open":{},"user":{},"ts":{now}}}"#, noise.below(2) == 1, 1000 + noise.below(400)),
        _ => format!(r#"{{"lvl":"info","msg":"cycle {n} finished in {} ms","ts":{now}}}"#, 900 + noise.below(400)),
    }
}

/// Numbers that look random and are the same in every run.
struct Noise(u64);

impl Noise {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}
