//! The whole path with the real binaries, between embedded brokers: no Java, half a minute.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use spillway_lab::build;
use spillway_lab::client::Client;
use spillway_lab::cluster::EmbeddedCluster;
use spillway_lab::oracle::check_group_not_past_centre;
use spillway_lab::oracle::syncs::{check_syncs, check_syncs_rise, read_syncs};
use spillway_lab::shapes::{Shapes, seed};
use spillway_lab::spill_dir;
use spillway_lab::stage::{Stage, StageOptions};
use spillway_lab::tcp_relay::TcpRelay;
use spillway_lab::wait::wait_until;

/// Between two faults, and until the last record is at the centre. A dead connection is noticed after 5 s.
const FLOW_LIMIT: Duration = Duration::from_secs(60);

const PARTITIONS: i32 = 4;

/// The embedded broker has Kafka's default limit for a batch; the large shape is above it.
const MESSAGE_MAX: (&str, &str) = ("max.message.bytes", "2000000");

/// A service manager would otherwise end it, over and over, for as long as the outage lasts.
#[test]
fn an_agent_that_starts_during_an_outage_is_ready_and_spills() {
    let (mut stage, _edge, _central) = stage(1);
    stage.agent.config.set("spill.after", "1s");
    stage.relay.set_cut(true);
    stage.start().unwrap();
    let writer = Writer::start(&stage.source, seed("outage"));
    let spill = stage.spill_dir();
    wait_until("frames are in the spill", FLOW_LIMIT, || Ok(spill_dir::has_frames(&spill))).unwrap();
    assert!(stage.relay.traffic().up_bytes == 0 && stage.relay.traffic().cut_packets > 0, "nothing passed");
    stage.relay.set_cut(false);
    flows(&stage);
    let written = writer.finish();
    stage.wait_drained(&["t"], FLOW_LIMIT).unwrap();
    let report = stage.judge(&["t"]).unwrap();
    assert!(report.is_exact() && report.source_records == u64::try_from(written).unwrap(), "{report}");
}

#[test]
fn a_site_whose_udp_is_blocked_goes_over_tcp_and_back() {
    let (mut stage, _edge, _central) = stage(1);
    stage.agent.config.set("link.udp_retry", "10s");
    let tcp = TcpRelay::start_at(stage.relay.address()).unwrap();
    tcp.set_target(stage.listen[0]);
    stage.relay.set_cut(true);
    stage.start().unwrap();
    let writer = Writer::start(&stage.source, seed("udp"));

    // Three handshakes, of 15 s each.
    wait_until("the link is on TCP", 3 * FLOW_LIMIT, || Ok(goes(&stage, "tcp"))).unwrap();
    flows(&stage);
    assert!(!goes(&stage, "udp"));
    wait_until("the collector counts the tunnel", FLOW_LIMIT, || {
        Ok(stage.collectors[0].metrics()?.sum("spillway_tunnels_open", &[]) == 1.0)
    })
    .unwrap();
    let blocked = stage.relay.traffic();
    assert!(blocked.up_bytes == 0 && blocked.cut_packets > 0, "UDP was open: {blocked:?}");
    // The question of the day, in vain.
    wait_until("UDP is asked for", FLOW_LIMIT, || Ok(stage.relay.traffic().cut_packets > blocked.cut_packets)).unwrap();
    let carried = tcp.bytes();
    flows(&stage);
    assert!(tcp.bytes() > carried && stage.relay.traffic().up_bytes == 0);

    stage.relay.set_cut(false);
    wait_until("the link is back on UDP", FLOW_LIMIT, || Ok(goes(&stage, "udp"))).unwrap();
    flows(&stage);
    assert!(stage.relay.traffic().up_bytes > 0 && !goes(&stage, "tcp"));

    let written = writer.finish();
    stage.wait_drained(&["t"], FLOW_LIMIT).unwrap();
    let report = stage.judge(&["t"]).unwrap();
    assert!(report.is_exact() && report.source_records == u64::try_from(written).unwrap(), "{report}");
    assert!(stage.agent.terminate().unwrap().success());
    assert!(stage.collector(0).unwrap().terminate().unwrap().success());
}

/// Whether the agent's link goes that way.
fn goes(stage: &Stage, way: &str) -> bool {
    stage.agent.metrics().unwrap().sum("spillway_link_way", &[&format!("way=\"{way}\"")]) >= 1.0
}

#[test]
fn records_of_all_shapes_survive_cuts_kills_moves_and_restarts() {
    let seed = seed("embedded");
    let (mut stage, _edge, central) = stage(2);
    stage.agent.config.set("link.idle_timeout", "5s");
    stage.agent.config.set("link.keep_alive", "1s");
    stage.start().unwrap();
    let writer = Writer::start(&stage.source, seed);

    flows(&stage);
    stage.relay.set_cut(true);
    std::thread::sleep(Duration::from_secs(2));
    stage.relay.set_cut(false);
    assert!(stage.relay.traffic().cut_packets > 0, "the link was not cut");
    flows(&stage);
    assert!(stage.agent.kill(), "the agent was running");
    stage.agent.start().unwrap();
    flows(&stage);
    assert!(stage.collector(0).unwrap().kill(), "the collector was running");
    stage.collector(0).unwrap().start().unwrap();
    flows(&stage);
    stage.move_to(1).unwrap();
    wait_until("the other collector has the site", FLOW_LIMIT, || {
        Ok(stage.collectors[1].metrics()?.sum("spillway_sites_connected", &[]) >= 1.0)
    })
    .unwrap();
    flows(&stage);
    central.stop();
    std::thread::sleep(Duration::from_secs(2));
    assert!(stage.centre.topics().is_err(), "the central broker was away");
    central.resume().unwrap();
    flows(&stage);

    let written = writer.finish();
    stage.wait_drained(&["t"], FLOW_LIMIT).unwrap();
    let report = stage.judge(&["t"]).unwrap();
    assert!(report.is_exact() && report.source_records == u64::try_from(written).unwrap(), "{report}");
    check_syncs_rise(&read_syncs(&stage.centre, "plant-7").unwrap()).unwrap();
    assert!(check_syncs(&stage.source, &stage.centre, "plant-7", 50, seed).unwrap() > 10);
    assert_eq!(check_group_not_past_centre(&stage.source, &stage.centre, "plant-7", "t").unwrap(), 4);
    assert!(stage.agent.terminate().unwrap().success());
    for collector in &mut stage.collectors {
        assert!(collector.terminate().unwrap().success());
    }
}

/// A deployment with the topic at both ends, and its brokers at the edge and at the centre. Nothing of it runs but these.
fn stage(collectors: usize) -> (Stage, EmbeddedCluster, EmbeddedCluster) {
    build::binaries().unwrap();
    let (edge, central) = (EmbeddedCluster::start("edge").unwrap(), EmbeddedCluster::start("centre").unwrap());
    let (source, centre) = (edge.client(), central.client());
    source.create_topic("t", PARTITIONS, &[MESSAGE_MAX]).unwrap();
    centre.create_topic("plant-7.t", PARTITIONS, &[MESSAGE_MAX]).unwrap();
    let options = StageOptions { site: "plant-7".to_owned(), source, centre, include: vec![".*".to_owned()], collectors };
    (Stage::new(options).unwrap(), edge, central)
}

/// Waits until records written from now on arrive.
fn flows(stage: &Stage) {
    let end = || stage.centre.watermarks("plant-7.t", 0).map(|(_, high)| high);
    let from = end().unwrap();
    wait_until("records arrive at the centre", FLOW_LIMIT, || Ok(end()? > from + 20)).unwrap();
}

/// Writes records of all shapes until told to end.
struct Writer {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicUsize>,
    thread: std::thread::JoinHandle<()>,
}

impl Writer {
    fn start(source: &Client, seed: u64) -> Self {
        let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&written));
        let producer = source.producer().unwrap();
        let thread = std::thread::spawn(move || {
            let mut shapes = Shapes::new(seed, 3_000);
            for n in (0..PARTITIONS).cycle() {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                producer.send("t", n, &shapes.next_record()).unwrap();
                count.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(1));
            }
            producer.flush(FLOW_LIMIT).unwrap();
        });
        Self { stop, written, thread }
    }

    /// Ends writing and says how many records there are.
    fn finish(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        self.written.load(Ordering::Relaxed)
    }
}
