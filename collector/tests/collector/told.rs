//! What a site is told about itself: after the welcome, and when its file changes, without a new session.

use std::path::PathBuf;

use spillway_proto::CloseCode;
use spillway_proto::message::{AgentMessage, CollectorMessage, Settings, SettingsOutcome, SettingsReport, revision};

use crate::support::{Centre, Collector, Folder, TestAgent, eventually};

struct Bench {
    folder: Folder,
    file: PathBuf,
    collector: Collector,
    _centre: Centre,
}

impl Bench {
    async fn new(text: &str) -> Self {
        let folder = Folder::new();
        let sites = folder.path("sites.d");
        std::fs::create_dir(&sites).unwrap();
        let file = sites.join("a.toml");
        std::fs::write(&file, text).unwrap();
        let centre = Centre::embedded().await;
        let collector = Collector::start(&folder, &centre.bootstrap, &format!("[sites]\ndir = \"{}\"", sites.display())).await;
        Self { folder, file, collector, _centre: centre }
    }

    async fn shown(&self) -> serde_json::Value {
        self.collector.status().await["sites"][0]["settings"].clone()
    }
}

async fn settings(agent: &mut TestAgent) -> Settings {
    match agent.message().await.unwrap() {
        CollectorMessage::Settings(settings) => settings,
        other => panic!("no settings but {other:?}"),
    }
}

fn settings_of(text: &str) -> Settings {
    Settings { revision: revision(text), text: text.to_owned() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_reaches_the_site_in_the_same_session_and_a_mistake_does_not() {
    let bench = Bench::new("[link]\nrate_max = '64kbit'\n").await;
    let mut agent = TestAgent::connect(&bench.folder, "a", bench.collector.address).await;
    let first = settings(&mut agent).await;
    assert_eq!(first, settings_of("[link]\nrate_max = \"64kbit\"\n"));
    assert_eq!(bench.shown().await["outcome"], "sent");

    // The site answers, and hears that it was heard.
    let report = |outcome, detail: &str| SettingsReport { revision: first.revision, outcome, detail: detail.to_owned() };
    for (outcome, detail, name) in
        [(SettingsOutcome::Trying, "", "trying"), (SettingsOutcome::RolledBack, "no contact\n for 90 s", "rolled_back")]
    {
        agent.say(AgentMessage::SettingsReport(report(outcome, detail))).await;
        assert_eq!(agent.message().await, Ok(CollectorMessage::SettingsSeen(first.revision)));
        assert_eq!(bench.shown().await["outcome"], name);
    }
    assert_eq!(bench.shown().await["detail"], "no contact  for 90 s");
    assert_eq!(bench.collector.metric("spillway_settings_reports_total{outcome=\"rolled_back\"}").await, 1.0);

    // A mistake: told to operators, not to the site.
    std::fs::write(&bench.file, "[link]\nrate_max = '65kbits'\n").unwrap();
    eventually("the mistake is seen", async || (bench.collector.metric("spillway_site_files_refused").await == 1.0).then_some(())).await;
    let problem = bench.collector.status().await["site_files_refused"]["a"].to_string();
    assert!(problem.contains("a.toml:2:12") && problem.contains("unknown unit"), "{problem}");
    // A session that begins now gets what was good, too.
    let mut newer = TestAgent::connect(&bench.folder, "a", bench.collector.address).await;
    assert_eq!(settings(&mut newer).await, first);
    assert_eq!(agent.closed().await, CloseCode::Superseded);

    // Corrected, and the next thing that this session hears is the new settings.
    std::fs::write(&bench.file, "[link]\nrate_max = '65kbit'\n[budget]\ndaily = '5MB'\n").unwrap();
    assert_eq!(settings(&mut newer).await, settings_of("[link]\nrate_max = \"65kbit\"\n[budget]\ndaily = \"5MB\"\n"));
    assert_eq!(bench.collector.metric("spillway_site_files_refused").await, 0.0);
    // What is said of settings that are no longer wanted does not count for those that are.
    newer.say(AgentMessage::SettingsReport(report(SettingsOutcome::Refused, "old"))).await;
    assert_eq!(newer.message().await, Ok(CollectorMessage::SettingsSeen(first.revision)));
    assert_eq!(bench.shown().await["outcome"], "sent");

    std::fs::write(&bench.file, "enabled = false\n").unwrap();
    assert_eq!(newer.closed().await, CloseCode::SiteDisabled);
    bench.collector.stop().await;
}
