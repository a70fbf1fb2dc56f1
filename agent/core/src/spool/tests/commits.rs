//! What is offered to be committed for the local group.

use std::time::Instant;

use spillway_proto::Lane;
use spillway_proto::frame::{Section, SectionKind};
use spillway_proto::message::ResumePoint;
use spillway_spill_core::entry::{Class, EntryId, StoredSection};
use spillway_spill_core::summary::{Source, span_of};

use super::{LIMITS, next, site, source};
use crate::ledger::Ledger;
use crate::schedule::Scope;
use crate::spool::{Begins, Known, Spools};
use crate::start::{Beginning, LogRange, StartPolicy};

#[test]
fn a_guess_where_to_read_is_not_committed_before_the_centre_answers() {
    for (point, begins) in [
        (ResumePoint::Fresh, Begins::Begun(Some(Section { lane: Lane(0), kind: SectionKind::Start { next: next(10) } }))),
        (ResumePoint::At(next(11)), Begins::Begun(None)),
        (ResumePoint::At(next(4)), Begins::Hole),
    ] {
        let now = Instant::now();
        let (mut ledger, mut spool) = (Ledger::new(now), Spools::single(LIMITS, EntryId::ZERO));
        let lane = ledger.open(source(0)).unwrap().lane;
        let log = LogRange { start: next(3), end: next(10) };
        spool.read_on_log(&mut ledger, lane, &Known::default(), None, log, StartPolicy::Latest);
        assert_eq!(ledger.take_attachments()[0].next, next(10));
        spool.built(&mut ledger, site::frame(&[(lane, 10, 12)]), &[], 0, now).unwrap();
        let sections = spool.take_appends().remove(0).sections;
        spool.stored(&mut ledger, Class::DEFAULT, 1, EntryId(1));
        assert!(ledger.take_commits().is_empty(), "nobody knows of what comes before");
        let StoredSection { partition, topic_id, partition_count, .. } = sections[0].clone();
        let spans = vec![(Source { partition, topic_id, partition_count }, span_of(&sections[0], false))];
        let known = Known { spans, released: None };
        ledger.session_opened(1 << 20);
        ledger.resume(lane, point, now).unwrap();
        assert_eq!(spool.begin(&mut ledger, lane, point, &known), begins);
        if begins == Begins::Hole {
            assert_eq!(spool.begin_hole(&mut ledger, lane, point, &known, log), Begins::Begun(None));
            assert_eq!(ledger.take_ended().len(), 1, "a new lane reads from 4 on");
        }
    }
}

#[test]
fn what_was_known_of_a_partition_holds_for_its_next_lane() {
    let now = Instant::now();
    let (mut ledger, mut spool) = (Ledger::new(now), Spools::single(LIMITS, EntryId::ZERO));
    ledger.session_opened(1 << 20);
    let lane = ledger.open(source(0)).unwrap().lane;
    ledger.resume(lane, ResumePoint::At(next(10)), now).unwrap();
    ledger.begin(lane, ResumePoint::At(next(10)), Beginning::Resume { at: next(10) });
    ledger.push(site::frame(&[(lane, 10, 12)]), &[], 0, now).unwrap();
    while ledger.next_frame().is_some() {}
    ledger.ack(lane, next(12), now).unwrap();
    // The group is asked before the commit has reached it.
    assert_eq!(ledger.take_commits()[&source(0).partition], next(12));
    ledger.session_closed();
    ledger.abandon(lane);
    let lane = ledger.open(source(0)).unwrap().lane;
    let log = LogRange { start: next(3), end: next(20) };
    spool.read_on_log(&mut ledger, lane, &Known::default(), None, log, StartPolicy::Found(Some(next(12))));
    assert_eq!(ledger.take_attachments().last().unwrap().next, next(12));
    spool.built(&mut ledger, site::frame(&[(lane, 12, 14)]), &[], 0, now).unwrap();
    spool.take_appends();
    spool.stored(&mut ledger, Class::DEFAULT, 1, EntryId(1));
    assert_eq!(ledger.take_commits()[&source(0).partition], next(14), "the source may forget it");
}

#[test]
fn a_copy_that_becomes_durable_late_takes_no_commit_back() {
    let now = Instant::now();
    let mut ledger = Ledger::new(now);
    ledger.session_opened(1 << 20);
    let lane = ledger.open(source(0)).unwrap().lane;
    ledger.resume(lane, ResumePoint::At(next(0)), now).unwrap();
    ledger.begin(lane, ResumePoint::At(next(0)), Beginning::Resume { at: next(0) });
    for n in 0..2 {
        ledger.push(site::frame(&[(lane, n, n + 1)]), &[], 0, now).unwrap();
    }
    let copies = ledger.copies(Scope::All);
    while ledger.next_frame().is_some() {}
    ledger.ack(lane, next(2), now).unwrap();
    ledger.durable(&copies[0].raw_sections, Some(copies[0].index));
    assert_eq!(ledger.take_commits().into_values().collect::<Vec<_>>(), [next(2)]);
}

#[test]
fn where_offsets_start_over_what_was_safe_means_nothing() {
    let now = Instant::now();
    let mut ledger = Ledger::new(now);
    ledger.session_opened(1 << 20);
    let lane = ledger.open(source(0)).unwrap().lane;
    ledger.resume(lane, ResumePoint::At(next(12)), now).unwrap();
    ledger.place(lane, None);
    ledger.begin(lane, ResumePoint::At(next(12)), Beginning::Resume { at: next(12) });
    ledger.push(site::frame(&[(lane, 12, 14)]), &[], 0, now).unwrap();
    while ledger.next_frame().is_some() {}
    ledger.ack(lane, next(14), now).unwrap();
    assert_eq!(ledger.safe_to(lane), Some(next(14)));
    ledger.begin_line(lane);
    assert_eq!(ledger.safe_to(lane), None);
}
