//! A small C library, compiled by the lab and preloaded into one process: it sets the process' clock, or makes its disk slow.
//!
//! What it covers:
//! - **Clock**: `clock_gettime(CLOCK_REALTIME)`, `gettimeofday`, `time`, `timespec_get`, and waits until a time of day
//!   (`cnd_timedwait`, which librdkafka uses, and `pthread_cond_timedwait`), also those that began before the clock was set: they behave as under a kernel whose
//!   clock is set. Not covered: system calls without libc, of which the agent makes none for the time of day; monotonic clocks are left alone.
//! - **Disk**: each `write`, `pwrite`, `writev`, `pwritev`, `fsync` and `fdatasync` of a regular file takes longer. Not covered: pages written
//!   through `mmap`, which Kafka uses for its indexes only, and reads.
//!
//! The lab and the library talk through a small file that both have mapped or write: two settings, and two counters that prove the effect.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};

use crate::process::run;
use crate::reaper::scratch_dir;

/// The library's source.
const SOURCE: &str = include_str!("shim.c");

/// The variable from which the library has its control file's name.
const VARIABLE: &str = "LAB_SHIM";

/// Places in the control file, in the order of `struct control`.
const CLOCK_MS: u64 = 0;
const WRITE_US: u64 = 8;
const CLOCK_READS: u64 = 16;
const SLOW_WRITES: u64 = 24;
const CONTROL_BYTES: u64 = 32;

/// In whose environment this is may have its clock set.
const CLOCK_VARIABLE: &str = "LAB_CLOCK";

/// What a shim is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To set the clock of a process whose timed waits are for times of day, as librdkafka's are (those of Java are not).
    Clock,
    /// To make the disk slow.
    Disk,
}

/// The shim of one process, which outlives its restarts.
#[derive(Debug)]
pub struct Shim {
    purpose: Purpose,
    control: File,
    path: PathBuf,
    library: PathBuf,
}

impl Shim {
    /// Compiles the library, once, and makes a control file at `path`.
    ///
    /// # Errors
    /// When there is no C compiler, or the file cannot be made.
    pub fn new(path: &Path, purpose: Purpose) -> Result<Self> {
        let library = library()?;
        let control = File::options().create(true).truncate(true).read(true).write(true).open(path);
        let control = control.with_context(|| format!("cannot make {}", path.display()))?;
        control.set_len(CONTROL_BYTES)?;
        Ok(Self { purpose, control, path: path.to_owned(), library })
    }

    /// The variables with which the process has to be started.
    #[must_use]
    pub fn environment(&self) -> Vec<(String, String)> {
        let text = |path: &Path| path.display().to_string();
        let mut all = vec![("LD_PRELOAD".to_owned(), text(&self.library)), (VARIABLE.to_owned(), text(&self.path))];
        if self.purpose == Purpose::Clock {
            all.push((CLOCK_VARIABLE.to_owned(), "1".to_owned()));
        }
        all
    }

    /// Sets the clock off by so many milliseconds; 0 sets it right.
    ///
    /// # Errors
    /// When the control file cannot be written.
    pub fn set_clock(&self, off_ms: i64) -> Result<()> {
        self.put(CLOCK_MS, off_ms)
    }

    /// Makes each write take so much longer; zero ends it.
    ///
    /// # Errors
    /// When the control file cannot be written.
    pub fn set_write_delay(&self, delay: Duration) -> Result<()> {
        self.put(WRITE_US, i64::try_from(delay.as_micros())?)
    }

    /// How often the clock was read while it was off.
    ///
    /// # Errors
    /// When the control file cannot be read.
    pub fn clock_reads(&self) -> Result<i64> {
        self.number(CLOCK_READS)
    }

    /// How many writes were delayed.
    ///
    /// # Errors
    /// When the control file cannot be read.
    pub fn slow_writes(&self) -> Result<i64> {
        self.number(SLOW_WRITES)
    }

    fn put(&self, at: u64, value: i64) -> Result<()> {
        Ok(self.control.write_all_at(&value.to_ne_bytes(), at)?)
    }

    fn number(&self, at: u64) -> Result<i64> {
        let mut bytes = [0; 8];
        self.control.read_exact_at(&mut bytes, at)?;
        Ok(i64::from_ne_bytes(bytes))
    }
}

fn library() -> Result<PathBuf> {
    static LIBRARY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    LIBRARY.get_or_init(|| compile().map_err(|error| format!("{error:#}"))).clone().map_err(|error| anyhow!("no shim: {error}"))
}

fn compile() -> Result<PathBuf> {
    let dir = scratch_dir("shim")?;
    let (source, library) = (dir.join("shim.c"), dir.join("shim.so"));
    std::fs::write(&source, SOURCE)?;
    let mut cc = Command::new("cc");
    let output = run(cc.args(["-O2", "-shared", "-fPIC", "-o"]).arg(&library).arg(&source).args(["-ldl", "-lpthread"]))?;
    ensure!(output.status.success(), "cc failed:\n{}", String::from_utf8_lossy(&output.stderr));
    Ok(library)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    /// Waits for 300 ms of the time of day, as librdkafka does and as most do, and tells how long that took by a clock that nobody sets.
    const WAITS: &str = "
        #include <pthread.h>
        #include <stdio.h>
        #include <threads.h>
        #include <time.h>
        static long ms(clockid_t clock) {
            struct timespec now;
            clock_gettime(clock, &now);
            return now.tv_sec * 1000 + now.tv_nsec / 1000000;
        }
        static struct timespec soon(void) {
            long at = ms(CLOCK_REALTIME) + 300;
            return (struct timespec){ .tv_sec = at / 1000, .tv_nsec = at % 1000 * 1000000 };
        }
        int main(void) {
            mtx_t mutex; cnd_t cond;
            pthread_mutex_t other = PTHREAD_MUTEX_INITIALIZER; pthread_cond_t another = PTHREAD_COND_INITIALIZER;
            mtx_init(&mutex, mtx_plain); cnd_init(&cond);
            mtx_lock(&mutex); pthread_mutex_lock(&other);
            struct timespec until = soon();
            long from = ms(CLOCK_MONOTONIC);
            while (cnd_timedwait(&cond, &mutex, &until) != thrd_timedout);
            long between = ms(CLOCK_MONOTONIC);
            until = soon();
            while (pthread_cond_timedwait(&another, &other, &until) == 0);
            printf(\"%ld %ld\", between - from, ms(CLOCK_MONOTONIC) - between);
        }";

    fn output(shim: &Shim, script: &str) -> String {
        let output = run(Command::new("timeout").args(["60", "sh", "-c", script]).envs(shim.environment())).unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    #[test]
    fn one_process_has_another_clock_and_a_slow_disk_and_it_can_be_told() {
        let dir = tempfile::tempdir().unwrap();
        let shim = Shim::new(&dir.path().join("control"), Purpose::Clock).unwrap();
        let seconds = || output(&shim, "date +%s").parse::<i64>().unwrap();
        let right = seconds();
        assert_eq!((shim.clock_reads().unwrap(), shim.slow_writes().unwrap()), (0, 0));
        shim.set_clock(-86_400_000).unwrap();
        let wrong = seconds();
        assert!((right - 86_400..right - 86_000).contains(&wrong), "{right}, then {wrong}");
        assert!(shim.clock_reads().unwrap() > 0);
        shim.set_clock(0).unwrap();
        shim.set_write_delay(Duration::from_millis(1)).unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, b"x").unwrap();
        output(&shim, &format!("for n in 1 2 3; do sync -d {}; done", file.display()));
        assert_eq!(shim.slow_writes().unwrap(), 3);
        assert!(seconds() >= right);
    }

    #[test]
    fn waits_until_a_time_of_day_last_as_long_under_a_clock_that_is_off() {
        let dir = tempfile::tempdir().unwrap();
        let (source, program) = (dir.path().join("waits.c"), dir.path().join("waits"));
        std::fs::write(&source, WAITS).unwrap();
        assert!(run(Command::new("cc").arg("-o").arg(&program).arg(&source).arg("-lpthread")).unwrap().status.success());
        let shim = Shim::new(&dir.path().join("control"), Purpose::Clock).unwrap();
        for off_ms in [0, -43_200_000, 43_200_000] {
            shim.set_clock(off_ms).unwrap();
            let lasted = output(&shim, &program.display().to_string());
            assert!(lasted.split(' ').all(|ms| (299..30_000).contains(&ms.parse::<i64>().unwrap())), "{off_ms}: {lasted}");
        }
    }
}
