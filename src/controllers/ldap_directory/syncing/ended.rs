//! What users read of a sync that ended.

use std::fmt::Write;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use sha2::{Digest, Sha256};

use crate::{
    api::v1alpha1::ldap_directory::{
        HeldLosses, LastRun, PlanStatus, PlanStep, SyncFailure, SyncStatus, UserCounts,
    },
    domain::sync::{counts::Counts, plan::Plan},
    sync::{Outcome, Report},
};

/// Entries that are shown which cannot be used, and steps of a plan.
pub(super) const MOST_FAILURES: i64 = 10;
const MOST_STEPS: usize = 10;

/// A sync that ended.
pub(super) struct Ended {
    pub(super) started: Timestamp,
    pub(super) at: Timestamp,
    pub(super) report: Report,
    pub(super) known: UserCounts,
    /// By id or name, and why.
    pub(super) failures: Vec<(String, String)>,
}

impl Ended {
    /// Whether something waits for an approval.
    pub(super) fn is_held(&self) -> bool {
        matches!(self.report.outcome, Outcome::Held | Outcome::Planned)
    }

    /// Puts it into the status.
    pub(super) fn report(&self, status: &mut SyncStatus, plan: &mut Option<PlanStatus>) {
        let Report { method, full, outcome, held, .. } = &self.report;
        method.0.clone_into(&mut status.method);
        status.method_reason.clone_from(&method.1);
        status.known = Some(self.known);
        status.running = None;
        status.last_run = Some(self.last_run());
        let complete = !matches!(outcome, Outcome::Incomplete);
        if *full && complete {
            status.last_full_sync_time = Some(Time(self.started));
        }
        let failure = |(subject, reason): &(String, String)| SyncFailure {
            subject: anonymous(subject),
            reason: reason.clone(),
        };
        status.failures = self.failures.iter().map(failure).collect();
        *plan = match (held, &self.report.plan) {
            (Some(held), _) => {
                let mut shown = plan_status(&held.plan);
                let stop = |(class, reason): &(String, String)| HeldLosses {
                    class: class.clone(),
                    reason: reason.clone(),
                };
                shown.held = held.stops.iter().map(stop).collect();
                shown.since = Timestamp::from_millisecond(held.since).ok().map(Time);
                Some(shown)
            }
            (None, Some(plan)) if !plan.summary.is_empty() => Some(plan_status(plan)),
            (None, _) => None,
        };
    }

    fn last_run(&self) -> LastRun {
        let Report { run, outcome, counts, full, incomplete, unresolved, .. } = &self.report;
        let Counts {
            seen,
            created,
            updated,
            unchanged,
            disabled,
            reactivated,
            failed,
            conflicts,
            skipped,
            groups,
            references,
            ..
        } = *counts;
        LastRun {
            id: run.clone(),
            started: Time(self.started),
            ended: Time(self.at),
            duration_ms: u64::try_from(self.at.duration_since(self.started).as_millis()).unwrap_or_default(),
            mode: if *full { "Full" } else { "Incremental" }.to_owned(),
            outcome: outcome.as_str().to_owned(),
            seen,
            created,
            updated,
            unchanged,
            disabled,
            reactivated,
            failed,
            conflicts,
            skipped,
            groups,
            references,
            unresolved_members: unresolved.unwrap_or_default(),
            message: incomplete.as_ref().map(crate::backends::Fault::message).unwrap_or_default(),
        }
    }
}

/// A sync that failed before it had anything to report.
pub(super) fn report_failure(status: &mut SyncStatus, failure: &str) {
    let now = Time(Timestamp::now());
    let before = status.last_run.take();
    let same = before.as_ref().is_some_and(|last| last.outcome == "Failed" && last.message == failure);
    status.last_run = before.filter(|_| same).or_else(|| {
        Some(LastRun {
            id: String::new(),
            started: now.clone(),
            ended: now,
            duration_ms: 0,
            mode: "Full".to_owned(),
            outcome: "Failed".to_owned(),
            seen: 0,
            created: 0,
            updated: 0,
            unchanged: 0,
            disabled: 0,
            reactivated: 0,
            failed: 0,
            conflicts: 0,
            skipped: 0,
            groups: 0,
            references: 0,
            unresolved_members: 0,
            message: failure.to_owned(),
        })
    });
}

fn plan_status(plan: &Plan) -> PlanStatus {
    let step = |sample: &crate::domain::sync::plan::Sample| PlanStep {
        op: sample.op.as_str().to_owned(),
        subject: anonymous(&sample.subject),
    };
    PlanStatus {
        hash: plan.hash.clone(),
        summary: plan.summary.iter().map(|(op, count)| (op.as_str().to_owned(), *count)).collect(),
        samples: plan.samples.iter().take(MOST_STEPS).map(step).collect(),
        held: Vec::new(),
        since: None,
    }
}

/// An id as it is; of the name of an entry, which may say who it is, a hash.
fn anonymous(subject: &str) -> String {
    if !subject.contains('=') {
        return subject.to_owned();
    }
    let digest = Sha256::digest(subject.to_lowercase());
    digest.iter().take(8).fold("dn:".to_owned(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
