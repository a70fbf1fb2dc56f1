//! A month of a budget in simulated time: the real decisions and the real counter, a hungry site, kills at any moment.

use std::time::Duration;

use anyhow::{Result, anyhow};
use rand::{Rng, SeedableRng, rngs::StdRng};
use spillway_plan::{Budget, Calendar, Counter, Meter, Open, Rate};

/// Between two looks of the agent at its clock. The real one looks once a second.
const LOOK: Duration = Duration::from_secs(5);

const DATAGRAM: u64 = 1_228;

/// What a budget may be passed by, in percent.
const PROMISE_PERCENT: f64 = 0.5;

/// Runs it for some loads. Answers whether no budget was passed.
///
/// # Errors
/// When the time zone is not known.
pub fn run(seed: u64) -> Result<bool> {
    println!("a month with 300 MB, a day with 15 MB, simulated (seed {seed})");
    println!("load                       kills  of the month  of the fullest day  first half");
    let mut kept = true;
    for (name, load, kills_a_day) in
        [("as much as goes", u64::MAX, 0.0), ("as much as goes", u64::MAX, 3.0), ("9 MB a day", 9_000_000, 3.0)]
    {
        let month = simulate(seed, load, kills_a_day)?;
        println!("{name:<26} {:>5}  {:>10.2} %  {:>16.2} %  {:>8.1} %", month.kills, month.of_month, month.of_day, month.first_half);
        kept &= month.of_month <= 100.0 + PROMISE_PERCENT && month.of_day <= 100.0 + PROMISE_PERCENT;
    }
    Ok(kept)
}

/// In percent of the budget.
struct Month {
    kills: u32,
    of_month: f64,
    of_day: f64,
    first_half: f64,
}

fn simulate(seed: u64, load_a_day: u64, kills_a_day: f64) -> Result<Month> {
    let (daily, monthly) = (15_000_000, 300_000_000);
    let calendar = Calendar::new(jiff::tz::TimeZone::get("Europe/Berlin")?, 1);
    let budget = Budget { calendar: calendar.clone(), daily: Some(daily), monthly: Some(monthly), reserve_percent: 0 };
    // With a change of the clock in it.
    let within = "2026-03-15T12:00:00Z".parse()?;
    let month = calendar.month(within);
    let looks = month.length().as_secs().unsigned_abs() / LOOK.as_secs();
    let mut rng = StdRng::seed_from_u64(seed);
    let mut disk: Option<String> = None;
    let (mut meter, mut total, mut kills) = (Meter::new(Counter::new(&calendar, month.start), 0), 0_u64, 0);
    let (mut used, mut used_today, mut fullest, mut first_half, mut waits) = (0_u64, 0_u64, 0_u64, 0_u64, 0.0);
    let mut today = calendar.day(month.start);
    for look in 0..looks {
        let now = month.start + jiff::SignedDuration::try_from(LOOK)? * i32::try_from(look)?;
        if now >= today.end {
            (today, used_today) = (calendar.day(now), 0);
        }
        if rng.random_bool(kills_a_day / (86_400.0 / LOOK.as_secs_f64())) {
            let counter = disk.as_deref().map_or_else(|| Ok(Counter::new(&calendar, now)), Counter::from_text);
            (meter, total, kills) = (Meter::new(counter.map_err(|error| anyhow!(error))?, 0), 0, kills + 1);
        }
        meter.observe(&budget, total, now, LOOK);
        if let Some(text) = meter.lease(&budget) {
            disk = Some(text);
            meter.written(true);
        }
        let pace = budget.pace(meter.counter(), now);
        let line = match pace.rate {
            _ if pace.open != Open::All => 0,
            Rate::Off => 0,
            Rate::Limited(bits) => bits.get() * LOOK.as_secs() / 8,
            Rate::Unlimited => u64::MAX,
        };
        waits += load_a_day as f64 * LOOK.as_secs_f64() / 86_400.0;
        let most = line.min(meter.fuse(&budget).saturating_sub(total)).min(waits as u64);
        let sent = most - most % DATAGRAM;
        (total, used, used_today, waits) = (total + sent, used + sent, used_today + sent, waits - sent as f64);
        fullest = fullest.max(used_today);
        first_half += if look < looks / 2 { sent } else { 0 };
    }
    let percent = |bytes: u64, of: u64| bytes as f64 * 100.0 / of as f64;
    Ok(Month { kills, of_month: percent(used, monthly), of_day: percent(fullest, daily), first_half: percent(first_half, monthly) })
}
