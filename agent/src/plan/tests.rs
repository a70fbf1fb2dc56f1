#![expect(clippy::unwrap_used, reason = "tests")]

use spillway_agent_core::settings::{LEAVE_TIME, REPORT_TIME};
use spillway_proto::message::{SettingsOutcome, revision};
use tempfile::TempDir;

use super::*;

fn settings(text: &str) -> Settings {
    Settings { revision: revision(text), text: text.to_owned() }
}

fn open(dir: &TempDir) -> (Plan, RateCap) {
    let cap = RateCap::new(None);
    (Plan::open(dir.path().join("state"), Some("2Mbit".parse().unwrap()), cap.clone(), Patience::default()), cap)
}

fn outcome(reports: &[SettingsReport]) -> Vec<SettingsOutcome> {
    reports.iter().map(|report| report.outcome).collect()
}

/// Lets a trial of settings succeed.
fn prove(plan: &mut Plan) {
    let steps = plan.book.tick(Duration::from_secs(10), true);
    plan.follow(steps);
    assert_eq!(outcome(&plan.heard()), [SettingsOutcome::Accepted]);
}

const SLOW: &str = "[link]\nrate_max = \"64kbit\"\n";

#[tokio::test]
async fn settings_are_in_force_at_once_and_after_a_restart_once_they_are_proven() {
    let dir = TempDir::new().unwrap();
    let (mut plan, cap) = open(&dir);
    assert_eq!((cap.rate().unwrap().bits_per_second(), plan.decision().why), (2_000_000, Why::Own));
    assert_eq!(outcome(&plan.offered(settings(SLOW))), [SettingsOutcome::Trying]);
    assert_eq!((cap.rate().unwrap().bits_per_second(), plan.decision().why), (64_000, Why::Site));
    // On trial: a restart begins with what is known to work.
    assert_eq!(open(&dir).1.rate().unwrap().bits_per_second(), 2_000_000);
    prove(&mut plan);
    let (plan, cap) = open(&dir);
    assert_eq!((cap.rate().unwrap().bits_per_second(), plan.status().why.as_str()), (64_000, "site"));
}

#[tokio::test]
async fn settings_that_are_given_up_leave_the_cap_as_it_was() {
    let dir = TempDir::new().unwrap();
    let (mut plan, cap) = open(&dir);
    plan.offered(settings(SLOW));
    let steps = plan.book.tick(Duration::from_secs(90), true);
    plan.follow(steps);
    assert_eq!(cap.rate().unwrap().bits_per_second(), 2_000_000);
    for mut plan in [plan, open(&dir).0] {
        assert_eq!(outcome(&plan.offered(settings(SLOW))), [SettingsOutcome::RolledBack]);
        assert_eq!(plan.status().given_up, Some(format!("{:016x}", revision(SLOW))));
    }
}

/// Off since a minute ago, on again in an hour.
fn off_for_an_hour() -> String {
    use jiff::{ToSpan, Zoned, tz::TimeZone};
    let now = Zoned::now().with_time_zone(TimeZone::UTC);
    let time = |zoned: Zoned| zoned.strftime("%H:%M").to_string();
    format!("[link]\ntimetable = [\"daily {} off, {} 1Mbit\"]\n", time(&now - 1.minute()), time(&now + 1.hour()))
}

#[tokio::test]
async fn when_it_is_off_the_line_is_open_for_a_short_while_at_the_rate_before() {
    let dir = TempDir::new().unwrap();
    let (mut plan, cap) = open(&dir);
    plan.offered(settings(SLOW));
    let reports = plan.offered(settings(&off_for_an_hour()));
    assert!(reports[0].detail.starts_with("off by the timetable until 20"), "{reports:?}");
    assert!(plan.is_off() && !plan.is_open_for(0) && !cap.is_stopped());
    assert_eq!(cap.rate().unwrap().bits_per_second(), 64_000);
    assert!(plan.must_close(false) && !plan.must_close(true), "the answer to the report is waited for");
    plan.look(REPORT_TIME);
    assert!(plan.must_close(true) && !cap.is_stopped());
    plan.look(LEAVE_TIME - REPORT_TIME);
    assert!(cap.is_stopped());
}

#[tokio::test]
async fn a_look_is_under_the_settings_before_and_sends_no_data() {
    let dir = TempDir::new().unwrap();
    let (mut plan, cap) = open(&dir);
    let off = off_for_an_hour();
    plan.offered(settings(&off));
    assert_eq!(plan.status().asks_in_seconds, Some(90.0));
    plan.look(LEAVE_TIME);
    let steps = plan.book.tick(Duration::from_secs(90), false);
    plan.follow(steps);
    assert!(!plan.is_off() && plan.needs_no_session() && !plan.is_open_for(0) && plan.status().asking);
    assert_eq!((cap.is_stopped(), cap.rate().unwrap().bits_per_second()), (false, 2_000_000));
    // It still stands.
    let reports = plan.offered(settings(&off));
    assert!(outcome(&reports) == [SettingsOutcome::Trying] && reports[0].detail.contains("asks in 180 s"), "{reports:?}");
    assert!(plan.is_off() && plan.rolled_back() == 0);
    // After a start there is nobody to take leave of.
    prove_off(&dir, &off);
    let (plan, cap) = open(&dir);
    assert!(plan.is_off() && cap.is_stopped() && plan.status().asks_in_seconds.is_none());
}

/// Keeps settings as if they had been proven.
fn prove_off(dir: &TempDir, text: &str) {
    files::write(&dir.path().join("state"), SETTINGS_FILE, &Kept { text: text.to_owned(), given_up: None }.to_file()).unwrap();
}

#[tokio::test]
async fn nonsense_is_refused_with_its_line() {
    let dir = TempDir::new().unwrap();
    let (mut plan, cap) = open(&dir);
    let reports = plan.offered(settings("[link]\nrate_max = 'fast'\n"));
    assert_eq!(outcome(&reports), [SettingsOutcome::Refused]);
    assert!(reports[0].detail.contains("settings of the centre:2:12: link.rate_max"), "{reports:?}");
    assert_eq!(cap.rate().unwrap().bits_per_second(), 2_000_000);
}

#[tokio::test]
async fn a_budget_without_a_disk_is_refused() {
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join("state"), "a file in the place of the folder").unwrap();
    let (mut plan, _cap) = open(&dir);
    let reports = plan.offered(settings("[budget]\ndaily = '5MB'\n"));
    assert_eq!(outcome(&reports), [SettingsOutcome::Refused]);
    assert!(reports[0].detail.contains("durable counter"), "{reports:?}");
    // What needs no disk is followed, and not kept.
    plan.offered(settings(SLOW));
    prove(&mut plan);
    assert!(plan.status().trouble.unwrap().contains("site-settings"));
}

/// Bytes that a budget says are used, after a start.
fn used(dir: &TempDir) -> u64 {
    open(dir).0.budget_status().unwrap().day_used
}

#[tokio::test]
async fn a_kill_counts_the_lease_and_a_clean_end_does_not() {
    let dir = TempDir::new().unwrap();
    let (mut plan, _cap) = open(&dir);
    plan.offered(settings("[budget]\ndaily = '8MB'\n"));
    prove(&mut plan);
    assert_eq!(plan.budget_status().unwrap().day_used, 0);
    assert_eq!(plan.meter.as_ref().unwrap().fuse(plan.limits.budget.as_ref().unwrap()), 20_000, "0.25 %");
    drop(plan);
    assert_eq!(used(&dir), 20_000);
    // The start before took a lease of its own.
    let (plan, _cap) = open(&dir);
    assert_eq!(plan.budget_status().unwrap().day_used, 40_000);
    plan.settle().await;
    assert_eq!(used(&dir), 40_000);
}

#[tokio::test]
async fn a_damaged_counter_counts_as_used_up() {
    let dir = TempDir::new().unwrap();
    let (mut plan, _cap) = open(&dir);
    plan.offered(settings("[budget]\ndaily = '8MB'\n"));
    prove(&mut plan);
    let file = dir.path().join("state").join(BUDGET_FILE);
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace(" 20000 ", " 00000 ")).unwrap();
    let (plan, _cap) = open(&dir);
    assert_eq!(plan.budget_status().unwrap().day_used, 8_000_000);
    assert!(plan.is_off());
}
