//! What a site is told about itself, and what it answers.

use std::future::pending;

use spillway_proto::message::{CollectorMessage, SettingsOutcome, SettingsReport};

use super::registry::SettingsStatus;
use super::run::{Over, Session};
use crate::metrics::OutcomeLabel;
use crate::sites::{self, SiteWatch};

/// The site's file, and which settings of it the site was told last.
#[derive(Debug)]
pub(super) struct Told {
    file: Option<SiteWatch>,
    revision: Option<u64>,
}

impl Told {
    /// Nothing yet; `None`: nothing ever.
    pub(super) fn new(file: Option<SiteWatch>) -> Self {
        Self { file, revision: None }
    }

    /// Ends when the file has changed. Cancel safe.
    pub(super) async fn changed(&mut self) {
        let Some(file) = &mut self.file else { return pending().await };
        if file.changed().await.is_err() {
            // The book of sites lives as long as the collector.
            pending::<()>().await;
        }
    }
}

impl Session {
    /// The file has changed: the site is told, or has to go.
    pub(super) fn on_site_file(&mut self) -> Result<(), Over> {
        let enabled = self.told.file.as_ref().is_none_or(|file| file.borrow().enabled);
        if !enabled {
            return Err(Over::Close(sites::disabled(&self.site)));
        }
        self.tell_settings();
        Ok(())
    }

    /// Sends the site's settings, if the site does not have them.
    pub(super) fn tell_settings(&mut self) {
        let Some(file) = &mut self.told.file else { return };
        let settings = sites::settings(&file.borrow_and_update());
        if self.told.revision.replace(settings.revision) == Some(settings.revision) {
            return;
        }
        let revision = format!("{:016x}", settings.revision);
        tracing::info!(event = "settings_sent", site = %self.site, revision, "the site is told its settings");
        self.entry.shown().settings = Some(SettingsStatus { revision, outcome: "sent".to_owned(), detail: String::new() });
        self.outgoing.push(&CollectorMessage::Settings(settings));
    }

    pub(super) fn on_report(&mut self, report: SettingsReport) {
        let SettingsReport { revision, outcome, detail } = report;
        // A peer writes into our log.
        let detail = detail.replace(char::is_control, " ");
        self.outgoing.push(&CollectorMessage::SettingsSeen(revision));
        // An answer to settings that have been replaced since says nothing about those in force.
        if self.told.revision != Some(revision) {
            return;
        }
        let mut shown = self.entry.shown();
        let Some(settings) = shown.settings.as_mut() else { return };
        // The agent repeats itself while it tries.
        if settings.outcome == outcome.as_str() {
            return;
        }
        (settings.outcome, settings.detail) = (outcome.as_str().to_owned(), detail.clone());
        drop(shown);
        let (site, revision, outcome_name) = (&self.site, format!("{revision:016x}"), outcome.as_str());
        match outcome {
            SettingsOutcome::Refused | SettingsOutcome::RolledBack => {
                tracing::error!(event = "settings_report", %site, revision, outcome = outcome_name, detail, "the site goes on with its settings from before");
            }
            SettingsOutcome::Trying if !detail.is_empty() => {
                tracing::warn!(event = "settings_report", %site, revision, outcome = outcome_name, detail, "the site follows its new settings: see what that means for it");
            }
            _ => tracing::info!(event = "settings_report", %site, revision, outcome = outcome_name, detail, "the site has answered"),
        }
        self.shared.centre.meters.settings_reports.get_or_create(&OutcomeLabel { outcome: outcome_name }).inc();
    }
}
