//! The line changes.

use spillway_link::{Congestion, LineMemory};
use spillway_wan::Shape;

use crate::sim::{Sends, Sim, ms, secs};

fn line(kbit: u64, round_trip: u64) -> Shape {
    Shape { rate: Some(1000 * kbit), delay: ms(round_trip / 2), queue_bytes: 250_000, ..Shape::default() }
}

fn share(sim: &mut Sim, kbit: u64, seconds: u64) -> f64 {
    let end = sim.now() + secs(seconds);
    let figures = sim.figures_until(end);
    let share = figures.last().unwrap().goodput() / (1000.0 * kbit as f64);
    println!("{kbit} kbit/s: {share:.3} of the line, round trip {:.0} ms", 1000.0 * figures.last().unwrap().round_trip);
    share
}

#[test]
fn a_faster_line_is_soon_used() {
    let mut sim = Sim::new(line(500, 300), 1).with(Congestion::Spillway);
    sim.run_until(secs(30));
    sim.reshape(|shape| Shape { rate: Some(8_000_000), ..shape });
    sim.run_until(secs(35));
    assert!(share(&mut sim, 8000, 5) >= 0.85);
}

#[test]
fn a_thinner_line_is_soon_without_a_queue() {
    let mut sim = Sim::new(line(8000, 300), 1).with(Congestion::Spillway);
    sim.run_until(secs(30));
    sim.reshape(|shape| Shape { rate: Some(500_000), ..shape });
    sim.run_until(secs(45));
    let before = sim.counters().overflowed.packets;
    assert!(share(&mut sim, 500, 60) >= 0.85);
    assert_eq!(sim.counters().overflowed.packets, before, "the queue still overflows");
}

#[test]
fn a_longer_line_is_not_taken_for_a_queue() {
    for (before, after) in [(100, 300), (300, 600), (600, 100)] {
        let mut sim = Sim::new(line(2000, before), 1).with(Congestion::Spillway);
        sim.run_until(secs(30));
        sim.reshape(|shape| Shape { delay: ms(after / 2), ..shape });
        sim.run_until(secs(38));
        println!("{before} ms, then {after} ms:");
        assert!(share(&mut sim, 2000, 10) >= 0.85);
        assert!(share(&mut sim, 2000, 60) >= 0.90);
    }
}

/// As when a ship moves away from its satellite's gateway: never so much at once that it looks like another line.
#[test]
fn a_line_that_becomes_longer_slowly_is_followed() {
    let mut sim = Sim::new(line(2000, 100), 1).with(Congestion::Spillway);
    sim.run_until(secs(30));
    for round_trip in (100..=600).step_by(10) {
        sim.reshape(|shape| Shape { delay: ms(round_trip / 2), ..shape });
        sim.run_until(sim.now() + secs(4));
    }
    assert!(share(&mut sim, 2000, 60) >= 0.85);
}

#[test]
fn after_an_outage_a_thinner_line_is_not_flooded() {
    let mut sim = Sim::new(line(8000, 300), 1).with(Congestion::Spillway);
    sim.run_until(secs(30));
    sim.reshape(|shape| Shape { up: false, ..shape });
    sim.run_until(secs(40));
    assert!(sim.counters().down.packets > 0, "nothing was sent into the outage");
    sim.reshape(|shape| Shape { up: true, rate: Some(256_000), queue_bytes: 32_000, ..shape });
    let before = sim.counters().overflowed.packets;
    sim.run_until(secs(70));
    let dropped = sim.counters().overflowed.packets - before;
    println!("8000 kbit/s, then 256: {dropped} packets dropped");
    // Half of what was on its way before are 100 packets.
    assert!(dropped <= 100, "{dropped} packets dropped by the queue");
}

#[test]
fn after_an_outage_the_line_is_used_at_once() {
    let mut sim = Sim::new(line(2000, 300), 1).with(Congestion::Spillway);
    sim.run_until(secs(30));
    sim.reshape(|shape| Shape { up: false, ..shape });
    sim.run_until(secs(40));
    let down = sim.counters().down.packets;
    assert!(down > 0, "nothing was sent into the outage");
    sim.reshape(|shape| Shape { up: true, ..shape });
    // The retransmission timer has doubled to seconds by then.
    sim.run_until(secs(52));
    assert!(share(&mut sim, 2000, 10) >= 0.90);
}

/// Bytes that arrive in the first three seconds.
fn beginning(memory: &LineMemory, shape: Shape) -> (u64, u64) {
    let mut sim = Sim::new(shape, 2);
    sim.add(&Sends { memory: memory.clone(), ..Sends::always(Congestion::Spillway) });
    let arrived = sim.figures_until(secs(3))[0].arrived;
    (arrived, sim.counters().overflowed.packets)
}

#[test]
fn a_new_connection_goes_on_where_the_last_one_was() {
    let memory = LineMemory::default();
    let shape = line(2000, 300);
    let (first, _) = beginning(&memory, shape);
    let mut sim = Sim::new(shape, 1);
    sim.add(&Sends { memory: memory.clone(), ..Sends::always(Congestion::Spillway) });
    sim.run_until(secs(20));
    let (again, overflowed) = beginning(&memory, shape);
    println!("first {first} bytes in 3 s, again {again}");
    assert!(again as f64 >= 1.3 * first as f64, "{first} bytes in 3 s at first, {again} with what is remembered");
    assert_eq!(overflowed, 0);
}

#[test]
fn a_new_connection_on_another_line_floods_it_not() {
    let memory = LineMemory::default();
    let mut sim = Sim::new(line(10_000, 100), 1);
    sim.add(&Sends { memory: memory.clone(), ..Sends::always(Congestion::Spillway) });
    sim.run_until(secs(20));
    assert!(memory.line().unwrap().bytes_per_second > 1e6, "{:?}", memory.line());
    let thin = Shape { queue_bytes: 32_000, ..line(256, 600) };
    let (_, overflowed) = beginning(&memory, thin);
    assert_eq!(overflowed, 0, "packets dropped by the queue");
}
