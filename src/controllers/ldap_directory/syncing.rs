//! The syncs of directories: when one is due, and what the last one has found. Each is a background job.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use parking_lot::Mutex;

use super::Observed;
use crate::{
    api::{
        Reason,
        v1alpha1::{
            LdapDirectory,
            ldap_directory::{
                APPROVE_ANNOTATION, LdapDirectoryStatus, SYNC_ANNOTATION, Sync, SyncMode, SyncStatus,
                UserCounts,
            },
        },
    },
    controllers::{BackgroundJobs, EventRecord, JobState, ReconcileContext, Report, targets::ObservedTarget},
    domain::cron::Cron,
    store::Store,
    sync::{self, Control, Mode, SyncSettings},
    telemetry::metrics::SyncMetrics,
};
use ended::Ended;
use job::{SyncJob, SyncProgress, settings};

mod ended;
mod job;

/// How long after the end of a sync the next one starts, where the spec does not say.
const INTERVAL: Duration = Duration::from_hours(1);

/// The syncs of every object.
pub(super) struct Syncs {
    store: Arc<Store>,
    metrics: SyncMetrics,
    jobs: BackgroundJobs<SyncJob>,
    known: Mutex<HashMap<String, Known>>,
}

/// What is known of the syncs of an object.
struct Known {
    /// Of all that decides what is synced, the annotations included.
    base: u64,
    /// Whether a sync is under way.
    running: bool,
    /// Counts the syncs of this process.
    number: u64,
    due: Timestamp,
    /// Namespace and name.
    labels: (String, String),
}

impl Syncs {
    pub(super) fn new(store: Arc<Store>, metrics: SyncMetrics) -> Self {
        Self { store, metrics, jobs: BackgroundJobs::default(), known: Mutex::default() }
    }

    pub(super) fn forget(&self, uid: &str) {
        self.jobs.cancel(uid);
        if let Some(known) = self.known.lock().remove(uid) {
            self.metrics.forget(&known.labels);
        }
    }

    pub(super) async fn shut_down(&self) {
        self.jobs.shut_down().await;
        self.known.lock().clear();
    }

    /// Starts a sync where one is due, and reports how far it is or how the last one has ended.
    pub(super) fn advance(
        &self,
        object: &LdapDirectory,
        observed: &Observed,
        cx: &ReconcileContext,
        report: &mut Report<LdapDirectoryStatus>,
    ) {
        let uid = object.uid().unwrap_or_default();
        let Some(spec) = object.spec.sync.as_ref().filter(|sync| sync.mode != SyncMode::Off) else {
            self.forget(&uid);
            (report.status.sync, report.status.plan) = (None, None);
            return;
        };
        let mut status = report.status.sync.take().unwrap_or_default();
        let usable = observed.targets.targets.iter().any(ObservedTarget::works);
        let request = Request::new(object, observed, spec);
        let start = self.decide(object, &request, spec, &status, usable);
        if let Some(number) = start {
            let key = request.key(number);
            let job = || self.job(object, observed, spec, &request, cx, &status);
            let state = self.jobs.ensure(&uid, key, &cx.fence, &cx.requeue, job);
            self.take(object, spec, &request, &state, &mut status, report);
        }
        if let Some(known) = self.known.lock().get(&uid)
            && !known.running
        {
            status.next_run = Some(Time(known.due));
            let wait = known.due.duration_since(Timestamp::now());
            report.requeue_within(Duration::try_from(wait).unwrap_or(Duration::from_millis(1)));
        }
        report.status.sync = Some(status);
    }

    /// The number of the sync that runs or is to run; none while none is due.
    fn decide(
        &self,
        object: &LdapDirectory,
        request: &Request,
        spec: &Sync,
        status: &SyncStatus,
        usable: bool,
    ) -> Option<u64> {
        let now = Timestamp::now();
        let mut all = self.known.lock();
        let base = request.base();
        let known = all.entry(object.uid().unwrap_or_default()).or_insert_with(|| {
            // A restart of the operator is no reason to sync; a request that nobody has handled yet is.
            let handled = request.is_handled(status);
            let last = status.last_run.as_ref().filter(|_| handled);
            let due = last.map_or(now, |last| next(spec, request.cron, last.ended.0));
            let labels = (object.namespace().unwrap_or_default(), object.name_any());
            Known { base, running: false, number: 0, due, labels }
        });
        if known.base != base {
            (known.base, known.running, known.due) = (base, false, now);
        }
        if !known.running && known.due <= now && usable {
            (known.running, known.number) = (true, known.number + 1);
        }
        known.running.then_some(known.number)
    }

    fn job(
        &self,
        object: &LdapDirectory,
        observed: &Observed,
        spec: &Sync,
        request: &Request,
        cx: &ReconcileContext,
        status: &SyncStatus,
    ) -> SyncJob {
        let source = observed.source();
        let settings = SyncSettings {
            force_full: request.sync_now != status.handled_sync_now,
            approval: request.approval.clone(),
            ..settings(object, observed, spec, &source)
        };
        SyncJob {
            store: Arc::clone(&self.store),
            source: Arc::new(source),
            settings,
            fence: cx.fence.clone(),
            metrics: self.metrics.clone(),
            labels: (object.namespace().unwrap_or_default(), object.name_any()),
        }
    }

    /// Reports what a first sync would do, and does nothing.
    pub(super) async fn plan(
        &self,
        object: &LdapDirectory,
        observed: &Observed,
        report: &mut Report<LdapDirectoryStatus>,
    ) {
        let usable = observed.targets.targets.iter().any(ObservedTarget::works);
        let Some(spec) = object.spec.sync.as_ref().filter(|_| usable) else { return };
        let (source, started) = (observed.source(), Timestamp::now());
        let settings = SyncSettings { mode: Mode::Plan, ..settings(object, observed, spec, &source) };
        let (source, control) = (Arc::new(source), Control::default());
        let planned = Box::pin(sync::run(&self.store, &source, &settings, &control)).await;
        let mut status = SyncStatus::default();
        match planned {
            Ok(planned) => {
                let (known, failures) = (UserCounts::default(), Vec::new());
                let ended = Ended { started, at: Timestamp::now(), report: planned, known, failures };
                ended.report(&mut status, &mut report.status.plan);
            }
            Err(error) => ended::report_failure(&mut status, &error.to_string()),
        }
        report.status.sync = Some(status);
    }

    /// Takes over how far the sync is.
    fn take(
        &self,
        object: &LdapDirectory,
        spec: &Sync,
        request: &Request,
        state: &JobState<SyncProgress>,
        status: &mut SyncStatus,
        report: &mut Report<LdapDirectoryStatus>,
    ) {
        if let Some(failure) = &state.failure {
            // It is tried again; what was known stays.
            status.running = None;
            ended::report_failure(status, failure);
            return;
        }
        let Some(ended) = state.progress.ended.as_ref().filter(|_| state.done) else {
            status.running = Some(state.progress.running(Timestamp::now()));
            status.next_run = None;
            return;
        };
        let uid = object.uid().unwrap_or_default();
        let stale =
            request.approval.is_some() && request.approval != status.handled_approval && ended.is_held();
        ended.report(status, &mut report.status.plan);
        status.handled_sync_now.clone_from(&request.sync_now);
        status.handled_approval.clone_from(&request.approval);
        if stale {
            let message = format!(
                "{APPROVE_ANNOTATION} is not the hash of the current plan, which is in status.plan.hash"
            );
            report.events.push(EventRecord { warning: true, reason: Reason::ApprovalIgnored, message });
        }
        if let Some(known) = self.known.lock().get_mut(&uid) {
            (known.running, known.due) = (false, next(spec, request.cron, ended.at));
        }
    }
}

/// When the sync after the one that ended then starts.
fn next(spec: &Sync, cron: Option<Cron>, ended: Timestamp) -> Timestamp {
    if let Some(cron) = cron {
        return cron.after(ended).unwrap_or(Timestamp::MAX);
    }
    let interval = spec.interval.map_or(INTERVAL, crate::api::shared::BoundedDuration::get);
    let interval = SignedDuration::try_from(interval).unwrap_or(SignedDuration::from_hours(1));
    ended.checked_add(interval).unwrap_or(Timestamp::MAX)
}

/// What decides whether another sync is wanted.
struct Request {
    digest: u64,
    cron: Option<Cron>,
    sync_now: Option<String>,
    approval: Option<String>,
}

impl Request {
    fn new(object: &LdapDirectory, observed: &Observed, spec: &Sync) -> Self {
        let mut hash = DefaultHasher::new();
        observed.resolved.servers.key().hash(&mut hash);
        let when = (&spec.interval, &spec.schedule);
        format!(
            "{:?} {:?} {:?} {when:?}",
            observed.resolved.layout,
            observed.resolved.roles,
            Sync {
                // When the next one is due changes nothing of what is synced.
                interval: None,
                schedule: None,
                ..spec.clone()
            }
        )
        .hash(&mut hash);
        let annotation = |name: &str| object.annotations().get(name).filter(|it| !it.is_empty()).cloned();
        Self {
            digest: hash.finish(),
            cron: observed.resolved.cron,
            sync_now: annotation(SYNC_ANNOTATION),
            approval: annotation(APPROVE_ANNOTATION),
        }
    }

    fn base(&self) -> u64 {
        let mut hash = DefaultHasher::new();
        (self.digest, &self.sync_now, &self.approval).hash(&mut hash);
        hash.finish()
    }

    fn key(&self, number: u64) -> u64 {
        let mut hash = DefaultHasher::new();
        (self.base(), number).hash(&mut hash);
        hash.finish()
    }

    fn is_handled(&self, status: &SyncStatus) -> bool {
        self.sync_now == status.handled_sync_now && self.approval == status.handled_approval
    }
}
