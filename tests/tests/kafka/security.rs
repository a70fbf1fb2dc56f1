//! TLS, SCRAM and ACLs at both clusters: exactly the rights that the README lists are enough.

use std::time::Duration;

use spillway_lab::client::Client;
use spillway_lab::kafka_cluster::{KafkaCluster, KafkaOptions, Secured};
use spillway_lab::reaper::scratch_dir;
use spillway_lab::stage::pki::Pki;
use spillway_lab::stage::program::Program;
use spillway_lab::wait::wait_until;

use crate::common::{FLOW_LIMIT, assert_exact, stage_between, told_gaps, write};

const ACL_COMMAND: &str = "org.apache.kafka.tools.AclCommand";

#[test]
#[ignore = "needs real Kafka: ./lab test"]
fn the_listed_acls_are_enough_with_scram_over_tls() {
    let pki = Pki::init(&scratch_dir("kafka-pki").unwrap()).unwrap();
    let edge = secured("edge", &pki, "agent");
    let centre = secured("centre", &pki, "collector");
    let clients = (Client::new(edge.bootstrap()), Client::new(centre.bootstrap()));
    let mut stage = stage_between("acl", clients);
    let bootstrap = (edge.secured_bootstrap(), centre.secured_bootstrap());
    use_security(&mut stage.agent, &bootstrap.0, &pki, "agent");
    use_security(stage.collector(0).unwrap(), &bootstrap.1, &pki, "collector");
    stage.source.create_topic("acl-t", 2, &[]).unwrap();
    write(&stage.source, "acl-t", 2, 0..1_000);
    stage.source.create_topic("acl-gap", 1, &[]).unwrap();
    write(&stage.source, "acl-gap", 1, 0..100);

    // The centre's rights first: without the site's, the agent sees nothing, says so, and does not exit.
    for (operations, resource) in [
        (&["Create", "Write", "Describe", "DescribeConfigs", "Alter"][..], &["--topic", "acl."][..]),
        (&["Create", "Write", "Describe"], &["--topic", "mm2-offset-syncs."]),
        (&["Create", "Read", "Write", "Describe"], &["--topic", "spillway-progress.internal"]),
        (&["Create", "Write", "Describe"], &["--topic", "spillway-gaps.internal"]),
        (&["Write", "Describe"], &["--transactional-id", "spillway-"]),
    ] {
        allow(&centre, "collector", operations, resource);
    }
    stage.start_collectors().unwrap();
    stage.agent.spawn().unwrap();
    std::thread::sleep(Duration::from_secs(5));
    assert!(stage.agent.is_running(), "the agent waits for its rights");
    assert!(!stage.centre.topics().unwrap().contains_key("acl.acl-t"), "without rights nothing is mirrored");
    allow(&edge, "agent", &["Read", "Describe"], &["--topic", "acl-"]);
    allow(&edge, "agent", &["Read"], &["--group", "spillway-acl"]);
    stage.wait_drained(&["acl-t", "acl-gap"], FLOW_LIMIT * 2).unwrap();

    // More partitions need Alter, a restart needs Read of the progress topic, a gap needs Write of the topic of gaps.
    stage.source.set_partitions("acl-t", 4).unwrap();
    write(&stage.source, "acl-t", 4, 1_000..2_000);
    wait_until("the new partitions are at the centre", FLOW_LIMIT, || Ok(stage.centre.topics()?.get("acl.acl-t") == Some(&4))).unwrap();
    assert!(stage.agent.terminate().unwrap().success());
    assert!(stage.collector(0).unwrap().terminate().unwrap().success());
    write(&stage.source, "acl-gap", 1, 100..200);
    stage.source.delete_records("acl-gap", 0, 150).unwrap();
    stage.start().unwrap();
    stage.wait_drained(&["acl-t", "acl-gap"], FLOW_LIMIT).unwrap();
    assert_eq!(told_gaps(&stage), ["acl-gap/0 retention 100-150 50"]);
    assert_exact(&stage, &["acl-t"]);
}

#[test]
#[ignore = "needs real Kafka: ./lab test"]
fn a_secured_cluster_wants_the_password_and_grants_nothing_by_itself() {
    let pki = Pki::init(&scratch_dir("kafka-pki").unwrap()).unwrap();
    let cluster = secured("secured", &pki, "someone");
    let lab = Client::new(cluster.bootstrap());
    lab.create_topic("t", 1, &[]).unwrap();
    let someone = |password: &str| {
        Client::new(cluster.secured_bootstrap())
            .with("security.protocol", "SASL_SSL")
            .with("ssl.ca.location", &pki.ca().display().to_string())
            .with("sasl.mechanism", "SCRAM-SHA-512")
            .with("sasl.username", "someone")
            .with("sasl.password", password)
    };
    assert!(someone("wrong").topics().is_err(), "a wrong password");
    let topics = someone(&password("someone")).topics().unwrap();
    assert!(topics.is_empty(), "nothing is granted: {topics:?}");
    allow(&cluster, "someone", &["Describe"], &["--topic", "t"]);
    wait_until("the right is there", FLOW_LIMIT, || Ok(someone(&password("someone")).topics()?.contains_key("t"))).unwrap();
}

/// A cluster whose second listener wants SCRAM over TLS from `user`, and grants nothing by itself.
fn secured(label: &str, pki: &Pki, user: &str) -> KafkaCluster {
    // Kafka takes key and chain from one file.
    let server = pki.server();
    let both = std::fs::read_to_string(&server.key).unwrap() + &std::fs::read_to_string(&server.cert).unwrap();
    let key_and_chain = server.key.with_file_name(format!("{label}-kafka.pem"));
    std::fs::write(&key_and_chain, both).unwrap();
    let mut options = KafkaOptions::new(label);
    options.secured = Some(Secured { key_and_chain, ca: pki.ca(), users: vec![(user.to_owned(), password(user))] });
    KafkaCluster::start(options).unwrap()
}

fn use_security(program: &mut Program, bootstrap: &str, pki: &Pki, user: &str) {
    let config = &mut program.config;
    config.set("kafka.bootstrap_servers", bootstrap);
    config.set("kafka.security_protocol", "SASL_SSL");
    config.set("kafka.ssl_ca", pki.ca().display().to_string());
    config.set("kafka.sasl_mechanism", "SCRAM-SHA-512");
    config.set("kafka.sasl_username", user);
    // The password comes from the environment: it must not be needed in a file.
    program.set_env("SPILLWAY_KAFKA__SASL_PASSWORD", &password(user));
}

fn password(user: &str) -> String {
    format!("{user}-secret")
}

fn allow(cluster: &KafkaCluster, user: &str, operations: &[&str], resource: &[&str]) {
    let principal = format!("User:{user}");
    let mut args = vec!["--add", "--allow-principal", &principal, "--resource-pattern-type", "prefixed"];
    args.extend(operations.iter().flat_map(|operation| ["--operation", operation]));
    args.extend(resource);
    cluster.run_tool(ACL_COMMAND, &args).unwrap();
}
