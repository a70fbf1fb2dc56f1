//! A budget under random load, kills at any moment, writes that fail or are cut off, and clocks that step: never passed, and not wasted either.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use rand::{Rng, SeedableRng, rngs::StdRng};
use spillway_plan::{Budget, Calendar, Counter, Meter, Open, Rate};

const DATAGRAM: u64 = 1500;

/// Bytes per period, by its beginning.
type Books = BTreeMap<Timestamp, u64>;

/// A site with its disk, its clock and its load.
struct Site {
    rng: StdRng,
    budget: Budget,
    /// The file.
    disk: Option<String>,
    meter: Meter,
    /// Wire bytes of this process.
    total: u64,
    /// A write under way: its text, and looks until it ends.
    write: Option<(String, u32)>,
    time: Timestamp,
    /// How far the clock is behind.
    behind: SignedDuration,
    /// The latest that the clock ever showed, for the oracle.
    shown: Timestamp,
    days: Books,
    months: Books,
    kills: u32,
    steps: u32,
    failures: u32,
    /// Writes take their time, and fail at times.
    bad_disk: bool,
}

impl Site {
    fn new(seed: u64, budget: Budget) -> Self {
        let time = "2026-02-10T05:00:00Z".parse().unwrap();
        let meter = Meter::new(Counter::new(&budget.calendar, time), 0);
        Self {
            rng: StdRng::seed_from_u64(seed),
            disk: None,
            meter,
            total: 0,
            write: None,
            behind: SignedDuration::ZERO,
            shown: time,
            days: Books::new(),
            months: Books::new(),
            kills: 0,
            steps: 0,
            failures: 0,
            bad_disk: true,
            budget,
            time,
        }
    }

    fn clock(&self) -> Timestamp {
        self.time - self.behind
    }

    /// The power goes: what was being written is there or is not.
    fn kill(&mut self) {
        self.kills += 1;
        if let Some((text, _)) = self.write.take()
            && self.rng.random()
        {
            self.disk = Some(text);
        }
        let counter = match &self.disk {
            Some(text) => Counter::from_text(text).unwrap(),
            None => Counter::new(&self.budget.calendar, self.clock()),
        };
        (self.meter, self.total) = (Meter::new(counter, 0), 0);
    }

    /// One look of the agent, and what it sends until the next one.
    fn look(&mut self, wanted: u64, elapsed: Duration) -> Open {
        self.time += SignedDuration::try_from(elapsed).unwrap();
        let now = self.clock();
        self.shown = self.shown.max(now);
        self.meter.observe(&self.budget, self.total, now, elapsed);
        if let Some((text, looks)) = self.write.take() {
            if looks > 0 {
                self.write = Some((text, looks - 1));
            } else {
                let durable = !self.bad_disk || self.rng.random_range(0..20) > 0;
                if durable {
                    self.disk = Some(text)
                } else {
                    self.failures += 1
                }
                self.meter.written(durable);
            }
        }
        if let Some(text) = self.meter.lease(&self.budget) {
            let looks = if self.bad_disk { self.rng.random_range(0..3) } else { 0 };
            self.write = Some((text, looks));
        }
        let pace = self.budget.pace(self.meter.counter(), now);
        let fuse = self.meter.fuse(&self.budget);
        let line = match pace.rate {
            Rate::Off => 0,
            Rate::Unlimited => u64::MAX,
            Rate::Limited(bits) => (bits.get() as f64 / 8.0 * elapsed.as_secs_f64()) as u64,
        };
        let mut sent = 0;
        while pace.open == Open::All && sent < wanted.min(line) && self.total + DATAGRAM <= fuse {
            self.total += DATAGRAM;
            sent += DATAGRAM;
        }
        *self.days.entry(self.budget.calendar.day(self.shown).start).or_default() += sent;
        *self.months.entry(self.budget.calendar.month(self.shown).start).or_default() += sent;
        pace.open
    }
}

fn budget(zone: &str, daily: Option<u64>, monthly: Option<u64>, reserve_percent: u8) -> Budget {
    Budget { calendar: Calendar::new(TimeZone::get(zone).unwrap(), 3), daily, monthly, reserve_percent }
}

fn most(books: &Books) -> u64 {
    books.values().copied().max().unwrap()
}

#[test]
fn no_load_kill_failing_disk_or_clock_passes_a_budget() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let (mut kills, mut steps, mut failures) = (0, 0, 0);
    for case in 0..8 {
        let mut choose = StdRng::seed_from_u64(seed.wrapping_add(case));
        let daily = (case % 2 == 0).then(|| choose.random_range(2_000_000..100_000_000));
        let monthly: u64 = choose.random_range(100_000_000..2_000_000_000);
        let zone = ["Europe/Berlin", "America/New_York", "UTC"][choose.random_range(0..3)];
        let mut site = Site::new(choose.random(), budget(zone, daily, Some(monthly), choose.random_range(0..30)));
        for _ in 0..60_000 {
            let elapsed = Duration::from_millis(site.rng.random_range(10..120_000));
            let wanted =
                if site.rng.random_range(0..3) == 0 { site.rng.random_range(0..20_000_000) } else { site.rng.random_range(0..50_000) };
            site.look(wanted, elapsed);
            if site.rng.random_range(0..3000) == 0 {
                site.kill();
            }
            match site.rng.random_range(0..2000) {
                // A clock without a battery, one that is set by hand, and one that the network puts right.
                0 => site.behind = SignedDuration::from_hours(24 * 365 * 50),
                1 => site.behind = SignedDuration::from_mins(site.rng.random_range(1..600)),
                2..20 => site.behind = SignedDuration::ZERO,
                _ => continue,
            }
            site.steps += 1;
        }
        let of_days = daily.map(|daily| most(&site.days) as f64 / daily as f64);
        let of_months = most(&site.months) as f64 / monthly as f64;
        println!("{zone} daily {daily:?} monthly {monthly}: {of_days:?} of a day, {of_months} of a month, {} kills", site.kills);
        assert!(of_days.is_none_or(|part| part <= 1.005) && of_months <= 1.005, "seed {seed}, case {case}");
        (kills, steps, failures) = (kills + site.kills, steps + site.steps, failures + site.failures);
    }
    assert!(kills > 20 && steps > 100 && failures > 100, "seed {seed}: {kills} kills, {steps} steps, {failures} failed writes");
}

#[test]
fn a_hungry_site_uses_its_budget_and_not_before_the_end() {
    for (daily, monthly, reserve) in [(Some(50_000_000), None, 0), (None, Some(3_000_000_000), 0), (Some(20_000_000), None, 20)] {
        let mut site = Site::new(7, budget("Europe/Berlin", daily, monthly, reserve));
        let start = site.time;
        let mut halves = Books::new();
        while site.time < start + SignedDuration::from_hours(24 * 70) {
            let before = site.total;
            site.look(u64::MAX / 2, Duration::from_secs(5));
            let period = if daily.is_some() { site.budget.calendar.day(site.shown) } else { site.budget.calendar.month(site.shown) };
            if period.start.duration_until(site.shown) * 2 < period.length() {
                *halves.entry(period.start).or_default() += site.total - before;
            }
        }
        let (books, limit) = if daily.is_some() { (&site.days, daily) } else { (&site.months, monthly) };
        let usable = limit.unwrap() as f64 * f64::from(100 - reserve) / 100.0;
        // The first and the last period are not whole.
        for (start, bytes) in books.iter().skip(1).take(books.len() - 2) {
            let (part, half) = (*bytes as f64 / usable, halves[start] as f64 / usable);
            assert!((0.97..=1.005).contains(&part), "{start}: {part} of what is usable");
            assert!(half < 0.58, "{start}: {half} in the first half");
        }
    }
}

#[test]
fn an_even_load_within_the_budget_is_never_held() {
    let mut site = Site::new(7, budget("America/New_York", Some(40_000_000), Some(1_300_000_000), 5));
    site.bad_disk = false;
    let mut owed = 0.0;
    for minute in 0..60 * 24 * 40 {
        owed += 36_000_000.0 / 1440.0;
        let before = site.total;
        let open = site.look(owed as u64, Duration::from_secs(60));
        owed -= (site.total - before) as f64;
        assert!(owed < 200_000.0 && open == Open::All, "minute {minute}: {owed} bytes wait, {open:?}");
    }
    assert_eq!(site.budget.runs_out(site.meter.counter(), site.clock()), None);
}

#[test]
fn the_day_it_runs_out_is_foretold() {
    let budget = budget("UTC", None, Some(100_000_000), 0);
    let mut counter = Counter::new(&budget.calendar, "2026-03-03T00:00:00Z".parse().unwrap());
    counter.add(40_000_000);
    let out = budget.runs_out(&counter, "2026-03-08T00:00:00Z".parse().unwrap()).unwrap();
    // 8 MB a day: 60 MB last for seven and a half days.
    assert_eq!(out.to_string(), "2026-03-15T12:00:00Z");
    counter = Counter::new(&budget.calendar, "2026-03-03T00:00:00Z".parse().unwrap());
    counter.add(16_000_000);
    assert_eq!(budget.runs_out(&counter, "2026-03-08T00:00:00Z".parse().unwrap()), None);
}

#[test]
fn what_is_kept_for_alarms_is_for_them_only() {
    let budget = budget("UTC", Some(10_000_000), None, 10);
    let now = "2026-03-03T23:00:00Z".parse().unwrap();
    let mut counter = Counter::new(&budget.calendar, now);
    counter.add(8_990_000);
    assert_eq!(budget.pace(&counter, now).open, Open::All);
    counter.add(10_000);
    assert_eq!(budget.pace(&counter, now).open, Open::Highest);
    counter.add(992_000);
    let pace = budget.pace(&counter, now);
    assert_eq!((pace.open, pace.rate, pace.until), (Open::Nothing, Rate::Off, Some("2026-03-04T00:00:00Z".parse().unwrap())));
}

#[test]
fn a_month_that_is_used_up_leaves_a_look_for_each_day() {
    for (limit, days_apart) in [(100_000_000_u64, 1), (5_000_000, 2), (1_000_000, 8)] {
        let budget = budget("UTC", None, Some(limit), 0);
        let start: Timestamp = "2026-03-03T00:00:00Z".parse().unwrap();
        let end: Timestamp = "2026-04-03T00:00:00Z".parse().unwrap();
        let mut counter = Counter::new(&budget.calendar, start);
        let (mut now, mut looks, mut was_off) = (start, Vec::new(), false);
        while now < end {
            // It sends whatever it may, as class 0 does.
            while budget.pace(&counter, now).open != Open::Nothing {
                if was_off {
                    looks.push(now);
                    was_off = false;
                }
                counter.add(500);
            }
            let until = budget.pace(&counter, now).until.unwrap();
            assert!(until > now && until <= end, "{limit}: off at {now} until {until}");
            (was_off, now) = (true, until);
        }
        assert!(budget.left(&counter) < 8192.max(limit / 400) && budget.left(&counter) > 0, "{limit}: {}", budget.left(&counter));
        let expected = 31 / days_apart;
        assert!(looks.len().abs_diff(expected) <= 1, "{limit}: {} looks, {expected} expected: {looks:?}", looks.len());
        for pair in looks.windows(2) {
            assert_eq!(pair[0].duration_until(pair[1]), SignedDuration::from_hours(24 * days_apart as i64), "{limit}: {looks:?}");
        }
    }
}
