//! What a site may send is said at the centre and followed at the site: both real programs, between embedded brokers, with the relay as the line. Two
//! minutes, most of them spent waiting for agents whose settings have cut them off.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use jiff::{ToSpan, Zoned, tz::TimeZone};
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use spillway_lab::build;
use spillway_lab::client::{Headers, NewRecord};
use spillway_lab::cluster::EmbeddedCluster;
use spillway_lab::shapes::seed;
use spillway_lab::stage::{Stage, StageOptions};
use spillway_lab::wait::wait_until;

/// For whatever happens at once.
const LIMIT: Duration = Duration::from_secs(30);

/// An agent gives up settings after 100 s without contact; on a machine that is busy, a little later.
const ROLL_BACK_LIMIT: Duration = Duration::from_secs(180);

struct Bench {
    stage: Stage,
    file: PathBuf,
    _clusters: [EmbeddedCluster; 2],
}

impl Bench {
    fn start() -> Self {
        build::binaries().unwrap();
        let clusters = ["edge", "centre"].map(|name| EmbeddedCluster::start(name).unwrap());
        let (source, centre) = (clusters[0].client(), clusters[1].client());
        let large: &[(&str, &str)] = &[("max.message.bytes", "2000000")];
        source.create_topic("t", 1, large).unwrap();
        centre.create_topic("plant-7.t", 1, large).unwrap();
        let options = StageOptions { site: "plant-7".to_owned(), source, centre, include: vec![".*".to_owned()], collectors: 1 };
        let mut stage = Stage::new(options).unwrap();
        let sites = stage.dir().join("sites.d");
        std::fs::create_dir(&sites).unwrap();
        let file = sites.join("plant-7.toml");
        std::fs::write(&file, "[link]\nrate_max = '500kbit'\n").unwrap();
        stage.collector(0).unwrap().config.set("sites.dir", sites.display().to_string());
        stage.start().unwrap();
        Self { stage, file, _clusters: clusters }
    }

    /// Puts another file in the place of the site's.
    fn tell(&self, text: &str) {
        let beside = self.file.with_extension("new");
        std::fs::write(&beside, text).unwrap();
        std::fs::rename(beside, &self.file).unwrap();
    }

    /// Waits until the agent has this rate in force, in bits per second; how long that took.
    fn rate(&self, bits: f64, limit: Duration) -> Duration {
        let begun = Instant::now();
        wait_until(&format!("{bits} bit/s are in force"), limit, || Ok(self.agent("rate_limit_bits_per_second") == bits)).unwrap();
        begun.elapsed()
    }

    fn agent(&self, name: &str) -> f64 {
        self.stage.agent.metrics().map_or(-1.0, |metrics| metrics.sum(&format!("spillway_{name}"), &[]))
    }

    fn reports(&self, outcome: &str) -> f64 {
        self.stage.collectors[0].metrics().unwrap().sum("spillway_settings_reports_total", &[&format!("outcome=\"{outcome}\"")])
    }

    /// Writes records of 1,000 bytes that do not compress.
    fn write(&self, records: usize) {
        let (producer, mut rng) = (self.stage.source.producer().unwrap(), StdRng::seed_from_u64(seed("plan")));
        for _ in 0..records {
            let mut value = vec![0; 1000];
            rng.fill_bytes(&mut value);
            producer.send("t", 0, &NewRecord { key: None, value: Some(value), headers: Headers::default(), timestamp_ms: None }).unwrap();
        }
        producer.flush(LIMIT).unwrap();
    }

    /// Bits a second on the wire from the agent, over some seconds.
    fn wire_bits(&self, span: Duration) -> f64 {
        // The clock is read outside of the counters, so that a pause between the two makes the figure smaller, not larger.
        let (begun, before) = (Instant::now(), self.stage.relay.traffic().up_bytes);
        std::thread::sleep(span);
        let bytes = self.stage.relay.traffic().up_bytes - before;
        bytes as f64 * 8.0 / begun.elapsed().as_secs_f64()
    }
}

#[test]
fn the_centre_steers_a_site_that_cuts_itself_off_never_for_good() {
    let mut bench = Bench::start();
    bench.rate(500_000.0, LIMIT);
    // An alert on a rise sees the first event only where there was a 0 before.
    let [agent, collector] = [&bench.stage.agent, &bench.stage.collectors[0]].map(|program| program.metrics().unwrap());
    assert!(agent.has("spillway_gaps_total") && agent.sum("spillway_gaps_total", &[]) == 0.0);
    for name in ["gaps_total", "sessions_refused_total", "holds_total"].map(|name| format!("spillway_{name}")) {
        assert!(collector.has(&name) && collector.sum(&name, &[]) == 0.0, "{name}");
    }
    wait_until("the first settings are proven", LIMIT, || Ok(bench.reports("accepted") == 1.0)).unwrap();

    // A change, in the same session.
    bench.tell("[link]\nrate_max = '64kbit'\n");
    let took = bench.rate(64_000.0, LIMIT);
    println!("64 kbit/s were in force {took:?} after the file was written");
    bench.write(200);
    let bits = bench.wire_bits(Duration::from_secs(10));
    println!("{bits:.0} bit/s on the wire");
    assert!((32_000.0..=64_000.0 * 1.03).contains(&bits), "{bits} bit/s on the wire");
    assert_eq!(bench.agent("reconnects_total"), 0.0);

    // A mistake changes nothing, and is told.
    bench.tell("[link]\nrate_max = '64kbits'\n");
    let refused = |bench: &Bench| bench.stage.collectors[0].metrics().unwrap().sum("spillway_site_files_refused", &[]);
    wait_until("the mistake is seen", LIMIT, || Ok(refused(&bench) == 1.0)).unwrap();
    let told = bench.stage.collectors[0].log_lines("site_file_refused").join("\n");
    assert!(told.contains("plant-7.toml:2:12") && told.contains("unknown unit"), "{told}");
    bench.rate(64_000.0, LIMIT);
    wait_until("the rate is proven", LIMIT, || Ok(bench.reports("accepted") == 2.0)).unwrap();

    // Under this one the line is gone.
    bench.tell("[link]\nrate_max = '2Mbit'\n");
    bench.rate(2_000_000.0, LIMIT);
    bench.stage.relay.set_cut(true);
    let took = bench.rate(64_000.0, ROLL_BACK_LIMIT);
    assert!(bench.stage.relay.traffic().cut_packets > 0, "the line was not cut");
    println!("64 kbit/s were back {took:?} after the line was cut");
    bench.stage.relay.set_cut(false);
    wait_until("the centre hears of it", ROLL_BACK_LIMIT, || Ok(bench.reports("rolled_back") == 1.0)).unwrap();
    assert_eq!(bench.agent("settings_rolled_back_total"), 1.0);
    bench.rate(64_000.0, LIMIT);

    // The centre is away, and the site knows what to do.
    assert!(bench.stage.agent.kill() && bench.stage.collector(0).unwrap().kill(), "both were running");
    bench.stage.agent.spawn().unwrap();
    bench.rate(64_000.0, LIMIT);
    bench.stage.collector(0).unwrap().start().unwrap();
    bench.tell("[link]\nrate_max = '5Mbit'\n");
    bench.rate(5_000_000.0, ROLL_BACK_LIMIT);
    bench.stage.wait_drained(&["t"], ROLL_BACK_LIMIT).unwrap();
    let report = bench.stage.judge(&["t"]).unwrap();
    assert!(report.is_exact(), "{report}");
}

/// What a look may cost, both ways: docs/operations.md promises some 8 KB.
const LOOK_BYTES: u64 = 12_000;

#[test]
fn a_site_that_a_mistyped_timetable_has_turned_off_hears_the_correction() {
    let mut bench = Bench::start();
    bench.rate(500_000.0, LIMIT);
    wait_until("the first settings are proven", LIMIT, || Ok(bench.reports("accepted") == 1.0)).unwrap();

    // Off since a minute ago, on again in three hours.
    let now = Zoned::now().with_time_zone(TimeZone::UTC);
    let time = |zoned: Zoned| zoned.strftime("%H:%M").to_string();
    let (off, on) = (time(&now - 1.minute()), time(&now + 3.hours()));
    bench.tell(&format!("[link]\ntimetable = ['daily {off} off, {on} 1Mbit']\n"));
    let gone = Instant::now();
    bench.rate(0.0, LIMIT);
    // The centre knows where the site has gone, and until when.
    let connected = |bench: &Bench| bench.stage.collectors[0].metrics().unwrap().sum("spillway_sites_connected", &[]);
    wait_until("leave was taken", LIMIT, || Ok(connected(&bench) == 0.0)).unwrap();
    let told = bench.stage.collectors[0].log_lines("settings_report").join("\n");
    assert!(told.contains("off by the timetable until") && told.contains(&on), "{told}");
    wait_until("it is told that no session is wanted", LIMIT, || Ok(bench.agent("link_waiting") == 1.0)).unwrap();
    assert_eq!(bench.stage.agent.get("/readyz").unwrap().status, 200);

    // Nothing crosses the line, whatever is written.
    std::thread::sleep(Duration::from_secs(5));
    let before = bench.stage.relay.traffic();
    bench.write(200);
    std::thread::sleep(Duration::from_secs(10));
    let bytes = |bench: &Bench| bench.stage.relay.traffic().up_bytes + bench.stage.relay.traffic().down_bytes;
    let quiet = bytes(&bench);
    assert_eq!(quiet, before.up_bytes + before.down_bytes);

    // Nobody is there to hear the correction, and it is heard. At first it is none: what a look costs is known when it is over.
    let corrected = format!("[link]\ntimetable = ['daily {off} off, {on} 2Mbit']\n");
    bench.tell(&corrected);
    let asked =
        |bench: &Bench| bench.stage.collectors[0].log_lines("settings_report").iter().filter(|line| line.contains("off by")).count();
    wait_until("a look", ROLL_BACK_LIMIT, || Ok(asked(&bench) == 2)).unwrap();
    let took = gone.elapsed();
    wait_until("leave was taken again", LIMIT, || Ok(connected(&bench) == 0.0)).unwrap();
    println!("the site asked {took:?} after it had gone, for {} bytes", bytes(&bench) - quiet);
    assert!(took >= Duration::from_secs(85), "{took:?}");
    assert!(bytes(&bench) - quiet <= LOOK_BYTES, "{} bytes", bytes(&bench) - quiet);
    assert_eq!(bench.agent("rate_limit_bits_per_second"), 0.0);

    bench.tell("[link]\nrate_max = '64kbit'\n");
    let took = bench.rate(64_000.0, ROLL_BACK_LIMIT);
    println!("the correction was in force {took:?} after it was written");
    wait_until("the correction is proven", LIMIT, || Ok(bench.reports("accepted") == 2.0)).unwrap();
    bench.stage.wait_drained(&["t"], ROLL_BACK_LIMIT).unwrap();
    let report = bench.stage.judge(&["t"]).unwrap();
    assert!(report.is_exact(), "{report}");
    assert_eq!(bench.agent("settings_rolled_back_total"), 0.0);
}
