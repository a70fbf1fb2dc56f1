//! Apache Kafka's jars and the running of its Java programs.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, Result, bail, ensure};

use crate::notice;
use crate::process::run;
use crate::reaper::Reaper;

/// The version pinned in `tests/kafka/pom.xml`; `kafka_version_is_the_pinned_one` keeps the two together.
pub const KAFKA_VERSION: &str = "4.3.1";

/// The top of the checkout this lab was built from.
#[must_use]
pub fn repo_root() -> &'static Path {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests)
}

/// The lab's directory for what is fetched or kept between runs; git ignores it.
#[must_use]
pub fn lab_dir() -> PathBuf {
    repo_root().join(".lab")
}

/// The class path of Kafka and its tools, fetched with Maven at the first call (55 MB, some seconds).
///
/// # Errors
/// When Maven is missing or fails.
pub fn kafka_libs() -> Result<PathBuf> {
    let libs = lab_dir().join(format!("kafka-libs-{KAFKA_VERSION}"));
    if libs.is_dir() {
        return Ok(libs);
    }
    std::fs::create_dir_all(lab_dir())?;
    // Into a directory of its own and renamed at the end: an interrupted fetch must not look like a whole one.
    let fetch = tempfile::Builder::new().prefix("kafka-fetch-").tempdir_in(lab_dir())?;
    notice::tell(format_args!("lab: fetching Apache Kafka {KAFKA_VERSION} with Maven (55 MB)"));
    let mut maven = Command::new("mvn");
    maven
        .args(["--quiet", "--batch-mode", "--file"])
        .arg(repo_root().join("tests/kafka/pom.xml"))
        .args(["dependency:copy-dependencies", "-DincludeScope=runtime"])
        .arg(format!("-DoutputDirectory={}", fetch.path().display()));
    let output = run(&mut maven).context("./lab installs Maven on Debian and Ubuntu")?;
    ensure!(output.status.success(), "mvn could not fetch Apache Kafka:\n{}", text_of(&output));
    match std::fs::rename(fetch.path(), &libs) {
        Ok(()) => drop(fetch.keep()),
        // Another lab was faster.
        Err(_) if libs.is_dir() => {}
        Err(error) => return Err(error).with_context(|| format!("cannot make {}", libs.display())),
    }
    Ok(libs)
}

/// Makes sure that Kafka can be run: fetches it, as [`kafka_libs`] does, and looks for Java. For those who are about to go where no registry can be reached.
///
/// # Errors
/// When Maven or Java is missing.
pub fn ready() -> Result<()> {
    kafka_libs()?;
    let output = run(Command::new(program()).arg("-version")).context("./lab installs Java on Debian and Ubuntu")?;
    ensure!(output.status.success(), "java -version failed ({}):\n{}", output.status, text_of(&output));
    Ok(())
}

fn program() -> PathBuf {
    std::env::var_os("JAVA_HOME").map_or_else(|| PathBuf::from("java"), |home| Path::new(&home).join("bin/java"))
}

/// A command that runs a class of Kafka with at most `heap_mib` MiB of heap, logging at `level` to stderr, with its temporary
/// files (native libraries that it unpacks and leaves) in `tmp`.
///
/// # Errors
/// When the jars cannot be fetched.
pub fn java(class: &str, heap_mib: u32, level: &str, tmp: &Path) -> Result<Command> {
    java_tuned(class, heap_mib, Tuning::Test, level, tmp)
}

/// What a Java machine is tuned for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tuning {
    /// Short lives beside many others: the garbage collector without threads, the compiler without its second tier.
    Test,
    /// Throughput: the settings of Kafka's own start script (`KAFKA_JVM_PERFORMANCE_OPTS` of `kafka-run-class.sh`).
    Server,
}

/// As [`java`], with the machine tuned for what it is for.
///
/// # Errors
/// When the jars cannot be fetched.
pub fn java_tuned(class: &str, heap_mib: u32, tuning: Tuning, level: &str, tmp: &Path) -> Result<Command> {
    let libs = kafka_libs()?;
    let mut command = Command::new(program());
    let tuned: &[&str] = match tuning {
        Tuning::Test => &["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData"],
        Tuning::Server => &[
            "-server",
            "-XX:+UseG1GC",
            "-XX:MaxGCPauseMillis=20",
            "-XX:InitiatingHeapOccupancyPercent=35",
            "-XX:+ExplicitGCInvokesConcurrent",
            "-Djava.awt.headless=true",
        ],
    };
    command
        .arg(format!("-Xmx{heap_mib}m"))
        .args(tuned)
        .arg(format!("-Djava.io.tmpdir={}", tmp.display()))
        .arg(format!("-Dlab.level={level}"))
        .arg(format!("-Dlog4j2.configurationFile={}", repo_root().join("tests/kafka/log4j2.properties").display()))
        .arg("-cp")
        .arg(libs.join("*"))
        .arg(class);
    Ok(command)
}

/// Runs one of Kafka's own tools to its end and returns what it printed on stdout.
///
/// # Errors
/// When it cannot be started or exits with anything but 0; the message carries its output.
pub fn run_tool<S: AsRef<OsStr>>(class: &str, args: &[S]) -> Result<String> {
    let output =
        run(java(class, 128, "WARN", Reaper::global()?.scratch())?.args(args)).context("./lab installs Java on Debian and Ubuntu")?;
    if !output.status.success() {
        bail!("{class} failed ({}):\n{}", output.status, text_of(&output));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn text_of(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn kafka_version_is_the_pinned_one() {
        let pom = std::fs::read_to_string(repo_root().join("tests/kafka/pom.xml")).unwrap();
        assert!(pom.contains(&format!("<kafka.version>{KAFKA_VERSION}</kafka.version>")));
    }
}
