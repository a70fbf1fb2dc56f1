//! Source offsets that have vanished: a gap with its exact range, then on, or a halt.

use spillway_lab::oracle::read::read_records;
use spillway_lab::wait::wait_until;

use crate::common::{FLOW_LIMIT, stage, told_gaps, write};

/// Records at the centre before the gap, the first record after it, and the end.
const BEFORE: usize = 100;
const AFTER: usize = 250;
const END: usize = 400;

/// Exit code: going on would lose data.
const EXIT_STOPPED: i32 = 5;

#[test]
#[ignore = "needs real Kafka: ./lab test"]
fn deleted_source_records_are_a_gap_with_its_exact_range() {
    let mut stage = passed_by("gap");
    stage.agent.start().unwrap();
    wait_until("what is left is at the centre", FLOW_LIMIT, || {
        Ok(read_records(&stage.centre, "gap.gap-t")?.concat().len() == BEFORE + END - AFTER)
    })
    .unwrap();
    stage.wait_drained(&["gap-t"], FLOW_LIMIT).unwrap();

    let source = read_records(&stage.source, "gap-t").unwrap().concat();
    let centre = read_records(&stage.centre, "gap.gap-t").unwrap().concat();
    let tail: Vec<_> = centre[BEFORE..].iter().map(|(_, record)| record).collect();
    assert_eq!(tail, source.iter().map(|(_, record)| record).collect::<Vec<_>>());

    for (name, program) in [("agent", &stage.agent), ("collector", &stage.collectors[0])] {
        let lines = program.log_lines("gap");
        let exact = |line: &&String| line.contains(&format!("={BEFORE}")) && line.contains(&format!("={AFTER}")) && line.contains("gap-t");
        assert_eq!(lines.iter().filter(exact).count(), 1, "the {name}'s log says once from where to where: {lines:#?}");
    }
    let metrics = stage.agent.metrics().unwrap();
    assert_eq!(metrics.sum("spillway_gaps_total", &["retention"]).to_bits(), 1_f64.to_bits(), "spillway_gaps_total");
    let told = format!("gap-t/0 retention {BEFORE}-{AFTER} {}", AFTER - BEFORE);
    assert_eq!(told_gaps(&stage), [told], "the event at the centre");
}

#[test]
#[ignore = "needs real Kafka: ./lab test"]
fn with_on_gap_halt_the_agent_stops_with_code_5_and_sends_nothing() {
    let mut stage = passed_by("halt");
    stage.agent.config.set("kafka.on_gap", "halt");
    stage.agent.spawn().unwrap();
    assert_eq!(stage.agent.wait_exit(FLOW_LIMIT).unwrap(), EXIT_STOPPED);
    let told = stage.agent.log_lines(&format!("offsets {BEFORE} to {AFTER} of halt-t-0"));
    assert!(told.iter().any(|line| line.contains("ERROR") && line.contains("on_gap")), "{told:#?}");
    assert_eq!(read_records(&stage.centre, "halt.halt-t").unwrap().concat().len(), BEFORE);
    assert_eq!(told_gaps(&stage), [""; 0], "nothing has been given up yet");

    // A person decides to go on.
    stage.agent.config.set("kafka.on_gap", "continue");
    stage.agent.start().unwrap();
    stage.wait_drained(&["halt-t"], FLOW_LIMIT).unwrap();
    assert_eq!(read_records(&stage.centre, "halt.halt-t").unwrap().concat().len(), BEFORE + END - AFTER);
    assert_eq!(told_gaps(&stage).len(), 1);
}

/// A stage whose agent was stopped at offset [`BEFORE`], and whose source has meanwhile deleted all below [`AFTER`].
fn passed_by(site: &str) -> spillway_lab::stage::Stage {
    let mut stage = stage(site);
    let topic = format!("{site}-t");
    stage.source.create_topic(&topic, 1, &[]).unwrap();
    write(&stage.source, &topic, 1, 0..BEFORE);
    stage.start().unwrap();
    stage.wait_drained(&[&topic], FLOW_LIMIT).unwrap();
    assert!(stage.agent.terminate().unwrap().success());
    write(&stage.source, &topic, 1, BEFORE..END);
    stage.source.delete_records(&topic, 0, i64::try_from(AFTER).unwrap()).unwrap();
    assert_eq!(stage.source.watermarks(&topic, 0).unwrap().0, i64::try_from(AFTER).unwrap(), "the source has deleted records");
    stage
}
