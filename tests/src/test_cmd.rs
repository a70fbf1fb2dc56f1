//! `lab test`: everything, in the order of what is quick to what is slow.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::build::cargo;
use crate::java::kafka_libs;
use crate::kafka_cluster::{KafkaCluster, KafkaOptions};
use crate::wan::namespace;

/// The conformance suite reads the bootstrap servers of a real Kafka from here.
const KAFKA_VARIABLE: &str = "SPILLWAY_TEST_KAFKA";

/// A suite that makes Kafka stand still for a while reads its process id from here.
const KAFKA_PID_VARIABLE: &str = "SPILLWAY_TEST_KAFKA_PID";

/// Java's oldest version that runs Kafka 4.
const JAVA_MIN: u32 = 17;

/// The step that needs root.
const WAN: &str = "the WAN (as root)";

/// What `lab test` was asked for.
#[derive(Debug, Clone)]
pub struct TestOptions {
    /// Leave out what needs real Kafka, on purpose.
    pub without_kafka: bool,
    /// Only tests whose name contains this.
    pub filter: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Passed,
    Failed,
    LeftOut,
    /// Left out because this machine cannot; that is no failure.
    Skipped,
}

/// Runs one part of the tests; answers whether all of it passed.
type Suite = fn(&TestOptions) -> Result<bool>;

struct Step {
    name: &'static str,
    result: Ending,
    took: Duration,
}

/// Runs the tests. `Ok(true)` means that all that was asked for passed.
///
/// # Errors
/// When cargo cannot be run at all.
pub fn run(options: &TestOptions) -> Result<bool> {
    let java = java_problem();
    let mut steps = vec![timed("unit, property, golden, conformance (embedded)", || workspace(options))?];
    let no_wan = namespace::problem();
    steps.push(match no_wan {
        None => timed(WAN, || wan(options))?,
        Some(_) => Step { name: WAN, result: Ending::Skipped, took: Duration::ZERO },
    });
    let kafka = !options.without_kafka && java.is_none();
    let on_kafka: [(&str, Suite); 3] = [
        ("conformance suite on Apache Kafka", conformance),
        ("collector on Apache Kafka", collector),
        ("end to end on Apache Kafka", end_to_end),
    ];
    for (name, suite) in on_kafka {
        steps.push(if kafka { timed(name, || suite(options))? } else { left_out(name) });
    }

    println!("\nsummary");
    for step in &steps {
        let result = match step.result {
            Ending::Passed => "ok",
            Ending::Failed => "FAILED",
            Ending::LeftOut => "left out",
            Ending::Skipped => "skipped",
        };
        println!("  {result:<9} {:>6.1} s  {}", step.took.as_secs_f64(), step.name);
    }
    if let Some(problem) = no_wan {
        println!("\nskipped the WAN, which needs: {problem}");
    }
    let failed = steps.iter().any(|step| step.result == Ending::Failed);
    let gaps = steps.iter().any(|step| step.result == Ending::LeftOut);
    if gaps && !options.without_kafka {
        println!("\nleft out what needs Apache Kafka: {}", java.unwrap_or_default());
        println!("install it (./lab does so on Debian and Ubuntu), or say --without-kafka if this is meant");
        return Ok(false);
    }
    Ok(!failed)
}

fn workspace(options: &TestOptions) -> Result<bool> {
    let mut command = cargo()?;
    command.args(["test", "--workspace", "--no-fail-fast", "--"]);
    passed(command.args(&options.filter))
}

fn wan(options: &TestOptions) -> Result<bool> {
    let mut command = cargo()?;
    // One at a time: each wants the processors for its pump.
    command.args(["test", "--workspace", "--test", "wan", "--", "--ignored", "--test-threads=1"]);
    passed(command.args(&options.filter))
}

fn conformance(options: &TestOptions) -> Result<bool> {
    // The suite looks at ACLs and at topics made by asking for them; the anonymous user may do everything.
    let cluster = KafkaOptions::new("conformance")
        .with("auto.create.topics.enable", "true")
        .with("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer")
        .with("super.users", "User:ANONYMOUS")
        .with("allow.everyone.if.no.acl.found", "true");
    let cluster = KafkaCluster::start(cluster)?;
    let mut command = cargo()?;
    command.env(KAFKA_VARIABLE, cluster.bootstrap());
    command.args(["test", "--workspace", "--no-fail-fast", "--test", "conformance", "--test", "protocol", "--", "--ignored"]);
    passed(command.args(&options.filter))
}

fn collector(options: &TestOptions) -> Result<bool> {
    // Its records have timestamps of long ago, which retention would take away at once.
    let cluster = KafkaCluster::start(KafkaOptions::new("collector").with("log.retention.ms", "-1"))?;
    let mut command = cargo()?;
    command.env(KAFKA_VARIABLE, cluster.bootstrap());
    command.env(KAFKA_PID_VARIABLE, cluster.pids().first().copied().unwrap_or_default().to_string());
    command.args(["test", "--workspace", "--test", "collector", "--"]);
    // One at a time, since one of them stops the broker; and the measurements are for people.
    command.args(["--ignored", "--test-threads=1", "--skip", "throughput", "--skip", "progress_of_a_thousand_sites"]);
    passed(command.args(&options.filter))
}

fn end_to_end(options: &TestOptions) -> Result<bool> {
    kafka_libs()?;
    let mut command = cargo()?;
    // One at a time: each has the machine to itself, and a broker wants half a gigabyte.
    command.args(["test", "--workspace", "--no-fail-fast", "--test", "kafka", "--", "--ignored", "--test-threads=1"]);
    passed(command.args(&options.filter))
}

fn passed(command: &mut Command) -> Result<bool> {
    Ok(command.status().context("cannot run cargo")?.success())
}

fn timed(name: &'static str, work: impl FnOnce() -> Result<bool>) -> Result<Step> {
    println!("\n== {name}");
    let started = Instant::now();
    let result = if work()? { Ending::Passed } else { Ending::Failed };
    Ok(Step { name, result, took: started.elapsed() })
}

fn left_out(name: &'static str) -> Step {
    Step { name, result: Ending::LeftOut, took: Duration::ZERO }
}

/// Why real Kafka cannot be run here; `None` when it can.
fn java_problem() -> Option<String> {
    let output = Command::new("java").arg("-version").stdin(Stdio::null()).output();
    let Ok(output) = output else { return Some("there is no java".to_owned()) };
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    if java_major(&text).is_none_or(|major| major < JAVA_MIN) {
        return Some(format!("java is older than {JAVA_MIN}: {}", text.lines().next().unwrap_or_default()));
    }
    let maven = Command::new("mvn").arg("--version").stdin(Stdio::null()).output();
    maven.is_err().then(|| "there is no mvn (Maven)".to_owned())
}

/// `17` from `openjdk version "17.0.15" 2025-04-15`.
fn java_major(version_text: &str) -> Option<u32> {
    let quoted = version_text.split('"').nth(1)?;
    quoted.split(['.', '-', '+']).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_of_java_is_found() {
        assert_eq!(java_major("openjdk version \"17.0.15\" 2025-04-15\nmore"), Some(17));
        assert_eq!(java_major("openjdk version \"21-ea\""), Some(21));
        assert_eq!(java_major("java version \"1.8.0_392\""), Some(1));
        assert_eq!(java_major("nothing"), None);
    }
}
