//! A line does what its shape says. Time is virtual: every figure is exact unless chance is in it.

use std::time::Duration;

use rand::{Rng as _, RngCore as _};
use spillway_wan::{Burst, Count, Fate, Line, Loss, Shape};

const MS: Duration = Duration::from_millis(1);

/// Everything that comes out up to `end`, with when.
fn drain<P>(line: &mut Line<P>, end: Duration) -> Vec<(Duration, P)> {
    let mut out = Vec::new();
    while let Some(due) = line.next_due().filter(|due| *due <= end) {
        out.extend(line.pop(due).map(|packet| (due, packet)));
    }
    out
}

fn fresh_seed(test: &str) -> u64 {
    let seed = rand::rng().next_u64();
    println!("{test}: seed {seed}");
    seed
}

#[test]
fn the_perfect_line_delivers_at_once_and_in_order() {
    let mut line = Line::new(Shape::default(), 1);
    for number in 0..1000 {
        assert_eq!(line.push(MS, 1500, number), Fate::Queued);
    }
    assert_eq!(line.next_due(), Some(MS));
    assert_eq!(drain(&mut line, MS), (0..1000).map(|number| (MS, number)).collect::<Vec<_>>());
    assert_eq!((line.next_due(), line.pop(MS * 2)), (None, None));
}

#[test]
fn a_packet_takes_its_bits_at_the_rate_and_then_the_delay() {
    let mut line = Line::new(Shape::default().with_rate(Some(2_000_000)).with_delay(MS * 150), 1);
    for number in 0..3 {
        line.push(MS * 10, 1250, number);
    }
    assert_eq!(line.waiting_bytes(), 2500);
    assert_eq!(drain(&mut line, MS * 1000), vec![(MS * 165, 0), (MS * 170, 1), (MS * 175, 2)]);
    assert_eq!(line.waiting_bytes(), 0);
    // Idle, and then one more: nothing of the idle time is credited.
    line.push(MS * 1000, 1250, 3);
    assert_eq!(drain(&mut line, MS * 2000), vec![(MS * 1155, 3)]);
}

#[test]
fn a_line_that_is_never_idle_carries_its_rate_to_the_bit() {
    // A rate at which no packet takes a whole number of nanoseconds. Rounded up for each packet, a day of them would be a millisecond late.
    let (rate, bytes, packets) = (1_999_993_u64, 1237_u64, 17_461_963_u64);
    let mut line = Line::new(Shape::default().with_rate(Some(rate)), 1);
    let (mut pushed, mut out, mut last) = (0, 0, Duration::ZERO);
    while out < packets {
        while pushed < packets && pushed < out + 50 {
            assert_eq!(line.push(last, 1237, ()), Fate::Queued);
            pushed += 1;
        }
        last = line.next_due().unwrap_or(last);
        while line.pop(last).is_some() {
            out += 1;
        }
    }
    let exact_ns = (u128::from(packets * bytes * 8) * 1_000_000_000).div_ceil(u128::from(rate));
    assert!(exact_ns > 86_400 * 1_000_000_000);
    assert_eq!(last.as_nanos(), exact_ns);
}

#[test]
fn what_does_not_fit_into_the_queue_is_dropped() {
    let mut line = Line::new(Shape::default().with_rate(Some(8000)).with_queue_bytes(3000), 1);
    // One is being sent, three fit, one byte more does not.
    let fates: Vec<Fate> = [1000, 1000, 1000, 1001, 1000, 1].into_iter().map(|bytes| line.push(MS, bytes, ())).collect();
    assert_eq!(fates, [Fate::Queued, Fate::Queued, Fate::Queued, Fate::Overflowed, Fate::Queued, Fate::Overflowed]);
    let counters = line.counters();
    assert_eq!(counters.overflowed, Count { packets: 2, bytes: 1002 });
    assert_eq!(counters.carried(), Count { packets: 4, bytes: 4000 });
    // A second later the first has left.
    assert_eq!(line.push(MS * 1001, 1000, ()), Fate::Queued);
    assert_eq!(line.push(MS * 1001, 1, ()), Fate::Overflowed);
    // An idle line takes what is larger than its queue.
    let mut line = Line::new(Shape::default().with_rate(Some(8000)).with_queue_bytes(0), 1);
    assert_eq!((line.push(MS, 1500, ()), line.push(MS, 1, ())), (Fate::Queued, Fate::Overflowed));
}

#[test]
fn random_loss_has_its_mean_and_uses_the_line() {
    let seed = fresh_seed("random loss");
    let loss = Loss::Random(0.02);
    let mut line = Line::new(Shape::default().with_rate(Some(8_000_000)).with_loss(loss), seed);
    let mut now = Duration::ZERO;
    let mut last = now;
    for number in 0..500_000_u64 {
        line.push(now, 1000, number);
        now += MS;
        last = drain(&mut line, now).last().map_or(last, |(due, _)| *due);
    }
    let counters = line.counters();
    // Ten standard deviations.
    let share = counters.lost.packets as f64 / 500_000.0;
    assert!((share - loss.mean()).abs() < 0.002, "{share}");
    assert_eq!(counters.delivered.packets + counters.lost.packets, 500_000);
    // Each took a millisecond, the lost ones as well.
    assert!(last > MS * 499_000);
    let mut line = Line::new(Shape::default().with_rate(Some(8_000_000)).with_loss(Loss::Random(1.0)), seed);
    assert_eq!(line.push(MS, 1000, 0), Fate::Lost);
    line.set_shape(MS, line.shape().with_loss(Loss::None));
    assert_eq!(line.push(MS, 1000, 1), Fate::Queued);
    assert_eq!(drain(&mut line, MS * 10), vec![(MS * 3, 1)]);
}

#[test]
fn loss_in_bursts_has_its_mean_and_its_bursts() {
    let seed = fresh_seed("loss in bursts");
    for burst in [Burst::of_mean(0.02, 8.0), Burst { enter: 0.01, leave: 0.2, loss: 0.5 }] {
        let mut line = Line::new(Shape::default().with_loss(Loss::Bursts(burst)), seed);
        let lost: Vec<bool> = (0..1_000_000)
            .map(|_| {
                let fate = line.push(MS, 100, ());
                drain(&mut line, MS);
                fate == Fate::Lost
            })
            .collect();
        let share = lost.iter().filter(|lost| **lost).count() as f64 / 1_000_000.0;
        assert!((share - burst.mean()).abs() < burst.mean() * 0.1, "{burst:?}: {share}");
        let after_a_loss = lost.windows(2).filter(|two| two == &[true, true]).count() as f64 / (share * 1_000_000.0);
        let expected = (1.0 - burst.leave) * burst.loss;
        assert!((after_a_loss - expected).abs() < 0.03, "{burst:?}: {after_a_loss} of losses are followed by one");
    }
    assert!((Burst::of_mean(0.02, 8.0).mean() - 0.02).abs() < 1e-12);
    assert!((Burst::of_mean(1.0, 8.0).mean() - 1.0).abs() < 1e-12);
    assert!(Burst::of_mean(0.0, 8.0).mean().abs() < 1e-12);
}

#[test]
fn the_same_seed_plays_the_same_line() {
    let seed = fresh_seed("same seed");
    let shape = Shape::default().with_rate(Some(1_000_000)).with_jitter(MS * 20).with_loss(Loss::Random(0.1));
    let play = |seed| {
        let mut line = Line::new(shape, seed);
        (0..500).for_each(|number| _ = line.push(MS * number, 100, number));
        drain(&mut line, MS * 10_000)
    };
    assert_eq!(play(seed), play(seed));
    assert_ne!(play(seed), play(seed ^ 1));
}

#[test]
fn jitter_delays_by_up_to_itself_and_reorders_only_if_told() {
    let seed = fresh_seed("jitter");
    let shape = Shape::default().with_delay(MS * 100).with_jitter(MS * 50);
    let mut line = Line::new(shape, seed);
    (0..1000_u32).for_each(|number| _ = line.push(MS * 10 * number, 100, number));
    let out = drain(&mut line, MS * 100_000);
    assert!(out.iter().map(|(_, number)| *number).eq(0..1000));
    let delays: Vec<Duration> = out.iter().map(|(due, number)| *due - MS * 10 * *number).collect();
    assert!(delays.iter().all(|delay| (MS * 100..=MS * 150).contains(delay)));
    assert!(delays.iter().max() > delays.iter().min());

    let mut line = Line::new(Shape { reorder: true, ..shape }, seed);
    (0..1000_u32).for_each(|number| _ = line.push(MS * 10 * number, 100, number));
    let mean = {
        let out = drain(&mut line, MS * 100_000);
        assert_eq!(out.len(), 1000);
        assert!(!out.is_sorted_by_key(|(_, number)| *number));
        out.iter().map(|(due, number)| *due - MS * 10 * *number).sum::<Duration>() / 1000
    };
    assert!((MS * 120..MS * 130).contains(&mean), "{mean:?}");
}

#[test]
fn an_outage_drops_what_waits_and_what_comes_and_no_more() {
    let shape = Shape::default().with_rate(Some(8_000_000)).with_delay(MS * 100);
    let mut line = Line::new(shape, 1);
    (0..5).for_each(|number| _ = line.push(Duration::ZERO, 1000, number));
    // Two have left the queue, the third is half sent.
    line.set_shape(Duration::from_micros(2500), shape.with_up(false));
    assert_eq!(line.push(MS * 3, 700, 5), Fate::Down);
    assert_eq!(drain(&mut line, MS * 200), vec![(MS * 101, 0), (MS * 102, 1)]);
    line.set_shape(MS * 300, shape);
    assert_eq!(line.push(MS * 300, 1000, 6), Fate::Queued);
    assert_eq!(drain(&mut line, MS * 1000), vec![(MS * 401, 6)]);
    assert_eq!(line.counters().down, Count { packets: 4, bytes: 3700 });
}

#[test]
fn a_rate_that_changes_holds_for_the_rest_of_a_packet() {
    let shape = Shape::default().with_rate(Some(8_000_000)).with_delay(MS * 100);
    let mut line = Line::new(shape, 1);
    (0..3).for_each(|number| _ = line.push(Duration::ZERO, 1000, number));
    // The second is half sent; the other half takes twice as long, the third all of it.
    line.set_shape(Duration::from_micros(1500), shape.with_rate(Some(4_000_000)));
    assert_eq!(drain(&mut line, MS * 1000), vec![(MS * 101, 0), (Duration::from_micros(102_500), 1), (Duration::from_micros(104_500), 2)]);

    // A line that stands still goes on with what it had.
    line.set_shape(MS * 1000, shape);
    (0..2).for_each(|number| _ = line.push(MS * 1000, 1000, number));
    line.set_shape(MS * 1001, shape.with_rate(Some(0)));
    assert_eq!(drain(&mut line, MS * 5000), vec![(MS * 1101, 0)]);
    assert_eq!(line.next_due(), None);
    line.set_shape(MS * 5000, shape.with_rate(None));
    assert_eq!(drain(&mut line, MS * 6000), vec![(MS * 5100, 1)]);
}

#[test]
fn a_delay_that_becomes_shorter_lets_nobody_pass_unless_told() {
    for reorder in [false, true] {
        let shape = Shape { reorder, ..Shape::default() }.with_delay(MS * 100);
        let mut line = Line::new(shape, 1);
        line.push(Duration::ZERO, 1000, 0);
        line.set_shape(MS * 10, shape.with_delay(MS * 20));
        line.push(MS * 10, 1000, 1);
        let expected = if reorder { vec![(MS * 30, 1), (MS * 100, 0)] } else { vec![(MS * 100, 0), (MS * 100, 1)] };
        assert_eq!(drain(&mut line, MS * 1000), expected);
    }
}

#[test]
fn every_packet_is_accounted_for_whatever_happens() {
    let seed = fresh_seed("accounts");
    let mut rng: rand::rngs::StdRng = rand::SeedableRng::seed_from_u64(seed);
    let mut line = Line::new(Shape::default(), seed);
    let (mut now, mut out, mut queued) = (Duration::ZERO, 0_u64, 0_u64);
    for _ in 0..20_000 {
        now += Duration::from_micros(rng.random_range(0..3000));
        if rng.random_ratio(1, 100) {
            let shape = Shape {
                rate: [None, Some(0), Some(rng.random_range(1..10_000_000))][rng.random_range(0..3)],
                delay: MS * rng.random_range(0..300),
                jitter: MS * rng.random_range(0..30),
                reorder: rng.random(),
                loss: [Loss::None, Loss::Random(0.1), Loss::Bursts(Burst::of_mean(0.1, 5.0))][rng.random_range(0..3)],
                queue_bytes: rng.random_range(0..100_000),
                up: rng.random_ratio(4, 5),
            };
            line.set_shape(now, shape);
        }
        queued += u64::from(line.push(now, rng.random_range(0..1500), ()) == Fate::Queued);
        while line.pop(now).is_some() {
            out += 1;
        }
        let counters = line.counters();
        assert_eq!(counters.delivered.packets, out);
        assert!(line.next_due().is_none_or(|due| due >= now), "what was due has been taken");
    }
    line.set_shape(now, Shape::default());
    out += drain(&mut line, now * 2).iter().map(|_| 1).sum::<u64>();
    let counters = line.counters();
    assert_eq!(counters.on_the_way(), Count::default());
    assert_eq!(counters.offered.packets, 20_000);
    assert_eq!(counters.offered, counters.delivered + counters.dropped());
    assert!(out == counters.delivered.packets && out < queued && counters.overflowed.packets > 0 && counters.down.packets > 0);
    assert!(counters.lost.packets > 0);
}
