//! One sync as a background job.

use std::{pin::pin, sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    super::Observed,
    ended::{Ended, MOST_FAILURES},
};
use crate::{
    api::{
        Reason,
        v1alpha1::{
            LdapDirectory,
            ldap_directory::{PurgeAfter, RunningSync, Sync, SyncMode, UserCounts},
        },
    },
    backends::Fault,
    cluster::fence::Fence,
    controllers::{Error, Job, JobContext},
    domain::sync::{guard::Limits, strikes::Patience},
    store::{Store, users::SourceRecord},
    sync::{self, Control, Mode, Phase, Progress, SyncError, SyncSettings, ldap::LdapSource},
    telemetry::metrics::SyncMetrics,
};

/// How the directory is synced by its spec, without anything that somebody has asked for.
pub(super) fn settings(
    object: &LdapDirectory,
    observed: &Observed,
    spec: &Sync,
    source: &LdapSource,
) -> SyncSettings {
    let guard = &spec.deletion_guard;
    SyncSettings {
        source: SourceRecord {
            uid: object.uid().unwrap_or_default(),
            namespace: object.namespace().unwrap_or_default(),
            name: object.name_any(),
            priority: spec.priority.into(),
            authority: spec.lifecycle_authority,
            config: source.config(),
        },
        mode: if spec.mode == SyncMode::Plan { Mode::Plan } else { Mode::Apply },
        limits: Limits {
            min_count: guard.min_count.into(),
            percent: guard.percent.into(),
            absolute: guard.absolute.into(),
        },
        patience: Patience {
            grace: Duration::from_secs(60 * u64::from(guard.grace_minutes)),
            purge_after: match spec.purge_after {
                PurgeAfter::Never(_) => None,
                PurgeAfter::After(time) => Some(time.get()),
            },
        },
        full_every: spec.full_interval.get(),
        force_full: false,
        roles: observed.resolved.roles.clone(),
        approval: None,
        deadline: spec.timeout.get(),
    }
}

/// One sync of an object.
pub(super) struct SyncJob {
    pub(super) store: Arc<Store>,
    pub(super) source: Arc<LdapSource>,
    pub(super) settings: SyncSettings,
    pub(super) fence: Fence,
    pub(super) metrics: SyncMetrics,
    pub(super) labels: (String, String),
}

/// How far a sync is.
#[derive(Clone, Default)]
pub(super) struct SyncProgress {
    started: Option<Timestamp>,
    progress: Progress,
    pub(super) ended: Option<Arc<Ended>>,
}

impl SyncProgress {
    pub(super) fn running(&self, now: Timestamp) -> RunningSync {
        RunningSync {
            started: Time(self.started.unwrap_or(now)),
            phase: match self.progress.phase {
                Phase::Reading => "Reading".to_owned(),
                Phase::Settling => "Settling".to_owned(),
            },
            seen: self.progress.counts.seen,
        }
    }
}

impl Job for SyncJob {
    type Progress = SyncProgress;

    async fn run(&self, cx: &JobContext<SyncProgress>) -> Result<(), Error> {
        let started = Timestamp::now();
        let (sender, mut progress) = watch::channel(Progress::default());
        let fence = self.fence.clone();
        let control = Control {
            cancel: CancellationToken::new(),
            may_write: Arc::new(move || fence.check().is_ok()),
            progress: Arc::new(move |now| {
                sender.send_replace(now);
            }),
        };
        cx.progress(SyncProgress { started: Some(started), ..SyncProgress::default() });
        let mut run = pin!(sync::run(&self.store, &self.source, &self.settings, &control));
        let done = loop {
            tokio::select! {
                done = &mut run => break done,
                Ok(()) = progress.changed() => {
                    let now = *progress.borrow_and_update();
                    self.metrics.progress(&self.labels, now.counts.seen);
                    cx.progress(SyncProgress { started: Some(started), progress: now, ended: None });
                }
                () = cx.cancelled(), if !control.cancel.is_cancelled() => control.cancel.cancel(),
            }
        };
        let report = match done {
            Ok(report) => report,
            // Whoever cancels it does not wait for what it has found.
            Err(SyncError::Cancelled) => return Ok(()),
            Err(error @ SyncError::Fenced) => {
                return Err(Error::Settings(Fault::new(Reason::Unavailable, error.to_string())));
            }
            Err(SyncError::Store(error)) => {
                self.metrics.ended(&self.labels, "Failed", Timestamp::now().duration_since(started));
                return Err(Error::Settings(Fault::new(Reason::StoreUnavailable, error.to_string())));
            }
        };
        let took = Timestamp::now().duration_since(started);
        self.metrics.ended(&self.labels, report.outcome.as_str(), took);
        self.metrics.held(&self.labels, report.held.is_some());
        let uid = &self.settings.source.uid;
        let known = self.store.users().known(uid).await.unwrap_or_default();
        let failures = self.store.users().quarantined(uid, MOST_FAILURES).await.unwrap_or_default();
        let known = UserCounts {
            active: known.active,
            disabled: known.disabled,
            missing: known.missing,
            groups: known.groups,
        };
        self.metrics.users(&self.labels, known.active, known.disabled);
        let ended = Ended { started, at: Timestamp::now(), report, known, failures };
        cx.progress(SyncProgress {
            started: Some(started),
            progress: Progress::default(),
            ended: Some(Arc::new(ended)),
        });
        Ok(())
    }
}
