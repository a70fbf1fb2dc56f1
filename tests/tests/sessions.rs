//! The profile `session` with both real programs, between embedded brokers, with the relay as the line: nothing crosses it but in a session, and there is one when there is reason.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::PathBuf;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use spillway_lab::build;
use spillway_lab::client::{Headers, NewRecord};
use spillway_lab::cluster::EmbeddedCluster;
use spillway_lab::relay::Traffic;
use spillway_lab::shapes::seed;
use spillway_lab::spill_dir;
use spillway_lab::stage::{Stage, StageOptions};
use spillway_lab::tcp_relay::TcpRelay;
use spillway_lab::wait::wait_until;

/// For whatever happens at once.
const LIMIT: Duration = Duration::from_secs(60);

/// Longer than anything that would be sent by itself takes: keep-alives, probes, attempts, the spill.
const A_WHILE: Duration = Duration::from_secs(5);

const TOPICS: [&str; 2] = ["t", "alarms"];

/// What a session may cost beside its frames.
const PROMISED: u64 = 8 * 1024;

struct Bench {
    stage: Stage,
    random: StdRng,
    written: u64,
    _clusters: [EmbeddedCluster; 2],
}

impl Bench {
    /// Not started.
    fn new(name: &str) -> Self {
        build::binaries().unwrap();
        let clusters = ["edge", "centre"].map(|name| EmbeddedCluster::start(name).unwrap());
        let (source, centre) = (clusters[0].client(), clusters[1].client());
        let large: &[(&str, &str)] = &[("max.message.bytes", "2000000")];
        for topic in TOPICS {
            source.create_topic(topic, 2, large).unwrap();
            centre.create_topic(&format!("plant-7.{topic}"), 2, large).unwrap();
        }
        let options = StageOptions { site: "plant-7".to_owned(), source, centre, include: vec![".*".to_owned()], collectors: 1 };
        let mut stage = Stage::new(options).unwrap();
        stage.agent.config.append("[[topics.rule]]\nmatch = 'alarms'\nclass = 0\n");
        for (key, value) in [("link.session_bytes", "64KiB"), ("link.keep_alive", "1s"), ("spill.after", "1s")] {
            stage.agent.config.set(key, value);
        }
        Self { stage, random: StdRng::seed_from_u64(seed(name)), written: 0, _clusters: clusters }
    }

    /// Writes records that do not compress.
    fn write(&mut self, topic: &str, records: usize, bytes: usize) {
        let producer = self.stage.source.producer().unwrap();
        for _ in 0..records {
            let mut value = vec![0; bytes];
            self.random.fill_bytes(&mut value);
            producer.send(topic, 0, &NewRecord { key: None, value: Some(value), headers: Headers::default(), timestamp_ms: None }).unwrap();
        }
        producer.flush(LIMIT).unwrap();
        self.written += records as u64;
    }

    fn agent(&self, name: &str) -> f64 {
        self.stage.agent.metrics().map_or(-1.0, |metrics| metrics.sum(&format!("spillway_{name}"), &[]))
    }

    /// Sessions that were due for this reason.
    fn due(&self, reason: &str) -> f64 {
        self.stage.agent.metrics().map_or(-1.0, |metrics| metrics.sum("spillway_sessions_total", &[&format!("reason=\"{reason}\"")]))
    }

    /// Records at the centre.
    fn arrived(&self) -> i64 {
        let ends = TOPICS.iter().flat_map(|topic| (0..2).map(move |partition| (format!("plant-7.{topic}"), partition)));
        ends.map(|(topic, partition)| self.stage.centre.watermarks(&topic, partition).unwrap().1).sum()
    }

    /// Waits until the agent is between two sessions, and the line stands still.
    fn rest(&self) -> Traffic {
        wait_until("the session is over", LIMIT, || Ok(self.agent("link_waiting") == 1.0)).unwrap();
        let mut before = self.stage.relay.traffic();
        wait_until("the line stands still", LIMIT, || {
            std::thread::sleep(Duration::from_secs(1));
            Ok(std::mem::replace(&mut before, self.stage.relay.traffic()) == before)
        })
        .unwrap();
        before
    }

    /// Waits for a session for this reason, and its end.
    fn session(&self, reason: &str, before: f64) {
        wait_until(&format!("a session is due ({reason})"), LIMIT, || Ok(self.due(reason) > before)).unwrap();
        self.rest();
    }

    fn assert_exact(&self) {
        let report = self.stage.judge(&TOPICS).unwrap();
        assert!(report.is_exact() && report.source_records == self.written, "{report}, {} written", self.written);
    }
}

#[test]
fn a_site_connects_when_there_is_reason_and_not_else() {
    let mut bench = Bench::new("sessions");
    for (key, value) in [("link.profile", "session"), ("link.session_interval", "1h")] {
        bench.stage.agent.config.set(key, value);
    }
    bench.stage.start().unwrap();

    // Between two sessions nothing crosses the line, and the disk is spared.
    let still = bench.rest();
    bench.write("t", 10, 1_000);
    std::thread::sleep(A_WHILE);
    assert_eq!((bench.stage.relay.traffic(), bench.due("start")), (still, 1.0), "between two sessions");
    assert!(!spill_dir::has_frames(&bench.stage.spill_dir()), "what waits in memory was written to disk");
    let status = bench.stage.agent.get("/status").unwrap().body;
    assert!(status.contains("\"state\": \"waiting\"") && status.contains("\"next_session_seconds\": 3"), "{status}");
    for path in ["/readyz", "/healthz"] {
        assert_eq!(bench.stage.agent.get(path).unwrap().status, 200, "{path}");
    }

    // An alarm connects at once, and takes along what waits.
    let frames = bench.agent("sent_bytes_total");
    bench.write("alarms", 1, 100);
    bench.session("class_0", 0.0);
    bench.assert_exact();
    let (now, frames) = (bench.stage.relay.traffic(), bench.agent("sent_bytes_total") - frames);
    let (up, down) = (now.up_bytes - still.up_bytes, now.down_bytes - still.down_bytes);
    println!("{up} bytes to the centre, {down} bytes back, of which {frames} are frames");
    assert!(frames > 10_000.0 && up + down - frames as u64 <= PROMISED);

    // So does much that waits.
    bench.write("t", 400, 1_000);
    bench.session("amount", 0.0);
    bench.write("t", 5, 100);
    std::thread::sleep(A_WHILE);
    let arrived = bench.arrived();
    assert!(arrived >= 411 && bench.due("interval") == 0.0, "{arrived} records");

    // Killed while something waits: it is read again.
    assert!(bench.stage.agent.kill(), "it was running");
    bench.write("t", 5, 100);
    bench.stage.agent.start().unwrap();
    bench.rest();
    bench.assert_exact();

    // The line is down when a session is due: it is tried until it is there, and what waits goes to the disk meanwhile.
    bench.stage.relay.set_cut(true);
    let cut = bench.stage.relay.traffic();
    bench.write("t", 5, 100);
    bench.write("alarms", 1, 100);
    let spill = bench.stage.spill_dir();
    wait_until("what waits is on the disk", LIMIT, || Ok(spill_dir::has_frames(&spill))).unwrap();
    wait_until("it was dialled", LIMIT, || Ok(bench.stage.relay.traffic().cut_packets > cut.cut_packets)).unwrap();
    assert_eq!((bench.agent("link_waiting"), bench.stage.relay.traffic().up_bytes), (0.0, cut.up_bytes));
    assert_eq!(bench.stage.agent.get("/readyz").unwrap().status, 503);
    bench.stage.relay.set_cut(false);
    wait_until("it has arrived", LIMIT, || Ok(bench.arrived() as u64 >= bench.written)).unwrap();
    bench.rest();
    bench.assert_exact();
    assert_eq!((bench.agent("reconnects_total"), bench.due("class_0")), (0.0, 1.0));

    // The last one is made at the end.
    bench.write("t", 5, 100);
    std::thread::sleep(A_WHILE);
    assert!(bench.stage.agent.terminate().unwrap().success());
    bench.assert_exact();
    let faults = bench.stage.collectors[0].log_lines("WARN").join("\n");
    assert!(faults.is_empty(), "{faults}");
    assert!(bench.stage.collector(0).unwrap().terminate().unwrap().success());
}

/// Puts another file in the place of the site's.
fn tell(file: &PathBuf, text: &str) {
    let beside = file.with_extension("new");
    std::fs::write(&beside, text).unwrap();
    std::fs::rename(beside, file).unwrap();
}

#[test]
fn the_centre_asks_for_sessions_and_is_heard_in_the_next_one() {
    let mut bench = Bench::new("sessions-of-the-centre");
    let sites = bench.stage.dir().join("sites.d");
    std::fs::create_dir(&sites).unwrap();
    let file = sites.join("plant-7.toml");
    tell(&file, "[link]\nprofile = 'session'\n");
    bench.stage.collector(0).unwrap().config.set("sites.dir", sites.display().to_string());
    bench.stage.agent.config.set("link.session_interval", "15s");
    bench.stage.start().unwrap();
    let accepted =
        |bench: &Bench| bench.stage.collectors[0].metrics().unwrap().sum("spillway_settings_reports_total", &["outcome=\"accepted\""]);

    // The session goes on until the settings are proven.
    bench.rest();
    assert_eq!((accepted(&bench), bench.agent("settings_rolled_back_total")), (1.0, 0.0));

    // What is written meanwhile comes with the next ones, and so does a change.
    bench.write("t", 10, 100);
    bench.session("interval", 0.0);
    bench.assert_exact();
    tell(&file, "[link]\nprofile = 'session'\nrate_max = '512kbit'\n");
    wait_until("the rate is in force", LIMIT, || Ok(bench.agent("rate_limit_bits_per_second") == 512_000.0)).unwrap();
    let is_on_trial = |bench: &Bench| bench.stage.agent.get("/status").unwrap().body.contains("\"on_trial\": true");
    assert!(is_on_trial(&bench), "the settings are not tried");
    bench.rest();
    assert!(!is_on_trial(&bench) && bench.agent("settings_rolled_back_total") == 0.0);
    assert!(bench.agent("sessions_total") >= 3.0 && bench.agent("reconnects_total") == 0.0);

    // From now on it stays.
    tell(&file, "[link]\nrate_max = '512kbit'\n");
    wait_until("a session begins", LIMIT, || Ok(is_on_trial(&bench))).unwrap();
    let sessions = bench.agent("sessions_total");
    bench.write("t", 10, 100);
    wait_until("it has arrived", LIMIT, || Ok(bench.arrived() as u64 >= bench.written)).unwrap();
    std::thread::sleep(4 * A_WHILE);
    assert_eq!((bench.agent("link_up"), bench.agent("link_waiting"), bench.agent("sessions_total")), (1.0, 0.0, sessions));
    assert!(!is_on_trial(&bench));
    bench.assert_exact();
}

#[test]
fn where_udp_is_blocked_sessions_go_over_tcp_and_look_for_udp() {
    let mut bench = Bench::new("sessions-over-tcp");
    for (key, value) in [("link.profile", "session"), ("link.session_interval", "1h"), ("link.udp_retry", "10s")] {
        bench.stage.agent.config.set(key, value);
    }
    let tcp = TcpRelay::start_at(bench.stage.relay.address()).unwrap();
    tcp.set_target(bench.stage.listen[0]);
    bench.stage.relay.set_cut(true);
    bench.stage.start().unwrap();
    // Three handshakes over UDP, of 15 s each.
    wait_until("the first session is over", 3 * LIMIT, || Ok(bench.agent("link_waiting") == 1.0)).unwrap();
    let goes =
        |bench: &Bench, way: &str| bench.stage.agent.metrics().unwrap().sum("spillway_link_way", &[&format!("way=\"{way}\"")]) == 1.0;
    assert!(goes(&bench, "tcp"));
    bench.rest();
    let (carried, asked) = (tcp.bytes(), bench.stage.relay.traffic().cut_packets);
    std::thread::sleep(2 * A_WHILE);
    assert_eq!((tcp.bytes(), bench.stage.relay.traffic().cut_packets), (carried, asked), "between two sessions");
    // By now UDP is to be asked for, which takes a session some seconds longer.
    bench.write("alarms", 1, 100);
    bench.session("class_0", 0.0);
    bench.assert_exact();
    println!("{} bytes in the stream, both ways", tcp.bytes() - carried);
    assert!(goes(&bench, "tcp") && bench.stage.relay.traffic().cut_packets > asked, "UDP was not asked for");

    bench.stage.relay.set_cut(false);
    std::thread::sleep(3 * A_WHILE);
    assert_eq!(bench.stage.relay.traffic().up_bytes, 0, "between two sessions");
    bench.write("alarms", 1, 100);
    bench.session("class_0", 1.0);
    bench.assert_exact();
    assert!(goes(&bench, "udp") && bench.stage.relay.traffic().up_bytes > 0);
}
