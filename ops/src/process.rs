//! Memory, CPU and files of this process, as every Prometheus client names them. Linux's `/proc`; elsewhere there are none.

use std::{fmt, fs};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
    registry::Unit,
};

/// Ticks a second in `/proc/*/stat`. Linux fixes it at 100 for user space on every architecture we build for (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

/// Reads `/proc` at each scrape. What cannot be read is left out.
#[derive(Debug)]
pub(crate) struct ProcessCollector {
    /// Seconds since 1970 at which the process began; constant.
    start_seconds: Option<f64>,
}

impl ProcessCollector {
    pub(crate) fn new() -> Self {
        Self { start_seconds: start_seconds() }
    }
}

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let sample = Sample::read();
        let mut gauge = |name: &str, help: &str, unit: Option<&Unit>, value: Option<f64>| -> fmt::Result {
            let Some(value) = value else { return Ok(()) };
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, unit, gauge.metric_type())?)
        };
        gauge("process_resident_memory", "Memory in RAM.", Some(&Unit::Bytes), sample.resident_bytes)?;
        gauge("process_virtual_memory", "Address space.", Some(&Unit::Bytes), sample.virtual_bytes)?;
        gauge("process_resident_memory_max", "Highest memory in RAM so far.", Some(&Unit::Bytes), sample.peak_bytes)?;
        gauge("process_threads", "Threads.", None, sample.threads)?;
        gauge("process_open_fds", "Open file descriptors.", None, sample.open_files)?;
        gauge("process_max_fds", "Most file descriptors allowed.", None, sample.max_files)?;
        gauge("process_start_time", "Start, since 1970.", Some(&Unit::Seconds), self.start_seconds)?;
        if let Some(seconds) = sample.cpu_seconds {
            let counter = ConstCounter::new(seconds);
            let help = "User and system time.";
            counter.encode(encoder.encode_descriptor("process_cpu", help, Some(&Unit::Seconds), counter.metric_type())?)?;
        }
        Ok(())
    }
}

/// What `/proc/self` says now.
#[derive(Debug, Default)]
struct Sample {
    resident_bytes: Option<f64>,
    peak_bytes: Option<f64>,
    virtual_bytes: Option<f64>,
    threads: Option<f64>,
    cpu_seconds: Option<f64>,
    open_files: Option<f64>,
    max_files: Option<f64>,
}

impl Sample {
    fn read() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
        let kib = |key| status_field(&status, key).map(|kib| kib * 1024.0);
        Self {
            resident_bytes: kib("VmRSS:"),
            peak_bytes: kib("VmHWM:"),
            virtual_bytes: kib("VmSize:"),
            threads: status_field(&status, "Threads:"),
            cpu_seconds: stat_ticks(CPU_FIELDS).map(|ticks| ticks / TICKS_PER_SECOND),
            // Reading the folder opens one more, which is not the process's own.
            open_files: fs::read_dir("/proc/self/fd").ok().map(|files| files.count().saturating_sub(1) as f64),
            max_files: limits
                .lines()
                .find_map(|line| line.strip_prefix("Max open files"))
                .and_then(|line| line.split_whitespace().next()?.parse().ok()),
        }
    }
}

/// The number behind `key` in `/proc/self/status`, in the unit that the file uses.
fn status_field(status: &str, key: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse().ok()
}

/// utime and stime, as positions in `/proc/self/stat` counted from the state (proc(5) numbers the state 3).
const CPU_FIELDS: &[usize] = &[14 - 3, 15 - 3];

/// starttime, counted likewise.
const START_FIELDS: &[usize] = &[22 - 3];

/// The sum of these fields of `/proc/self/stat`.
fn stat_ticks(fields: &[usize]) -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the program's name in brackets and may hold anything; what follows the last bracket is regular.
    let (_, rest) = stat.rsplit_once(')')?;
    let values: Vec<&str> = rest.split_whitespace().collect();
    fields.iter().map(|field| values.get(*field)?.parse::<f64>().ok()).sum()
}

fn start_seconds() -> Option<f64> {
    let boot = fs::read_to_string("/proc/stat").ok()?;
    let boot: f64 = boot.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(boot + stat_ticks(START_FIELDS)? / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;

    #[test]
    fn this_process_is_described() {
        let ballast = vec![1_u8; 32 << 20];
        let sample = Sample::read();
        assert!(sample.resident_bytes.unwrap() > ballast.len() as f64, "{sample:?}");
        assert!(sample.peak_bytes.unwrap() >= sample.resident_bytes.unwrap() * 0.9, "{sample:?}");
        assert!(sample.virtual_bytes.unwrap() > sample.resident_bytes.unwrap(), "{sample:?}");
        assert!(sample.threads.unwrap() >= 1.0, "{sample:?}");
        assert!(sample.open_files.unwrap() >= 3.0 && sample.open_files < sample.max_files, "{sample:?}");
        assert!(sample.cpu_seconds.is_some(), "{sample:?}");
        drop(ballast);

        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        let age = now - start_seconds().unwrap();
        assert!((-2.0..600.0).contains(&age), "started {age} s ago");
    }
}
