//! One sender alone on its line.

use spillway_link::Congestion;
use spillway_wan::{Loss, Shape};

use crate::sim::{Sends, Sim, ms, secs};

const SEED: u64 = 7;

/// Queue of one second: what routers of such lines have, or more.
fn line(kbit: u64, round_trip: u64, loss: f64) -> Shape {
    let loss = if loss > 0.0 { Loss::Random(loss) } else { Loss::None };
    Shape { rate: Some(1000 * kbit), delay: ms(round_trip / 2), loss, queue_bytes: (kbit * 125).max(16_000), ..Shape::default() }
}

struct Seen {
    /// Of the line, over a minute that begins after ten seconds.
    share: f64,
    /// Smoothed round trip, as a multiple of the empty line's.
    round_trip: f64,
    /// Packets that the queue dropped, from the beginning on.
    overflowed: u64,
}

fn alone(congestion: Congestion, kbit: u64, round_trip: u64, loss: f64) -> Seen {
    let mut sim = Sim::new(line(kbit, round_trip, loss), SEED);
    sim.add(&Sends::always(congestion));
    sim.run_until(secs(10));
    let figures = sim.figures_until(secs(70))[0];
    let seen = Seen {
        share: figures.goodput() / (1000.0 * kbit as f64),
        round_trip: figures.round_trip / (round_trip as f64 / 1000.0),
        overflowed: sim.counters().overflowed.packets,
    };
    println!(
        "{congestion}: {kbit} kbit/s, {round_trip} ms, {:.0} % lost: {:.3} of the line, round trip {:.2}, {} packets dropped by the queue",
        100.0 * loss,
        seen.share,
        seen.round_trip,
        seen.overflowed
    );
    seen
}

#[test]
fn a_lossless_line_is_full_without_a_queue() {
    let seen = alone(Congestion::Spillway, 2000, 300, 0.0);
    assert!(seen.share >= 0.925, "1.85 of 2 Mbit/s are wanted");
    assert!(seen.round_trip <= 1.25);
    assert_eq!(seen.overflowed, 0);
}

#[test]
fn loss_is_not_taken_for_congestion() {
    let seen = alone(Congestion::Spillway, 2000, 300, 0.02);
    assert!(seen.share >= 0.90, "1.80 of 2 Mbit/s are wanted");
    assert_eq!(seen.overflowed, 0);
    let cubic = alone(Congestion::Cubic, 2000, 300, 0.02);
    assert!(cubic.share < 0.5, "else the test shows nothing");
}

#[test]
fn every_line_of_the_grid_is_used() {
    for kbit in [1000, 10_000] {
        for round_trip in [100, 300, 600] {
            for loss in [0.0, 0.01, 0.03, 0.05] {
                let seen = alone(Congestion::Spillway, kbit, round_trip, loss);
                assert!(seen.share >= 0.85);
            }
        }
    }
}

#[test]
fn a_very_thin_line_gets_no_queue_of_seconds() {
    for loss in [0.0, 0.02] {
        let seen = alone(Congestion::Spillway, 50, 300, loss);
        assert!(seen.share >= 0.85);
        // A packet of 1,480 bytes takes 237 ms there: one is on the line and one waits.
        assert!(seen.round_trip <= 2.6);
    }
}

/// Five hours, in which every packet that says that the line lives waits behind others and may be lost.
#[test]
fn a_thin_line_with_a_long_backlog_keeps_its_connection() {
    const BACKLOG: u64 = 100_000_000;
    let mut sim = Sim::new(line(50, 300, 0.02), SEED).with(Congestion::Spillway);
    let mut arrived = 0;
    while arrived < BACKLOG {
        // A flow whose connection is lost panics.
        let end = sim.now() + secs(600);
        arrived += sim.figures_until(end)[0].arrived;
        assert!(sim.now() < secs(6 * 3600), "{arrived} bytes in six hours");
    }
    assert!(sim.counters().lost.packets > 1000, "the line lost nothing");
    println!("{arrived} bytes in {:?}, {} packets lost", sim.now(), sim.counters().lost.packets);
}
