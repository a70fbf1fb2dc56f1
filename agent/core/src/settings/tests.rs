use rand::{Rng, SeedableRng, rngs::StdRng};
use spillway_proto::message::revision;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn settings(text: &str) -> Settings {
    Settings { revision: revision(text), text: text.to_owned() }
}

fn outcomes(steps: &[Step]) -> Vec<SettingsOutcome> {
    let of = |step: &Step| if let Step::Report(report) = step { Some(report.outcome) } else { None };
    steps.iter().filter_map(of).collect()
}

/// A book with settings on trial.
fn on_trial() -> SettingsBook {
    let mut book = SettingsBook::new(Kept { text: "old".into(), given_up: None }, Patience::default());
    let steps = book.offered(settings("new"), Ok(()));
    assert_eq!(steps.first(), Some(&Step::Apply("new".into())));
    assert_eq!(outcomes(&steps), [SettingsOutcome::Trying]);
    book
}

#[test]
fn what_is_heard_after_ten_seconds_is_proof() {
    let mut book = on_trial();
    book.tick(9 * SECOND, true);
    assert_eq!(book.heard(), []);
    assert!(book.is_on_trial());
    assert_eq!(outcomes(&book.tick(SECOND, true)), [SettingsOutcome::Trying], "something to be answered");
    let steps = book.heard();
    assert_eq!(steps.first(), Some(&Step::Keep(Kept { text: "new".into(), given_up: None })));
    assert_eq!(outcomes(&steps), [SettingsOutcome::Accepted]);
    assert!(!book.is_on_trial());
}

#[test]
fn silence_brings_the_old_ones_back_and_the_new_ones_are_not_tried_again() {
    let mut book = on_trial();
    book.tick(9 * SECOND, true);
    book.heard();
    for _ in 0..89 {
        assert!(!book.tick(SECOND, true).iter().any(|step| matches!(step, Step::Apply(_))));
    }
    let kept = Kept { text: "old".into(), given_up: Some(revision("new")) };
    assert_eq!(book.tick(SECOND, true), [Step::Apply("old".into()), Step::Keep(kept.clone())]);
    for mut book in [book, SettingsBook::new(kept, Patience::default())] {
        let steps = book.offered(settings("new"), Ok(()));
        assert_eq!(outcomes(&steps), [SettingsOutcome::RolledBack]);
        assert_eq!((steps.len(), book.in_force()), (1, "old"));
        // Until others come; then the same ones count as changed.
        assert_eq!(book.offered(settings("newer"), Ok(())).first(), Some(&Step::Apply("newer".into())));
        assert_eq!(book.offered(settings("new"), Ok(())).first(), Some(&Step::Apply("new".into())));
    }
}

#[test]
fn time_in_which_nothing_may_be_sent_does_not_count() {
    let mut book = on_trial();
    assert_eq!(book.tick(89 * SECOND, false), []);
    assert!(book.is_on_trial());
    book.heard();
    assert!(book.is_on_trial(), "nothing was tried yet");
    for _ in 0..89 {
        assert!(!book.tick(SECOND, true).contains(&Step::Apply("old".into())), "the silence begins when they may send");
    }
}

/// Seconds of `off` until the next look.
fn until_look(book: &mut SettingsBook) -> u64 {
    for second in 1..=2 * LOOKS_APART_MAX.as_secs() {
        let steps = book.tick(SECOND, false);
        if book.is_looking() {
            assert_eq!((steps, book.in_force()), (vec![Step::Look("old".into())], "old"));
            return second;
        }
        assert_eq!((steps, book.in_force()), (vec![], "new"));
    }
    panic!("no look in two days");
}

#[test]
fn settings_that_say_off_are_asked_about_at_once_and_ever_more_rarely() {
    let mut book = on_trial();
    let (mut waits, mut week) = (Vec::new(), 7 * 24 * 3600);
    while week > 0 {
        let wait = until_look(&mut book);
        waits.push(wait);
        week -= wait.min(week);
        // The centre still wants them. They hold again, and are on trial as before.
        let steps = book.offered(settings("new"), Ok(()));
        assert_eq!(steps.first(), Some(&Step::Apply("new".into())));
        assert_eq!(outcomes(&steps), [SettingsOutcome::Trying]);
        assert!(book.is_on_trial() && !book.is_looking());
    }
    assert_eq!(waits[..4], [90, 180, 360, 720]);
    assert_eq!(waits.last(), Some(&LOOKS_APART_MAX.as_secs()));
    assert_eq!(waits.len(), 16, "looks in a week: {waits:?}");
    // They say on again, and are proven: nothing is asked about what was proven.
    book.tick(10 * SECOND, true);
    assert_eq!(outcomes(&book.heard()), [SettingsOutcome::Accepted]);
    assert_eq!((book.tick(1000 * LOOKS_APART_MAX, false), book.next_look()), (vec![], None));
}

#[test]
fn a_correction_is_heard_in_a_look() {
    for corrected in ["old", "newer"] {
        let mut book = on_trial();
        until_look(&mut book);
        let steps = book.offered(settings(corrected), Ok(()));
        assert_eq!(steps.first(), Some(&Step::Apply(corrected.into())));
        assert_eq!((book.in_force(), book.is_looking()), (corrected, false));
        // Those that come next are asked about as soon as the first ones were.
        book.offered(settings("new"), Ok(()));
        assert_eq!(until_look(&mut book), 90);
    }
}

#[test]
fn a_look_proves_nothing_and_ends() {
    let mut book = on_trial();
    // Tried for long enough, and nothing was heard; then comes the hour at which they say off.
    book.tick(10 * SECOND, true);
    until_look(&mut book);
    assert_eq!(book.heard(), []);
    assert_eq!(book.offered(settings("nonsense"), Err("line 1".into())).len(), 1);
    assert!(book.is_on_trial() && book.is_looking());
    // Nobody said what the centre wants.
    for _ in 0..89 {
        assert_eq!(book.tick(SECOND, true), []);
    }
    assert_eq!(book.tick(SECOND, true), [Step::Apply("new".into())]);
    assert_eq!(until_look(&mut book), 180);
}

#[test]
fn the_centre_may_take_settings_back() {
    let mut book = on_trial();
    let steps = book.offered(settings("old"), Ok(()));
    assert_eq!(steps.first(), Some(&Step::Apply("old".into())));
    assert_eq!(outcomes(&steps), [SettingsOutcome::Accepted]);
    assert_eq!(outcomes(&book.offered(settings("old"), Ok(()))), [SettingsOutcome::Accepted], "each session says it again");
}

#[test]
fn what_is_impossible_changes_nothing() {
    let mut book = on_trial();
    let steps = book.offered(settings("nonsense"), Err("line 1".into()));
    assert_eq!(steps.len(), 1);
    assert!(matches!(&steps[0], Step::Report(report) if report.outcome == SettingsOutcome::Refused && report.detail == "line 1"));
    assert_eq!(book.in_force(), "new");
}

/// A site, its disk and its line: which settings cut the line off, when the line is down by itself, restarts at any moment.
#[test]
fn whatever_happens_the_site_ends_up_with_settings_that_work() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let (mut rolled_back, mut accepted, mut restarts, mut looks) = (0, 0, 0, 0);
    for case in 0..300 {
        let mut rng = StdRng::seed_from_u64(seed.wrapping_add(case));
        let mut disk = Kept::default();
        let mut book = SettingsBook::new(disk.clone(), Patience::default());
        let mut wanted = 0_u32;
        // Seconds, in which the site may send, since it applied what cuts it off.
        let mut cut_off = 0;
        let cuts = |text: &str| text.parse::<u32>().is_ok_and(|number| number % 3 == 1);
        let says_off = |text: &str| text == "5";
        // Seconds of `off` since the last look, and since the settings came.
        let (mut off, mut off_ever) = (0, 0);
        let mut line_down = 0_u32;
        let mut connected = false;
        for _ in 0..3000 {
            let may_send = !says_off(book.in_force()) && rng.random_range(0..10) > 0;
            let mut steps = book.tick(SECOND, may_send);
            if !cuts(book.in_force()) {
                cut_off = 0;
            }
            if rng.random_range(0..200) == 0 {
                wanted = rng.random_range(0..6);
                connected = false;
            }
            if rng.random_range(0..300) == 0 {
                line_down = rng.random_range(1..200);
            }
            line_down = line_down.saturating_sub(1);
            if rng.random_range(0..500) == 0 {
                (book, connected, cut_off) = (SettingsBook::new(disk.clone(), Patience::default()), false, 0);
                restarts += 1;
                steps.clear();
            }
            let contact = may_send && line_down == 0 && !cuts(book.in_force());
            if contact {
                if !connected {
                    steps.extend(book.offered(settings(&wanted.to_string()), Ok(())));
                    connected = true;
                } else if rng.random_range(0..5) == 0 {
                    steps.extend(book.heard());
                }
            }
            connected &= contact;
            for step in steps {
                match step {
                    Step::Keep(kept) => {
                        assert!(!cuts(&kept.text), "seed {seed}, case {case}: kept what does not work");
                        assert!(kept.given_up.is_none_or(|given_up| given_up != revision(&kept.text)));
                        disk = kept;
                    }
                    Step::Report(report) => {
                        rolled_back += u32::from(report.outcome == SettingsOutcome::RolledBack);
                        accepted += u32::from(report.outcome == SettingsOutcome::Accepted);
                    }
                    Step::Look(text) => {
                        looks += 1;
                        assert!(text == disk.text && book.is_looking());
                    }
                    Step::Apply(text) => assert!(book.is_on_trial() || text == disk.text || disk == Kept::default() || !cuts(&text)),
                }
            }
            cut_off = if cuts(book.in_force()) { cut_off + u32::from(may_send) } else { 0 };
            assert!(cut_off <= 101, "seed {seed}, case {case}: cut off for {cut_off} s");
            if says_off(book.in_force()) {
                (off, off_ever) = (off + 1, off_ever + 1);
                assert!(
                    off <= 90 + (off_ever - off),
                    "seed {seed}, case {case}: nobody asks whether off stands, for {off} of {off_ever} s"
                );
            } else {
                off = 0;
                off_ever *= u32::from(book.is_looking());
            }
            assert!(book.is_looking() || !book.is_on_trial() || !book.in_force().is_empty());
        }
        // The line is good at last, and so is what the centre wants, which was never given up.
        for second in 0..2 * 3000 {
            book.tick(SECOND, !says_off(book.in_force()));
            if second % 10 == 9 && !cuts(book.in_force()) && !says_off(book.in_force()) {
                book.offered(settings("9"), Ok(()));
                book.heard();
            }
        }
        assert_eq!((book.in_force(), book.is_on_trial()), ("9", false), "seed {seed}, case {case}");
    }
    let counts = (rolled_back, accepted, restarts, looks);
    assert!(rolled_back > 50 && accepted > 300 && restarts > 300 && looks > 100, "seed {seed}: {counts:?}");
}
