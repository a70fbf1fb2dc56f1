//! A site: an embedded broker, the agent's files, clients to produce and look.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use spillway_agent::runner::Ended;
use spillway_agent::{check, service, spill_tools};
use spillway_agent_core::settings::Patience;
use spillway_broker::{Broker, BrokerOptions};
use spillway_config::AgentConfig;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::centre::Centre;

const TIMEOUT: Duration = Duration::from_secs(20);

pub(crate) struct Site {
    pub(crate) broker: Broker,
    folder: TempDir,
    collector: String,
    producer: ThreadedProducer<DefaultProducerContext>,
    admin: AdminClient<DefaultClientContext>,
    /// Of the agents started from now on.
    pub(crate) commit_interval: &'static str,
    /// Where the agents started from now on answer.
    pub(crate) admin_listen: String,
    /// What was produced, by topic and partition, in order.
    produced: BTreeMap<(String, i32), Vec<String>>,
    count: u64,
}

pub(crate) struct Agent {
    stop: CancellationToken,
    running: JoinHandle<Result<Ended, service::Error>>,
}

/// An agent in a process of its own.
pub(crate) struct Process(Child);

impl Process {
    /// Forgets how much memory it had at most, and answers how much it has.
    pub(crate) fn reset_peak(&self) -> u64 {
        std::fs::write(format!("/proc/{}/clear_refs", self.0.id()), "5").unwrap();
        self.peak()
    }

    /// Resident memory at most since [`Self::reset_peak`], in bytes.
    pub(crate) fn peak(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        1024 * line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Agent {
    pub(crate) async fn stop(self) -> Result<Ended, service::Error> {
        self.stop.cancel();
        self.ended().await
    }

    pub(crate) async fn ended(self) -> Result<Ended, service::Error> {
        tokio::time::timeout(TIMEOUT, self.running).await.unwrap().unwrap()
    }
}

impl Site {
    pub(crate) async fn start(centre: &Centre) -> Self {
        let options = BrokerOptions { auto_create_topics: false, ..BrokerOptions::default() };
        let broker = Broker::start(options).await.unwrap();
        let folder = TempDir::new().unwrap();
        centre.issue("plant-7", folder.path());
        let client = client(&broker);
        Self {
            producer: client.create().unwrap(),
            admin: client.create().unwrap(),
            collector: centre.address(),
            broker,
            folder,
            commit_interval: "1s",
            admin_listen: "off".to_owned(),
            produced: BTreeMap::new(),
            count: 0,
        }
    }

    /// Runs the agent; `more` is put at the end of its file, or replaces a table.
    pub(crate) fn agent(&self, more: &str) -> Agent {
        self.agent_with(more, Patience::default())
    }

    /// As [`Self::agent`], with another patience with new settings of the centre.
    pub(crate) fn agent_with(&self, more: &str, patience: Patience) -> Agent {
        let config = AgentConfig::load(&self.file(more), self.environment()).unwrap_or_else(|problems| panic!("{problems}"));
        let stop = CancellationToken::new();
        Agent { running: tokio::spawn(service::run_with(config, patience, stop.clone())), stop }
    }

    /// What the agent's `check` tells; `more` as for [`Self::agent`].
    pub(crate) fn check(&self, more: &str) -> Result<String, check::Error> {
        let config = AgentConfig::load(&self.file(more), self.environment()).unwrap_or_else(|problems| panic!("{problems}"));
        check::describe(&config)
    }

    /// A file beside the agent's.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs the agent in a process of its own.
    pub(crate) fn process(&self) -> Process {
        let mut command = Command::new(env!("CARGO_BIN_EXE_spillway-agent"));
        command.args(["run", "--config"]).arg(self.file("")).envs(self.environment()).stderr(Stdio::null());
        Process(command.spawn().unwrap())
    }

    fn file(&self, more: &str) -> PathBuf {
        let kafka = if more.contains("[kafka]") { "" } else { "[kafka]\n" };
        let link = if more.contains("[link]") { "" } else { "[link]\nframe_max_bytes = '4KiB'\nframe_linger = '5ms'\nredial_max = '1s'\n" };
        let (top, tables) = if more.starts_with('[') { ("", more) } else { (more, "") };
        let text = format!(
            "site = 'plant-7'\n{top}[collector]\naddress = '{collector}'\n[tls]\nca = 'ca.pem'\ncert = 'plant-7.pem'\nkey = 'plant-7.key'\n\
             [admin]\nlisten = 'off'\n[topics]\nrefresh_interval = '1s'\n{link}{kafka}{tables}",
            collector = self.collector,
        );
        let path = self.path("agent.toml");
        std::fs::write(&path, text).unwrap();
        path
    }

    fn environment(&self) -> [(&'static str, String); 5] {
        [
            ("SPILLWAY_KAFKA__BOOTSTRAP_SERVERS", self.broker.bootstrap()),
            ("SPILLWAY_KAFKA__COMMIT_INTERVAL", self.commit_interval.to_owned()),
            ("SPILLWAY_SPILL__DIR", "spill".to_owned()),
            ("SPILLWAY_STATE_DIR", "state".to_owned()),
            ("SPILLWAY_ADMIN__LISTEN", self.admin_listen.clone()),
        ]
    }

    pub(crate) async fn create(&mut self, topic: &str, partitions: i32) {
        let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
        self.admin.create_topics([&new], &AdminOptions::new()).await.unwrap().pop().unwrap().unwrap();
        self.produced.retain(|(name, _), _| name != topic);
    }

    pub(crate) async fn grow(&self, topic: &str, partitions: usize) {
        let new = NewPartitions::new(topic, partitions);
        self.admin.create_partitions([&new], &AdminOptions::new()).await.unwrap().pop().unwrap().unwrap();
    }

    pub(crate) async fn delete(&self, topic: &str) {
        self.admin.delete_topics(&[topic], &AdminOptions::new()).await.unwrap().pop().unwrap().unwrap();
    }

    pub(crate) async fn delete_records(&self, topic: &str, partition: i32, before: i64) {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Offset(before)).unwrap();
        self.admin.delete_records(&list, &AdminOptions::new()).await.unwrap();
    }

    /// Produces to all partitions in turn.
    pub(crate) fn produce(&mut self, topic: &str, count: usize, bytes: usize) {
        let partitions = self.partitions(topic);
        for n in 0..count {
            self.send(topic, n as i32 % partitions, bytes);
        }
        self.producer.flush(TIMEOUT).unwrap();
    }

    pub(crate) fn produce_to(&mut self, topic: &str, partition: i32, count: usize, bytes: usize) {
        // The producer has to learn of a new partition first.
        while self.partitions(topic) <= partition {
            std::thread::sleep(Duration::from_millis(50));
        }
        (0..count).for_each(|_| self.send(topic, partition, bytes));
        self.producer.flush(TIMEOUT).unwrap();
    }

    /// Produces what sensors say to all partitions in turn.
    pub(crate) fn produce_json(&mut self, topic: &str, count: u64) {
        let partitions = self.partitions(topic);
        for n in 0..count {
            let value = format!(r#"{{"seq":{n},"value":{}.{:02},"device":"press-{:02}"}}"#, n * 31 % 90, n * 17 % 100, n * 7 % 48);
            self.send_value(topic, n as i32 % partitions, value);
        }
        self.producer.flush(TIMEOUT).unwrap();
    }

    /// Produces what a few jobs report, whose names come and go.
    pub(crate) fn produce_events(&mut self, topic: &str, count: u64) {
        for _ in 0..count {
            self.count += 1;
            let job = (self.count / 60).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let value = format!(r#"{{"job":"{job:016x}-{:08x}","step":{},"state":"running"}}"#, job >> 7, self.count);
            self.send_value(topic, 0, value);
        }
        self.producer.flush(TIMEOUT).unwrap();
    }

    fn send(&mut self, topic: &str, partition: i32, bytes: usize) {
        self.count += 1;
        self.send_value(topic, partition, noise(self.count, bytes));
    }

    fn send_value(&mut self, topic: &str, partition: i32, value: String) {
        let record = BaseRecord::<(), _>::to(topic).partition(partition).payload(&value);
        self.producer.send(record).map_err(|(error, _)| error).unwrap();
        self.produced.entry((topic.to_owned(), partition)).or_default().push(value);
    }

    fn partitions(&self, topic: &str) -> i32 {
        let metadata = self.producer.client().fetch_metadata(Some(topic), TIMEOUT).unwrap();
        metadata.topics()[0].partitions().len() as i32
    }

    /// A transaction of `count` records on partition 0, committed or aborted.
    pub(crate) fn transaction(&self, topic: &str, count: usize, commit: bool) {
        let producer: ThreadedProducer<DefaultProducerContext> = client(&self.broker).set("transactional.id", "site").create().unwrap();
        producer.init_transactions(TIMEOUT).unwrap();
        producer.begin_transaction().unwrap();
        for n in 0..count {
            let value = n.to_string();
            let record = BaseRecord::<(), _>::to(topic).partition(0).payload(&value);
            producer.send(record).map_err(|(error, _)| error).unwrap();
        }
        producer.flush(TIMEOUT).unwrap();
        if commit { producer.commit_transaction(TIMEOUT).unwrap() } else { producer.abort_transaction(TIMEOUT).unwrap() }
    }

    pub(crate) fn values(&self, topic: &str, partition: u32) -> Vec<String> {
        self.produced.get(&(topic.to_owned(), partition as i32)).cloned().unwrap_or_default()
    }

    /// Waits until the local group has committed everything that was produced: it is at the centre, or durable in the spill.
    pub(crate) async fn wait_committed(&self, what: &str) {
        self.wait(what, || {
            self.produced.keys().all(|(topic, partition)| self.committed(topic, *partition as u32) == Some(self.end(topic, *partition)))
        })
        .await;
    }

    /// The same of one topic.
    pub(crate) async fn wait_committed_of(&self, topic: &str, what: &str) {
        let partitions = || self.produced.keys().filter(|(name, _)| name == topic);
        self.wait(what, || {
            partitions().all(|(topic, partition)| self.committed(topic, *partition as u32) == Some(self.end(topic, *partition)))
        })
        .await;
    }

    /// Waits until the spill has given its disk back.
    pub(crate) async fn wait_emptied(&self, what: &str) {
        self.wait(what, || self.spilled_bytes() < 1 << 20).await;
    }

    async fn wait(&self, what: &str, reached: impl Fn() -> bool) {
        let begun = Instant::now();
        while !reached() {
            let at = self
                .produced
                .keys()
                .map(|(topic, partition)| (topic, partition, self.committed(topic, *partition as u32), self.end(topic, *partition)));
            assert!(begun.elapsed() < Duration::from_secs(40), "waited in vain for {what}: {:?}", at.collect::<Vec<_>>());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The source forgets what was committed there, as its retention would.
    pub(crate) async fn forget_committed(&self) {
        for (topic, partition) in self.produced.keys() {
            if let Some(committed) = self.committed(topic, *partition as u32) {
                self.delete_records(topic, *partition, committed as i64).await;
            }
        }
    }

    /// Waits until the spill holds all of a topic, as far as the source has it.
    pub(crate) async fn wait_spilled(&self, topic: &str) {
        let partitions = self.produced.keys().filter(|(name, _)| name == topic);
        let ends = partitions
            .map(|(topic, partition)| (format!("{topic}-{partition} "), format!("to {},", self.end(topic, *partition))))
            .collect::<Vec<_>>();
        let begun = Instant::now();
        loop {
            // A copy: the spill itself is in use.
            let copy = TempDir::new().unwrap();
            copy_below(&self.path("spill"), copy.path());
            let text = spill_tools::inspect(copy.path(), None).unwrap_or_default();
            let is_there =
                |(name, end): &(String, String)| text.lines().any(|line| line.contains(name.as_str()) && line.contains(end.as_str()));
            if ends.iter().all(is_there) {
                return;
            }
            assert!(begun.elapsed() < Duration::from_secs(40), "waited in vain for {topic} in the spill:\n{text}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Bytes of the spill's files.
    pub(crate) fn spilled_bytes(&self) -> u64 {
        bytes_below(&self.path("spill"))
    }

    fn end(&self, topic: &str, partition: i32) -> u64 {
        self.producer.client().fetch_watermarks(topic, partition, TIMEOUT).unwrap().1 as u64
    }

    /// What the local group has committed.
    pub(crate) fn committed(&self, topic: &str, partition: u32) -> Option<u64> {
        let consumer: BaseConsumer = client(&self.broker).set("group.id", "spillway-plant-7").create().unwrap();
        let mut asked = TopicPartitionList::new();
        asked.add_partition(topic, partition as i32);
        match consumer.committed_offsets(asked, TIMEOUT).unwrap().elements()[0].offset() {
            Offset::Offset(offset) => u64::try_from(offset).ok(),
            _ => None,
        }
    }
}

fn bytes_below(directory: &Path) -> u64 {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    // Files come and go while they are counted.
    let bytes = entries.map(|entry| match entry.metadata() {
        Ok(data) if data.is_dir() => bytes_below(&entry.path()),
        Ok(data) => data.len(),
        Err(_) => 0,
    });
    bytes.sum()
}

fn copy_below(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).into_iter().flatten().flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            std::fs::create_dir_all(&target).unwrap();
            copy_below(&entry.path(), &target);
        } else {
            // It may be gone by now.
            drop(std::fs::copy(entry.path(), target));
        }
    }
}

/// A number, and letters that hardly compress.
fn noise(count: u64, bytes: usize) -> String {
    let mut random = count;
    let letters = std::iter::repeat_with(|| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'0' + (random >> 57) as u8 % 75)
    });
    let number = format!("{count} ");
    let left = bytes.saturating_sub(number.len());
    number.chars().chain(letters.take(left)).collect()
}

fn client(broker: &Broker) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", broker.bootstrap());
    config.set("reconnect.backoff.max.ms", "200");
    config
}
