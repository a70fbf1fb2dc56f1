//! The plan of the site, as far as the loop is concerned: reports to the centre, and the times without a connection.

use spillway_proto::close::CloseCode;
use spillway_proto::message::{AgentMessage, Settings, SettingsReport};

use super::Runner;
use crate::metrics::{PeriodLabels, ReasonLabels};

impl Runner {
    /// The centre has sent settings.
    pub(super) fn on_settings(&mut self, settings: Settings) {
        let reports = self.parts.plan.offered(settings);
        self.report_settings(reports);
        self.follow_plan();
        // What is in force is seen at once, not with the next tick.
        self.step_plan_metrics();
        self.post();
    }

    /// Something was heard from the centre.
    pub(super) fn on_heard(&mut self) {
        let reports = self.parts.plan.heard();
        self.report_settings(reports);
    }

    pub(super) fn tick_plan(&mut self) {
        let reports = self.parts.plan.tick();
        self.report_settings(reports);
        self.follow_plan();
    }

    /// While nothing may be sent there is no connection: one that is kept costs bytes, and one that is not kept is lost anyway.
    /// The profile holds from the next connection on.
    pub(super) fn follow_plan(&mut self) {
        self.follow_profile();
        if self.parts.plan.is_off() {
            if let Some(dialling) = self.dialling.take() {
                dialling.abort();
            }
            if self.parts.plan.must_close(self.unseen_reports > 0)
                && let Some(session) = self.session.take()
            {
                tracing::info!(
                    event = "session_closed",
                    "the plan says that nothing is sent: the connection is given up until it says otherwise"
                );
                session.close(CloseCode::Done, "the site's plan says off");
                self.session_over(spillway_proto::close::Disposition::Redial);
            }
        } else if self.session.is_none() && self.dialling.is_none() && !self.planned.is_waiting() {
            let first = self.redial.first();
            self.dial(first);
        }
    }

    fn report_settings(&mut self, reports: Vec<SettingsReport>) {
        for report in reports {
            // What is said again for the sake of an answer is no news.
            if self.told_settings.as_ref() != Some(&report) {
                tracing::info!(
                    event = "settings",
                    revision = format!("{:016x}", report.revision),
                    outcome = report.outcome.as_str(),
                    detail = report.detail,
                    "settings of the centre"
                );
                self.told_settings = Some(report.clone());
            }
            // Without a session nothing is lost: the next one begins with the same settings, and they are answered then.
            if let Some(session) = &self.session {
                self.unseen_reports += usize::from(session.say(AgentMessage::SettingsReport(report)));
            }
        }
    }

    pub(super) fn step_plan_metrics(&self) {
        let (metrics, plan) = (&self.parts.metrics, &self.parts.plan);
        metrics.rate_limit.set(plan.rate_bits());
        let holds = plan.decision().why.as_str();
        for reason in ["unlimited", "agent", "site", "timetable", "budget"] {
            metrics.rate_reason.get_or_create(&ReasonLabels { reason }).set(i64::from(reason == holds));
        }
        metrics.settings_rolled_back.inc_by(plan.rolled_back().saturating_sub(metrics.settings_rolled_back.get()));
        metrics.budget_runs_out.set(plan.runs_out().map_or(f64::INFINITY, |at| at.as_second() as f64));
        let Some(budget) = plan.budget_status() else { return };
        for (period, used, limit) in [("day", budget.day_used, budget.day_limit), ("month", budget.month_used, budget.month_limit)] {
            let labels = PeriodLabels { period };
            metrics.budget_used.get_or_create(&labels).set(used as i64);
            let left = limit.map_or(f64::INFINITY, |limit| limit.saturating_sub(used) as f64);
            metrics.budget_left.get_or_create(&labels).set(left);
        }
    }
}
