#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;

fn rate(text: &str) -> Result<Rate, Flaw> {
    match text {
        "off" => Ok(Rate::Off),
        "unlimited" => Ok(Rate::Unlimited),
        _ => text.parse().map(Rate::bits).map_err(|_| Flaw { what: "not a rate".into(), fix: "write a rate".into() }),
    }
}

fn table(zone: &str, texts: &[&str]) -> Timetable {
    Timetable::parse(TimeZone::get(zone).unwrap(), texts, rate).unwrap()
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn error(texts: &[&str]) -> Error {
    Timetable::parse(TimeZone::UTC, texts, rate).unwrap_err()
}

const WEEK: &[&str] = &["Mon-Fri 08:00 512, 12:00 10, 23:00 off", "Sat 09:30 7"];

#[test]
fn a_week_works_like_a_thermostat() {
    let table = table("UTC", WEEK);
    // 2 March 2026 is a Monday.
    for (when, rate) in [
        ("2026-03-02T07:59:59.999Z", 7),
        ("2026-03-02T08:00:00Z", 512),
        ("2026-03-02T11:59:59Z", 512),
        ("2026-03-02T12:00:00Z", 10),
        ("2026-03-02T23:00:00Z", 0),
        ("2026-03-03T07:59:00Z", 0),
        ("2026-03-03T08:00:00Z", 512),
        ("2026-03-07T09:29:59Z", 0),
        ("2026-03-07T09:30:00Z", 7),
        ("2026-03-08T12:00:00Z", 7),
        ("2026-03-09T07:59:59Z", 7),
    ] {
        assert_eq!(table.rate_at(at(when)), Rate::bits(rate), "{when}");
    }
    assert_eq!(table.next_change(at("2026-03-06T23:00:00Z")), Some(at("2026-03-07T09:30:00Z")));
    assert_eq!(table.next_change(at("2026-03-07T09:30:00Z")), Some(at("2026-03-09T08:00:00Z")));
}

#[test]
fn a_rate_that_is_repeated_is_no_change() {
    let table = table("UTC", &["daily 00:00 5, 12:00 5"]);
    assert_eq!(table.next_change(at("2026-03-02T07:00:00Z")), None);
    let table = self::table("UTC", &["Mon 00:00 5", "Wed 00:00 5", "Fri 00:00 6"]);
    assert_eq!(table.next_change(at("2026-03-02T07:00:00Z")), Some(at("2026-03-06T00:00:00Z")));
}

#[test]
fn a_single_change_a_week_holds_all_week() {
    let table = table("Pacific/Auckland", &["Thu 10:00 off"]);
    for hour in 0..24 * 14 {
        let when = at("2026-04-01T00:00:00Z") + (hour * 3600).seconds();
        assert_eq!((table.rate_at(when), table.next_change(when)), (Rate::Off, None), "{when}");
    }
}

/// Zones, a change per minute around each jump: what the clock on the wall does, told by hand.
#[test]
fn a_time_that_is_skipped_comes_when_the_clock_is_put_forward() {
    // Berlin, 29 March 2026: 02:00 becomes 03:00 at 01:00 UTC. 02:15 and 02:45 do not exist: the later one holds.
    let berlin = table("Europe/Berlin", &["Sun 01:30 1, 02:15 2, 02:45 3, 03:30 4"]);
    for (when, rate) in [("2026-03-29T00:59:59Z", 1), ("2026-03-29T01:00:00Z", 3), ("2026-03-29T01:29:59Z", 3), ("2026-03-29T01:30:00Z", 4)]
    {
        assert_eq!(berlin.rate_at(at(when)), Rate::bits(rate), "{when}");
    }
    assert_eq!(berlin.next_change(at("2026-03-29T00:45:00Z")), Some(at("2026-03-29T01:00:00Z")));
    assert_eq!(berlin.next_change(at("2026-03-29T01:00:00Z")), Some(at("2026-03-29T01:30:00Z")));
    // New York, 8 March 2026: 02:00 becomes 03:00 at 07:00 UTC.
    let york = table("America/New_York", &["Sun 01:00 1, 02:00 2"]);
    assert_eq!(york.rate_at(at("2026-03-08T06:59:59Z")), Rate::bits(1));
    assert_eq!(york.rate_at(at("2026-03-08T07:00:00Z")), Rate::bits(2));
    // Lord Howe, 4 October 2026: 02:00 becomes 02:30 at 15:30 UTC of the day before. Half an hour only.
    let howe = table("Australia/Lord_Howe", &["Sun 02:10 1, 02:40 2"]);
    assert_eq!(howe.rate_at(at("2026-10-03T15:29:59Z")), Rate::bits(2));
    assert_eq!(howe.rate_at(at("2026-10-03T15:30:00Z")), Rate::bits(1));
    assert_eq!(howe.rate_at(at("2026-10-03T15:40:00Z")), Rate::bits(2));
}

#[test]
fn a_time_that_comes_twice_comes_the_first_time() {
    // Berlin, 25 October 2026: 03:00 becomes 02:00 at 01:00 UTC. 02:30 is at 00:30 and at 01:30 UTC.
    let berlin = table("Europe/Berlin", &["Sun 01:30 1, 02:30 2, 03:30 3"]);
    for (when, rate) in [
        ("2026-10-25T00:29:59Z", 1),
        ("2026-10-25T00:30:00Z", 2),
        ("2026-10-25T01:15:00Z", 2),
        ("2026-10-25T01:30:00Z", 2),
        ("2026-10-25T02:29:59Z", 2),
        ("2026-10-25T02:30:00Z", 3),
    ] {
        assert_eq!(berlin.rate_at(at(when)), Rate::bits(rate), "{when}");
    }
    // New York, 1 November 2026: 02:00 becomes 01:00 at 06:00 UTC; 01:30 is first at 05:30.
    let york = table("America/New_York", &["Sun 01:30 1, 02:00 2"]);
    assert_eq!(york.rate_at(at("2026-11-01T05:29:59Z")), Rate::bits(2));
    assert_eq!(york.rate_at(at("2026-11-01T05:30:00Z")), Rate::bits(1));
    assert_eq!(york.rate_at(at("2026-11-01T06:45:00Z")), Rate::bits(1));
    assert_eq!(york.rate_at(at("2026-11-01T07:00:00Z")), Rate::bits(2));
}

#[test]
fn a_day_that_does_not_exist_keeps_its_last_change() {
    // Samoa skipped 30 December 2011, a Friday: midnight at the end of Thursday was 10:00 UTC of the 30th.
    let samoa = table("Pacific/Apia", &["Thu 12:00 1", "Fri 08:00 2, 18:00 3", "Sat 06:00 4"]);
    assert_eq!(samoa.rate_at(at("2011-12-30T09:59:59Z")), Rate::bits(1));
    assert_eq!(samoa.rate_at(at("2011-12-30T10:00:00Z")), Rate::bits(3));
    assert_eq!(samoa.rate_at(at("2011-12-30T16:00:00Z")), Rate::bits(4));
}

/// Minute by minute over both changes of the clock: the rate is what a person reads off the wall clock and the table, where the time is not ambiguous;
/// and it changes exactly where `next_change` says.
#[test]
fn every_minute_agrees_with_the_wall_clock_and_changes_are_foretold() {
    let texts = ["daily 00:00 1, 02:30 2, 08:00 3, 23:59 4", "Tue 01:00 5"];
    for zone in ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Santiago", "Asia/Kolkata", "Africa/Casablanca", "UTC"]
    {
        let table = table(zone, &texts);
        let tz = TimeZone::get(zone).unwrap();
        for first in [
            "2026-03-06T00:00:00Z",
            "2026-03-27T00:00:00Z",
            "2026-04-03T00:00:00Z",
            "2026-09-04T00:00:00Z",
            "2026-10-02T00:00:00Z",
            "2026-10-30T00:00:00Z",
        ] {
            let mut next = table.next_change(at(first)).unwrap();
            let mut holds = table.rate_at(at(first));
            for minute in 1..4 * 24 * 60 {
                let now = at(first) + (minute * 60).seconds();
                let rate = table.rate_at(now);
                assert_eq!(rate != holds, now >= next, "{zone} {now}: {holds:?} to {rate:?}, foretold for {next}");
                if now >= next {
                    (holds, next) = (rate, table.next_change(now).unwrap());
                }
                let wall = now.to_zoned(tz.clone()).datetime();
                let clear = |minutes: i64| !tz.to_ambiguous_timestamp(wall.checked_sub(minutes.minutes()).unwrap()).is_ambiguous();
                if (0..=24 * 60).step_by(15).all(clear) {
                    let minutes = i64::from(wall.hour()) * 60 + i64::from(wall.minute());
                    let tuesday = wall.weekday() == civil::Weekday::Tuesday;
                    let expected = match minutes {
                        1439.. => 4,
                        480.. => 3,
                        150.. => 2,
                        60.. if tuesday => 5,
                        _ => 1,
                    };
                    assert_eq!(rate, Rate::bits(expected), "{zone} {now} {wall}");
                }
            }
        }
    }
}

#[test]
fn what_is_no_timetable_is_told_with_its_text_and_a_fix() {
    for (texts, said) in [
        (&[][..], "no changes"),
        (&["daily 00:00 5", " "], "no changes"),
        (&["08:00 5"], "\"08:00 5\" begins without days"),
        (&["Mon-Fry 08:00 5"], "no days: \"Mon-Fry\""),
        (&["Mon 24:00 5"], "no time of day: \"24:00\""),
        (&["Mon 8 5"], "no time of day: \"8\""),
        (&["Mon 8:5 5"], "no time of day: \"8:5\""),
        (&["Mon +8:05 5"], "no time of day: \"+8:05\""),
        (&["Mon 08:00 fast"], "the rate of \"Mon 08:00 fast\" is not a rate"),
        (&["Mon 08:00"], "no time of day: \"Mon\""),
        (&["Mon 08:00 5,"], "\"\" is not days, a time and a rate"),
        (&["Mon-Wed 08:00 5", "Tue 08:00 6"], "two changes on Tue at 08:00:00"),
    ] {
        let error = error(texts);
        assert_eq!(error.to_string(), *said, "{texts:?}");
        assert!(!error.fix().is_empty());
    }
    assert_eq!(error(&["daily 00:00 5", "x"]).text(), 1);
    let long = format!("daily 00:00 {}", "5".repeat(TEXT_BYTES_MAX));
    assert!(matches!(error(&[&long]), Error::TooLong { what: "bytes", .. }));
    assert!(matches!(error(&["daily 00:00 5"; TEXTS_MAX + 1]), Error::TooLong { what: "texts", .. }));
    let minutes: Vec<String> = (0..97).map(|n| format!("daily {:02}:{:02} {n}", n / 10, n % 10)).collect();
    let texts: Vec<String> = minutes.chunks(10).map(|part| part.join(", ")).collect();
    assert!(matches!(error(&texts.iter().map(String::as_str).collect::<Vec<_>>()), Error::TooLong { what: "changes in a week", .. }));
}

#[test]
fn days_may_go_over_the_end_of_the_week() {
    let table = table("UTC", &["Sat-Mon 10:00 1", "tue-FRI 10:00 2"]);
    let rates: Vec<_> = (0..7).map(|day| table.rate_at(at("2026-03-02T11:00:00Z") + (day * 86_400).seconds())).collect();
    assert_eq!(rates, [1, 2, 2, 2, 2, 1, 1].map(Rate::bits));
}
