//! One reconcile of one object, from what the cache has to what the API server is told.

mod carry_over;
mod finalize;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use kube::{
    Resource, ResourceExt,
    core::{DeserializeGuard, object::HasStatus},
    runtime::{controller::Action, reflector::ObjectRef},
};
use tracing::Instrument;

use super::{
    ControllerDeps, Error, EventRecord, Object, ReconcileContext, Reconciler, Report, StatusOf,
    object_state::ObjectStates,
    triggers::{Key, Triggers},
};
use crate::{
    api::{
        ConditionType, Managed, Reason,
        status::{CommonStatus, Status},
    },
    cluster::{object_cache::ScopedCache, objects},
    domain::{
        backoff::{self, RESYNC, Retry},
        conditions::{self, ConditionUpdate, advise, transitions},
    },
};

pub(super) use carry_over::kept_conditions;
use carry_over::{last_error, with_pending_status, without_numbers};

/// Keeps an object until its external state is cleaned up.
pub const FINALIZER: &str = "authlink.dev/cleanup";

/// How long it may take to write that a reconcile failed.
const REPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// What every reconcile of a kind uses.
pub(super) struct Runner<R: Reconciler> {
    reconciler: Arc<R>,
    deps: ControllerDeps,
    cache: Arc<ScopedCache<R::Object>>,
    states: Arc<ObjectStates<StatusOf<R>>>,
    triggers: Triggers<R::Object>,
}

/// How a reconcile ended, and what comes next.
struct Outcome {
    name: &'static str,
    next: Action,
}

impl<R: Reconciler> Runner<R> {
    pub(super) fn new(
        reconciler: Arc<R>,
        deps: ControllerDeps,
        cache: &Arc<ScopedCache<R::Object>>,
        states: Arc<ObjectStates<StatusOf<R>>>,
        triggers: Triggers<R::Object>,
    ) -> Self {
        Self { reconciler, deps, cache: Arc::clone(cache), states, triggers }
    }

    pub(super) fn deps(&self) -> &ControllerDeps {
        &self.deps
    }

    /// The object of this uid is gone.
    pub(super) fn forget(&self, uid: &str) {
        self.reconciler.forget(uid);
        self.deps.events.forget(uid);
        self.states.forget(uid);
    }

    pub(super) async fn on_leadership_lost(&self) {
        self.reconciler.on_leadership_lost().await;
    }

    pub(super) async fn run(self: Arc<Self>, object: Arc<DeserializeGuard<R::Object>>) -> Action {
        let started = Instant::now();
        // In this order: the cache has what the watch brings before the pending status is dropped.
        let pending = self.states.pending_status(&object.uid().unwrap_or_default());
        let object = self.newest(object);
        let uid = object.uid().unwrap_or_default();
        // The watch may have been faster than the answer to the write.
        self.states.observed(&uid, &object.resource_version().unwrap_or_default());
        let span = tracing::info_span!(
            "reconcile",
            kind = R::NAME,
            namespace = object.namespace().unwrap_or_default(),
            object = object.name_any()
        );
        async {
            let timeout = self.deps.config.reconcile_timeout;
            let late = |_| Err(Error::TimedOut(timeout));
            let ended = match &object.0 {
                Ok(object) => {
                    let object = &*with_pending_status(object, pending);
                    let current = object.status().cloned().unwrap_or_default();
                    let ended = tokio::time::timeout(timeout, self.reconcile(object, &current)).await;
                    let ended = ended.unwrap_or_else(late);
                    if let Err(error) = &ended {
                        // Best effort: an API server that failed the reconcile may well fail this, too, and the log has it anyway.
                        let reported = self.report_failure(object, &current, error);
                        let _ = tokio::time::timeout(REPORT_TIMEOUT, reported).await;
                    }
                    ended
                }
                Err(_) => {
                    tokio::time::timeout(timeout, self.reject_unreadable(&object)).await.unwrap_or_else(late)
                }
            };
            let outcome = ended.unwrap_or_else(|error| self.failed(&uid, &error));
            if outcome.name != "failed" {
                self.states.succeeded(&uid);
            }
            self.deps.metrics.engine.reconciled(R::NAME, outcome.name, started.elapsed());
            // Deleted while it was reconciled, it was forgotten too early.
            let stored = self.cache.store().get(&ObjectRef::from_obj(&*object));
            if stored.is_none_or(|stored| stored.uid() != object.uid()) {
                self.forget(&uid);
            }
            outcome.next
        }
        .instrument(span)
        .await
    }

    /// The object as the cache has it now; a new one of the same name is reconciled by itself.
    fn newest(&self, object: Arc<DeserializeGuard<R::Object>>) -> Arc<DeserializeGuard<R::Object>> {
        let stored = self.cache.store().get(&ObjectRef::from_obj(&*object));
        stored.filter(|stored| stored.uid() == object.uid()).unwrap_or(object)
    }

    /// How a reconcile ends that is to be retried with backoff.
    fn failed(&self, uid: &str, error: &Error) -> Outcome {
        let failures = self.states.failed(uid);
        tracing::warn!(%error, failures, "reconcile failed");
        self.deps.metrics.engine.failed(R::NAME, error.reason());
        let delay = backoff::delay(error.retry(), failures, rand::random());
        Outcome { name: "failed", next: Action::requeue(delay) }
    }

    async fn reconcile(&self, object: &R::Object, current: &StatusOf<R>) -> Result<Outcome, Error> {
        if object.meta().deletion_timestamp.is_some() {
            return self.finalize(object).await;
        }
        if object.suspended() {
            self.reconciler.forget(&object.uid().unwrap_or_default());
            let message = "spec.suspend is set: nothing is probed";
            let suspended = ConditionUpdate::is_true(ConditionType::Suspended, Reason::Suspended, message);
            let conditions = [kept_conditions(current), vec![suspended]].concat();
            let report = Report { conditions, status: current.clone(), ..Report::default() };
            self.write(object, current, report, object.meta().generation).await?;
            return Ok(Outcome { name: "suspended", next: Action::await_change() });
        }
        if object.has_external_state() && !object.finalizers().iter().any(|name| name == FINALIZER) {
            let finalizers = [object.finalizers(), &[FINALIZER.to_owned()]].concat();
            self.deps.fence.check()?;
            objects::set_finalizers(&self.deps.client, object, &finalizers).await?;
            // The watch brings the object back with its finalizer: only then external state may be made.
            return Ok(Outcome { name: "applied", next: Action::await_change() });
        }
        let cx = self.context(Some(key_of(object)));
        match self.reconciler.reconcile(object, &cx).await {
            Ok(report) => self.apply(object, current, report).await,
            // The end of the first probe requeues it.
            Err(Error::FirstProbePending) => Ok(Outcome { name: "waiting", next: Action::await_change() }),
            Err(error) if error.condition().is_none() => Err(error),
            Err(error) => {
                let mut report = Report::of_error(object, error);
                let (namespace, uid) =
                    (object.namespace().unwrap_or_default(), object.uid().unwrap_or_default());
                if let Err(error) = self.reconciler.reject(&namespace, &uid, &cx).await {
                    report.error = Some(error);
                }
                self.apply(object, current, report).await
            }
        }
    }

    /// Writes the report, and says when the next reconcile is due.
    async fn apply(
        &self,
        object: &R::Object,
        current: &StatusOf<R>,
        mut report: Report<StatusOf<R>>,
    ) -> Result<Outcome, Error> {
        let uid = object.uid().unwrap_or_default();
        let error = report.error.take();
        report.conditions =
            conditions::complete(R::Object::CONDITIONS, R::Object::READY_WHEN, report.conditions);
        let own = error.as_ref().filter(|error| error.condition().is_none());
        report.conditions.extend(own.map(reconciling));
        let after = report.requeue_after.unwrap_or(RESYNC);
        let written = self.write(object, current, report, object.meta().generation).await?;
        let Some(error) = error else {
            let next = Action::requeue(after.min(self.until_refresh(&uid)));
            return Ok(Outcome { name: if written { "applied" } else { "unchanged" }, next });
        };
        if error.condition().is_none() {
            return Ok(self.failed(&uid, &error));
        }
        self.deps.metrics.engine.failed(R::NAME, error.reason());
        let next = match error.retry() {
            Retry::OnChange => Action::await_change(),
            retry => Action::requeue(backoff::delay(retry, 1, rand::random())),
        };
        Ok(Outcome { name: "refused", next })
    }

    /// A reconcile that failed for a reason of the operator's own says nothing new of the object, except that it is not done.
    async fn report_failure(&self, object: &R::Object, current: &StatusOf<R>, error: &Error) {
        if object.meta().deletion_timestamp.is_some() || matches!(error, Error::NotLeader(_)) {
            return;
        }
        let conditions = [kept_conditions(current), vec![reconciling(error)]].concat();
        let report = Report { conditions, status: current.clone(), ..Report::default() };
        let _ = self.write(object, current, report, current.common().observed_generation).await;
    }

    /// Writes the status if more than its numbers changed, or they are old; then the Events. `generation` is the one that the
    /// report is about. Whether it wrote.
    async fn write(
        &self,
        object: &R::Object,
        current: &StatusOf<R>,
        report: Report<StatusOf<R>>,
        generation: Option<i64>,
    ) -> Result<bool, Error> {
        let uid = object.uid().unwrap_or_default();
        let now = Timestamp::now();
        let mut status = report.status;
        let common = status.common_mut();
        common.observed_generation = generation;
        common.conditions =
            conditions::merge(&current.common().conditions, &report.conditions, generation, now);
        common.last_error = last_error(current.common(), &report.conditions, now);
        let changed = without_numbers(&status) != without_numbers(current);
        let refresh = self.deps.config.status_refresh;
        let stale = !refresh.is_zero() && self.states.age(&uid) >= refresh && status != *current;
        if changed || stale {
            self.deps.fence.check()?;
            let version = match objects::apply_status(&self.deps.client, object, &status).await {
                // The object went, or is another one: the watch brings that.
                Err(kube::Error::Api(answer)) if answer.is_not_found() || answer.is_conflict() => {
                    return Ok(false);
                }
                answer => answer?,
            };
            self.deps.metrics.engine.status_written(R::NAME);
            self.states.status_written(&uid, version, status);
        }
        let transitions =
            transitions(&current.common().conditions, &report.conditions).into_iter().map(|change| {
                EventRecord { warning: change.warning, reason: change.reason, message: change.message }
            });
        for event in transitions.chain(report.events) {
            tracing::info!(reason = event.reason.as_str(), "{}", event.message);
            self.publish_event(object, event.warning, event.reason, &event.message).await;
        }
        Ok(changed || stale)
    }

    async fn publish_event<K: Resource<DynamicType = ()>>(
        &self,
        object: &K,
        warning: bool,
        reason: Reason,
        note: &str,
    ) {
        self.deps.events.publish(&object.object_ref(&()), warning, reason.as_str(), note).await;
    }

    /// How long the numbers in the status may still stay as they are.
    fn until_refresh(&self, uid: &str) -> Duration {
        let refresh = self.deps.config.status_refresh;
        match refresh.saturating_sub(self.states.age(uid)) {
            _ if refresh.is_zero() => RESYNC,
            // They are old, and have not moved.
            Duration::ZERO => refresh.min(RESYNC),
            left => left,
        }
    }

    /// An object that this version cannot read (a newer one wrote it) says so, and blocks no other.
    async fn reject_unreadable(&self, object: &DeserializeGuard<R::Object>) -> Result<Outcome, Error> {
        let Err(invalid) = &object.0 else {
            return Ok(Outcome { name: "unchanged", next: Action::await_change() });
        };
        let uid = object.uid().unwrap_or_default();
        self.reconciler.forget(&uid);
        let kept = object.finalizers().iter().any(|name| name == FINALIZER);
        if kept && object.meta().deletion_timestamp.is_some() {
            return self.release_unreadable(object).await;
        }
        let error = Error::InvalidSpec { field: "spec".to_owned(), problem: invalid.error.clone() };
        let updates = error.conditions(R::Object::CONDITIONS);
        let updates = conditions::complete(R::Object::CONDITIONS, R::Object::READY_WHEN, updates);
        let generation = object.meta().generation;
        let namespace = object.namespace().unwrap_or_default();
        let rejected = self.reconciler.reject(&namespace, &uid, &self.context(None)).await;
        let known = objects::conditions(&self.deps.client, object).await?;
        let status = CommonStatus {
            observed_generation: generation,
            conditions: conditions::merge(&known, &updates, generation, Timestamp::now()),
            ..CommonStatus::default()
        };
        self.deps.fence.check()?;
        objects::apply_status(&self.deps.client, object, &status).await?;
        self.deps.metrics.engine.status_written(R::NAME);
        self.deps.metrics.engine.failed(R::NAME, error.reason());
        rejected?;
        Ok(Outcome { name: "refused", next: Action::await_change() })
    }

    fn context(&self, key: Option<Key<R::Object>>) -> ReconcileContext {
        let (triggers, shared) = (self.triggers.clone(), self.cache.shared());
        ReconcileContext {
            client: self.deps.client.clone(),
            references: Arc::clone(shared.references()),
            publisher: Arc::clone(shared.publisher()),
            resolver: Arc::clone(&self.deps.resolver),
            egress: Arc::clone(&self.deps.egress),
            fence: self.deps.fence.clone(),
            requeue: Arc::new(move || {
                if let Some(key) = &key {
                    triggers.fire(key.clone());
                }
            }),
        }
    }
}

/// A failure of the operator's own, as users read it.
fn reconciling(error: &Error) -> ConditionUpdate {
    let message = advise(error.reason(), &error.to_string());
    ConditionUpdate::is_true(ConditionType::Reconciling, error.reason(), message)
}

fn key_of<K: Object>(object: &K) -> Key<K> {
    ObjectRef::new(&object.name_any()).within(&object.namespace().unwrap_or_default())
}
