//! SIGTERM drains and exits 0; a second signal exits at once; neither loses anything.

use std::time::{Duration, Instant};

use spillway_lab::client::Client;
use spillway_lab::process::Signal;
use spillway_lab::wait::wait_until;

use crate::common::{FLOW_LIMIT, FLUSH_LIMIT, assert_exact, numbered, stage, write};

/// Exit code after a second SIGTERM.
const EXIT_TERMINATED: i32 = 143;

#[test]
#[ignore = "needs real Kafka: ./lab test"]
fn sigterm_drains_commits_and_exits_0_while_records_flow() {
    let mut stage = stage("drain");
    stage.source.create_topic("drain-t", 3, &[]).unwrap();
    stage.start().unwrap();
    for round in 0..4_usize {
        let writer = writer(stage.source.clone(), "drain-t", round * 20_000..(round + 1) * 20_000);
        wait_until("records flow", FLOW_LIMIT, || Ok(stage.agent.metrics()?.sum("spillway_records_acked_total", &[]) > 0.0)).unwrap();
        // Agent and collector in turn.
        let program = if round % 2 == 0 { &mut stage.agent } else { stage.collector(0).unwrap() };
        let status = program.terminate().unwrap();
        assert!(status.success(), "round {round}: {status}");
        if round % 2 == 0 {
            // Drained: what was read is acknowledged, so the group stands exactly where the centre does.
            let held: i64 = (0..3)
                .map(|p| i64::try_from(spillway_lab::oracle::read::read_topic(&stage.centre, "drain.drain-t").unwrap()[p].len()).unwrap())
                .sum();
            let committed: i64 =
                stage.source.committed(&stage.group(), "drain-t", 3).unwrap().iter().map(|offset| offset.unwrap_or(0)).sum();
            assert_eq!(committed, held, "round {round}: the group after the drain");
            stage.agent.start().unwrap();
        } else {
            stage.collector(0).unwrap().start().unwrap();
        }
        writer.join().unwrap();
    }
    stage.wait_drained(&["drain-t"], FLOW_LIMIT).unwrap();
    assert_exact(&stage, &["drain-t"]);
}

#[test]
#[ignore = "needs real Kafka: ./lab test"]
fn a_second_signal_exits_at_once_and_loses_nothing() {
    let mut stage = stage("second");
    stage.source.create_topic("second-t", 2, &[]).unwrap();
    write(&stage.source, "second-t", 2, 0..1_000);
    stage.start().unwrap();
    stage.wait_drained(&["second-t"], FLOW_LIMIT).unwrap();
    // Nothing can be acknowledged any more, so the drain cannot end by itself.
    stage.relay.set_cut(true);
    write(&stage.source, "second-t", 2, 1_000..3_000);
    std::thread::sleep(Duration::from_secs(1));
    stage.agent.signal(Signal::TERM).unwrap();
    std::thread::sleep(Duration::from_secs(2));
    assert!(stage.agent.is_running(), "the agent drains as long as it may");
    let asked = Instant::now();
    stage.agent.signal(Signal::TERM).unwrap();
    let code = stage.agent.wait_exit(Duration::from_secs(10)).unwrap();
    assert_eq!(code, EXIT_TERMINATED);
    assert!(asked.elapsed() < Duration::from_secs(3), "it took {:?}", asked.elapsed());

    stage.relay.set_cut(false);
    stage.agent.start().unwrap();
    stage.wait_drained(&["second-t"], FLOW_LIMIT).unwrap();
    assert_exact(&stage, &["second-t"]);
}

fn writer(source: Client, topic: &'static str, numbers: std::ops::Range<usize>) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let producer = source.producer().unwrap();
        for n in numbers {
            producer.send(topic, i32::try_from(n % 3).unwrap(), &numbered(n)).unwrap();
            if n % 50 == 0 {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        producer.flush(FLUSH_LIMIT).unwrap();
    })
}
