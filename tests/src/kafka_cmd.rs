//! `lab kafka up | down`: two clusters to play with, in the background until told to go.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::java::{self, KAFKA_VERSION, lab_dir};
use crate::kafka_cluster::{KafkaCluster, KafkaOptions};
use crate::wait::wait_until;
use crate::wan::{End, command, control, namespace};

/// How long `down` waits for a clean shutdown.
const STOP_LIMIT: Duration = Duration::from_secs(40);

/// Ports to be had if they are free, so that configuration files need not change each time.
const EDGE_PORT: u16 = 19092;
const CENTRE_PORT: u16 = 29092;

/// Starts the clusters `edge` and `centre` and leaves them running; with `wan` at the ends of the WAN that is up.
///
/// # Errors
/// When they run already or do not come up, or there is no WAN.
pub fn up(brokers: usize, wan: bool) -> Result<()> {
    let home = home();
    if !running(&home).is_empty() {
        bail!("Kafka is up already; end it with: ./lab kafka down");
    }
    // What an unclean end left cannot be started again under new ports.
    remove(&home)?;
    std::fs::create_dir_all(&home)?;
    // From the ends of the WAN nothing could be fetched.
    java::ready()?;
    println!("Starting Apache Kafka {KAFKA_VERSION}: edge and centre, {brokers} broker(s) each …");
    let mut clusters = Vec::new();
    for (end, port) in [(End::Edge, EDGE_PORT), (End::Centre, CENTRE_PORT)] {
        let mut options = KafkaOptions::new(end.name());
        options.brokers = brokers;
        options.dir = Some(home.join(end.name()));
        options.first_port = Some(port);
        clusters.push(if wan {
            options.host = end.address();
            let holder = control::pid(&command::socket(), end)?;
            namespace::inside_of(holder, || KafkaCluster::start(options))?
        } else {
            KafkaCluster::start(options)?
        });
    }
    let mut addresses = Vec::new();
    let mut pids = Vec::new();
    for cluster in clusters {
        addresses.push(cluster.bootstrap());
        pids.extend(cluster.leave_running().iter().map(|pid| format!("{pid}\n")));
    }
    std::fs::write(home.join("pids"), pids.concat())?;
    let [edge, centre] = addresses.as_slice() else { bail!("two clusters were started, {} answer", addresses.len()) };
    std::fs::write(home.join("addresses"), format!("edge={edge}\ncentre={centre}\n"))?;
    println!("{}", usage(edge, centre, wan, &home));
    Ok(())
}

/// Ends what `up` has started and removes its data.
///
/// # Errors
/// When a broker does not end.
pub fn down() -> Result<()> {
    let home = home();
    let pids = running(&home);
    if pids.is_empty() {
        println!("Kafka is not up.");
        return remove(&home);
    }
    for pid in &pids {
        kill_process(*pid, Signal::TERM).with_context(|| format!("cannot end process {}", pid.as_raw_nonzero()))?;
    }
    if wait_until("all brokers have ended", STOP_LIMIT, || Ok(running(&home).is_empty())).is_err() {
        for pid in running(&home) {
            kill_process(pid, Signal::KILL).with_context(|| format!("cannot kill process {}", pid.as_raw_nonzero()))?;
        }
        wait_until("all brokers are killed", STOP_LIMIT, || Ok(running(&home).is_empty()))?;
    }
    remove(&home)?;
    println!("Kafka is down, its data is removed.");
    Ok(())
}

fn home() -> PathBuf {
    lab_dir().join("kafka")
}

fn remove(home: &Path) -> Result<()> {
    match std::fs::remove_dir_all(home) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", home.display()))
        }
        _ => Ok(()),
    }
}

/// The brokers that still run. A process that has got the number of a broker long ended is none.
fn running(home: &Path) -> Vec<Pid> {
    let text = std::fs::read_to_string(home.join("pids")).unwrap_or_default();
    let pids = text.lines().filter_map(|line| line.parse().ok()).filter_map(Pid::from_raw);
    pids.filter(|pid| test_kill_process(*pid).is_ok() && is_broker(*pid)).collect()
}

fn is_broker(pid: Pid) -> bool {
    // Where there is no /proc, trust the number.
    match std::fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())) {
        Ok(line) => String::from_utf8_lossy(&line).contains("kafka.Kafka"),
        Err(_) => !Path::new("/proc/self").exists(),
    }
}

fn usage(edge: &str, centre: &str, wan: bool, home: &Path) -> String {
    let tools = format!("java -cp '{}/kafka-libs-{KAFKA_VERSION}/*'", lab_dir().display());
    let [at_edge, at_centre] =
        [End::Edge, End::Centre].map(|end| if wan { format!("./lab wan exec {} -- ", end.name()) } else { String::new() });
    format!(
        "\n  edge    {edge}\n  centre  {centre}\n  logs    {home}/*/broker-*/broker.log\n
Topics are not created by themselves:
  {at_edge}{tools} org.apache.kafka.tools.TopicCommand --bootstrap-server {edge} --create --topic demo --partitions 3
Write lines, and read what arrived:
  {at_edge}{tools} org.apache.kafka.tools.ConsoleProducer --bootstrap-server {edge} --topic demo
  {at_centre}{tools} org.apache.kafka.tools.consumer.ConsoleConsumer --bootstrap-server {centre} --topic plant-7.demo --from-beginning
In agent.toml set kafka.bootstrap_servers = \"{edge}\", in collector.toml \"{centre}\".
End: ./lab kafka down",
        home = home.display()
    )
}
