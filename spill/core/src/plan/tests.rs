#![expect(clippy::unwrap_used, reason = "tests")]
use proptest::prelude::*;
use spillway_proto::{Partition, TopicName, TopicPartition};

use super::*;

const A: TopicId = TopicId([1; 16]);
const B: TopicId = TopicId([2; 16]);

fn next(value: u64) -> NextOffset {
    NextOffset::new(value).unwrap()
}

fn source(topic_id: TopicId) -> Source {
    let partition = TopicPartition { topic: TopicName::parse("t").unwrap(), partition: Partition::FIRST };
    Source { partition, topic_id, partition_count: 1 }
}

fn span(topic_id: TopicId, line: u32, what: What, first: u64, end: u64) -> (Source, Span) {
    (source(topic_id), Span { line: Line(line), what, first: next(first), next: next(end) })
}

fn released(line: u32, at: u64) -> Option<Released> {
    Some(Released { topic_id: A, line: Line(line), next: next(at) })
}

/// A plan in short: `first..next` is sent, with its opening before it; `?` is read again; then where reading goes on.
fn short(plan: &Plan) -> String {
    let mut out = Vec::new();
    for leg in &plan.legs {
        match leg {
            Leg::Refill { first, next, .. } => out.push(format!("?{first}..{next}")),
            Leg::Send { line, opening, first, next, .. } => {
                let opening = match opening {
                    Opening::Joins => String::new(),
                    Opening::Start => "start ".to_owned(),
                    Opening::Gap { first, reason } => format!("{}({first}) ", reason.as_str()),
                };
                out.push(format!("{opening}{line}:{first}..{next}"));
            }
        }
    }
    out.push(plan.goes_on.map_or_else(|| "-".to_owned(), |(_, at)| format!("then {at}")));
    out.join(" ")
}

fn at(spans: &[(Source, Span)], position: u64) -> String {
    short(&plan(spans, None, ResumePoint::At(next(position)), A, Some(A)))
}

#[test]
fn the_newer_of_centre_and_spill_counts() {
    let spans = [span(A, 0, What::Data, 100, 200), span(A, 0, What::Data, 200, 300)];
    assert_eq!(at(&spans, 100), "0:100..300 then 300");
    assert_eq!(at(&spans, 150), "0:150..300 then 300", "what the centre has is skipped");
    assert_eq!(at(&spans, 300), "then 300");
    assert_eq!(at(&spans, 450), "then 450", "the centre is further");
    assert_eq!(at(&spans, 90), "?90..100 0:100..300 then 300", "what is missing in between is read again");
    assert_eq!(short(&plan(&[], None, ResumePoint::At(next(5)), A, Some(A))), "-");
}

#[test]
fn a_fresh_centre_gets_a_start() {
    let spans = [span(A, 0, What::Start, 100, 100), span(A, 0, What::Data, 100, 200)];
    assert_eq!(short(&plan(&spans, None, ResumePoint::Fresh, A, Some(A))), "start 0:100..200 then 200");
    assert_eq!(short(&plan(&spans[..1], None, ResumePoint::Fresh, A, Some(A))), "start 0:100..100 then 100");
}

#[test]
fn damage_is_read_again_and_what_was_dropped_is_a_gap() {
    let spans =
        [span(A, 0, What::Data, 0, 10), span(A, 0, What::Lost, 10, 20), span(A, 0, What::Data, 20, 30), span(A, 0, What::Data, 35, 40)];
    assert_eq!(at(&spans, 0), "0:0..10 ?10..20 0:20..30 ?30..35 0:35..40 then 40");
    let refilled = [&spans[..], &[span(A, 0, What::Data, 10, 20)]].concat();
    assert_eq!(at(&refilled, 0), "0:0..30 ?30..35 0:35..40 then 40", "a refill takes its place although it came later");
    let dropped = [
        span(A, 0, What::Gap(GapReason::Dropped), 0, 20),
        span(A, 0, What::Data, 20, 30),
        span(A, 0, What::Gap(GapReason::Dropped), 30, 50),
    ];
    assert_eq!(at(&dropped, 0), "dropped(0) 0:20..30 dropped(30) 0:50..50 then 50");
    assert_eq!(at(&dropped, 7), "dropped(7) 0:20..30 dropped(30) 0:50..50 then 50");
    let fresh = short(&plan(&dropped, None, ResumePoint::Fresh, A, Some(A)));
    assert_eq!(fresh, "start 0:0..0 dropped(0) 0:20..30 dropped(30) 0:50..50 then 50", "a start does not hide it");
    let both = [span(A, 0, What::Gap(GapReason::Dropped), 0, 4), span(A, 0, What::Gap(GapReason::Retention), 4, 9)];
    assert_eq!(at(&both, 0), "dropped(0) 0:4..4 retention(4) 0:9..9 then 9");
    let retention = [span(A, 0, What::Data, 0, 5), span(A, 0, What::Gap(GapReason::Retention), 5, 9), span(A, 0, What::Data, 9, 12)];
    assert_eq!(at(&retention, 2), "0:2..5 retention(5) 0:9..12 then 12");
}

#[test]
fn a_truncated_log_goes_back_only_after_all_before_it() {
    let spans = [span(A, 0, What::Data, 0, 100), span(A, 1, What::Gap(GapReason::Truncated), 100, 80), span(A, 1, What::Data, 80, 120)];
    assert_eq!(at(&spans, 90), "0:90..100 truncated(100) 1:80..120 then 120");
    let ask = |released, at: u64| short(&plan(&spans, released, ResumePoint::At(next(at)), A, Some(A)));
    assert_eq!(ask(released(0, 50), 80), "0:80..100 truncated(100) 1:80..120 then 120", "not all before the gap was released");
    assert_eq!(ask(released(0, 100), 100), "truncated(100) 1:80..120 then 120", "the gap was not applied");
    assert_eq!(ask(released(0, 100), 80), "1:80..120 then 120", "it was");
    assert_eq!(ask(released(1, 80), 90), "1:90..120 then 120");
    assert_eq!(ask(released(0, 100), 110), "1:110..120 then 120");
}

#[test]
fn a_topic_made_anew_follows_the_old_one() {
    let recreated = What::Gap(GapReason::TopicRecreated);
    let spans = [span(A, 0, What::Data, 50, 100), span(B, 1, recreated, 100, 0), span(B, 1, What::Data, 0, 30)];
    assert_eq!(at(&spans, 60), "0:60..100 topic_recreated(100) 1:0..30 then 30");
    let answer = |previous, at| ResumePoint::Recreated { previous, next: next(at) };
    let ask = |previous, at| short(&plan(&spans, None, answer(previous, at), A, Some(B)));
    assert_eq!(ask(B, 10), "1:10..30 then 30", "the centre has the new one already");
    assert_eq!(
        ask(TopicId([9; 16]), 7),
        "topic_recreated(7) 0:50..100 topic_recreated(100) 1:0..30 then 30",
        "the centre has one before both"
    );
    let old = [span(A, 0, What::Data, 50, 100)];
    assert_eq!(short(&plan(&old, None, answer(B, 10), A, Some(B))), "-", "all of it is there: the centre has the topic of today");
}

#[test]
fn the_oldest_source_that_is_not_released_is_announced() {
    let spans = [span(A, 0, What::Data, 50, 100), span(B, 1, What::Data, 0, 30)];
    let id = |released| announce(&spans, released).map(|source| source.topic_id);
    assert_eq!(id(None), Some(A));
    assert_eq!(id(released(0, 99)), Some(A));
    assert_eq!(id(released(0, 100)), Some(B));
    assert_eq!(id(released(1, 30)), None);
}

proptest! {
    /// From the centre's position to the end every offset is on the way exactly once, in order: sent, read again or in a gap.
    #[test]
    fn nothing_is_left_out(pieces in prop::collection::vec((0u64..100, 1u64..20, 0u8..4), 1..12), position in 0u64..120) {
        let what = |kind| match kind { 0 => What::Lost, 1 => What::Gap(GapReason::Dropped), _ => What::Data };
        let spans = pieces.iter().map(|(first, length, kind)| span(A, 0, what(*kind), *first, first + length)).collect::<Vec<_>>();
        let plan = plan(&spans, None, ResumePoint::At(next(position)), A, Some(A));
        let holds = |offset: u64, wanted: fn(What) -> bool| spans.iter().any(|(_, span)| {
            wanted(span.what) && (span.first.value()..span.next.value()).contains(&offset)
        });
        let mut at = position;
        for leg in &plan.legs {
            let (first, end, refill) = match leg {
                Leg::Send { opening, first, next, .. } => {
                    if let Opening::Gap { first: gap, .. } = opening {
                        prop_assert_eq!(gap.value(), at);
                        prop_assert!((at..first.value()).all(|offset| !holds(offset, |what| what == What::Data)), "data in a gap");
                        at = first.value();
                    }
                    (first.value(), next.value(), false)
                }
                Leg::Refill { first, next, .. } => (first.value(), next.value(), true),
            };
            prop_assert_eq!(first, at);
            prop_assert!((first..end).all(|offset| holds(offset, |what| what == What::Data) != refill));
            at = end;
        }
        let end = spans.iter().map(|(_, span)| span.next.value()).max().unwrap().max(position);
        prop_assert_eq!(plan.goes_on, Some((A, next(end))));
        prop_assert_eq!(at, end);
    }
}
