#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;

const SPAN: Duration = Duration::from_secs(10);

/// IPv4 and UDP headers, and QUIC's least largest datagram.
const DATAGRAM: u32 = 28 + 1200;

fn rate(bits: u64) -> BitRate {
    BitRate::new(bits).unwrap()
}

/// Random numbers without a dependency: splitmix64.
struct Random(u64);

impl Random {
    fn new() -> Self {
        let seed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
        println!("seed {seed}");
        Self(seed)
    }

    fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % most
    }
}

/// What passed: when, how many bytes.
type Log = Vec<(Instant, u32)>;

/// Sends whenever the cap allows, for `span`; wakes late, as timers do.
async fn saturate(cap: &RateCap, span: Duration, mut size: impl FnMut() -> u32, mut late: impl FnMut() -> Duration) -> Log {
    let end = Instant::now() + span;
    let (mut log, mut next) = (Log::new(), size());
    while Instant::now() < end {
        match cap.take(next) {
            Ok(()) => {
                log.push((Instant::now(), next));
                next = size();
            }
            Err(until) => tokio::time::sleep_until((until + late()).min(end)).await,
        }
    }
    log
}

async fn saturate_fixed(cap: &RateCap, span: Duration) -> u64 {
    saturate(cap, span, || 1500, || Duration::ZERO).await.iter().map(|(_, bytes)| u64::from(*bytes)).sum()
}

/// The least and the most bytes in any 10 s, from whole datagrams; those of the first and the last 10 s that are not whole do not count.
fn windows(log: &Log) -> (u64, u64) {
    let (mut least, mut most) = (u64::MAX, 0);
    let end = log.last().unwrap().0;
    let mut after = 0;
    let mut sum = 0_u64;
    for (index, (from, bytes)) in log.iter().enumerate() {
        while after < log.len() && log[after].0 < *from + SPAN {
            sum += u64::from(log[after].1);
            after += 1;
        }
        most = most.max(sum);
        sum -= u64::from(*bytes);
        // Just after a datagram a span of 10 s sees the least: up to the last one before its end.
        if *from + SPAN < end && index > 0 {
            let until = *from + SPAN;
            let tail: u64 = log[after..].iter().take_while(|(at, _)| *at <= until).map(|(_, bytes)| u64::from(*bytes)).sum();
            least = least.min(sum + tail);
        }
    }
    (least, most)
}

#[tokio::test(start_paused = true)]
async fn any_ten_seconds_hold_what_the_rate_allows_and_no_more() {
    let mut random = Random::new();
    let mut late = Random(random.0 ^ 1);
    for bits in [8_000, 64_000, 256_000, 300_000, 1_000_000, 10_000_000] {
        for fixed in [true, false] {
            let cap = RateCap::new(Some(rate(bits)));
            let size = || if fixed { DATAGRAM } else { 60 + random.below(u64::from(DATAGRAM) - 59) as u32 };
            let log = saturate(&cap, Duration::from_secs(120), size, || Duration::from_micros(late.below(2000))).await;
            let (least, most) = windows(&log);
            let line = (bits / 8 * 10) as f64;
            let (low, high) = (least as f64 / line - 1.0, most as f64 / line - 1.0);
            println!("{bits} bit/s, fixed {fixed}: {:.2} % to {:+.2} %", low * 100.0, high * 100.0);
            assert!(high <= 0.02, "{bits} bit/s: {most} bytes in 10 s");
            // Whole datagrams: a window that begins right after one and ends right before another sees one less; and where sizes differ, a large one
            // may not have fitted in.
            let missing = 0.02 + f64::from(DATAGRAM) / line * if fixed { 1.0 } else { 2.0 };
            assert!(-low <= missing, "{bits} bit/s: {least} bytes in 10 s");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_sender_that_is_held_up_before_the_socket_keeps_the_rate() {
    let mut random = Random::new();
    for (bits, counting) in [8_000, 64_000, 256_000, 300_000, 1_000_000]
        .into_iter()
        .flat_map(|bits| [Counting::Sent, Counting::Both].map(|counting| (bits, counting)))
    {
        let cap = RateCap::new(Some(rate(bits)));
        cap.set_counting(counting);
        let end = Instant::now() + Duration::from_secs(600);
        let (mut log, mut held_up) = (Log::new(), 0);
        while Instant::now() < end {
            match cap.take(DATAGRAM) {
                Ok(()) => {
                    // The processor is taken away: before the datagram leaves, and before that is known.
                    if random.below(20) == 0 {
                        held_up += 1;
                        tokio::time::advance(Duration::from_micros(random.below(300_000))).await;
                    }
                    log.push((Instant::now(), DATAGRAM));
                    if counting == Counting::Both && random.below(2) == 0 {
                        cap.received(75);
                        log.push((Instant::now(), 75));
                    }
                    if random.below(100) == 0 {
                        tokio::time::advance(Duration::from_micros(random.below(100_000))).await;
                    }
                    cap.left();
                }
                // And it comes back late.
                Err(until) => tokio::time::sleep_until(until + Duration::from_micros(random.below(50_000))).await,
            }
        }
        let (_, most) = windows(&log);
        let line = (bits / 8 * 10) as f64;
        println!("{bits} bit/s, {counting:?}: {:+.2} %, held up {held_up} times", (most as f64 / line - 1.0) * 100.0);
        assert!(held_up > 10);
        assert!(most as f64 <= line * 1.02, "{bits} bit/s, {counting:?}: {most} bytes in 10 s");
    }
}

#[tokio::test(start_paused = true)]
async fn both_directions_together_keep_the_rate() {
    let mut random = Random::new();
    for bits in [8_000, 64_000, 1_000_000, 10_000_000] {
        let cap = RateCap::new(Some(rate(bits)));
        cap.set_counting(Counting::Both);
        let end = Instant::now() + Duration::from_secs(120);
        let mut log = Log::new();
        while Instant::now() < end {
            match cap.take(DATAGRAM) {
                Ok(()) => {
                    log.push((Instant::now(), DATAGRAM));
                    // About every other datagram is acknowledged, with a small one.
                    if random.below(2) == 0 {
                        cap.received(75);
                        log.push((Instant::now(), 75));
                    }
                }
                Err(until) => tokio::time::sleep_until(until).await,
            }
        }
        let (least, most) = windows(&log);
        let line = (bits / 8 * 10) as f64;
        println!("{bits} bit/s: {least} to {most} of {line} bytes");
        assert!(most as f64 <= line * 1.02, "{bits} bit/s: {most} bytes in 10 s");
        assert!(least as f64 >= line * 0.98 - 2.0 * f64::from(DATAGRAM), "{bits} bit/s: {least} bytes in 10 s");
        let sum: u64 = log.iter().map(|(_, bytes)| u64::from(*bytes)).sum();
        assert_eq!(cap.spent(), sum);
    }
}

#[tokio::test(start_paused = true)]
async fn a_flood_from_outside_does_not_stop_sending() {
    for bits in [8_000, 1_000_000] {
        let cap = RateCap::new(Some(rate(bits)));
        cap.set_counting(Counting::Both);
        let begin = Instant::now();
        let (mut during, mut after) = (0, 0);
        while begin.elapsed() < Duration::from_secs(120) {
            // Ten times what the line may carry: then nothing any more.
            let flood = begin.elapsed() < Duration::from_secs(60);
            if flood {
                cap.received(bits / 8);
            }
            let next = Instant::now() + Duration::from_millis(100);
            while Instant::now() < next {
                match cap.take(DATAGRAM) {
                    Ok(()) if flood => during += DATAGRAM,
                    Ok(()) => after += DATAGRAM,
                    Err(until) => tokio::time::sleep_until(until.min(next)).await,
                }
            }
        }
        let minute = bits as f64 / 8.0 * 60.0;
        let (during, after) = (f64::from(during) / minute, f64::from(after) / minute);
        println!("{bits} bit/s: {during} of the line during the flood, {after} after it");
        assert!((0.1..0.6).contains(&during) && after > 0.8, "{bits} bit/s: {during} during, {after} after");
    }
}

#[tokio::test(start_paused = true)]
async fn changing_the_rate_often_admits_nothing_extra() {
    let cap = RateCap::new(Some(rate(64_000)));
    let mut sent = 0;
    for round in 0..1000 {
        cap.set_rate(Some(rate(64_000 + round % 2)));
        sent += saturate_fixed(&cap, Duration::from_millis(20)).await;
    }
    assert!((155_000..=161_500).contains(&sent), "{sent} bytes in 20 s at 64 kbit/s");
}

#[tokio::test(start_paused = true)]
async fn what_the_socket_did_not_take_is_not_paid_twice() {
    let cap = RateCap::new(Some(rate(64_000)));
    tokio::time::sleep(Duration::from_secs(1)).await;
    for _ in 0..100 {
        cap.take(1500).unwrap();
        cap.give_back(1500);
    }
    assert_eq!(cap.spent(), 0);
    cap.take(1500).unwrap();
    cap.take(1500).unwrap_err();
    assert_eq!(cap.spent(), 1500);
}

#[tokio::test(start_paused = true)]
async fn an_unlimited_cap_never_blocks() {
    let cap = RateCap::new(None);
    for _ in 0..10_000 {
        cap.take(65_000).unwrap();
    }
    assert_eq!(cap.blocked_until(Instant::now()), None);
}

#[tokio::test(start_paused = true)]
async fn a_fuse_and_a_stop_let_nothing_through() {
    let cap = RateCap::new(None);
    cap.set_fuse(Some(3000));
    cap.take(1500).unwrap();
    cap.take(1501).unwrap_err();
    cap.take(1500).unwrap();
    cap.take(1).unwrap_err();
    assert!(cap.blocked_until(Instant::now()).is_some());
    cap.set_fuse(Some(4000));
    assert_eq!(cap.blocked_until(Instant::now()), None);
    cap.take(1000).unwrap();
    cap.set_fuse(None);
    cap.set_stopped(true);
    cap.take(1).unwrap_err();
    cap.set_stopped(false);
    cap.take(1).unwrap();
    assert_eq!(cap.spent(), 4001);
}

#[tokio::test(start_paused = true)]
async fn no_rate_is_too_slow_or_too_fast_to_count() {
    for bits in [1, 500, 1_000_000_000, u64::MAX] {
        let cap = RateCap::new(Some(rate(bits)));
        cap.take(1500).unwrap();
        if let Err(until) = cap.take(1500) {
            // At least its time on the line; on the slowest the window, which is shorter, comes on top of it.
            let line = 12_000.0 / bits as f64;
            assert!((until - Instant::now()).as_secs_f64() >= line, "{bits} bit/s");
        }
        tokio::time::sleep(Duration::from_secs(100_000)).await;
        cap.take(1500).unwrap();
    }
}
