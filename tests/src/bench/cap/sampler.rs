//! What any 10 s carried, from packets with their times, or from bytes that are looked at every millisecond or two while something runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use spillway_link::Counting;

/// The span that a cap is about.
const SPAN: Duration = Duration::from_secs(10);

/// In percent of what the rate allows, less 100; and the share of the line that was used.
#[derive(Debug, Clone, Copy)]
pub struct Figures {
    /// The most that any 10 s carried.
    pub most: f64,
    least: f64,
    used: f64,
    lost: u64,
}

impl Figures {
    /// A row of the table.
    #[must_use]
    pub fn line(&self, bits: u64, counting: Counting) -> String {
        let counts = if counting == Counting::Both { "both" } else { "sent" };
        let Self { most, least, used, lost } = self;
        format!("{bits:>8} bit/s  {counts}    {most:>+8.2} %    {least:>+8.2} %    {used:>5.1} %  {lost:>6}")
    }
}

/// Bytes so far, and when: since any fixed moment.
pub type Samples = Vec<(Duration, u64)>;

/// The sum at each of the packets, in the order of their times.
#[must_use]
pub fn running(mut packets: Vec<(Duration, u64)>) -> Samples {
    packets.sort_unstable();
    let mut sum = 0;
    packets.iter_mut().for_each(|(_, bytes)| {
        sum += *bytes;
        *bytes = sum;
    });
    packets
}

/// Looks while it lives.
#[derive(Debug)]
pub struct Sampler {
    begun: Instant,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Samples>,
}

impl Sampler {
    /// `count` answers the bytes so far.
    pub fn start(count: impl Fn() -> u64 + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (begun, stopped) = (Instant::now(), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let mut samples = Samples::new();
            while !stopped.load(Ordering::Relaxed) {
                let bytes = count();
                let now = begun.elapsed();
                if samples.last().is_none_or(|(_, last)| *last != bytes) {
                    samples.push((now, bytes));
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            samples
        });
        Self { begun, stop, thread }
    }

    /// How long it has looked: the time of a sample that were taken now.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    /// What it has seen.
    ///
    /// # Errors
    /// When it has panicked.
    pub fn stop(self) -> Result<Samples> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow!("the sampler has panicked"))
    }
}

/// The most: from a sample on, its own packets included, up to the last one before 10 s have passed. The least: after a sample, its own packets not included, as
/// far; not in the first 10 s, in which what the handshake received is paid for.
#[must_use]
pub fn figures(samples: &[(Duration, u64)], bits: u64, lost: u64) -> Figures {
    let allowed = bits as f64 / 8.0 * SPAN.as_secs_f64();
    let (mut most, mut least) = (0, u64::MAX);
    let mut after = 0;
    for (index, (from, before)) in samples.iter().enumerate() {
        while after < samples.len() && samples[after].0 < *from + SPAN {
            after += 1;
        }
        let until = samples[after.max(1) - 1].1;
        most = most.max(until - index.checked_sub(1).map_or(*before, |last| samples[last].1));
        if after < samples.len() && samples.first().is_some_and(|(begun, _)| *from >= *begun + SPAN) {
            least = least.min(until - before);
        }
    }
    let (first, last) = (samples.first(), samples.last());
    let used = first.zip(last).map_or(0.0, |(first, last)| {
        (last.1 - first.1) as f64 * 8.0 / bits as f64 / last.0.saturating_sub(first.0).as_secs_f64().max(f64::EPSILON) * 100.0
    });
    let percent = |bytes: u64| (bytes as f64 / allowed - 1.0) * 100.0;
    Figures { most: percent(most), least: percent(least), used, lost }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_ten_seconds_are_found() {
        // 1,000 bytes a second, and a burst of 500 at 15 s.
        let bytes = |second: u64| 1000 * second + if second >= 15 { 500 } else { 0 };
        let samples: Samples = (0..40).map(|second| (Duration::from_secs(second), bytes(second))).collect();
        let Figures { most, least, .. } = figures(&samples, 8_000, 0);
        // Ten of the packets; nine lie between two that are 10 s apart.
        assert!((most - 5.0).abs() < 1e-9 && (least + 10.0).abs() < 1e-9, "{most} {least}");
    }

    #[test]
    fn packets_are_summed_in_the_order_of_their_times() {
        let at = Duration::from_secs;
        assert_eq!(running(vec![(at(1), 10), (at(4), 5), (at(2), 7)]), [(at(1), 10), (at(2), 17), (at(4), 22)]);
    }
}
