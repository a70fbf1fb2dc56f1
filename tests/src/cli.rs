//! The command line of the lab.

use std::path::PathBuf;

use clap::builder::TypedValueParser as _;
use clap::{Parser, Subcommand};

use crate::bench::cap::CapOptions;
use crate::bench::classes::ClassesOptions;
use crate::bench::compress::CompressOptions;
use crate::bench::fleet::FleetOptions;
use crate::bench::link::LinkOptions;
use crate::bench::outage::OutageOptions;
use crate::bench::retention::RetentionOptions;
use crate::bench::spill::SpillOptions;
use crate::bench::throughput::ThroughputOptions;
use crate::wan::command::WanCommand;

/// The workbench of Spillway: see it work, run Kafka to play with, test everything.
#[derive(Debug, Parser)]
#[command(
    name = "lab",
    bin_name = "./lab",
    after_help = "Begin with `./lab demo`: two small brokers, an agent, a link that is cut, a collector. It needs no Java and no root.\n\
                  `./lab test` is what the continuous integration runs; it needs Java 17 and Maven. More in docs/lab.md."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands of the lab.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Watch records travel from an edge Kafka to a central one, exactly once, over a link that is cut
    ///
    /// Starts two brokers, the real agent and collector and a link between them, writes sensor telemetry, cuts the link for some seconds and
    /// then for so long that the agent writes to its spill, and compares both sides record for record. Exits with 1 unless nothing was lost,
    /// duplicated or out of order, and the spill was used and has given its disk back. Everything is removed at the end, also by Ctrl-C.
    Demo {
        /// Use real Apache Kafka (needs Java 17 and Maven) in place of the embedded brokers
        #[arg(long)]
        kafka: bool,
        /// Seconds in which records are written, 20 to 3600
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(20..=3600))]
        seconds: u64,
        /// Records a second, 200,000 at most
        #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..=200_000))]
        rate: u32,
    },
    /// Break everything, again and again, and see that every record arrives exactly once and in order
    ///
    /// Apache Kafka with two brokers at the edge, three at the centre (replication 3, two in sync), the real agent, two collectors and the
    /// link of the lab. A schedule drawn from the seed kills the agent, the collectors and leading brokers with -9, takes brokers until too
    /// few are in sync, moves the site, spoils the link, sets the agent's clock and slows a disk; kills and cuts are aimed at each moment of a
    /// transaction. At the end both sides are compared record for record. Exits with 1 unless 0 are lost, 0 duplicated, 0 out of order, and every
    /// fault was seen to happen. It takes about a quarter of an hour; needs Java 17, Maven and a C compiler.
    ///
    /// With --in-process agent, collectors and small brokers run in the lab itself, many schedules side by side, without Java.
    Chaos {
        /// What everything left to chance is drawn from; a new one if it is not given. In process: of the first schedule, the others follow
        #[arg(long)]
        seed: Option<u64>,
        /// Committed records at the source, at least
        #[arg(long, default_value_t = 1_000_000, conflicts_with = "in_process", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
        records: u64,
        /// One fault of each kind at each moment only: some minutes
        #[arg(long, conflicts_with = "in_process")]
        short: bool,
        /// Play schedules on embedded brokers within the lab's process, a hundred times faster
        #[arg(long)]
        in_process: bool,
        /// How many schedules, each of 20 faults or more
        #[arg(long, default_value_t = 2000, requires = "in_process", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
        schedules: u64,
        /// How many of them at a time
        #[arg(long, default_value_t = 24, requires = "in_process", value_parser = clap::value_parser!(u16).range(1..=500))]
        jobs: u16,
    },
    /// Feed everything that decodes what others hand in with inputs that nobody thought of
    ///
    /// Builds the targets in fuzz/ with the stable compiler and runs them side by side, each from its committed corpus. Exits with 1
    /// when one found something, and prints how to see it again.
    Fuzz {
        /// Only these targets
        targets: Vec<String>,
        /// How long each target runs
        #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..=86_400))]
        seconds: u64,
        /// Targets that run at the same time [default: one a processor]
        #[arg(long, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=64))]
        jobs: Option<usize>,
        /// List the targets
        #[arg(long)]
        list: bool,
        /// Afterwards, add to fuzz/corpus the inputs that reach something new
        #[arg(long)]
        merge: bool,
        /// Run the target on this input only, and print its steps
        #[arg(long, value_name = "FILE", conflicts_with_all = ["list", "merge"])]
        replay: Option<PathBuf>,
    },
    /// Run Apache Kafka as edge and as centre, in the background
    Kafka {
        /// What to do.
        #[command(subcommand)]
        command: KafkaCommand,
    },
    /// Measure how fast Spillway is and what it costs, beside MirrorMaker 2 on the same brokers
    Bench {
        /// What to measure.
        #[command(subcommand)]
        command: BenchCommand,
    },
    /// Carry records with an agent as it ships, also one for another processor under an emulator
    ///
    /// Embedded brokers, a collector and the link run here. Writes records of all shapes, cuts the link, kills the agent with -9, lets it spill
    /// and drain through another kill, lets it drain what the agent of this machine has spilled, and compares both sides record for record. Prints the agent's size and idle memory, and exits with 1 if those are too large, or
    /// unless nothing was lost, duplicated or out of order. `cross/smoke` calls this.
    Smoke {
        /// The agent
        agent: PathBuf,
        /// What runs it, in words: for example "qemu-aarch64-static -L /usr/aarch64-linux-gnu"
        #[arg(long, default_value = "", value_name = "COMMAND")]
        runner: String,
    },
    /// Run every test: unit, property, golden, conformance, and the suites on real Kafka
    ///
    /// Without Java 17 and Maven the suites on real Kafka are left out, and the exit code is 1, unless `--without-kafka` says
    /// that this is meant.
    Test {
        /// Leave out what needs real Kafka
        #[arg(long)]
        without_kafka: bool,
        /// Run only tests whose name contains this
        filter: Option<String>,
    },
    /// A thin, long, lossy line on this machine, for whatever speaks TCP or UDP
    ///
    /// Two network namespaces, `edge` (10.93.0.2) and `centre` (10.93.0.1), joined by a link in user space with rate, delay, jitter, random and bursty
    /// loss and a queue in each direction, outages, changes of the edge's address, and counters at the IP level. Driven by a scenario file and by
    /// orders while it is up. Needs root, /dev/net/tun, iproute2 and util-linux.
    #[command(
        after_help = "Examples:\n  ./lab wan up --rate 2Mbit --delay 150ms --loss 2%        2 Mbit/s, 300 ms round trip, until Ctrl-C\n  \
                            ./lab wan up --scenario bad-day.txt\n  \
                            ./lab wan exec edge -- ping -c 3 10.93.0.1               in another terminal\n  \
                            ./lab wan tell outage 10s\n  \
                            ./lab wan counters"
    )]
    Wan {
        /// What to do.
        #[command(subcommand)]
        command: WanCommand,
    },
}

/// `lab bench …`
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// The same records through Spillway and through MirrorMaker 2: speed, processor time, memory, latency
    ///
    /// Starts an edge and a central Kafka (4.3.1, one broker each), writes the records of a workload to the edge, and then lets the release
    /// build of agent and collector, and a dedicated MirrorMaker 2 with its default settings, take turns at carrying all of them to the
    /// centre. Prints each run, and at the end medians and ratios. A report, not a test: the exit code is 0 whatever the figures say.
    ///
    /// All of it runs on this machine, brokers included. Let nothing else run; all workloads with three runs take about a quarter of an
    /// hour on two cores. docs/performance.md tells how the figures are made and what they were.
    #[command(after_help = "Examples:\n  ./lab bench throughput                                       everything, three runs\n  \
                            ./lab bench throughput --workload telemetry-1k --runs 1      a first impression, in two minutes\n  \
                            ./lab bench throughput --workload random-200 --without-mm2   while working on the code\n  \
                            ./lab bench throughput --workload latency                    latency at 1,000 records a second only")]
    Throughput(ThroughputOptions),
    /// A thousand sites at one collector, a hundred of them sending: memory, processor time, fairness, and how they all come back
    ///
    /// Starts a central Kafka, fills spillway-progress.internal with positions of every site, starts the release build of the collector and
    /// connects all sites from a load generator in this process, which speaks the real protocol; its own costs are told apart. Then the fleet
    /// is quiet for a while, then some sites send as fast as they can, then the collector is killed with -9 and started again. A report, not
    /// a test: the exit code is 0 whatever the figures say.
    #[command(after_help = "Examples:\n  ./lab bench fleet                                        as the documentation has it\n  \
                            ./lab bench fleet --sites 100 --active 10 --seconds 10   a first impression")]
    Fleet(FleetOptions),
    /// An outage that is longer than the source keeps its records: what Spillway brings afterwards, and what MirrorMaker 2 does
    ///
    /// Starts an edge and a central Kafka, the release build of agent and collector with default settings and a dedicated MirrorMaker 2 beside
    /// them, and writes numbered records at a steady rate to a topic with a short retention. The link of both is down for most of the time; the agent
    /// is killed with -9 ten times, twice while it drains. A line every ten seconds tells how it stands. At the end it is told for both what
    /// arrived, was lost, duplicated or out of order. Exits with 1 unless Spillway has carried every record once and in order, and given its disk
    /// back, while MirrorMaker 2 has lost some: otherwise retention did not bite, and nothing is proven.
    #[command(
        after_help = "Examples:\n  ./lab bench retention                                                              a first impression, in eight minutes\n  \
                            ./lab bench retention --minutes 60 --outage-minutes 50 --retention-minutes 10      as the documentation has it"
    )]
    Retention(RetentionOptions),
    /// The spill: appending beside a bare fsynced log, bytes written to the disk, and the agent with a backlog of 4 GiB
    ///
    /// First the spill's store and a bare log of segments take turns at appending frames to the same disk. Then the release build of the agent stands
    /// between two Kafka clusters: it is cut off, filled and drained some times, and then killed with -9 with a large backlog and started again.
    /// Prints rates, bytes written against payload, time to start, resident memory, and what is left on the disk after each drain. A report, not
    /// a test: the exit code is 0 whatever the figures say, unless records are lost, duplicated or out of order.
    #[command(after_help = "Examples:\n  ./lab bench spill                    everything; needs 15 GB of disk\n  \
                            ./lab bench spill --quick            a first impression\n  \
                            ./lab bench spill --without-agent    without Kafka, while working on the store")]
    Spill(SpillOptions),
    /// A thin line: how much of it becomes useful bytes, and at what cost, beside stock QUIC and TCP
    ///
    /// Peers send incompressible bytes from the edge to the centre of a WAN (./lab wan), one after the other, each on a fresh line with the same shape and
    /// the same chance: the link of Spillway, quinn with CUBIC and with BBR, the kernel's TCP with CUBIC and with BBR, and MirrorMaker 2, default and tuned, on
    /// both, which brings records of random bytes from a Kafka of its own and is measured from its first record on. Prints goodput, bytes at the
    /// IP level, round trips and drops. Needs root, and Java 17 and Maven for MirrorMaker 2, which fetches Apache Kafka (55 MB) with Maven the first time. A report, not
    /// a test: the exit code is 0 whatever the figures say.
    #[command(
        after_help = "Examples:\n  ./lab bench link                                             2 Mbit/s, 300 ms, 2 % loss; a quarter of an hour\n  \
                            ./lab bench link --with spillway --seconds 20                a first impression\n  \
                            ./lab bench link --with spillway,tcp-bbr,quinn-bbr           without Java\n  \
                            ./lab bench link --line 512kbit,600ms,2%/8 --runs 3          loss in bursts, medians of three runs\n  \
                            ./lab bench link --grid                                      Spillway on 24 lines; 24 minutes of 50 s and 10 s before"
    )]
    Link(LinkOptions),
    /// What a backlog of telemetry costs on a thin line, through Spillway, through MirrorMaker 2, and as it is over stock QUIC
    ///
    /// Real Kafka at both ends of a WAN (./lab wan). The release build of agent and collector, MirrorMaker 2 with its default settings, and MirrorMaker 2 tuned
    /// for such a line (zstd, 500 ms of linger, batches of 1 MiB, large fetches), each on TCP with CUBIC and with BBR, all at the edge where they do best, carry
    /// the same 300,000 small JSON records to the centre, one after the other; so does stock quinn with CUBIC and with BBR, without Kafka and uncompressed. Prints bytes at
    /// the IP level in both directions, seconds until the last record is there, and ratios. Needs root, Java 17 and Maven, which fetches Apache Kafka (55 MB) the
    /// first time. A report, not a test: the exit code is 0 whatever the figures say.
    #[command(
        after_help = "Examples:\n  ./lab bench compress                                           2 Mbit/s, 300 ms, 2 % loss; three quarters of an hour\n  \
                            ./lab bench compress --records 20000 --with spillway,mm2-tuned   a first impression"
    )]
    Compress(CompressOptions),
    /// How soon something arrives at the centre after the line was down, beside stock QUIC and MirrorMaker 2
    ///
    /// Brokers at both ends of a WAN (./lab wan). The release build of agent and collector, clients and servers on stock quinn (its own settings, CUBIC and BBR; a client
    /// dials again when its connection has timed out) and four MirrorMaker 2 (default settings, and tuned with zstd, 500 ms of linger, batches of 1 MiB; TCP with CUBIC
    /// and with BBR) each send 200 random bytes every 100 ms over the
    /// same line at the same time. Again and again the line is down for a while, in both directions; what is measured is the time from its return until
    /// there is at the centre:
    ///
    /// - spillway byte: what the agent says first on a new connection, or a whole frame (seen in the collector's log and counters, every 10 ms)
    /// - quinn-… byte: a byte that the server's application has read
    /// - spillway record, mm2-… record: a record that a consumer with read_committed has
    /// - fresh record: one that was written after the line was back, so that not only what was on its way has come
    ///
    /// Prints each, and for each length of outages median and worst in milliseconds, and both against the bound of 5 s and two round trips, which Spillway
    /// promises for its first byte. Outages of 24 h are played in virtual time: cargo test -p spillway-link --test
    /// link outage. Needs root, and for MirrorMaker 2 Java 17 and Maven, which fetches Apache Kafka (55 MB) the first time. A report, not a test: the exit code is 0 whatever the figures say.
    #[command(
        after_help = "Examples:\n  ./lab bench outage                                           five outages each of 10 s and of 60 s; an hour\n  \
                            ./lab bench outage --times 0 --minutes 10                    one of ten minutes\n  \
                            ./lab bench outage --udp-blocked                             over TCP\n  \
                            ./lab bench outage --bytes 2000                              ten times as much, which fills QUIC's window in an outage\n  \
                            ./lab bench outage --with spillway,quinn-cubic --seconds 10  without Java"
    )]
    Outage(OutageOptions),
    /// Alarms beside bulk on a thin line, and how classes and weights share it
    ///
    /// The agent and the collector of this build stand between two embedded brokers, with a relay of 50 kbit/s and 300 ms between them, and a backlog in three
    /// topics. Every few seconds an alarm of class 0 is written. Prints how old the alarms are when a consumer at the centre has them, and what share each
    /// topic has in each minute: first for classes 1, 2 and 3, then for weights 8, 4 and 1. At the same time, each on such a line of its own (./lab wan; as root only),
    /// one TCP connection that carries bulk and alarms, and stock quinn with a stream for each, with CUBIC and with BBR. Afterwards, one after the other on such a line
    /// between two Kafkas, MirrorMaker 2 with a topic of bulk and one of alarms, default and tuned, on CUBIC and BBR; for that Java 17 and Maven, which fetches Apache
    /// Kafka (55 MB) the first time. What cannot be measured here is left out, with a line that says why. A report, not a test.
    #[command(after_help = "Examples:\n  ./lab bench classes                                    an hour, most of it for MirrorMaker 2\n  \
                            ./lab bench classes --with spillway                    a quarter of an hour; no root, no Java\n  \
                            ./lab bench classes --with spillway,tcp-bbr,quinn-bbr  no Java\n  \
                            ./lab bench classes --with mm2-default --minutes 2     six minutes")]
    Classes(ClassesOptions),
    /// How closely the cap on wire bytes is kept at 8 kbit/s to 10 Mbit/s with 2 % loss, and a month of a budget
    ///
    /// A real link client sends without a pause to a real link server through a relay that loses 2 % of the packets. Prints the most and the least that any 10 s
    /// carried at the relay, headers included, with what is sent counted, and with both directions. Beside it, over WANs that lose as much (./lab wan; as root
    /// only), TCP and stock quinn, each with CUBIC and BBR, whose cap is in the application: their sender writes as much payload as the rate allows. Then MirrorMaker 2,
    /// default and tuned, on CUBIC and BBR, whose users give it a quota at the central Kafka (producer_byte_rate): each at each rate, since its start and since its first
    /// record; for that Java 17 and Maven, which fetches Apache Kafka (55 MB) the first time. At the end a month of a budget goes by in simulated time, with
    /// a hungry site and kills. What cannot be measured here is left out, with a line that says why. Exits with 1 when any 10 s of Spillway's are more than 2 % over, or a
    /// budget is passed by more than 0.5 %.
    #[command(
        after_help = "Examples:\n  ./lab bench cap                                          half an hour, most of it for MirrorMaker 2\n  \
                            ./lab bench cap --with spillway                          six minutes; no root, no Java\n  \
                            ./lab bench cap --rate 64kbit --with spillway,mm2-tuned  one rate, beside a tuned MirrorMaker 2\n  \
                            ./lab bench cap --month-only                             a second"
    )]
    Cap(CapOptions),
}

/// `lab kafka …`
#[derive(Debug, Subcommand)]
pub enum KafkaCommand {
    /// Start both clusters and print their addresses and how to use them
    Up {
        /// Brokers of each cluster
        #[arg(long, default_value_t = 1, value_parser = clap::builder::PossibleValuesParser::new(["1", "3"]).map(|text| usize::from(text == "3") * 2 + 1))]
        brokers: usize,
        /// Put them at the two ends of the WAN that is up (`./lab wan up`)
        #[arg(long)]
        wan: bool,
    },
    /// End both clusters and remove their data
    Down,
}
