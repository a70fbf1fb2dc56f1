//! Several senders on one line.

use spillway_link::Congestion;
use spillway_wan::{Loss, Shape};

use crate::sim::{Sends, Sim, ms, secs};

fn line(queue_ms: u64, loss: f64) -> Shape {
    let loss = if loss > 0.0 { Loss::Random(loss) } else { Loss::None };
    Shape { rate: Some(2_000_000), delay: ms(150), loss, queue_bytes: 250 * queue_ms, ..Shape::default() }
}

/// Share of the second flow, which begins 20 s after the first, between 60 s and 180 s; and of the line that both use.
fn shares(shape: Shape, first: Congestion, second: Congestion, seed: u64) -> (f64, f64) {
    let mut sim = Sim::new(shape, seed).with(first);
    sim.add(&Sends { from: secs(20), ..Sends::always(second) });
    sim.run_until(secs(60));
    let figures = sim.figures_until(secs(180));
    let both = figures[0].goodput() + figures[1].goodput();
    let share = figures[1].goodput() / both;
    println!(
        "{first}, then {second}, seed {seed}: the second has {share:.2}, both {:.2} of the line, round trip {:.0} ms",
        both / 2e6,
        1000.0 * figures[0].round_trip
    );
    (share, both / 2e6)
}

#[test]
fn two_of_ours_share_fairly() {
    for seed in 1..=3 {
        for loss in [0.0, 0.02] {
            let (share, both) = shares(line(1000, loss), Congestion::Spillway, Congestion::Spillway, seed);
            assert!((0.40..=0.60).contains(&share));
            assert!(both >= 0.85);
        }
    }
}

#[test]
fn cubic_beside_ours_keeps_its_part() {
    for queue_ms in [150, 300, 1000] {
        let (ours, _) = shares(line(queue_ms, 0.0), Congestion::Cubic, Congestion::Spillway, 1);
        assert!(1.0 - ours >= 0.30, "CUBIC first, a queue of {queue_ms} ms");
        let (cubic, _) = shares(line(queue_ms, 0.0), Congestion::Spillway, Congestion::Cubic, 1);
        assert!(cubic >= 0.30, "CUBIC second, a queue of {queue_ms} ms");
    }
}

/// Who comes while others send takes their queue for a part of the line, until all drain it at the same time. Eight come, and leave one after the other, who came first first. The
/// mean of some runs, since it matters at which moment of the others one comes.
#[test]
fn who_comes_later_learns_how_long_the_line_is() {
    const RUNS: u64 = 12;
    let shape = Shape { rate: Some(2_000_000), delay: ms(50), queue_bytes: 250_000, ..Shape::default() };
    let mut sum = 0.0;
    for seed in 1..=RUNS {
        let mut sim = Sim::new(shape, seed);
        for number in 0..8 {
            sim.add(&Sends { from: secs(10 * number), until: secs(40 + 20 * number), ..Sends::always(Congestion::Spillway) });
        }
        sim.run_until(secs(120));
        // Four of them are left at first, then three.
        sum += sim.figures_until(secs(140)).last().unwrap().round_trip;
    }
    let mean = sum / RUNS as f64;
    println!("round trip of the last four: {:.0} ms", 1000.0 * mean);
    assert!(mean <= 0.65, "{mean} s");
}
