use super::*;

/// A machine and a line in virtual time: records come, are compressed as fast as the processor can, and wait for the line.
struct World {
    levels: Levels,
    now: Instant,
    /// Raw bytes a second that a level takes from one whole processor.
    speeds: [f64; RUNGS.len()],
    ratios: [f64; RUNGS.len()],
    /// Raw bytes a second that come in.
    incoming: f64,
    /// Bytes a second that the line carries.
    line: f64,
    unread: f64,
    waiting: f64,
    /// Bytes that may wait before compressing stops.
    window: f64,
    changes: u32,
}

impl World {
    fn new(speeds: [f64; RUNGS.len()], incoming: f64, line: f64) -> Self {
        let now = Instant::now();
        let ratios = [5.7, 13.5, 13.7, 13.7, 13.8];
        Self { levels: Levels::new(None, now), now, speeds, ratios, incoming, line, unread: 0.0, waiting: 0.0, window: 16e6, changes: 0 }
    }

    fn second(&mut self) {
        let before = self.levels.level();
        let rung = RUNGS.iter().position(|level| *level == before).unwrap_or(0);
        for _ in 0..10 {
            self.unread += self.incoming / 10.0;
            let room = ((self.window - self.waiting) * self.ratios[rung]).max(0.0);
            let raw = self.unread.min(self.speeds[rung] / 10.0).min(room);
            self.unread -= raw;
            self.waiting += raw / self.ratios[rung];
            self.levels.encoded(raw as usize, (raw / self.ratios[rung]) as usize, Duration::from_secs_f64(raw / self.speeds[rung]));
            let carried = self.waiting.min(self.line / 10.0);
            self.waiting -= carried;
        }
        self.now += Duration::from_secs(1);
        self.levels.line(Line { waiting_bytes: self.waiting as u64, bytes_per_second: (self.line > 0.0).then_some(self.line as u64) });
        self.levels.decide(self.now);
        self.changes += u32::from(self.levels.level() != before);
    }

    fn run(&mut self, seconds: u32) -> i32 {
        (0..seconds).for_each(|_| self.second());
        self.levels.level()
    }
}

/// Measured on x86 with telemetry, raw bytes a second; a gateway's ARM takes about eight times as long.
const X86: [f64; RUNGS.len()] = [400e6, 190e6, 150e6, 140e6, 110e6];

fn gateway() -> [f64; RUNGS.len()] {
    X86.map(|speed| speed / 8.0)
}

#[test]
fn a_backlog_before_a_thin_line_is_compressed_as_far_as_can_be() {
    for speeds in [X86, gateway()] {
        let mut world = World::new(speeds, 1e6, 250e3);
        world.unread = 2e9;
        assert_eq!(world.run(30), 12);
        assert_eq!(world.run(600), 12);
        assert_eq!(world.changes, 3);
    }
}

#[test]
fn a_machine_too_slow_for_the_line_does_not_hold_it_up() {
    // 10 Mbit/s carry 17 MB/s of raw telemetry; this machine makes 6 at level 12, and 40 at level 3.
    let mut world = World::new([100e6, 40e6, 20e6, 12e6, 6e6], 100e6, 1.25e6);
    world.window = 4e6;
    let level = world.run(120);
    assert!((3..=6).contains(&level), "{level}");
    assert!(world.waiting > 0.5 * world.line, "the line never waits for the processor");
    assert!(world.changes <= 1, "{} changes: it does not have to try what cannot be", world.changes);
}

#[test]
fn a_fast_line_with_much_to_do_takes_the_cheapest_level() {
    let mut world = World::new(gateway(), 40e6, 125e6);
    assert_eq!(world.run(60), 1);
    assert!(world.changes <= 5, "{} changes", world.changes);
}

#[test]
fn a_trickle_on_a_fast_line_is_compressed_well_because_it_costs_nothing() {
    assert_eq!(World::new(gateway(), 100e3, 12e6).run(60), 12);
}

#[test]
fn load_at_the_limit_does_not_make_it_swing() {
    for incoming in (1..60).map(|million| f64::from(million) * 1e6) {
        let mut world = World::new(gateway(), incoming, 125e6);
        world.run(3600);
        assert!(world.changes <= 20, "{} changes in an hour at {incoming} bytes/s", world.changes);
    }
}

#[test]
fn it_follows_when_the_line_gets_thin_and_wide_again() {
    let mut world = World::new(gateway(), 20e6, 125e6);
    assert!(world.run(60) <= 3);
    world.line = 100e3;
    world.window = 1e9;
    assert_eq!(world.run(700), 12);
    (world.line, world.waiting) = (125e6, 0.0);
    assert!(world.run(60) <= 6);
}

#[test]
fn a_fixed_level_stays() {
    let mut world = World::new(gateway(), 100e3, 12e6);
    world.levels = Levels::new(Some(7), world.now);
    assert_eq!(world.run(60), 7);
}

#[test]
fn without_a_session_it_stays_as_it_is() {
    let mut world = World::new(gateway(), 1e6, 0.0);
    assert_eq!((world.run(600), world.changes), (3, 0));
}
