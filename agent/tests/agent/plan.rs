//! What the centre tells the site about itself: in force at once, kept for when the centre is away, given up when it cuts the site off.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use jiff::{ToSpan, Zoned, tz::TimeZone};
use serde_json::Value;
use spillway_agent::plan::PlanStatus;
use spillway_agent_core::settings::{Kept, Patience};
use spillway_proto::CloseCode;
use spillway_proto::message::{SettingsOutcome, revision};

use crate::centre::{Centre, State};
use crate::site::Site;

const SHORT: Patience = Patience { proof_after: Duration::from_secs(1), silence_max: Duration::from_secs(4) };

const SLOW: &str = "[link]\nrate_max = \"64kbit\"\n";

async fn bench() -> (Centre, Site) {
    let centre = Centre::start().await;
    let mut site = Site::start(&centre).await;
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    site.admin_listen = free.to_string();
    (centre, site)
}

/// What the agent's `/status` says of the plan, once that is what is wanted.
async fn status(site: &Site, what: &str, is: impl Fn(&PlanStatus) -> bool) -> PlanStatus {
    let plan = |status: &Value| serde_json::from_value::<PlanStatus>(status["plan"].clone()).unwrap();
    plan(&whole(site, what, |status| is(&plan(status))).await)
}

/// The agent's `/status`, once it is what is wanted.
async fn whole(site: &Site, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    let until = Instant::now() + Duration::from_secs(60);
    let address = site.admin_listen.parse().unwrap();
    loop {
        match tokio::task::spawn_blocking(move || spillway_ops::status::fetch(address)).await.unwrap() {
            Ok(status) if is(&status) => return status,
            fetched => assert!(Instant::now() < until, "never: {what}: {fetched:?}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn last(state: &State) -> Option<(u64, SettingsOutcome)> {
    state.reports.last().map(|report| (report.revision, report.outcome))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_are_in_force_without_a_new_session_and_kept_for_when_the_centre_is_away() {
    let (centre, mut site) = bench().await;
    site.create("telemetry", 1).await;
    let agent = site.agent_with("", SHORT);
    site.produce("telemetry", 10, 50);
    centre.wait("the first records", |state| state.records() == 10).await;
    status(&site, "no limit", |plan| (plan.rate.as_str(), plan.why.as_str()) == ("unlimited", "unlimited")).await;

    let slow = format!("{SLOW}profile = \"metered\"\n");
    centre.tell(&slow);
    centre.wait("the answer", |state| last(state).is_some()).await;
    let plan = status(&site, "the new rate", |plan| (plan.rate.as_str(), plan.why.as_str()) == ("64kbit", "site")).await;
    assert_eq!(plan.revision, format!("{:016x}", revision(&slow)));
    assert_eq!(whole(&site, "a status", |_| true).await["link"]["profile"], "metered");
    // Noise of 60 kB, and nothing without the cap.
    let begun = Instant::now();
    site.produce("telemetry", 60, 1000);
    centre.wait("slow records", |state| state.records() == 70).await;
    assert!(begun.elapsed() >= Duration::from_secs(4), "{:?} for 60 kB at 64 kbit/s", begun.elapsed());
    centre.wait("the proof", |state| last(state) == Some((revision(&slow), SettingsOutcome::Accepted))).await;

    // Nonsense changes nothing.
    centre.tell("[link]\nrate_max = 'fast'\n");
    centre.wait("the refusal", |state| last(state).is_some_and(|(_, outcome)| outcome == SettingsOutcome::Refused)).await;
    let detail = centre.state().reports.last().unwrap().detail.clone();
    assert!(detail.contains("settings of the centre:2:12: link.rate_max = \"fast\": not a rate"), "{detail}");
    status(&site, "the rate from before", |plan| plan.rate == "64kbit").await;
    assert_eq!(centre.state().sessions, 1, "all of it in one session");
    agent.stop().await.unwrap();

    centre.away(true);
    let agent = site.agent_with("", SHORT);
    status(&site, "the kept rate, without the centre", |plan| plan.rate == "64kbit" && !plan.on_trial).await;
    agent.stop().await.unwrap();
    assert!(centre.state().failures.is_empty(), "{:?}", centre.state().failures);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_that_cut_the_site_off_are_given_up_and_told() {
    let (centre, mut site) = bench().await;
    site.create("telemetry", 1).await;
    let agent = site.agent_with("", SHORT);
    centre.wait("a session", |state| state.sessions == 1).await;
    // Under the new settings the line is gone: the connection ends, and nobody answers.
    centre.cut_off_by(SLOW);
    centre.tell(SLOW);
    status(&site, "the new rate", |plan| plan.rate == "64kbit" && plan.on_trial).await;
    let plan = status(&site, "the rate from before", |plan| plan.rate == "unlimited").await;
    assert_eq!(plan.given_up, Some(format!("{:016x}", revision(SLOW))));
    assert!(centre.state().refusals > 0, "the line was not cut");
    // Under the old ones it is there; and the centre, which still wants the new ones, hears what became of them.
    centre.away(false);
    centre.wait("the report", |state| last(state) == Some((revision(SLOW), SettingsOutcome::RolledBack))).await;
    site.produce("telemetry", 10, 50);
    centre.wait("records under the old settings", |state| state.records() == 10).await;
    status(&site, "the rate from before", |plan| plan.rate == "unlimited" && plan.given_up.is_some()).await;
    // Others are tried.
    centre.tell("[link]\nrate_max = \"65kbit\"\n");
    centre.wait("the proof", |state| last(state).is_some_and(|(_, outcome)| outcome == SettingsOutcome::Accepted)).await;
    status(&site, "the other rate", |plan| plan.rate == "65kbit" && plan.given_up.is_none()).await;
    agent.stop().await.unwrap();
    assert!(centre.state().failures.is_empty(), "{:?}", centre.state().failures);
}

/// Settings that say off since a minute ago, and on again in an hour; and when that is.
fn off_for_an_hour() -> (String, String) {
    let now = Zoned::now().with_time_zone(TimeZone::UTC);
    let time = |zoned: Zoned| zoned.strftime("%H:%M").to_string();
    let (off, on) = (time(&now - 1.minute()), time(&now + 1.hour()));
    (format!("[link]\ntimetable = [\"daily {off} off, {on} 1Mbit\"]\n"), on)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn off_means_no_connection_until_the_next_change() {
    let (centre, mut site) = bench().await;
    site.create("telemetry", 1).await;
    // Known to work: they are kept.
    let (text, on) = off_for_an_hour();
    std::fs::create_dir(site.path("state")).unwrap();
    std::fs::write(site.path("state/site-settings"), Kept { text, given_up: None }.to_file()).unwrap();
    let agent = site.agent_with("", SHORT);
    let plan = status(&site, "off", |plan| plan.rate == "off").await;
    assert_eq!((plan.why.as_str(), plan.data.as_str(), plan.on_trial), ("timetable", "nothing", false));
    assert!(plan.until.is_some_and(|until| until.contains(&on)), "until {on}");
    // All is as ordered.
    let answer = whole(&site, "ready", |status| status["not_ready"].is_null()).await;
    assert_eq!(answer["link"]["state"], "off");
    assert!(answer["link"]["off_until"].as_str().is_some_and(|until| until.contains(&on)), "{answer}");
    // Longer than any trial and look takes.
    tokio::time::sleep(3 * SHORT.silence_max).await;
    status(&site, "still off", |plan| plan.rate == "off" && !plan.asking && plan.asks_in_seconds.is_none()).await;
    assert_eq!((centre.state().sessions, centre.state().refusals), (0, 0), "nobody dialled");
    agent.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn off_that_comes_with_a_change_is_told_and_asked_about_and_can_be_taken_back() {
    let (centre, mut site) = bench().await;
    site.create("telemetry", 1).await;
    let agent = site.agent_with("", SHORT);
    centre.wait("a session", |state| state.sessions == 1).await;
    let (text, on) = off_for_an_hour();
    centre.tell(&text);
    status(&site, "off, and asked about", |plan| plan.rate == "off" && plan.on_trial && plan.asks_in_seconds.is_some()).await;
    centre.wait("the goodbye", |state| state.closes == [CloseCode::Done]).await;
    let told = |state: &State| state.reports.iter().filter(|report| report.detail.starts_with("off by the timetable until")).count();
    let state = centre.state();
    let detail = &state.reports.last().unwrap().detail;
    assert!(detail.contains(&on) && detail.contains("asks in 4 s"), "{:?}", state.reports);
    assert!(whole(&site, "off", |status| status["link"]["state"] == "off").await["not_ready"].is_null());

    // The centre still wants it: no record is sent in the look.
    site.produce("telemetry", 10, 50);
    centre.wait("the look", |state| state.sessions == 2 && told(state) == 2).await;
    centre.wait("the next goodbye", |state| state.closes == [CloseCode::Done; 2]).await;
    status(&site, "off again", |plan| plan.rate == "off" && plan.on_trial).await;
    assert_eq!(centre.state().records(), 0);
    assert_eq!(centre.state().reports.last().map(|report| report.outcome), Some(SettingsOutcome::Trying));

    // A correction, while nobody is there.
    centre.tell(SLOW);
    centre.wait("the records", |state| state.records() == 10).await;
    centre.wait("the proof", |state| last(state) == Some((revision(SLOW), SettingsOutcome::Accepted))).await;
    status(&site, "the corrected rate", |plan| plan.rate == "64kbit" && !plan.on_trial && plan.asks_in_seconds.is_none()).await;
    assert_eq!(centre.state().sessions, 3);
    agent.stop().await.unwrap();
    assert!(centre.state().failures.is_empty(), "{:?}", centre.state().failures);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leave_is_taken_of_the_centre_also_where_the_cap_is_used_up() {
    let (centre, mut site) = bench().await;
    site.create("telemetry", 1).await;
    let slow = "[link]\nrate_max = \"8kbit\"\ncount = \"both\"\n";
    let agent = site.agent_with("", Patience { proof_after: Duration::from_secs(1), silence_max: Duration::from_secs(60) });
    centre.wait("a session", |state| state.sessions == 1).await;
    centre.tell(slow);
    status(&site, "the slow rate", |plan| plan.rate == "8kbit").await;
    site.produce("telemetry", 60, 1000);
    centre.wait("some records", |state| state.records() > 0).await;
    let (text, _) = off_for_an_hour();
    centre.tell(&text);
    status(&site, "off", |plan| plan.rate == "off").await;
    centre.wait("the goodbye", |state| state.closes == [CloseCode::Done]).await;
    assert_eq!(last(&centre.state()), Some((revision(&text), SettingsOutcome::Trying)), "told before the goodbye");
    assert!(centre.state().records() < 60, "the cap was not used up");
    agent.stop().await.unwrap();
}
