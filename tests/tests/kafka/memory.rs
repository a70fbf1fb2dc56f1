//! The agent's memory under load stays within `memory_max`.

use std::time::Duration;

use spillway_lab::shapes::{Shapes, seed};

use crate::common::{FLUSH_LIMIT, assert_exact, stage};

/// The default of `memory_max`, and what this test holds the agent to.
const MEMORY_MAX_BYTES: u64 = 64 * 1024 * 1024;

/// Until everything is at the centre over the slow link.
const DRAIN_LIMIT: Duration = Duration::from_secs(240);

#[test]
#[ignore = "needs real Kafka: ./lab test"]
fn the_agent_under_load_stays_within_memory_max() {
    let seed = seed("memory");
    let mut stage = stage("memory");
    stage.source.create_topic("memory-t", 12, &[("max.message.bytes", "2000000")]).unwrap();
    // A backlog of far more than the agent may hold, large records among it, all of it there when the agent starts …
    let mut shapes = Shapes::new(seed, 5_000);
    let producer = stage.source.producer().unwrap();
    let mut bytes = 0;
    for n in 0..300_000 {
        let mut record = shapes.next_record();
        // The centre's default limit is a little below the large records.
        if let Some(value) = record.value.as_mut() {
            value.truncate(900_000);
            bytes += value.len();
        }
        if n % 3 == 0 {
            record.value.get_or_insert_default().resize(600, b'x');
        }
        producer.send("memory-t", n % 12, &record).unwrap();
    }
    producer.flush(FLUSH_LIMIT).unwrap();
    assert!(bytes > 70_000_000, "{bytes} bytes of values");
    // … and a link that is cut for a while, so that everything that can fill up does.
    stage.start().unwrap();
    std::thread::sleep(Duration::from_secs(2));
    stage.relay.set_cut(true);
    std::thread::sleep(Duration::from_secs(8));
    stage.relay.set_cut(false);
    assert!(stage.relay.traffic().cut_packets > 0, "the link was not cut");
    stage.wait_drained(&["memory-t"], DRAIN_LIMIT).unwrap();
    assert_exact(&stage, &["memory-t"]);
    let peak = stage.agent.peak_memory_bytes().unwrap();
    println!("memory: the agent's largest resident memory was {:.1} MiB", f64::from(u32::try_from(peak / 1024).unwrap()) / 1024.0);
    assert!(peak <= MEMORY_MAX_BYTES, "the agent had {peak} bytes resident, {MEMORY_MAX_BYTES} are allowed");
}
