//! What a quiet connection costs.

use spillway_link::{LinkSettings, MtuDiscovery};
use spillway_wan::Shape;

use crate::sim::{Sends, Sim, ms, secs};

const MONTH: u64 = 30 * 86_400;

/// Bytes of an idle month on the wire, both directions, headers of IP and UDP included, on a path that carries 1400 bytes in one packet.
fn idle_month(settings: LinkSettings) -> u64 {
    let shape = Shape { rate: Some(2_000_000), delay: ms(150), ..Shape::default() };
    let mut sim = Sim::new(shape, 1);
    sim.set_path_mtu(1400);
    sim.add(&Sends::nothing(settings));
    // A connection that is lost panics.
    sim.run_until(secs(MONTH));
    sim.wire_bytes()
}

#[test]
fn a_metered_month_of_silence_costs_less_than_3_mb() {
    let metered = idle_month(LinkSettings::agent().metered());
    let normal = idle_month(LinkSettings::agent());
    println!("an idle month: {metered} bytes metered, {normal} else");
    assert!(metered <= 3_000_000);
    assert!(normal > 5 * metered, "else the profile is not worth its name");
}

#[test]
fn the_mtu_of_a_metered_path_is_looked_for_once() {
    let memory = spillway_link::LineMemory::default();
    let settings = LinkSettings::agent().metered();
    assert_eq!(settings.mtu_discovery, MtuDiscovery::Once);
    let mut costs = Vec::new();
    for _ in 0..2 {
        let mut sim = Sim::new(Shape { delay: ms(50), ..Shape::default() }, 1);
        sim.set_path_mtu(1400);
        sim.add(&Sends { memory: memory.clone(), ..Sends::nothing(settings.clone()) });
        sim.run_until(secs(60));
        costs.push((sim.wire_bytes(), sim.too_large()));
    }
    println!("bytes, packets that were too large: {costs:?}");
    assert!(costs[0].1 > 0, "nothing was looked for");
    assert_eq!(costs[1].1, 0, "it was looked for again");
    assert!(costs[1].0 < costs[0].0);
}
